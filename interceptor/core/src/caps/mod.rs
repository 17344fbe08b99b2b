//! Spending caps that hold under concurrency: money is reserved before a call is forwarded and
//! settled when its cost is known.
//!
//! A call is admitted if, for every cap that matches it, `spent + reserved + amount <= limit` and
//! something is left (`spent + reserved < limit`). So at every admission
//!
//! ```text
//! spent + reserved <= limit
//! ```
//!
//! holds, and after the last one only the calls then in flight, that one included, are settled:
//!
//! ```text
//! spent at the end <= limit + sum over calls in flight of max(0, actual - reserved)
//! ```
//!
//! whatever the number and order of calls. What a cap of kind `expected` reserves is the expected
//! cost, so that a few large `max_tokens` do not lock everybody out, and the sum is the error of
//! the estimate. What a `strict` one reserves is the worst case, and the sum is 0 as long as no
//! call costs more than that.
//!
//! Spend counts in the window in which the call was admitted. A clock that is set back does not
//! open a window that has passed: the later one stays in force until it ends. Where a caller lacks
//! a value that a cap is kept by, all such callers share one account; so do all callers beyond
//! [`SCOPES_MAX`] accounts of a cap. Neither can spend more than one limit.

mod window;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::identity::Subject;
use crate::money::Money;
use window::Period;
pub use window::Window;

/// What a cap is kept by, one account for each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    /// The API key, by its hash.
    Key,
    /// The user that the program runs as.
    User,
    /// The program.
    Process,
    /// The host that is called.
    Host,
    /// The provider.
    Provider,
    /// The model.
    Model,
}

/// What happens to a call that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExceed {
    /// It is refused.
    Block,
    /// It is forwarded, and said.
    Warn,
}

/// What is reserved for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapKind {
    /// What the call will cost by experience.
    Expected,
    /// The most that it can cost.
    Strict,
}

/// Which calls a cap counts. An empty list is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Providers by id.
    pub provider: Vec<String>,
    /// Models: a name, or the start of one followed by `*`.
    pub model: Vec<String>,
    /// Hosts.
    pub host: Vec<String>,
}

/// A spending cap.
#[derive(Clone, Debug)]
pub struct Cap {
    /// The name, unique, shown to whoever reaches the cap.
    pub name: String,
    /// What it is kept by; nothing is one account for all.
    pub per: Vec<Dimension>,
    /// Which calls count.
    pub matches: Match,
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
    pub warn_at_per_mille: Vec<u16>,
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
        per_mille: u16,
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

/// All caps and their accounts.
#[derive(Debug, Default)]
pub struct Caps {
    ledgers: Vec<Ledger>,
    in_flight: HashMap<u64, Vec<Hold>>,
    next_ticket: u64,
}

/// A cap with its accounts.
#[derive(Debug)]
struct Ledger {
    cap: Cap,
    /// The window that was in force at the latest moment seen.
    period: Period,
    accounts: HashMap<Arc<str>, Account>,
    /// The start of the window in which accounts of passed windows were last cleared away.
    cleared_at_ms: i64,
    shared_scopes: u64,
}

#[derive(Debug)]
struct Account {
    scope: String,
    period: Period,
    spent: Money,
    reserved: Money,
    /// How many of the thresholds were said.
    warned: usize,
    said_exceeded: bool,
}

/// Part of a reservation: the amount held in one account.
#[derive(Debug)]
struct Hold {
    ledger: usize,
    account: Arc<str>,
    period: Period,
    amount: Money,
}

impl Caps {
    /// Caps with nothing spent.
    #[must_use]
    pub fn new(caps: Vec<Cap>) -> Self {
        Self {
            ledgers: caps.into_iter().map(Ledger::new).collect(),
            ..Self::default()
        }
    }

