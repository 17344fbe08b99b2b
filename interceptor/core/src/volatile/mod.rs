//! What changes in a prompt from one call to the next although nothing of substance did: dates, ids,
//! directories, figures.
//!
//! Rules are data (`rules.toml`, and `[[cache.rule]]` of the configuration). One search finds all
//! hints of all rules at once; a rule's pattern then sees a bounded piece of text around its hint,
//! so the cost is linear in the text whatever the patterns are. What it misses is what has no label
//! that it knows; `learned` is for that.

mod decoded;
mod file;
mod guard;
pub mod learned;
mod pattern;
#[cfg(test)]
mod tests;

use std::ops::Range;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use crate::prompt::{Prompt, Section, SegmentKind};
use decoded::Decoded;
use pattern::Pattern;

pub use file::{RawRule, RulesError};

/// A set of rules. A pattern is made ready when a text first has one of its hints.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    hints: AhoCorasick,
    /// Which rule each hint belongs to.
    owners: Vec<usize>,
    /// The text that the set was read from: equal texts find equal spans.
    source: String,
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// What the value is called, in records and in what the model reads.
    pub name: String,
    /// What kind of value it is, such as `date`.
    pub kind: String,
    /// What is done about it.
    pub transform: Transform,
    /// None for the rule of learned values, which are found by comparing prompts.
    pattern: Option<Pattern>,
    near: Option<AhoCorasick>,
    guard: Option<guard::Guard>,
    /// How far beyond its hint the pattern sees, in bytes.
    reach: usize,
}

/// What is done about a value that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// A reference stays where the value stood; the value is told in the conversation. The default:
    /// the prefix is the same in all conversations, and nothing is lost.
    #[default]
    Relocate,
    /// The value that the conversation began with stays where it stood; a change is told where it
    /// happened.
    Pin,
    /// As `Pin`, of the value without minutes and seconds.
    Coarsen,
    /// The value goes.
    Strip,
    /// Nothing: a rule of the built-in set that is not wanted.
    Keep,
}

impl Transform {
    /// The name in configuration and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relocate => "relocate",
            Self::Pin => "pin",
            Self::Coarsen => "coarsen",
            Self::Strip => "strip",
            Self::Keep => "keep",
        }
    }
}

/// A value that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The segment that it is in.
    pub segment: usize,
    /// Where its bytes are in the body: inside a JSON string, escapes as they came.
    pub range: Range<usize>,
    /// The index of the rule that found it, for [`Rules::rule`].
    pub rule: usize,
    /// What it is called in this prompt: the rule's name, with a number from the second on.
    pub name: String,
}

impl Rules {
    /// The rules that Weir comes with.
    ///
    /// # Errors
    ///
    /// Never: a test reads them.
    pub fn builtin() -> Result<Self, RulesError> {
        Self::parse("")
    }

    /// The rules that Weir comes with, and those of `more` in the same format. One of `more` with
    /// the name of a built-in rule that has no pattern changes the transform of all with that name.
    ///
    /// # Errors
    ///
    /// What is wrong with `more`.
    pub fn parse(more: &str) -> Result<Self, RulesError> {
        file::parse(BUILTIN, more)
    }

    /// A set from the text that [`Self::source`] gave.
    ///
    /// # Errors
    ///
    /// If it is another text.
    pub fn from_source(source: &str) -> Result<Self, RulesError> {
        file::from_source(source)
    }

    /// Makes all patterns ready, so that no text waits for that: some 100 ms, and 6 MiB of memory.
    pub fn make_ready(&self) {
        for rule in &self.rules {
            // One that is none finds nothing, and was told where the rules were read.
            let _ready = rule.pattern.as_ref().map(Pattern::ready);
            let _ready = rule.guard.as_ref().map(|guard| guard.pattern().ready());
        }
    }

