//! What a cap counts: money, tokens and calls, and limits on each.

use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::money::Money;

/// What was spent or reserved, in everything that a cap may limit. Sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Amount {
    /// Money.
    pub money: Money,
    /// Tokens, of prompts and answers.
    pub tokens: u64,
    /// Calls.
    pub calls: u64,
}

/// What a call may cost, before it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// By experience.
    pub expected: Amount,
    /// At most.
    pub worst: Amount,
}

/// The most that may be spent in a window, of each kind. Nothing limits what is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Money.
    pub money: Option<Money>,
    /// Tokens, of prompts and answers.
    pub tokens: Option<u64>,
    /// Calls.
    pub calls: Option<u64>,
}

/// An amount of one kind, for people and programs to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Money.
    Money(Money),
    /// Tokens.
    Tokens(u64),
    /// Calls.
    Calls(u64),
}

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Money,
    Tokens,
    Calls,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self {
        money: Money::ZERO,
        tokens: 0,
        calls: 0,
    };

    /// One call of so much money and so many tokens.
    #[must_use]
    pub const fn of_call(money: Money, tokens: u64) -> Self {
        Self {
            money,
            tokens,
            calls: 1,
        }
    }

    /// The difference, or nothing of each kind of which `other` has more.
    #[must_use]
    pub fn saturating_sub_to_zero(self, other: Self) -> Self {
        Self {
            money: self.money.saturating_sub_to_zero(other.money),
            tokens: self.tokens.saturating_sub(other.tokens),
            calls: self.calls.saturating_sub(other.calls),
        }
    }

    /// The larger of each kind.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            money: self.money.max(other.money),
            tokens: self.tokens.max(other.tokens),
            calls: self.calls.max(other.calls),
        }
    }

    pub(super) fn of(self, measure: Measure) -> Quantity {
        match measure {
            Measure::Money => Quantity::Money(self.money),
            Measure::Tokens => Quantity::Tokens(self.tokens),
            Measure::Calls => Quantity::Calls(self.calls),
        }
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            money: self.money + other.money,
            tokens: self.tokens.saturating_add(other.tokens),
            calls: self.calls.saturating_add(other.calls),
        }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Limits {
    /// A limit on money alone.
    #[must_use]
    pub const fn of_money(money: Money) -> Self {
        Self {
            money: Some(money),
            tokens: None,
            calls: None,
        }
    }

    /// The limits with so much more allowed of each kind that is limited.
    #[must_use]
    pub fn raised_by(self, more: Amount) -> Self {
        Self {
            money: self.money.map(|limit| limit + more.money),
            tokens: self.tokens.map(|limit| limit.saturating_add(more.tokens)),
            calls: self.calls.map(|limit| limit.saturating_add(more.calls)),
        }
    }

    /// The kind of which `more` does not fit on top of what is taken: where nothing is left, not
    /// even nothing does. A kind of which a positive `taken` asks for no more is passed over
    /// only by [`Self::short_of_more`].
    pub(super) fn short_of(self, taken: Amount, more: Amount) -> Option<Measure> {
        fn fits<T: Ord>(limit: Option<&T>, taken: &T, sum: &T) -> bool {
            limit.is_none_or(|limit| taken < limit && sum <= limit)
        }
        let sum = taken + more;
        if !fits(self.money.as_ref(), &taken.money, &sum.money) {
            Some(Measure::Money)
        } else if !fits(self.tokens.as_ref(), &taken.tokens, &sum.tokens) {
            Some(Measure::Tokens)
        } else if !fits(self.calls.as_ref(), &taken.calls, &sum.calls) {
            Some(Measure::Calls)
        } else {
            None
        }
    }

    /// The kind of which a call that was admitted can't have `more`: one of which it wants no
    /// more stops nothing.
    pub(super) fn short_of_more(self, taken: Amount, more: Amount) -> Option<Measure> {
        let wanted = Self {
            money: self.money.filter(|_| more.money > Money::ZERO),
            tokens: self.tokens.filter(|_| more.tokens > 0),
            calls: self.calls.filter(|_| more.calls > 0),
        };
        wanted.short_of(taken, more)
    }

    /// Whether `spent` has reached a share of a limit, in thousandths.
    pub(super) fn reached(self, spent: Amount, permille: u16) -> bool {
        fn reaches(spent: u128, limit: Option<u128>, permille: u16) -> bool {
            limit.is_some_and(|limit| {
                spent > 0
                    && spent.saturating_mul(1000) >= limit.saturating_mul(u128::from(permille))
            })
        }
        let nanos = |money: Money| u128::try_from(money.nanos()).unwrap_or(0);
        reaches(nanos(spent.money), self.money.map(nanos), permille)
            || reaches(
                u128::from(spent.tokens),
                self.tokens.map(u128::from),
                permille,
            )
            || reaches(
                u128::from(spent.calls),
                self.calls.map(u128::from),
                permille,
            )
    }

    pub(super) fn of(self, measure: Measure) -> Quantity {
        match measure {
            Measure::Money => Quantity::Money(self.money.unwrap_or(Money::MAX)),
            Measure::Tokens => Quantity::Tokens(self.tokens.unwrap_or(u64::MAX)),
            Measure::Calls => Quantity::Calls(self.calls.unwrap_or(u64::MAX)),
        }
    }
}

impl Limits {
    /// What of an amount is limited, in words; where nothing is, its money.
    #[must_use]
    pub fn shown(self, amount: Amount) -> String {
        let is_none = self == Self::default();
        let all = [
            (self.money.is_some() || is_none).then_some(Quantity::Money(amount.money)),
            self.tokens.map(|_| Quantity::Tokens(amount.tokens)),
            self.calls.map(|_| Quantity::Calls(amount.calls)),
        ];
        let shown = all.iter().flatten().map(ToString::to_string);
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl Quantity {
    /// Whether it is nothing.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        match self {
            Self::Money(money) => money <= Money::ZERO,
            Self::Tokens(count) | Self::Calls(count) => count == 0,
        }
    }
}

/// `$1.50`, `1200 tokens`, `1 call`.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        match self {
            Self::Money(money) => money.fmt(f),
            Self::Tokens(count) => write!(f, "{count} token{}", plural(*count)),
            Self::Calls(count) => write!(f, "{count} call{}", plural(*count)),
        }
    }
}

/// The limits that there are: `$20.00, 500 calls`; nothing where there is none.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            self.money.map(Quantity::Money),
            self.tokens.map(Quantity::Tokens),
            self.calls.map(Quantity::Calls),
        ];
        for (index, quantity) in all.into_iter().flatten().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            quantity.fmt(f)?;
        }
        Ok(())
    }
}
