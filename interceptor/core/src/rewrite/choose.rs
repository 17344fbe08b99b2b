//! Which conversation a turn belongs to, of those that begin with the same message.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::volatile::Rules;
use crate::volatile::learned::Learned;

use super::current::{Current, found};
use super::likeness::Likeness;
use super::memory::{Index, Node, Origin, Tree, Value};
use super::planner::FindRules;
use super::{Request, RuleSet, RulesId};

/// The start that this conversation most probably had, if it had none of `rank` others: the one that
/// fits best, of several the latest. None, if none fits.
pub(super) fn choose(
    request: &Request<'_>,
    (tree, index): (&Tree, &Index),
    rank: usize,
    current: &RuleSet,
    rule_set: FindRules<'_>,
) -> Option<Chosen> {
    // Many begin alike, and go by the same rules: what those find is looked for once.
    let mut known: Vec<FoundBy<'_>> = Vec::new();
    let mut fits: Vec<(Fit, usize, usize)> = Vec::new();
    for start in index.at(None, request.thread.first.at) {
        let Some(node) = tree.node(*start) else {
            continue;
        };
        let origin = node.origin.as_ref();
        let by = origin.and_then(|origin| found_by(request, origin, current, rule_set, &mut known));
        let Some((by, FoundBy { found, now, .. })) = by.and_then(|by| Some((by, known.get(by)?)))
        else {
            continue;
        };
        let mut fit = Fit::of(node, found, now);
        let is_taken = |at: usize| tree.node(at).is_some_and(|node| node.edited.is_some());
        let mut parent = *start;
        for (message, at) in path(request, index, *start) {
            fit.path = fit.path.saturating_add(1);
            if is_taken(at) {
                fit.taken = message;
            }
            parent = at;
        }
        // The new turn itself, where it is made again.
        if let Some(last) = request.thread.turns.last() {
            let mut attempts = index.at(Some(parent), last.at).iter();
            if attempts.any(|at| is_taken(*at)) {
                fit.taken = last.message;
            }
        }
        if fit.is_enough(node, now) {
            fits.push((fit, *start, by));
        }
    }
    fits.sort_by_key(|(fit, ..)| Reverse(*fit));
    let (_, start, by) = fits.into_iter().nth(rank)?;
    Some(Chosen::of(start, known.into_iter().nth(by)?))
}

/// The start of a conversation with the same first message, prompt and values: one that begins
/// now has to be edited as that one, since nothing will tell them apart. Where that one goes by
/// other rules or was only watched, this is so for as long as it most probably goes on.
///
/// Nodes that know the same choose the same of several, whatever each of them would begin by itself:
/// an edited one rather than one that is only watched, then the one that began first.
pub(super) fn began_alike(
    request: &Request<'_>,
    tree: &Tree,
    current: &RuleSet,
    learned: &[Learned],
    rule_set: FindRules<'_>,
) -> Option<Chosen> {
    let mut known = Vec::new();
    let starts = tree.starts(request.thread.first.at).into_iter();
    let alike = starts.filter_map(|start| {
        let node = tree.node(start)?;
        let origin = node.origin.as_ref()?;
        let is_so = origin.rules == current.id
            && origin.learned == learned
            && origin.applied == request.begin;
        let is_live = request.now_s.saturating_sub(origin.began_s) < LIVE_SECONDS;
        // Nothing begins edited that shall not be.
        if !(is_so || is_live && request.begin) {
            return None;
        }
        let index = found_by(request, origin, current, rule_set, &mut known)?;
        let FoundBy { found, now, .. } = known.get(index)?;
        let before = origin.likeness.as_ref()?;
        let fit = Fit::of(node, found, now);
        let all = found.iter().filter(|now| now.is_told()).count();
        let off = |now: &&Current| now.is_told() && origin.off.contains(&now.value.name);
        let off = found.iter().filter(off).count();
        let has_values = fit.odd.0 == 0 && fit.known.saturating_add(off) >= all;
        let is_alike = has_values && before.has_system_of(now) && before.has_tools_of(now);
        let order = (!origin.applied, origin.began_s, node.says());
        is_alike.then_some((order, start, index))
    });
    let (_, start, index) = alike.min_by(|(one, ..), (other, ..)| one.cmp(other))?;
    Some(Chosen::of(start, known.into_iter().nth(index)?))
}

