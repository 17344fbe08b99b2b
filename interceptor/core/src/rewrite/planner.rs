//! From a request and what its conversation was given to edits.

use std::ops::Range;
use std::sync::Arc;

use crate::answer::Object;
use crate::edit::{self, Edit};
use crate::prompt::{Fingerprint, Section};
use crate::volatile::learned::{Learned, Units};
use crate::volatile::{Rules, Span, Transform};

use super::current::{Current, by_place, found, overlay, strippable};
use super::memory::{Node, Origin, Start, Tree, Value};
use super::render::{Place, place, reference, told_change, told_first};
use super::tools::{self, Shape};
use super::{
    CANONICAL_TOOLS, CONTEXT_VALUES, Learning, Plan, Request, RuleSet, RulesId, Standings, Withheld,
};

/// Finds the rules that an older conversation goes by.
type FindRules<'a> = &'a dyn Fn(RulesId) -> Option<Arc<Rules>>;
/// Tells what is done about values in a conversation that begins.
type FindStandings<'a> = &'a dyn Fn(&[Span]) -> Standings;

pub(super) fn plan(
    request: &Request<'_>,
    tree: Option<&Tree>,
    current: &RuleSet,
    rule_set: FindRules<'_>,
    standings: FindStandings<'_>,
) -> Plan {
    let mut planner = Planner {
        request,
        plan: Plan::default(),
        tree: tree.cloned().unwrap_or_default(),
        changed: false,
    };
    if request.held_by_provider {
        planner.tell_now(current, standings);
    } else if request.thread.is_start {
        planner.begin(current, standings);
    } else {
        planner.go_on(current, rule_set);
    }
    let mut plan = planner.plan;
    plan.tree = planner.changed.then_some(planner.tree);
    if plan.edits.is_empty() {
        plan.withheld = plan.withheld.or(Some(Withheld::NothingFound));
        plan.applied = false;
    }
    plan
}

struct Planner<'a> {
    request: &'a Request<'a>,
    plan: Plan,
    tree: Tree,
    changed: bool,
}

