//! The accounts of one cap: who has spent and reserved how much in the window in force.

mod key;
mod lease;

use std::collections::HashMap;
use std::sync::Arc;

use super::account::Account;
use super::amount::{Amount, Limits, Measure, Quantity};
use super::cap::{Cap, CapKind, OnExceed};
use super::change::Changes;
use super::decision::{AccountState, Cause, Exceeded, Spend, Warning};
use super::window::Period;
use crate::identity::Subject;
use key::{SHARED_KEY, account_key, scope_of};
pub(super) use key::{UNKNOWN, values_of};

/// A cap and its accounts.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) cap: Cap,
    /// Whether the cap was not in force before the latest configuration.
    pub(super) is_new: bool,
    /// Calls counted in the account that callers beyond [`SCOPES_MAX`] share, since somebody asked.
    pub(super) shared_calls: u64,
    /// Whether this process may only spend what it is granted.
    pub(super) is_leased: bool,
    changes: Changes,
    /// The latest moment that was seen.
    now_ms: i64,
    /// The latest window that was seen; of a rolling one, the step.
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
    amount: Amount,
}

impl Accounts {
    pub(super) fn new(mut cap: Cap) -> Self {
        cap.warn_at_permille.sort_unstable();
        Self {
            cap,
            is_new: true,
            shared_calls: 0,
            is_leased: false,
            changes: Changes::default(),
            now_ms: i64::MIN,
            period: Period::NEVER,
            by_key: HashMap::new(),
            cleared_in: Period::NEVER,
        }
    }

