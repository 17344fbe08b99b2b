//! How each route does: what it completes, how fast, and what a million input tokens come to on it.

use serde::Serialize;
use weir_core::money::Money;

use super::cell::{Cell, percent, permille};
use super::latency::Latencies;
use super::query::Query;
use super::reader::{Exchange, Reader};
use super::show::{Groups, Report, Totals};
use crate::ledger::LedgerError;

/// How each route does.
pub type RoutesReport = Report<RouteTotals>;

/// How the calls of a route went. Calls that were refused are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RouteTotals {
    /// Calls.
    pub calls: u64,
    /// Calls among them that were answered in full.
    pub completed_calls: u64,
    /// Calls among them whose answer broke off.
    pub truncated_calls: u64,
    /// Calls among them that the provider answered with an error, or not at all.
    pub failed_calls: u64,
    /// Of those three, the share that was completed, in thousandths; what the application gave up
    /// itself says nothing of the route.
    pub completed_permille: Option<u64>,
    /// Of those three, the share that broke off, in thousandths.
    pub truncated_permille: Option<u64>,
    /// Microseconds to the first byte of a completed answer: half of them took no longer.
    pub first_byte_p50_us: Option<u64>,
    /// Nineteen in twenty of them took no longer.
    pub first_byte_p95_us: Option<u64>,
    /// Microseconds to the last byte of a completed answer, likewise.
    pub total_p50_us: Option<u64>,
    /// Nineteen in twenty of them took no longer.
    pub total_p95_us: Option<u64>,
    /// Calls that read all that they could have from the prompt cache.
    pub hit_calls: u64,
    /// Share of the calls that are such hits, in thousandths.
    pub hit_calls_permille: Option<u64>,
    /// Tokens of the prompts.
    pub input_tokens: u64,
    /// Of these, read from the cache.
    pub read_tokens: u64,
    /// Share of the input that was read from the cache, in thousandths.
    pub read_permille: Option<u64>,
    /// The tokens among `input_tokens` whose cost is known.
    pub priced_input_tokens: u64,
    /// What those cost, the fee of the host included.
    pub input_cost_nano_usd: Money,
    /// What a million of them cost.
    pub input_nano_usd_per_million: Option<Money>,
    /// What the cache took off the price of the input, in thousandths of it; negative where writes
    /// cost more than reads saved.
    pub cache_discount_permille: Option<i64>,
    /// What was paid in all, the fee of the host included.
    pub cost_nano_usd: Money,
    /// What the input would have cost without a cache, the fee of the host included.
    #[serde(skip)]
    input_without_cache: Money,
    #[serde(skip)]
    first_bytes: Latencies,
    #[serde(skip)]
    totals: Latencies,
    /// The highest fee that is in the amounts, in basis points.
    #[serde(skip)]
    fee_basis_points: u32,
}

pub(super) fn report(reader: &Reader, query: &Query) -> Result<RoutesReport, LedgerError> {
    let mut groups = Groups::<RouteTotals>::default();
    reader.each_exchange(query, |exchange| {
        if exchange.is_call && !exchange.is_refused() {
            groups.of(&exchange.group).add(&exchange, query);
        }
    })?;
    Ok(groups.into_report(query, &query.by))
}

impl RouteTotals {
    pub(super) fn add(&mut self, exchange: &Exchange, query: &Query) {
        let usage = exchange.usage.unwrap_or_default();
        let fee = query.fees.get(&exchange.host).copied().unwrap_or(0);
        let charged = |amount| with_fee(amount, fee);
        let is = |outcomes: &[&str]| u64::from(outcomes.contains(&exchange.outcome.as_str()));
        let completed = is(&["completed"]);
        let mut one = Self {
            calls: 1,
            completed_calls: completed,
            truncated_calls: is(&["truncated"]),
            failed_calls: is(&["provider_error", "upstream_failed"]),
            hit_calls: u64::from(exchange.cache_outcome.as_deref() == Some("hit")),
            input_tokens: usage.prompt(),
            read_tokens: usage.cache_read,
            cost_nano_usd: charged(exchange.cost.unwrap_or(Money::ZERO)),
            fee_basis_points: fee,
            ..Self::default()
        };
        if let (Some(cost), Some(of_input)) = (exchange.cost, exchange.cost_of_input) {
            let saved = exchange.cost_without_cache.unwrap_or(cost) - cost;
            one.priced_input_tokens = usage.prompt();
            one.input_cost_nano_usd = charged(of_input);
            one.input_without_cache = charged(of_input + saved);
        }
        if completed > 0 {
            exchange
                .first_byte_us
                .into_iter()
                .for_each(|us| one.first_bytes.add(us));
            one.totals.add(exchange.total_us);
        }
        self.merge(&one);
    }
}