impl Planner<'_> {
    /// The first turn of a conversation.
    fn begin(&mut self, current: &RuleSet, standings: FindStandings<'_>) {
        let learned = self.learned(current);
        let mut found = self.find(&current.rules, &learned);
        let shapes = self.shapes();
        // A conversation that is edited is remembered even if there is nothing to edit yet.
        if found.is_empty() && shapes.is_empty() && !self.request.begin {
            return;
        }
        let (message, at) = (
            self.request.thread.first.message,
            self.request.thread.first.at,
        );
        // One that begins as another did has to be edited as that one: they can't be told apart.
        let as_before = self.began_alike(&found, current.id);
        let standings = as_before.unwrap_or_else(|| {
            let mut standings = standings(&self.plan.spans);
            // Without its memory such a conversation could not go on: the first call of one whose
            // values are kept goes as it came, so that it can.
            if binds_history(self.request.body) {
                standings.moved.clear();
            }
            standings
        });
        for now in &mut found {
            now.stand(&standings);
        }
        let (told, kept) = by_place(&found);
        if !told.is_empty() && self.place(message).is_none() {
            self.plan.withheld = Some(Withheld::NoPlace);
            return;
        }
        let start = Start {
            kept,
            origin: Origin {
                rules: current.id,
                learned,
                applied: self.request.begin,
                tools: shapes,
                off: standings.off,
            },
        };
        let starts = self.tree.starts(at).into_iter();
        let known = starts.into_iter().find(|index| {
            let node = self.tree.node(*index);
            node.is_some_and(|node| node.is_start_of(&told, &start))
        });
        self.plan.applied = self.request.begin;
        self.plan.began = Some(self.request.begin);
        self.replace(&found, &start.kept);
        self.tell(message, &told, told_first);
        self.withhold(!start.origin.off.is_empty(), &found);
        match known {
            Some(known) => self.used(known),
            None => self.changed |= self.tree.add(None, at, told, Some(start)).is_some(),
        }
    }

    /// A turn of which the provider holds all that came before: everything is told at its end.
    fn tell_now(&mut self, current: &RuleSet, standings: FindStandings<'_>) {
        let mut found = self.find(&current.rules, &[]);
        let standings = standings(&self.plan.spans);
        for now in &mut found {
            now.stand(&standings);
            // What such a conversation began with is not known here.
            if now.transform == Transform::Pin {
                now.transform = Transform::Keep;
            }
        }
        let (told, kept) = by_place(&found);
        let message = self.request.thread.turns.last().map(|last| last.message);
        let Some(message) = message.filter(|message| self.place(*message).is_some()) else {
            self.plan.withheld = Some(Withheld::NoPlace);
            return;
        };
        self.plan.applied = self.request.begin;
        self.plan.began = Some(self.request.begin);
        self.replace(&found, &kept);
        self.tell(message, &told, told_first);
        self.withhold(!standings.off.is_empty(), &found);
    }

    /// Says why nothing is done, where values were found.
    fn withhold(&mut self, is_off: bool, found: &[Current]) {
        if self.plan.edits.is_empty() && !found.is_empty() {
            let why = if is_off {
                Withheld::SwitchedOff
            } else {
                Withheld::Kept
            };
            self.plan.withheld = self.plan.withheld.or(Some(why));
        }
    }

    /// How a conversation is edited that began with the same message and the same values.
    fn began_alike(&self, found: &[Current], rules: RulesId) -> Option<Standings> {
        let starts = self.tree.starts(self.request.thread.first.at).into_iter();
        let mut starts = starts.filter_map(|start| self.tree.node(start));
        let node = starts.find(|node| {
            let origin = node.origin.as_ref();
            let is_ours =
                |origin: &Origin| origin.rules == rules && origin.applied == self.request.begin;
            let has = |now: &Current| {
                let is_off = origin.is_some_and(|origin| origin.off.contains(&now.value.name));
                is_off || node.told.contains(&now.value) || node.kept.contains(&now.value)
            };
            origin.is_some_and(is_ours) && !found.is_empty() && found.iter().all(has)
        })?;
        Some(Standings {
            moved: node.told.iter().map(|value| value.name.clone()).collect(),
            off: node.origin.as_ref()?.off.clone(),
        })
    }

    /// A later turn.
    fn go_on(&mut self, current: &RuleSet, rule_set: FindRules<'_>) {
        let Some(chosen) = self.choose(current, rule_set) else {
            self.plan.withheld = Some(Withheld::NotFromStart);
            self.find(&current.rules, &[]);
            return;
        };
        let Some(node) = self.tree.node(chosen.start).cloned() else {
            return;
        };
        let (mut found, origin) = (chosen.found, node.origin.as_ref());
        for now in &mut found {
            now.stand_as(&node);
        }
        self.plan.rules = Some(chosen.rules);
        self.plan.spans = found.iter().map(|now| now.span.clone()).collect();
        self.plan.applied = origin.is_some_and(|origin| origin.applied);
        self.plan.began = Some(self.plan.applied);
        if !self.plan.applied {
            self.plan.withheld = Some(Withheld::BeganUnedited);
        }
        // What each name was first in the prefix, and what it was told to be last.
        let mut kept = node.kept.clone();
        let mut told = node.told.clone();
        overlay(&mut told, &node.kept, true);
        self.tell(self.request.thread.first.message, &node.told, told_first);
        let mut parent = chosen.start;
        for (message, index) in self.path(chosen.start) {
            let then = self.tree.node(index).map(|node| node.told.clone());
            let then = then.unwrap_or_default();
            self.tell(message, &then, told_change);
            overlay(&mut kept, &then, false);
            overlay(&mut told, &then, true);
            parent = index;
        }
        if let Some(last) = self.request.thread.turns.last() {
            let mut changes = Vec::new();
            if self.place(last.message).is_some() {
                let news = found.iter().filter(|now| now.is_told());
                let news = news.filter(|now| !told.contains(&now.value));
                changes = news.map(|now| now.value.clone()).collect();
            }
            self.tell(last.message, &changes, told_change);
            overlay(&mut kept, &changes, false);
            self.remember(chosen.start, parent, last.at, changes);
        }
        self.replace(&found, &kept);
        self.order_tools(origin.map_or(&[], |origin| &origin.tools));
        self.withhold(origin.is_some_and(|origin| !origin.off.is_empty()), &found);
    }

    /// The start that this conversation most probably had: of several that begin alike the one
    /// whose later turns are known, then the one with most of the values, then the latest.
    fn choose(&self, current: &RuleSet, rule_set: FindRules<'_>) -> Option<Chosen> {
        // Many begin alike, and go by the same rules: what those find is looked for once.
        let mut found_by: Vec<FoundBy<'_>> = Vec::new();
        let mut best: Option<Ranked> = None;
        let followed = self.tree.followed();
        for start in self.tree.starts(self.request.thread.first.at) {
            let Some(node) = self.tree.node(start) else {
                continue;
            };
            let Some(Origin {
                rules: id, learned, ..
            }) = &node.origin
            else {
                continue;
            };
            let is_same = |one: &FoundBy<'_>| one.id == *id && one.learned == learned;
            let index = match found_by.iter().position(is_same) {
                Some(index) => index,
                None => {
                    let rules = if *id == current.id {
                        Some(Arc::clone(&current.rules))
                    } else {
                        rule_set(*id)
                    };
                    let Some(rules) = rules else {
                        continue;
                    };
                    found_by.push(FoundBy {
                        id: *id,
                        learned,
                        found: found(self.request, &rules, learned),
                        rules,
                    });
                    found_by.len().saturating_sub(1)
                }
            };
            let Some(FoundBy { found, .. }) = found_by.get(index) else {
                continue;
            };
            let is_known =
                |now: &&Current| node.told.contains(&now.value) || node.kept.contains(&now.value);
            let path = if followed.contains(&start) {
                self.path(start).len()
            } else {
                0
            };
            let score = [path, found.iter().filter(is_known).count()];
            if best.is_none_or(|(best, ..)| score > best) {
                best = Some((score, start, index));
            }
        }
        let (_, start, index) = best?;
        let FoundBy { rules, found, .. } = found_by.into_iter().nth(index)?;
        Some(Chosen {
            start,
            rules,
            found,
        })
    }

    /// The nodes of the turns before the new one, with the messages at whose ends they stand.
    fn path(&self, start: usize) -> Vec<(usize, usize)> {
        let turns = &self.request.thread.turns;
        let before = turns.split_last().map_or(&[][..], |(_, before)| before);
        let mut parent = start;
        let mut path = Vec::new();
        for turn in before {
            let next = self.tree.children(Some(parent), turn.at);
            if let Some(next) = next.first() {
                path.push((turn.message, *next));
                parent = *next;
            }
        }
        path
    }

    /// Notes what is told at the new turn. A turn at which nothing is told needs no note, unless
    /// another attempt at it, or another conversation that began alike, could be taken for it.
    fn remember(&mut self, start: usize, parent: usize, at: Fingerprint, told: Vec<Value>) {
        let attempts = self.tree.children(Some(parent), at);
        let is_same = |index: &&usize| self.tree.node(**index).is_some_and(|n| n.told == told);
        if let Some(same) = attempts.iter().find(is_same) {
            return self.used(*same);
        }
        let starts = self.tree.starts(self.request.thread.first.at).len();
        let is_clear = attempts.is_empty() && (starts < 2 || parent != start);
        if !(told.is_empty() && is_clear) {
            self.changed |= self.tree.add(Some(parent), at, told, None).is_some();
        }
    }

    fn used(&mut self, index: usize) {
        if !self.tree.is_latest(index) {
            self.tree.touch(index);
            self.changed = true;
        }
    }

    /// What was learned of prompts like this one.
    fn learned(&self, current: &RuleSet) -> Vec<Learned> {
        let Some(Learning { prompts, now_s }) = &current.learned else {
            return Vec::new();
        };
        if prompts.is_empty(*now_s) {
            return Vec::new();
        }
        let Request {
            body,
            prompt,
            untouchable,
            key,
            ..
        } = *self.request;
        let known = current.rules.find(body, prompt, untouchable);
        prompts.learned(&Units::of(body, prompt, untouchable, &known, key), *now_s)
    }

    /// The values that the prompt has now.
    fn find(&mut self, rules: &Arc<Rules>, learned: &[Learned]) -> Vec<Current> {
        let found = found(self.request, rules, learned);
        self.plan.rules = Some(Arc::clone(rules));
        self.plan.spans = found.iter().map(|now| now.span.clone()).collect();
        found
    }

    /// Replaces the values in the prefix; `kept` is what those that stay there were first.
    fn replace(&mut self, found: &[Current], kept: &[Value]) {
        for now in found {
            let mut range = Some(now.span.range.clone());
            let replacement = match now.transform {
                Transform::Relocate => reference(&now.value.name),
                Transform::Pin | Transform::Coarsen => {
                    let first = kept.iter().find(|value| value.name == now.value.name);
                    first.unwrap_or(&now.value).raw.clone()
                }
                Transform::Strip => {
                    range = strippable(self.request.body, self.request.prompt, &now.span);
                    String::new()
                }
                Transform::Keep => continue,
            };
            let before = self.request.body.get(now.span.range.clone());
            let stays = before == Some(replacement.as_bytes());
            if let Some(range) = range.filter(|_| !stays) {
                self.edit(range, replacement.into_bytes(), &now.value.name);
            }
        }
    }

    /// Tells `values` at the end of a message.
    fn tell(&mut self, message: usize, values: &[Value], text: fn(&[Value]) -> String) {
        if values.is_empty() {
            return;
        }
        if let Some(place) = self.place(message) {
            let (range, replacement) = place.insert(&text(values));
            self.edit(range, replacement, CONTEXT_VALUES);
        }
    }

    fn place(&self, message: usize) -> Option<Place> {
        let Request {
            body, prompt, api, ..
        } = self.request;
        place(*api, body, prompt, prompt.messages.get(message)?)
    }

    fn edit(&mut self, range: Range<usize>, replacement: Vec<u8>, rule: &str) {
        self.plan.edits.push(Edit {
            range,
            replacement,
            rule: rule.to_owned().into(),
        });
    }

    fn tools(&self) -> Vec<Range<usize>> {
        let segments = self.request.prompt.segments.iter();
        let tools = segments.take_while(|segment| segment.section == Section::Tools);
        tools.map(|segment| segment.range.clone()).collect()
    }

    fn shapes(&self) -> Vec<Shape> {
        tools::shapes(self.request.body, &self.tools(), self.request.key).unwrap_or_default()
    }

    /// Puts tools back in the order in which the conversation saw them first. Values inside them
    /// are replaced before, so their edits become part of this one.
    fn order_tools(&mut self, first: &[Shape]) {
        let ranges = self.tools();
        if first.is_empty() || ranges.is_empty() {
            return;
        }
        let now = self.shapes();
        if now == first || now.len() != ranges.len() {
            return;
        }
        let mut texts = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let mut inside: Vec<Edit> = self.edits_within(range).cloned().collect();
            for edit in &mut inside {
                edit.range.start = edit.range.start.saturating_sub(range.start);
                edit.range.end = edit.range.end.saturating_sub(range.start);
            }
            let tool = self.request.body.get(range.clone()).unwrap_or_default();
            match edit::apply(tool, &mut inside) {
                Ok(text) => texts.push(text),
                Err(_) => return,
            }
        }
        for (place, text) in tools::restore(&now, &texts, first) {
            let Some(range) = ranges.get(place).cloned() else {
                continue;
            };
            self.plan
                .edits
                .retain(|edit| !(edit.range.start >= range.start && edit.range.end <= range.end));
            self.edit(range, text, CANONICAL_TOOLS);
        }
    }

    fn edits_within(&self, range: &Range<usize>) -> impl Iterator<Item = &Edit> {
        let range = range.clone();
        let inside =
            move |edit: &&Edit| edit.range.start >= range.start && edit.range.end <= range.end;
        self.plan.edits.iter().filter(inside)
    }
}

/// How much of a conversation a start has: the turns and the values; the start; what its rules find.
type Ranked = ([usize; 2], usize, usize);

/// What the rules of a start find in the prompt now.
struct FoundBy<'a> {
    id: RulesId,
    learned: &'a [Learned],
    rules: Arc<Rules>,
    found: Vec<Current>,
}

/// A start that fits, with what its rules find in the prompt now.
struct Chosen {
    start: usize,
    rules: Arc<Rules>,
    found: Vec<Current>,
}

impl Node {
    fn is_start_of(&self, told: &[Value], start: &Start) -> bool {
        self.told == told && self.kept == start.kept && self.origin.as_ref() == Some(&start.origin)
    }
}

/// Whether signatures of thinking will be bound to the history, so that a changed one is refused.
fn binds_history(body: &[u8]) -> bool {
    let Some(body) = Object::read(body) else {
        return false;
    };
    // Converse has the parameters of the model's maker in a member of their own.
    let more = body.object("additionalModelRequestFields");
    let thinking = body.object("thinking");
    let thinking = thinking.or_else(|| more?.object("thinking"));
    thinking.is_some_and(|thinking| thinking.name("type").as_deref() != Some("disabled"))
}
