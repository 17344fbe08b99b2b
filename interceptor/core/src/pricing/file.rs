//! The price file: its JSON form, and which of its prices apply when.
//!
//! One model is one line. `prices` is a list, of which the last entry that is in force applies: from
//! its `effective_from` on, and within its `utc_time_window` (Monday to Friday; every day where the
//! window ends in `daily`).
//! `variants` are partial overrides: for each single rate, the first variant that applies and has
//! that rate wins. A rate is USD per million tokens (`per_mtok`, by [`Kind`]) or per thousand
//! pieces (`per_1k`), a number, or a list of `[prompt tokens, USD]`, of which the last whose count is
//! **below** the prompt's applies to every token of the call.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::decimal::{Micros, Piece};
use super::model_name::Rule;
use super::per_mtok::PerMtok;

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
            .is_none_or(|price| price.per_mtok.get(Kind::Input).is_none())
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) version: String,
    #[serde(deserialize_with = "exactly")]
    pub(super) models: Vec<Model>,
}

impl File {
    /// The file as text: a line for each model.
    pub(super) fn text(&self) -> Result<String, serde_json::Error> {
        let version = serde_json::to_string(&self.version)?;
        let models = self.models.iter().map(serde_json::to_string);
        let models = models.collect::<Result<Vec<_>, _>>()?.join(",\n");
        Ok(format!(
            "{{\"version\":{version},\"models\":[\n{models}\n]}}\n"
        ))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) provider: String,
    pub(super) id: String,
    #[serde(rename = "match", deserialize_with = "exactly")]
    pub(super) rules: Vec<Rule>,
    /// Made by another provider of the list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) resold: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context_window: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_cacheable_tokens: Option<u64>,
    /// The factor on all tokens where `inference_geo` is `us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inference_geo_us: Option<Micros>,
    /// The factor on all tokens where the call is bound to a region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) regional: Option<Micros>,
    #[serde(deserialize_with = "exactly")]
    pub(super) prices: Vec<Price>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "exactly"
    )]
    pub(super) variants: Vec<Variant>,
}

/// A list with no room for more: most lists here have one entry, and serde makes room for four.
fn exactly<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Price {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effective_from: Option<Day>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) utc_time_window: Option<Hours>,
    pub(super) per_mtok: PerMtok,
    #[serde(default, skip_serializing_if = "PerThousand::is_empty")]
    pub(super) per_1k: PerThousand,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variant {
    pub(super) when: When,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effective_from: Option<Day>,
    pub(super) per_mtok: PerMtok,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) processing: Option<Processing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) speed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Processing {
    Batch,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PerThousand {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) web_searches: Option<Piece>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_searches: Option<Piece>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<Piece>,
}

impl PerThousand {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a variant may depend on.
pub(super) struct Scope<'a> {
    pub(super) at_unix: i64,
    pub(super) batch: bool,
    pub(super) service_tier: Option<&'a str>,
    pub(super) speed: Option<&'a str>,
}

impl Model {
    /// The price in force at a time: the last that is.
    pub(super) fn base(&self, at_unix: i64) -> Option<&Price> {
        self.prices.iter().rfind(|price| {
            let hours = price.utc_time_window.as_ref();
            price.has_begun(at_unix) && hours.is_none_or(|hours| hours.include(at_unix))
        })
    }

    /// The price in force at a time outside of all hours that have one of their own.
    pub(super) fn all_day(&self, at_unix: i64) -> Option<&Price> {
        self.prices
            .iter()
            .rfind(|price| price.has_begun(at_unix) && price.utc_time_window.is_none())
    }

    /// The rates of the variants that apply.
    pub(super) fn variants_of(
        &self,
        scope: &Scope<'_>,
    ) -> impl DoubleEndedIterator<Item = &PerMtok> {
        let variants = self.variants.iter();
        let applying = variants.filter(|variant| variant.applies(scope));
        applying.map(|variant| &variant.per_mtok)
    }
}

impl Price {
    fn has_begun(&self, at_unix: i64) -> bool {
        self.effective_from.is_none_or(|day| day.0 <= at_unix)
    }
}

