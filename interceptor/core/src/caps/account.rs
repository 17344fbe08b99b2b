//! One account of a cap: what is spent and reserved in the window in force.

use super::amount::{Amount, Limits};
use super::window::{Period, Rolling};
use crate::money::Money;

#[derive(Debug)]
pub(super) struct Account {
    /// The window that the amounts are of: those of one that has passed count for nothing. Of a
    /// rolling window, always.
    pub(super) period: Period,
    spent: Tally,
    reserved: Amount,
    /// Reserved by other processes that share the ledger.
    elsewhere: Amount,
    /// Calls that hold something here, if only nothing.
    holds: usize,
    /// How many of the cap's thresholds were said.
    warned: usize,
    /// When it was said that the limit is exceeded.
    exceeded_said_ms: Option<i64>,
    /// What this process may spend, where somebody else decides on that.
    grant: Option<Box<Grant>>,
}

/// The part of the limit that this process may use.
#[derive(Debug, Default)]
struct Grant {
    most: Amount,
    /// Spent by calls of this process.
    spent: Tally,
}

/// What was spent in a window.
#[derive(Debug, Default)]
struct Tally {
    /// In a calendar window.
    sum: Amount,
    /// In a rolling one, by when; oldest first, as many at most as [`Rolling::STEPS`] and one.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    start_ms: i64,
    amount: Amount,
}

impl Tally {
    /// Since the calendar window began, or the rolling one that ends at `now_ms`.
    fn total(&self, rolling: Option<Rolling>, now_ms: i64) -> Amount {
        match rolling {
            None => self.sum,
            Some(rolling) => self
                .steps
                .iter()
                .filter(|step| rolling.counts(step.start_ms, now_ms))
                .fold(Amount::ZERO, |sum, step| sum + step.amount),
        }
    }

    /// Adds what was spent at a moment that lies in the window.
    fn add(&mut self, amount: Amount, at: Period, rolling: Option<Rolling>) {
        let Some(rolling) = rolling else {
            self.sum += amount;
            return;
        };
        if amount == Amount::ZERO {
            return;
        }
        let start_ms = at.start_ms;
        match self
            .steps
            .binary_search_by_key(&start_ms, |step| step.start_ms)
        {
            Ok(index) => {
                if let Some(step) = self.steps.get_mut(index) {
                    step.amount += amount;
                }
            }
            Err(index) => self.steps.insert(index, Step { start_ms, amount }),
        }
        if let Some(newest) = self.steps.last().map(|step| step.start_ms) {
            self.steps
                .retain(|step| rolling.counts(step.start_ms, newest));
        }
    }
}

impl Account {
    pub(super) fn new(period: Period) -> Self {
        Self {
            period,
            spent: Tally::default(),
            reserved: Amount::ZERO,
            elsewhere: Amount::ZERO,
            holds: 0,
            warned: 0,
            exceeded_said_ms: None,
            grant: None,
        }
    }

    /// What is spent at a moment.
    pub(super) fn spent(&self, rolling: Option<Rolling>, now_ms: i64) -> Amount {
        self.spent.total(rolling, now_ms)
    }

    pub(super) fn reserved(&self) -> Amount {
        self.reserved + self.elsewhere
    }

    /// Whether it is as if it had just been made.
    pub(super) fn is_untouched(&self, rolling: Option<Rolling>, now_ms: i64) -> bool {
        self.holds == 0
            && self.grant.is_none()
            && self.exceeded_said_ms.is_none_or(|said_ms| {
                rolling.is_some_and(|rolling| !rolling.counts(said_ms, now_ms))
            })
            && self.spent(rolling, now_ms) + self.reserved() == Amount::ZERO
    }

    pub(super) fn hold(&mut self, amount: Amount) {
        self.reserved += amount;
        self.holds = self.holds.saturating_add(1);
    }

    pub(super) fn hold_more(&mut self, amount: Amount) {
        self.reserved += amount;
    }

