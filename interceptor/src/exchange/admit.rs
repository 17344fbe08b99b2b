//! Reserves what a call may cost, or makes it cheaper until it fits, or refuses it.

use bytes::Bytes;
use weir_core::call::Call;
use weir_core::caps::{
    AccountUse, Amounts, Caps, Cause, Decision, Exceeded, OnExceed, Ticket, Warning,
};
use weir_core::edit;
use weir_core::identity::{Caller, Subject};

use super::entry::Entry;
use super::lease;
use crate::ledger::Leases;
use crate::sidecar::unix_ms;

/// The lowest limit on output that a call is clamped to, in tokens: less is no answer.
const CLAMP_TOKENS_MIN: u64 = 256;
/// The highest that is tried where neither the call nor the model says a limit, in tokens.
const CLAMP_TOKENS_MAX: u64 = 128_000;

/// How the caps are asked about a call.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    /// What may be edited to make the call cheaper; empty where nothing may.
    pub(super) body: &'a Bytes,
    /// What the caps go by, where nodes share them; none where what they were granted is to do.
    pub(super) leases: Option<&'a Leases>,
    /// Why the call does not fit under a cap that wants another model then, as all nodes know it: this
    /// one may know of nothing but that its slice is used up.
    pub(super) falls: Option<&'a Exceeded>,
    /// The most that it may take of limits that all nodes know to be short and that let it be clamped.
    pub(super) room: &'a [(String, i64)],
}

impl<'a> Asking<'a> {
    /// Where nodes share nothing.
    pub(super) const fn with(body: &'a Bytes) -> Self {
        Self {
            body,
            leases: None,
            falls: None,
            room: &[],
        }
    }

    /// The same once the caps were granted what is to be admitted.
    pub(super) const fn granted(self) -> Self {
        Self {
            leases: None,
            ..self
        }
    }
}

/// A reservation.
struct Admitted {
    ticket: Ticket,
    warnings: Vec<Warning>,
    amounts: Amounts,
    uses: Vec<AccountUse>,
}

/// Why a call is not admitted.
pub(super) struct Unfit {
    /// The cap that it does not fit under.
    pub(super) exceeded: Box<Exceeded>,
    /// The accounts that stood in its way or might have, where nodes share them, with what it would
    /// have reserved: as it was asked for last, which may be with another model.
    pub(super) uses: Vec<AccountUse>,
}

impl Entry {
    /// Reserves what the call may cost under every cap. Where a cap says so, the call is made
    /// cheaper: by another model, by a lower limit on its output. It stays as it was where it is not
    /// admitted. Tells the accounts that count it, where nodes share them.
    ///
    /// # Errors
    /// The cap that it does not fit under.
    pub(super) fn admit(&mut self, asking: Asking<'_>) -> Result<Vec<AccountUse>, Unfit> {
        let Some(mut call) = self.call.take() else {
            return Ok(Vec::new());
        };
        self.context.behind.finish();
        let admitted = self.ask(&mut call, asking);
        self.call = Some(call);
        let admitted = admitted?;
        self.ticket = Some(admitted.ticket);
        self.reserved = admitted.amounts.expected;
        self.context.warn(&admitted.warnings);
        self.record.counted_tokens = self.reserved.tokens;
        self.charge_reserved();
        self.context.ledger.admit(&self.record, self.reserved.money);
        self.follow_stream();
        Ok(admitted.uses)
    }

    fn ask(&mut self, call: &mut Call, asking: Asking<'_>) -> Result<Admitted, Unfit> {
        let amounts = self.amounts_of(call);
        let (decision, uses) = self.reserve(call, amounts, asking, Caps::reserve);
        match decision {
            Decision::Admitted { ticket, warnings } => Ok(Admitted {
                ticket,
                warnings,
                amounts,
                uses,
            }),
            // More may be had of who grants it.
            Decision::Refused(exceeded)
                if exceeded.cause == Cause::Grant && asking.room.is_empty() =>
            {
                Err(Unfit { exceeded, uses })
            }
            Decision::Refused(exceeded) => {
                self.clamp(call, amounts, asking, Unfit { exceeded, uses })
            }
            Decision::Downgrade { to, exceeded } => {
                let exceeded = match asking.falls {
                    _ if exceeded.cause != Cause::Grant => exceeded,
                    Some(known) => Box::new(known.clone()),
                    None => return Err(Unfit { exceeded, uses }),
                };
                let asked = self.downgrade(call, asking, &to);
                asked.unwrap_or(Err(Unfit { exceeded, uses }))
            }
        }
    }

