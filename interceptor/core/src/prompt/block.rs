//! A block of a prompt: what it is, its text, its breakpoint.

use std::ops::Range;

use crate::json::{Kind, Malformed, Scanner, Value};

use super::{Lifetime, Marker, Section, Segment, SegmentKind};

/// A segment that is nothing but a string.
pub(super) fn string(range: Range<usize>, section: Section) -> Segment {
    Segment {
        section,
        kind: SegmentKind::Text,
        message: None,
        range: range.clone(),
        text: Some(range),
        marker: None,
        inner: Vec::new(),
        deferred: false,
        plain: true,
    }
}

/// Reads a block and adds it to `found`. A cache point in a block of its own (Converse) becomes
/// the marker of the block before; where there is none that could have it, it stays by itself.
pub(super) fn read(
    scanner: &mut Scanner<'_>,
    body: &[u8],
    section: Section,
    found: &mut Vec<Segment>,
) -> Result<(), Malformed> {
    if scanner.kind()? != Kind::Object {
        let value = scanner.value()?;
        found.push(match value.kind {
            Kind::String => string(value.range, section),
            _ => other(value.range, section),
        });
        return Ok(());
    }
    let mut seen = Seen::default();
    let range = scanner.members(|scanner, key, name| seen.member(scanner, body, &key, name))?;
    if let Some(lifetime) = seen.cache_point {
        let marker = Some(Marker {
            member: range.clone(),
            lifetime,
        });
        match found.last_mut().filter(|before| before.marker.is_none()) {
            Some(before) => before.marker = marker,
            None => found.push(Segment {
                marker,
                ..other(range, section)
            }),
        }
        return Ok(());
    }
    let kind = match section {
        Section::Tools => SegmentKind::Tool,
        Section::System | Section::Messages => seen.kind(),
    };
    found.push(Segment {
        section,
        kind,
        message: None,
        range,
        text: match kind {
            SegmentKind::Text => seen.text,
            SegmentKind::Tool => seen.description,
            SegmentKind::ToolUse
            | SegmentKind::ToolResult
            | SegmentKind::Media
            | SegmentKind::Thinking
            | SegmentKind::Other => None,
        },
        marker: seen.marker,
        inner: seen.inner,
        deferred: kind == SegmentKind::Tool && seen.is_deferred,
        plain: kind == SegmentKind::Text && !seen.has_more,
    });
    Ok(())
}

/// Reads the value of `cache_control` or the like, of the member whose key is at `key`.
pub(super) fn marker(
    scanner: &mut Scanner<'_>,
    body: &[u8],
    key: &Range<usize>,
) -> Result<Option<Marker>, Malformed> {
    let Value { kind, range } = scanner.value()?;
    let value = body.get(range.clone()).unwrap_or_default();
    Ok((kind == Kind::Object).then(|| Marker {
        member: with_comma(body, key.start.saturating_sub(1)..range.end),
        lifetime: lifetime(value),
    }))
}

/// Adds the markers inside of a block's content to `found`: those of what a tool gave back, and of the
/// parts of documents and search results, however deep. Only `content` and `source` are entered:
/// what is called `cache_control` in the arguments of a tool or in its schema is none.
fn inside(
    scanner: &mut Scanner<'_>,
    body: &[u8],
    found: &mut Vec<Marker>,
) -> Result<(), Malformed> {
    match scanner.kind()? {
        Kind::Array => scanner
            .elements(|scanner| inside(scanner, body, found))
            .map(drop),
        Kind::Object => {
            let mut point = None;
            let range = scanner.members(|scanner, key, name| {
                match name {
                    b"cache_control" => found.extend(marker(scanner, body, &key)?),
                    b"cachePoint" => {
                        let value = body.get(scanner.value()?.range).unwrap_or_default();
                        point = Some(lifetime(value));
                    }
                    b"content" | b"source" => inside(scanner, body, found)?,
                    _ => {}
                }
                Ok::<(), Malformed>(())
            })?;
            found.extend(point.map(|lifetime| Marker {
                member: with_comma(body, range),
                lifetime,
            }));
            Ok(())
        }
        Kind::String | Kind::Number | Kind::True | Kind::False | Kind::Null => {
            scanner.value().map(drop)
        }
    }
}

/// Of the value of a marker. Only the lifetimes of an hour and more have an `h` in their name.
pub(crate) fn lifetime(value: &[u8]) -> Lifetime {
    let long = [&br#""1h""#[..], br#""12h""#, br#""24h""#];
    let is_long = long
        .iter()
        .any(|name| memchr::memmem::find(value, name).is_some());
    if is_long {
        Lifetime::Long
    } else {
        Lifetime::Short
    }
}

/// A member or element and the comma before it or, where it is the first, the comma behind it: what
/// has to go for the rest to stay well-formed without it.
#[must_use]
pub fn with_comma(body: &[u8], member: Range<usize>) -> Range<usize> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let before = body.get(..member.start).unwrap_or_default();
    let before = before.iter().rposition(|byte| !blank(byte));
    if let Some(comma) = before.filter(|at| body.get(*at) == Some(&b',')) {
        let rest = body.get(..comma).unwrap_or_default();
        let blanks = rest.iter().rev().take_while(|byte| blank(byte)).count();
        return comma.saturating_sub(blanks)..member.end;
    }
    let behind = body.get(member.end..).unwrap_or_default();
    let comma = behind.iter().position(|byte| !blank(byte));
    match comma.filter(|at| behind.get(*at) == Some(&b',')) {
        Some(comma) => {
            let rest = behind.get(comma.saturating_add(1)..).unwrap_or_default();
            let blanks = rest.iter().take_while(|byte| blank(byte)).count();
            let passed = comma.saturating_add(1).saturating_add(blanks);
            member.start..member.end.saturating_add(passed)
        }
        None => member,
    }
}

