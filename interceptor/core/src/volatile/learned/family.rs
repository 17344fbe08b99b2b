//! The prompts of a workload, family by family: which of their units keep changing.

use serde::{Deserialize, Serialize};

use crate::prompt::Fingerprint;

use super::align::Alignment;
use super::units::is_value;
use super::{Learned, Units};

/// What is known of the prompts that one caller sends to one model: hashes and times, no text. At most
/// about 420 KiB, if it has 8 prompts of 4096 units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompts {
    families: Vec<Family>,
}

/// Prompts that are mostly the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Family {
    /// The latest prompt.
    units: Vec<u64>,
    /// Its units that change.
    slots: Vec<Slot>,
    /// The conversation that it was in.
    conversation: u64,
    /// When, in seconds since the Unix epoch.
    seen_s: i64,
}

/// A unit that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    at: usize,
    /// The tokens that it was made of last.
    tokens: Vec<u64>,
    /// How many of them stay, at the start and at the end; unknown, while only one is known.
    stay: Option<(usize, usize)>,
    /// Whether it changed while the units around it stayed.
    alone: bool,
    /// The value that it had last, as the hash of the whole unit.
    latest: u64,
    /// The values that came last.
    values: Vec<Seen>,
    /// When the latest one came.
    changed_s: i64,
    is_learned: bool,
}

/// A value that a unit had, as the hash of the whole unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    unit: u64,
    conversation: u64,
    since_s: i64,
    /// Whether another conversation began with it after it was gone.
    came_back: bool,
}

/// A prompt that was seen.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Tells conversations apart.
    pub conversation: Fingerprint,
    /// Whether it begins with this prompt.
    pub is_start: bool,
    /// When, in seconds since the Unix epoch.
    pub now_s: i64,
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Nothing of weight.
    Nothing,
    /// There is something new to learn from.
    Evidence,
    /// What is learned is not what it was.
    Learned,
}

impl Prompts {
    /// Learns from a prompt. Linear in its units.
    pub fn observe(&mut self, units: &Units<'_>, observed: &Observed) -> News {
        let conversation = u64::try_from(observed.conversation >> 64).unwrap_or_default();
        let hashes = units.hashes();
        let Some((index, alignment)) = self.best(hashes) else {
            self.begin(hashes.to_vec(), conversation, observed.now_s);
            return News::Evidence;
        };
        let Some(family) = self.families.get_mut(index) else {
            return News::Nothing;
        };
        let mut news = News::Nothing;
        family
            .slots
            .retain_mut(|slot| match alignment.place(slot.at) {
                Some(place) => {
                    slot.at = place;
                    true
                }
                None => {
                    news = news.max(if slot.is_learned {
                        News::Learned
                    } else {
                        News::Evidence
                    });
                    false
                }
            });
        for gap in alignment.gaps.iter().filter(|gap| gap.is_even()) {
            for (old, new) in gap.old.clone().zip(gap.new.clone()).take(SLOTS_MAX) {
                news = news.max(family.replaced(
                    units,
                    (old, new),
                    gap.new.len() == 1,
                    observed.now_s,
                ));
            }
        }
        let seen = |unit| Seen {
            unit,
            conversation,
            since_s: observed.now_s,
            came_back: false,
        };
        for slot in &mut family.slots {
            if let Some(unit) = units.hash(slot.at) {
                news = news.max(slot.see(units, seen(unit), observed));
            }
        }
        family.units = hashes.to_vec();
        family.conversation = conversation;
        family.seen_s = observed.now_s;
        news
    }

    /// Whether nothing is learned at all.
    #[must_use]
    pub fn is_empty(&self, now_s: i64) -> bool {
        let mut slots = self.families.iter().flat_map(|family| &family.slots);
        !slots.any(|slot| slot.is_in_force(now_s))
    }

