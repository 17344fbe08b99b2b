//! The price file: its JSON form, and which of its prices apply when.
//!
//! One model is one line. `prices` is a list: a later entry replaces the ones before it from its
//! `effective_from` on, or, more strongly, within its `utc_time_window` (Monday to Friday).
//! `variants` are partial overrides: for each single rate, the first variant that applies and has
//! that rate wins. A rate is USD per million tokens (`per_mtok`) or per thousand pieces
//! (`per_1k`), a number, or a list of `[prompt tokens, USD]`, of which the last whose count is
//! **below** the prompt's applies to every token of the call.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::value::RawValue;

use super::model_name::Rule;

/// Why a text is not a price table.
#[derive(Debug, thiserror::Error)]
pub enum PriceTableError {
    /// Not JSON, or not of the form of a price table.
    #[error("expected a price table as JSON, found: {0}")]
    Form(#[from] serde_json::Error),
    /// A model that can never be found or priced.
    #[error("expected model {model} of {provider} to have {expected}, found none")]
    Incomplete {
        /// The provider's id.
        provider: String,
        /// The model's id.
        model: String,
        /// What it lacks.
        expected: &'static str,
    },
}

pub(super) fn parse(text: &str) -> Result<File, PriceTableError> {
    let file: File = serde_json::from_str(text)?;
    for model in &file.models {
        let missing = if model.rules.is_empty() || !model.rules.iter().all(Rule::is_selective) {
            "rules that select names"
        } else if model
            .prices
            .first()
            .is_none_or(|price| price.per_mtok.input.is_none())
        {
            "a first price with an input rate"
        } else {
            continue;
        };
        return Err(PriceTableError::Incomplete {
            provider: model.provider.clone(),
            model: model.id.clone(),
            expected: missing,
        });
    }
    Ok(file)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) version: String,
    pub(super) models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) provider: String,
    pub(super) id: String,
    #[serde(rename = "match")]
    pub(super) rules: Vec<Rule>,
    /// Made by another provider of the list.
    #[serde(default)]
    pub(super) resold: bool,
    pub(super) context_window: Option<u64>,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) min_cacheable_tokens: Option<u64>,
    /// The factor on all tokens where `inference_geo` is `us`.
    pub(super) inference_geo_us: Option<Micros>,
    prices: Vec<Price>,
    #[serde(default)]
    variants: Vec<Variant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Price {
    effective_from: Option<Day>,
    utc_time_window: Option<Hours>,
    pub(super) per_mtok: PerMtok,
    #[serde(default)]
    pub(super) per_1k: PerThousand,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    when: When,
    effective_from: Option<Day>,
    per_mtok: PerMtok,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    processing: Option<Processing>,
    service_tier: Option<String>,
    speed: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Processing {
    Batch,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PerMtok {
    pub(super) input: Option<Rate>,
    pub(super) output: Option<Rate>,
    pub(super) cache_read: Option<Rate>,
    pub(super) cache_write: Option<Rate>,
    pub(super) cache_write_long: Option<Rate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PerThousand {
    pub(super) web_searches: Option<Piece>,
    pub(super) requests: Option<Piece>,
}

/// What a variant may depend on.
pub(super) struct Scope<'a> {
    pub(super) at_unix: i64,
    pub(super) batch: bool,
    pub(super) service_tier: Option<&'a str>,
    pub(super) speed: Option<&'a str>,
}

impl Model {
    /// The price in force at a time: the last whose window holds it, else the last by date.
    pub(super) fn base(&self, at_unix: i64) -> Option<&Price> {
        let in_force = |price: &&Price| {
            price
                .effective_from
                .as_ref()
                .is_none_or(|day| day.0 <= at_unix)
                && price
                    .utc_time_window
                    .as_ref()
                    .is_none_or(|hours| hours.include(at_unix))
        };
        let last = |windowed: bool| {
            self.prices
                .iter()
                .filter(|price| price.utc_time_window.is_some() == windowed)
                .rfind(in_force)
        };
        last(true).or_else(|| last(false))
    }

    /// The first variant's value of one rate.
    pub(super) fn variant(
        &self,
        scope: &Scope<'_>,
        pick: fn(&PerMtok) -> Option<&Rate>,
    ) -> Option<&Rate> {
        self.variants
            .iter()
            .filter(|variant| variant.applies(scope))
            .find_map(|variant| pick(&variant.per_mtok))
    }
}

impl Variant {
    fn applies(&self, scope: &Scope<'_>) -> bool {
        let When {
            processing,
            service_tier,
            speed,
        } = &self.when;
        processing
            .as_ref()
            .is_none_or(|Processing::Batch| scope.batch)
            && service_tier
                .as_deref()
                .is_none_or(|tier| scope.service_tier == Some(tier))
            && speed
                .as_deref()
                .is_none_or(|speed| scope.speed == Some(speed))
            && self
                .effective_from
                .as_ref()
                .is_none_or(|day| day.0 <= scope.at_unix)
    }
}

/// A stretch of each working day, in UTC, the end excluded.
///
/// Public holidays of the provider's country, which are off-peak too, are not known here.
#[derive(Debug)]
struct Hours {
    start: Time,
    end: Time,
}

impl Hours {
    fn include(&self, at_unix: i64) -> bool {
        let Ok(at) = jiff::Timestamp::from_second(at_unix) else {
            return false;
        };
        let at = at.to_zoned(TimeZone::UTC);
        let is_weekend = at.weekday().to_monday_zero_offset() >= 5;
        !is_weekend && self.start <= at.time() && at.time() < self.end
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [start, end] = <[&str; 2]>::deserialize(deserializer)?;
        let start: Time = start.parse().map_err(D::Error::custom)?;
        let end: Time = end.parse().map_err(D::Error::custom)?;
        if start >= end {
            return Err(D::Error::custom("expected hours that end after they start"));
        }
        Ok(Self { start, end })
    }
}

/// A day, as the second since 1970 at which it starts in UTC.
#[derive(Debug)]
struct Day(i64);

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let day: Date = <&str>::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)?;
        let start = day.to_zoned(TimeZone::UTC).map_err(D::Error::custom)?;
        Ok(Self(start.timestamp().as_second()))
    }
}

