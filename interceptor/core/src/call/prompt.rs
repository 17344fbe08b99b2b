//! The sections of a prompt: where their parts are, how much of them is text, what is media.

use std::ops::Range;

use crate::api::Api;
use crate::json::{Kind, Scanner};

use super::{Unreadable, object, shape};

/// The system prompt, the tools or the messages of a call.
#[derive(Default)]
pub(super) struct Section {
    /// Where each part is.
    pub(super) parts: Vec<Range<usize>>,
    /// How many parts at the beginning are messages of roles `system` and `developer`.
    pub(super) leading_system: usize,
    /// Bytes of all parts, without embedded media.
    pub(super) text_bytes: u64,
    /// Pieces of media.
    pub(super) media: u64,
    /// Explicit cache breakpoints.
    pub(super) cache_breakpoints: u64,
}

/// Reads a system prompt: a string, or an array of blocks.
pub(super) fn system(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Section, Unreadable> {
    let kinds = [Kind::String, Kind::Array, Kind::Null];
    shape(scanner, &kinds, "a string or an array as the system prompt")?;
    parts(scanner, body, |_| {})
}

/// Reads an array of tools.
pub(super) fn tools(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Section, Unreadable> {
    shape(scanner, &[Kind::Array, Kind::Null], "an array of tools")?;
    parts(scanner, body, |_| {})
}

/// Reads the messages: an array, and for some APIs also a string or a single object.
pub(super) fn messages(
    scanner: &mut Scanner<'_>,
    body: &[u8],
    api: Api,
) -> Result<Section, Unreadable> {
    let (kinds, expected): (&[Kind], _) = match api {
        Api::Responses | Api::Realtime => (
            &[Kind::String, Kind::Array, Kind::Null],
            "a string or array of items",
        ),
        Api::Interactions | Api::GenerateContent | Api::CachedContents => (
            &[Kind::String, Kind::Array, Kind::Object, Kind::Null],
            "a string, an object or an array of contents",
        ),
        _ => (&[Kind::Array], "an array of messages"),
    };
    shape(scanner, kinds, expected)?;
    let mut leading = 0_usize;
    // At Anthropic a message of the role `system` stands where it stands.
    let mut in_the_lead = api != Api::Messages;
    let mut section = parts(scanner, body, |part| {
        in_the_lead &= part.is_system;
        leading = leading.saturating_add(usize::from(in_the_lead));
    })?;
    section.leading_system = leading;
    Ok(section)
}

/// Takes a value as one part, whatever it is.
pub(super) fn whole(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Section, Unreadable> {
    let mut section = Section::default();
    match scanner.kind()? {
        Kind::Null => {
            scanner.value()?;
        }
        Kind::Object => section.add(Block::read(scanner, body)?),
        _ => section.add(Block {
            range: scanner.value()?.range,
            ..Block::default()
        }),
    }
    Ok(section)
}

/// Takes the elements of an array, or another value as one part.
pub(super) fn elements_or_whole(
    scanner: &mut Scanner<'_>,
    body: &[u8],
) -> Result<Section, Unreadable> {
    match scanner.kind()? {
        Kind::Array => parts(scanner, body, |_| {}),
        _ => whole(scanner, body),
    }
}

/// Reads the system instruction of Gemini: a string, or a content, whose parts are told apart.
pub(super) fn gemini_system(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Section, Unreadable> {
    if scanner.kind()? != Kind::Object {
        return elements_or_whole(scanner, body);
    }
    let mut section = Section::default();
    scanner.members(|scanner, _, key| {
        if key == b"parts" {
            section = elements_or_whole(scanner, body)?;
        }
        Ok::<(), Unreadable>(())
    })?;
    Ok(section)
}

/// Reads the parts of a section: the elements of an array, or one string.
fn parts(
    scanner: &mut Scanner<'_>,
    body: &[u8],
    mut each: impl FnMut(&Block),
) -> Result<Section, Unreadable> {
    let mut section = Section::default();
    match scanner.kind()? {
        Kind::Array => {
            scanner.elements(|scanner| {
                let part = Block::read(scanner, body)?;
                each(&part);
                section.add(part);
                Ok::<(), Unreadable>(())
            })?;
        }
        Kind::String => section.add(Block {
            range: scanner.value()?.range,
            ..Block::default()
        }),
        Kind::Object => section.add(Block::read(scanner, body)?),
        _ => {
            scanner.value()?;
        }
    }
    Ok(section)
}

impl Section {
    fn add(&mut self, part: Block) {
        let text = part.range.len().saturating_sub(part.media_bytes);
        self.text_bytes = self
            .text_bytes
            .saturating_add(u64::try_from(text).unwrap_or(u64::MAX));
        self.media = self.media.saturating_add(part.media);
        self.cache_breakpoints = self.cache_breakpoints.saturating_add(part.breakpoints);
        self.parts.push(part.range);
    }
}

/// A message, a block of content, a tool: what is known of an object and the blocks inside it.
#[derive(Default)]
struct Block {
    range: Range<usize>,
    is_system: bool,
    media: u64,
    /// Bytes of embedded media, here and below.
    media_bytes: usize,
    /// Bytes of the member `data`, whatever it is.
    data_bytes: usize,
    has_source: bool,
    breakpoints: u64,
}

impl Block {
    /// Reads a block. Only members that hold blocks are walked into; the arguments of tools,
    /// schemas and texts are passed.
    fn read(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Self, Unreadable> {
        let mut block = Self::default();
        let mut is_embedded = false;
        block.range = object(scanner, |scanner, key| {
            match key {
                b"role" => {
                    let role = body.get(scanner.value()?.range).unwrap_or_default();
                    block.is_system = role == br#""system""# || role == br#""developer""#;
                }
                b"type" => {
                    let name = body.get(scanner.value()?.range).unwrap_or_default();
                    let is_media = MEDIA_TYPES.contains(&name);
                    // `data` beside either is the payload itself (Anthropic; Interactions).
                    is_embedded = is_media || name == br#""base64""#;
                    block.media = block.media.saturating_add(u64::from(is_media));
                }
                b"cache_control" | b"prompt_cache_breakpoint" | b"cachePoint" => {
                    let is_set = scanner.value()?.kind == Kind::Object;
                    block.breakpoints = block.breakpoints.saturating_add(u64::from(is_set));
                }
                b"source" => {
                    block.has_source = true;
                    block.walk(scanner, body)?;
                }
                b"content" | b"output" | b"file" | b"parts" | b"toolResult"
                | b"functionResponse" => block.walk(scanner, body)?,
                // A recording of Chat Completions: its payload has no `type` beside it.
                b"input_audio" => {
                    let recording = Self::read(scanner, body)?;
                    block.add(&recording);
                    block.media_bytes = block.media_bytes.saturating_add(recording.data_bytes);
                }
                // Gemini.
                b"inlineData" | b"inline_data" | b"fileData" => {
                    let media = Self::read(scanner, body)?;
                    block.media = block.media.saturating_add(1);
                    block.media_bytes = block.media_bytes.saturating_add(media.data_bytes);
                }
                // Bedrock Converse: `{"image":{"format":"png","source":{"bytes":"…"}}}`.
                b"image" | b"document" | b"video" | b"audio" if scanner.kind()? == Kind::Object => {
                    let media = Self::read(scanner, body)?;
                    block.add(&media);
                    block.media = block.media.saturating_add(u64::from(media.has_source));
                }
                b"bytes" => {
                    let bytes = scanner.value()?.range.len();
                    block.media_bytes = block.media_bytes.saturating_add(bytes);
                }
                b"file_data" if scanner.kind()? == Kind::Object => {
                    block.media = block.media.saturating_add(1);
                }
                b"image_url" if scanner.kind()? == Kind::Object => block.walk(scanner, body)?,
                b"image_url" | b"url" | b"file_data" => {
                    let bytes = data_url_bytes(scanner, body)?;
                    block.media_bytes = block.media_bytes.saturating_add(bytes);
                }
                b"data" => block.data_bytes = scanner.value()?.range.len(),
                _ => {}
            }
            Ok(())
        })?;
        if is_embedded {
            block.media_bytes = block.media_bytes.saturating_add(block.data_bytes);
        }
        Ok(block)
    }

    /// Reads the block or blocks inside this one; a text is passed.
    fn walk(&mut self, scanner: &mut Scanner<'_>, body: &[u8]) -> Result<(), Unreadable> {
        match scanner.kind()? {
            Kind::Array => {
                scanner.elements(|scanner| {
                    self.add(&Self::read(scanner, body)?);
                    Ok::<(), Unreadable>(())
                })?;
            }
            Kind::Object => self.add(&Self::read(scanner, body)?),
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, inner: &Self) {
        self.media = self.media.saturating_add(inner.media);
        self.media_bytes = self.media_bytes.saturating_add(inner.media_bytes);
        self.breakpoints = self.breakpoints.saturating_add(inner.breakpoints);
    }
}

/// The bytes of a string that is a `data:` URL (RFC 2397) in base64, else nothing.
fn data_url_bytes(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<usize, Unreadable> {
    let value = scanner.value()?;
    let bytes = body.get(value.range).unwrap_or_default();
    let head = bytes.get(..MEDIA_TYPE_BYTES_MAX).unwrap_or(bytes);
    let is_media =
        head.starts_with(b"\"data:") && memchr::memmem::find(head, b";base64,").is_some();
    Ok(if is_media { bytes.len() } else { 0 })
}

/// `type` of the blocks that are media.
const MEDIA_TYPES: &[&[u8]] = &[
    br#""image""#,
    br#""document""#,
    br#""image_url""#,
    br#""input_image""#,
    br#""input_audio""#,
    br#""input_file""#,
    br#""file""#,
    br#""computer_screenshot""#,
    br#""audio""#,
    br#""video""#,
];

/// How far into a `data:` URL the mark of base64 is looked for, in bytes.
const MEDIA_TYPE_BYTES_MAX: usize = 128;
