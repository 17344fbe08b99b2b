//! Whether a turn has the prompt that a conversation began with.

use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::prompt::Section;

use super::Request;
use super::current::Current;

/// What a prompt says beside its values: hashes, and no text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Likeness {
    system: u64,
    /// Of the tools, in whatever order.
    tools: u64,
    /// The smallest hashes of lines of the system prompt: two prompts have many of them in common if
    /// they have many lines in common.
    lines: Vec<u32>,
}

impl Likeness {
    /// Of a prompt in which `found` are the values.
    pub(super) fn of(request: &Request<'_>, found: &[Current]) -> Self {
        let spans = found.iter().map(|now| &now.span);
        match request.head_with(spans) {
            Some(head) => head.likeness(|| Self::read(request, found)).clone(),
            None => Self::read(request, found),
        }
    }

    fn read(request: &Request<'_>, found: &[Current]) -> Self {
        let Request {
            body, prompt, key, ..
        } = *request;
        let (mut system, mut tools) = (Vec::new(), Vec::new());
        let before = prompt.segments.iter().enumerate();
        let before = before.filter(|(index, _)| request.untouchable != Some(*index));
        for (index, segment) in before.filter(|(_, s)| s.section != Section::Messages) {
            let whole = segment.text.as_ref().unwrap_or(&segment.range);
            let inside = found.iter().map(|now| &now.span);
            let mut from = whole.start;
            let mut pieces = Vec::new();
            for span in inside.filter(|span| span.segment == index) {
                pieces.push(body.get(from..span.range.start).unwrap_or_default());
                from = span.range.end;
            }
            pieces.push(body.get(from..whole.end).unwrap_or_default());
            match segment.section {
                Section::Tools => tools.push(key.hash(&pieces)),
                Section::System | Section::Messages => {
                    let lines = pieces.into_iter().flat_map(lines);
                    system.extend(lines.map(|line| key.hash(&[line])));
                }
            }
        }
        tools.sort_unstable();
        let all = |hashes: &[u128]| {
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect();
            u64::try_from(key.hash(&[&bytes]) >> 64).unwrap_or(0)
        };
        let short = |hash: &u128| u32::try_from(hash >> 96).unwrap_or(0);
        let mut lines: Vec<u32> = system.iter().map(short).collect();
        lines.sort_unstable();
        lines.dedup();
        lines.truncate(LINES);
        Self {
            system: all(&system),
            tools: all(&tools),
            lines,
        }
    }

    pub(super) const fn has_system_of(&self, other: &Self) -> bool {
        self.system == other.system
    }

    pub(super) const fn has_tools_of(&self, other: &Self) -> bool {
        self.tools == other.tools
    }

    /// Whether at least half of the system prompt is the same, about: a line may change that no rule
    /// knows.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        let shared = self.lines.iter().filter(|line| other.lines.contains(line));
        let most = self.lines.len().max(other.lines.len());
        shared.count().saturating_mul(2) >= most
    }

    /// Bytes that it holds, about.
    pub(super) const fn bytes(&self) -> usize {
        size_of::<Self>().saturating_add(self.lines.len().saturating_mul(size_of::<u32>()))
    }
}

/// The lines of a text as it stands in JSON, those without anything left out.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memmem::find_iter(text, br"\n").map(|at| at.saturating_add(2));
    let mut from = 0;
    let each = ends.chain([text.len()]).map(move |end| {
        let line = text.get(from..end).unwrap_or_default();
        from = end;
        line
    });
    each.filter(|line| line.iter().any(|byte| !matches!(byte, b' ' | b'"')) && *line != br"\n")
}

/// Hashes of lines that are kept of a prompt.
const LINES: usize = 16;
