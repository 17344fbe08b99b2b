//! What the prompt cache did: tokens read and written, what it saved, and what it missed and why.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_core::money::Money;

use super::cell::{Cell, DECIMALS, dollars, permille};
use super::query::Query;
use super::reader::{Exchange, Reader};
use super::show::{Groups, Report, Totals, calls, cost_notes};
use crate::ledger::LedgerError;

/// What the prompt cache did.
pub type CacheReport = Report<CacheTotals>;

/// What the prompt cache did for some calls. Calls that were refused are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheTotals {
    /// Calls.
    pub calls: u64,
    /// Calls among them of which neither usage nor cost is known.
    pub calls_without_usage: u64,
    /// Calls among them that have usage, and no price: their cost is not in the sums.
    pub unpriced_calls: u64,
    /// Calls among them that read all that they could have.
    pub hit_calls: u64,
    /// Share of the calls with usage that are hits, in thousandths.
    pub hit_calls_permille: u64,
    /// Tokens of the prompts.
    pub input_tokens: u64,
    /// Of these, read from the cache.
    pub read_tokens: u64,
    /// Of these, written to the cache.
    pub written_tokens: u64,
    /// Of these, neither.
    pub uncached_tokens: u64,
    /// Share of the input that was read from the cache, in thousandths.
    pub read_permille: u64,
    /// Tokens written for each thousand that were read; none where nothing was read.
    pub written_per_read_permille: Option<u64>,
    /// What they cost.
    pub cost_nano_usd: Money,
    /// What they would have cost without a cache; a call where that is not known counts as it was.
    pub cost_without_cache_nano_usd: Money,
    /// What they would have cost with a perfect cache; likewise.
    pub cost_perfect_cache_nano_usd: Money,
    /// What the cache saved; negative where more was paid for writes than reads saved.
    pub saved_nano_usd: Money,
    /// What it cost that not everything was read that could have been.
    pub missed_nano_usd: Money,
    /// The same, by its reason.
    pub missed_by_reason: BTreeMap<String, Money>,
    /// What rewriting saves of that: did where it is on, would have where prompts are observed.
    pub rewrite_saving_nano_usd: Money,
    /// Calls that were not rewritten because edits of prompts like theirs saved nothing.
    pub switched_off_calls: u64,
    /// Part of the cost that is estimated.
    pub estimated_nano_usd: Money,
    /// What calls would have cost for which a plan pays; they count for nothing in all other sums of money.
    pub notional_nano_usd: Money,
}

pub(super) fn report(reader: &Reader, query: &Query) -> Result<CacheReport, LedgerError> {
    let mut groups = Groups::<CacheTotals>::default();
    reader.each_exchange(query, |exchange| {
        if exchange.is_call && !exchange.is_refused() {
            groups.of(&exchange.group).add(&exchange);
        }
    })?;
    Ok(groups.into_report(query, &query.by))
}

impl CacheTotals {
    fn add(&mut self, exchange: &Exchange) {
        let usage = exchange.usage.unwrap_or_default();
        let cost = exchange.cost.unwrap_or(Money::ZERO);
        let is_estimated = exchange.cost_state == "estimated";
        let is_unknown = exchange.usage.is_none() && exchange.cost_state == "unknown";
        // Of a call that a plan pays for, nothing is billed, saved or missed.
        let billed = |amount: Option<Money>| amount.filter(|_| exchange.notional.is_none());
        let missed = billed(exchange.missed).unwrap_or(Money::ZERO);
        let reason = exchange
            .cache_reason
            .iter()
            .filter(|_| missed > Money::ZERO);
        self.merge(&Self {
            calls: 1,
            calls_without_usage: u64::from(is_unknown),
            unpriced_calls: u64::from(exchange.cost_state == "unpriced"),
            hit_calls: u64::from(exchange.cache_outcome.as_deref() == Some("hit")),
            input_tokens: usage.prompt(),
            read_tokens: usage.cache_read,
            written_tokens: usage.cache_write.saturating_add(usage.cache_write_long),
            uncached_tokens: usage.input,
            cost_nano_usd: cost,
            cost_without_cache_nano_usd: billed(exchange.cost_without_cache).unwrap_or(cost),
            cost_perfect_cache_nano_usd: billed(exchange.cost_perfect_cache).unwrap_or(cost),
            missed_nano_usd: missed,
            missed_by_reason: reason.map(|reason| (reason.clone(), missed)).collect(),
            rewrite_saving_nano_usd: billed(exchange.rewrite_saving).unwrap_or(Money::ZERO),
            switched_off_calls: u64::from(exchange.switched_off),
            estimated_nano_usd: if is_estimated { cost } else { Money::ZERO },
            notional_nano_usd: exchange.notional.unwrap_or(Money::ZERO),
            ..Self::default()
        });
    }

    /// Calls whose cost is not in the sums.
    const fn unknown_calls(&self) -> u64 {
        self.unpriced_calls.saturating_add(self.calls_without_usage)
    }

