//! From a request and what its conversation was given to edits.

use std::ops::Range;
use std::sync::Arc;

use crate::edit::{self, Edit};
use crate::prompt::{Fingerprint, Prompt, Section, with_comma};
use crate::volatile::learned::{Learned, Units};
use crate::volatile::{Rules, Span, Transform};

use super::memory::{Node, Origin, Start, Tree, Value};
use super::render::{Place, coarse, place, reference, told_change, told_first};
use super::tools::{self, Shape};
use super::{CANONICAL_TOOLS, CONTEXT_VALUES, Learning, Plan, Request, RuleSet, RulesId, Withheld};

/// Finds the rules that an older conversation goes by.
type FindRules<'a> = &'a dyn Fn(RulesId) -> Option<Arc<Rules>>;

pub(super) fn plan(
    request: &Request<'_>,
    tree: Option<&Tree>,
    current: &RuleSet,
    rule_set: FindRules<'_>,
) -> Plan {
    let mut planner = Planner {
        request,
        plan: Plan::default(),
        tree: tree.cloned().unwrap_or_default(),
        changed: false,
    };
    if request.held_by_provider {
        planner.tell_now(current);
    } else if request.thread.is_start {
        planner.begin(current);
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

/// A value as the client's prompt has it now.
struct Current {
    span: Span,
    transform: Transform,
    value: Value,
}

impl Planner<'_> {
    /// The first turn of a conversation.
    fn begin(&mut self, current: &RuleSet) {
        let learned = self.learned(current);
        let found = self.find(&current.rules, &learned);
        let shapes = self.shapes();
        // A conversation that is edited is remembered even if there is nothing to edit yet.
        if found.is_empty() && shapes.is_empty() && !self.request.begin {
            return;
        }
        let (told, kept) = by_place(&found);
        let (message, at) = (
            self.request.thread.first.message,
            self.request.thread.first.at,
        );
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
        match known {
            Some(known) => self.used(known),
            None => self.changed |= self.tree.add(None, at, told, Some(start)).is_some(),
        }
    }

    /// A turn of which the provider holds all that came before: everything is told at its end.
    fn tell_now(&mut self, current: &RuleSet) {
        let found = self.find(&current.rules, &[]);
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
        let (found, origin) = (chosen.found, node.origin.as_ref());
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
                let news = found.iter().filter(|now| now.transform != Transform::Strip);
                let news = news.filter(|now| !told.contains(&now.value));
                changes = news.map(|now| now.value.clone()).collect();
            }
            self.tell(last.message, &changes, told_change);
            overlay(&mut kept, &changes, false);
            self.remember(chosen.start, parent, last.at, changes);
        }
        self.replace(&found, &kept);
        self.order_tools(origin.map_or(&[], |origin| &origin.tools));
    }

    /// The start that this conversation most probably had: of several that begin alike the one
    /// whose later turns are known, then the one with most of the values, then the latest.
    fn choose(&self, current: &RuleSet, rule_set: FindRules<'_>) -> Option<Chosen> {
        let mut best: Option<Chosen> = None;
        let mut known: Vec<(RulesId, Arc<Rules>)> = Vec::new();
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
            let id = *id;
            let rules = match known.iter().find(|(other, _)| *other == id) {
                Some((_, rules)) => Arc::clone(rules),
                None if id == current.id => Arc::clone(&current.rules),
                None => match rule_set(id) {
                    Some(rules) => rules,
                    None => continue,
                },
            };
            known.push((id, Arc::clone(&rules)));
            let found = found(self.request, &rules, learned);
            let is_known =
                |now: &&Current| node.told.contains(&now.value) || node.kept.contains(&now.value);
            let chosen = Chosen {
                score: (
                    self.path(start).len(),
                    found.iter().filter(is_known).count(),
                ),
                start,
                rules,
                found,
            };
            if best.as_ref().is_none_or(|best| chosen.score > best.score) {
                best = Some(chosen);
            }
        }
        best
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

/// A start that fits, with what its rules find in the prompt now.
struct Chosen {
    score: (usize, usize),
    start: usize,
    rules: Arc<Rules>,
    found: Vec<Current>,
}

impl Node {
    fn is_start_of(&self, told: &[Value], start: &Start) -> bool {
        self.told == told && self.kept == start.kept && self.origin.as_ref() == Some(&start.origin)
    }
}

fn found(request: &Request<'_>, rules: &Rules, learned: &[Learned]) -> Vec<Current> {
    let (body, prompt, untouchable) = (request.body, request.prompt, request.untouchable);
    let mut spans = rules.find(body, prompt, untouchable);
    if let Some(rule) = rules.learned().filter(|_| !learned.is_empty()) {
        let units = Units::of(body, prompt, untouchable, &spans, request.key);
        spans.extend(units.find(learned, rule));
        spans.sort_by_key(|span| (span.segment, span.range.start));
    }
    let each = spans.into_iter().filter_map(|span| {
        let transform = rules.rule(span.rule)?.transform;
        let raw = std::str::from_utf8(request.body.get(span.range.clone())?).ok()?;
        let value = Value {
            name: span.name.clone(),
            raw: match transform {
                Transform::Coarsen => coarse(raw),
                Transform::Relocate | Transform::Pin | Transform::Strip | Transform::Keep => {
                    raw.to_owned()
                }
            },
        };
        Some(Current {
            span,
            transform,
            value,
        })
    });
    each.collect()
}

/// The values that are told, and those that stay where they stand.
fn by_place(found: &[Current]) -> (Vec<Value>, Vec<Value>) {
    let (mut told, mut kept) = (Vec::new(), Vec::new());
    for now in found {
        match now.transform {
            Transform::Relocate => told.push(now.value.clone()),
            Transform::Pin | Transform::Coarsen => kept.push(now.value.clone()),
            Transform::Strip | Transform::Keep => {}
        }
    }
    (told, kept)
}

/// What goes with a value that goes: a block of text may not be empty. Nothing can go where that is
/// the whole system prompt.
fn strippable(body: &[u8], prompt: &Prompt, span: &Span) -> Option<Range<usize>> {
    let segment = prompt.segments.get(span.segment)?;
    let is_all = span.range.len().checked_add(2)? == segment.text.as_ref()?.len();
    if !is_all {
        return Some(span.range.clone());
    }
    let mut others = prompt.segments.iter().enumerate();
    let has_siblings = others.any(|(index, other)| {
        index != span.segment
            && other.section == segment.section
            && other.message == segment.message
    });
    let is_block = segment.range != *segment.text.as_ref()?;
    (has_siblings && is_block).then(|| with_comma(body, segment.range.clone()))
}

/// Puts `values` over `known`: those with a new name are added, others replaced if `replace`.
fn overlay(known: &mut Vec<Value>, values: &[Value], replace: bool) {
    for value in values {
        match known.iter_mut().find(|known| known.name == value.name) {
            Some(known) if replace => known.clone_from(value),
            Some(_) => {}
            None => known.push(value.clone()),
        }
    }
}