/// A price per token, in pico-dollars, by the length of the prompt.
#[derive(Debug)]
pub(super) enum Rate {
    Flat(u64),
    /// Steps as (prompt tokens, pico-dollars), in ascending order; the first counts from zero.
    Steps(Vec<(u64, u64)>),
}

impl Rate {
    pub(super) fn at(&self, prompt_tokens: u64) -> u64 {
        match self {
            Self::Flat(picos) => *picos,
            Self::Steps(steps) => steps
                .iter()
                .rfind(|(above, _)| *above < prompt_tokens)
                .or_else(|| steps.first())
                .map_or(0, |(_, picos)| *picos),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('[') {
            return micros(raw.get()).map(Self::Flat).map_err(D::Error::custom);
        }
        let steps: Vec<(u64, Micros)> =
            serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        let steps: Vec<(u64, u64)> = steps
            .into_iter()
            .map(|(above, usd)| (above, usd.0))
            .collect();
        let starts_at_zero = steps.first().is_some_and(|(above, _)| *above == 0);
        if !starts_at_zero || !steps.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(D::Error::custom("expected ascending steps from 0"));
        }
        Ok(Self::Steps(steps))
    }
}

/// A decimal number in millionths: dollars per million tokens are pico-dollars per token.
#[derive(Debug)]
pub(super) struct Micros(pub(super) u64);

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        micros(raw.get()).map(Self).map_err(D::Error::custom)
    }
}

/// Pico-dollars per piece, from dollars per thousand.
#[derive(Debug)]
pub(super) struct Piece(pub(super) u64);

