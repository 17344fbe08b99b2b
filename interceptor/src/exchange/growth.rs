//! A reservation that follows its stream: raised in steps as output is seen, until nothing is left.

use weir_core::caps::{Amount, Cause, Exceeded};
use weir_core::refusal::Reason;
use weir_core::usage::Usage;

use super::entry::Entry;
use crate::ledger::Outcome;
use crate::sidecar::unix_ms;

/// Output that is reserved ahead of what was seen, in tokens: what a step of the reservation adds.
/// Each is a look at the caps and a line in the journal.
const STEP_TOKENS: u64 = 256;

/// What a call has reserved, as its stream grows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// Tokens of the prompt, as estimated.
    input: u64,
    /// Tokens of output that are reserved.
    output: u64,
}

impl Entry {
    /// Has the reservation follow the stream, where a cap wants that.
    pub(super) fn follow_stream(&mut self) {
        let follows = self.record.stream
            && self
                .ticket
                .is_some_and(|ticket| self.context.caps().follows(ticket));
        self.growth = follows
            .then(|| self.priced())
            .flatten()
            .map(|priced| priced.terms.estimate.reserved)
            .map(|input| Growth {
                input,
                output: self.reserved.tokens.saturating_sub(input),
            });
    }

    /// Reserves what a stream has grown to, `seen` tokens of output, and a step ahead of it.
    ///
    /// # Errors
    /// The cap under which it can't have so much: the answer is to be ended.
    pub(super) fn grow(&mut self, seen: u64) -> Result<(), Box<Exceeded>> {
        let Some(growth) = self.growth else {
            return Ok(());
        };
        if seen <= growth.output {
            return Ok(());
        }
        let ahead = seen.saturating_add(STEP_TOKENS);
        // Near the limit less than a step may be left.
        match self
            .extend(growth, ahead)
            .or_else(|_| self.extend(growth, seen))
        {
            // Only the slice is used up: there may be more.
            Err(exceeded) if exceeded.cause == Cause::Grant => {
                self.lease_more(growth, seen, exceeded)
            }
            extended => extended,
        }
    }

    /// Notes what is expected of a call that is under way although a cap is in its way: what it costs
    /// counts all the same.
    pub(super) fn expect_unreserved(&mut self) {
        if let Some(priced) = self.priced() {
            self.reserved = self.context.memory.amounts(&priced).expected;
        }
        self.charge_reserved();
    }

    /// Notes that the answer ends here, by the cap that is in its way.
    pub(super) fn note_cut_off(&mut self, exceeded: Exceeded) {
        tracing::info!(
            cap = exceeded.cap, scope = exceeded.scope, limit = %exceeded.limit,
            spent = %exceeded.spent, "ended an answer"
        );
        let reason = Reason::CapExceeded(&exceeded).as_str();
        let ended = &self.context.metrics.caps.ended;
        ended.with_label_values(&[reason]).inc();
        self.record.reasons.push(reason.to_owned());
        self.record.outcome = Outcome::CutOff { cap: exceeded.cap };
    }

    /// Raises what is reserved to so many tokens of output.
    ///
    /// # Errors
    /// The cap under which it can't have so much.
    pub(super) fn extend(&mut self, growth: Growth, output: u64) -> Result<(), Box<Exceeded>> {
        let (Some(ticket), Some(wanted)) = (self.ticket, self.wanted(growth, output)) else {
            return Ok(());
        };
        self.context.caps().extend(unix_ms(), ticket, wanted)?;
        self.reserved = self.reserved.max(wanted);
        self.growth = Some(Growth { output, ..growth });
        self.record.counted_tokens = self.reserved.tokens;
        self.charge_more(wanted);
        self.context.ledger.admit(&self.record, self.reserved.money);
        Ok(())
    }

    /// What is to be reserved in all for so many tokens of output.
    pub(super) fn wanted(&self, growth: Growth, output: u64) -> Option<Amount> {
        let priced = self.priced()?;
        let usage = Usage {
            input: growth.input,
            output,
            ..Usage::default()
        };
        let price = priced.price();
        let money = price.and_then(|price| price.of(&usage));
        // What has no price reserved no money, so it can outgrow none.
        let money = money.unwrap_or(self.reserved.money);
        let tokens = growth.input.saturating_add(output);
        Some(Amount::of_call(money, tokens))
    }
}
