//! The limits of an account: how each is named in the books of leases, and what of it is used.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use weir_core::caps::{AccountUse, Amount, Quantity, Rolling, Window};
use weir_core::lease::{Ask, Charge};
use weir_core::money::Money;

use crate::sidecar::unix_ms;

/// One limit of an account.
pub(super) struct Part<'a> {
    pub(super) of: &'a AccountUse,
    pub(super) measure: Measure,
    /// Names it on every node alike.
    pub(super) account: String,
    pub(super) used: i64,
    pub(super) need: i64,
    pub(super) limit: i64,
    spent: i64,
}

/// What a limit limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Money,
    Tokens,
    Calls,
}

/// Each limit of each account.
pub(super) fn parts(uses: &[AccountUse]) -> impl Iterator<Item = Part<'_>> {
    uses.iter().flat_map(parts_of)
}

/// Each limit of an account.
pub(super) fn parts_of(of: &AccountUse) -> impl Iterator<Item = Part<'_>> {
    let limits = [
        (Measure::Money, of.limits.money.map(Money::nanos)),
        (Measure::Tokens, of.limits.tokens.map(signed)),
        (Measure::Calls, of.limits.calls.map(signed)),
    ];
    let part = |(measure, limit): (Measure, Option<i64>)| {
        Some(Part {
            of,
            measure,
            account: account(of, measure),
            used: measure.value(of.own),
            need: measure.value(of.amount),
            limit: limit?,
            spent: measure.value(of.spent),
        })
    };
    limits.into_iter().filter_map(part)
}

impl Part<'_> {
    /// What is asked of the ledger where more is needed.
    pub(super) fn ask(&self) -> Ask<'_> {
        Ask {
            account: &self.account,
            used: self.used,
            need: self.need,
            limit: self.limit,
            from_ms: self.of.period_start_ms,
            seed: self.spent,
            seed_ms: charged_at(self.of),
        }
    }

    /// What a call takes out of it.
    pub(super) fn charge(self) -> Charge {
        Charge {
            at_ms: charged_at(self.of),
            amount: self.need,
            account: self.account,
        }
    }
}

impl Measure {
    /// As an account's name has it.
    pub(super) fn of_account(account: &str) -> Self {
        match account.split(':').nth(1) {
            Some("tokens") => Self::Tokens,
            Some("calls") => Self::Calls,
            _ => Self::Money,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Money => "money",
            Self::Tokens => "tokens",
            Self::Calls => "calls",
        }
    }

    /// What of an amount it is.
    pub(super) fn value(self, amount: Amount) -> i64 {
        match self {
            Self::Money => amount.money.nanos(),
            Self::Tokens => signed(amount.tokens),
            Self::Calls => signed(amount.calls),
        }
    }

    /// Sets that of an amount.
    pub(super) fn set(self, amount: &mut Amount, value: i64) {
        match self {
            Self::Money => amount.money = Money::from_nanos(value),
            Self::Tokens => amount.tokens = unsigned(value),
            Self::Calls => amount.calls = unsigned(value),
        }
    }

    /// A number of it, for a message.
    pub(super) fn quantity(self, value: i64) -> Quantity {
        match self {
            Self::Money => Quantity::Money(Money::from_nanos(value)),
            Self::Tokens => Quantity::Tokens(unsigned(value)),
            Self::Calls => Quantity::Calls(unsigned(value)),
        }
    }
}

/// The names of an account's limits in the books of leases, and since when spend counts in them, in
/// milliseconds since 1970.
pub(crate) fn leased_names(of: &AccountUse) -> Vec<(String, i64)> {
    let named = |part: Part<'_>| (part.account, of.period_start_ms);
    parts_of(of).map(named).collect()
}

/// What is like the name of each account of a cap, in all windows.
pub(crate) fn like_all_of(of: &AccountUse) -> String {
    format!("{:016x}:%", of.cap_id)
}

/// What nodes may spend of an account, of what they may of all by their names.
pub(crate) fn held_of(of: &AccountUse, held: &HashMap<String, i64>) -> Amount {
    let mut amount = Amount::ZERO;
    for part in parts_of(of) {
        let value = held.get(&part.account).copied().unwrap_or(0);
        part.measure.set(&mut amount, value);
    }
    amount
}

/// The cap as it counts, what of it, which window (by its length in seconds, if it rolls), and whose: the last hashed, since clients choose
/// the length of some of it.
fn account(of: &AccountUse, measure: Measure) -> String {
    let window = match of.window {
        Window::Rolling(rolling) => format!("rolling{}", rolling.seconds()),
        _ => of.period_start_ms.to_string(),
    };
    let whose = digest(&SHA256, of.key.as_bytes());
    let whose = whose.as_ref().iter().take(WHOSE_BYTES);
    let whose: String = whose.map(|byte| format!("{byte:02x}")).collect();
    format!("{:016x}:{}:{window}:{whose}", of.cap_id, measure.name())
}

/// When what is spent by now counts: of a rolling window, at the end of a step of it.
fn charged_at(of: &AccountUse) -> i64 {
    if !matches!(of.window, Window::Rolling(_)) {
        return of.period_start_ms;
    }
    let now = unix_ms();
    let step = now.saturating_sub(of.period_start_ms) / i64::from(Rolling::STEPS);
    now - now.rem_euclid(step.max(1)) + step
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Of the hash of whose account it is.
const WHOSE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::caps::{Limits, OnExceed};

    fn account_use(window: Window, period_start_ms: i64) -> AccountUse {
        let money = Money::from_nanos(90);
        AccountUse {
            cap: "c".to_owned(),
            cap_id: 1,
            key: String::new(),
            window,
            period_start_ms,
            on_exceed: OnExceed::Block,
            breaker: false,
            clamp: false,
            limits: Limits {
                money: Some(money),
                ..Limits::default()
            },
            spent: Amount {
                money,
                ..Amount::ZERO
            },
            own: Amount::ZERO,
            amount: Amount::ZERO,
            granted: None,
        }
    }

    /// A moment later, a rolling window begins later: what was spent before the account was known to the books
    /// counts then, too.
    #[test]
    fn what_was_spent_before_counts_for_as_long_as_what_is_spent_now() {
        let day_ms = 86_400_000;
        let begins = unix_ms() - day_ms;
        let rolling = Window::Day.rolling().unwrap();
        let of = account_use(rolling, begins);
        let part = parts_of(&of).next().unwrap();
        let ask = part.ask();
        assert_eq!((ask.seed, ask.from_ms), (90, begins));
        let seeded_ms = ask.seed_ms;
        assert!(seeded_ms > begins + day_ms - 1, "{seeded_ms}");
        assert!(seeded_ms <= unix_ms() + day_ms / 24, "{seeded_ms}");
        let of = account_use(Window::Day, begins);
        let part = parts_of(&of).next().unwrap();
        assert_eq!(part.ask().seed_ms, begins);
    }
}
