//! What a provider itself says that a call costs.

use crate::money::Money;

use super::Object;

/// The cost in a `usage` object of `OpenAI`'s shape, if there is one.
///
/// `OpenRouter` tells dollars as a number, Perplexity as an object, xAI ticks of 10⁻¹⁰ dollars.
/// What was charged to a key of the user's own (`is_byok`) is not the whole cost: nothing then.
pub(super) fn of_usage(usage: &Object<'_>) -> Option<Money> {
    if usage.is_true("is_byok") {
        return None;
    }
    if let Some(ticks) = usage.whole("cost_in_usd_ticks") {
        let picos = u128::from(ticks).saturating_mul(PICOS_PER_TICK);
        return plausible(Money::from_picos_rounded_up(picos));
    }
    let inside = usage.object("cost");
    let inside = inside.as_ref().and_then(|cost| cost.number("total_cost"));
    inside.or_else(|| usage.number("cost")).and_then(dollars)
}

/// The cost of a call as `OpenRouter` tells it afterwards. What a key of the user's own pays is
/// charged by another.
pub(super) fn of_generation(generation: &Object<'_>) -> Option<Money> {
    if generation.is_true("is_byok") {
        return None;
    }
    generation.number("total_cost").and_then(dollars)
}

/// Reads a number of JSON, such as `0.00014` or `1.4e-4`, as dollars, rounded up. Exact: no float
/// is involved.
fn dollars(number: &[u8]) -> Option<Money> {
    let text = std::str::from_utf8(number).ok()?;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: u128 = [whole, fraction].concat().parse().ok()?;
    let decimals = i32::try_from(fraction.len()).ok()?;
    let shift = exponent.checked_sub(decimals)?.checked_add(NANO_DECIMALS)?;
    let power = 10_u128.checked_pow(shift.unsigned_abs());
    let nanos = match power {
        _ if digits == 0 => 0,
        Some(power) if shift >= 0 => digits.checked_mul(power)?,
        Some(power) => digits.div_ceil(power),
        None if shift < 0 => 1,
        None => return None,
    };
    plausible(Money::from_nanos(i64::try_from(nanos).ok()?))
}

/// The cost, if a call can cost that.
fn plausible(cost: Money) -> Option<Money> {
    (cost <= COST_MAX).then_some(cost)
}

/// The most that a provider may say that a call costs: $100,000, for the most tokens that count as
/// a number of tokens ([`super::count::COUNT_MAX`]) at $1000 a million, dearer than any model.
const COST_MAX: Money = Money::from_nanos(100_000_000_000_000);

const PICOS_PER_TICK: u128 = 100;
const NANO_DECIMALS: i32 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly_and_rounded_up() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("0.0", Some(0)),
            ("1", Some(1_000_000_000)),
            ("0.00014", Some(140_000)),
            ("1.4e-4", Some(140_000)),
            ("1.4E-04", Some(140_000)),
            ("12e2", Some(1_200_000_000_000)),
            ("1e5", Some(100_000_000_000_000)),
            ("100000.01", None),
            ("0.0000000001", Some(1)),
            ("1e-99999", Some(1)),
            ("0e99999", Some(0)),
            ("0.1234567891", Some(123_456_790)),
            ("-1", None),
            ("1e30", None),
            ("99999999999999999999999999999999999999999", None),
            ("", None),
        ] {
            let expected = nanos.map(Money::from_nanos);
            assert_eq!(dollars(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn each_provider_tells_it_in_its_own_way() {
        for (usage, nanos) in [
            (r#"{"cost":0.5}"#, Some(500_000_000)),
            (
                r#"{"cost":{"total_cost":0.006,"request_cost":0.005}}"#,
                Some(6_000_000),
            ),
            (r#"{"cost_in_usd_ticks":37756000}"#, Some(3_775_600)),
            (r#"{"cost_in_usd_ticks":1}"#, Some(1)),
            (r#"{"cost_in_usd_ticks":10000000000000000000}"#, None),
            (r#"{"cost":0.5,"is_byok":true}"#, None),
            (r#"{"cost":"0.5"}"#, None),
            (r#"{"prompt_tokens":1}"#, None),
        ] {
            let object = Object::read(usage.as_bytes()).unwrap();
            assert_eq!(of_usage(&object), nanos.map(Money::from_nanos), "{usage}");
        }
    }
}
