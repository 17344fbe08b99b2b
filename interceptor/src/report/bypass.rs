//! What was not inspected, and why.

use serde::Serialize;

use super::cell::Cell;
use super::query::{GroupKey, Query};
use super::reader::Reader;
use super::show::{Groups, Report, Totals};
use crate::ledger::LedgerError;

/// What was not inspected, by program, host and reason.
pub type BypassReport = Report<BypassTotals>;

/// How much was not inspected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BypassTotals {
    /// Connections, or calls on them.
    pub count: u64,
}

pub(super) fn report(reader: &Reader, query: &Query) -> Result<BypassReport, LedgerError> {
    let mut groups = Groups::<BypassTotals>::default();
    reader.each_bypass(query, |bypass| {
        // Without a name, the address is the best there is.
        let host = if bypass.host.is_empty() {
            bypass.destination
        } else {
            bypass.host
        };
        let totals = groups.of(&[bypass.program, host, bypass.reason]);
        totals.merge(&BypassTotals {
            count: bypass.count,
        });
    })?;
    Ok(groups.into_report(
        query,
        &[GroupKey::Program, GroupKey::Host, GroupKey::Reason],
    ))
}

impl Totals for BypassTotals {
    const TITLE: &'static str = "not inspected";
    const COLUMNS: &'static [&'static str] = &["count"];
    const CSV_COLUMNS: &'static [&'static str] = &["count"];

    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
    }

    fn weight(&self) -> (i64, u64) {
        (0, self.count)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::Count(self.count)]
    }
}