    /// The text that says all of the set.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// A rule by its index.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<&Rule> {
        self.rules.get(index)
    }

    /// The index of the rule that stands for all learned values; none in sets that know none.
    #[must_use]
    pub fn learned(&self) -> Option<usize> {
        self.rules
            .iter()
            .position(|rule| rule.name == learned::RULE && rule.pattern.is_none())
    }

    /// All rules.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// The values in the system prompt and in the descriptions of tools that change, in the order
    /// of the body. `skip` names a segment that nobody may touch.
    #[must_use]
    pub fn find(&self, body: &[u8], prompt: &Prompt, skip: Option<usize>) -> Vec<Span> {
        let mut spans = Vec::new();
        let segments = prompt.segments.iter().enumerate();
        let before_messages = segments.take_while(|(_, s)| s.section != Section::Messages);
        for (index, segment) in before_messages {
            let readable = matches!(segment.kind, SegmentKind::Text | SegmentKind::Tool);
            let Some(text) = segment.text.as_ref().filter(|_| readable) else {
                continue;
            };
            if Some(index) == skip {
                continue;
            }
            if let Some(decoded) = Decoded::new(body, text) {
                let found = self.find_in_text(&decoded.text);
                spans.extend(found.into_iter().map(|(range, rule)| Span {
                    segment: index,
                    range: decoded.in_body(&range),
                    rule,
                    name: String::new(),
                }));
            }
        }
        self.name_all(&mut spans);
        spans
    }

    /// The values in a text, in order, without overlaps.
    #[must_use]
    pub fn find_in_text(&self, text: &str) -> Vec<(Range<usize>, usize)> {
        let mut found: Vec<(Range<usize>, usize)> = Vec::new();
        let mut tried = vec![0_usize; self.rules.len()];
        let mut done = vec![0_usize; self.rules.len()];
        for hint in self.hints.find_overlapping_iter(text) {
            let Some(index) = self.owners.get(hint.pattern().as_usize()).copied() else {
                continue;
            };
            let (Some(rule), Some(tried), Some(done)) = (
                self.rules.get(index),
                tried.get_mut(index),
                done.get_mut(index),
            ) else {
                continue;
            };
            if *tried >= TRIES_MAX || hint.start() < *done || rule.transform == Transform::Keep {
                continue;
            }
            *tried = tried.saturating_add(1);
            if let Some(value) = rule.value(text, hint.start()..hint.end()) {
                *done = value.end;
                found.push((value, index));
            }
        }
        found.sort_by_key(|(range, rule)| (range.start, std::cmp::Reverse(range.end), *rule));
        let mut end = 0;
        found.retain(|(range, _)| {
            let keep = range.start >= end;
            if keep {
                end = range.end;
            }
            keep
        });
        found
    }

    fn name_all(&self, spans: &mut [Span]) {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for span in spans {
            let name = self.rules.get(span.rule).map_or("", |rule| &rule.name);
            let count = match counts.iter_mut().find(|(seen, _)| *seen == name) {
                Some((_, count)) => {
                    *count = count.saturating_add(1);
                    *count
                }
                None => {
                    counts.push((name, 1));
                    1
                }
            };
            span.name = if count == 1 {
                name.to_owned()
            } else {
                format!("{name}-{count}")
            };
        }
    }
}

impl Rule {
    /// The value near a hint, if the pattern finds one.
    fn value(&self, text: &str, hint: Range<usize>) -> Option<Range<usize>> {
        if let Some(near) = &self.near {
            let around = window(text, hint.start, NEAR_BYTES, hint.end, NEAR_BYTES);
            near.find(text.get(around)?)?;
        }
        let around = window(text, hint.start, BACK_BYTES, hint.end, self.reach);
        let line = text.get(around.start..hint.start)?.rfind('\n');
        let line = line.map_or(0, |newline| newline.saturating_add(1));
        let start = around.start.checked_add(line)?;
        let seen = text.get(start..around.end)?;
        let pattern = self.pattern.as_ref()?.ready().ok()?;
        for captures in pattern.captures_iter(seen).take(MATCHES_MAX) {
            let (whole, value) = (captures.get(0)?, captures.name("value")?);
            let from = start.checked_add(whole.start())?;
            let to = start.checked_add(whole.end())?;
            if from > hint.end {
                return None;
            }
            if to <= hint.start {
                continue;
            }
            let is_ours = value.as_str().contains(REFERENCE_OPEN);
            if value.is_empty() || is_ours {
                return None;
            }
            let value = start.checked_add(value.start())?..start.checked_add(value.end())?;
            let is_told = |guard: &guard::Guard| guard.is_instruction(text, &value);
            if self.guard.as_ref().is_some_and(is_told) {
                return None;
            }
            return Some(value);
        }
        None
    }
}

/// The range from at most `back` bytes before `start` to at most `ahead` behind `end`, cut between
/// characters.
fn window(text: &str, start: usize, back: usize, end: usize, ahead: usize) -> Range<usize> {
    let mut from = start.saturating_sub(back);
    while from > 0 && !text.is_char_boundary(from) {
        from = from.saturating_sub(1);
    }
    let mut to = end.saturating_add(ahead).min(text.len());
    while to < text.len() && !text.is_char_boundary(to) {
        to = to.saturating_add(1);
    }
    from..to
}

/// How a reference begins that stands where a value stood: `[see <name> in <context_values>]`.
pub const REFERENCE_OPEN: &str = "[see <";
const BUILTIN: &str = concat!(include_str!("rules.toml"), include_str!("guard.toml"));
/// How far a pattern sees beyond its hint where the rule does not say, in bytes.
const REACH_BYTES: usize = 320;
/// How far a pattern sees before its hint, at most to the start of the line, in bytes.
const BACK_BYTES: usize = 160;
/// Within how many bytes of its hint a rule looks for its `near`.
const NEAR_BYTES: usize = 600;
/// Hints of one rule that are tried in one text; beyond, the text is about such values.
const TRIES_MAX: usize = 64;
/// Matches of a pattern before its hint that are passed.
const MATCHES_MAX: usize = 8;
