//! The prompt of a call in the order in which providers cache it: tools, system, messages, as
//! segments with byte ranges of the body.
//!
//! The walk goes by the names of members, not by API: `tools`, `system`, `instructions`,
//! `systemInstruction`, `messages`, `input`, `contents` and the like mean the same wherever they
//! occur, so one reader serves every dialect. What has an unexpected shape becomes a segment of
//! kind [`SegmentKind::Other`], which nobody edits.

mod block;
mod fingerprint;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::json::{Kind, Malformed, Member, Scanner};

pub(crate) use block::lifetime;
pub use block::with_comma;
pub use fingerprint::{Fingerprint, HashKey};

/// A prompt. Ranges are byte ranges of the body that it was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Everything that the model reads, in cache order.
    pub segments: Vec<Segment>,
    /// The messages or items in order, leading system messages included.
    pub messages: Vec<Message>,
    /// The breakpoint that a top-level `cache_control` asks for.
    pub automatic: Option<Marker>,
    /// Whether `cachedContent` stands for a part of the prompt that the provider holds (Gemini).
    pub cached_content: bool,
    /// Where the value of the member `prompt_cache_key` is.
    pub cache_key: Option<Range<usize>>,
    /// Where the value of the member `provider` is (`OpenRouter`).
    pub provider: Option<Range<usize>>,
    /// The first members that are none of these: parameters of the call.
    pub others: Vec<Member>,
    /// Where the body's object opens: behind its `{`.
    pub opening: usize,
}

/// The parts of a prompt in the order in which they are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Definitions of tools.
    Tools,
    /// The system prompt, leading system and developer messages included.
    System,
    /// The conversation.
    Messages,
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// Text that the application wrote or the model answered.
    Text,
    /// The definition of a tool.
    Tool,
    /// A call of a tool.
    ToolUse,
    /// What a tool gave back.
    ToolResult,
    /// An image, a document, a recording.
    Media,
    /// Reasoning of the model, often signed.
    Thinking,
    /// Anything else.
    Other,
}

/// A piece of the prompt: a tool, a block of the system prompt, a block of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which part it belongs to.
    pub section: Section,
    /// What it is.
    pub kind: SegmentKind,
    /// The message that it is in; none for tools and a system prompt of its own.
    pub message: Option<usize>,
    /// All of it.
    pub range: Range<usize>,
    /// Its text as a JSON string with quotes: of a text, of a tool's description, of a result.
    pub text: Option<Range<usize>>,
    /// The cache breakpoint that stands on it.
    pub marker: Option<Marker>,
    /// The breakpoints inside of its content, such as on a text that a tool gave back.
    pub inner: Vec<Marker>,
    /// Whether it is a tool that the model is shown only once it searched for it: providers refuse a
    /// breakpoint on it.
    pub deferred: bool,
    /// Whether it is a text and nothing else, so that string and block mean the same.
    pub plain: bool,
}

/// An explicit cache breakpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The member or block that sets it, with the comma that would go with it.
    pub member: Range<usize>,
    /// How long what it writes is kept.
    pub lifetime: Lifetime,
}

/// How long a provider keeps what a breakpoint writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lifetime {
    /// Five minutes, or what the provider takes where nothing is said.
    Short,
    /// An hour or more.
    Long,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `system` and `developer`.
    System,
    /// The application.
    User,
    /// The model.
    Assistant,
    /// The application, with what a tool gave back.
    Tool,
}

/// A message or item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// All of it.
    pub range: Range<usize>,
    /// The value of its content: a string or an array of blocks.
    pub content: Option<Range<usize>>,
    /// Which of the segments are its own.
    pub segments: Range<usize>,
    /// Whether it has nothing beside role and content.
    pub plain: bool,
}

impl Role {
    /// The usual name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl Segment {
    /// All breakpoints on it and inside of it.
    pub fn markers(&self) -> impl Iterator<Item = &Marker> {
        self.inner.iter().chain(&self.marker)
    }

    /// How long what a breakpoint here writes is kept. One inside counts as one on all of it.
    #[must_use]
    pub fn breakpoint(&self) -> Option<Lifetime> {
        self.markers().last().map(|marker| marker.lifetime)
    }
}

impl Prompt {
    /// The segments of a message.
    #[must_use]
    pub fn segments_of(&self, message: &Message) -> &[Segment] {
        self.segments
            .get(message.segments.clone())
            .unwrap_or_default()
    }

    /// How many breakpoints are set, wherever they stand, the automatic one included.
    #[must_use]
    pub fn markers(&self) -> usize {
        let explicit = self.segments.iter().flat_map(Segment::markers);
        explicit
            .count()
            .saturating_add(usize::from(self.automatic.is_some()))
    }
}

