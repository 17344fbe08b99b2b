//! The same for programs: which cap, whose, how much of it is gone, and when it passes.

use serde::Serialize;

use super::{Reason, message};
use crate::caps::{Exceeded, Quantity};
use crate::money::Money;

#[derive(Serialize)]
pub(super) struct Details<'a> {
    /// Who refused: tells this answer from one of the provider.
    refused_by: &'static str,
    error_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    cap: Option<CapDetails<'a>>,
}

#[derive(Serialize)]
struct CapDetails<'a> {
    cap: &'a str,
    scope: &'a str,
    #[serde(flatten)]
    amounts: Amounts,
    resets_at: Option<String>,
}

/// What is limited says what the numbers are of.
#[derive(Serialize)]
#[serde(untagged)]
enum Amounts {
    /// Decimals in strings: numbers of JSON are floats to most readers.
    Money {
        limit_usd: String,
        spent_usd: String,
        reserved_usd: String,
    },
    Tokens {
        limit_tokens: u64,
        spent_tokens: u64,
        reserved_tokens: u64,
    },
    Calls {
        limit_calls: u64,
        spent_calls: u64,
        reserved_calls: u64,
    },
}

impl<'a> Details<'a> {
    pub(super) fn of(reason: &Reason<'a>) -> Self {
        let cap = match reason {
            Reason::CapExceeded(exceeded) => Some(CapDetails {
                cap: &exceeded.cap,
                scope: &exceeded.scope,
                amounts: Amounts::of(exceeded),
                resets_at: message::resets_at(exceeded),
            }),
            Reason::TooLarge { .. }
            | Reason::Unreadable { .. }
            | Reason::Unpriced { .. }
            | Reason::UpstreamFailed { .. } => None,
        };
        Self {
            refused_by: "weir",
            error_code: reason.as_str(),
            cap,
        }
    }
}

impl Amounts {
    fn of(exceeded: &Exceeded) -> Self {
        let (limit, spent, reserved) = (exceeded.limit, exceeded.spent, exceeded.reserved);
        match limit {
            Quantity::Money(_) => Self::Money {
                limit_usd: usd(limit),
                spent_usd: usd(spent),
                reserved_usd: usd(reserved),
            },
            Quantity::Tokens(_) => Self::Tokens {
                limit_tokens: count(limit),
                spent_tokens: count(spent),
                reserved_tokens: count(reserved),
            },
            Quantity::Calls(_) => Self::Calls {
                limit_calls: count(limit),
                spent_calls: count(spent),
                reserved_calls: count(reserved),
            },
        }
    }
}

fn usd(amount: Quantity) -> String {
    let money = match amount {
        Quantity::Money(money) => money,
        Quantity::Tokens(_) | Quantity::Calls(_) => Money::ZERO,
    };
    money.to_string().replace('$', "")
}

const fn count(amount: Quantity) -> u64 {
    match amount {
        Quantity::Tokens(count) | Quantity::Calls(count) => count,
        Quantity::Money(_) => 0,
    }
}
