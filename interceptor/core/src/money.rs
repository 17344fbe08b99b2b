//! Money as an integer, of a unit small enough for the cheapest token.
//!
//! The unit is the nano-dollar (10⁻⁹ USD). Rates are finer (pico-dollars per token, see
//! `pricing`), so a cost is computed exactly and rounded **up** once, when it becomes `Money`.
//! `i64` nano-dollars reach 9.2 billion USD; arithmetic saturates instead of wrapping.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// An amount of US dollars in nano-dollars (10⁻⁹ USD).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Money(i64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that can be represented, about 9.2 billion USD.
    pub const MAX: Self = Self(i64::MAX);

    /// From nano-dollars.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// In nano-dollars.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// From pico-dollars (10⁻¹² USD), rounded up to the next nano-dollar.
    #[must_use]
    pub fn from_picos_rounded_up(picos: u128) -> Self {
        Self(i64::try_from(picos.div_ceil(1000)).unwrap_or(i64::MAX))
    }

    /// The amount in the proportion of `to` to `of`, rounded up to the next nano-dollar; none where
    /// there is no such proportion, since `of` is nothing.
    #[must_use]
    pub fn scaled(self, to: Self, of: Self) -> Option<Self> {
        if to == of {
            return Some(self);
        }
        let product = i128::from(self.0).saturating_mul(i128::from(to.0));
        let divisor = i128::from(of.0);
        let floor = product.checked_div_euclid(divisor)?;
        let is_exact = product.checked_rem_euclid(divisor)? == 0;
        let rounded = floor.saturating_add(i128::from(!is_exact));
        Some(Self(i64::try_from(rounded).unwrap_or(i64::MAX)))
    }

    /// The difference, or nothing where `other` is larger.
    #[must_use]
    pub fn saturating_sub_to_zero(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }
}

impl Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Money {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// Dollars with at least two decimals and as many more as the amount has, up to nine: `$0.0000012`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (dollars, rest) = (
            nanos.div_euclid(1_000_000_000),
            nanos.rem_euclid(1_000_000_000),
        );
        let decimals = format!("{rest:09}");
        let significant = decimals.trim_end_matches('0').len().max(2);
        write!(f, "{sign}${dollars}.{decimals:.significant$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_nano_dollar_is_rounded_up() {
        assert_eq!(Money::from_picos_rounded_up(1), Money::from_nanos(1));
        assert_eq!(Money::from_picos_rounded_up(1000), Money::from_nanos(1));
        assert_eq!(Money::from_picos_rounded_up(1001), Money::from_nanos(2));
        assert_eq!(Money::from_picos_rounded_up(u128::MAX), Money::MAX);
    }

    #[test]
    fn an_amount_is_shown_with_two_decimals_or_as_many_as_it_has() {
        assert_eq!(Money::from_nanos(0).to_string(), "$0.00");
        assert_eq!(Money::from_nanos(1_500_000_000).to_string(), "$1.50");
        assert_eq!(Money::from_nanos(1_200).to_string(), "$0.0000012");
        assert_eq!(Money::from_nanos(-20_000_000).to_string(), "-$0.02");
    }

    #[test]
    fn a_proportion_is_exact_and_rounded_up_once() {
        for (amount, to, of, expected) in [
            (7, 3, 3, Some(7)),
            (10, 1, 2, Some(5)),
            (10, 1, 3, Some(4)),
            (-10, 1, 3, Some(-3)),
            (10, 0, 3, Some(0)),
            (0, 0, 0, Some(0)),
            (10, 1, 0, None),
            (i64::MAX, i64::MAX, 1, Some(i64::MAX)),
        ] {
            let scaled = Money(amount).scaled(Money(to), Money(of));
            assert_eq!(scaled, expected.map(Money), "{amount} by {to}/{of}");
        }
    }

    #[test]
    fn sums_saturate_instead_of_wrapping() {
        assert_eq!(Money::MAX + Money::from_nanos(1), Money::MAX);
    }
}
