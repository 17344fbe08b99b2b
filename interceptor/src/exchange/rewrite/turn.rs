//! One turn of a conversation: what it was given is read, what it is given now is written, and no call
//! that begins alike comes in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_core::prompt::Fingerprint;
use weir_core::rewrite::{self, Plan, Request, RuleSet, Standings, Tree};
use weir_core::volatile::Span;

use super::store::Known;
use super::{Asked, Failed, Rewriter};

/// Turns that are under way, by the key of their conversation.
#[derive(Debug)]
pub(super) struct Turns([Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self([const { Mutex::new(()) }; TURNS])
    }
}

impl Turns {
    /// Waits until no other call has a turn of conversations that begin so. Not to be held over an
    /// await.
    pub(super) fn alone(&self, at: Fingerprint) -> Option<MutexGuard<'_, ()>> {
        let turns = u128::try_from(TURNS).ok()?;
        let stripe = usize::try_from(at.checked_rem(turns)?).ok()?;
        let turn = self.0.get(stripe)?;
        Some(turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rewriter {
    /// Plans a turn and remembers what was given to it, alone among those that begin alike.
    pub(super) fn plan_turn(
        &self,
        request: &Request<'_>,
        current: &RuleSet,
        asked: &Asked<'_>,
    ) -> Result<Plan, Failed> {
        let at = request.thread.first.at;
        let _alone = self.turns.alone(at);
        let get = || self.store.get(at, asked.call.now_s);
        let known = get().or_else(|_busy| get()).map_err(Failed::Memory)?;
        let standings = |spans: &[Span]| self.standings(request, current, asked, spans);
        let find = |id| self.rules(id);
        let tree = known.tree.as_deref();
        let mut plan = rewrite::plan_measured(request, tree, current, find, standings);
        if let Some(tree) = plan.tree.take() {
            match self.remember((at, tree), &known, current, asked.call.now_s) {
                // What was edited so far goes on: what is told now will be told anew at the next turn.
                Err(error) if !request.thread.is_start => {
                    tracing::warn!(%error, "what a conversation is told now is not remembered");
                }
                remembered => remembered?,
            }
        }
        Ok(plan)
    }

    /// What is done about values in a conversation of their workload that begins now.
    pub(super) fn standings(
        &self,
        request: &Request<'_>,
        current: &RuleSet,
        asked: &Asked<'_>,
        spans: &[Span],
    ) -> Standings {
        let values = rewrite::values(asked.body, spans, &current.rules, &self.key);
        let workload = self.workload(asked, request, spans);
        self.effects
            .standings(&asked.call.called(workload, &values, true))
    }

    pub(super) fn remember(
        &self,
        (at, tree): (Fingerprint, Tree),
        before: &Known,
        current: &RuleSet,
        now_s: i64,
    ) -> Result<(), Failed> {
        let edited = tree.has_edited();
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if edited && sets.kept != Some(current.id) {
            let kept = self.store.put_rules(current.id, current.rules.source());
            kept.map_err(Failed::Memory)?;
            sets.kept = Some(current.id);
        }
        drop(sets);
        let kept = self.store.put(at, Arc::new(tree), before, now_s);
        kept.map_err(Failed::Memory)?;
        if let Some(nodes) = self.nodes.as_ref().filter(|_| edited) {
            nodes.tell(at);
        }
        Ok(())
    }
}

/// Conversations that can have a turn at the same time.
const TURNS: usize = 64;
