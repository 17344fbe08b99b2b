//! What a table says of a model, for people: every price with when it holds.

use serde::Serialize;

use super::decimal::{self, Micros, Piece, Rate};
use super::file::{Model, PerThousand, Price};
use super::layer::Found;
use super::per_mtok::PerMtok;
use super::rates::NO_SURCHARGE_PPM;
use super::{Context, PriceList, PriceTable, listed_as, model_name};

/// A model as one list has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Whose list it is in.
    pub provider: String,
    /// Its id there.
    pub model: String,
    /// The version of the list.
    pub list: String,
    /// Whether a list above has the model too, so that this price is not used.
    pub overridden: bool,
    /// Whether it is the maker's price, for a provider that has none of its own.
    pub list_price_of_maker: bool,
    /// The most tokens of prompt and answer together.
    pub context_window: Option<u64>,
    /// The most tokens of an answer.
    pub max_output_tokens: Option<u64>,
    /// The shortest prompt that is cached, in tokens.
    pub min_cacheable_tokens: Option<u64>,
    /// Every price, standard ones first, in the order of the list.
    pub prices: Vec<Entry>,
}

/// A price with when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `standard`, `batch`, a service tier, `fast`; for a factor what it is put on.
    pub what: String,
    /// The day from which on it holds, UTC.
    pub from: Option<String>,
    /// The hours within which it holds, and of which days.
    pub hours: Option<String>,
    /// Whether it holds at the time that was asked for; of a variant, whether it would.
    pub in_force: bool,
    /// Its rates.
    pub rates: Vec<Step>,
}

/// A rate, for prompts above a length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it is for: a kind of token, `web_searches`, `file_searches`, `requests`, `factor`.
    pub kind: String,
    /// Dollars per million tokens or per thousand pieces, or a factor, as an exact decimal.
    pub usd: String,
    /// It holds for all tokens of prompts with more tokens than this.
    pub above_prompt_tokens: u64,
}

impl PriceTable {
    /// What every list says of the model, the topmost first: of the provider in `context`, or of
    /// every provider that has it, if that is empty.
    #[must_use]
    pub fn show(&self, context: &Context<'_>) -> Vec<Shown> {
        let spellings = model_name::spellings(context.model);
        let provider = listed_as(context.provider);
        let mut shown: Vec<Shown> = Vec::new();
        for list in self.lists() {
            let mut providers: Vec<&str> = list.providers().collect();
            providers.sort_unstable();
            providers.retain(|listed| provider.is_empty() || *listed == provider);
            for provider in providers {
                let Some(found) = list.of_provider(provider, &spellings) else {
                    continue;
                };
                let overridden = shown.iter().any(|above| above.provider == provider);
                shown.push(describe(list, &found, overridden, context.at_unix));
            }
        }
        if shown.is_empty()
            && let Some((list, found)) = self.find(context.provider, &spellings)
        {
            shown.push(describe(list, &found, false, context.at_unix));
        }
        shown
    }
}

fn describe(list: &PriceList, found: &Found<'_>, overridden: bool, at_unix: i64) -> Shown {
    let model = found.model;
    let base = model.base(at_unix);
    let mut prices: Vec<Entry> = model
        .prices
        .iter()
        .map(|price| standard(price, base.is_some_and(|base| std::ptr::eq(base, price))))
        .collect();
    prices.extend(model.variants.iter().map(|variant| {
        Entry {
            what: variant.when.name(),
            from: variant
                .effective_from
                .and_then(|day| day.date())
                .map(|day| day.to_string()),
            hours: None,
            in_force: variant.effective_from.is_none_or(|day| day.0 <= at_unix),
            rates: tokens(&variant.per_mtok),
        }
    }));
    prices.extend(factors(model));
    Shown {
        provider: model.provider.clone(),
        model: model.id.clone(),
        list: list.version().to_owned(),
        overridden,
        list_price_of_maker: found.notional,
        context_window: model.context_window,
        max_output_tokens: model.max_output_tokens,
        min_cacheable_tokens: model.min_cacheable_tokens,
        prices,
    }
}

fn standard(price: &Price, in_force: bool) -> Entry {
    let mut rates = tokens(&price.per_mtok);
    rates.extend(pieces(&price.per_1k));
    Entry {
        what: "standard".to_owned(),
        from: price
            .effective_from
            .and_then(|day| day.date())
            .map(|day| day.to_string()),
        hours: price.utc_time_window.as_ref().map(ToString::to_string),
        in_force,
        rates,
    }
}

fn tokens(per_mtok: &PerMtok) -> Vec<Step> {
    let steps = |(kind, rate): (super::Kind, &Rate)| {
        let kind = kind.as_str();
        rate.steps().into_iter().map(move |(above, picos)| Step {
            kind: kind.to_owned(),
            usd: decimal::text(picos),
            above_prompt_tokens: above,
        })
    };
    per_mtok.iter().flat_map(steps).collect()
}

fn pieces(per_1k: &PerThousand) -> impl Iterator<Item = Step> {
    let all = [
        ("web_searches", per_1k.web_searches),
        ("file_searches", per_1k.file_searches),
        ("requests", per_1k.requests),
    ];
    all.into_iter().filter_map(|(kind, piece)| {
        let Piece(picos) = piece?;
        Some(Step {
            kind: kind.to_owned(),
            usd: decimal::text(picos.div_euclid(1000)),
            above_prompt_tokens: 0,
        })
    })
}

fn factors(model: &Model) -> impl Iterator<Item = Entry> {
    let all = [
        ("inference_geo us", model.inference_geo_us),
        ("regional host", model.regional),
    ];
    all.into_iter().filter_map(|(what, factor)| {
        let Micros(millionths) = factor.filter(|factor| factor.0 != NO_SURCHARGE_PPM)?;
        Some(Entry {
            what: what.to_owned(),
            from: None,
            hours: None,
            in_force: true,
            rates: vec![Step {
                kind: "factor".to_owned(),
                usd: decimal::text(millionths),
                above_prompt_tokens: 0,
            }],
        })
    })
}
