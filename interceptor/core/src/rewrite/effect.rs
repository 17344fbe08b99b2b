//! What rewriting brings each workload, and what follows from it for conversations that begin.
//!
//! A workload is a caller, a model and a prompt without the values in it. A value stays where it
//! stands at first: its conversation keeps the one that it began with, and is told of changes, which
//! costs nothing until there is one. Once another conversation begins with another value while the
//! prompt is still cached, moving the value saves the writing of all that stands behind it, and
//! conversations that begin from then on have it moved. What that really saves is added up by value:
//! what does not pay stays where it stands again, and a change that is told in vain is told no more,
//! for [`RECONSIDERED_SECONDS`].
//!
//! What it misses: a workload's second conversation writes the prompt once more than it would have
//! if its first had been moved on suspicion. A single shot would have paid for that suspicion.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::money::Money;
use crate::prompt::HashKey;
use crate::volatile::{Rules, Span, Transform};

use super::breakpoints::BREAKPOINT;
use super::current::Current;
use super::warm::LIFETIME_SECONDS;

/// What is known of all workloads. Bounded: [`WORKLOADS_MAX`], [`VALUES_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workloads {
    known: HashMap<u64, Workload>,
}

/// What is known of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Workload {
    about: About,
    /// When it was called last, in seconds since the Unix epoch.
    seen_s: i64,
    values: Vec<Effect>,
}

/// A workload in words, for whoever is told about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The program that calls.
    pub program: String,
    /// The host that it calls.
    pub host: String,
    /// The model that it asks for.
    pub model: String,
}

/// What the edits of a value brought so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Effect {
    /// As it is called in prompts.
    name: String,
    /// The hash of the value that was seen last.
    last: u64,
    standing: Standing,
    /// Calls since it was judged last.
    calls: u32,
    /// What they saved; below zero, what they cost.
    saved: Money,
}

/// What is done about a value in conversations that begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It stays where it stands, and changes are told. It is not moved before this moment, in
    /// seconds since the Unix epoch.
    Kept {
        /// When it may be moved again.
        until_s: i64,
    },
    /// It is moved out of the prefix.
    Moved,
    /// Nothing, up to this moment.
    Off {
        /// When that is reconsidered, in seconds since the Unix epoch.
        until_s: i64,
    },
}

/// What is done about the values of a conversation: those named nowhere are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// Values that are moved, if their rule says so.
    pub moved: Vec<String>,
    /// Values that nothing is done about.
    pub off: Vec<String>,
}

impl Standings {
    /// All of them are moved.
    pub(super) fn all_moved(spans: &[Span]) -> Self {
        Self {
            moved: spans.iter().map(|span| span.name.clone()).collect(),
            off: Vec::new(),
        }
    }

    /// What is done about the values that a prompt has now.
    pub(super) fn of(found: &[Current]) -> Self {
        let mut standings = Self::default();
        for now in found {
            match now.transform {
                Transform::Relocate => standings.moved.push(now.value.name.clone()),
                Transform::Pin | Transform::Coarsen => {}
                Transform::Strip | Transform::Keep => standings.off.push(now.value.name.clone()),
            }
        }
        standings
    }

    /// Whether they do about a value what its standing says.
    fn are_those_of(&self, effect: &Effect) -> bool {
        let name = &effect.name;
        match effect.standing {
            Standing::Kept { .. } => !(self.moved.contains(name) || self.off.contains(name)),
            Standing::Moved => self.moved.contains(name),
            // Nothing is done, so that nothing comes of it.
            Standing::Off { .. } => false,
        }
    }
}

/// A value in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valued {
    name: String,
    hash: u64,
    is_movable: bool,
}

/// A call of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// The name of the workload.
    pub workload: u64,
    /// The same in words.
    pub about: &'a About,
    /// The values in its prompt, as [`values`] gives them.
    pub values: &'a [Valued],
    /// Whether a conversation begins with it.
    pub begins: bool,
    /// When, in seconds since the Unix epoch.
    pub now_s: i64,
}

