//! Spending caps that hold under concurrency: what a call may cost is reserved before it is
//! forwarded, and settled when its cost is known.
//!
//! A call is **reserved**, then sent, then **settled** with what it cost, or **released** if the
//! provider bills nothing. It is admitted if, under every cap that counts it and for each kind of
//! limit (money, tokens, calls), something is left (`spent + reserved < limit`) and it fits
//! (`spent + reserved + amount <= limit`). A stream that grows beyond its reservation has it raised
//! by the same rule ([`Caps::extend`]), or is ended. So at every admission and every extension
//!
//! ```text
//! spent + reserved <= limit
//! ```
//!
//! and after the last of them only calls then in flight, that one included, are settled:
//!
//! ```text
//! spent at the end <= limit + sum over calls in flight of max(0, actual - reserved)
//! ```
//!
//! whatever the number and order of calls. What a call costs beyond its reservation is, by kind:
//!
//! - `strict` reserves the worst case: nothing, as long as no call costs more than that.
//! - `expected`, a stream: what its reservation has not followed. That is the error in the
//!   estimate of its prompt, output that can't be seen as it passes (hidden reasoning, tokens of
//!   an event beyond those counted), and what the provider generates between the extension that
//!   did not fit and the end of the connection.
//! - `expected`, a plain answer: the error of the estimate, at most worst case less expected,
//!   since it is all there at once.
//!
//! Where several processes share a ledger, what the others admitted since the last look at it
//! ([`Caps::replace_elsewhere`]) comes on top; where each spends only what it was granted
//! ([`Caps::set_leased`]) it does not.
//!
//! Spend counts in the window in which the call was admitted. A clock that is set back does not
//! open a window that has passed: the later one stays in force until it ends. Where a caller lacks
//! a value that a cap is kept by, all such callers share one account; so do all callers beyond
//! [`SCOPES_MAX`] accounts of a cap. Neither can spend more than one limit.

mod account;
mod accounts;
mod amount;
mod cap;
mod change;
mod decision;
mod in_flight;
mod window;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::identity::Subject;
use accounts::Accounts;
use change::Changes;
use in_flight::{Held, InFlight};

pub use accounts::SCOPES_MAX;
pub use amount::{Amount, Amounts, Limits, Quantity};
pub use cap::{Cap, CapKind, Dimension, OnExceed, Patterns, is_one_of};
pub use change::{Change, ChangeKind};
pub use decision::{AccountState, AccountUse, Cause, Decision, Exceeded, Spend, Ticket, Warning};
pub use window::{NoWindow, Rolling, Window};

/// All caps and their accounts. Times are in milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Caps {
    caps: Vec<Accounts>,
    /// By ticket. As many as the shell lets in at once.
    in_flight: HashMap<u64, InFlight>,
    next_ticket: u64,
    is_leased: bool,
    changes: Vec<Change>,
}

impl Caps {
    /// Caps with nothing spent.
    #[must_use]
    pub fn new(caps: Vec<Cap>) -> Self {
        Self {
            caps: caps.into_iter().map(Accounts::new).collect(),
            ..Self::default()
        }
    }

    /// Puts other caps in force. One that counts the same as before (same name, `per`, `only`,
    /// window and time zone) keeps what was spent and reserved; the others start with what calls in
    /// flight hold, and want [`Caps::replay`] and [`Caps::replace_elsewhere`].
    pub fn reconfigure(&mut self, caps: Vec<Cap>) {
        let mut old: Vec<Option<Accounts>> = self.caps.drain(..).map(Some).collect();
        let mut new_index = HashMap::new();
        for (index, cap) in caps.into_iter().enumerate() {
            let same = old
                .iter()
                .position(|old| old.as_ref().is_some_and(|old| old.counts_as(&cap)));
            let kept = same.and_then(|at| old.get_mut(at)?.take());
            if let Some(at) = same {
                new_index.insert(at, index);
            }
            self.caps.push(match kept {
                Some(accounts) => accounts.with_terms(cap),
                None => self.new_accounts(cap),
            });
        }
        for call in self.in_flight.values_mut() {
            call.held.retain_mut(|held| match new_index.get(&held.cap) {
                Some(index) => {
                    held.cap = *index;
                    true
                }
                None => false,
            });
            for (index, accounts) in self.caps.iter_mut().enumerate() {
                if accounts.is_new {
                    call.hold_under(index, accounts);
                }
            }
        }
    }

