//! One number of a report, as a person and as a program reads it.

use weir_core::money::Money;

/// One number of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A count.
    Count(u64),
    /// A share, in thousandths.
    Permille(u64),
    /// The same, where there is one.
    Share(Option<u64>),
    /// What was taken off, in thousandths; less than nothing where it was added.
    Discount(Option<i64>),
    /// A duration, in microseconds.
    Micros(Option<u64>),
    /// What a million tokens cost.
    Rate(Option<Money>),
    /// An amount.
    Amount(Money),
    /// An amount that leaves out calls whose cost is not known.
    AtLeast(Money),
}

impl Cell {
    /// What calls cost, of which some may not be known.
    pub(super) const fn cost(amount: Money, calls_unknown: u64) -> Self {
        if calls_unknown > 0 {
            Self::AtLeast(amount)
        } else {
            Self::Amount(amount)
        }
    }

    pub(super) fn shown(self, decimals: u32) -> String {
        match self {
            Self::Count(count) => compact(count),
            Self::Permille(share) | Self::Share(Some(share)) => {
                percent(i64::try_from(share).unwrap_or(i64::MAX), 10)
            }
            Self::Discount(Some(share)) => percent(share, 10),
            Self::Micros(Some(micros)) => duration(micros),
            Self::Rate(Some(rate)) => dollars(rate, DECIMALS),
            Self::Share(None) | Self::Discount(None) | Self::Micros(None) | Self::Rate(None) => {
                "-".to_owned()
            }
            Self::AtLeast(Money::ZERO) => "?".to_owned(),
            Self::AtLeast(amount) => format!("{}+", dollars(amount, decimals)),
            Self::Amount(amount) => dollars(amount, decimals),
        }
    }

    pub(super) fn exact(self) -> String {
        match self {
            Self::Count(number)
            | Self::Permille(number)
            | Self::Share(Some(number))
            | Self::Micros(Some(number)) => number.to_string(),
            Self::Discount(Some(share)) => share.to_string(),
            Self::Amount(amount) | Self::AtLeast(amount) | Self::Rate(Some(amount)) => {
                amount.to_string().replace('$', "")
            }
            Self::Share(None) | Self::Discount(None) | Self::Micros(None) | Self::Rate(None) => {
                String::new()
            }
        }
    }
}

/// How many thousandths of `whole` a part is; none where there is no whole.
pub(super) fn permille(part: u64, whole: u64) -> Option<u64> {
    let thousandths = u128::from(part) * 1000;
    let share = thousandths.checked_div(u128::from(whole))?;
    Some(u64::try_from(share).unwrap_or(u64::MAX))
}

/// A number of which `hundredth` make one percent, with as many decimals as that has zeros.
pub(super) fn percent(share: i64, hundredth: i64) -> String {
    let places = usize::try_from(hundredth.ilog10()).unwrap_or(0);
    let sign = if share < 0 { "-" } else { "" };
    let (whole, rest) = (share.abs() / hundredth, share.abs() % hundredth);
    format!("{sign}{whole}.{rest:0places$}%")
}

/// To three digits or so.
fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => "<1ms".to_owned(),
        1_000..1_000_000 => format!("{}ms", micros / 1_000),
        1_000_000..10_000_000 => {
            format!("{}.{:02}s", micros / 1_000_000, micros % 1_000_000 / 10_000)
        }
        10_000_000..100_000_000 => {
            format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000)
        }
        _ => format!("{}s", micros / 1_000_000),
    }
}

/// Exact up to five digits, then three of them.
fn compact(count: u64) -> String {
    let (unit, letter) = match count {
        0..100_000 => return count.to_string(),
        100_000..1_000_000 => (1_000, 'k'),
        1_000_000..1_000_000_000 => (1_000_000, 'M'),
        _ => (1_000_000_000, 'G'),
    };
    let (whole, hundredths) = (count / unit, count % unit / (unit / 100));
    match whole {
        0..10 => format!("{whole}.{hundredths:02}{letter}"),
        10..100 => format!("{whole}.{}{letter}", hundredths / 10),
        _ => format!("{whole}{letter}"),
    }
}

/// Rounded up, as money is.
pub(crate) fn dollars(amount: Money, decimals: u32) -> String {
    let unit = 10_i64.pow(9_u32.saturating_sub(decimals));
    let scale = 10_i64.pow(decimals);
    let rounded = amount.nanos().div_euclid(unit) + i64::from(amount.nanos().rem_euclid(unit) > 0);
    let (sign, rounded) = (if rounded < 0 { "-" } else { "" }, rounded.abs());
    let places = usize::try_from(decimals).unwrap_or(0);
    format!("{sign}${}.{:0places$}", rounded / scale, rounded % scale)
}

/// As [`dollars`] with [`DECIMALS`], but without zeros at the end that say nothing: `$20.00`.
pub(crate) fn short_dollars(amount: Money) -> String {
    let shown = dollars(amount, DECIMALS);
    let zeros = shown.len() - shown.trim_end_matches('0').len();
    let kept = shown.len() - zeros.min(2);
    shown.get(..kept).unwrap_or(&shown).to_owned()
}

/// Decimals of an amount below a hundred dollars.
pub(super) const DECIMALS: u32 = 4;
