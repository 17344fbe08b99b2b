//! What was spent, and what was refused.

use serde::Serialize;
use weir_core::money::Money;

use super::cell::Cell;
use super::query::Query;
use super::reader::{Exchange, Reader};
use super::show::{Groups, Report, Totals, cost_notes, counted};
use crate::ledger::LedgerError;

/// What was spent, and what was refused.
pub type SpendReport = Report<SpendTotals>;

/// What some calls cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpendTotals {
    /// Calls, refused ones included.
    pub calls: u64,
    /// Calls among them that a cap or another rule refused: they cost nothing.
    pub refused_calls: u64,
    /// Calls among them that were sent and did not end well.
    pub failed_calls: u64,
    /// Calls among them of which neither usage nor cost is known.
    pub calls_without_usage: u64,
    /// Requests of an API that Weir does not know, which are in no other number: they may have cost money.
    pub unknown_requests: u64,
    /// Calls among them that have usage, and no price: their cost is not in the sums.
    pub unpriced_calls: u64,
    /// Tokens of the prompts, from a cache or not.
    pub input_tokens: u64,
    /// Tokens of the answers, reasoning included.
    pub output_tokens: u64,
    /// What they cost.
    pub cost_nano_usd: Money,
    /// Part of the cost that is estimated.
    pub estimated_nano_usd: Money,
    /// What calls would have cost for which a plan pays; not in the cost.
    pub notional_nano_usd: Money,
}

pub(super) fn report(reader: &Reader, query: &Query) -> Result<SpendReport, LedgerError> {
    let mut groups = Groups::<SpendTotals>::default();
    reader.each_exchange(query, |exchange| groups.of(&exchange.group).add(&exchange))?;
    Ok(groups.into_report(query, &query.by))
}

impl SpendTotals {
    fn add(&mut self, exchange: &Exchange) {
        if !exchange.is_call {
            self.unknown_requests = self.unknown_requests.saturating_add(1);
            return;
        }
        let refused = exchange.is_refused();
        let failed = matches!(
            exchange.outcome.as_str(),
            "provider_error" | "upstream_failed" | "truncated" | "lost"
        );
        let usage = exchange.usage.unwrap_or_default();
        let cost = exchange.cost.unwrap_or(Money::ZERO);
        let is_estimated = exchange.cost_state == "estimated";
        let is_unknown = exchange.usage.is_none() && exchange.cost_state == "unknown" && !refused;
        self.merge(&Self {
            calls: 1,
            refused_calls: u64::from(refused),
            failed_calls: u64::from(failed),
            calls_without_usage: u64::from(is_unknown),
            unknown_requests: 0,
            unpriced_calls: u64::from(exchange.cost_state == "unpriced"),
            input_tokens: usage.prompt(),
            output_tokens: usage.output,
            cost_nano_usd: cost,
            estimated_nano_usd: if is_estimated { cost } else { Money::ZERO },
            notional_nano_usd: exchange.notional.unwrap_or(Money::ZERO),
        });
    }

    /// Whatever may have a cost that is not in the sums.
    const fn unknown_costs(&self) -> u64 {
        self.unpriced_calls
            .saturating_add(self.calls_without_usage)
            .saturating_add(self.unknown_requests)
    }
}

impl Totals for SpendTotals {
    const TITLE: &'static str = "spend";
    const COLUMNS: &'static [&'static str] = &[
        "calls", "refused", "failed", "unpriced", "input", "output", "cost",
    ];
    const CSV_COLUMNS: &'static [&'static str] = &[
        "calls",
        "refused_calls",
        "failed_calls",
        "unpriced_calls",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "estimated_usd",
        "calls_without_usage",
        "notional_usd",
        "unknown_requests",
    ];

    fn merge(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.refused_calls = self.refused_calls.saturating_add(other.refused_calls);
        self.failed_calls = self.failed_calls.saturating_add(other.failed_calls);
        self.calls_without_usage = self
            .calls_without_usage
            .saturating_add(other.calls_without_usage);
        self.unknown_requests = self.unknown_requests.saturating_add(other.unknown_requests);
        self.unpriced_calls = self.unpriced_calls.saturating_add(other.unpriced_calls);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cost_nano_usd += other.cost_nano_usd;
        self.estimated_nano_usd += other.estimated_nano_usd;
        self.notional_nano_usd += other.notional_nano_usd;
    }

    fn weight(&self) -> (i64, u64) {
        (self.cost_nano_usd.nanos(), self.calls)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::Count(self.calls),
            Cell::Count(self.refused_calls),
            Cell::Count(self.failed_calls),
            Cell::Count(self.unpriced_calls),
            Cell::Count(self.input_tokens),
            Cell::Count(self.output_tokens),
            Cell::cost(self.cost_nano_usd, self.unknown_costs()),
        ]
    }

    fn csv_cells(&self) -> Vec<Cell> {
        let mut cells = self.cells();
        cells.extend([
            Cell::Amount(self.estimated_nano_usd),
            Cell::Count(self.calls_without_usage),
            Cell::Amount(self.notional_nano_usd),
            Cell::Count(self.unknown_requests),
        ]);
        cells
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = cost_notes(
            self.unpriced_calls,
            self.calls_without_usage,
            self.estimated_nano_usd,
            self.notional_nano_usd,
        );
        if self.unknown_requests > 0 {
            let requests = counted(self.unknown_requests, "request");
            notes.push(format!(
                "+ {requests} of an unknown API: no calls, but may have cost money"
            ));
        }
        notes
    }
}
