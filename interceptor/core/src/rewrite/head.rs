//! What the tools and the system prompt of a call show, remembered: the next call mostly has the same.
//!
//! A head is known by a keyed hash of all its bytes, and everything of it is told by places in its
//! segments, so that it is good for each body that begins alike. Who does not have the key can't make
//! two that are taken for one another; and what is remembered is hashes, places and names, no text.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::prompt::{Fingerprint, Prompt};
use crate::volatile::learned::Units;
use crate::volatile::{Rules, Span};

use super::breakpoints::family;
use super::likeness::Likeness;
use super::tools::Shape;
use super::{Request, RulesId};

/// What was read of tools and a system prompt. What is not asked for is not read.
#[derive(Debug)]
pub struct Head {
    rules: Arc<Rules>,
    /// What the rules found.
    found: Vec<Placed>,
    shapes: OnceLock<Vec<Shape>>,
    likeness: OnceLock<Likeness>,
    family: OnceLock<u128>,
    units: OnceLock<Arc<[u64]>>,
    sections: OnceLock<Sections>,
}

/// The hashes of tools and system prompt as they are sent where nothing in them is edited; none of what
/// there is none.
pub(super) type Sections = [Option<Fingerprint>; 2];

/// A value, by its place in its segment.
#[derive(Debug)]
struct Placed {
    segment: usize,
    range: Range<usize>,
    rule: usize,
    name: String,
}

impl Head {
    /// The name of the head of a call: a hash of all that [`Self::read`] depends on, under `rules`.
    #[must_use]
    pub fn name(call: &Request<'_>, rules: RulesId) -> Fingerprint {
        let of = [&b"head"[..], &rules.to_le_bytes()];
        call.prompt.head(call.body, call.untouchable, call.key, &of)
    }

    /// Reads the head of a call by `rules`.
    #[must_use]
    pub fn read(call: &Request<'_>, rules: &Arc<Rules>) -> Self {
        let spans = rules.find(call.body, call.prompt, call.untouchable);
        let spans = spans.into_iter();
        let placed = spans.filter_map(|span| {
            Some(Placed {
                segment: span.segment,
                range: placed(call.prompt, &span)?,
                rule: span.rule,
                name: span.name,
            })
        });
        Self {
            rules: Arc::clone(rules),
            found: placed.collect(),
            shapes: OnceLock::new(),
            likeness: OnceLock::new(),
            family: OnceLock::new(),
            units: OnceLock::new(),
            sections: OnceLock::new(),
        }
    }

    /// The values in a prompt that begins so.
    fn spans(&self, prompt: &Prompt) -> Vec<Span> {
        let each = self.found.iter().filter_map(|placed| {
            let start = prompt.segments.get(placed.segment)?.range.start;
            Some(Span {
                segment: placed.segment,
                range: start.checked_add(placed.range.start)?
                    ..start.checked_add(placed.range.end)?,
                rule: placed.rule,
                name: placed.name.clone(),
            })
        });
        each.collect()
    }

    /// Whether `spans` are the values in a prompt that begins so.
    fn has<'a>(&self, prompt: &Prompt, spans: impl Iterator<Item = &'a Span>) -> bool {
        let of = |span: &Span| Some((span.segment, placed(prompt, span)?));
        let found = self.found.iter();
        found
            .map(|placed| Some((placed.segment, placed.range.clone())))
            .eq(spans.map(of))
    }

    pub(super) fn shapes(&self, read: impl FnOnce() -> Vec<Shape>) -> &[Shape] {
        self.shapes.get_or_init(read)
    }

    pub(super) fn likeness(&self, read: impl FnOnce() -> Likeness) -> &Likeness {
        self.likeness.get_or_init(read)
    }

    pub(super) fn sections(&self, read: impl FnOnce() -> Sections) -> &Sections {
        self.sections.get_or_init(read)
    }

    /// Bytes that it holds, about.
    fn bytes(&self) -> usize {
        let values = self.found.iter().map(|placed| placed.name.len());
        let values = values.map(|name| size_of::<Placed>().saturating_add(name));
        let shapes = self.shapes.get().into_iter().flatten().map(Shape::bytes);
        let likeness = self.likeness.get().map(Likeness::bytes);
        let units = self.units.get().map(|units| size_of_val(&**units));
        let parts = values.chain(shapes).chain(likeness).chain(units);
        parts.fold(size_of::<Self>(), usize::saturating_add)
    }
}