    /// Gives back what a call of this process held.
    pub(super) fn let_go(&mut self, held: Amount) {
        self.reserved = self.reserved.saturating_sub_to_zero(held);
        self.holds = self.holds.saturating_sub(1);
    }

    /// Adds what a call of this process spent at a moment that lies in the window.
    pub(super) fn spend(&mut self, amount: Amount, at: Period, rolling: Option<Rolling>) {
        self.spent.add(amount, at, rolling);
        if let Some(grant) = &mut self.grant {
            grant.spent.add(amount, at, rolling);
        }
    }

    /// The same for what somebody else spent, or this process before.
    pub(super) fn spend_elsewhere(&mut self, amount: Amount, at: Period, rolling: Option<Rolling>) {
        self.spent.add(amount, at, rolling);
    }

    /// Forgets what was spent, by whomever. What is granted stays, and can be spent again: who grants
    /// it forgot the same before.
    pub(super) fn reset(&mut self) {
        self.spent = Tally::default();
        if let Some(grant) = &mut self.grant {
            grant.spent = Tally::default();
        }
        self.warned = 0;
        self.exceeded_said_ms = None;
    }

    /// The thresholds that were reached and not yet said. Where something is no longer spent, they
    /// are open again.
    pub(super) fn thresholds(
        &mut self,
        limits: Limits,
        spent: Amount,
        permilles: &[u16],
    ) -> Vec<u16> {
        let reached = permilles
            .iter()
            .take_while(|permille| limits.reached(spent, **permille))
            .count();
        let before = std::mem::replace(&mut self.warned, reached);
        permilles
            .iter()
            .take(reached)
            .skip(before)
            .copied()
            .collect()
    }

    pub(super) fn warned_permille(&self, permilles: &[u16]) -> Option<u16> {
        permilles.get(self.warned.checked_sub(1)?).copied()
    }

    /// Whether it was not yet said, in this window, that the limit is exceeded.
    pub(super) fn is_first_excess(&mut self, rolling: Option<Rolling>, now_ms: i64) -> bool {
        let is_said = self
            .exceeded_said_ms
            .is_some_and(|said_ms| rolling.is_none_or(|rolling| rolling.counts(said_ms, now_ms)));
        if !is_said {
            self.exceeded_said_ms = Some(now_ms);
        }
        !is_said
    }

    /// When so much is no longer spent of a rolling window that `fits`, in milliseconds since 1970;
    /// none where it never does.
    pub(super) fn fits_at_ms(
        &self,
        rolling: Rolling,
        fits: impl Fn(Amount) -> bool,
    ) -> Option<i64> {
        let steps = &self.spent.steps;
        let mut left = steps
            .iter()
            .fold(Amount::ZERO, |sum, step| sum + step.amount);
        for step in steps {
            left = left.saturating_sub_to_zero(step.amount);
            if fits(left) {
                return Some(rolling.ends_ms(step.start_ms));
            }
        }
        None
    }

    pub(super) fn clear_elsewhere(&mut self) {
        self.elsewhere = Amount::ZERO;
    }

    pub(super) fn reserve_elsewhere(&mut self, amount: Amount) {
        self.elsewhere += amount;
    }

    pub(super) fn grant(&mut self, most: Amount) {
        self.grant.get_or_insert_default().most = most;
    }

    pub(super) fn granted(&self) -> Option<Amount> {
        self.grant.as_ref().map(|grant| grant.most)
    }

    /// What this process has spent and reserved since something was granted.
    pub(super) fn own(&self, rolling: Option<Rolling>, now_ms: i64) -> Amount {
        let grant = self.grant.as_ref();
        let spent = grant.map_or(Amount::ZERO, |grant| grant.spent.total(rolling, now_ms));
        spent + self.reserved
    }
}

impl Amount {
    /// Nothing where it is negative.
    pub(super) fn not_negative(self) -> Self {
        Self {
            money: self.money.max(Money::ZERO),
            ..self
        }
    }
}