    /// Whether a call fits under every cap that matches it; if so, its amount is reserved in all
    /// of them, and in none if not.
    pub fn reserve(&mut self, now_ms: i64, subject: &Subject<'_>, amounts: Amounts) -> Decision {
        let mut refusal: Option<Exceeded> = None;
        let mut holds = Vec::new();
        for (index, ledger) in self.ledgers.iter_mut().enumerate() {
            if !ledger.cap.matches.includes(subject) {
                continue;
            }
            let amount = ledger.cap.amount(amounts);
            let (key, account) = ledger.account(now_ms, subject);
            let hold = Hold {
                ledger: index,
                account: key,
                period: account.period,
                amount,
            };
            if let Some(exceeded) = ledger.judge(&hold) {
                let resets_later = refusal.as_ref().is_none_or(|other| {
                    reset_order(exceeded.resets_at_unix) > reset_order(other.resets_at_unix)
                });
                if ledger.cap.on_exceed == OnExceed::Block && resets_later {
                    refusal = Some(exceeded);
                }
            }
            holds.push(hold);
        }
        if let Some(exceeded) = refusal {
            return Decision::Refused(exceeded);
        }
        let warnings = self.hold(&holds);
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.in_flight.insert(ticket, holds);
        Decision::Admitted {
            ticket: Ticket(ticket),
            warnings,
        }
    }

    /// Replaces what a call had reserved by what it cost, in the window in which it was admitted.
    ///
    /// A ticket that was settled or released before changes nothing.
    pub fn settle(&mut self, ticket: Ticket, actual: Money) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for hold in self.in_flight.remove(&ticket.0).unwrap_or_default() {
            if let Some(ledger) = self.ledgers.get_mut(hold.ledger) {
                warnings.extend(ledger.settle(&hold, actual));
            }
        }
        warnings
    }

    /// Gives back what a call had reserved and did not spend.
    pub fn release(&mut self, ticket: Ticket) {
        let warnings = self.settle(ticket, Money::ZERO);
        debug_assert!(warnings.is_empty(), "spending nothing reaches no threshold");
    }

    /// Counts money that was spent without a reservation: what the ledger has kept from before
    /// a restart, in the order of time. Spend of windows that have passed is no longer counted.
    pub fn record_spend(&mut self, at_ms: i64, subject: &Subject<'_>, amount: Money) {
        for ledger in &mut self.ledgers {
            if ledger.cap.matches.includes(subject) {
                ledger.record(at_ms, subject, amount);
            }
        }
    }

    /// The earliest moment, in milliseconds since 1970, whose spend still counts: from where the
    /// ledger has to be replayed after a restart. None where there is no cap.
    #[must_use]
    pub fn counts_since_ms(&self, now_ms: i64) -> Option<i64> {
        self.ledgers
            .iter()
            .map(|ledger| {
                ledger
                    .cap
                    .window
                    .period(now_ms, &ledger.cap.timezone)
                    .start_ms
            })
            .min()
    }

    /// Every account in which something is spent or reserved in the window of `now_ms`, by cap,
    /// then by scope.
    #[must_use]
    pub fn states(&self, now_ms: i64) -> Vec<AccountState> {
        let mut states = Vec::new();
        for ledger in &self.ledgers {
            let mut live: Vec<&Account> = ledger
                .accounts
                .values()
                .filter(|account| now_ms < account.period.end_ms)
                .filter(|account| account.spent.max(account.reserved) > Money::ZERO)
                .collect();
            live.sort_by(|a, b| a.scope.cmp(&b.scope));
            states.extend(live.into_iter().map(|account| account.state(&ledger.cap)));
        }
        states
    }

    /// Calls that are admitted and neither settled nor released.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How often a call was counted in the account that callers beyond [`SCOPES_MAX`] share.
    #[must_use]
    pub fn shared_scopes(&self) -> u64 {
        self.ledgers
            .iter()
            .fold(0, |sum, ledger| sum.saturating_add(ledger.shared_scopes))
    }