/// What a call shows of its workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Whether the workload was called so lately that its prompt is still cached.
    pub is_warm: bool,
    /// The values that are others than at the call before.
    pub changed: Vec<String>,
    /// Whether conversations of the workload have values moved, so that one that is not found again
    /// may have been hurt.
    pub moves: bool,
    /// Whether no breakpoints are added: they cost more than they saved.
    pub unmarked: bool,
    /// What is done otherwise from now on.
    pub switched: Vec<Switched>,
}

/// A call, for when it is known what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The name of the workload.
    pub workload: u64,
    /// The values in its prompt, and breakpoints, if some were added.
    pub names: Vec<String>,
    /// What its conversation does about them, as [`Plan::standings`](super::Plan::standings) tells it.
    pub standings: Standings,
    /// What it showed.
    pub shown: Shown,
}

/// A value about which something else is done from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// The value.
    pub value: String,
    /// Whose.
    pub about: About,
    /// What is done now.
    pub standing: Standing,
    /// What was saved since it was judged last; below zero, lost.
    pub saved: Money,
}

impl Standing {
    /// The name in metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kept { .. } => "kept",
            Self::Moved => "moved",
            Self::Off { .. } => "off",
        }
    }

    /// Until when it stays so at least, in seconds since the Unix epoch.
    #[must_use]
    pub const fn until_s(self) -> Option<i64> {
        match self {
            Self::Kept { until_s: 0 } | Self::Moved => None,
            Self::Kept { until_s } | Self::Off { until_s } => Some(until_s),
        }
    }
}

/// The values that rules found in a prompt, in hashes.
#[must_use]
pub fn values(body: &[u8], spans: &[Span], rules: &Rules, key: &HashKey) -> Vec<Valued> {
    let valued = spans.iter().filter_map(|span| {
        let is_movable = match rules.rule(span.rule)?.transform {
            Transform::Relocate => true,
            Transform::Pin | Transform::Coarsen => false,
            // These have no effect that could be measured by the value's changes.
            Transform::Strip | Transform::Keep => return None,
        };
        let hash = key.hash(&[body.get(span.range.clone())?]) >> 64;
        Some(Valued {
            name: span.name.clone(),
            hash: u64::try_from(hash).unwrap_or(0),
            is_movable,
        })
    });
    valued.collect()
}

impl Valued {
    /// Breakpoints that are added: an effect of its own, though nothing in the prompt.
    fn breakpoints() -> Self {
        Self {
            name: BREAKPOINT.to_owned(),
            hash: 0,
            is_movable: false,
        }
    }
}

impl Workloads {
    /// What is done about the values of a conversation that begins with `call`.
    #[must_use]
    pub fn standings(&self, call: &Called<'_>) -> Standings {
        let mut standings = Standings::default();
        let Some(workload) = self.known.get(&call.workload) else {
            return standings;
        };
        let is_warm = workload.is_warm(call.now_s);
        for value in call.values {
            let Some(effect) = workload.effect(&value.name) else {
                continue;
            };
            match effect.standing {
                Standing::Off { until_s } if until_s > call.now_s => {
                    standings.off.push(value.name.clone());
                }
                Standing::Moved => standings.moved.push(value.name.clone()),
                _ if is_warm && effect.would_pay(value, call.now_s) => {
                    standings.moved.push(value.name.clone());
                }
                Standing::Kept { .. } | Standing::Off { .. } => {}
            }
        }
        standings
    }

