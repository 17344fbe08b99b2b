//! Answers of Amazon Bedrock: Converse, and `InvokeModel` in the shapes of many makers.
//!
//! A stream is a binary event stream. Converse tells its usage in the last event, `metadata`.
//! `InvokeModel` sends chunks of base64 with an event of the maker inside; what shape it has is
//! told by the event itself, because an inference profile hides the model. Where a body tells no
//! usage, the head of the answer may.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::frames::Frame;
use crate::sse::Event;
use crate::usage::Usage;

use super::count::{self, COUNT_MAX};
use super::{Answer, Found, NotACount, Object, messages, openai};

/// The counts in the head of an answer.
#[derive(Debug, Default)]
pub(super) struct Headers {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    service_tier: Option<String>,
}

impl Headers {
    /// Takes a field, in lower case.
    pub(super) fn read(&mut self, name: &str, value: &str) {
        let Some(name) = name.strip_prefix("x-amzn-bedrock-") else {
            return;
        };
        let count = match name {
            "input-token-count" => &mut self.input,
            "output-token-count" => &mut self.output,
            "cache-read-input-token-count" => &mut self.cache_read,
            "cache-write-input-token-count" => &mut self.cache_write,
            "service-tier" => {
                self.service_tier = Some(value.to_owned());
                return;
            }
            _ => return,
        };
        let told = value.trim().parse().ok();
        *count = told.filter(|tokens| *tokens <= COUNT_MAX);
    }

    /// Fills in what the body did not tell.
    pub(super) fn settle(self, answer: &mut Answer) {
        answer.service_tier = answer.service_tier.take().or(self.service_tier);
        if answer.usage.is_some() || (self.input.is_none() && self.output.is_none()) {
            return;
        }
        answer.usage = Some(Usage {
            input: self.input.unwrap_or(0),
            cache_read: self.cache_read.unwrap_or(0),
            cache_write: self.cache_write.unwrap_or(0),
            output: self.output.unwrap_or(0),
            ..Usage::default()
        });
    }
}

/// The name of a failure in a stream that began well.
pub(super) fn exception(frame: &Frame<'_>) -> String {
    let name = std::str::from_utf8(frame.name).unwrap_or_default();
    let fits = !name.is_empty() && name.len() <= crate::json::NAME_BYTES_MAX;
    if fits { name } else { "exception" }.to_owned()
}

/// Reads a whole answer of Converse.
pub(super) fn read_converse(found: &mut Found, body: &Object<'_>) {
    found.answer.stop_reason = body.filled("stopReason");
    read_metadata(found, body);
}

/// Reads an event of a stream of Converse.
pub(super) fn read_converse_event(found: &mut Found, frame: &Frame<'_>) {
    match frame.name {
        b"contentBlockDelta" => found.delta(),
        b"messageStop" => {
            let data = Object::read(frame.payload);
            found.answer.stop_reason = data.and_then(|data| data.filled("stopReason"));
        }
        b"metadata" => {
            if let Some(data) = Object::read(frame.payload) {
                read_metadata(found, &data);
                found.answer.complete = found.answer.error.is_none();
            }
        }
        _ => {}
    }
}

fn read_metadata(found: &mut Found, holder: &Object<'_>) {
    if let Some(usage) = holder.object("usage") {
        found.told(usage_of(&usage));
    }
    let tier = holder.object("serviceTier");
    if let Some(tier) = tier.and_then(|tier| tier.filled("type")) {
        found.answer.service_tier = Some(tier);
    }
}

/// A `usage` of Converse. As at Anthropic, what was read from and written to the cache is no part
/// of the input.
fn usage_of(usage: &Object<'_>) -> Result<Option<Usage>, NotACount> {
    let (input, output) = (usage.count("inputTokens")?, usage.count("outputTokens")?);
    if input.is_none() && output.is_none() {
        return Ok(None);
    }
    // Nova's own names end in `Count`.
    let written = usage.first_count(["cacheWriteInputTokens", "cacheWriteInputTokenCount"])?;
    let read = usage.first_count(["cacheReadInputTokens", "cacheReadInputTokenCount"])?;
    let details = usage.objects("cacheDetails");
    let long = details.filter(|write| write.name("ttl").as_deref() == Some("1h"));
    let for_long = count::sum(long, "inputTokens")?;
    Ok(Some(Usage {
        input: input.unwrap_or(0),
        cache_read: read.unwrap_or(0),
        cache_write: written.unwrap_or(0).saturating_sub(for_long),
        cache_write_long: for_long,
        output: output.unwrap_or(0),
        ..Usage::default()
    }))
}

