//! genai-prices, version 2: providers with models, USD per million tokens, with dates, hours and
//! variants. Its rules for names are taken over as far as they are no regular expressions; of
//! those only the ones for a date are.

use std::collections::BTreeMap;

use jiff::civil::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::super::decimal::{Piece, Rate, scaled};
use super::super::file::{Day, Hours, Model, PerThousand, Price, Processing, Variant, When};
use super::super::model_name::Rule;
use super::super::per_mtok::PerMtok;
use super::{Kind, is_maker, provider_id};

/// The models, and how many rows there are.
pub(super) fn read(text: &str) -> Result<(Vec<Model>, usize), serde_json::Error> {
    let providers: Vec<Provider> = serde_json::from_str(text)?;
    let all = providers.iter().map(|provider| provider.models.len());
    let all = all.fold(0_usize, usize::saturating_add);
    let models = providers.into_iter().flat_map(|provider| {
        let id = provider_id(&provider.id).to_owned();
        let models = provider.models.into_iter();
        models.filter_map(move |model| model.read(&id))
    });
    Ok((models.collect(), all))
}

#[derive(Deserialize)]
struct Provider {
    id: String,
    #[serde(default)]
    models: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(rename = "match")]
    clause: Option<Clause>,
    context_window: Option<u64>,
    /// Rates, or a list of those with the condition under which they hold.
    prices: Box<RawValue>,
    #[serde(default)]
    price_variants: Option<Vec<ListedVariant>>,
}

type Rates = BTreeMap<String, Box<RawValue>>;

#[derive(Deserialize)]
struct Conditional {
    constraint: Option<Constraint>,
    prices: Rates,
}

#[derive(Deserialize)]
struct ListedVariant {
    when: BTreeMap<String, String>,
    prices: Rates,
    constraint: Option<Constraint>,
}