    /// Notes a call, after [`Self::standings`] was asked for.
    pub fn note(&mut self, call: &Called<'_>) -> Shown {
        if !self.known.contains_key(&call.workload) && !self.make_room(call.now_s) {
            return Shown::default();
        }
        let new = || Workload {
            about: call.about.clone(),
            seen_s: i64::MIN,
            values: Vec::new(),
        };
        let workload = self.known.entry(call.workload).or_insert_with(new);
        let mut shown = Shown {
            is_warm: workload.is_warm(call.now_s),
            ..Shown::default()
        };
        let (is_warm, begins) = (shown.is_warm, call.begins);
        let marks = Valued::breakpoints();
        for value in call.values.iter().chain([&marks]) {
            let known = workload.values.iter_mut();
            let Some(effect) = known.into_iter().find(|effect| effect.name == value.name) else {
                if workload.values.len() < VALUES_MAX {
                    workload.values.push(Effect::new(value));
                }
                continue;
            };
            if let Standing::Off { until_s } = effect.standing
                && until_s <= call.now_s
            {
                effect.switch(Standing::Kept { until_s: 0 });
                shown.switched.push(effect.switched(&workload.about));
            }
            if begins && is_warm && effect.would_pay(value, call.now_s) {
                effect.switch(Standing::Moved);
                shown.switched.push(effect.switched(&workload.about));
            }
            if effect.last != value.hash {
                effect.last = value.hash;
                shown.changed.push(value.name.clone());
            }
        }
        workload.seen_s = call.now_s;
        let marks = workload.effect(BREAKPOINT);
        shown.unmarked = marks.is_some_and(|it| matches!(it.standing, Standing::Off { .. }));
        let mut values = workload.values.iter();
        shown.moves = values.any(|effect| effect.standing == Standing::Moved);
        shown
    }

    /// Adds what a call saved, or cost, to the values of its prompt: to those that had changed, if any
    /// had, since without the edit of each of them the prefix would have been another; and to
    /// breakpoints, if there are some. A value about which the call's conversation does something else
    /// than its standing says, since it began under another, learns nothing of it. Gives what is done
    /// otherwise from now on.
    pub fn learn(&mut self, call: &Measured, saved: Money, now_s: i64) -> Vec<Switched> {
        let Some(Workload { about, values, .. }) = self.known.get_mut(&call.workload) else {
            return Vec::new();
        };
        let changed = &call.shown.changed;
        let mut switched = Vec::new();
        let until_s = now_s.saturating_add(RECONSIDERED_SECONDS);
        for effect in values {
            let is_done = call.standings.are_those_of(effect);
            if !(is_done && call.names.contains(&effect.name)) {
                continue;
            }
            effect.calls = effect.calls.saturating_add(1);
            let is_marks = effect.name == BREAKPOINT;
            if is_marks || changed.is_empty() || changed.contains(&effect.name) {
                effect.saved += saved;
            }
            if effect.calls < JUDGED_CALLS {
                continue;
            }
            let pays = effect.saved > Money::ZERO;
            let is_free = effect.saved == Money::ZERO;
            let next = match effect.standing {
                Standing::Moved if !pays => Some(Standing::Kept { until_s }),
                Standing::Kept { .. } if !pays && !is_free => Some(Standing::Off { until_s }),
                Standing::Moved | Standing::Kept { .. } | Standing::Off { .. } => None,
            };
            let saved = effect.saved;
            match next {
                Some(next) => {
                    effect.switch(next);
                    switched.push(Switched {
                        saved,
                        ..effect.switched(about)
                    });
                }
                None => effect.count_anew(),
            }
        }
        switched
    }

    /// The values that are not simply kept, and what is done about them: those that were measured
    /// and found wanting first.
    #[must_use]
    pub fn standing_out(&self, now_s: i64) -> Vec<Switched> {
        let workloads = self.known.values();
        let each = workloads.flat_map(|workload| {
            let values = workload.values.iter();
            values.map(|effect| effect.switched(&workload.about))
        });
        let is_current = |switched: &Switched| match switched.standing {
            Standing::Moved => true,
            Standing::Kept { until_s } | Standing::Off { until_s } => until_s > now_s,
        };
        let mut out: Vec<Switched> = each.filter(is_current).collect();
        out.sort_by(|left, right| {
            let of = |one: &Switched| std::cmp::Reverse(one.standing.until_s());
            let words = |one: &Switched| (one.about.program.clone(), one.value.clone());
            (of(left), words(left)).cmp(&(of(right), words(right)))
        });
        out
    }

