//! The accounts of one cap: who has spent and reserved how much in the window in force.

use std::collections::HashMap;
use std::sync::Arc;

use super::window::Period;
use super::{AccountState, Amounts, Cap, CapKind, Dimension, Exceeded, Spend, Warning};
use crate::identity::Subject;
use crate::money::Money;

/// A cap and its accounts.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) cap: Cap,
    /// Whether the cap was not in force before the latest configuration.
    pub(super) is_new: bool,
    /// Calls counted in the account that callers beyond [`SCOPES_MAX`] share.
    pub(super) shared_calls: u64,
    /// The latest window that was seen.
    period: Period,
    by_key: HashMap<Arc<str>, Account>,
    /// The window in which accounts of passed windows were last cleared away.
    cleared_in: Period,
}

/// An amount held in an account for a call in flight.
#[derive(Debug)]
pub(super) struct Hold {
    key: Arc<str>,
    period: Period,
    amount: Money,
}

#[derive(Debug)]
struct Account {
    scope: String,
    /// The window that the amounts are of: those of one that has passed count for nothing.
    period: Period,
    spent: Money,
    reserved: Money,
    /// Reserved by other processes that share the ledger.
    elsewhere: Money,
    /// Calls that hold something here, if only nothing.
    holds: usize,
    /// How many of the cap's thresholds were said.
    warned: usize,
    said_exceeded: bool,
}

impl Accounts {
    pub(super) fn new(mut cap: Cap) -> Self {
        cap.warn_at_permille.sort_unstable();
        Self {
            cap,
            is_new: true,
            shared_calls: 0,
            period: Period::NEVER,
            by_key: HashMap::new(),
            cleared_in: Period::NEVER,
        }
    }

    /// Whether spend under `other` would be counted in the same accounts and windows.
    pub(super) fn counts_as(&self, other: &Cap) -> bool {
        let Cap {
            name,
            per,
            only,
            window,
            timezone,
            ..
        } = &self.cap;
        *name == other.name
            && *per == other.per
            && *only == other.only
            && *window == other.window
            && *timezone == other.timezone
    }

    /// The same accounts, with another limit or another way to deal with it.
    pub(super) fn with_terms(self, cap: Cap) -> Self {
        let Self {
            shared_calls,
            period,
            by_key,
            cleared_in,
            ..
        } = self;
        Self {
            is_new: false,
            shared_calls,
            period,
            by_key,
            cleared_in,
            ..Self::new(cap)
        }
    }

    /// Goes on to the window that holds a moment, unless a later one is in force already.
    pub(super) fn advance(&mut self, now_ms: i64) {
        if now_ms >= self.period.end_ms {
            self.period = self.cap.period(now_ms);
        }
    }

    /// The key of the account in which a subject is counted.
    pub(super) fn key(&mut self, subject: &Subject<'_>) -> String {
        let key = account_key(&self.cap.per, subject);
        if !self.by_key.contains_key(key.as_str()) && self.is_full() {
            self.shared_calls = self.shared_calls.saturating_add(1);
            return SHARED_KEY.to_owned();
        }
        key
    }

    /// Why an amount does not fit, if it does not.
    pub(super) fn exceeded(
        &self,
        key: &str,
        subject: &Subject<'_>,
        amount: Money,
    ) -> Option<Exceeded> {
        let limit = self.cap.limit;
        let account = self.live(key);
        let spent = account.map_or(Money::ZERO, |account| account.spent);
        let reserved = account.map_or(Money::ZERO, Account::all_reserved);
        let taken = spent + reserved;
        let fits = taken < limit && taken + amount <= limit;
        (!fits).then(|| Exceeded {
            cap: self.cap.name.clone(),
            scope: self.scope(key, subject),
            window: self.cap.window,
            limit,
            spent,
            reserved,
            requested: amount,
            resets_at_unix: self.period.end_unix(),
        })
    }

    /// Whether it was not yet said, in this window, that the limit of an account is exceeded.
    pub(super) fn is_first_excess(&mut self, key: &str) -> bool {
        self.by_key
            .get_mut(key)
            .is_some_and(|account| !std::mem::replace(&mut account.said_exceeded, true))
    }

    pub(super) fn hold(&mut self, key: String, subject: &Subject<'_>, amount: Money) -> Hold {
        let period = self.period;
        let (key, account) = self.account(key, subject);
        account.reserved += amount;
        account.holds = account.holds.saturating_add(1);
        Hold {
            key,
            period,
            amount,
        }
    }

    pub(super) fn settle(&mut self, hold: &Hold, actual: Money) -> Vec<Warning> {
        let Some(account) = self.by_key.get_mut(&hold.key) else {
            return Vec::new();
        };
        if account.period != hold.period {
            return Vec::new();
        }
        account.reserved = account.reserved.saturating_sub_to_zero(hold.amount);
        account.holds = account.holds.saturating_sub(1);
        let warnings = account.spend(actual, &self.cap);
        if account.is_untouched() {
            self.by_key.remove(&hold.key);
        }
        warnings
    }

    pub(super) fn record(&mut self, spend: &Spend<'_>) {
        if spend.amount <= Money::ZERO {
            return;
        }
        if let Some(account) = self.account_at(spend) {
            account.spent += spend.amount;
        }
    }

    pub(super) fn clear_elsewhere(&mut self) {
        for account in self.by_key.values_mut() {
            account.elsewhere = Money::ZERO;
        }
        self.by_key.retain(|_, account| !account.is_untouched());
    }

    pub(super) fn reserve_elsewhere(&mut self, spend: &Spend<'_>) {
        if let Some(account) = self.account_at(spend) {
            account.elsewhere += spend.amount.max(Money::ZERO);
        }
    }

