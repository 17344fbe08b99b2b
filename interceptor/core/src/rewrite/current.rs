//! The values that a prompt has now, and what is done about each.

use std::ops::Range;

use crate::prompt::{Prompt, with_comma};
use crate::volatile::learned::Learned;
use crate::volatile::{Rules, Span, Transform};

use super::memory::{Node, Origin, Value};
use super::render::coarse;
use super::{Request, Standings};

/// A value as the client's prompt has it now.
pub(super) struct Current {
    pub(super) span: Span,
    pub(super) transform: Transform,
    pub(super) value: Value,
}

impl Current {
    /// Takes what is done about it in a conversation that begins.
    pub(super) fn stand(&mut self, standings: &Standings) {
        if !self.is_told() {
            return;
        }
        if standings.off.contains(&self.value.name) {
            self.transform = Transform::Keep;
        } else if self.transform == Transform::Relocate
            && !standings.moved.contains(&self.value.name)
        {
            self.transform = Transform::Pin;
        }
    }

    /// Takes what is done about it in a conversation that began at `node`.
    pub(super) fn stand_as(&mut self, node: &Node) {
        let is_off = |origin: &Origin| origin.off.contains(&self.value.name);
        if self.is_told() && node.origin.as_ref().is_some_and(is_off) {
            self.transform = Transform::Keep;
        } else if self.transform == Transform::Relocate
            && node.kept.iter().any(|kept| kept.name == self.value.name)
        {
            self.transform = Transform::Pin;
        }
    }

    /// Whether the model is told of it.
    pub(super) const fn is_told(&self) -> bool {
        match self.transform {
            Transform::Relocate | Transform::Pin | Transform::Coarsen => true,
            Transform::Strip | Transform::Keep => false,
        }
    }
}

/// The values that rules find in a prompt.
pub(super) fn found(request: &Request<'_>, rules: &Rules, learned: &[Learned]) -> Vec<Current> {
    let mut spans = request.spans(rules);
    if let Some(rule) = rules.learned().filter(|_| !learned.is_empty()) {
        let more = request.units(&spans).find(learned, rule);
        spans.extend(more);
        spans.sort_by_key(|span| (span.segment, span.range.start));
    }
    let each = spans.into_iter().filter_map(|span| {
        let transform = rules.rule(span.rule)?.transform;
        let raw = std::str::from_utf8(request.body.get(span.range.clone())?).ok()?;
        let value = Value {
            name: span.name.clone(),
            place: String::new(),
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

/// Leaves the values of a rule as they came where it finds more or fewer of them than at the start:
/// which number belongs to which place is not known then, and one would stand for another.
pub(super) fn leave_shifted(found: &mut [Current], node: &Node, rules: &Rules) {
    let base = |now: &Current| {
        let is_learned = rules.learned() == Some(now.span.rule);
        let rule = rules.rule(now.span.rule).filter(|_| !is_learned);
        rule.map(|rule| rule.name.as_str())
            .filter(|_| now.is_told())
    };
    let bases: Vec<Option<&str>> = found.iter().map(base).collect();
    for (now, base) in found.iter_mut().zip(&bases) {
        let Some(base) = base else { continue };
        let names = node.told.iter().chain(&node.kept).map(|value| &value.name);
        let before = names.filter(|name| is_numbered(name, base)).count();
        let after = bases.iter().filter(|other| **other == Some(*base)).count();
        if before > 0 && before != after {
            now.transform = Transform::Keep;
        }
    }
}

/// Whether a name is that of a rule, with or without a number.
fn is_numbered(name: &str, base: &str) -> bool {
    let Some(rest) = name.strip_prefix(base) else {
        return false;
    };
    let number = rest.strip_prefix('-').unwrap_or(rest);
    rest.is_empty() || number != rest && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The values that are told, and those that stay where they stand.
pub(super) fn by_place(found: &[Current]) -> (Vec<Value>, Vec<Value>) {
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
pub(super) fn strippable(body: &[u8], prompt: &Prompt, span: &Span) -> Option<Range<usize>> {
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
pub(super) fn overlay(known: &mut Vec<Value>, values: &[Value], replace: bool) {
    for value in values {
        match known.iter_mut().find(|known| known.name == value.name) {
            Some(known) if replace => known.clone_from(value),
            Some(_) => {}
            None => known.push(value.clone()),
        }
    }
}
