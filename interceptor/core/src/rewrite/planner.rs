//! From a request and what its conversation was given to edits.

use std::ops::Range;
use std::sync::Arc;

use crate::edit::{self, Edit};
use crate::prompt::{Fingerprint, Section};
use crate::volatile::learned::Learned;
use crate::volatile::{Rules, Span, Transform};

use super::choose::{Chosen, began_alike, choose, path};
use super::current::{Current, by_place, found, leave_shifted, overlay, strippable};
use super::label::place_all;
use super::likeness::Likeness;
use super::memory::{Index, Node, Origin, Start, Tree, Value};
use super::render::{Place, place, reference, told_change, told_first};
use super::thinking::binds_history;
use super::tools::{self, Shape};
use super::{
    CANONICAL_TOOLS, CONTEXT_VALUES, Learning, Plan, Request, RuleSet, RulesId, Standings, Withheld,
};

/// Finds the rules that an older conversation goes by.
pub(super) type FindRules<'a> = &'a dyn Fn(RulesId) -> Option<Arc<Rules>>;
/// Tells what is done about values in a conversation that begins.
pub(super) type FindStandings<'a> = &'a dyn Fn(&[Span]) -> Standings;

pub(super) fn plan(
    request: &Request<'_>,
    tree: Option<&Tree>,
    current: &RuleSet,
    rule_set: FindRules<'_>,
    standings: FindStandings<'_>,
) -> Plan {
    let mut planner = Planner::new(request, tree);
    if request.held_by_provider {
        planner.tell_now(current, standings);
    } else if request.thread.is_start {
        planner.begin(current, rule_set, standings);
    } else {
        planner.go_on(0, current, rule_set);
    }
    planner.finish()
}

