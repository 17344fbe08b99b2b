//! Decimals of prices, read from their text and written back exactly: no float is involved.

use serde::de::{Deserializer, Error as _};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A decimal number in millionths: dollars per million tokens are pico-dollars per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Micros(pub(super) u64);

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        micros(raw.get()).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(text(self.0)).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Pico-dollars per piece, from dollars per thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece(pub(super) u64);

impl<'de> Deserialize<'de> for Piece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Micros(millionths) = Micros::deserialize(deserializer)?;
        let picos = millionths.checked_mul(1000);
        picos
            .map(Self)
            .ok_or_else(|| D::Error::custom("a price that is too large"))
    }
}

impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Micros(self.0.div_euclid(1000)).serialize(serializer)
    }
}

/// A price per token, in pico-dollars, by the length of the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    Flat(u64),
    /// Steps as (prompt tokens, pico-dollars), in ascending order; the first counts from zero.
    Steps(Box<[(u64, u64)]>),
}

impl Rate {
    pub(super) fn at(&self, prompt_tokens: u64) -> u64 {
        match self {
            Self::Flat(picos) => *picos,
            Self::Steps(steps) => steps
                .iter()
                .rfind(|(above, _)| *above < prompt_tokens)
                .or_else(|| steps.first())
                .map_or(0, |(_, picos)| *picos),
        }
    }

    /// As steps, one if it is flat.
    pub(super) fn steps(&self) -> Vec<(u64, u64)> {
        match self {
            Self::Flat(picos) => vec![(0, *picos)],
            Self::Steps(steps) => steps.to_vec(),
        }
    }

    /// Flat if there is but one step.
    pub(super) fn of_steps(mut steps: Vec<(u64, u64)>) -> Option<Self> {
        steps.sort_unstable();
        match steps.as_slice() {
            [(0, picos)] => Some(Self::Flat(*picos)),
            [(0, _), ..] if steps.is_sorted_by(|(a, _), (b, _)| a < b) => {
                Some(Self::Steps(steps.into()))
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        if !raw.get().starts_with('[') {
            return micros(raw.get()).map(Self::Flat).map_err(D::Error::custom);
        }
        let steps: Vec<(u64, Micros)> =
            serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        let steps: Box<[(u64, u64)]> = steps
            .into_iter()
            .map(|(above, usd)| (above, usd.0))
            .collect();
        let starts_at_zero = steps.first().is_some_and(|(above, _)| *above == 0);
        if !starts_at_zero || !steps.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(D::Error::custom("expected ascending steps from 0"));
        }
        Ok(Self::Steps(steps))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flat(picos) => Micros(*picos).serialize(serializer),
            Self::Steps(steps) => {
                serializer.collect_seq(steps.iter().map(|(above, picos)| (*above, Micros(*picos))))
            }
        }
    }
}

/// The exact number of millionths in the text of a JSON number without exponent.
fn micros(text: &str) -> Result<u64, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = [whole, decimals]
        .iter()
        .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if !all_digits || whole.is_empty() || decimals.len() > DECIMALS_MAX {
        return Err(format!(
            "expected a decimal number with up to {DECIMALS_MAX} decimals, found {text}"
        ));
    }
    format!("{whole}{decimals:0<DECIMALS_MAX$}")
        .parse()
        .map_err(|error| format!("expected a price, found {text}: {error}"))
}

/// Millionths as the shortest decimal.
pub(super) fn text(micros: u64) -> String {
    let (whole, rest) = (micros.div_euclid(MILLION), micros.rem_euclid(MILLION));
    let decimals = format!("{rest:06}");
    match decimals.trim_end_matches('0') {
        "" => whole.to_string(),
        decimals => format!("{whole}.{decimals}"),
    }
}

/// The number of 10^-`digits` in the text of any JSON number (also of a string that holds one, and
/// with an exponent), rounded up where it is finer. None for what is negative, no number, or too
/// large.
///
/// Price files of others write a token's price as `3e-06`.
pub(super) fn scaled(text: &str, digits: i32) -> Option<u64> {
    let text = text.trim().trim_matches('"').trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || !is_number(whole) || !is_number(decimals) {
        return None;
    }
    let significant: u128 = format!("{whole}{decimals}").parse().ok()?;
    let shift = exponent
        .checked_add(digits)?
        .checked_sub(i32::try_from(decimals.len()).ok()?)?;
    let power = |by: i32| 10_u128.checked_pow(u32::try_from(by).ok()?);
    let scaled = if shift >= 0 {
        significant.checked_mul(power(shift)?)?
    } else {
        // Beyond what fits, nothing but a rounding up to the smallest is left.
        match power(shift.checked_neg()?) {
            Some(divisor) => significant.div_ceil(divisor),
            None => u128::from(significant > 0),
        }
    };
    u64::try_from(scaled).ok()
}

/// Decimals of a pico-dollar per token, in dollars per million tokens.
const DECIMALS_MAX: usize = 6;
const MILLION: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spelling_of_a_number_is_scaled_exactly() {
        for (text, digits, expected) in [
            ("3e-06", 12, Some(3_000_000)),
            ("0.000003", 12, Some(3_000_000)),
            ("\"0.00000125\"", 12, Some(1_250_000)),
            ("2.5E-7", 12, Some(250_000)),
            ("3", 6, Some(3_000_000)),
            ("0", 12, Some(0)),
            ("0e0", 12, Some(0)),
            (".5", 6, Some(500_000)),
            ("1e-13", 12, Some(1)),
            ("1e-60", 12, Some(1)),
            ("1.0000001", 6, Some(1_000_001)),
            ("-1", 12, None),
            ("\"-1\"", 12, None),
            ("1e30", 12, None),
            ("1e9999999999", 12, None),
            ("", 12, None),
            (".", 12, None),
            ("null", 12, None),
            ("true", 12, None),
        ] {
            assert_eq!(scaled(text, digits), expected, "{text}");
        }
    }

    #[test]
    fn a_price_is_written_as_it_was_read() {
        for text in ["0", "1", "0.1", "0.003625", "12.5", "[[0,1],[200000,2.5]]"] {
            let rate: Rate = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&rate).unwrap(), text);
        }
        let piece: Piece = serde_json::from_str("2.5").unwrap();
        assert_eq!(serde_json::to_string(&piece).unwrap(), "2.5");
    }
}