impl<'de> Deserialize<'de> for Piece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Micros(millionths) = Micros::deserialize(deserializer)?;
        let picos = millionths.checked_mul(1000);
        picos
            .map(Self)
            .ok_or_else(|| D::Error::custom("a price that is too large"))
    }
}

/// The exact number of millionths in the text of a JSON number without exponent.
fn micros(text: &str) -> Result<u64, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = [whole, decimals]
        .iter()
        .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if !all_digits || whole.is_empty() || decimals.len() > DECIMALS_MAX {
        return Err(format!(
            "expected a decimal number with up to {DECIMALS_MAX} decimals, found {text}"
        ));
    }
    format!("{whole}{decimals:0<DECIMALS_MAX$}")
        .parse()
        .map_err(|error| format!("expected a price, found {text}: {error}"))
}

/// Decimals of a pico-dollar per token, in dollars per million tokens.
const DECIMALS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::super::tests::rows;
    use super::super::{Context, PriceTable};
    use super::*;

    fn one_model(model: &str) -> Result<PriceTable, PriceTableError> {
        PriceTable::parse(&format!(r#"{{"version":"1","models":[{model}]}}"#))
    }

    fn with_input(rate: &str) -> Result<PriceTable, PriceTableError> {
        let prices = format!(r#"[{{"per_mtok":{{"input":{rate}}}}}]"#);
        one_model(&format!(
            r#"{{"provider":"p","id":"m","match":[{{"equals":"m"}}],"prices":{prices}}}"#
        ))
    }

    #[test]
    fn a_decimal_is_read_exactly() {
        let list = rows(
            "0                     | 0
             0.000001              | 1
             0.1                   | 100000
             0.003625              | 3625
             12.5                  | 12500000
             30                    | 30000000
             18446744073709.551615 | 18446744073709551615",
        );
        for [text, picos] in list {
            let context = Context {
                provider: "p",
                model: "m",
                ..Context::default()
            };
            let rates = with_input(text).unwrap().rates(&context, 1).unwrap();
            assert_eq!(rates.input.to_string(), picos, "{text}");
        }
    }

    #[test]
    fn a_price_that_is_not_an_exact_decimal_is_refused() {
        let list = rows(
            r#"-1 | 1e3 | 0.0000001 | 18446744073709.551616 | "1" | {} | true | [] | [1]
               [[1,2]] | [[0,1],[0,2]] | [[0,1],[5,2],[4,3]] | [[0,-1]] | [[0,1,2]] | . | | 1. | 01"#,
        );
        for text in list.iter().flat_map(|row: &[&str; 9]| row) {
            assert!(with_input(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_row_that_cannot_be_used_is_refused_with_its_name() {
        let list = rows(
            r#"[]                | [{"per_mtok":{"input":1}}]                          | rules
               [{"without":"x"}] | [{"per_mtok":{"input":1}}]                          | rules
               [{"equals":"m"}]  | []                                                  | input rate
               [{"equals":"m"}]  | [{"per_mtok":{"output":1}}]                         | input rate
               [{"matches":"m"}] | [{"per_mtok":{"input":1}}]                          | unknown field
               [{"equals":"m"}]  | [{"per_mtok":{"inputs":1}}]                         | unknown field
               [{"equals":"m"}]  | [{"effective_from":"soon","per_mtok":{"input":1}}]  | line 1
               [{"equals":"m"}]  | [{"utc_time_window":["4:00"],"per_mtok":{}}]        | line 1
               [{"equals":"m"}]  | [{"utc_time_window":["04:00","01:00"],"per_mtok":{}}] | end after"#,
        );
        for [rules, prices, expected] in list {
            let row = format!(r#"{{"provider":"p","id":"m","match":{rules},"prices":{prices}}}"#);
            let error = one_model(&row).unwrap_err().to_string();
            assert!(error.contains(expected), "{row}: {error}");
        }
    }
}
