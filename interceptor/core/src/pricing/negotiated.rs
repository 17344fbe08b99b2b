//! Prices that were negotiated with a provider, from the configuration: over every list.

use std::collections::BTreeMap;

use super::model_name::Spelling;
use super::rates::NO_SURCHARGE_PPM;
use super::{Context, Kind, Rates};

/// A price of one's own, for some models of a provider and some time.
///
/// A rate that is not named stays that of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// The provider's id; none for every provider.
    pub provider: Option<String>,
    /// The model's name, as listed or as called; a `*` at either end stands for anything.
    pub model: String,
    /// The service tier, speed (`fast`) or `batch` that it is for; none for standard calls, which
    /// have none of these.
    pub tier: Option<String>,
    /// From when on, in seconds since 1970-01-01 UTC.
    pub from_unix: Option<i64>,
    /// Until before when.
    pub until_unix: Option<i64>,
    /// Pico-dollars per token, flat.
    pub per_token: BTreeMap<Kind, u64>,
    /// On all tokens, over the list's own surcharges: 850 000 is 15 % off.
    pub factor_ppm: Option<u64>,
}

impl Negotiated {
    /// Whether it is about the call.
    pub(super) fn applies(
        &self,
        context: &Context<'_>,
        spellings: &[Spelling],
        listed: Option<&str>,
    ) -> bool {
        let names = spellings.iter().map(|spelling| spelling.name.as_str());
        self.provider
            .as_deref()
            .is_none_or(|provider| provider == context.provider)
            && self.from_unix.is_none_or(|from| from <= context.at_unix)
            && self.until_unix.is_none_or(|until| context.at_unix < until)
            && self.is_for_tier(context, spellings)
            && names.chain(listed).any(|name| self.names(name))
    }

    fn is_for_tier(&self, context: &Context<'_>, spellings: &[Spelling]) -> bool {
        let fast = spellings.iter().any(|spelling| spelling.fast);
        let special = context
            .service_tier
            .filter(|tier| {
                !STANDARD_TIERS
                    .iter()
                    .any(|standard| standard.eq_ignore_ascii_case(tier))
            })
            .or_else(|| context.batch.then_some("batch"))
            .or_else(|| context.speed.filter(|speed| *speed != "standard"))
            .or_else(|| fast.then_some("fast"));
        match (&self.tier, special) {
            (None, special) => special.is_none() || self.factor_ppm.is_some(),
            (Some(tier), Some(special)) => tier.eq_ignore_ascii_case(special),
            (Some(_), None) => false,
        }
    }

    fn names(&self, name: &str) -> bool {
        let is = |part: &str| part.eq_ignore_ascii_case(name);
        let pattern = self.model.to_ascii_lowercase();
        let name = name.to_ascii_lowercase();
        match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(""), _) | (_, Some("")) => true,
            (Some(end), Some(_)) => name.contains(end.trim_end_matches('*')),
            (Some(end), None) => name.ends_with(end),
            (None, Some(start)) => name.starts_with(start),
            (None, None) => is(&pattern),
        }
    }

    /// Whether it gives a price to a model that is in no list.
    pub(super) fn stands_alone(&self) -> bool {
        self.per_token.contains_key(&Kind::Input)
    }

    /// What holds in place of the list's rates.
    pub(super) fn over(&self, listed: Option<Rates>) -> Option<Rates> {
        if listed.is_none() && !self.stands_alone() {
            return None;
        }
        let mut rates = listed.unwrap_or(Rates {
            per_token: [None; Kind::ALL.len()],
            web_search: super::WEB_SEARCH_PICOS,
            searches_are_one: false,
            file_search: super::FILE_SEARCH_PICOS,
            request: 0,
            factor_ppm: NO_SURCHARGE_PPM,
            notional: false,
        });
        for (kind, rate) in Kind::ALL.iter().zip(&mut rates.per_token) {
            *rate = self.per_token.get(kind).copied().or(*rate);
        }
        if let Some(factor) = self.factor_ppm {
            rates.factor_ppm = rates
                .factor_ppm
                .saturating_mul(factor)
                .div_ceil(NO_SURCHARGE_PPM);
        }
        rates.notional = false;
        Some(rates)
    }
}

/// Names of the tier that costs what the list says.
const STANDARD_TIERS: [&str; 7] = [
    "standard",
    "default",
    "auto",
    "standard_only",
    "on_demand",
    "scale",
    "unspecified",
];