impl Request<'_> {
    /// The values that rules find.
    pub(super) fn spans(&self, rules: &Rules) -> Vec<Span> {
        let head = self.head.filter(|head| std::ptr::eq(&*head.rules, rules));
        match head {
            Some(head) => head.spans(self.prompt),
            None => rules.find(self.body, self.prompt, self.untouchable),
        }
    }

    /// What is remembered of its head, if `spans` are the values that it is remembered with.
    pub(super) fn head_with<'a>(&self, spans: impl Iterator<Item = &'a Span>) -> Option<&Head> {
        self.head.filter(|head| head.has(self.prompt, spans))
    }

    /// The units of its system prompt, in which `known` are the values that rules know.
    #[must_use]
    pub fn units<'a>(&'a self, known: &'a [Span]) -> Units<'a> {
        let of = (self.body, self.prompt);
        let read = || Units::of(self.body, self.prompt, self.untouchable, known, self.key);
        let Some(head) = self.head_with(known.iter()) else {
            return read();
        };
        match head.units.get() {
            Some(units) => Units::again(Arc::clone(units), of, self.untouchable, known, self.key),
            None => {
                let units = read();
                let _hashes = head.units.get_or_init(|| Arc::clone(units.hashes()));
                units
            }
        }
    }

    /// The prompt of its workload: tools and system prompt without the values that change.
    #[must_use]
    pub fn family(&self, spans: &[Span]) -> u128 {
        let read = || family((self.body, self.prompt), self.untouchable, spans, self.key);
        match self.head_with(spans.iter()) {
            Some(head) => *head.family.get_or_init(read),
            None => read(),
        }
    }
}

/// Where a value is in its segment.
fn placed(prompt: &Prompt, span: &Span) -> Option<Range<usize>> {
    let start = prompt.segments.get(span.segment)?.range.start;
    Some(span.range.start.checked_sub(start)?..span.range.end.checked_sub(start)?)
}

/// The heads that were read lately: two generations, each of at most [`HEADS_BYTES_MAX`].
#[derive(Debug, Default)]
pub struct Heads {
    now: HashMap<Fingerprint, Kept>,
    before: HashMap<Fingerprint, Kept>,
    /// Of those of now, as they are counted.
    bytes: usize,
}

/// A head, and the bytes that it held when it was kept last.
#[derive(Debug)]
struct Kept {
    head: Arc<Head>,
    bytes: usize,
}

impl Heads {
    /// The head with a name, if it is remembered.
    #[must_use]
    pub fn get(&self, name: Fingerprint) -> Option<Arc<Head>> {
        let kept = match self.now.get(&name) {
            Some(kept) => kept,
            None => self.before.get(&name)?,
        };
        Some(Arc::clone(&kept.head))
    }

    /// Remembers a head as it is once a call is done with it: then all is read that was asked for.
    pub fn keep(&mut self, name: Fingerprint, head: Arc<Head>) {
        let bytes = head.bytes();
        if let Some(kept) = self.now.get_mut(&name)
            && kept.bytes == bytes
        {
            return;
        }
        self.before.remove(&name);
        let counted = self.now.remove(&name).map_or(0, |kept| kept.bytes);
        self.bytes = self.bytes.saturating_sub(counted);
        if bytes > HEADS_BYTES_MAX {
            return;
        }
        if self.bytes.saturating_add(bytes) > HEADS_BYTES_MAX {
            self.before = std::mem::take(&mut self.now);
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.now.insert(name, Kept { head, bytes });
    }

    /// Bytes that all of them hold, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let all = self.now.values().chain(self.before.values());
        let all = all.map(|kept| kept.head.bytes());
        all.fold(0, usize::saturating_add)
    }
}

/// Bytes of a generation of heads, about: hundreds of usual ones.
pub const HEADS_BYTES_MAX: usize = 1 << 20;
