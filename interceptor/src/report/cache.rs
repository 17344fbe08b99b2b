//! What the prompt cache did: tokens read and written, and what it saved.

use serde::Serialize;
use weir_core::money::Money;

use super::query::Query;
use super::reader::{Exchange, Reader};
use super::show::{Cell, Groups, Report, Totals, cost_notes};
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
    /// Tokens of the prompts.
    pub input_tokens: u64,
    /// Of these, read from the cache.
    pub read_tokens: u64,
    /// Of these, written to the cache.
    pub written_tokens: u64,
    /// Of these, neither.
    pub uncached_tokens: u64,
    /// Share of the input that was read from the cache, in thousandths.
    pub hit_permille: u64,
    /// What they cost.
    pub cost_nano_usd: Money,
    /// What they would have cost without a cache; a call where that is not known counts as it was.
    pub cost_without_cache_nano_usd: Money,
    /// What they would have cost with a perfect cache; likewise.
    pub cost_perfect_cache_nano_usd: Money,
    /// Part of the cost that is estimated.
    pub estimated_nano_usd: Money,
}

pub(super) fn report(reader: &Reader, query: &Query) -> Result<CacheReport, LedgerError> {
    let mut groups = Groups::<CacheTotals>::default();
    reader.each_exchange(query, |exchange| {
        if !matches!(exchange.outcome.as_str(), "refused" | "denied") {
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
        self.merge(&Self {
            calls: 1,
            calls_without_usage: u64::from(is_unknown),
            unpriced_calls: u64::from(exchange.cost_state == "unpriced"),
            input_tokens: usage.prompt(),
            read_tokens: usage.cache_read,
            written_tokens: usage.cache_write.saturating_add(usage.cache_write_long),
            uncached_tokens: usage.input,
            hit_permille: 0,
            cost_nano_usd: cost,
            cost_without_cache_nano_usd: exchange.cost_without_cache.unwrap_or(cost),
            cost_perfect_cache_nano_usd: exchange.cost_perfect_cache.unwrap_or(cost),
            estimated_nano_usd: if is_estimated { cost } else { Money::ZERO },
        });
    }

    /// Calls whose cost is not in the sums.
    const fn unknown_calls(&self) -> u64 {
        self.unpriced_calls.saturating_add(self.calls_without_usage)
    }
}

impl Totals for CacheTotals {
    const TITLE: &'static str = "prompt cache";
    const COLUMNS: &'static [&'static str] = &[
        "calls", "input", "read", "written", "uncached", "hit", "cost", "no cache", "perfect",
    ];
    const CSV_COLUMNS: &'static [&'static str] = &[
        "calls",
        "input_tokens",
        "read_tokens",
        "written_tokens",
        "uncached_tokens",
        "hit_permille",
        "cost_usd",
        "cost_without_cache_usd",
        "cost_perfect_cache_usd",
        "estimated_usd",
        "unpriced_calls",
        "calls_without_usage",
    ];

    fn merge(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.calls_without_usage = self
            .calls_without_usage
            .saturating_add(other.calls_without_usage);
        self.unpriced_calls = self.unpriced_calls.saturating_add(other.unpriced_calls);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.read_tokens = self.read_tokens.saturating_add(other.read_tokens);
        self.written_tokens = self.written_tokens.saturating_add(other.written_tokens);
        self.uncached_tokens = self.uncached_tokens.saturating_add(other.uncached_tokens);
        self.cost_nano_usd += other.cost_nano_usd;
        self.cost_without_cache_nano_usd += other.cost_without_cache_nano_usd;
        self.cost_perfect_cache_nano_usd += other.cost_perfect_cache_nano_usd;
        self.estimated_nano_usd += other.estimated_nano_usd;
    }

    fn finish(&mut self) {
        let thousandths = u128::from(self.read_tokens) * 1000;
        let share = thousandths
            .checked_div(u128::from(self.input_tokens))
            .unwrap_or(0);
        self.hit_permille = u64::try_from(share).unwrap_or(1000);
    }

    fn weight(&self) -> (i64, u64) {
        (self.cost_nano_usd.nanos(), self.calls)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::Count(self.calls),
            Cell::Count(self.input_tokens),
            Cell::Count(self.read_tokens),
            Cell::Count(self.written_tokens),
            Cell::Count(self.uncached_tokens),
            Cell::Permille(self.hit_permille),
            Cell::cost(self.cost_nano_usd, self.unknown_calls()),
            Cell::cost(self.cost_without_cache_nano_usd, self.unknown_calls()),
            Cell::cost(self.cost_perfect_cache_nano_usd, self.unknown_calls()),
        ]
    }

    fn csv_cells(&self) -> Vec<Cell> {
        let mut cells = self.cells();
        cells.extend([
            Cell::Amount(self.estimated_nano_usd),
            Cell::Count(self.unpriced_calls),
            Cell::Count(self.calls_without_usage),
        ]);
        cells
    }

    fn notes(&self) -> Vec<String> {
        cost_notes(
            self.unpriced_calls,
            self.calls_without_usage,
            self.estimated_nano_usd,
        )
    }
}
