//! Whether a value is part of what the system prompt tells the model to go by.
//!
//! "Token usage: 500 at most" reads like a figure that a machine put there, and is a limit; moved, it would
//! have no more authority than a user has. So the words of its sentence are looked at, and of the heading
//! over its line. The words are shapes of the rules (`duty`, `limit`), so a set from before there were any
//! finds what it always found, and conversations under way go on as they began.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Rule;
use super::file::expand;
use super::pattern::Pattern;

/// The words that make a value one to go by.
#[derive(Debug)]
pub(super) struct Guard {
    words: Arc<Pattern>,
    /// Whether the value itself may say them: text between tags is taken as it is.
    has_text: bool,
}

/// What guards the values of a built-in rule; `known` are the guards of rules before it.
pub(super) fn of(
    rule: &Rule,
    known: &mut BTreeMap<&'static str, Arc<Pattern>>,
    shapes: &BTreeMap<String, String>,
) -> Option<Guard> {
    let shape = match (rule.kind.as_str(), rule.name.as_str()) {
        ("files" | "git", _) => "duty",
        ("figures" | "host" | "version", _) | (_, "relative-time" | "process-id") => "limit",
        _ => return None,
    };
    let text = shapes.get(shape)?;
    let words = match known.get(shape) {
        Some(words) => Arc::clone(words),
        None => {
            let words = Arc::new(Pattern::new(expand(text, shapes)?));
            known.insert(shape, Arc::clone(&words));
            words
        }
    };
    Some(Guard {
        words,
        has_text: rule.kind == "files",
    })
}

impl Guard {
    /// Whether `value` is part of an instruction in `text`.
    pub(super) fn is_instruction(&self, text: &str, value: &Range<usize>) -> bool {
        let Ok(words) = self.words.ready() else {
            return false;
        };
        let (Some(before), Some(own), Some(behind)) = (
            text.get(..value.start),
            text.get(value.clone()),
            text.get(value.end..),
        ) else {
            return false;
        };
        let line = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
        let (above, beginning) = before.split_at(line);
        let beginning = sentence_from(beginning);
        let end = if own.ends_with('\n') {
            ""
        } else {
            sentence_to(behind)
        };
        let is_in = |part: &str| words.is_match(part);
        is_in(beginning)
            || is_in(end)
            || heading(above).is_some_and(is_in)
            || self.has_text && is_in(own)
    }
}

/// The sentence that a line ends in.
fn sentence_from(line: &str) -> &str {
    let end = [". ", "! ", "? ", "; "].iter();
    let start = end.filter_map(|end| line.rfind(end)).max();
    let start = start.map_or(0, |end| end.saturating_add(1));
    line.get(start..).unwrap_or_default()
}

/// The rest of a sentence, at most to the end of the line.
fn sentence_to(rest: &str) -> &str {
    let line = rest.lines().next().unwrap_or_default();
    let ends = [". ", "! ", "? ", ";"].iter();
    let end = ends.filter_map(|end| line.find(end)).min();
    line.get(..end.unwrap_or(line.len())).unwrap_or_default()
}

/// The line right over another, or over the fence of its block, that introduces it.
fn heading(above: &str) -> Option<&str> {
    let lines = above.trim_end_matches('\n').rsplit('\n');
    let line = lines.map(str::trim).find(|line| !line.starts_with("```"))?;
    let is_heading = line.starts_with('#') || line.ends_with(':');
    is_heading.then(|| sentence_from(line))
}