    fn hold(&mut self, holds: &[Hold]) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for hold in holds {
            let Some(ledger) = self.ledgers.get_mut(hold.ledger) else {
                continue;
            };
            let exceeded = ledger.judge(hold);
            let Some(account) = ledger.accounts.get_mut(&hold.account) else {
                continue;
            };
            account.reserved += hold.amount;
            if let Some(exceeded) = exceeded
                && !std::mem::replace(&mut account.said_exceeded, true)
            {
                warnings.push(Warning::Exceeded(exceeded));
            }
        }
        warnings
    }
}

impl Ledger {
    fn new(mut cap: Cap) -> Self {
        cap.warn_at_per_mille.sort_unstable();
        Self {
            cap,
            period: Period {
                start_ms: i64::MIN,
                end_ms: i64::MIN,
            },
            accounts: HashMap::new(),
            cleared_at_ms: i64::MIN,
            shared_scopes: 0,
        }
    }

    /// The account of a subject in the window of `now_ms`, made if there is none.
    fn account(&mut self, now_ms: i64, subject: &Subject<'_>) -> (Arc<str>, &mut Account) {
        if now_ms >= self.period.end_ms {
            self.period = self.cap.window.period(now_ms, &self.cap.timezone);
        }
        let mut key = account_key(&self.cap.per, subject);
        let mut is_shared = false;
        if !self.accounts.contains_key(key.as_str()) && self.is_full() {
            key = SHARED_ACCOUNT_KEY.to_owned();
            is_shared = true;
            self.shared_scopes = self.shared_scopes.saturating_add(1);
        }
        let key: Arc<str> = match self.accounts.get_key_value(key.as_str()) {
            Some((known, _)) => Arc::clone(known),
            None => key.into(),
        };
        let per = &self.cap.per;
        let account = self.accounts.entry(Arc::clone(&key)).or_insert_with(|| {
            let scope = if is_shared {
                SHARED_SCOPE.to_owned()
            } else {
                scope_text(per, subject)
            };
            Account::new(scope, self.period)
        });
        if account.period != self.period {
            *account = Account::new(std::mem::take(&mut account.scope), self.period);
        }
        (key, account)
    }

    /// Whether there is no room for another account, after those of passed windows were cleared
    /// away, which is tried once per window.
    fn is_full(&mut self) -> bool {
        if self.accounts.len() < SCOPES_MAX {
            return false;
        }
        if self.cleared_at_ms != self.period.start_ms {
            self.cleared_at_ms = self.period.start_ms;
            let period = self.period;
            self.accounts.retain(|_, account| account.period == period);
        }
        self.accounts.len() >= SCOPES_MAX
    }

    fn judge(&self, hold: &Hold) -> Option<Exceeded> {
        let account = self.accounts.get(&hold.account)?;
        let taken = account.spent + account.reserved;
        let fits = taken < self.cap.limit && taken + hold.amount <= self.cap.limit;
        (!fits).then(|| Exceeded {
            cap: self.cap.name.clone(),
            scope: account.scope.clone(),
            window: self.cap.window,
            limit: self.cap.limit,
            spent: account.spent,
            reserved: account.reserved,
            requested: hold.amount,
            resets_at_unix: account.period.end_unix(),
        })
    }

    fn settle(&mut self, hold: &Hold, actual: Money) -> Vec<Warning> {
        let Some(account) = self.accounts.get_mut(&hold.account) else {
            return Vec::new();
        };
        if account.period != hold.period {
            return Vec::new();
        }
        account.reserved = account.reserved.saturating_sub_to_zero(hold.amount);
        account.spend(actual, &self.cap)
    }

    fn record(&mut self, at_ms: i64, subject: &Subject<'_>, amount: Money) {
        if at_ms < self.period.start_ms {
            return;
        }
        let (key, _) = self.account(at_ms, subject);
        if let Some(account) = self.accounts.get_mut(&key) {
            // What was said before a restart is not said again.
            let _said: Vec<Warning> = account.spend(amount, &self.cap);
        }
    }
}