    /// Puts the changes that people made in force, instead of those before, and says whether they
    /// are others. An account that was reset since starts again with what calls in flight hold.
    pub fn change(&mut self, now_ms: i64, changes: Vec<Change>) -> bool {
        if changes == self.changes {
            return false;
        }
        for accounts in &mut self.caps {
            accounts.change(now_ms, Changes::of(&accounts.cap.name, &changes));
        }
        self.changes = changes;
        true
    }

    /// Whether a call fits under every cap that counts it; if so, its amount is reserved in all
    /// of them, and in none if not.
    pub fn reserve(&mut self, now_ms: i64, subject: &Subject<'_>, amounts: Amounts) -> Decision {
        self.decide(now_ms, subject, amounts, Downgraded::No)
    }

    /// The same for a call that goes on with the model that [`Decision::Downgrade`] named: caps
    /// that want that only warn now.
    pub fn reserve_downgraded(
        &mut self,
        now_ms: i64,
        subject: &Subject<'_>,
        amounts: Amounts,
    ) -> Decision {
        self.decide(now_ms, subject, amounts, Downgraded::Yes)
    }

    /// Raises what a call has reserved under caps of kind `expected` to `wanted`, where it is less:
    /// under all of them or, if it does not fit, under none.
    ///
    /// Caps that only warn are in nobody's way. A ticket that was settled or released wants
    /// nothing.
    ///
    /// # Errors
    /// The cap in whose way it is: the answer is to be ended.
    pub fn extend(
        &mut self,
        now_ms: i64,
        ticket: Ticket,
        wanted: Amount,
    ) -> Result<(), Box<Exceeded>> {
        let Some(call) = self.in_flight.get_mut(&ticket.0) else {
            return Ok(());
        };
        for held in &call.held {
            let Some(accounts) = self.caps.get_mut(held.cap) else {
                continue;
            };
            accounts.advance(now_ms);
            let more = accounts.wants(&held.hold, wanted);
            if more == Amount::ZERO || accounts.cap.on_exceed != OnExceed::Block {
                continue;
            }
            if let Some(exceeded) = accounts.exceeded_by_more(&held.hold, more) {
                return Err(exceeded);
            }
        }
        call.grown(wanted);
        for held in &mut call.held {
            if let Some(accounts) = self.caps.get_mut(held.cap) {
                let more = accounts.wants(&held.hold, wanted);
                accounts.hold_more(&mut held.hold, more);
            }
        }
        Ok(())
    }

    /// Whether what a call reserved is to follow its stream: it counts under a cap that reserves the
    /// expected and refuses what exceeds it.
    #[must_use]
    pub fn follows(&self, ticket: Ticket) -> bool {
        let call = self.in_flight.get(&ticket.0).into_iter();
        call.flat_map(|call| &call.held)
            .filter_map(|held| self.caps.get(held.cap))
            .any(|accounts| {
                let cap = &accounts.cap;
                let grows = cap.limits.money.is_some()
                    || cap.limits.tokens.is_some()
                    || cap.per_call.is_some();
                cap.kind == CapKind::Expected && cap.on_exceed == OnExceed::Block && grows
            })
    }

    /// Whether a call that was refused fits, with `smaller` amounts, under all caps that refuse, and
    /// those that it did not fit under let it be clamped: whatever this process was granted of them.
    pub fn fits_if_clamped(
        &mut self,
        now_ms: i64,
        subject: &Subject<'_>,
        amounts: Amounts,
        smaller: Amounts,
    ) -> bool {
        self.caps.iter_mut().all(|accounts| {
            if !accounts.cap.counts(subject) || accounts.cap.on_exceed != OnExceed::Block {
                return true;
            }
            accounts.advance(now_ms);
            let key = accounts.key(subject);
            let clamped = accounts.cap.amount(smaller);
            // More may be had of what is granted.
            let fits = |amount| {
                let exceeded = accounts.exceeded(&key, amount);
                exceeded.is_none_or(|exceeded| exceeded.cause == Cause::Grant)
            };
            fits(clamped) && (accounts.cap.clamp || fits(accounts.cap.amount(amounts)))
        })
    }

    /// Replaces what a call had reserved by what it cost, in the window in which it was admitted.
    ///
    /// A ticket that was settled or released before changes nothing.
    pub fn settle(&mut self, ticket: Ticket, actual: Amount) -> Vec<Warning> {
        let actual = actual.max(Amount::ZERO);
        let mut warnings = Vec::new();
        let call = self.in_flight.remove(&ticket.0).into_iter();
        for held in call.flat_map(|call| call.held) {
            if let Some(accounts) = self.caps.get_mut(held.cap) {
                warnings.extend(accounts.settle(&held.hold, actual));
            }
        }
        warnings
    }

