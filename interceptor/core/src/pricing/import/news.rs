//! What a file tells of a model otherwise than a table does: today, at each later date and in each
//! stretch of hours that it names, by every circumstance, and of the limits.
//!
//! What the file does not tell is no difference.

use std::collections::BTreeSet;

use super::super::decimal::{Micros, Rate};
use super::super::file::{Day, Hours, Model, PerThousand, Price, Processing, Scope, Variant};
use super::super::per_mtok::PerMtok;
use super::super::{FILE_SEARCH_PICOS, Kind, WEB_SEARCH_PICOS};
use super::Change;

/// What differs, if anything does. What a file lacks of a model that it gives the same standard
/// price, it is given of the table's.
pub(super) fn change(before: &Model, after: &mut Model, now_unix: i64) -> Option<Change> {
    let found = differences(before, after, now_unix);
    if found.names.is_empty() {
        return None;
    }
    if after.base(now_unix).is_none() {
        // All that it tells is of later.
        after.prices.splice(0..0, before.prices.iter().cloned());
    } else if !found.standard && after.prices.len() == 1 {
        fill(after, before, now_unix);
    }
    let lost: BTreeSet<String> = told(before, now_unix);
    Some(Change {
        provider: after.provider.clone(),
        model: after.id.clone(),
        before: shown(before, now_unix),
        after: shown(after, now_unix),
        differs: found.names.into_iter().collect(),
        lost: lost.difference(&told(after, now_unix)).cloned().collect(),
    })
}

#[derive(Default)]
struct Differences {
    names: BTreeSet<String>,
    /// One of the prices that every call has differs.
    standard: bool,
}

fn differences(before: &Model, after: &Model, now_unix: i64) -> Differences {
    let mut found = Differences::default();
    for at_unix in dates(after, now_unix) {
        let from = if at_unix == now_unix {
            String::new()
        } else {
            format!(" from {}", Day(at_unix))
        };
        let hours = after.prices.iter().map(|price| &price.utc_time_window);
        let hours: Vec<&Hours> = hours.flatten().collect();
        for hours in std::iter::once(None).chain(hours.into_iter().map(Some)) {
            let Some(new) = price_at(after, at_unix, hours) else {
                continue;
            };
            let old = price_at(before, at_unix, hours);
            let within = hours.map_or_else(String::new, |hours| format!(" {hours}"));
            let when = format!("{within}{from}");
            found.in_price(old, new, &when);
        }
        found.in_variants(before, after, at_unix, &from);
    }
    found.in_limits(before, after);
    found
}

impl Differences {
    fn in_price(&mut self, old: Option<&Price>, new: &Price, when: &str) {
        for (kind, rate) in new.per_mtok.iter() {
            if is_other(old.and_then(|old| old.per_mtok.get(kind)), rate) {
                self.standard |= STANDARD.contains(&kind);
                self.names.insert(format!("{}{when}", kind.as_str()));
            }
        }
        let nothing = PerThousand::default();
        let old = old.map_or(&nothing, |old| &old.per_1k);
        let pieces = [
            (
                "web_searches",
                old.web_searches,
                new.per_1k.web_searches,
                WEB_SEARCH_PICOS,
            ),
            (
                "file_searches",
                old.file_searches,
                new.per_1k.file_searches,
                FILE_SEARCH_PICOS,
            ),
            ("requests", old.requests, new.per_1k.requests, 0),
        ];
        for (name, old, new, otherwise) in pieces {
            let old = old.map_or(otherwise, |piece| piece.0);
            if new.is_some_and(|new| new.0 != old) {
                self.names.insert(format!("{name}{when}"));
            }
        }
    }

    fn in_variants(&mut self, before: &Model, after: &Model, at_unix: i64, from: &str) {
        for variant in &after.variants {
            for kind in kinds_that_differ(before, after, variant, at_unix) {
                let (when, kind) = (variant.when.name(), kind.as_str());
                self.names.insert(format!("{when} {kind}{from}"));
            }
        }
    }

    fn in_limits(&mut self, before: &Model, after: &Model) {
        let factor = |of: &Option<Micros>| of.map(|factor| factor.0);
        let limits = [
            (
                "context_window",
                before.context_window,
                after.context_window,
            ),
            (
                "max_output_tokens",
                before.max_output_tokens,
                after.max_output_tokens,
            ),
            (
                "min_cacheable_tokens",
                before.min_cacheable_tokens,
                after.min_cacheable_tokens,
            ),
            (
                "inference_geo_us",
                factor(&before.inference_geo_us),
                factor(&after.inference_geo_us),
            ),
            (
                "regional",
                factor(&before.regional),
                factor(&after.regional),
            ),
        ];
        for (name, old, new) in limits {
            if new.is_some() && new != old {
                self.names.insert(name.to_owned());
            }
        }
    }
}

