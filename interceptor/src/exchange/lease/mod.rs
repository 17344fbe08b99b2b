//! Slices of caps, where nodes share them: what a call waits for before it is refused.
//!
//! A call is decided on with what this node has leased. Where that does not do, it waits for more:
//! at the first call of an account, and near the limit; not elsewhere, since a slice is filled up in
//! advance. It waits for at most [`LEASE_WAIT`] and holds no lock meanwhile. Where the ledger does
//! not answer, it is refused or, if Weir is to fail open, admitted, flagged and counted later.

mod part;

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use weir_core::caps::{AccountUse, Amount, Amounts, Caps, Cause, Exceeded, OnExceed, Window};
use weir_core::identity::Subject;
use weir_core::lease::{Ask, Charge};

use super::admit::{Asking, Unfit};
use super::entry::Entry;
use super::growth::Growth;
use crate::ledger::{LEASE_WAIT, LeaseOutcome, Leases, Spend};
use crate::sidecar::unix_ms;
use part::{Measure, Part, parts, parts_of};
pub(crate) use part::{held_of, leased_names, like_all_of};

impl Entry {
    /// Reserves what the call may cost under every cap, with slices of the ledger where they are
    /// short.
    ///
    /// # Errors
    /// The cap that it does not fit under.
    pub(super) async fn admit_leased(&mut self, body: &Bytes) -> Result<(), Box<Exceeded>> {
        let Some(leases) = self.context.ledger.leases().map(Arc::clone) else {
            return self
                .admit(Asking::with(body))
                .map(drop)
                .map_err(|unfit| unfit.exceeded);
        };
        let deadline = Instant::now() + LEASE_WAIT;
        let (mut falls, mut room) = (None, Vec::<(String, i64)>::new());
        loop {
            let asking = Asking {
                body,
                leases: Some(&leases),
                falls: falls.as_deref(),
                room: &room,
            };
            let Unfit { exceeded, uses } = match self.admit(asking) {
                Err(unfit) if unfit.exceeded.cause == Cause::Grant => unfit,
                decided => return refilled(&leases, decided),
            };
            match more(&leases, &uses, &exceeded).await {
                Ok(LeaseOutcome::Again) if Instant::now() < deadline => {}
                Ok(_) if self.fails_closed() => return Err(exceeded),
                Ok(_) => {
                    self.record.reasons.push("ledger_unreachable".to_owned());
                    grant_beyond(&mut self.context.caps(), &uses);
                    let granted = asking.granted();
                    return self
                        .admit(granted)
                        .map(drop)
                        .map_err(|unfit| unfit.exceeded);
                }
                Err((part, short)) => match part.of.on_exceed {
                    OnExceed::Downgrade if falls.is_none() => falls = Some(short.exceeded),
                    OnExceed::Block
                        if part.of.clamp
                            && !room.iter().any(|(account, _)| *account == part.account) =>
                    {
                        room.push((part.account, short.room));
                    }
                    _ => return Err(short.exceeded),
                },
            }
        }
    }

    /// The same where nothing can be waited for, inside a WebSocket: what the slice does not cover is
    /// admitted while more is asked for, unless the ledger has just said that there is none.
    ///
    /// # Errors
    /// The cap that it does not fit under.
    pub(super) fn admit_at_once(&mut self) -> Result<(), Box<Exceeded>> {
        let leases = self.context.ledger.leases().map(Arc::clone);
        let body = Bytes::new();
        let asking = Asking {
            leases: leases.as_deref(),
            ..Asking::with(&body)
        };
        let decided = self.admit(asking);
        let Some(leases) = &leases else {
            return decided.map(drop).map_err(|unfit| unfit.exceeded);
        };
        let Unfit { exceeded, uses } = match decided {
            Err(unfit) if unfit.exceeded.cause == Cause::Grant => unfit,
            decided => return refilled(leases, decided),
        };
        for part in lacking(leases, &uses) {
            match leases.ask_aside(&part.ask()) {
                LeaseOutcome::Unreachable if self.fails_closed() => return Err(exceeded),
                LeaseOutcome::Short { spent, held } => {
                    return Err(short(&part, &exceeded, spent, held));
                }
                LeaseOutcome::Again | LeaseOutcome::Unreachable => {}
            }
        }
        grant_beyond(&mut self.context.caps(), &uses);
        let granted = asking.granted();
        self.admit(granted)
            .map(drop)
            .map_err(|unfit| unfit.exceeded)
    }