    /// Gives back what a call had reserved and did not spend.
    pub fn release(&mut self, ticket: Ticket) {
        let warnings = self.settle(ticket, Amount::ZERO);
        debug_assert!(warnings.is_empty(), "spending nothing reaches no threshold");
    }

    /// Whether this process may only spend what it is granted ([`Self::grant`]), of limits that it
    /// shares with others.
    pub fn set_leased(&mut self, is_leased: bool) {
        self.is_leased = is_leased;
        for accounts in &mut self.caps {
            accounts.is_leased = is_leased;
        }
    }

    /// The accounts that would count a call.
    pub fn accounts_of(
        &mut self,
        now_ms: i64,
        subject: &Subject<'_>,
        amounts: Amounts,
    ) -> Vec<AccountUse> {
        let counting = self
            .caps
            .iter_mut()
            .filter(|accounts| accounts.cap.counts(subject));
        counting
            .map(|accounts| {
                accounts.advance(now_ms);
                let key = accounts.key(subject);
                accounts.account_use(&key, accounts.cap.amount(amounts))
            })
            .collect()
    }

    /// The accounts under whose caps [`Self::extend`] raises what a call has reserved, and may not fit,
    /// with how much more it wants of each.
    #[must_use]
    pub fn accounts_to_extend(&self, ticket: Ticket, wanted: Amount) -> Vec<AccountUse> {
        let call = self.in_flight.get(&ticket.0).into_iter();
        call.flat_map(|call| &call.held)
            .filter_map(|held| self.caps.get(held.cap)?.use_of_more(&held.hold, wanted))
            .collect()
    }

    /// Lets this process have spent and reserved so much in an account, in the window that starts
    /// at `period_start_ms` ([`AccountUse::period_start_ms`]). Replaces an earlier grant; nothing
    /// happens where another window is in force by now.
    pub fn grant(&mut self, cap: &str, key: &str, period_start_ms: i64, most: Amount) {
        if let Some(accounts) = self
            .caps
            .iter_mut()
            .find(|accounts| accounts.cap.name == cap)
        {
            accounts.grant(key, period_start_ms, most);
        }
    }

    /// Counts money that was spent without a reservation of this process, in order of time.
    /// Spend of windows that have passed is not counted.
    pub fn record_spend(&mut self, spend: &Spend<'_>) {
        for accounts in &mut self.caps {
            accounts.record(spend);
        }
    }

    /// Counts money that was spent before the caps were in force, as the ledger has kept it, in
    /// order of time: only in caps that are new since [`Caps::new`] or [`Caps::reconfigure`].
    pub fn replay(&mut self, spend: &Spend<'_>) {
        for accounts in self.caps.iter_mut().filter(|accounts| accounts.is_new) {
            accounts.record(spend);
        }
    }

    /// From when on spend has to be replayed: the start of the longest window of a cap that is
    /// new. None where no cap is new; [`i64::MIN`] where all spend counts.
    #[must_use]
    pub fn replay_since_ms(&self, now_ms: i64) -> Option<i64> {
        self.caps
            .iter()
            .filter(|accounts| accounts.is_new)
            .map(|accounts| accounts.counts_since_ms(now_ms))
            .min()
    }