impl Totals for RouteTotals {
    const TITLE: &'static str = "routes";
    const COLUMNS: &'static [&'static str] = &[
        "calls", "done", "cut", "first", "p95", "whole", "p95", "read%", "$/M in", "discount",
    ];
    const CSV_COLUMNS: &'static [&'static str] = &[
        "calls",
        "completed_permille",
        "truncated_permille",
        "first_byte_p50_us",
        "first_byte_p95_us",
        "total_p50_us",
        "total_p95_us",
        "read_permille",
        "input_usd_per_million",
        "cache_discount_permille",
        "input_tokens",
        "cost_usd",
    ];

    fn merge(&mut self, other: &Self) {
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut self.calls, other.calls);
        add(&mut self.completed_calls, other.completed_calls);
        add(&mut self.truncated_calls, other.truncated_calls);
        add(&mut self.failed_calls, other.failed_calls);
        add(&mut self.hit_calls, other.hit_calls);
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.read_tokens, other.read_tokens);
        add(&mut self.priced_input_tokens, other.priced_input_tokens);
        self.input_cost_nano_usd += other.input_cost_nano_usd;
        self.input_without_cache += other.input_without_cache;
        self.cost_nano_usd += other.cost_nano_usd;
        self.first_bytes.merge(&other.first_bytes);
        self.totals.merge(&other.totals);
        self.fee_basis_points = self.fee_basis_points.max(other.fee_basis_points);
    }

    fn finish(&mut self) {
        let told = self
            .completed_calls
            .saturating_add(self.truncated_calls)
            .saturating_add(self.failed_calls);
        self.completed_permille = permille(self.completed_calls, told);
        self.truncated_permille = permille(self.truncated_calls, told);
        self.first_byte_p50_us = self.first_bytes.permille(500);
        self.first_byte_p95_us = self.first_bytes.permille(950);
        self.total_p50_us = self.totals.permille(500);
        self.total_p95_us = self.totals.permille(950);
        self.hit_calls_permille = permille(self.hit_calls, self.completed_calls);
        self.read_permille = permille(self.read_tokens, self.input_tokens);
        let (cost, without) = (self.input_cost_nano_usd, self.input_without_cache);
        self.input_nano_usd_per_million = per_million(cost, self.priced_input_tokens);
        let saved = i128::from((without - cost).nanos()) * 1000;
        self.cache_discount_permille = saved
            .checked_div(i128::from(without.nanos()))
            .and_then(|share| i64::try_from(share).ok());
    }

    fn weight(&self) -> (i64, u64) {
        (self.cost_nano_usd.nanos(), self.calls)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::Count(self.calls),
            Cell::Share(self.completed_permille),
            Cell::Share(self.truncated_permille),
            Cell::Micros(self.first_byte_p50_us),
            Cell::Micros(self.first_byte_p95_us),
            Cell::Micros(self.total_p50_us),
            Cell::Micros(self.total_p95_us),
            Cell::Share(self.read_permille),
            Cell::Rate(self.input_nano_usd_per_million),
            Cell::Discount(self.cache_discount_permille),
        ]
    }

    fn csv_cells(&self) -> Vec<Cell> {
        let mut cells = self.cells();
        cells.extend([
            Cell::Count(self.input_tokens),
            Cell::Amount(self.cost_nano_usd),
        ]);
        cells
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![NOTE.to_owned()];
        if self.fee_basis_points > 0 {
            notes.push(fee_note(self.fee_basis_points));
        }
        notes
    }
}

/// What a reader of prices with a fee in them must know.
pub(super) fn fee_note(basis_points: u32) -> String {
    let fee = percent(i64::from(basis_points), 100);
    format!("prices include the host's fee of up to {fee} ([fees] in the configuration)")
}

/// Rounded up, as money is.
fn with_fee(amount: Money, basis_points: u32) -> Money {
    let all = i128::from(amount.nanos()) * i128::from(WHOLE_BASIS_POINTS + i64::from(basis_points));
    let whole = i128::from(WHOLE_BASIS_POINTS);
    let rounded = all.div_euclid(whole) + i128::from(all.rem_euclid(whole) > 0);
    Money::from_nanos(i64::try_from(rounded).unwrap_or(i64::MAX))
}

/// Rounded up, as money is.
fn per_million(cost: Money, tokens: u64) -> Option<Money> {
    let nanos = u128::try_from(cost.nanos()).ok()?.checked_mul(1_000_000)?;
    let rate = (tokens > 0).then(|| nanos.div_ceil(u128::from(tokens)))?;
    Some(Money::from_nanos(i64::try_from(rate).unwrap_or(i64::MAX)))
}

const WHOLE_BASIS_POINTS: i64 = 10_000;
const NOTE: &str = "\
done: answers that came whole; cut: that broke off; first, whole: time to the
first and the last byte, median and p95 (95 of 100 took no longer); read%:
share of the input that the cache had; $/M in: price of a million input tokens;
discount: what the cache took off that";
