//! A call in flight: whose it is, and what it holds under which cap.

use super::accounts::{Accounts, Hold};
use super::amount::{Amount, Amounts};
use crate::identity::{Caller, Subject};

/// A call that was admitted, and neither settled nor released. It knows whose it is for caps that are
/// put in force before it ends.
#[derive(Debug)]
pub(super) struct InFlight {
    at_ms: i64,
    caller: Caller,
    provider: String,
    host: String,
    model: String,
    /// As it was admitted with, or has grown to.
    amounts: Amounts,
    pub(super) held: Vec<Held>,
}

/// What a call holds under one of the caps.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) cap: usize,
    pub(super) hold: Hold,
}

impl InFlight {
    pub(super) fn new(at_ms: i64, subject: &Subject<'_>, amounts: Amounts) -> Self {
        Self {
            at_ms,
            caller: subject.caller.clone(),
            provider: subject.provider.to_owned(),
            host: subject.host.to_owned(),
            model: subject.model.to_owned(),
            amounts,
            held: Vec::new(),
        }
    }

    /// Notes what it has grown to.
    pub(super) fn grown(&mut self, wanted: Amount) {
        self.amounts.expected = self.amounts.expected.max(wanted);
    }

    /// Holds under a cap that was not in force when it was admitted what it would have held then.
    pub(super) fn hold_under(&mut self, cap: usize, accounts: &mut Accounts) {
        let subject = Subject {
            caller: &self.caller,
            provider: &self.provider,
            host: &self.host,
            model: &self.model,
        };
        if !accounts.cap.counts(&subject) {
            return;
        }
        let amount = accounts.cap.amount(self.amounts);
        if let Some(hold) = accounts.hold_since(self.at_ms, &subject, amount) {
            self.held.push(Held { cap, hold });
        }
    }
}