pub(super) struct Planner<'a> {
    request: &'a Request<'a>,
    pub(super) plan: Plan,
    tree: Tree,
    changed: bool,
    /// Whether the conversation goes edited from this turn on, whatever is remembered of it.
    form: Option<bool>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(request: &'a Request<'a>, tree: Option<&Tree>) -> Self {
        Self {
            request,
            plan: Plan::default(),
            tree: tree.cloned().unwrap_or_default(),
            changed: false,
            form: None,
        }
    }

    pub(super) fn finish(self) -> Plan {
        let mut plan = self.plan;
        plan.tree = self.changed.then_some(self.tree);
        if plan.edits.is_empty() {
            plan.withheld = plan.withheld.or(Some(Withheld::NothingFound));
            plan.applied = false;
        }
        plan
    }

    /// The first turn of a conversation.
    fn begin(&mut self, current: &RuleSet, rule_set: FindRules<'_>, standings: FindStandings<'_>) {
        let learned = self.learned(current);
        if let Some(alike) = began_alike(self.request, &self.tree, current, &learned, rule_set) {
            return self.begin_as(alike);
        }
        let found = self.find(&current.rules, &learned);
        let mut standings = standings(&self.plan.spans);
        // Without its memory such a conversation could not go on: the first call of one whose values
        // are kept goes as it came, so that it can.
        if binds_history(self.request.model, self.request.body) {
            standings.moved.clear();
        }
        let _start = self.begin_with(current.id, learned, found, standings);
    }

    /// A later turn, as if its conversation began by the rules of now. None, if it can't be.
    pub(super) fn begin_anew(
        &mut self,
        current: &RuleSet,
        standings: FindStandings<'_>,
    ) -> Option<()> {
        let found = self.find(&current.rules, &[]);
        let standings = standings(&self.plan.spans);
        let start = self.begin_with(current.id, Vec::new(), found, standings)?;
        // By this turn it is told apart from others that begin alike.
        let last = self.request.thread.turns.last()?.at;
        self.tree
            .add(Some(start), last, Vec::new(), None, self.request.now_s)?;
        Some(())
    }

    /// Begins a conversation; gives its start. None, if it is not edited.
    fn begin_with(
        &mut self,
        rules: RulesId,
        learned: Vec<Learned>,
        mut found: Vec<Current>,
        standings: Standings,
    ) -> Option<usize> {
        let shapes = self.shapes();
        // A conversation that is edited is remembered even if there is nothing to edit yet.
        if found.is_empty() && shapes.is_empty() && !self.request.begin {
            return None;
        }
        let (message, at) = (
            self.request.thread.first.message,
            self.request.thread.first.at,
        );
        for now in &mut found {
            now.stand(&standings);
        }
        let (told, kept) = by_place(&found);
        if !told.is_empty() && self.place(message).is_none() {
            self.plan.withheld = Some(Withheld::NoPlace);
            return None;
        }
        let start = Start {
            kept: kept.clone(),
            origin: Origin {
                rules,
                learned,
                applied: self.request.begin,
                tools: shapes,
                off: standings.off,
                likeness: Some(Likeness::of(self.request, &found)),
                began_s: self.request.now_s,
            },
        };
        let is_off = !start.origin.off.is_empty();
        // What is not remembered can't go on.
        let now_s = self.request.now_s;
        let added = self.tree.add(None, at, told.clone(), Some(start), now_s);
        let Some(start) = added else {
            self.plan.withheld = Some(Withheld::TooLong);
            return None;
        };
        self.changed = true;
        self.plan.applied = self.request.begin;
        self.plan.began = Some(self.request.begin);
        self.replace(&found, &kept);
        self.tell(message, &told, told_first);
        self.withhold(is_off, &found);
        Some(start)
    }

    /// The first turn of a conversation that can't be told apart from another.
    fn begin_as(&mut self, alike: Chosen) {
        let Some((node, found)) = self.go_by(alike.start, alike.rules, alike.found) else {
            return;
        };
        self.tell(self.request.thread.first.message, &node.told, told_first);
        self.replace(&found, &node.kept);
        let origin = node.origin.as_ref();
        self.order_tools(origin.map_or(&[], |origin| &origin.tools));
        self.withhold(origin.is_some_and(|origin| !origin.off.is_empty()), &found);
        self.used(alike.start);
    }

    /// Takes what is done about the values in a conversation that began at `start`.
    fn go_by(
        &mut self,
        start: usize,
        rules: Arc<Rules>,
        mut found: Vec<Current>,
    ) -> Option<(Node, Vec<Current>)> {
        let node = self.tree.node(start)?.clone();
        for now in &mut found {
            now.stand_as(&node);
        }
        leave_shifted(&mut found, &node, &rules);
        self.plan.rules = Some(rules);
        self.plan.spans = found.iter().map(|now| now.span.clone()).collect();
        self.plan.applied = node.origin.as_ref().is_some_and(|origin| origin.applied);
        self.plan.began = Some(self.plan.applied);
        if !self.plan.applied {
            self.plan.withheld = Some(Withheld::BeganUnedited);
        }
        Some((node, found))
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

    /// A later turn of a conversation that is remembered, edited or as it came whatever was done so far,
    /// if it is none of `rank` others that fit better. None, if it is not remembered, or is not to be
    /// edited and never was.
    pub(super) fn go_by_form(
        &mut self,
        (is_edited, rank): (bool, usize),
        current: &RuleSet,
        rule_set: FindRules<'_>,
    ) -> Option<()> {
        self.form = Some(is_edited);
        self.go_on(rank, current, rule_set);
        let was_edited = self.plan.began?;
        (self.request.begin || was_edited).then_some(())
    }

    /// A later turn, of the conversation that fits best but for `rank` others.
    fn go_on(&mut self, rank: usize, current: &RuleSet, rule_set: FindRules<'_>) {
        let index = self.tree.index();
        let known = (&self.tree, &index);
        let Some(chosen) = choose(self.request, known, rank, current, rule_set) else {
            self.plan.withheld = Some(Withheld::NotFromStart);
            self.find(&current.rules, &[]);
            self.plan.standings = Standings::all_moved(&self.plan.spans);
            return;
        };
        let Some((node, found)) = self.go_by(chosen.start, chosen.rules, chosen.found) else {
            return;
        };
        let origin = node.origin.as_ref();
        // What each name was first in the prefix, and what it was told to be last.
        let mut kept = node.kept.clone();
        let mut told = node.told.clone();
        overlay(&mut told, &node.kept, true);
        self.tell(self.request.thread.first.message, &node.told, told_first);
        let mut parent = chosen.start;
        let mut form = None;
        for (message, index) in path(self.request, &index, chosen.start) {
            let then = self.tree.node(index).map(|node| {
                form = node.edited.or(form);
                node.told.clone()
            });
            let then = then.unwrap_or_default();
            self.tell(message, &then, told_change);
            overlay(&mut kept, &then, false);
            overlay(&mut told, &then, true);
            parent = index;
        }
        if let Some(last) = self.request.thread.turns.last() {
            self.form = self.form.or_else(|| self.form_at(&index, parent, last.at));
            let mut changes = Vec::new();
            if self.place(last.message).is_some() {
                let news = found.iter().filter(|now| now.is_told());
                let news = news.filter(|now| !told.contains(&now.value));
                changes = news.map(|now| now.value.clone()).collect();
                if let Some(rules) = &self.plan.rules {
                    place_all(self.request, &found, rules, &node.kept, &mut changes);
                }
            }
            changes = self.as_told(&index, parent, last.at, changes);
            self.tell(last.message, &changes, told_change);
            overlay(&mut kept, &changes, false);
            self.remember(&index, [chosen.start, parent], last.at, changes);
        }
        self.go_edited(self.form.or(form));
        self.replace(&found, &kept);
        self.order_tools(origin.map_or(&[], |origin| &origin.tools));
        self.withhold(origin.is_some_and(|origin| !origin.off.is_empty()), &found);
    }

    /// What a turn that is made again was told, to the word: what says where the values stand may read
    /// otherwise by now, and the next turn tells the words that are remembered.
    fn as_told(
        &self,
        index: &Index,
        parent: usize,
        at: Fingerprint,
        changes: Vec<Value>,
    ) -> Vec<Value> {
        let attempts = index.at(Some(parent), at).iter();
        let mut nodes = attempts.filter_map(|attempt| self.tree.node(*attempt));
        let same = nodes.find(|node| node.told == changes && node.edited == self.form);
        same.map_or(changes, |node| node.told.clone())
    }

    /// The form in which a turn was taken after another was refused, if it is made again.
    fn form_at(&self, index: &Index, parent: usize, at: Fingerprint) -> Option<bool> {
        let mut attempts = index.at(Some(parent), at).iter();
        attempts.find_map(|attempt| self.tree.node(*attempt)?.edited)
    }

    /// Takes the form that a conversation goes by since another was refused.
    fn go_edited(&mut self, form: Option<bool>) {
        if let Some(is_edited) = form {
            self.plan.applied = is_edited;
            self.plan.withheld = (!is_edited).then_some(Withheld::TakenAsItCame);
        }
    }

    /// Notes what is told at the new turn. A turn at which nothing is told needs no note, unless
    /// another attempt at it, or another conversation that began alike, could be taken for it.
    fn remember(
        &mut self,
        index: &Index,
        [start, parent]: [usize; 2],
        at: Fingerprint,
        told: Vec<Value>,
    ) {
        let attempts = index.at(Some(parent), at);
        let form = self.form;
        let is_same = |index: &&usize| {
            let node = self.tree.node(**index);
            node.is_some_and(|node| node.told == told && node.edited == form)
        };
        if let Some(same) = attempts.iter().find(is_same) {
            return self.used(*same);
        }
        let starts = index.at(None, self.request.thread.first.at).len();
        let is_clear = attempts.is_empty() && (starts < 2 || parent != start) && form.is_none();
        if !(told.is_empty() && is_clear) {
            let now_s = self.request.now_s;
            let added = self.tree.add(Some(parent), at, told, None, now_s);
            self.changed |= added.is_some();
            if let (Some(added), Some(is_edited)) = (added, form) {
                self.tree.go_by(added, is_edited);
            }
        } else if starts > 1 && self.tree.is_crowded() {
            self.used(parent);
        }
    }

    fn used(&mut self, index: usize) {
        if !self.tree.is_latest(index) {
            self.tree.touch(index, self.request.now_s);
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
        let known = self.request.spans(&current.rules);
        prompts.learned(&self.request.units(&known), *now_s)
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
        self.plan.standings = Standings::of(found);
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
        let read = || {
            let Request { body, key, .. } = *self.request;
            tools::shapes(body, &self.tools(), key).unwrap_or_default()
        };
        match self.request.head {
            Some(head) => head.shapes(read).to_vec(),
            None => read(),
        }
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
