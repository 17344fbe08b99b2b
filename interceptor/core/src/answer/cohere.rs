//! Answers of Cohere, whose bill goes by `billed_units`: what Cohere itself puts in a prompt is in
//! `tokens`, and is not billed.

use crate::sse::Event;
use crate::usage::Usage;

use super::messages::event_type;
use super::{Found, NotACount, Object};

/// Reads an event of a stream: of version 2, or a line of version 1.
pub(super) fn read_event(found: &mut Found, event: &Event<'_>) {
    let data = Object::read(event.data);
    let named = data.as_ref().and_then(|data| data.name("event_type"));
    let name = match &named {
        Some(name) => name.as_bytes().into(),
        None => event_type(event),
    };
    let Some(data) = data else { return };
    match name.as_ref() {
        b"message-start" => found.is_from(&data, "model", "id"),
        b"stream-start" => found.is_from(&data, "model", "generation_id"),
        b"message-end" => {
            if let Some(delta) = data.object("delta") {
                read_end(found, &delta);
            }
        }
        b"stream-end" => {
            let whole = data.object("response");
            read_end(found, whole.as_ref().unwrap_or(&data));
            if let Some(reason) = data.filled("finish_reason") {
                found.answer.stop_reason = Some(reason);
            }
        }
        name if name.ends_with(b"-delta") || name.ends_with(b"-generation") => found.delta(),
        _ => {}
    }
}

/// Reads a whole answer.
pub(super) fn read_body(found: &mut Found, body: &Object<'_>) {
    found.is_from(body, "model", "id");
    if found.answer.response_id.is_none() {
        found.is_from(body, "model", "generation_id");
    }
    read_end(found, body);
}

fn read_end(found: &mut Found, end: &Object<'_>) {
    found.error(end);
    found.answer.complete = true;
    if let Some(reason) = end.filled("finish_reason") {
        if reason.eq_ignore_ascii_case("error") && found.answer.error.is_none() {
            found.answer.error = Some("error".to_owned());
        }
        found.answer.stop_reason = Some(reason);
    }
    let usage = end.object("usage").or_else(|| end.object("meta"));
    if let Some(usage) = usage {
        found.told(usage_of(&usage));
    }
}

/// What is billed; nothing if that is not told.
pub(super) fn usage_of(usage: &Object<'_>) -> Result<Option<Usage>, NotACount> {
    let billed = usage.object("billed_units");
    let Some(counts) = billed.or_else(|| usage.object("tokens")) else {
        return Ok(None);
    };
    let (input, output) = (
        counts.count("input_tokens")?,
        counts.count("output_tokens")?,
    );
    if input.is_none() && output.is_none() {
        return Ok(None);
    }
    let input = input.unwrap_or(0);
    let cached = usage.count_or_zero("cached_tokens")?.min(input);
    Ok(Some(Usage {
        input: input.saturating_sub(cached),
        cache_read: cached,
        output: output.unwrap_or(0),
        ..Usage::default()
    }))
}