    /// What is learned of prompts like this one, for a conversation that begins with it.
    #[must_use]
    pub fn learned(&self, units: &Units<'_>, now_s: i64) -> Vec<Learned> {
        let Some((index, alignment)) = self.best(units.hashes()) else {
            return Vec::new();
        };
        let Some(family) = self.families.get(index) else {
            return Vec::new();
        };
        let placed = family
            .slots
            .iter()
            .filter_map(|slot| Some((alignment.place(slot.at)?, slot)));
        let mut placed: Vec<(usize, &Slot)> = placed.collect();
        placed.sort_unstable_by_key(|(at, _)| *at);
        let mut all: Vec<(usize, Learned)> = Vec::new();
        for (at, slot) in &placed {
            let changes = |at: usize| placed.iter().any(|(other, _)| *other == at);
            let last = all
                .last()
                .filter(|(last, _)| last.checked_add(1) == Some(*at));
            let before = at.checked_sub(1);
            let before = match last {
                Some((_, learned)) => Some(learned.skeleton()),
                None => before
                    .filter(|at| !changes(*at))
                    .and_then(|at| units.hash(at)),
            };
            let after = at.checked_add(1).filter(|at| !changes(*at));
            let after = after.and_then(|at| units.hash(at));
            let is_anchored = before.is_some() || after.is_some();
            let learned = slot
                .is_in_force(now_s)
                .then(|| slot.learned(units, *at, before, after));
            let learned = learned.flatten().filter(|_| is_anchored);
            let name = learned.as_ref().map(Learned::name);
            let is_taken = all.iter().any(|(_, other)| Some(other.name()) == name);
            all.extend(learned.filter(|_| !is_taken).map(|learned| (*at, learned)));
        }
        all.into_iter().map(|(_, learned)| learned).collect()
    }

    /// The family with most in common, and how.
    fn best(&self, units: &[u64]) -> Option<(usize, Alignment)> {
        let all = self.families.iter().enumerate();
        let fitting = all.filter_map(|(i, family)| Some((i, Alignment::of(&family.units, units)?)));
        fitting.max_by_key(|(_, alignment)| alignment.shared)
    }

    fn begin(&mut self, units: Vec<u64>, conversation: u64, seen_s: i64) {
        if self.families.len() >= FAMILIES_MAX {
            let all = self.families.iter().enumerate();
            let oldest = all.min_by_key(|(_, family)| family.seen_s);
            if let Some((oldest, _)) = oldest {
                self.families.swap_remove(oldest);
            }
        }
        self.families.push(Family {
            units,
            slots: Vec::new(),
            conversation,
            seen_s,
        });
    }
}

impl Family {
    /// Notes that one unit stands in the place of another.
    fn replaced(
        &mut self,
        units: &Units<'_>,
        (old, new): (usize, usize),
        alone: bool,
        now_s: i64,
    ) -> News {
        let (was, is) = (self.units.get(old).copied(), units.hash(new));
        if was == is {
            return News::Nothing;
        }
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.at == new) {
            slot.alone = alone;
            return News::Nothing;
        }
        let (Some(was), Some(tokens)) = (was, units.tokens(new)) else {
            return News::Nothing;
        };
        if self.slots.len() >= SLOTS_MAX {
            let idle = self.slots.iter().enumerate();
            let idle = idle.filter(|(_, slot)| !slot.is_learned);
            let oldest = idle.min_by_key(|(_, slot)| slot.changed_s).map(|(i, _)| i);
            let Some(oldest) = oldest else {
                return News::Nothing;
            };
            self.slots.swap_remove(oldest);
        }
        self.slots.push(Slot {
            at: new,
            tokens,
            stay: None,
            alone,
            latest: was,
            values: vec![Seen {
                unit: was,
                conversation: self.conversation,
                since_s: self.seen_s,
                came_back: false,
            }],
            changed_s: now_s,
            is_learned: false,
        });
        News::Evidence
    }
}

impl Slot {
    /// Notes the value that the unit has now.
    fn see(&mut self, units: &Units<'_>, seen: Seen, observed: &Observed) -> News {
        let was_learned = self.is_learned;
        let latest = std::mem::replace(&mut self.latest, seen.unit);
        let known = self.values.iter().position(|value| value.unit == seen.unit);
        let news = match known.and_then(|at| self.values.get_mut(at)) {
            Some(value) => {
                let is_others = value.conversation != seen.conversation;
                let comes_back = observed.is_start && is_others && seen.unit != latest;
                let is_news = comes_back && !value.came_back;
                value.came_back |= comes_back;
                if is_news {
                    News::Evidence
                } else {
                    News::Nothing
                }
            }
            None => self.change(units, seen),
        };
        let fresh = |value: &&Seen| {
            let age = observed.now_s.saturating_sub(value.since_s);
            !value.came_back && age <= LIFETIME_SECONDS
        };
        let fresh = self.values.iter().filter(fresh).count();
        let back = self.values.iter().filter(|value| value.came_back).count();
        if fresh >= VALUES_MIN {
            let (start, end) = self.stay.unwrap_or_default();
            let is_told_apart = self.alone || start.saturating_add(end) > 0;
            self.is_learned |= self.stay.is_some() && is_told_apart;
        } else if back >= VALUES_MIN {
            self.is_learned = false;
        }
        if self.is_learned == was_learned {
            news
        } else {
            News::Learned
        }
    }