    /// Takes over what another process learned: of a workload that it saw later all, of others what it
    /// ruled out for longer.
    pub fn merge(&mut self, other: Self) {
        for (name, theirs) in other.known {
            let has_room = self.known.len() < WORKLOADS_MAX;
            match self.known.get_mut(&name) {
                Some(ours) => ours.merge(theirs),
                None if has_room => {
                    self.known.insert(name, theirs);
                }
                None => {}
            }
        }
    }

    /// Whether there is room for another workload; those that are idle for longest go.
    fn make_room(&mut self, now_s: i64) -> bool {
        if self.known.len() < WORKLOADS_MAX {
            return true;
        }
        let last = now_s.saturating_sub(RECONSIDERED_SECONDS);
        self.known.retain(|_, workload| workload.seen_s > last);
        if self.known.len() >= WORKLOADS_MAX {
            self.known.retain(|_, workload| workload.is_warm(now_s));
        }
        self.known.len() < WORKLOADS_MAX
    }
}

impl Workload {
    const fn is_warm(&self, now_s: i64) -> bool {
        now_s.saturating_sub(self.seen_s) <= LIFETIME_SECONDS
    }

    fn merge(&mut self, mut theirs: Self) {
        if theirs.seen_s > self.seen_s {
            std::mem::swap(self, &mut theirs);
        }
        for earlier in theirs.values {
            let mut known = self.values.iter_mut();
            let Some(later) = known.find(|later| later.name == earlier.name) else {
                if self.values.len() < VALUES_MAX {
                    self.values.push(earlier);
                }
                continue;
            };
            if earlier.is_ruled_out_for_longer(later, self.seen_s) {
                let last = later.last;
                *later = Effect { last, ..earlier };
            }
        }
    }

    fn effect(&self, name: &str) -> Option<&Effect> {
        self.values.iter().find(|effect| effect.name == name)
    }
}

impl Effect {
    fn new(value: &Valued) -> Self {
        Self {
            name: value.name.clone(),
            last: value.hash,
            standing: Standing::Kept { until_s: 0 },
            calls: 0,
            saved: Money::ZERO,
        }
    }

    /// Whether it is not to be moved, or not to be told of, after `now_s` and longer than `other`.
    fn is_ruled_out_for_longer(&self, other: &Self, now_s: i64) -> bool {
        self.standing.until_s() > other.standing.until_s().max(Some(now_s))
    }

    /// Whether moving it would have let a conversation that begins with `value` read the prompt of
    /// the call before.
    const fn would_pay(&self, value: &Valued, now_s: i64) -> bool {
        let may_move = match self.standing {
            Standing::Kept { until_s } => until_s <= now_s,
            Standing::Moved | Standing::Off { .. } => false,
        };
        may_move && value.is_movable && value.hash != self.last
    }

    const fn switch(&mut self, standing: Standing) {
        self.standing = standing;
        self.count_anew();
    }

    const fn count_anew(&mut self) {
        self.calls = 0;
        self.saved = Money::ZERO;
    }

    fn switched(&self, about: &About) -> Switched {
        Switched {
            value: self.name.clone(),
            about: about.clone(),
            standing: self.standing,
            saved: self.saved,
        }
    }
}

/// Workloads that are known: about a kilobyte each.
pub const WORKLOADS_MAX: usize = 4096;
/// Values of a workload whose effect is measured.
pub const VALUES_MAX: usize = 24;
/// Calls after which the effect of a value is judged.
pub const JUDGED_CALLS: u32 = 20;
/// After how many seconds what was switched off is tried again: a day.
pub const RECONSIDERED_SECONDS: i64 = 24 * 3600;
