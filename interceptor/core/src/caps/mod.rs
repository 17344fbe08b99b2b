//! Spending caps that hold under concurrency: money is reserved before a call is forwarded and
//! settled when its cost is known.
//!
//! A call is admitted if, for every cap that counts it, something is left (`spent + reserved <
//! limit`) and the call fits (`spent + reserved + amount <= limit`). So at every admission
//!
//! ```text
//! spent + reserved <= limit
//! ```
//!
//! and after the last one only the calls then in flight, that one included, are settled:
//!
//! ```text
//! spent at the end <= limit + sum over calls in flight of max(0, actual - reserved)
//! ```
//!
//! whatever the number and order of calls. What a cap of kind `expected` reserves is the expected
//! cost, so that a few large `max_tokens` do not lock everybody out, and the sum is the error of
//! the estimate. What a `strict` one reserves is the worst case, and the sum is 0 as long as no
//! call costs more than that. Where several processes share a ledger, what the others admitted
//! since the last look at it ([`Caps::replace_elsewhere`]) comes on top.
//!
//! Spend counts in the window in which the call was admitted. A clock that is set back does not
//! open a window that has passed: the later one stays in force until it ends. Where a caller lacks
//! a value that a cap is kept by, all such callers share one account; so do all callers beyond
//! [`SCOPES_MAX`] accounts of a cap. Neither can spend more than one limit.

mod accounts;
mod window;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::identity::Subject;
use crate::money::Money;
use accounts::{Accounts, Hold};

pub use accounts::SCOPES_MAX;
pub use window::Window;

/// What spend can be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The API key, by its hash.
    Key,
    /// The user that the program runs as.
    User,
    /// The program.
    Process,
    /// Its control group.
    Cgroup,
    /// Its container.
    Container,
    /// Its Kubernetes pod.
    Pod,
    /// Its Kubernetes namespace.
    Namespace,
    /// Its Kubernetes service account.
    ServiceAccount,
    /// The team, as configured.
    Team,
    /// The host that is called.
    Host,
    /// The provider, by its id.
    Provider,
    /// The model, as the call names it.
    Model,
    /// The session that the program names in the call.
    Session,
}

/// What happens to a call that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExceed {
    /// It is refused. The default: a cap that lets calls pass is no cap.
    #[default]
    Block,
    /// It is forwarded, and said.
    Warn,
}

/// What is reserved for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapKind {
    /// What the call will cost by experience. The default: the worst case starves agents.
    #[default]
    Expected,
    /// The most that it can cost.
    Strict,
}

/// A spending cap.
#[derive(Clone, Debug, PartialEq)]
pub struct Cap {
    /// The name, unique, shown to whoever reaches the cap.
    pub name: String,
    /// What it is kept by: each combination of values has an account; none is one for all calls.
    pub per: Vec<Dimension>,
    /// Which calls count: those that have, in each dimension named here, one of its values, or
    /// a value that starts with one of those that end in `*`.
    pub only: BTreeMap<Dimension, Vec<String>>,
    /// For how long spend counts.
    pub window: Window,
    /// Where the days of the window begin.
    pub timezone: TimeZone,
    /// The most that may be spent in a window.
    pub limit: Money,
    /// What happens beyond it.
    pub on_exceed: OnExceed,
    /// What is reserved for a call.
    pub kind: CapKind,
    /// Shares of the limit, in thousandths, at which a warning is due, once per window each.
    pub warn_at_permille: Vec<u16>,
}

/// What a call may cost, before it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// By experience.
    pub expected: Money,
    /// At most.
    pub worst: Money,
}

/// The reservation of a call that was admitted: to be settled or released, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// Whether a call may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may, and its amount is reserved.
    Admitted {
        /// What to settle or release.
        ticket: Ticket,
        /// Caps that it exceeds and that only warn.
        warnings: Vec<Warning>,
    },
    /// It may not, and nothing is reserved. Of several caps the one that resets last is told.
    Refused(Exceeded),
}

/// A cap that a call does not fit under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The cap.
    pub cap: String,
    /// Whose account it is: `user=alice`, or `all` for a cap that is kept by nothing.
    pub scope: String,
    /// The window of the cap.
    pub window: Window,
    /// The limit of the cap.
    pub limit: Money,
    /// What is spent.
    pub spent: Money,
    /// What other calls have reserved.
    pub reserved: Money,
    /// What this call would have reserved.
    pub requested: Money,
    /// When the window ends, in seconds since 1970; none where it never does.
    pub resets_at_unix: Option<i64>,
}