impl Account {
    fn new(scope: String, period: Period) -> Self {
        Self {
            scope,
            period,
            spent: Money::ZERO,
            reserved: Money::ZERO,
            warned: 0,
            said_exceeded: false,
        }
    }

    fn spend(&mut self, amount: Money, cap: &Cap) -> Vec<Warning> {
        self.spent += amount;
        let mut warnings = Vec::new();
        for per_mille in cap.warn_at_per_mille.iter().skip(self.warned) {
            if !reaches(self.spent, cap.limit, *per_mille) {
                break;
            }
            self.warned = self.warned.saturating_add(1);
            warnings.push(Warning::Reached {
                per_mille: *per_mille,
                account: self.state(cap),
            });
        }
        warnings
    }

    fn state(&self, cap: &Cap) -> AccountState {
        AccountState {
            cap: cap.name.clone(),
            scope: self.scope.clone(),
            limit: cap.limit,
            spent: self.spent,
            reserved: self.reserved,
            resets_at_unix: self.period.end_unix(),
        }
    }
}

impl Cap {
    fn amount(&self, amounts: Amounts) -> Money {
        let amount = match self.kind {
            CapKind::Expected => amounts.expected,
            CapKind::Strict => amounts.worst,
        };
        amount.max(Money::ZERO)
    }
}

impl Match {
    fn includes(&self, subject: &Subject<'_>) -> bool {
        let equals = |list: &[String], value: &str| {
            list.is_empty() || list.iter().any(|item| item.eq_ignore_ascii_case(value))
        };
        let is_model = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => subject.model.starts_with(start),
            None => subject.model == pattern,
        };
        equals(&self.provider, subject.provider)
            && equals(&self.host, subject.host)
            && (self.model.is_empty() || self.model.iter().any(is_model))
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
            Self::Host => "host",
            Self::Provider => "provider",
            Self::Model => "model",
        }
    }

    fn value<'a>(self, subject: &Subject<'a>) -> &'a str {
        let known = match self {
            Self::Key => subject.caller.key.as_deref(),
            Self::User => subject.caller.user.as_deref(),
            Self::Process => subject.caller.process.as_deref(),
            Self::Host => Some(subject.host),
            Self::Provider => Some(subject.provider),
            Self::Model => Some(subject.model),
        };
        known.unwrap_or(UNKNOWN)
    }
}

/// The values with their lengths, so that no choice of names gives two subjects one account.
fn account_key(per: &[Dimension], subject: &Subject<'_>) -> String {
    let mut key = String::new();
    for dimension in per {
        let value = dimension.value(subject);
        key.push_str(&value.len().to_string());
        key.push(':');
        key.push_str(value);
    }
    key
}

fn scope_text(per: &[Dimension], subject: &Subject<'_>) -> String {
    if per.is_empty() {
        return "all".to_owned();
    }
    let parts: Vec<String> = per
        .iter()
        .map(|dimension| format!("{}={}", dimension.as_str(), dimension.value(subject)))
        .collect();
    parts.join(", ")
}

fn reaches(spent: Money, limit: Money, per_mille: u16) -> bool {
    i128::from(spent.nanos()).saturating_mul(1000)
        >= i128::from(limit.nanos()).saturating_mul(i128::from(per_mille))
}

fn reset_order(resets_at_unix: Option<i64>) -> i64 {
    resets_at_unix.unwrap_or(i64::MAX)
}

/// The most accounts of one cap: about 20 MB. Callers beyond it share one account.
pub const SCOPES_MAX: usize = 100_000;

const UNKNOWN: &str = "unknown";
const SHARED_SCOPE: &str = "all others";
/// No key of an account starts with a letter, and the key of a cap kept by nothing is empty.
const SHARED_ACCOUNT_KEY: &str = "others";