    /// Notes which accounts are charged with what is reserved.
    pub(super) fn charge_reserved(&mut self) {
        if self.context.ledger.leases().is_some() {
            self.record.charges = charges(&self.account_uses());
        }
    }

    /// The same, when that has grown.
    pub(super) fn charge_more(&mut self, reserved: Amount) {
        for charge in &mut self.record.charges {
            let grown = Measure::of_account(&charge.account).value(reserved);
            charge.amount = charge.amount.max(grown);
        }
    }

    /// What is charged in the end, where something was reserved.
    pub(super) fn charge_spent(&mut self, spent: Amount) {
        for charge in &mut self.record.charges {
            charge.amount = Measure::of_account(&charge.account).value(spent);
        }
    }

    /// Has more leased for a stream that has grown beyond the slice, to `seen` tokens of output. It
    /// goes on meanwhile: what it brings until the answer comes is beyond its reservation.
    ///
    /// # Errors
    /// There is no more, or nobody can be asked and Weir fails closed: the answer is to be ended.
    pub(super) fn lease_more(
        &mut self,
        growth: Growth,
        seen: u64,
        exceeded: Box<Exceeded>,
    ) -> Result<(), Box<Exceeded>> {
        let leases = self.context.ledger.leases().map(Arc::clone);
        let wanted = self.ticket.zip(self.wanted(growth, seen));
        let (Some(leases), Some((ticket, wanted))) = (leases, wanted) else {
            return Err(exceeded);
        };
        let uses = {
            let mut caps = self.context.caps();
            let uses = caps.accounts_to_extend(ticket, wanted);
            grant(&mut caps, &leases, &uses);
            uses
        };
        // What was asked for before may have come.
        let exceeded = match self.extend(growth, seen) {
            Err(exceeded) if exceeded.cause == Cause::Grant => exceeded,
            extended => return extended,
        };
        for part in lacking(&leases, &uses) {
            match leases.ask_aside(&part.ask()) {
                LeaseOutcome::Again => {}
                LeaseOutcome::Unreachable if self.fails_closed() => return Err(exceeded),
                LeaseOutcome::Unreachable => {}
                LeaseOutcome::Short { spent, held } => {
                    return Err(short(&part, &exceeded, spent, held));
                }
            }
        }
        Ok(())
    }

    /// Who calls what, for when nobody does any more.
    pub(super) fn spend_of(&self, subject: &Subject<'_>) -> Spend {
        Spend {
            caller: self.record.caller(),
            provider: self.record.provider.clone(),
            host: self.record.host.clone(),
            model: subject.model.to_owned(),
            ..Spend::default()
        }
    }

    fn account_uses(&self) -> Vec<AccountUse> {
        let Some(priced) = self.priced() else {
            return Vec::new();
        };
        let amounts = self.context.memory.amounts(&priced);
        let caller = self.record.caller();
        let subject = Subject {
            caller: &caller,
            provider: &self.record.provider,
            host: &self.record.host,
            model: priced.model,
        };
        let mut caps = self.context.caps();
        caps.accounts_of(unix_ms(), &subject, amounts)
    }
}

/// Gives back what was not used for a while, account by account: calls wait for the look at one only.
pub(crate) fn give_back<'a>(lock: impl Fn() -> MutexGuard<'a, Caps>, leases: &Arc<Leases>) {
    let none = Amounts::default();
    leases.keep(|account, who| {
        let mut caps = lock();
        let uses = caps.accounts_of(unix_ms(), &who.for_caps().subject, none);
        let is_this = |part: &Part<'_>| part.account == account;
        let Some(this) = parts(&uses).find(is_this) else {
            return false;
        };
        leases.give_back(&this.ask());
        grant(&mut caps, leases, &uses);
        true
    });
}

/// Notes who uses accounts.
pub(super) fn remember(leases: &Leases, uses: &[AccountUse], who: impl Fn() -> Spend) {
    for part in parts(uses) {
        leases.remember(&part.account, &who);
    }
}

/// Fills slices up in advance, and says what was decided.
fn refilled(
    leases: &Arc<Leases>,
    decided: Result<Vec<AccountUse>, Unfit>,
) -> Result<(), Box<Exceeded>> {
    let (uses, decided) = match decided {
        Ok(uses) => (uses, Ok(())),
        Err(unfit) => (unfit.uses, Err(unfit.exceeded)),
    };
    refill(leases, &uses);
    decided
}

