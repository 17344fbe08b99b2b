//! `[pricing]` and `[[price]]`: what to do with calls that have no price, or no bill, and prices
//! that were negotiated.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;
use weir_core::catalog::Provider;
use weir_core::pricing::{Kind, Negotiated};

use super::ConfigError;
use super::file::{Source, decimal};

/// `[pricing]` and `[[price]]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pricing {
    /// What happens to a call of a model without a price.
    pub unpriced: Unpriced,
    /// Whether what a subscription pays for counts as spent.
    pub subscriptions: Subscriptions,
    /// Negotiated prices, in the order of the file: the first that fits a call counts.
    pub negotiated: Vec<Negotiated>,
}

/// What happens to a call of a model without a price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpriced {
    /// It passes, and is recorded as unpriced: its cost is in no sum and under no cap. The default.
    #[default]
    Allow,
    /// It is refused.
    Refuse,
    /// It counts, as an estimate, with the same price for each of its tokens.
    Flat {
        /// Pico-dollars per token: millionths of a dollar per million tokens.
        picos_per_token: u64,
    },
}

/// Whether what a subscription pays for counts as spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subscriptions {
    /// It is recorded at list price, apart: nothing is billed for it, so no cap of money counts it.
    /// The default.
    #[default]
    Notional,
    /// It counts at list price, as if it were billed.
    Charged,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPricing {
    unpriced: Option<Spanned<RawUnpriced>>,
    flat_usd_per_mtok: Option<Spanned<IgnoredAny>>,
    subscriptions: Subscriptions,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawUnpriced {
    Allow,
    Refuse,
    Flat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrice {
    provider: Option<Spanned<String>>,
    model: Spanned<String>,
    tier: Option<Spanned<String>>,
    from: Option<Spanned<IgnoredAny>>,
    until: Option<Spanned<IgnoredAny>>,
    discount_percent: Option<Spanned<IgnoredAny>>,
    #[serde(default)]
    usd_per_mtok: BTreeMap<Kind, Spanned<IgnoredAny>>,
}

pub(super) fn check(
    raw: RawPricing,
    prices: Vec<RawPrice>,
    source: &Source<'_>,
) -> Result<Pricing, ConfigError> {
    let unpriced = raw.unpriced.as_ref().map(|unpriced| *unpriced.get_ref());
    let unpriced = match (unpriced, raw.flat_usd_per_mtok) {
        (None | Some(RawUnpriced::Allow), None) => Unpriced::Allow,
        (Some(RawUnpriced::Refuse), None) => Unpriced::Refuse,
        (Some(RawUnpriced::Flat), Some(flat)) => Unpriced::Flat {
            picos_per_token: price(&flat, source)?,
        },
        (Some(RawUnpriced::Flat), None) => {
            let span = raw.unpriced.map(|unpriced| unpriced.span());
            let message = "expected flat_usd_per_mtok beside unpriced = \"flat\", found none: how \
                           many dollars a million tokens shall count";
            return Err(source.invalid(span.unwrap_or_default(), message));
        }
        (_, Some(flat)) => {
            let message = "expected unpriced = \"flat\" beside flat_usd_per_mtok, found another: \
                           the price would not be used";
            return Err(source.invalid(flat.span(), message));
        }
    };
    if let Some(first_too_many) = prices.get(PRICES_MAX) {
        let found = prices.len();
        let message = format!("expected at most {PRICES_MAX} prices, found {found}");
        return Err(source.invalid(first_too_many.model.span(), message));
    }
    let negotiated = prices.into_iter().map(|price| check_price(price, source));
    Ok(Pricing {
        unpriced,
        subscriptions: raw.subscriptions,
        negotiated: negotiated.collect::<Result<_, _>>()?,
    })
}

fn check_price(raw: RawPrice, source: &Source<'_>) -> Result<Negotiated, ConfigError> {
    let model = raw.model.get_ref().trim().to_owned();
    if model.is_empty() || model.trim_matches('*').contains('*') {
        let message = "expected a model's name, with a * at its start or end at most";
        return Err(source.invalid(raw.model.span(), message));
    }
    if let Some(provider) = &raw.provider
        && Provider::from_id(provider.get_ref()).is_none()
    {
        let known: Vec<&str> = Provider::ALL.iter().map(|known| known.as_str()).collect();
        let message = format!("expected one of {}", known.join(", "));
        return Err(source.invalid(provider.span(), message));
    }
    if raw.discount_percent.is_none() && raw.usd_per_mtok.is_empty() {
        let message = "expected usd_per_mtok or discount_percent with the price, found neither";
        return Err(source.invalid(raw.model.span(), message));
    }
    let mut per_token = BTreeMap::new();
    for (kind, usd) in &raw.usd_per_mtok {
        per_token.insert(*kind, price(usd, source)?);
    }
    let (from, until) = (raw.from, raw.until);
    let from_unix = from.as_ref().map(|day| start_of(day, source)).transpose()?;
    let until_unix = until
        .as_ref()
        .map(|day| start_of(day, source))
        .transpose()?;
    if let (Some(from), Some(end), Some(until)) = (from_unix, until_unix, &until)
        && end <= from
    {
        let message = "expected a day after `from`: the price would never hold";
        return Err(source.invalid(until.span(), message));
    }
    Ok(Negotiated {
        provider: raw.provider.map(Spanned::into_inner),
        model,
        tier: raw.tier.map(|tier| check_tier(tier, source)).transpose()?,
        from_unix,
        until_unix,
        per_token,
        factor_ppm: raw
            .discount_percent
            .map(|percent| discounted(&percent, source))
            .transpose()?,
    })
}

fn check_tier(tier: Spanned<String>, source: &Source<'_>) -> Result<String, ConfigError> {
    let is = |known: &&str| known.eq_ignore_ascii_case(tier.get_ref());
    if TIERS.iter().any(is) {
        return Ok(tier.into_inner());
    }
    let message = format!(
        "expected one of {}, found {:?}; a price without a tier is for standard calls",
        TIERS.join(", "),
        tier.get_ref()
    );
    Err(source.invalid(tier.span(), message))
}

/// Pico-dollars per token.
fn price(usd: &Spanned<IgnoredAny>, source: &Source<'_>) -> Result<u64, ConfigError> {
    let text = source.at(usd.span());
    let micros = decimal(text, MICRO_DIGITS).and_then(|micros| u64::try_from(micros).ok());
    micros.ok_or_else(|| {
        let message = format!(
            "expected dollars per million tokens such as 2.50, not negative, with at most six \
             decimals, found {text}"
        );
        source.invalid(usd.span(), message)
    })
}

/// What is left after a discount, in parts per million.
fn discounted(percent: &Spanned<IgnoredAny>, source: &Source<'_>) -> Result<u64, ConfigError> {
    let text = source.at(percent.span());
    // Four decimals of a percent are six of the whole.
    let off = decimal(text, PERCENT_DIGITS).and_then(|off| u64::try_from(off).ok());
    off.and_then(|off| ALL_PPM.checked_sub(off)).ok_or_else(|| {
        let message =
            format!("expected a percentage from 0 to 100 with at most four decimals, found {text}");
        source.invalid(percent.span(), message)
    })
}

/// The second at which a day begins in UTC, as prices change everywhere.
fn start_of(day: &Spanned<IgnoredAny>, source: &Source<'_>) -> Result<i64, ConfigError> {
    let text = source.at(day.span()).trim_matches('"');
    let date = text.parse::<Date>();
    let start = date.and_then(|date| date.to_zoned(TimeZone::UTC));
    start
        .map(|start| start.timestamp().as_second())
        .map_err(|_not_a_day| {
            let message = format!("expected a day such as 2026-12-31, found {text}");
            source.invalid(day.span(), message)
        })
}

/// Tiers that have prices of their own, as providers spell them in requests and answers: batches,
/// Anthropic's speed, the service tiers of `OpenAI`, Gemini, Bedrock, Mistral and Groq, the traffic types
/// of Vertex AI.
const TIERS: [&str; 10] = [
    "batch",
    "flex",
    "priority",
    "fast",
    "ultrafast",
    "performance",
    "reserved",
    "on_demand_flex",
    "on_demand_priority",
    "provisioned_throughput",
];
/// `[[price]]` entries: each call is held against them.
const PRICES_MAX: usize = 256;
/// Decimals of a pico-dollar per token, in dollars per million.
const MICRO_DIGITS: usize = 6;
/// Decimals of a percentage.
const PERCENT_DIGITS: usize = 4;
const ALL_PPM: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    /// The text, where in it the mistake is, and what is said of it.
    const MISTAKES: &[(&str, &str, &str)] = &[
        (
            "[pricing]\nunpriced = \"flat\"",
            "2:12",
            "flat_usd_per_mtok",
        ),
        (
            "[pricing]\nflat_usd_per_mtok = 1",
            "2:21",
            "unpriced = \"flat\"",
        ),
        (
            "[pricing]\nunpriced = \"refuse\"\nflat_usd_per_mtok = 1",
            "3:21",
            "would not be used",
        ),
        (
            "[pricing]\nunpriced = \"flat\"\nflat_usd_per_mtok = 1e3",
            "3:21",
            "six decimals, found 1e3",
        ),
        ("[pricing]\nunpriced = \"maybe\"", "2:12", "`refuse`"),
        ("[pricing]\nsubscriptions = \"free\"", "2:17", "`charged`"),
        (
            "[[price]]\nmodel = \"a\"",
            "2:9",
            "usd_per_mtok or discount_percent",
        ),
        (
            "[[price]]\nmodel = \"a*b\"\ndiscount_percent = 1",
            "2:9",
            "start or end",
        ),
        (
            "[[price]]\nmodel = \" \"\ndiscount_percent = 1",
            "2:9",
            "a model's name",
        ),
        (
            "[[price]]\nmodel = \"a\"\nprovider = \"antropic\"\ndiscount_percent = 1",
            "3:12",
            "anthropic",
        ),
        (
            "[[price]]\nmodel = \"a\"\ntier = \"batsch\"\ndiscount_percent = 1",
            "3:8",
            "found \"batsch\"",
        ),
        (
            "[[price]]\nmodel = \"a\"\ntier = \"standard\"\ndiscount_percent = 1",
            "3:8",
            "without a tier",
        ),
        (
            "[[price]]\nmodel = \"a\"\ndiscount_percent = 101",
            "3:20",
            "from 0 to 100",
        ),
        (
            "[[price]]\nmodel = \"a\"\ndiscount_percent = -1",
            "3:20",
            "from 0 to 100",
        ),
        (
            "[[price]]\nmodel = \"a\"\nusd_per_mtok = { input = -2 }",
            "3:26",
            "not negative",
        ),
        (
            "[[price]]\nmodel = \"a\"\nusd_per_mtok = { inputs = 2 }",
            "3:",
            "`input_audio`",
        ),
        (
            "[[price]]\nmodel = \"a\"\nfrom = 2026-12-01\nuntil = 2026-12-01\ndiscount_percent = 1",
            "4:9",
            "after `from`",
        ),
        (
            "[[price]]\nmodel = \"a\"\nfrom = \"soon\"\ndiscount_percent = 1",
            "3:8",
            "such as 2026-12-31",
        ),
    ];

    #[test]
    fn a_price_that_can_not_be_meant_is_refused_where_it_stands() {
        for (text, place, expected) in MISTAKES {
            let error = Config::parse(text, Path::new("f")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("f:{place}")), "{text}: {error}");
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