    /// Replaces what other processes that share the ledger have in flight.
    pub fn replace_elsewhere<'a>(
        &mut self,
        now_ms: i64,
        reserved: impl IntoIterator<Item = Spend<'a>>,
    ) {
        for accounts in &mut self.caps {
            accounts.advance(now_ms);
            accounts.clear_elsewhere();
        }
        for spend in reserved {
            for accounts in &mut self.caps {
                accounts.reserve_elsewhere(&spend);
            }
        }
    }

    /// Every account in which something is spent or reserved in the window of `now_ms`, by cap,
    /// then by scope.
    #[must_use]
    pub fn states(&self, now_ms: i64) -> Vec<AccountState> {
        let states = |accounts: &Accounts| {
            let states = accounts.states(now_ms).into_iter();
            states.map(|(_, state)| state).collect::<Vec<_>>()
        };
        self.caps.iter().flat_map(states).collect()
    }

    /// The same, as whoever grants parts of limits knows them.
    #[must_use]
    pub fn uses(&self, now_ms: i64) -> Vec<(AccountState, AccountUse)> {
        let uses = |accounts: &Accounts| {
            let states = accounts.states(now_ms).into_iter();
            states
                .map(|(key, state)| (state, accounts.account_use(key, Amount::ZERO)))
                .collect::<Vec<_>>()
        };
        self.caps.iter().flat_map(uses).collect()
    }

    /// The account of a cap that is shown as `scope`, used or not; none where that is none of its
    /// accounts.
    #[must_use]
    pub fn use_named(&self, cap: &str, scope: &str) -> Option<AccountUse> {
        let mut caps = self.caps.iter();
        let accounts = caps.find(|accounts| accounts.cap.name == cap)?;
        accounts.use_named(scope)
    }

    /// The caps, in the order in which they were configured.
    pub fn caps(&self) -> impl Iterator<Item = &Cap> {
        self.caps.iter().map(|accounts| &accounts.cap)
    }

    /// Calls that are admitted and neither settled nor released.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How often a call was counted in the account that callers beyond [`SCOPES_MAX`] share, since
    /// this was asked last.
    #[must_use]
    pub fn take_shared_calls(&mut self) -> u64 {
        let each = self.caps.iter_mut();
        let each = each.map(|accounts| std::mem::take(&mut accounts.shared_calls));
        each.fold(0, u64::saturating_add)
    }

    fn new_accounts(&self, cap: Cap) -> Accounts {
        let changes = Changes::of(&cap.name, &self.changes);
        Accounts::new(cap).with(changes, self.is_leased)
    }

    fn decide(
        &mut self,
        now_ms: i64,
        subject: &Subject<'_>,
        amounts: Amounts,
        downgraded: Downgraded,
    ) -> Decision {
        let mut refusal: Option<Box<Exceeded>> = None;
        let mut downgrade = None;
        let mut warnings = Vec::new();
        let mut counting = Vec::new();
        for (index, accounts) in self.caps.iter_mut().enumerate() {
            if !accounts.cap.counts(subject) {
                continue;
            }
            accounts.advance(now_ms);
            let key = accounts.key(subject);
            accounts.count_if_shared(&key);
            let amount = accounts.cap.amount(amounts);
            if let Some(exceeded) = accounts.exceeded(&key, amount) {
                match (accounts.cap.on_exceed, downgraded) {
                    (OnExceed::Block, _) => {
                        if refusal
                            .as_ref()
                            .is_none_or(|other| lasts_longer(&exceeded, other))
                        {
                            refusal = Some(exceeded);
                        }
                    }
                    (OnExceed::Downgrade, Downgraded::No) => {
                        let to = &accounts.cap.downgrade_to;
                        downgrade.get_or_insert_with(|| (to.clone(), exceeded));
                    }
                    (OnExceed::Warn, _) | (OnExceed::Downgrade, Downgraded::Yes) => {
                        warnings.push((index, key.clone(), exceeded));
                    }
                }
            }
            counting.push((index, key, amount));
        }
        if let Some((to, exceeded)) = downgrade {
            return Decision::Downgrade { to, exceeded };
        }
        if let Some(exceeded) = refusal {
            return Decision::Refused(exceeded);
        }
        let call = InFlight::new(now_ms, subject, amounts);
        let ticket = self.hold(call, counting);
        warnings.retain(|(index, key, _)| {
            self.caps
                .get_mut(*index)
                .is_some_and(|accounts| accounts.is_first_excess(key))
        });
        let warnings = warnings
            .into_iter()
            .map(|(_, _, exceeded)| Warning::Exceeded(exceeded))
            .collect();
        Decision::Admitted { ticket, warnings }
    }

    fn hold(&mut self, mut call: InFlight, counting: Vec<(usize, String, Amount)>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        call.held.reserve_exact(counting.len());
        for (cap, key, amount) in counting {
            if let Some(accounts) = self.caps.get_mut(cap) {
                let hold = accounts.hold(key, amount);
                call.held.push(Held { cap, hold });
            }
        }
        self.in_flight.insert(ticket, call);
        Ticket(ticket)
    }
}

/// Whether a call goes on with a lesser model already.
#[derive(Clone, Copy)]
enum Downgraded {
    No,
    Yes,
}

/// Whether one refusal stands in the way longer than another.
fn lasts_longer(one: &Exceeded, other: &Exceeded) -> bool {
    let order = |exceeded: &Exceeded| (exceeded.cause, exceeded.resets_at_unix.unwrap_or(i64::MAX));
    order(one) > order(other)
}