    pub(super) fn states(&self, now_ms: i64) -> Vec<AccountState> {
        let mut states: Vec<AccountState> = self
            .by_key
            .values()
            .filter(|account| account.period == self.period && now_ms < account.period.end_ms)
            .filter(|account| account.spent + account.all_reserved() > Money::ZERO)
            .map(|account| account.state(&self.cap))
            .collect();
        states.sort_by(|a, b| a.scope.cmp(&b.scope));
        states
    }

    /// The account of a spend of the window in force or of a later one, which then is in force.
    fn account_at(&mut self, spend: &Spend<'_>) -> Option<&mut Account> {
        if !self.cap.counts(&spend.subject) || spend.at_ms < self.period.start_ms {
            return None;
        }
        self.advance(spend.at_ms);
        let key = self.key(&spend.subject);
        Some(self.account(key, &spend.subject).1)
    }

    /// The account in the window in force, made if there is none.
    fn account(&mut self, key: String, subject: &Subject<'_>) -> (Arc<str>, &mut Account) {
        let key: Arc<str> = match self.by_key.get_key_value(key.as_str()) {
            Some((known, _)) => Arc::clone(known),
            None => key.into(),
        };
        let scope = match self.live(&key) {
            Some(_) => None,
            None => Some(self.scope(&key, subject)),
        };
        let period = self.period;
        let account = self.by_key.entry(Arc::clone(&key)).or_default();
        if let Some(scope) = scope {
            *account = Account {
                scope,
                period,
                ..Account::default()
            };
        }
        (key, account)
    }

    fn live(&self, key: &str) -> Option<&Account> {
        self.by_key
            .get(key)
            .filter(|account| account.period == self.period)
    }

    fn scope(&self, key: &str, subject: &Subject<'_>) -> String {
        if key == SHARED_KEY {
            SHARED_SCOPE.to_owned()
        } else {
            scope(&self.cap.per, subject)
        }
    }

    /// Whether there is no room for another account, after those of passed windows were cleared
    /// away, which is tried once per window.
    fn is_full(&mut self) -> bool {
        if self.by_key.len() >= SCOPES_MAX && self.cleared_in != self.period {
            self.cleared_in = self.period;
            let period = self.period;
            self.by_key.retain(|_, account| account.period == period);
        }
        self.by_key.len() >= SCOPES_MAX
    }
}

impl Account {
    fn all_reserved(&self) -> Money {
        self.reserved + self.elsewhere
    }

    /// Whether it is as if it had just been made.
    fn is_untouched(&self) -> bool {
        self.holds == 0 && self.spent + self.all_reserved() == Money::ZERO && !self.said_exceeded
    }

    fn spend(&mut self, amount: Money, cap: &Cap) -> Vec<Warning> {
        if amount == Money::ZERO {
            return Vec::new();
        }
        self.spent += amount;
        let mut warnings = Vec::new();
        for permille in cap.warn_at_permille.iter().skip(self.warned) {
            if !reaches(self.spent, cap.limit, *permille) {
                break;
            }
            self.warned = self.warned.saturating_add(1);
            warnings.push(Warning::Reached {
                permille: *permille,
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
            reserved: self.all_reserved(),
            resets_at_unix: self.period.end_unix(),
        }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self {
            scope: String::new(),
            period: Period::NEVER,
            spent: Money::ZERO,
            reserved: Money::ZERO,
            elsewhere: Money::ZERO,
            holds: 0,
            warned: 0,
            said_exceeded: false,
        }
    }
}

impl Cap {
    pub(super) fn period(&self, now_ms: i64) -> Period {
        self.window.period(now_ms, &self.timezone)
    }

    pub(super) fn amount(&self, amounts: Amounts) -> Money {
        let amount = match self.kind {
            CapKind::Expected => amounts.expected,
            CapKind::Strict => amounts.worst,
        };
        amount.max(Money::ZERO)
    }

    pub(super) fn counts(&self, subject: &Subject<'_>) -> bool {
        self.only.iter().all(|(dimension, patterns)| {
            let value = dimension.value(subject).unwrap_or_default();
            patterns
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(start) => value.starts_with(start),
                    None => value == pattern,
                })
        })
    }
}

/// The values with their lengths, so that no choice of names gives two subjects one account.
fn account_key(per: &[Dimension], subject: &Subject<'_>) -> String {
    let mut key = String::with_capacity(KEY_BYTES);
    for dimension in per {
        let value = dimension.value(subject);
        key.push_str(&value.map_or(0, str::len).to_string());
        key.push(if value.is_some() { ':' } else { '?' });
        key.push_str(value.unwrap_or_default());
    }
    key
}

fn scope(per: &[Dimension], subject: &Subject<'_>) -> String {
    if per.is_empty() {
        return "all".to_owned();
    }
    let parts: Vec<String> = per
        .iter()
        .map(|dimension| {
            format!(
                "{}={}",
                dimension.as_str(),
                dimension.value(subject).unwrap_or("unknown")
            )
        })
        .collect();
    parts.join(", ")
}

fn reaches(spent: Money, limit: Money, permille: u16) -> bool {
    i128::from(spent.nanos()).saturating_mul(1000)
        >= i128::from(limit.nanos()).saturating_mul(i128::from(permille))
}

/// The most accounts of one cap. Callers beyond it share one account.
pub const SCOPES_MAX: usize = 100_000;

/// No other key starts with a letter: that of a cap kept by nothing is empty.
const SHARED_KEY: &str = "others";
const SHARED_SCOPE: &str = "all others";

/// Room for a user or a hash, so that most keys are one allocation.
const KEY_BYTES: usize = 64;
