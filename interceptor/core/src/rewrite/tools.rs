//! Definitions of tools in the order in which a conversation saw them first, with their keys in that
//! order too.
//!
//! Clients keep tools in hash maps, or take them as servers connect: the same tools in another order
//! are another prefix to every cache. A [`Shape`] holds what is needed to put them back, and no text.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::json::{self, Kind, Malformed, Value};
use crate::prompt::HashKey;

/// A tool, as far as its order goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Shape {
    /// The hash of the tool, whatever the order of its keys.
    id: u64,
    /// For each object of it, in the order of sorted keys: which of the sorted keys comes first,
    /// which next. Empty where all are sorted already.
    keys: Vec<u8>,
}

impl Shape {
    pub(super) fn bytes(&self) -> usize {
        SHAPE_BYTES.saturating_add(self.keys.len())
    }
}

/// The shapes of tools; none, if one of them is not to be understood.
pub(super) fn shapes(body: &[u8], tools: &[Range<usize>], key: &HashKey) -> Option<Vec<Shape>> {
    if tools.len() > TOOLS_MAX {
        return None;
    }
    tools.iter().map(|tool| shape(body, tool, key)).collect()
}

fn shape(body: &[u8], tool: &Range<usize>, key: &HashKey) -> Option<Shape> {
    let mut canonical = Vec::with_capacity(tool.len());
    let mut keys = Vec::new();
    let value = Value {
        kind: Kind::Object,
        range: tool.clone(),
    };
    let order = &mut Order::Note(&mut keys);
    write(body, &value, order, true, &mut canonical).ok()?;
    let id = u64::try_from(key.hash(&[&canonical]) >> 64).ok()?;
    Some(Shape { id, keys })
}

/// The tools as they were first: for each place the bytes that belong there, where they differ from
/// those that are there. Tools that are new come last. `tools` are the ranges, `texts` their bytes
/// with all other edits made.
pub(super) fn restore(now: &[Shape], texts: &[Vec<u8>], first: &[Shape]) -> Vec<(usize, Vec<u8>)> {
    let mut left: Vec<usize> = (0..now.len()).collect();
    let mut order: Vec<(usize, Option<&Shape>)> = Vec::with_capacity(now.len());
    for shape in first {
        let found = left
            .iter()
            .position(|index| now.get(*index).is_some_and(|now| now.id == shape.id));
        if let Some(found) = found {
            order.push((left.remove(found), Some(shape)));
        }
    }
    order.extend(left.into_iter().map(|index| (index, None)));
    let mut moved = Vec::new();
    for (place, (from, shape)) in order.into_iter().enumerate() {
        let Some(text) = texts.get(from) else {
            continue;
        };
        let same_keys = shape.is_none_or(|s| now.get(from).is_some_and(|now| now.keys == s.keys));
        let restored = match shape {
            Some(shape) if !same_keys => reordered(text, &shape.keys),
            _ => None,
        };
        if place == from && restored.is_none() {
            continue;
        }
        moved.push((place, restored.unwrap_or_else(|| text.clone())));
    }
    moved
}

/// A tool with its keys in another order; none, if that is not the order of this tool.
fn reordered(text: &[u8], keys: &[u8]) -> Option<Vec<u8>> {
    let value = json::document(text).ok()?;
    let mut written = Vec::with_capacity(text.len());
    let mut keys = keys.iter().copied();
    let mut order = Order::Follow(&mut keys);
    write(text, &value, &mut order, true, &mut written).ok()?;
    Some(written)
}

/// What is done about the order of keys.
enum Order<'a> {
    /// They are sorted, and how they stood is noted.
    Note(&'a mut Vec<u8>),
    /// They are put as they were noted.
    Follow(&'a mut dyn Iterator<Item = u8>),
}

/// Writes a value without blanks, each object's members in the order asked for.
fn write(
    body: &[u8],
    value: &Value,
    order: &mut Order<'_>,
    outermost: bool,
    to: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let raw = |range: &Range<usize>| body.get(range.clone()).unwrap_or_default();
    let unfit = Malformed {
        at: value.range.start,
        expected: "a tool of the shape that was seen first",
    };
    match value.kind {
        Kind::Object => {
            let members = json::members(body, value.range.clone())?;
            // A marker is no part of the tool, and is not put anywhere else.
            let (markers, mut members): (Vec<_>, Vec<_>) = members
                .into_iter()
                .partition(|member| outermost && member.is(body, "cache_control"));
            let stood: Vec<Range<usize>> = members.iter().map(|m| m.key.clone()).collect();
            members.sort_by(|left, right| raw(&left.key).cmp(raw(&right.key)));
            match order {
                Order::Note(noted) => {
                    for key in &stood {
                        let rank = members.iter().position(|member| member.key == *key);
                        noted.push(rank.and_then(|rank| u8::try_from(rank).ok()).ok_or(unfit)?);
                    }
                }
                Order::Follow(keys) => {
                    let ranks: Vec<u8> = keys.by_ref().take(members.len()).collect();
                    let ranked = ranks
                        .iter()
                        .map(|rank| members.get(usize::from(*rank)).cloned());
                    let ranked: Option<Vec<_>> = ranked.collect();
                    let ranked = ranked.filter(|ranked| ranked.len() == members.len());
                    return follow(body, (&members, &ranked.ok_or(unfit)?, &markers), order, to);
                }
            }
            to.push(b'{');
            for member in &members {
                to.extend_from_slice(raw(&member.key));
                to.push(b':');
                write(body, &member.value, order, false, to)?;
                to.push(b',');
            }
            to.push(b'}');
        }
        Kind::Array => {
            to.push(b'[');
            for (index, element) in json::elements(body, value.range.clone())?
                .iter()
                .enumerate()
            {
                if index > 0 {
                    to.push(b',');
                }
                write(body, element, order, false, to)?;
            }
            to.push(b']');
        }
        Kind::String | Kind::Number | Kind::True | Kind::False | Kind::Null => {
            to.extend_from_slice(raw(&value.range));
        }
    }
    Ok(())
}

type Members<'a> = (&'a [json::Member], &'a [json::Member], &'a [json::Member]);

/// Writes an object whose members are known: sorted, as they shall stand, and the markers. What is
/// inside was noted in the order of sorted keys, so it is made in that order, too.
fn follow(
    body: &[u8],
    (sorted, ranked, markers): Members<'_>,
    order: &mut Order<'_>,
    to: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let raw = |range: &Range<usize>| body.get(range.clone()).unwrap_or_default();
    let mut values = Vec::with_capacity(sorted.len());
    for member in sorted {
        let mut written = Vec::with_capacity(member.value.range.len());
        write(body, &member.value, order, false, &mut written)?;
        values.push(written);
    }
    to.push(b'{');
    for (index, member) in ranked.iter().chain(markers).enumerate() {
        if index > 0 {
            to.push(b',');
        }
        to.push(b'"');
        to.extend_from_slice(raw(&member.key));
        to.extend_from_slice(b"\":");
        let sorted = sorted.iter().position(|other| other.key == member.key);
        match sorted.and_then(|index| values.get(index)) {
            Some(written) => to.extend_from_slice(written),
            None => to.extend_from_slice(raw(&member.value.range)),
        }
    }
    to.push(b'}');
    Ok(())
}

/// Tools whose order is kept; beyond, they stay as they come.
const TOOLS_MAX: usize = 512;
/// What a shape takes beside its keys, in bytes.
const SHAPE_BYTES: usize = 40;