#[derive(Deserialize)]
struct Constraint {
    start_date: Option<Day>,
    start_time: Option<String>,
    end_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Clause {
    Equals(String),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Regex(String),
    Or(Vec<Self>),
    And(IgnoredAny),
}

impl Clause {
    fn rules(&self) -> Vec<Rule> {
        let some = |text: &String| Some(text.as_str().into());
        let rule = match self {
            Self::Equals(text) => Rule::equals(text),
            Self::StartsWith(text) => Rule {
                starts_with: some(text),
                ..Rule::default()
            },
            Self::EndsWith(text) => Rule {
                ends_with: some(text),
                ..Rule::default()
            },
            Self::Contains(text) => Rule {
                contains: some(text),
                ..Rule::default()
            },
            Self::Regex(text) => return dated(text).into_iter().collect(),
            Self::Or(clauses) => return clauses.iter().flat_map(Self::rules).collect(),
            // A part that can't be taken over would make the whole match too much.
            Self::And(_) => return Vec::new(),
        };
        vec![rule]
    }
}

/// A rule for `^claude-opus-5-\d{8}$` and the like.
fn dated(regex: &str) -> Option<Rule> {
    let body = regex.strip_prefix('^')?.strip_suffix('$')?;
    let dates = [r"-\d{8}", r"[-@]\d{8}", r"@\d{8}", r"-\d{4}-\d{2}-\d{2}"];
    let name = dates.iter().find_map(|date| body.strip_suffix(date))?;
    let name = name.replace(r"\.", ".").replace(r"\-", "-");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-./_:".contains(&byte);
    name.bytes().all(is_plain).then(|| Rule {
        dated: Some(name.into()),
        ..Rule::default()
    })
}

impl Listed {
    fn read(self, provider: &str) -> Option<Model> {
        let mut rules = vec![Rule::equals(&self.id)];
        rules.extend(self.clause.iter().flat_map(Clause::rules));
        let conditional: Vec<Conditional> = if self.prices.get().starts_with('[') {
            serde_json::from_str(self.prices.get()).ok()?
        } else {
            vec![Conditional {
                constraint: None,
                prices: serde_json::from_str(self.prices.get()).ok()?,
            }]
        };
        let prices = conditional.into_iter().map(Conditional::read);
        let prices: Vec<Price> = prices.collect::<Option<_>>()?;
        prices.first()?.per_mtok.get(Kind::Input)?;
        let variants = self.price_variants.unwrap_or_default();
        let variants = variants.into_iter().filter_map(ListedVariant::read);
        Some(Model {
            provider: provider.to_owned(),
            resold: !is_maker(provider, &self.id),
            id: self.id,
            rules,
            context_window: self.context_window,
            max_output_tokens: None,
            min_cacheable_tokens: None,
            inference_geo_us: None,
            regional: None,
            prices,
            variants: variants.collect(),
        })
    }
}

impl Conditional {
    /// None where it holds under a condition that is not understood.
    fn read(self) -> Option<Price> {
        let (per_mtok, per_1k) = rates(&self.prices);
        let mut price = Price {
            effective_from: None,
            utc_time_window: None,
            per_mtok,
            per_1k,
        };
        if let Some(constraint) = self.constraint {
            if let (Some(start), Some(end)) = (&constraint.start_time, &constraint.end_time) {
                let (start, end) = (time(start)?, time(end)?);
                price.utc_time_window = (start < end).then_some(Hours {
                    start,
                    end,
                    // The form has no days of the week.
                    daily: true,
                });
                price.utc_time_window.as_ref()?;
            } else {
                price.effective_from = Some(constraint.start_date?);
            }
        }
        Some(price)
    }
}

impl ListedVariant {
    fn read(self) -> Option<Variant> {
        let mut when = When::default();
        for (name, value) in self.when {
            match (name.as_str(), value.as_str()) {
                ("processing", "batch") => when.processing = Some(Processing::Batch),
                ("service_tier", _) => when.service_tier = Some(value),
                ("speed", _) => when.speed = Some(value),
                _ => return None,
            }
        }
        let effective_from = match self.constraint {
            None => None,
            Some(constraint) => Some(constraint.start_date?),
        };
        Some(Variant {
            when,
            effective_from,
            per_mtok: rates(&self.prices).0,
        })
    }
}

/// `01:00:00`, with or without a `Z`.
fn time(text: &str) -> Option<Time> {
    text.trim_end_matches('Z').parse().ok()
}

/// The rates that are known; others are for what Weir does not tell apart.
fn rates(prices: &Rates) -> (PerMtok, PerThousand) {
    let mut per_mtok = BTreeMap::new();
    let mut per_1k = PerThousand::default();
    for (name, raw) in prices {
        if let Some(kind) = name.strip_suffix("_mtok").and_then(kind) {
            if let Some(rate) = rate(raw) {
                per_mtok.insert(kind, rate);
            }
            continue;
        }
        let piece = scaled(raw.get(), NANO_DIGITS).map(Piece);
        match name.as_str() {
            "web_searches_kcount" => per_1k.web_searches = piece,
            "storage_searches_kcount" => per_1k.file_searches = piece,
            "requests_kcount" => per_1k.requests = piece,
            _ => {}
        }
    }
    (per_mtok.into(), per_1k)
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "input" => Kind::Input,
        "output" => Kind::Output,
        "cache_read" => Kind::CacheRead,
        "cache_write" => Kind::CacheWrite,
        "cache_write_1h" => Kind::CacheWriteLong,
        "input_audio" => Kind::InputAudio,
        "input_image" => Kind::InputImage,
        "input_video" => Kind::InputVideo,
        "cache_audio_read" => Kind::CacheAudio,
        "cache_image_read" => Kind::CacheImage,
        "output_audio" => Kind::OutputAudio,
        "output_image" => Kind::OutputImage,
        "output_reasoning" => Kind::Reasoning,
        "output_citation" => Kind::Citation,
        _ => return None,
    })
}

fn rate(raw: &RawValue) -> Option<Rate> {
    #[derive(Deserialize)]
    struct Tiered {
        base: Box<RawValue>,
        tiers: Vec<Tier>,
    }
    #[derive(Deserialize)]
    struct Tier {
        start: u64,
        price: Box<RawValue>,
    }
    if let Some(picos) = scaled(raw.get(), MICRO_DIGITS) {
        return Some(Rate::Flat(picos));
    }
    let tiered: Tiered = serde_json::from_str(raw.get()).ok()?;
    let mut steps = vec![(0, scaled(tiered.base.get(), MICRO_DIGITS)?)];
    for tier in tiered.tiers {
        steps.push((tier.start, scaled(tier.price.get(), MICRO_DIGITS)?));
    }
    Rate::of_steps(steps)
}

/// Decimals of a pico-dollar per token in dollars per million, and per piece in dollars per
/// thousand.
const MICRO_DIGITS: i32 = 6;
const NANO_DIGITS: i32 = 9;