    /// Asks again with the model that a cap wants; nothing where the body can't name it, or the
    /// provider does not have it at a known price.
    fn downgrade(
        &mut self,
        call: &mut Call,
        asking: Asking<'_>,
        to: &str,
    ) -> Option<Result<Admitted, Unfit>> {
        let from = call.model.clone().unwrap_or_default();
        let edits = edit::name_model(asking.body, &from, to)?;
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
        let terms_before = std::mem::replace(&mut self.terms, terms);
        let amounts = self.amounts_of(&cheaper);
        let (decision, mut uses) =
            self.reserve(&cheaper, amounts, asking, Caps::reserve_downgraded);
        Some(match decision {
            Decision::Admitted { ticket, warnings } => {
                *call = cheaper;
                self.edits.extend(edits);
                self.record.model_requested = Some(to.to_owned());
                self.record.reasons.push("downgraded".to_owned());
                Ok(Admitted {
                    ticket,
                    warnings,
                    amounts,
                    uses,
                })
            }
            Decision::Refused(exceeded) | Decision::Downgrade { exceeded, .. } => {
                self.terms = terms_before;
                // Those that want another model have it.
                uses.retain(|of| of.on_exceed == OnExceed::Block);
                Err(Unfit { exceeded, uses })
            }
        })
    }

    /// Asks again with the highest limit on output that fits, if the caps allow that.
    fn clamp(
        &mut self,
        call: &mut Call,
        amounts: Amounts,
        asking: Asking<'_>,
        unfit: Unfit,
    ) -> Result<Admitted, Unfit> {
        if !self.may_edit() {
            return Err(unfit);
        }
        let clamped = |tokens| Call {
            max_output_tokens: Some(tokens),
            ..call.clone()
        };
        let caller = self.record.caller();
        let fits = |tokens| {
            let smaller = self.amounts_of(&clamped(tokens));
            let subject = self.subject(&caller, call);
            let mut caps = self.context.caps();
            let now_ms = unix_ms();
            caps.fits_if_clamped(now_ms, &subject, amounts, smaller)
                && (asking.room.is_empty()
                    || lease::fits(asking.room, &caps.accounts_of(now_ms, &subject, smaller)))
        };
        let most = call.max_output_tokens.unwrap_or(CLAMP_TOKENS_MAX);
        let Some(tokens) = highest(CLAMP_TOKENS_MIN, most, fits) else {
            return Err(unfit);
        };
        let Some(edits) = edit::lower_output_limit(call, asking.body, tokens) else {
            return Err(unfit);
        };
        let smaller = clamped(tokens);
        let amounts = self.amounts_of(&smaller);
        let (decision, uses) = self.reserve(&smaller, amounts, asking, Caps::reserve);
        match decision {
            Decision::Admitted { ticket, warnings } => {
                *call = smaller;
                self.edits.extend(edits);
                self.record.reasons.push("clamped".to_owned());
                Ok(Admitted {
                    ticket,
                    warnings,
                    amounts,
                    uses,
                })
            }
            // More may be had, and then so much fits.
            Decision::Refused(exceeded) if exceeded.cause == Cause::Grant => {
                Err(Unfit { exceeded, uses })
            }
            // Others were faster.
            Decision::Refused(_) | Decision::Downgrade { .. } => Err(unfit),
        }
    }

    /// Asks the caps, told what is leased of the accounts that would count the call.
    fn reserve(
        &self,
        call: &Call,
        amounts: Amounts,
        asking: Asking<'_>,
        reserve: impl Fn(&mut Caps, i64, &Subject<'_>, Amounts) -> Decision,
    ) -> (Decision, Vec<AccountUse>) {
        let caller = self.record.caller();
        let (now_ms, subject) = (unix_ms(), self.subject(&caller, call));
        let mut caps = self.context.caps();
        let uses = match asking.leases {
            None => Vec::new(),
            Some(leases) => {
                let uses = caps.accounts_of(now_ms, &subject, amounts);
                lease::remember(leases, &uses, || self.spend_of(&subject));
                lease::grant(&mut caps, leases, &uses);
                uses
            }
        };
        (reserve(&mut caps, now_ms, &subject, amounts), uses)
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