/// The nodes of the turns before the new one, with the messages at whose ends they stand.
pub(super) fn path(request: &Request<'_>, index: &Index, start: usize) -> Vec<(usize, usize)> {
    let turns = &request.thread.turns;
    let before = turns.split_last().map_or(&[][..], |(_, before)| before);
    let mut parent = start;
    let mut path = Vec::new();
    for turn in before {
        if let Some(next) = index.at(Some(parent), turn.at).first() {
            path.push((turn.message, *next));
            parent = *next;
        }
    }
    path
}

/// How well a start fits a turn: what decides first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    /// The message of the latest turn that was taken in a form of this start, after another was refused.
    taken: usize,
    /// Turns between them that are known.
    path: usize,
    has_system: bool,
    /// Values that the prompt has still.
    known: usize,
    /// Values that only one of the two has.
    odd: Reverse<usize>,
    has_tools: bool,
}

impl Fit {
    fn of(node: &Node, found: &[Current], now: &Likeness) -> Self {
        let origin = node.origin.as_ref();
        let before = origin.and_then(|origin| origin.likeness.as_ref());
        let values = || node.told.iter().chain(&node.kept);
        let is_found = |value: &&Value| found.iter().any(|now| now.value.name == value.name);
        let is_new = |now: &&Current| {
            let name = &now.value.name;
            let is_off = origin.is_some_and(|origin| origin.off.contains(name));
            now.is_told() && !is_off && values().all(|value| value.name != *name)
        };
        let lost = values().filter(|value| !is_found(value)).count();
        let new = found.iter().filter(is_new).count();
        let is_known = |now: &&Current| values().any(|value| *value == now.value);
        Self {
            taken: 0,
            path: 0,
            has_system: before.is_some_and(|before| before.has_system_of(now)),
            known: found.iter().filter(is_known).count(),
            odd: Reverse(lost.saturating_add(new)),
            has_tools: before.is_some_and(|before| before.has_tools_of(now)),
        }
    }

    /// Whether it is that conversation at all, and no other that begins with the same message: with
    /// the same system prompt, or about the same and the values of it.
    fn is_enough(&self, node: &Node, now: &Likeness) -> bool {
        let origin = node.origin.as_ref();
        let before = origin.and_then(|origin| origin.likeness.as_ref());
        let is_near = before.is_none_or(|before| before.is_near(now));
        let has_values = self.known > 0 || self.odd.0 == 0;
        self.path > 0 || self.has_system || is_near && has_values
    }
}

/// What the rules of a start find in the prompt now, and what it says beside that.
struct FoundBy<'a> {
    id: RulesId,
    learned: &'a [Learned],
    rules: Arc<Rules>,
    found: Vec<Current>,
    now: Likeness,
}

/// What the rules of a start find, by its index in what is `known`. None, if they are not to be had.
fn found_by<'a>(
    request: &Request<'_>,
    origin: &'a Origin,
    current: &RuleSet,
    rule_set: FindRules<'_>,
    known: &mut Vec<FoundBy<'a>>,
) -> Option<usize> {
    let (id, learned) = (origin.rules, origin.learned.as_slice());
    let is_same = |one: &FoundBy<'_>| one.id == id && one.learned == learned;
    if let Some(index) = known.iter().position(is_same) {
        return Some(index);
    }
    let rules = if id == current.id {
        Arc::clone(&current.rules)
    } else {
        rule_set(id)?
    };
    let found = found(request, &rules, learned);
    let now = Likeness::of(request, &found);
    known.push(FoundBy {
        id,
        learned,
        rules,
        found,
        now,
    });
    known.len().checked_sub(1)
}

/// A start that fits, with what its rules find in the prompt now.
pub(super) struct Chosen {
    pub(super) start: usize,
    pub(super) rules: Arc<Rules>,
    pub(super) found: Vec<Current>,
}

impl Chosen {
    fn of(start: usize, FoundBy { rules, found, .. }: FoundBy<'_>) -> Self {
        Self {
            start,
            rules,
            found,
        }
    }
}

/// How long a conversation is taken to go on that another must not be taken for, in seconds since it
/// began: as long as providers keep prompts.
const LIVE_SECONDS: i64 = 3600;
