//! Answers of `OpenAI` Chat Completions and Responses, and of the many who speak them too.
//!
//! Both count cached tokens as part of the prompt, and reasoning as part of the output; the
//! differences of other providers are told by the numbers themselves.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::sse::Event;
use crate::usage::Usage;

use super::messages::event_type;
use super::{Found, Object};

/// Reads an event of a Chat Completions stream: a chunk, or `[DONE]`.
pub(super) fn read_chunk(found: &mut Found, event: &Event<'_>) {
    if event.data == b"[DONE]" {
        found.answer.complete = true;
        return;
    }
    found.delta();
    let is_first = found.answer.delta_events == 1;
    let is_error = event.name == b"error" || event.data.starts_with(br#"{"error""#);
    if !(is_first || is_error || tells(event.data, &USAGE) || tells(event.data, &FINISH)) {
        return;
    }
    if let Some(chunk) = Object::read(event.data) {
        read_completion(found, &chunk);
    }
}

/// Reads a chat completion, or a chunk of one.
pub(super) fn read_completion(found: &mut Found, completion: &Object<'_>) {
    found.error(completion);
    let answer = &mut found.answer;
    for (name, field) in [
        ("model", &mut answer.model),
        ("id", &mut answer.response_id),
        ("service_tier", &mut answer.service_tier),
    ] {
        if let Some(value) = completion.name(name) {
            *field = Some(value);
        }
    }
    let choice = completion.objects("choices").next();
    if let Some(reason) = choice
        .as_ref()
        .and_then(|choice| choice.name("finish_reason"))
    {
        answer.stop_reason = Some(reason);
    }
    let usage = [
        completion.object("usage"),
        // Groq, without being asked for usage.
        completion
            .object("x_groq")
            .and_then(|extra| extra.object("usage")),
        // Older models of Moonshot.
        choice.and_then(|choice| choice.object("usage")),
    ];
    if let Some(usage) = usage.iter().flatten().find_map(usage_of) {
        answer.usage = Some(usage);
    }
}

/// Reads an event of a Responses stream.
pub(super) fn read_event(found: &mut Found, event: &Event<'_>) {
    match event_type(event).as_ref() {
        b"response.created"
        | b"response.completed"
        | b"response.incomplete"
        | b"response.failed" => {
            let response = Object::read(event.data).and_then(|data| data.object("response"));
            if let Some(response) = response {
                found.answer.complete = true;
                read_response(found, &response);
            }
        }
        b"error" => {
            let Some(data) = Object::read(event.data) else {
                return;
            };
            let code = data.name("code").unwrap_or_else(|| "error".to_owned());
            found.answer.error = Some(code);
            found.error(&data);
        }
        name if name.ends_with(b".delta") => found.delta(),
        _ => {}
    }
}

/// Reads a response object. One that is still being made tells no usage.
pub(super) fn read_response(found: &mut Found, response: &Object<'_>) {
    found.error(response);
    let answer = &mut found.answer;
    answer.model = response.name("model");
    answer.response_id = response.name("id");
    answer.service_tier = response.name("service_tier");
    let status = response.name("status");
    if matches!(status.as_deref(), Some("queued" | "in_progress")) {
        answer.complete = false;
        return;
    }
    let reason = response
        .object("incomplete_details")
        .and_then(|details| details.name("reason"));
    answer.stop_reason = reason.or(status);
    answer.usage = response.object("usage").as_ref().and_then(usage_of);
    if let Some(usage) = &mut answer.usage {
        let searches = response.objects("output").filter(is_web_search).count();
        usage.web_searches = u64::try_from(searches).unwrap_or(u64::MAX);
    }
}

/// Whether an item of the output is a search that is billed: opening a page it found is not.
fn is_web_search(item: &Object<'_>) -> bool {
    let action = item.object("action").and_then(|action| action.name("type"));
    item.name("type").as_deref() == Some("web_search_call")
        && action.is_none_or(|action| action == "search")
}

/// A `usage` object in disjoint buckets; nothing if it has no counts.
fn usage_of(usage: &Object<'_>) -> Option<Usage> {
    let either = |chat: &str, responses: &str| usage.whole(chat).or_else(|| usage.whole(responses));
    let details =
        |chat: &str, responses: &str| usage.object(chat).or_else(|| usage.object(responses));
    let prompt = either("prompt_tokens", "input_tokens");
    let completion = either("completion_tokens", "output_tokens");
    if prompt.is_none() && completion.is_none() {
        return None;
    }
    let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
    let input_details = details("prompt_tokens_details", "input_tokens_details");
    let input_detail = |name: &str| {
        input_details
            .as_ref()
            .and_then(|details| details.whole(name))
    };
    let cached = input_detail("cached_tokens")
        .or_else(|| usage.whole("prompt_cache_hit_tokens")) // DeepSeek
        .or_else(|| usage.whole("cached_tokens")) // Moonshot
        .unwrap_or(0);
    let lifetimes = input_details
        .as_ref()
        .and_then(|details| details.object("cache_write_tokens_details"));
    let lifetime = |name: &str| {
        lifetimes
            .as_ref()
            .and_then(|lifetimes| lifetimes.whole(name))
            .unwrap_or(0)
    };
    let (short, long) = (lifetime("ttl_30m_tokens"), lifetime("ttl_12h_tokens"));
    let written = input_detail("cache_write_tokens")
        .unwrap_or(0)
        .max(short.saturating_add(long));
    let reasoning = details("completion_tokens_details", "output_tokens_details")
        .and_then(|details| details.whole("reasoning_tokens"))
        .unwrap_or(0);
    // xAI leaves reasoning out of the completion, which the total betrays.
    let apart = prompt.saturating_add(completion).saturating_add(reasoning);
    let output = if reasoning > 0 && usage.whole("total_tokens") == Some(apart) {
        completion.saturating_add(reasoning)
    } else {
        completion
    };
    Some(Usage {
        input: prompt.saturating_sub(cached).saturating_sub(written),
        cache_read: cached,
        cache_write: written.saturating_sub(long),
        cache_write_long: long,
        output,
        reasoning: reasoning.min(output),
        ..Usage::default()
    })
}

/// Whether `data` has the member that `key` finds, at any depth, with a value other than `null`.
/// Inside a string the quotes of a key would be escaped, so no text can pass for one.
fn tells(data: &[u8], key: &Finder<'_>) -> bool {
    key.find_iter(data).any(|at| {
        let after = data
            .get(at.saturating_add(key.needle().len())..)
            .unwrap_or_default();
        let value = after
            .iter()
            .find(|byte| !matches!(byte, b' ' | b':' | b'\t'));
        value.is_some_and(|byte| *byte != b'n')
    })
}

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""usage""#));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""finish_reason""#));
