//! What people change of a cap while it is in force: raises and resets.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::amount::Amount;

/// A change of what accounts of a cap may spend. It is written down and stays; it is never altered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number in the ledger, from 1: a later one has a higher one.
    pub number: i64,
    /// When it was made, in milliseconds since 1970.
    pub at_ms: i64,
    /// The cap.
    pub cap: String,
    /// The account, as it is shown: `user=ann`. None is each account of the cap.
    pub scope: Option<String>,
    /// What is changed.
    pub kind: ChangeKind,
    /// Who made it.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The limit is higher for a time.
    Raise {
        /// By how much.
        by: Amount,
        /// Until when, in milliseconds since 1970.
        until_ms: i64,
    },
    /// What was spent before counts no more.
    Reset,
}

/// The changes of one cap.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    for_all: OfScope,
    by_scope: HashMap<String, OfScope>,
    /// The number of the latest reset of any account; 0 where there is none.
    pub(super) newest_reset: i64,
}

#[derive(Clone, Debug, Default)]
struct OfScope {
    raises: Vec<Raise>,
    /// The number of the latest reset; 0 where there is none.
    reset: i64,
}

#[derive(Clone, Copy, Debug)]
struct Raise {
    by: Amount,
    until_ms: i64,
}

impl Changes {
    /// Those of `all` that concern a cap.
    pub(super) fn of(cap: &str, all: &[Change]) -> Self {
        let mut changes = Self::default();
        for change in all.iter().filter(|change| change.cap == cap) {
            let of = match &change.scope {
                None => &mut changes.for_all,
                Some(scope) => changes.by_scope.entry(scope.clone()).or_default(),
            };
            match change.kind {
                ChangeKind::Raise { by, until_ms } => of.raises.push(Raise { by, until_ms }),
                ChangeKind::Reset => {
                    of.reset = of.reset.max(change.number);
                    changes.newest_reset = changes.newest_reset.max(change.number);
                }
            }
        }
        changes
    }

    /// Whether there is none, so that the name of an account need not be made.
    pub(super) fn is_empty(&self) -> bool {
        self.for_all.raises.is_empty() && self.for_all.reset == 0 && self.by_scope.is_empty()
    }

    /// By how much the limit of an account is raised at a moment.
    pub(super) fn raised_by(&self, scope: &str, now_ms: i64) -> Amount {
        self.concerning(scope)
            .flat_map(|of| &of.raises)
            .filter(|raise| now_ms < raise.until_ms)
            .fold(Amount::ZERO, |sum, raise| sum + raise.by)
    }

    /// The number of the latest reset of an account; 0 where there is none.
    pub(super) fn last_reset(&self, scope: &str) -> i64 {
        self.concerning(scope).map(|of| of.reset).max().unwrap_or(0)
    }

    fn concerning(&self, scope: &str) -> impl Iterator<Item = &OfScope> {
        std::iter::once(&self.for_all).chain(self.by_scope.get(scope))
    }
}