/// Reads a whole answer of `InvokeModel`.
pub(super) fn read_body(found: &mut Found, body: &Object<'_>) {
    let usage = body.object("usage");
    let has = |name: &str| {
        usage
            .as_ref()
            .is_some_and(|usage| usage.get(name).is_some())
    };
    if has("inputTokens") {
        read_converse(found, body);
    } else if body.get("choices").is_some() || has("prompt_tokens") {
        openai::read_completion(found, body);
    } else if body.name("type").as_deref() == Some("message") || has("input_tokens") {
        messages::read_body(found, body);
    } else {
        found.error(body);
        if found.told(usage_of_counts(body)) {
            found.answer.stop_reason = body.filled("stop_reason");
        }
    }
}

/// Reads a chunk of a stream of `InvokeModel`.
pub(super) fn read_chunk(found: &mut Found, frame: &Frame<'_>) {
    let inner = Object::read(frame.payload).and_then(|chunk| {
        let encoded = chunk.text("bytes")?;
        BASE64_STANDARD.decode(encoded).ok()
    });
    match inner {
        // What it says is not to be seen from outside, so it is counted here.
        Some(inner) => found.with_text(&inner, |found| read_event(found, &inner)),
        None => found.delta(),
    }
}

/// Reads an event inside a chunk, whatever its maker.
pub(super) fn read_event(found: &mut Found, data: &[u8]) {
    let event = Event {
        name: &[],
        data,
        range: 0..0,
    };
    let is_messages = data.starts_with(br#"{"type":""#);
    let object = || Object::read(data);
    if is_messages || object().is_some_and(|object| object.get("type").is_some()) {
        messages::read_event(found, &event);
        // Where a message tells its usage, that is finer than the metrics beside its end.
        return;
    }
    let Some(object) = object() else {
        openai::read_chunk(found, &event);
        return;
    };
    if object.get("choices").is_some() {
        openai::read_chunk(found, &event);
    } else if let Some(metadata) = object.object("metadata") {
        read_metadata(found, &metadata);
    } else if let Some(stop) = object.object("messageStop") {
        found.answer.stop_reason = stop.filled("stopReason");
    } else if !["messageStart", "contentBlockStart", "contentBlockStop"]
        .iter()
        .any(|name| object.get(name).is_some())
    {
        found.delta();
    }
    if let Some(metrics) = object.object(METRICS) {
        found.answer.complete = true;
        if found.answer.usage.is_none() {
            found.told(usage_of_metrics(&metrics));
        }
    }
}

/// What Bedrock adds to the last chunk of a stream, whoever made the model.
fn usage_of_metrics(metrics: &Object<'_>) -> Result<Option<Usage>, NotACount> {
    let Some(input) = metrics.count("inputTokenCount")? else {
        return Ok(None);
    };
    Ok(Some(Usage {
        input,
        cache_read: metrics.count_or_zero("cacheReadInputTokenCount")?,
        cache_write: metrics.count_or_zero("cacheWriteInputTokenCount")?,
        output: metrics.count_or_zero("outputTokenCount")?,
        ..Usage::default()
    }))
}

/// Counts that some makers put at the top of the body: Llama, Titan.
fn usage_of_counts(body: &Object<'_>) -> Result<Option<Usage>, NotACount> {
    let Some(input) = body.first_count(["prompt_token_count", "inputTextTokenCount"])? else {
        return Ok(None);
    };
    let output = match body.count("generation_token_count")? {
        Some(output) => output,
        None => count::sum(body.objects("results"), "tokenCount")?,
    };
    Ok(Some(Usage {
        input,
        output,
        ..Usage::default()
    }))
}

const METRICS: &str = "amazon-bedrock-invocationMetrics";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_inside_a_chunk_is_counted() {
        let text = "word".repeat(100);
        for event in [
            format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"text":"{text}"}}}}"#),
            format!(r#"{{"contentBlockDelta":{{"delta":{{"text":"{text}"}}}}}}"#),
            format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#),
        ] {
            let payload = format!(
                r#"{{"bytes":"{}","p":"abcd"}}"#,
                BASE64_STANDARD.encode(&event)
            );
            let frame = Frame {
                name: b"chunk",
                payload: payload.as_bytes(),
                is_exception: false,
            };
            let mut found = Found::default();
            read_chunk(&mut found, &frame);
            assert_eq!(found.answer.output_tokens_seen(), 100, "{event}");
        }
    }
}
