//! Reserves what a call may cost, or makes it cheaper until it fits, or refuses it.

use bytes::Bytes;
use weir_core::call::Call;
use weir_core::caps::{Amounts, Cause, Decision, Exceeded, Ticket, Warning};
use weir_core::edit;
use weir_core::identity::{Caller, Subject};

use super::entry::Entry;
use crate::sidecar::unix_ms;

/// The lowest limit on output that a call is clamped to, in tokens: less is no answer.
const CLAMP_TOKENS_MIN: u64 = 256;
/// The highest that is tried where neither the call nor the model says a limit, in tokens.
const CLAMP_TOKENS_MAX: u64 = 128_000;

/// What came of asking the caps.
enum Asked {
    Admitted(Ticket, Vec<Warning>),
    Refused(Box<Exceeded>),
}

impl Entry {
    /// Reserves what the call may cost under every cap. `body` is what may be edited for that; empty
    /// where nothing may. Where a cap says so, the call is made
    /// cheaper: by another model, by a lower limit on its output.
    ///
    /// # Errors
    /// The cap that it does not fit under.
    pub(super) fn admit(&mut self, body: &Bytes) -> Result<(), Box<Exceeded>> {
        let Some(mut call) = self.call.take() else {
            return Ok(());
        };
        let caller = self.record.caller();
        let mut amounts = self.amounts_of(&call);
        let decision =
            self.context
                .caps()
                .reserve(unix_ms(), &self.subject(&caller, &call), amounts);
        let asked = match decision {
            Decision::Admitted { ticket, warnings } => Asked::Admitted(ticket, warnings),
            // More may be had of who grants it.
            Decision::Refused(exceeded) | Decision::Downgrade { exceeded, .. }
                if exceeded.cause == Cause::Grant =>
            {
                Asked::Refused(exceeded)
            }
            Decision::Refused(exceeded) => {
                self.clamp(&mut call, &caller, &mut amounts, body, exceeded)
            }
            Decision::Downgrade { to, exceeded } => {
                let asked = self.downgrade(&mut call, &caller, &mut amounts, body, &to);
                asked.unwrap_or(Asked::Refused(exceeded))
            }
        };
        self.call = Some(call);
        match asked {
            Asked::Admitted(ticket, warnings) => {
                self.ticket = Some(ticket);
                self.reserved = amounts.expected;
                self.context.warn(&warnings);
                self.record.counted_tokens = self.reserved.tokens;
                self.charge_reserved();
                self.context.ledger.admit(&self.record, self.reserved.money);
                self.follow_stream();
                Ok(())
            }
            Asked::Refused(exceeded) => Err(exceeded),
        }
    }

    /// Asks again with the model that a cap wants; nothing where the body can't name it, or the
    /// provider does not have it at a known price.
    fn downgrade(
        &mut self,
        call: &mut Call,
        caller: &Caller,
        amounts: &mut Amounts,
        body: &Bytes,
        to: &str,
    ) -> Option<Asked> {
        let from = call.model.clone().unwrap_or_default();
        let edits = edit::name_model(body, &from, to)?;
        if !self.may_edit() || from == to {
            return None;
        }
        let cheaper = Call {
            model: Some(to.to_owned()),
            ..call.clone()
        };
        let terms = self.terms_of(&cheaper);
        let priced = self.priced_at(&cheaper, &terms);
        self.prices
            .quote_of(&terms.listing, &priced.context())?
            .rates(0)?;
        self.terms = terms;
        *call = cheaper;
        *amounts = self.amounts_of(call);
        let decision = self.context.caps().reserve_downgraded(
            unix_ms(),
            &self.subject(caller, call),
            *amounts,
        );
        Some(match decision {
            Decision::Admitted { ticket, warnings } => {
                self.edits.extend(edits);
                self.record.model_requested = Some(to.to_owned());
                self.record.reasons.push("downgraded".to_owned());
                Asked::Admitted(ticket, warnings)
            }
            Decision::Refused(exceeded) | Decision::Downgrade { exceeded, .. } => {
                Asked::Refused(exceeded)
            }
        })
    }

    /// Asks again with the highest limit on output that fits, if the caps allow that.
    fn clamp(
        &mut self,
        call: &mut Call,
        caller: &Caller,
        amounts: &mut Amounts,
        body: &Bytes,
        exceeded: Box<Exceeded>,
    ) -> Asked {
        if !self.may_edit() {
            return Asked::Refused(exceeded);
        }
        let clamped = |tokens| Call {
            max_output_tokens: Some(tokens),
            ..call.clone()
        };
        let fits = |tokens| {
            let smaller = self.amounts_of(&clamped(tokens));
            let subject = self.subject(caller, call);
            let mut caps = self.context.caps();
            caps.fits_if_clamped(unix_ms(), &subject, *amounts, smaller)
        };
        let most = call.max_output_tokens.unwrap_or(CLAMP_TOKENS_MAX);
        let Some(tokens) = highest(CLAMP_TOKENS_MIN, most, fits) else {
            return Asked::Refused(exceeded);
        };
        let Some(edits) = edit::lower_output_limit(call, body, tokens) else {
            return Asked::Refused(exceeded);
        };
        *call = clamped(tokens);
        *amounts = self.amounts_of(call);
        let subject = self.subject(caller, call);
        let decision = self.context.caps().reserve(unix_ms(), &subject, *amounts);
        match decision {
            Decision::Admitted { ticket, warnings } => {
                self.edits.extend(edits);
                self.record.reasons.push("clamped".to_owned());
                Asked::Admitted(ticket, warnings)
            }
            // Others were faster.
            Decision::Refused(_) | Decision::Downgrade { .. } => Asked::Refused(exceeded),
        }
    }

    fn amounts_of(&self, call: &Call) -> Amounts {
        self.context
            .memory
            .amounts(&self.priced_at(call, &self.terms))
    }

    fn subject<'a>(&'a self, caller: &'a Caller, call: &'a Call) -> Subject<'a> {
        Subject {
            caller,
            provider: &self.record.provider,
            host: &self.record.host,
            model: call.model.as_deref().unwrap_or_default(),
        }
    }
}

/// The highest number from `low` to below `high` that fits, where less fits whenever more does.
fn highest(mut low: u64, mut high: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    if low >= high || !fits(low) {
        return None;
    }
    while high.saturating_sub(low) > 1 {
        let middle = low.midpoint(high);
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_that_fits_is_found() {
        assert_eq!(highest(256, 64_000, |tokens| tokens <= 1234), Some(1234));
        assert_eq!(highest(256, 1000, |_| true), Some(999));
        assert_eq!(highest(256, 1000, |tokens| tokens <= 256), Some(256));
        assert_eq!(highest(256, 1000, |_| false), None);
        assert_eq!(highest(256, 256, |_| true), None);
    }
}