/// Something to be said about an account that is not a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A call was admitted beyond a cap that only warns. Said once per window and account.
    Exceeded(Exceeded),
    /// What is spent has reached a share of the limit. Said once per window and account.
    Reached {
        /// The share, in thousandths.
        permille: u16,
        /// The state of the account.
        account: AccountState,
    },
}

/// What an account holds at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountState {
    /// The cap.
    pub cap: String,
    /// Whose account it is.
    pub scope: String,
    /// The limit of the cap.
    pub limit: Money,
    /// What is spent.
    pub spent: Money,
    /// What calls in flight have reserved.
    pub reserved: Money,
    /// When the window ends, in seconds since 1970; none where it never does.
    pub resets_at_unix: Option<i64>,
}

/// An amount spent or reserved that this process did not admit.
#[derive(Clone, Copy, Debug)]
pub struct Spend<'a> {
    /// When the call began, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who called what.
    pub subject: Subject<'a>,
    /// How much.
    pub amount: Money,
}

/// All caps and their accounts. Times are in milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Caps {
    caps: Vec<Accounts>,
    /// What each admitted call holds. As many as the shell lets in at once.
    in_flight: HashMap<u64, Vec<InFlight>>,
    next_ticket: u64,
}

/// What a call holds under one of the caps.
#[derive(Debug)]
struct InFlight {
    cap: usize,
    hold: Hold,
}

impl Caps {
    /// Caps with nothing spent.
    #[must_use]
    pub fn new(caps: Vec<Cap>) -> Self {
        Self {
            caps: caps.into_iter().map(Accounts::new).collect(),
            ..Self::default()
        }
    }

    /// Puts other caps in force. One that counts the same as before (same name, `per`, `only`,
    /// window and time zone) keeps what was spent and reserved; the others start with nothing, and
    /// want [`Caps::replay`].
    pub fn reconfigure(&mut self, caps: Vec<Cap>) {
        let mut old: Vec<Option<Accounts>> = self.caps.drain(..).map(Some).collect();
        let mut new_index = HashMap::new();
        for (index, cap) in caps.into_iter().enumerate() {
            let same = old
                .iter()
                .position(|old| old.as_ref().is_some_and(|old| old.counts_as(&cap)));
            let kept = same.and_then(|at| old.get_mut(at)?.take());
            if let Some(at) = same {
                new_index.insert(at, index);
            }
            self.caps.push(match kept {
                Some(accounts) => accounts.with_terms(cap),
                None => Accounts::new(cap),
            });
        }
        for held in self.in_flight.values_mut() {
            held.retain_mut(|held| match new_index.get(&held.cap) {
                Some(index) => {
                    held.cap = *index;
                    true
                }
                None => false,
            });
        }
    }

    /// Whether a call fits under every cap that counts it; if so, its amount is reserved in all
    /// of them, and in none if not.
    pub fn reserve(&mut self, now_ms: i64, subject: &Subject<'_>, amounts: Amounts) -> Decision {
        let mut refusal: Option<Exceeded> = None;
        let mut warnings = Vec::new();
        let mut counting = Vec::new();
        for (index, accounts) in self.caps.iter_mut().enumerate() {
            if !accounts.cap.counts(subject) {
                continue;
            }
            accounts.advance(now_ms);
            let key = accounts.key(subject);
            let amount = accounts.cap.amount(amounts);
            match (
                accounts.exceeded(&key, subject, amount),
                accounts.cap.on_exceed,
            ) {
                (Some(exceeded), OnExceed::Block) => {
                    let resets_later = refusal.as_ref().is_none_or(|other| {
                        reset_order(exceeded.resets_at_unix) > reset_order(other.resets_at_unix)
                    });
                    if resets_later {
                        refusal = Some(exceeded);
                    }
                }
                (Some(exceeded), OnExceed::Warn) => warnings.push((index, key.clone(), exceeded)),
                (None, _) => {}
            }
            counting.push((index, key, amount));
        }
        if let Some(exceeded) = refusal {
            return Decision::Refused(exceeded);
        }
        let ticket = self.hold(subject, counting);
        warnings.retain(|(index, key, _)| {
            self.caps
                .get_mut(*index)
                .is_some_and(|accounts| accounts.is_first_excess(key))
        });
        let warnings = warnings
            .into_iter()
            .map(|(_, _, exceeded)| Warning::Exceeded(exceeded))
            .collect();
        Decision::Admitted { ticket, warnings }
    }

