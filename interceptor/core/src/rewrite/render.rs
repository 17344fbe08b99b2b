//! What the model reads in the place of a value, and where the value is told.
//!
//! All of it is JSON text already: values go from one string to another as they stand, escapes and
//! all, so that not a byte of them is interpreted on the way.

use std::ops::Range;

use memchr::memmem;

use crate::api::Api;
use crate::prompt::{Message, Prompt};
use crate::volatile::REFERENCE_OPEN;

use super::memory::Value;

/// What stands where a value stood.
pub(super) fn reference(name: &str) -> String {
    format!("{REFERENCE_OPEN}{name}> in <context_values>]")
}

/// What is told at the start of a conversation.
pub(super) fn told_first(values: &[Value]) -> String {
    told("Values that the system prompt refers to:", values)
}

/// What is told where values changed.
pub(super) fn told_change(values: &[Value]) -> String {
    told(
        "From here on these values of the system prompt are:",
        values,
    )
}

fn told(introduction: &str, values: &[Value]) -> String {
    let mut text = format!(r"<context_values>\n{introduction}\n");
    for Value { name, raw, place } in values {
        let lines = if raw.contains(r"\n") { r"\n" } else { "" };
        let (of, quote) = match place.as_str() {
            "" => ("", ""),
            _ => (OF, r#"\""#),
        };
        let opening = ["<", name, of, quote, place, quote, ">"];
        for part in opening
            .into_iter()
            .chain([lines, raw, lines, "</", name, r">\n"])
        {
            text.push_str(part);
        }
    }
    text.push_str("</context_values>");
    text
}

/// Where something can be told at the end of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the end of the message's last text: a string with content and one with blocks read the
    /// same then.
    InText(usize),
    /// In a block of its own, behind what may not come later (results of tools) or is no text.
    NewBlock(usize, &'static str),
}

/// Where something can be told at the end of `message`; nowhere, if its shape is not known.
pub(super) fn place(api: Api, body: &[u8], prompt: &Prompt, message: &Message) -> Option<Place> {
    let last = prompt.segments_of(message).last()?;
    if let Some(text) = &last.text {
        return Some(Place::InText(text.end.checked_sub(1)?));
    }
    let content = message.content.as_ref()?;
    let is_array = body.get(content.start) == Some(&b'[');
    let end = content.end.checked_sub(1).filter(|_| is_array)?;
    Some(Place::NewBlock(end, block_of(api, body)?))
}

/// How a block of text begins: its text follows, then `"}`. None, where the shape of blocks is not
/// known.
fn block_of(api: Api, body: &[u8]) -> Option<&'static str> {
    match api {
        Api::Messages | Api::ChatCompletions | Api::CohereChat => Some(TYPED),
        Api::Responses => Some(r#",{"type":"input_text","text":""#),
        Api::GenerateContent | Api::Converse => Some(r#",{"text":""#),
        // The shape is that of the model's maker, and only Anthropic's bodies say so.
        Api::InvokeModel => memmem::find(body, br#""anthropic_version""#).map(|_| TYPED),
        Api::Completions
        | Api::Embeddings
        | Api::Images
        | Api::Audio
        | Api::Realtime
        | Api::EmbedContent
        | Api::CachedContents
        | Api::Interactions => None,
    }
}

/// Whether prompts of this API are rewritten at all.
pub(super) fn covers(api: Api, body: &[u8]) -> bool {
    block_of(api, body).is_some()
}

/// What says which words of the system prompt a value stands instead of.
const OF: &str = " instead-of=";
const TYPED: &str = r#",{"type":"text","text":""#;

impl Place {
    /// The insertion that tells `text` here.
    pub(super) fn insert(&self, text: &str) -> (Range<usize>, Vec<u8>) {
        match self {
            Self::InText(at) => (*at..*at, format!(r"\n\n{text}").into_bytes()),
            Self::NewBlock(at, block) => (*at..*at, format!(r#"{block}{text}"}}"#).into_bytes()),
        }
    }
}

/// A moment without its minutes and seconds: `14:03:22` becomes `14:00:00`, a number of seconds or
/// milliseconds since the epoch that of the full hour.
pub(super) fn coarse(raw: &str) -> String {
    if let Some(hour) = coarse_epoch(raw) {
        return hour;
    }
    let mut bytes: Vec<u8> = raw.bytes().collect();
    let digit = |bytes: &[u8], at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = 0_usize;
    while at < bytes.len() {
        let here = |offset: usize| at.saturating_add(offset);
        let is_clock = digit(&bytes, at)
            && bytes.get(here(1)) == Some(&b':')
            && digit(&bytes, here(2))
            && digit(&bytes, here(3));
        if !is_clock {
            at = here(1);
            continue;
        }
        at = here(2);
        // Minutes, seconds and their fraction: digits up to what is none of them.
        while let Some(byte) = bytes.get_mut(at) {
            match byte {
                b'0'..=b'9' => *byte = b'0',
                b':' | b'.' | b',' => {}
                _ => break,
            }
            at = at.saturating_add(1);
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| raw.to_owned())
}

fn coarse_epoch(raw: &str) -> Option<String> {
    let number: u64 = raw.parse().ok()?;
    let hour = match raw.len() {
        10 => 3_600,
        13 => 3_600_000,
        _ => return None,
    };
    let rest = number.checked_rem(hour)?;
    Some(number.saturating_sub(rest).to_string())
}