    /// Another value came: what the unit keeps is what both have in common.
    fn change(&mut self, units: &Units<'_>, seen: Seen) -> News {
        let now_s = seen.since_s;
        let Some(tokens) = units.tokens(self.at) else {
            return News::Nothing;
        };
        if tokens == self.tokens && self.values.len() == 1 {
            // The value that the slot was made for.
            self.note(seen);
            return News::Evidence;
        }
        let (mut start, mut end) = common(&self.tokens, &tokens);
        if let Some((known_start, known_end)) = self.stay {
            (start, end) = (start.min(known_start), end.min(known_end));
        }
        let inside = |tokens: &[u64]| {
            let end = tokens.len().checked_sub(end)?;
            tokens.get(start..end).map(is_value)
        };
        let is_value = inside(&self.tokens) == Some(true)
            && inside(&tokens) == Some(true)
            && units.is_of_machine(self.at, (start, end));
        let had_label = self
            .stay
            .is_some_and(|(start, end)| start.saturating_add(end) > 0);
        let has_label = start.saturating_add(end) > 0;
        if is_value && (has_label || !had_label) {
            let widens = self.stay.is_some_and(|stay| stay != (start, end));
            self.stay = Some((start, end));
            self.tokens = tokens;
            self.changed_s = now_s;
            self.note(seen);
            return if widens && self.is_learned {
                News::Learned
            } else {
                News::Evidence
            };
        }
        if self.is_learned && has_label {
            // A placeholder, most probably, such as `none`.
            return News::Nothing;
        }
        // Another text, or no value: it begins anew.
        let was_learned = self.is_learned;
        self.values.clear();
        (self.tokens, self.stay, self.is_learned) = (tokens, None, false);
        self.changed_s = now_s;
        self.note(seen);
        if was_learned {
            News::Learned
        } else {
            News::Evidence
        }
    }

    fn note(&mut self, seen: Seen) {
        if self.values.len() >= VALUES_MAX {
            self.values.remove(0);
        }
        self.values.push(seen);
    }

    /// Whether conversations begin with it: what has not changed for long changes no more.
    const fn is_in_force(&self, now_s: i64) -> bool {
        self.is_learned && now_s.saturating_sub(self.changed_s) <= STEADY_SECONDS
    }

    /// How the value is found again in the unit at `at`; none, if the unit says something else.
    fn learned(
        &self,
        units: &Units<'_>,
        at: usize,
        before: Option<u64>,
        after: Option<u64>,
    ) -> Option<Learned> {
        let (start, end) = self.stay?;
        // What was learned by an earlier version may be none, and a value may look otherwise by chance.
        if !units.is_of_machine(at, (start, end)) {
            return None;
        }
        let prefix = units.side(self.tokens.get(..start)?);
        let suffix = units.side(self.tokens.get(self.tokens.len().checked_sub(end)?..)?);
        units.value(at, prefix, suffix)?;
        Some(Learned {
            before,
            after,
            prefix,
            suffix,
        })
    }
}

/// How many tokens are the same at the start, and how many of the others at the end.
fn common(one: &[u64], other: &[u64]) -> (usize, usize) {
    let start = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let left = one.len().min(other.len()).saturating_sub(start);
    let end = one.iter().rev().zip(other.iter().rev()).take(left);
    (start, end.take_while(|(a, b)| a == b).count())
}

/// Families of a workload: the prompts of an agent and of its sub-agents.
const FAMILIES_MAX: usize = 8;
/// Units of a family that are watched because they changed.
const SLOTS_MAX: usize = 16;
/// Values of a unit that are remembered.
const VALUES_MAX: usize = 8;
/// How many different values make a unit one that keeps changing.
const VALUES_MIN: usize = 3;
/// Within how long they have to come, in seconds: the longest lifetime that a cache is usually asked
/// for. What changes less often costs one miss each time, and may be a deployment.
const LIFETIME_SECONDS: i64 = 3600;
/// How long a value stays that changes no more, in seconds: 7 days.
const STEADY_SECONDS: i64 = 7 * 24 * 3600;