fn other(range: Range<usize>, section: Section) -> Segment {
    Segment {
        kind: SegmentKind::Other,
        text: None,
        plain: false,
        ..string(range, section)
    }
}

/// What was seen of the members of a block.
#[derive(Default)]
struct Seen {
    /// By the member `type`, or by the member that there is in its stead.
    named: Option<SegmentKind>,
    implied: Option<SegmentKind>,
    text: Option<Range<usize>>,
    description: Option<Range<usize>>,
    marker: Option<Marker>,
    inner: Vec<Marker>,
    cache_point: Option<Lifetime>,
    is_thought: bool,
    is_deferred: bool,
    /// Members besides type, text and marker.
    has_more: bool,
}

impl Seen {
    fn member(
        &mut self,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &Range<usize>,
        name: &[u8],
    ) -> Result<(), Malformed> {
        match name {
            b"type" => self.named = kind_of(body.get(scanner.value()?.range)),
            b"text" => {
                let value = scanner.value()?;
                self.text = (value.kind == Kind::String).then_some(value.range);
            }
            b"cache_control" | b"prompt_cache_breakpoint" => {
                self.marker = marker(scanner, body, key)?;
            }
            b"cachePoint" => {
                let value = body.get(scanner.value()?.range).unwrap_or_default();
                self.cache_point = Some(lifetime(value));
            }
            _ => {
                self.has_more = true;
                self.more(scanner, body, name)?;
            }
        }
        Ok(())
    }

    fn more(
        &mut self,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        name: &[u8],
    ) -> Result<(), Malformed> {
        match name {
            b"description" => {
                let value = scanner.value()?;
                self.description = (value.kind == Kind::String).then_some(value.range);
            }
            // The definition itself, in Chat Completions and Converse.
            b"function" | b"toolSpec" if scanner.kind()? == Kind::Object => {
                scanner.members(|scanner, _, name| {
                    if name == b"description" {
                        let value = scanner.value()?;
                        self.description = (value.kind == Kind::String).then_some(value.range);
                    }
                    Ok::<(), Malformed>(())
                })?;
            }
            b"defer_loading" => self.is_deferred |= scanner.value()?.kind == Kind::True,
            // The same for the tools of a server, one by one or all of them, and in an older shape.
            b"default_config" | b"configs" | b"custom" => {
                let value = body.get(scanner.value()?.range).unwrap_or_default();
                self.is_deferred |= memchr::memmem::find(value, br#""defer_loading""#).is_some();
            }
            b"thought" => self.is_thought = scanner.value()?.kind == Kind::True,
            b"toolUse" | b"functionCall" => self.implied = Some(SegmentKind::ToolUse),
            b"content" | b"source" => inside(scanner, body, &mut self.inner)?,
            b"toolResult" => {
                self.implied = Some(SegmentKind::ToolResult);
                inside(scanner, body, &mut self.inner)?;
            }
            b"functionResponse" => self.implied = Some(SegmentKind::ToolResult),
            b"reasoningContent" => self.implied = Some(SegmentKind::Thinking),
            b"image" | b"document" | b"video" | b"inlineData" | b"fileData" => {
                self.implied = Some(SegmentKind::Media);
            }
            _ => {}
        }
        Ok(())
    }

    fn kind(&self) -> SegmentKind {
        if self.is_thought {
            return SegmentKind::Thinking;
        }
        let by_text = || self.text.as_ref().map(|_| SegmentKind::Text);
        self.named
            .or(self.implied)
            .or_else(by_text)
            .unwrap_or(SegmentKind::Other)
    }
}

fn kind_of(name: Option<&[u8]>) -> Option<SegmentKind> {
    let name = name?.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(match name {
        b"text" | b"input_text" | b"output_text" => SegmentKind::Text,
        b"thinking" | b"redacted_thinking" | b"reasoning" => SegmentKind::Thinking,
        b"tool_use" | b"server_tool_use" | b"mcp_tool_use" | b"function_call" => {
            SegmentKind::ToolUse
        }
        b"image" | b"document" | b"image_url" | b"input_image" | b"input_audio" | b"input_file"
        | b"file" | b"video" => SegmentKind::Media,
        name if name.ends_with(b"_result") => SegmentKind::ToolResult,
        _ => SegmentKind::Other,
    })
}