    /// What was missed, and why: the dearest reason first.
    fn missed_notes(&self) -> Vec<String> {
        let mut reasons: Vec<_> = self.missed_by_reason.iter().collect();
        reasons.sort_by_key(|(_, amount)| std::cmp::Reverse(**amount));
        let line = |(reason, amount): (&String, &Money)| {
            let amount = dollars(*amount, DECIMALS);
            format!("{amount} missed: {}", reason.replace('_', " "))
        };
        reasons.into_iter().map(line).collect()
    }
}

impl Totals for CacheTotals {
    const TITLE: &'static str = "prompt cache";
    const COLUMNS: &'static [&'static str] = &[
        "calls", "hits", "input", "read", "read%", "w/r", "cost", "saved", "missed", "rewrite",
    ];
    const CSV_COLUMNS: &'static [&'static str] = &[
        "calls",
        "hit_calls",
        "input_tokens",
        "read_tokens",
        "written_tokens",
        "uncached_tokens",
        "read_permille",
        "cost_usd",
        "cost_without_cache_usd",
        "cost_perfect_cache_usd",
        "saved_usd",
        "missed_usd",
        "rewrite_saving_usd",
        "estimated_usd",
        "unpriced_calls",
        "calls_without_usage",
        "switched_off_calls",
        "notional_usd",
    ];

    fn merge(&mut self, other: &Self) {
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut self.calls, other.calls);
        add(&mut self.calls_without_usage, other.calls_without_usage);
        add(&mut self.unpriced_calls, other.unpriced_calls);
        add(&mut self.hit_calls, other.hit_calls);
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.read_tokens, other.read_tokens);
        add(&mut self.written_tokens, other.written_tokens);
        add(&mut self.uncached_tokens, other.uncached_tokens);
        add(&mut self.switched_off_calls, other.switched_off_calls);
        self.cost_nano_usd += other.cost_nano_usd;
        self.cost_without_cache_nano_usd += other.cost_without_cache_nano_usd;
        self.cost_perfect_cache_nano_usd += other.cost_perfect_cache_nano_usd;
        self.missed_nano_usd += other.missed_nano_usd;
        self.rewrite_saving_nano_usd += other.rewrite_saving_nano_usd;
        self.estimated_nano_usd += other.estimated_nano_usd;
        self.notional_nano_usd += other.notional_nano_usd;
        for (reason, amount) in &other.missed_by_reason {
            *self.missed_by_reason.entry(reason.clone()).or_default() += *amount;
        }
    }

    fn finish(&mut self) {
        let with_usage = self.calls.saturating_sub(self.calls_without_usage);
        self.hit_calls_permille = permille(self.hit_calls, with_usage).unwrap_or(0);
        self.read_permille = permille(self.read_tokens, self.input_tokens).unwrap_or(0);
        self.written_per_read_permille = permille(self.written_tokens, self.read_tokens);
        self.saved_nano_usd = self.cost_without_cache_nano_usd - self.cost_nano_usd;
    }

    fn weight(&self) -> (i64, u64) {
        (self.cost_nano_usd.nanos(), self.calls)
    }

    fn cells(&self) -> Vec<Cell> {
        let cost = |amount| Cell::cost(amount, self.unknown_calls());
        vec![
            Cell::Count(self.calls),
            Cell::Permille(self.hit_calls_permille),
            Cell::Count(self.input_tokens),
            Cell::Count(self.read_tokens),
            Cell::Permille(self.read_permille),
            Cell::Share(self.written_per_read_permille),
            cost(self.cost_nano_usd),
            cost(self.saved_nano_usd),
            Cell::Amount(self.missed_nano_usd),
            Cell::Amount(self.rewrite_saving_nano_usd),
        ]
    }

    fn csv_cells(&self) -> Vec<Cell> {
        vec![
            Cell::Count(self.calls),
            Cell::Count(self.hit_calls),
            Cell::Count(self.input_tokens),
            Cell::Count(self.read_tokens),
            Cell::Count(self.written_tokens),
            Cell::Count(self.uncached_tokens),
            Cell::Permille(self.read_permille),
            Cell::Amount(self.cost_nano_usd),
            Cell::Amount(self.cost_without_cache_nano_usd),
            Cell::Amount(self.cost_perfect_cache_nano_usd),
            Cell::Amount(self.saved_nano_usd),
            Cell::Amount(self.missed_nano_usd),
            Cell::Amount(self.rewrite_saving_nano_usd),
            Cell::Amount(self.estimated_nano_usd),
            Cell::Count(self.unpriced_calls),
            Cell::Count(self.calls_without_usage),
            Cell::Count(self.switched_off_calls),
            Cell::Amount(self.notional_nano_usd),
        ]
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.missed_notes();
        if self.switched_off_calls > 0 {
            notes.push(format!(
                "{} not rewritten: edits of prompts like theirs saved nothing: see weir status",
                calls(self.switched_off_calls)
            ));
        }
        notes.extend(cost_notes(
            self.unpriced_calls,
            self.calls_without_usage,
            self.estimated_nano_usd,
            self.notional_nano_usd,
        ));
        notes.push(NOTE.to_owned());
        notes
    }
}

const NOTE: &str = "\
hits: calls that read all they could; read%: share of the input that was read;
w/r: tokens written, of those read; saved: by the cache; missed: what it could
have saved besides; rewrite: what of that rewriting saved, or would have";
