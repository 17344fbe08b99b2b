//! Which prefixes were sent so lately that a provider still holds what was written of them.
//!
//! A breakpoint costs the writing, so it is set only where the bytes up to it are those of a call
//! before: as they were sent, after all edits, since a value that is kept or told differently is
//! another prefix, whatever its workload.

use std::collections::HashMap;

use crate::edit::Edit;
use crate::prompt::{Fingerprint, Section, Segment};

use super::Request;
use super::head::Sections;

/// The prefixes of a call as they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    tools: Option<u64>,
    system: Option<u64>,
    /// Up to the end of the turn before.
    before: Option<u64>,
    /// Up to the end of the new turn.
    turn: Option<u64>,
}

/// Which prefixes of a call would have been read, had they been written when they were sent last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warmth {
    /// The tools.
    pub tools: bool,
    /// The tools and the system prompt.
    pub system: bool,
    /// All up to the end of the turn before.
    pub turn: bool,
}

/// The prefixes that were sent lately: two generations of at most 65,536.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    now: HashMap<u64, i64>,
    before: HashMap<u64, i64>,
    /// When this generation began, in seconds since the Unix epoch.
    since_s: i64,
}

impl Prefixes {
    /// Reads them. `edits` are those that are made; `scope` tells callers, hosts and models apart.
    #[must_use]
    pub fn of(request: &Request<'_>, edits: &[Edit], scope: &[&[u8]]) -> Self {
        let Request { key, thread, .. } = *request;
        let mut edits: Vec<&Edit> = edits.iter().collect();
        edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
        let read = || sections(request, &edits);
        let sections = match request.head.filter(|_| !touch_head(request, &edits)) {
            Some(head) => *head.sections(read),
            None => read(),
        };
        let mut prefix = key.hash(scope);
        let [tools, system] = sections.map(|section| {
            let sent = section.unwrap_or_default().to_le_bytes();
            prefix = key.hash(&[&prefix.to_le_bytes(), &sent]);
            section.map(|_| half(prefix))
        });
        // What is told in a turn is a function of the history and of what the conversation began with.
        let turn = |back: usize| {
            let at = thread.turns.len().checked_sub(back)?;
            let at = thread.turns.get(at)?.at;
            let parts = [prefix.to_le_bytes(), at.to_le_bytes()];
            Some(half(key.hash(&[&parts.concat()])))
        };
        Self {
            tools,
            system,
            before: turn(2),
            turn: turn(1),
        }
    }
}

/// Whether any edit is in tools or system prompt.
fn touch_head(request: &Request<'_>, edits: &[&Edit]) -> bool {
    let segments = request.prompt.segments.iter();
    let mut own = segments.take_while(|segment| segment.section != Section::Messages);
    own.any(|segment| !inside(segment, edits).is_empty())
}

/// Tools and system prompt as they are sent.
fn sections(request: &Request<'_>, edits: &[&Edit]) -> Sections {
    // What the provider takes out by its place is no part of a prefix.
    let skip = request.untouchable;
    [Section::Tools, Section::System].map(|section| {
        let segments = request.prompt.segments.iter().enumerate();
        let own = |(index, segment): &(usize, &Segment)| {
            segment.section == section && !segment.deferred && Some(*index) != skip
        };
        let mut sent = Vec::new();
        let mut any = false;
        for (_, segment) in segments.filter(own) {
            as_sent(request.body, segment, edits, &mut sent);
            any = true;
        }
        any.then(|| request.key.hash(&[&sent]))
    })
}

impl Recent {
    /// Notes a call that is sent at `now_s` seconds since the Unix epoch, and tells which of its
    /// prefixes were sent before.
    pub fn note(&mut self, prefixes: &Prefixes, now_s: i64) -> Warmth {
        let was_sent = |prefix: Option<u64>| {
            let last = |prefix| self.now.get(&prefix).or_else(|| self.before.get(&prefix));
            let last = prefix.and_then(last);
            last.is_some_and(|last| now_s.saturating_sub(*last) <= LIFETIME_SECONDS)
        };
        let warmth = Warmth {
            tools: was_sent(prefixes.tools),
            system: was_sent(prefixes.system),
            turn: was_sent(prefixes.before),
        };
        let is_old = now_s.saturating_sub(self.since_s) > LIFETIME_SECONDS;
        if is_old || self.now.len() >= PREFIXES_MAX {
            self.before = std::mem::take(&mut self.now);
            self.since_s = now_s;
        }
        let sent = [prefixes.tools, prefixes.system, prefixes.turn];
        self.now
            .extend(sent.into_iter().flatten().map(|prefix| (prefix, now_s)));
        warmth
    }
}

/// Adds a segment to `sent` as it is sent, but for its markers.
fn as_sent(body: &[u8], segment: &Segment, edits: &[&Edit], sent: &mut Vec<u8>) {
    let own = &segment.range;
    let mut changes: Vec<_> = inside(segment, edits)
        .iter()
        .map(|edit| (&edit.range, &edit.replacement[..]))
        .collect();
    let marked = segment.marked();
    changes.extend(marked.iter().map(|range| (range, &[][..])));
    changes.sort_by_key(|(range, _)| range.start);
    let mut from = own.start;
    for (range, replacement) in changes {
        if range.start < from || range.end > own.end {
            continue;
        }
        sent.extend_from_slice(body.get(from..range.start).unwrap_or_default());
        sent.extend_from_slice(replacement);
        from = range.end;
    }
    sent.extend_from_slice(body.get(from..own.end).unwrap_or_default());
    sent.push(0);
}

/// The edits in a segment; all of them are in order.
fn inside<'a, 'b>(segment: &Segment, edits: &'a [&'b Edit]) -> &'a [&'b Edit] {
    let own = &segment.range;
    let first = edits.partition_point(|edit| edit.range.start < own.start);
    let edits = edits.get(first..).unwrap_or_default();
    let inside = edits.iter().take_while(|edit| edit.range.end <= own.end);
    edits.get(..inside.count()).unwrap_or_default()
}

fn half(hash: Fingerprint) -> u64 {
    u64::try_from(hash >> 64).unwrap_or(0)
}

/// Prefixes of a generation: three of a call at most, of about 40 bytes each.
const PREFIXES_MAX: usize = 1 << 16;
/// How long a cache holds what nobody reads, at least, in seconds.
pub(super) const LIFETIME_SECONDS: i64 = 300;