/// Reads the prompt of a body. Of members with the same name the last counts.
///
/// # Errors
///
/// Where the body is not a well-formed object.
pub fn read(body: &[u8]) -> Result<Prompt, Malformed> {
    let mut scanner = Scanner::new(body);
    let mut prompt = Prompt::default();
    let (mut tools, mut system) = (Vec::new(), Vec::new());
    let mut messages = Vec::new();
    let whole = scanner.members(|scanner, key, name| {
        match name {
            b"tools" | b"functions" => tools = segments(scanner, body, Section::Tools)?,
            b"toolConfig" => tools = tool_configuration(scanner, body)?,
            b"system" | b"instructions" | b"systemInstruction" | b"system_instruction" => {
                system = segments(scanner, body, Section::System)?;
            }
            b"messages" | b"input" | b"contents" => messages = read_messages(scanner, body)?,
            b"cache_control" => {
                prompt.automatic = block::marker(scanner, body, &key)?;
            }
            b"cachedContent" | b"cached_content" => {
                prompt.cached_content = scanner.value()?.kind == Kind::String;
            }
            b"prompt_cache_key" => prompt.cache_key = Some(scanner.value()?.range),
            b"provider" => prompt.provider = Some(scanner.value()?.range),
            _ if prompt.others.len() < OTHERS_MAX => {
                let value = scanner.value()?;
                prompt.others.push(Member { key, value });
            }
            _ => {}
        }
        Ok::<(), Malformed>(())
    })?;
    scanner.end()?;
    prompt.opening = whole.start.saturating_add(1);
    prompt.segments = tools;
    prompt.segments.append(&mut system);
    for (index, (mut message, mut blocks)) in in_lead(messages).enumerate() {
        let from = prompt.segments.len();
        blocks
            .iter_mut()
            .for_each(|segment| segment.message = Some(index));
        prompt.segments.append(&mut blocks);
        message.segments = from..prompt.segments.len();
        prompt.messages.push(message);
    }
    Ok(prompt)
}

/// Members of a body that are noted beside the prompt: APIs know about thirty.
const OTHERS_MAX: usize = 128;

/// A message with its segments.
type Parts = (Message, Vec<Segment>);

/// Puts system messages that come before all others into the section of the system prompt.
fn in_lead(messages: Vec<Parts>) -> impl Iterator<Item = Parts> {
    let mut leads = true;
    messages.into_iter().map(move |(message, mut segments)| {
        leads &= message.role == Role::System;
        if leads {
            segments
                .iter_mut()
                .for_each(|segment| segment.section = Section::System);
        }
        (message, segments)
    })
}

/// A string, an array of blocks, or an object with such an array (`parts` of Gemini).
fn segments(
    scanner: &mut Scanner<'_>,
    body: &[u8],
    section: Section,
) -> Result<Vec<Segment>, Malformed> {
    let mut found = Vec::new();
    match scanner.kind()? {
        Kind::String => found.push(block::string(scanner.value()?.range, section)),
        Kind::Array => {
            scanner.elements(|scanner| block::read(scanner, body, section, &mut found))?;
        }
        Kind::Object => {
            scanner.members(|scanner, _, name| {
                if name == b"parts" {
                    found = segments(scanner, body, section)?;
                }
                Ok::<(), Malformed>(())
            })?;
        }
        Kind::Number | Kind::True | Kind::False | Kind::Null => {
            scanner.value()?;
        }
    }
    Ok(found)
}

/// `toolConfig` of Bedrock Converse, which holds the tools. That of Gemini holds none.
fn tool_configuration(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Vec<Segment>, Malformed> {
    let mut found = Vec::new();
    if scanner.kind()? == Kind::Object {
        scanner.members(|scanner, _, name| {
            if name == b"tools" {
                found = segments(scanner, body, Section::Tools)?;
            }
            Ok::<(), Malformed>(())
        })?;
    }
    Ok(found)
}

fn read_messages(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Vec<Parts>, Malformed> {
    let mut messages = Vec::new();
    match scanner.kind()? {
        Kind::Array => {
            scanner.elements(|scanner| {
                messages.push(read_message(scanner, body)?);
                Ok::<(), Malformed>(())
            })?;
        }
        Kind::String => {
            let range = scanner.value()?.range;
            messages.push(of_string(range));
        }
        Kind::Object | Kind::Number | Kind::True | Kind::False | Kind::Null => {
            scanner.value()?;
        }
    }
    Ok(messages)
}

/// An input that is nothing but a string (Responses).
fn of_string(range: Range<usize>) -> Parts {
    let message = Message {
        role: Role::User,
        range: range.clone(),
        content: Some(range.clone()),
        segments: 0..0,
        plain: true,
    };
    (message, vec![block::string(range, Section::Messages)])
}

fn read_message(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Parts, Malformed> {
    if scanner.kind()? == Kind::String {
        return Ok(of_string(scanner.value()?.range));
    }
    let (mut role, mut item) = (None, None);
    let (mut content, mut found) = (None, Vec::new());
    let mut plain = true;
    let range = if scanner.kind()? == Kind::Object {
        scanner.members(|scanner, _, name| {
            match name {
                b"role" => role = role_of(body.get(scanner.value()?.range)),
                b"type" => item = body.get(scanner.value()?.range),
                b"content" | b"parts" | b"output" => {
                    scanner.kind()?;
                    let start = scanner.at();
                    found = segments(scanner, body, Section::Messages)?;
                    content = Some(start..scanner.at());
                }
                _ => plain = false,
            }
            Ok::<(), Malformed>(())
        })?
    } else {
        scanner.value()?.range
    };
    let role = role.unwrap_or_else(|| role_of_item(item));
    if role == Role::Tool {
        for segment in &mut found {
            segment.kind = SegmentKind::ToolResult;
        }
    }
    let message = Message {
        role,
        range,
        content,
        segments: 0..0,
        plain,
    };
    Ok((message, found))
}

fn role_of(name: Option<&[u8]>) -> Option<Role> {
    match name? {
        br#""system""# | br#""developer""# => Some(Role::System),
        br#""user""# => Some(Role::User),
        br#""assistant""# | br#""model""# => Some(Role::Assistant),
        br#""tool""# | br#""function""# => Some(Role::Tool),
        _ => None,
    }
}

/// Items of Responses without a role: what a tool gave back comes from the application.
fn role_of_item(name: Option<&[u8]>) -> Role {
    match name {
        Some(name) if name.ends_with(br#"_output""#) => Role::Tool,
        _ => Role::Assistant,
    }
}