impl When {
    /// In a word or more: `batch`, `flex`, `fast`.
    pub(super) fn name(&self) -> String {
        let batch = self.processing.map(|Processing::Batch| "batch");
        let parts = [batch, self.service_tier.as_deref(), self.speed.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
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
                .is_none_or(|tier| scope.service_tier.is_some_and(|used| is_tier(used, tier)))
            && speed
                .as_deref()
                .is_none_or(|speed| scope.speed == Some(speed))
            && self
                .effective_from
                .as_ref()
                .is_none_or(|day| day.0 <= scope.at_unix)
    }
}

/// A stretch of each working day, or of each day, in UTC, the end excluded.
///
/// Public holidays of the provider's country, which are off-peak too, are not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hours {
    pub(super) start: Time,
    pub(super) end: Time,
    /// On Saturdays and Sundays too.
    pub(super) daily: bool,
}

impl Hours {
    fn include(&self, at_unix: i64) -> bool {
        let Ok(at) = jiff::Timestamp::from_second(at_unix) else {
            return false;
        };
        let at = at.to_zoned(TimeZone::UTC);
        (self.daily || !is_weekend(at.date())) && self.start <= at.time() && at.time() < self.end
    }

    /// A time within, of the next working day after that of `at_unix`.
    pub(super) fn next_after(&self, at_unix: i64) -> Option<i64> {
        let at = jiff::Timestamp::from_second(at_unix).ok()?;
        let mut day = at.to_zoned(TimeZone::UTC).date().tomorrow().ok()?;
        while is_weekend(day) {
            day = day.tomorrow().ok()?;
        }
        let start = day.to_datetime(self.start).to_zoned(TimeZone::UTC).ok()?;
        Some(start.timestamp().as_second())
    }
}

fn is_weekend(day: Date) -> bool {
    day.weekday().to_monday_zero_offset() >= 5
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = <Vec<&str>>::deserialize(deserializer)?;
        let (start, end, daily) = match texts.as_slice() {
            [start, end] => (start, end, false),
            [start, end, "daily"] => (start, end, true),
            _ => {
                return Err(D::Error::custom(
                    "expected the start and the end of hours, and perhaps \"daily\"",
                ));
            }
        };
        let start: Time = start.parse().map_err(D::Error::custom)?;
        let end: Time = end.parse().map_err(D::Error::custom)?;
        if start >= end {
            return Err(D::Error::custom("expected hours that end after they start"));
        }
        Ok(Self { start, end, daily })
    }
}

impl Hours {
    fn texts(&self) -> [String; 2] {
        [self.start, self.end].map(|time| time.strftime("%H:%M").to_string())
    }
}

impl std::fmt::Display for Hours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let days = if self.daily { "" } else { ", Mon-Fri" };
        write!(f, "{} UTC{days}", self.texts().join("-"))
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let daily = self.daily.then(|| "daily".to_owned());
        let texts: Vec<String> = self.texts().into_iter().chain(daily).collect();
        texts.serialize(serializer)
    }
}

/// A day, as the second since 1970 at which it starts in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day(pub(super) i64);

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let day: Date = <&str>::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)?;
        Self::of(day).map_err(D::Error::custom)
    }
}

impl Day {
    pub(super) fn of(day: Date) -> Result<Self, jiff::Error> {
        Ok(Self(day.to_zoned(TimeZone::UTC)?.timestamp().as_second()))
    }

    pub(super) fn date(self) -> Option<Date> {
        let at = jiff::Timestamp::from_second(self.0).ok()?;
        Some(at.to_zoned(TimeZone::UTC).date())
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.date().map_or(Ok(()), |date| write!(f, "{date}"))
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.date()
            .map(|date| date.to_string())
            .serialize(serializer)
    }
}

/// Whether `used`, a service tier as the answer spells it, is `tier`. Vertex AI says
/// `ON_DEMAND_FLEX` where Gemini says `flex`.
fn is_tier(used: &str, tier: &str) -> bool {
    let bare = used
        .split_at_checked(ON_DEMAND.len())
        .filter(|(start, _)| start.eq_ignore_ascii_case(ON_DEMAND))
        .map_or(used, |(_, rest)| rest);
    bare.eq_ignore_ascii_case(tier)
}

const ON_DEMAND: &str = "ON_DEMAND_";

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
            assert_eq!(
                rates.per_token(Kind::Input).unwrap().to_string(),
                picos,
                "{text}"
            );
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
               [{"equals":"m"}]  | [{"per_mtok":{"inputs":1}}]                         | unknown variant
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