/// Tells the caps what they may use. Of caps that only warn nothing is leased.
pub(super) fn grant(caps: &mut Caps, leases: &Leases, uses: &[AccountUse]) {
    for of in uses.iter().filter(|of| of.on_exceed != OnExceed::Warn) {
        let mut most = Amount::ZERO;
        for part in parts_of(of) {
            part.measure.set(&mut most, leases.allowed(&part.account));
        }
        caps.grant(&of.cap, &of.key, of.period_start_ms, most);
    }
}

/// Lets one call pass that nobody could be asked about.
fn grant_beyond(caps: &mut Caps, uses: &[AccountUse]) {
    for of in uses.iter().filter(|of| of.on_exceed != OnExceed::Warn) {
        caps.grant(&of.cap, &of.key, of.period_start_ms, of.own + of.amount);
    }
}

/// Asks for more of each account that is short.
///
/// # Errors
/// The limit of which there is no more, as all nodes know it.
async fn more<'a>(
    leases: &'a Arc<Leases>,
    uses: &'a [AccountUse],
    exceeded: &Exceeded,
) -> Result<LeaseOutcome, (Part<'a>, Short)> {
    for part in lacking(leases, uses) {
        match leases.ask(&part.ask()).await {
            LeaseOutcome::Again => {}
            LeaseOutcome::Unreachable => return Ok(LeaseOutcome::Unreachable),
            LeaseOutcome::Short { spent, held } => {
                let others = spent.saturating_add(held);
                let own = leases.allowed(&part.account).saturating_sub(part.used);
                let room = part.limit.saturating_sub(others).saturating_add(own);
                let exceeded = short(&part, exceeded, spent, held);
                return Err((part, Short { exceeded, room }));
            }
        }
    }
    Ok(LeaseOutcome::Again)
}

/// Of what there is no more.
struct Short {
    exceeded: Box<Exceeded>,
    /// What is left of it for this node, beside what is leased to others.
    room: i64,
}

/// Whether a call takes no more than there is room for.
pub(super) fn fits(room: &[(String, i64)], uses: &[AccountUse]) -> bool {
    parts(uses).all(|part| {
        let known = room.iter().find(|(account, _)| *account == part.account);
        known.is_none_or(|(_, most)| part.need <= *most)
    })
}

/// The limits of which more is needed than is leased.
fn lacking<'a>(leases: &'a Leases, uses: &'a [AccountUse]) -> impl Iterator<Item = Part<'a>> {
    parts(uses).filter(|part| {
        let is_short = part.used.saturating_add(part.need) > leases.allowed(&part.account);
        is_short && part.need > 0 && part.of.on_exceed != OnExceed::Warn
    })
}

fn short(part: &Part<'_>, exceeded: &Exceeded, spent: i64, held: i64) -> Box<Exceeded> {
    let is_spent = spent.saturating_add(part.need) > part.limit;
    let (cause, retry_after_s) = match part.of.window {
        _ if !is_spent && !part.of.breaker => (Cause::InFlight, Some(RETRY_AFTER_S)),
        Window::Rolling(rolling) if part.of.breaker => (Cause::Velocity, Some(rolling.step_s())),
        _ if part.of.breaker => (Cause::Velocity, Some(RETRY_AFTER_S)),
        _ => (Cause::Exhausted, None),
    };
    Box::new(Exceeded {
        cap: part.of.cap.clone(),
        cause,
        limit: part.measure.quantity(part.limit),
        spent: part.measure.quantity(spent),
        reserved: part.measure.quantity(held),
        requested: part.measure.quantity(part.need),
        retry_after_s,
        ..exceeded.clone()
    })
}

fn refill(leases: &Arc<Leases>, uses: &[AccountUse]) {
    for part in parts(uses).filter(|part| part.of.on_exceed != OnExceed::Warn) {
        let used = part.used.saturating_add(part.need);
        leases.refill(&Ask {
            used,
            need: 0,
            ..part.ask()
        });
    }
}

/// Of a cap that only warns nothing is leased: its spend is replayed if it ever is to hold.
fn charges(uses: &[AccountUse]) -> Vec<Charge> {
    parts(uses)
        .filter(|part| part.of.on_exceed != OnExceed::Warn)
        .map(Part::charge)
        .collect()
}

/// When it is worth asking again for what calls in flight hold.
const RETRY_AFTER_S: u64 = 1;