/// Now, and when something that the model tells begins later.
fn dates(model: &Model, now_unix: i64) -> BTreeSet<i64> {
    let prices = model.prices.iter().map(|price| price.effective_from);
    let variants = model.variants.iter().map(|variant| variant.effective_from);
    let days = prices.chain(variants).flatten().map(|day| day.0);
    let mut dates: BTreeSet<i64> = days.filter(|at| *at > now_unix).collect();
    dates.insert(now_unix);
    dates
}

/// The price from a time on, outside of all hours or within some.
fn price_at<'a>(model: &'a Model, at_unix: i64, hours: Option<&Hours>) -> Option<&'a Price> {
    match hours {
        None => model.all_day(at_unix),
        Some(hours) => model.base(hours.next_after(at_unix)?),
    }
}

/// Whether a rate is told that is not the one before.
fn is_other(old: Option<&Rate>, new: &Rate) -> bool {
    // Embeddings have no output, for which some lists say nothing and some that it is free.
    let is_free = new.steps().iter().all(|(_, picos)| *picos == 0);
    (old.is_some() || !is_free) && old.map(Rate::steps) != Some(new.steps())
}

/// The kinds that a variant of the file gives another rate, in the circumstance that it is for.
fn kinds_that_differ(before: &Model, after: &Model, variant: &Variant, at_unix: i64) -> Vec<Kind> {
    let when = &variant.when;
    let scope = Scope {
        at_unix,
        batch: matches!(when.processing, Some(Processing::Batch)),
        service_tier: when.service_tier.as_deref(),
        speed: when.speed.as_deref(),
    };
    let has_begun = variant.effective_from.is_none_or(|day| day.0 <= at_unix);
    let kinds = variant.per_mtok.iter().map(|(kind, _)| kind);
    kinds
        .filter(|kind| {
            let new = rate_in(after, &scope, *kind).filter(|_| has_begun);
            new.is_some_and(|new| is_other(rate_in(before, &scope, *kind), new))
        })
        .collect()
}

fn rate_in<'a>(model: &'a Model, scope: &Scope<'_>, kind: Kind) -> Option<&'a Rate> {
    let standard = || model.all_day(scope.at_unix)?.per_mtok.get(kind);
    let mut variants = model.variants_of(scope);
    let own = variants.find_map(|rates| rates.get(kind));
    own.or_else(standard)
}

/// Gives a model all that a table knows and the file does not tell: its standard price is the same.
fn fill(after: &mut Model, before: &Model, now_unix: i64) {
    let mut variants = std::mem::take(&mut after.variants);
    after.variants.clone_from(&variants);
    variants.retain(|variant| {
        let mut dates = dates(after, now_unix).into_iter();
        dates.any(|at| !kinds_that_differ(before, after, variant, at).is_empty())
    });
    variants.extend(before.variants.iter().cloned());
    after.variants = variants;
    let told = std::mem::replace(&mut after.prices, before.prices.clone());
    let known = before.all_day(now_unix);
    for told in told {
        for price in &mut after.prices {
            let others = told.per_mtok.iter().filter(|(kind, rate)| {
                is_other(known.and_then(|known| known.per_mtok.get(*kind)), rate)
            });
            let rates = price.per_mtok.iter().chain(others);
            price.per_mtok = rates.map(|(kind, rate)| (kind, rate.clone())).collect();
            let pieces = &mut price.per_1k;
            pieces.web_searches = told.per_1k.web_searches.or(pieces.web_searches);
            pieces.file_searches = told.per_1k.file_searches.or(pieces.file_searches);
            pieces.requests = told.per_1k.requests.or(pieces.requests);
        }
    }
    after.context_window = after.context_window.or(before.context_window);
    after.max_output_tokens = after.max_output_tokens.or(before.max_output_tokens);
    after.min_cacheable_tokens = after.min_cacheable_tokens.or(before.min_cacheable_tokens);
    after.inference_geo_us = after.inference_geo_us.or(before.inference_geo_us);
    after.regional = after.regional.or(before.regional);
}

/// Which kinds have a price of their own, and which circumstances.
fn told(model: &Model, now_unix: i64) -> BTreeSet<String> {
    let per_mtok = model.all_day(now_unix).map(|price| &price.per_mtok);
    let kinds = per_mtok.into_iter().flat_map(PerMtok::iter);
    let kinds = kinds.map(|(kind, _)| kind.as_str().to_owned());
    let variants = model.variants.iter().map(|variant| variant.when.name());
    kinds.chain(variants).collect()
}

fn shown(model: &Model, now_unix: i64) -> String {
    let per_mtok = model.all_day(now_unix).map(|price| &price.per_mtok);
    let rates = STANDARD.iter().filter_map(|kind| per_mtok?.get(*kind));
    let texts = rates.map(|rate| serde_json::to_string(rate).unwrap_or_default());
    texts.collect::<Vec<_>>().join(" ")
}

/// The prices of most calls.
const STANDARD: [Kind; 4] = [Kind::Input, Kind::Output, Kind::CacheRead, Kind::CacheWrite];