    /// Replaces what a call had reserved by what it cost, in the window in which it was admitted.
    ///
    /// A ticket that was settled or released before changes nothing.
    pub fn settle(&mut self, ticket: Ticket, actual: Money) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for held in self.in_flight.remove(&ticket.0).unwrap_or_default() {
            if let Some(accounts) = self.caps.get_mut(held.cap) {
                warnings.extend(accounts.settle(&held.hold, actual.max(Money::ZERO)));
            }
        }
        warnings
    }

    /// Gives back what a call had reserved and did not spend.
    pub fn release(&mut self, ticket: Ticket) {
        let warnings = self.settle(ticket, Money::ZERO);
        debug_assert!(warnings.is_empty(), "spending nothing reaches no threshold");
    }

    /// Counts money that was spent without a reservation of this process, in order of time.
    /// Spend of windows that have passed is not counted.
    pub fn record_spend(&mut self, spend: &Spend<'_>) {
        for accounts in &mut self.caps {
            accounts.record(spend);
        }
    }

    /// Counts money that was spent before the caps were in force, as the ledger has kept it, in
    /// order of time: only in caps that are new since [`Caps::new`] or [`Caps::reconfigure`].
    pub fn replay(&mut self, spend: &Spend<'_>) {
        for accounts in self.caps.iter_mut().filter(|accounts| accounts.is_new) {
            accounts.record(spend);
        }
    }

    /// From when on spend has to be replayed: the start of the longest window of a cap that is
    /// new. None where no cap is new; [`i64::MIN`] where all spend counts.
    #[must_use]
    pub fn replay_since_ms(&self, now_ms: i64) -> Option<i64> {
        self.caps
            .iter()
            .filter(|accounts| accounts.is_new)
            .map(|accounts| accounts.cap.period(now_ms).start_ms)
            .min()
    }

    /// Replaces what other processes that share the ledger have in flight.
    pub fn replace_elsewhere<'a>(
        &mut self,
        now_ms: i64,
        reserved: impl IntoIterator<Item = Spend<'a>>,
    ) {
        for accounts in &mut self.caps {
            accounts.advance(now_ms);
            accounts.clear_elsewhere();
        }
        for spend in reserved {
            for accounts in &mut self.caps {
                accounts.reserve_elsewhere(&spend);
            }
        }
    }

    /// Every account in which something is spent or reserved in the window of `now_ms`, by cap,
    /// then by scope.
    #[must_use]
    pub fn states(&self, now_ms: i64) -> Vec<AccountState> {
        self.caps
            .iter()
            .flat_map(|accounts| accounts.states(now_ms))
            .collect()
    }

    /// The caps, in the order in which they were configured.
    pub fn caps(&self) -> impl Iterator<Item = &Cap> {
        self.caps.iter().map(|accounts| &accounts.cap)
    }

    /// Calls that are admitted and neither settled nor released, of those that a cap counts.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How often a call was counted in the account that callers beyond [`SCOPES_MAX`] share.
    #[must_use]
    pub fn calls_of_shared_scopes(&self) -> u64 {
        self.caps
            .iter()
            .fold(0, |sum, accounts| sum.saturating_add(accounts.shared_calls))
    }

    fn hold(&mut self, subject: &Subject<'_>, counting: Vec<(usize, String, Money)>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let mut held = Vec::with_capacity(counting.len());
        for (cap, key, amount) in counting {
            if let Some(accounts) = self.caps.get_mut(cap) {
                held.push(InFlight {
                    cap,
                    hold: accounts.hold(key, subject, amount),
                });
            }
        }
        if !held.is_empty() {
            self.in_flight.insert(ticket, held);
        }
        Ticket(ticket)
    }
}

impl Dimension {
    /// The name in the configuration and in scopes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service_account",
            Self::Team => "team",
            Self::Host => "host",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Session => "session",
        }
    }

    /// A subject's value; none where it is not known.
    fn value<'a>(self, subject: &Subject<'a>) -> Option<&'a str> {
        let caller = subject.caller;
        match self {
            Self::Key => caller.key.as_deref(),
            Self::User => caller.user.as_deref(),
            Self::Process => caller.process.as_deref(),
            Self::Cgroup => caller.cgroup.as_deref(),
            Self::Container => caller.container.as_deref(),
            Self::Pod => caller.pod.as_deref(),
            Self::Namespace => caller.namespace.as_deref(),
            Self::ServiceAccount => caller.service_account.as_deref(),
            Self::Team => caller.team.as_deref(),
            Self::Host => Some(subject.host),
            Self::Provider => Some(subject.provider),
            Self::Model => Some(subject.model),
            Self::Session => caller.session.as_deref(),
        }
    }
}

fn reset_order(resets_at_unix: Option<i64>) -> i64 {
    resets_at_unix.unwrap_or(i64::MAX)
}
