//! What was not inspected, and why.

use std::collections::BTreeSet;

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
    /// The reasons among them.
    #[serde(skip)]
    reasons: BTreeSet<String>,
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
        let one = BypassTotals {
            count: bypass.count,
            reasons: [bypass.reason.clone()].into(),
        };
        groups
            .of(&[bypass.program, host, bypass.reason])
            .merge(&one);
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
        self.reasons.extend(other.reasons.iter().cloned());
    }

    fn weight(&self) -> (i64, u64) {
        (0, self.count)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::Count(self.count)]
    }

    fn notes(&self) -> Vec<String> {
        let advised = self.reasons.iter().filter_map(|reason| {
            let (_, advice) = ADVICE.iter().find(|(about, _)| about == reason)?;
            Some(format!("{reason}: {advice}"))
        });
        advised.collect()
    }
}

/// What to do about a reason, where something can be done or asked.
const ADVICE: [(&str, &str); 7] = [
    (
        "ca_does_not_cover",
        "the CA is older than this host: weir ca rotate, then restart",
    ),
    (
        "client_rejects_ca",
        "does not trust the CA, or pins another: see weir doctor",
    ),
    (
        "not_provider",
        "no LLM host, as far as is known: else put it into intercept.hosts",
    ),
    (
        "request_too_long",
        "calls beyond 32 MiB pass uncapped: intercept.fail = \"closed\" refuses them",
    ),
    (
        "request_unreadable",
        "calls that pass uncapped: the log says what is unreadable; intercept.fail = \"closed\" refuses them",
    ),
    (
        "upstream_untrusted",
        "its certificate does not verify: see upstream.extra_roots",
    ),
    (
        "upstream_wants_client_certificate",
        "only the program has one: nothing to do",
    ),
];