    /// The same under changes that were made before.
    pub(super) fn with(self, changes: Changes, is_leased: bool) -> Self {
        Self {
            changes,
            is_leased,
            ..self
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
    pub(super) fn with_terms(self, mut cap: Cap) -> Self {
        cap.warn_at_permille.sort_unstable();
        Self {
            cap,
            is_new: false,
            ..self
        }
    }

    /// Puts changes in force instead of those before; what a reset that is new forgets is forgotten.
    pub(super) fn change(&mut self, now_ms: i64, changes: Changes) {
        self.advance(now_ms);
        let before = std::mem::replace(&mut self.changes, changes);
        // So that a raise does not look at each account.
        if self.changes.newest_reset <= before.newest_reset {
            return;
        }
        for (key, account) in &mut self.by_key {
            let scope = scope_of(&self.cap.per, key);
            if self.changes.last_reset(&scope) > before.last_reset(&scope) {
                account.reset();
            }
        }
    }

    /// Goes on to the window that holds a moment, unless a later one is in force already.
    pub(super) fn advance(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        if now_ms >= self.period.end_ms {
            self.period = self.cap.period(now_ms);
        }
    }

    /// The key of the account in which a subject is counted.
    pub(super) fn key(&mut self, subject: &Subject<'_>) -> String {
        let key = account_key(&self.cap.per, subject);
        if !self.by_key.contains_key(key.as_str()) && self.is_full() {
            return SHARED_KEY.to_owned();
        }
        key
    }

    /// Counts a call that is asked about where its account is not its own.
    pub(super) fn count_if_shared(&mut self, key: &str) {
        if key == SHARED_KEY {
            self.shared_calls = self.shared_calls.saturating_add(1);
        }
    }

    /// Why a call of some amount does not fit, if it does not.
    pub(super) fn exceeded(&self, key: &str, amount: Amount) -> Option<Box<Exceeded>> {
        let limits = self.limits(key);
        let account = self.live(key);
        let (spent, reserved) = self.spent_and_reserved(account);
        let too_dear = self.cap.per_call.filter(|most| amount.money > *most);
        let (cause, measure) = if too_dear.is_some() {
            (Cause::PerCall, Measure::Money)
        } else if let Some(measure) = limits.short_of(spent + reserved, amount) {
            (self.cause(limits.short_of(spent, amount)), measure)
        } else if self.is_leased && self.cap.on_exceed != OnExceed::Warn {
            let granted = account.and_then(Account::granted).unwrap_or_default();
            let taken = self.own(account);
            let short_of = self.granted(granted).short_of_more(taken, amount);
            (Cause::Grant, short_of?)
        } else {
            return None;
        };
        let mut exceeded = self.tell(key, cause, measure, amount);
        if let Some(most) = too_dear {
            exceeded.limit = Quantity::Money(most);
            exceeded.resets_at_unix = None;
        }
        Some(exceeded)
    }

    /// Why a call that holds `held` can't have `more`, if it can't.
    pub(super) fn exceeded_by_more(&self, held: &Hold, more: Amount) -> Option<Box<Exceeded>> {
        let all = held.amount + more;
        if let Some(most) = self.cap.per_call.filter(|most| all.money > *most) {
            let mut exceeded = self.tell(&held.key, Cause::PerCall, Measure::Money, all);
            exceeded.limit = Quantity::Money(most);
            exceeded.resets_at_unix = None;
            return Some(exceeded);
        }
        let account = self.live_of(held)?;
        let limits = self.limits(&held.key);
        let (spent, reserved) = self.spent_and_reserved(Some(account));
        if let Some(measure) = limits.short_of_more(spent + reserved, more) {
            let cause = self.cause(limits.short_of_more(spent + held.amount, more));
            return Some(self.tell(&held.key, cause, measure, more));
        }
        if !self.is_leased {
            return None;
        }
        let granted = self.granted(account.granted().unwrap_or_default());
        let measure = granted.short_of_more(self.own(Some(account)), more)?;
        Some(self.tell(&held.key, Cause::Grant, measure, more))
    }

    /// Whether it was not yet said, in this window, that the limit of an account is exceeded.
    pub(super) fn is_first_excess(&mut self, key: &str) -> bool {
        let (rolling, now_ms) = (self.cap.window.as_rolling(), self.now_ms);
        self.by_key
            .get_mut(key)
            .is_some_and(|account| account.is_first_excess(rolling, now_ms))
    }

    pub(super) fn hold(&mut self, key: String, amount: Amount) -> Hold {
        let period = self.period;
        let (key, account) = self.account(key);
        account.hold(amount);
        Hold {
            key,
            period,
            amount,
        }
    }

    /// Holds an amount of a call that was admitted at a moment; nothing, where its window has passed.
    pub(super) fn hold_since(
        &mut self,
        at_ms: i64,
        subject: &Subject<'_>,
        amount: Amount,
    ) -> Option<Hold> {
        self.advance(at_ms);
        let period = self.cap.period(at_ms);
        if self.cap.window.as_rolling().is_none() && period != self.period {
            return None;
        }
        let key = self.key(subject);
        let hold = self.hold(key, amount);
        Some(Hold { period, ..hold })
    }

    pub(super) fn hold_more(&mut self, held: &mut Hold, more: Amount) {
        held.amount += more;
        if self.live_of(held).is_some()
            && let Some(account) = self.by_key.get_mut(&held.key)
        {
            account.hold_more(more);
        }
    }

    /// How much more than it holds a call wants.
    pub(super) fn wants(&self, held: &Hold, amounts: Amount) -> Amount {
        match self.cap.kind {
            CapKind::Expected => amounts.saturating_sub_to_zero(held.amount),
            CapKind::Strict => Amount::ZERO,
        }
    }

    pub(super) fn settle(&mut self, hold: &Hold, actual: Amount) -> Vec<Warning> {
        let rolling = self.cap.window.as_rolling();
        let now_ms = self.now_ms;
        let Some(account) = self.by_key.get_mut(&hold.key) else {
            return Vec::new();
        };
        if rolling.is_none() && account.period != hold.period {
            return Vec::new();
        }
        account.let_go(hold.amount);
        if rolling.is_none_or(|rolling| rolling.counts(hold.period.start_ms, now_ms)) {
            if self.cap.on_exceed == OnExceed::Warn {
                // Not out of a grant, which there is once it holds: who grants is told of this then.
                account.spend_elsewhere(actual, hold.period, rolling);
            } else {
                account.spend(actual, hold.period, rolling);
            }
        }
        if account.is_untouched(rolling, now_ms) {
            self.by_key.remove(&hold.key);
            return Vec::new();
        }
        if actual == Amount::ZERO {
            return Vec::new();
        }
        self.warnings(&hold.key)
    }

    /// From when on what was spent may count, in milliseconds since 1970.
    pub(super) fn counts_since_ms(&self, now_ms: i64) -> i64 {
        let period = self.cap.period(now_ms);
        match self.cap.window.as_rolling() {
            None => period.start_ms,
            Some(rolling) => rolling.counts_since_ms(period.start_ms),
        }
    }

    pub(super) fn record(&mut self, spend: &Spend<'_>) {
        let amount = spend.amount.not_negative();
        if amount == Amount::ZERO {
            return;
        }
        let (rolling, at) = (self.cap.window.as_rolling(), self.cap.period(spend.at_ms));
        if let Some(account) = self.account_at(spend) {
            account.spend_elsewhere(amount, at, rolling);
        }
    }

    pub(super) fn clear_elsewhere(&mut self) {
        for account in self.by_key.values_mut() {
            account.clear_elsewhere();
        }
        let (rolling, now_ms) = (self.cap.window.as_rolling(), self.now_ms);
        self.by_key
            .retain(|_, account| !account.is_untouched(rolling, now_ms));
    }

    pub(super) fn reserve_elsewhere(&mut self, spend: &Spend<'_>) {
        if let Some(account) = self.account_at(spend) {
            account.reserve_elsewhere(spend.amount.not_negative());
        }
    }

    /// Keys and states of the accounts in which something is spent or reserved, by scope.
    pub(super) fn states(&self, now_ms: i64) -> Vec<(&str, AccountState)> {
        let is_in_force = self.cap.window.as_rolling().is_some() || now_ms < self.period.end_ms;
        let mut states: Vec<(&str, AccountState)> = self
            .by_key
            .iter()
            .filter(|(_, account)| is_in_force && self.is_live(account))
            .map(|(key, account)| (&**key, self.state(key, account, now_ms)))
            .filter(|(_, state)| state.spent + state.reserved != Amount::ZERO)
            .collect();
        states.sort_by(|(_, a), (_, b)| a.scope.cmp(&b.scope));
        states
    }

    fn cause(&self, short_without_reserved: Option<Measure>) -> Cause {
        match short_without_reserved {
            _ if self.cap.breaker => Cause::Velocity,
            None => Cause::InFlight,
            Some(_) => Cause::Exhausted,
        }
    }

    fn tell(&self, key: &str, cause: Cause, measure: Measure, amount: Amount) -> Box<Exceeded> {
        let limits = self.limits(key);
        let account = self.live(key);
        let (spent, reserved) = self.spent_and_reserved(account);
        let resets_at_unix = match self.cap.window.as_rolling() {
            None => self.period.end_unix(),
            Some(rolling) => account
                .and_then(|account| {
                    account.fits_at_ms(rolling, |left| {
                        limits.short_of(left + reserved, amount).is_none()
                    })
                })
                .map(|at_ms| at_ms.saturating_add(999).div_euclid(1000)),
        };
        Box::new(Exceeded {
            cap: self.cap.name.clone(),
            scope: scope_of(&self.cap.per, key),
            window: self.cap.window,
            cause,
            limit: limits.of(measure),
            spent: spent.of(measure),
            reserved: reserved.of(measure),
            requested: amount.of(measure),
            resets_at_unix,
            retry_after_s: self.retry_after_s(cause, resets_at_unix),
        })
    }

    /// In how many seconds it is worth trying again, where waiting helps.
    fn retry_after_s(&self, cause: Cause, resets_at_unix: Option<i64>) -> Option<u64> {
        match cause {
            Cause::Grant | Cause::InFlight => Some(1),
            Cause::Velocity => {
                let now_unix = self.now_ms.div_euclid(1000);
                let wait = resets_at_unix.map_or(1, |at| at.saturating_sub(now_unix).max(1));
                u64::try_from(wait).ok()
            }
            Cause::Exhausted | Cause::PerCall => None,
        }
    }

    fn warnings(&mut self, key: &str) -> Vec<Warning> {
        if self.cap.warn_at_permille.is_empty() {
            return Vec::new();
        }
        let limits = self.limits(key);
        let (rolling, now_ms) = (self.cap.window.as_rolling(), self.now_ms);
        let Some(account) = self.by_key.get_mut(key) else {
            return Vec::new();
        };
        let spent = account.spent(rolling, now_ms);
        let reached = account.thresholds(limits, spent, &self.cap.warn_at_permille);
        let Some(account) = self.by_key.get(key) else {
            return Vec::new();
        };
        reached
            .into_iter()
            .map(|permille| Warning::Reached {
                permille,
                account: self.state(key, account, now_ms),
            })
            .collect()
    }

    fn state(&self, key: &str, account: &Account, now_ms: i64) -> AccountState {
        let rolling = self.cap.window.as_rolling();
        AccountState {
            cap: self.cap.name.clone(),
            scope: scope_of(&self.cap.per, key),
            window: self.cap.window,
            limits: self.limits(key),
            spent: account.spent(rolling, now_ms.max(self.now_ms)),
            reserved: account.reserved(),
            warned_permille: account.warned_permille(&self.cap.warn_at_permille),
            resets_at_unix: match rolling {
                None => account.period.end_unix(),
                Some(_) => None,
            },
        }
    }

    fn spent_and_reserved(&self, account: Option<&Account>) -> (Amount, Amount) {
        let rolling = self.cap.window.as_rolling();
        account.map_or((Amount::ZERO, Amount::ZERO), |account| {
            (account.spent(rolling, self.now_ms), account.reserved())
        })
    }

    /// The limits of an account, with the raises in force.
    fn limits(&self, key: &str) -> Limits {
        if self.changes.is_empty() {
            return self.cap.limits;
        }
        let raised = self
            .changes
            .raised_by(&scope_of(&self.cap.per, key), self.now_ms);
        self.cap.limits.raised_by(raised)
    }

    /// The account of a spend of the window in force or of a later one, which then is in force.
    fn account_at(&mut self, spend: &Spend<'_>) -> Option<&mut Account> {
        if !self.cap.counts(&spend.subject) {
            return None;
        }
        let has_passed = match self.cap.window.as_rolling() {
            None => spend.at_ms < self.period.start_ms,
            Some(rolling) => !rolling.counts(self.cap.period(spend.at_ms).start_ms, self.now_ms),
        };
        if has_passed {
            return None;
        }
        self.advance(spend.at_ms);
        let key = self.key(&spend.subject);
        let is_forgotten = !self.changes.is_empty()
            && spend.after_change < self.changes.last_reset(&scope_of(&self.cap.per, &key));
        (!is_forgotten).then(|| self.account(key).1)
    }

    /// The account in the window in force, made if there is none.
    fn account(&mut self, key: String) -> (Arc<str>, &mut Account) {
        let key: Arc<str> = match self.by_key.get_key_value(key.as_str()) {
            Some((known, _)) => Arc::clone(known),
            None => key.into(),
        };
        let (period, is_rolling) = (self.period, self.cap.window.as_rolling().is_some());
        let account = self
            .by_key
            .entry(Arc::clone(&key))
            .or_insert_with(|| Account::new(period));
        if !is_rolling && account.period != period {
            *account = Account::new(period);
        }
        (key, account)
    }

    fn live(&self, key: &str) -> Option<&Account> {
        self.by_key.get(key).filter(|account| self.is_live(account))
    }

    /// The account of a hold, if the window in which it was made is still in force.
    fn live_of(&self, held: &Hold) -> Option<&Account> {
        let is_rolling = self.cap.window.as_rolling().is_some();
        self.live(&held.key)
            .filter(|account| is_rolling || account.period == held.period)
    }

    fn is_live(&self, account: &Account) -> bool {
        self.cap.window.as_rolling().is_some() || account.period == self.period
    }

    /// Whether there is no room for another account, after those of passed windows were cleared
    /// away, which is tried once per window.
    fn is_full(&mut self) -> bool {
        if self.by_key.len() >= SCOPES_MAX && self.cleared_in != self.period {
            self.cleared_in = self.period;
            let (period, now_ms) = (self.period, self.now_ms);
            let rolling = self.cap.window.as_rolling();
            self.by_key.retain(|_, account| match rolling {
                None => account.period == period,
                Some(_) => !account.is_untouched(rolling, now_ms),
            });
        }
        self.by_key.len() >= SCOPES_MAX
    }
}

/// The most accounts of one cap. Callers beyond it share one account.
pub const SCOPES_MAX: usize = 100_000;
