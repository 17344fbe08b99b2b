//! The sentence that people read: what was refused, by which cap, and when it passes.

use super::Reason;
use crate::caps::{Cause, Exceeded, Quantity, Window};
use crate::money::Money;

pub(super) fn message(reason: &Reason<'_>, request_id: &str) -> String {
    match reason {
        Reason::CapExceeded(exceeded) => {
            format!(
                "Weir refused this call: {} (request {request_id}).",
                of_cap(exceeded)
            )
        }
        Reason::TooLarge { limit_bytes } => format!(
            "Weir refused this request: it is longer than the {limit_bytes} bytes that Weir \
             reads, and requests that cannot be read are not allowed here (request {request_id})."
        ),
        Reason::Unreadable { detail } => format!(
            "Weir refused this request: it could not be read ({detail}), and requests that \
             cannot be read are not allowed here (request {request_id})."
        ),
        Reason::Unpriced { model } => format!(
            "Weir refused this call: no price is known for the model \"{model}\", and calls \
             without a price are not allowed here. Whoever runs Weir can give it one: `weir prices \
             import`, or [[price]] in the configuration (request {request_id})."
        ),
        Reason::UpstreamFailed { detail } => format!(
            "Weir could not get an answer from the provider: {detail} (request {request_id})."
        ),
    }
}

/// Why an answer ends before its end.
pub(super) fn ended(exceeded: &Exceeded, request_id: &str) -> String {
    format!(
        "Weir ended this answer: {} (request {request_id}).",
        of_cap(exceeded)
    )
}

/// What cap it is, what is spent of it, and when it passes; without a full stop.
pub(super) fn of_cap(exceeded: &Exceeded) -> String {
    let (cap, scope) = (&exceeded.cap, &exceeded.scope);
    let (limit, requested) = (exceeded.limit, in_cents(exceeded.requested));
    if exceeded.cause == Cause::PerCall {
        return format!(
            "the spending cap \"{cap}\" ({scope}) allows {limit} for one call; this call may take \
             {requested}"
        );
    }
    let what = match exceeded.cause {
        Cause::Velocity => "velocity breaker",
        Cause::Exhausted | Cause::PerCall | Cause::InFlight | Cause::Grant => "spending cap",
    };
    let spent = in_cents(exceeded.spent);
    let mut message = format!(
        "the {what} \"{cap}\" ({scope}) allows {limit}{}; {spent} {} spent",
        of_window(exceeded.window),
        verb(spent)
    );
    if !exceeded.reserved.is_nothing() {
        let reserved = in_cents(exceeded.reserved);
        let verb = verb(reserved);
        message.push_str(&format!(", {reserved} {verb} reserved by calls in flight"));
    }
    if !exceeded.requested.is_nothing() {
        message.push_str(&format!(", this call may take {requested}"));
    }
    let when = match (exceeded.cause, resets_at(exceeded)) {
        (Cause::InFlight | Cause::Grant, _) => {
            ". Try again when calls in flight have ended".to_owned()
        }
        (Cause::Velocity, Some(at)) => format!(". Calls pass again at {at}"),
        (_, Some(at)) => format!(". The cap resets at {at}"),
        (_, None) => match exceeded.window {
            Window::Rolling(_) => String::new(),
            _ => ". The cap does not reset".to_owned(),
        },
    };
    message.push_str(&when);
    message
}

fn of_window(window: Window) -> String {
    match window {
        Window::FiveMinutes => " per five minutes".to_owned(),
        Window::Hour => " per hour".to_owned(),
        Window::Day => " per day".to_owned(),
        Window::Week => " per week".to_owned(),
        Window::Month => " per month".to_owned(),
        Window::Total => " in total".to_owned(),
        Window::Rolling(length) => format!(" in any {length}"),
    }
}

const fn verb(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Money(_) | Quantity::Tokens(1) | Quantity::Calls(1) => "is",
        Quantity::Tokens(_) | Quantity::Calls(_) => "are",
    }
}

/// For people: money is rounded up to a cent, unless it is less than that.
pub(super) fn in_cents(quantity: Quantity) -> Quantity {
    let Quantity::Money(amount) = quantity else {
        return quantity;
    };
    let nanos = amount.nanos();
    if nanos < NANOS_PER_CENT {
        return quantity;
    }
    let beyond = nanos.rem_euclid(NANOS_PER_CENT);
    let missing = NANOS_PER_CENT
        .saturating_sub(beyond)
        .rem_euclid(NANOS_PER_CENT);
    Quantity::Money(Money::from_nanos(nanos.saturating_add(missing)))
}

/// RFC 3339, in UTC.
pub(super) fn resets_at(exceeded: &Exceeded) -> Option<String> {
    let at = jiff::Timestamp::from_second(exceeded.resets_at_unix?).ok()?;
    Some(at.to_string())
}

const NANOS_PER_CENT: i64 = 10_000_000;
