//! What people change of a cap while it is in force: raises and resets.

use serde::{Deserialize, Serialize};

use super::amount::Amount;

/// A change of what accounts of a cap may spend. It is written down and stays; it is never altered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
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
    raises: Vec<Raise>,
    resets: Vec<Reset>,
}

#[derive(Clone, Debug)]
struct Raise {
    scope: Option<String>,
    by: Amount,
    until_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reset {
    scope: Option<String>,
    at_ms: i64,
}

impl Changes {
    /// Those of `all` that concern a cap.
    pub(super) fn of(cap: &str, all: &[Change]) -> Self {
        let mut changes = Self::default();
        for change in all.iter().filter(|change| change.cap == cap) {
            let scope = change.scope.clone();
            match change.kind {
                ChangeKind::Raise { by, until_ms } => {
                    changes.raises.push(Raise {
                        scope,
                        by,
                        until_ms,
                    });
                }
                ChangeKind::Reset => changes.resets.push(Reset {
                    scope,
                    at_ms: change.at_ms,
                }),
            }
        }
        changes
    }

    /// Whether there is none, so that the name of an account need not be made.
    pub(super) fn is_empty(&self) -> bool {
        self.raises.is_empty() && self.resets.is_empty()
    }

    /// By how much the limit of an account is raised at a moment.
    pub(super) fn raised_by(&self, scope: &str, now_ms: i64) -> Amount {
        self.raises
            .iter()
            .filter(|raise| now_ms < raise.until_ms && concerns(raise.scope.as_ref(), scope))
            .fold(Amount::ZERO, |sum, raise| sum + raise.by)
    }

    /// Whether what an account spent at a moment was forgotten later.
    pub(super) fn forgets(&self, scope: &str, spent_at_ms: i64) -> bool {
        self.resets
            .iter()
            .any(|reset| spent_at_ms < reset.at_ms && reset.concerns(scope))
    }

    /// The resets that `earlier` does not have.
    pub(super) fn new_resets(&self, earlier: &Self) -> Vec<Reset> {
        let is_new = |reset: &&Reset| !earlier.resets.contains(reset);
        self.resets.iter().filter(is_new).cloned().collect()
    }
}

impl Reset {
    pub(super) fn concerns(&self, scope: &str) -> bool {
        concerns(self.scope.as_ref(), scope)
    }
}

fn concerns(of: Option<&String>, scope: &str) -> bool {
    of.is_none_or(|of| of == scope)
}
