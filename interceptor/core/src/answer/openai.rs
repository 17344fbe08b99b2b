//! Answers of `OpenAI` Chat Completions and Responses, and of the many who speak them too.
//!
//! Both count cached tokens as part of the prompt, and reasoning as part of the output; the
//! differences of other providers are told by the numbers themselves.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::sse::Event;
use crate::usage::Usage;

use super::messages::event_type;
use super::{Found, NotACount, Object};

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
        let (usage, reason) = (found.answer.usage.take(), found.answer.stop_reason.take());
        read_completion(found, &chunk);
        let answer = &mut found.answer;
        // A chunk with both the end and the usage has said all that counts: not everybody who
        // sends such a one (Perplexity) sends `[DONE]`.
        let told = answer.usage.is_some() && answer.stop_reason.is_some();
        answer.complete |= told && answer.error.is_none();
        answer.stop_reason = answer.stop_reason.take().or(reason);
        answer.usage = answer.usage.or(usage);
    }
}

/// Reads a chat completion, or a chunk of one.
pub(super) fn read_completion(found: &mut Found, completion: &Object<'_>) {
    read_errors(found, completion);
    found.is_from(completion, "model", "id");
    let answer = &mut found.answer;
    if let Some(tier) = completion.filled("service_tier") {
        answer.service_tier = Some(tier);
    }
    let choice = completion.objects("choices").next();
    if let Some(reason) = choice
        .as_ref()
        .and_then(|choice| choice.filled("finish_reason"))
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
    for usage in usage.iter().flatten() {
        if read_usage(found, usage) {
            break;
        }
    }
}

/// Notes an error, also where the status of the answer does not tell of it.
fn read_errors(found: &mut Found, body: &Object<'_>) {
    found.error(body);
    // MiniMax.
    let status = body
        .object("base_resp")
        .and_then(|status| status.whole("status_code"));
    if let Some(code) = status.filter(|code| *code != 0) {
        found.answer.error = Some(code.to_string());
    }
    // Mistral.
    if body.name("object").as_deref() == Some("error") {
        let name = body.filled("type").or_else(|| body.filled("code"));
        found.answer.error = Some(name.unwrap_or_else(|| "error".to_owned()));
    }
}

/// Takes over usage and cost; whether there were any counts.
fn read_usage(found: &mut Found, usage: &Object<'_>) -> bool {
    if !found.told(usage_of(usage)) {
        return false;
    }
    if let Some(tier) = usage.filled("service_tier") {
        found.answer.service_tier = Some(tier);
    }
    let cost = super::cost::of_usage(usage);
    found.answer.reported_cost = cost.or(found.answer.reported_cost);
    true
}

/// Reads embeddings, which have no output. Cohere's tell what is billed in `meta`.
pub(super) fn read_embeddings(found: &mut Found, body: &Object<'_>) {
    read_errors(found, body);
    found.is_from(body, "model", "id");
    let usage = body.object("usage");
    let Some(usage) = usage.filter(|usage| !read_usage(found, usage)) else {
        if let Some(meta) = body.object("meta") {
            found.told(super::cohere::usage_of(&meta));
        }
        return;
    };
    // Voyage tells the total only.
    let of_total = |input| Usage {
        input,
        ..Usage::default()
    };
    let total = usage.count("total_tokens");
    found.told(total.map(|total| total.map(of_total)));
}

/// Reads images, or what was heard in a recording. Models that are billed by the picture or the
/// second tell no tokens.
pub(super) fn read_media(found: &mut Found, body: &Object<'_>) {
    read_errors(found, body);
    found.is_from(body, "model", "id");
    let Some(usage) = body.object("usage") else {
        return;
    };
    if !read_usage(found, &usage) {
        return;
    }
    let makes_images = body.get("data").is_some() || body.get("b64_json").is_some();
    if let Some(counts) = found.answer.usage.as_mut().filter(|_| makes_images) {
        // Unless told apart, all of the output is the picture.
        let text = usage
            .object("output_tokens_details")
            .and_then(|details| details.whole("text_tokens"));
        counts.output_image = counts.output.saturating_sub(text.unwrap_or(0));
    }
}

/// Reads an event of a stream of images, of speech or of a transcription.
pub(super) fn read_media_event(found: &mut Found, event: &Event<'_>) {
    match event_type(event).as_ref() {
        name if name.ends_with(b".completed") || name.ends_with(b".done") => {
            if let Some(data) = Object::read(event.data) {
                found.answer.complete = true;
                read_media(found, &data);
            }
        }
        b"error" => {
            if let Some(data) = Object::read(event.data) {
                found.error(&data);
            }
        }
        name if name.ends_with(b".delta") || name.ends_with(b".partial_image") => found.delta(),
        _ => {}
    }
}

/// Reads an event of a Responses stream.
pub(super) fn read_event(found: &mut Found, event: &Event<'_>) {
    match event_type(event).as_ref() {
        // Realtime ends all of them by `response.done`.
        b"response.created"
        | b"response.completed"
        | b"response.incomplete"
        | b"response.failed"
        | b"response.done" => {
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
        // Realtime's speech; the second name is the older one.
        b"response.output_audio.delta" | b"response.audio.delta" => found.speech(event.data),
        name if name.ends_with(b".delta") => found.delta(),
        _ => {}
    }
}

/// Reads a response object. One that is still being made tells no usage.
pub(super) fn read_response(found: &mut Found, response: &Object<'_>) {
    found.error(response);
    found.is_from(response, "model", "id");
    let answer = &mut found.answer;
    answer.service_tier = response.name("service_tier");
    answer.background = response.is_true("background");
    let status = response.name("status");
    if matches!(status.as_deref(), Some("queued" | "in_progress")) {
        answer.complete = false;
        return;
    }
    let reason = response
        .object("incomplete_details")
        .and_then(|details| details.name("reason"));
    answer.stop_reason = reason.or(status);
    if let Some(details) = response.object("status_details") {
        found.error(&details);
    }
    let diagnostics = response.object("prompt_cache_diagnostics");
    found.answer.cache_diagnosis = diagnostics.and_then(|told| told.name("reason"));
    if let Some(usage) = response.object("usage") {
        read_usage(found, &usage);
    }
    if let Some(usage) = &mut found.answer.usage {
        let count = |is_it: fn(&Object<'_>) -> bool| {
            let items = response.objects("output").filter(is_it).count();
            u64::try_from(items).unwrap_or(u64::MAX)
        };
        usage.web_searches = usage.web_searches.max(count(is_web_search));
        usage.file_searches = count(is_file_search);
    }
}

fn is_file_search(item: &Object<'_>) -> bool {
    item.name("type").as_deref() == Some("file_search_call")
}

/// Whether an item of the output is a search that is billed: opening a page it found is not.
fn is_web_search(item: &Object<'_>) -> bool {
    let action = item.object("action").and_then(|action| action.name("type"));
    item.name("type").as_deref() == Some("web_search_call")
        && action.is_none_or(|action| action == "search")
}

/// A `usage` object in disjoint buckets; nothing if it has no counts.
fn usage_of(usage: &Object<'_>) -> Result<Option<Usage>, NotACount> {
    let prompt = usage.first_count(["prompt_tokens", "input_tokens"])?;
    let completion = usage.first_count(["completion_tokens", "output_tokens"])?;
    if prompt.is_none() && completion.is_none() {
        return Ok(None);
    }
    let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
    // The last of each is that of Realtime and of transcriptions.
    let details = |names: [&str; 3]| Details(names.iter().find_map(|name| usage.object(name)));
    let of_input = details([
        "prompt_tokens_details",
        "input_tokens_details",
        "input_token_details",
    ]);
    let of_output = details([
        "completion_tokens_details",
        "output_tokens_details",
        "output_token_details",
    ]);
    // The second is Perplexity's Responses; at the top, DeepSeek's and Moonshot's.
    let cached = match of_input.told(["cached_tokens", "cache_read_input_tokens"])? {
        None => usage.first_count(["prompt_cache_hit_tokens", "cached_tokens"])?,
        told => told,
    };
    let cached = cached.unwrap_or(0);
    let lifetimes = of_input.inside("cache_write_tokens_details");
    let short = lifetimes.count("ttl_30m_tokens")?;
    let long = lifetimes.count("ttl_12h_tokens")?;
    let written = of_input
        .told(["cache_write_tokens", "cache_creation_input_tokens"])?
        .unwrap_or(0)
        .max(short.saturating_add(long));
    let input = prompt.saturating_sub(cached).saturating_sub(written);
    let (output, reasoning) = output_of(usage, prompt, completion, &of_output)?;
    let from_cache = of_input.inside("cached_tokens_details");
    let cache_share = |name: &str| Ok(from_cache.count(name)?.min(cached));
    let input_share = |name: &str| {
        let uncached = of_input.count(name)?.saturating_sub(cache_share(name)?);
        Ok(uncached.min(input))
    };
    Ok(Some(Usage {
        input,
        cache_read: cached,
        cache_write: written.saturating_sub(long),
        cache_write_long: long,
        output,
        reasoning: reasoning.min(output),
        web_searches: usage.count_or_zero("num_search_queries")?,
        citation: usage.count_or_zero("citation_tokens")?,
        input_audio: input_share("audio_tokens")?,
        input_image: input_share("image_tokens")?,
        cache_audio: cache_share("audio_tokens")?,
        cache_image: cache_share("image_tokens")?,
        output_audio: of_output.count("audio_tokens")?.min(output),
        output_image: of_output.count("image_tokens")?.min(output),
        ..Usage::default()
    }))
}

/// Output with reasoning, and reasoning alone. Most include it in the completion. xAI does not,
/// which the total betrays; Perplexity tells it beside the completion.
fn output_of(
    usage: &Object<'_>,
    prompt: u64,
    completion: u64,
    details: &Details<'_>,
) -> Result<(u64, u64), NotACount> {
    let beside = usage.count("reasoning_tokens")?;
    if let Some(reasoning) = beside.filter(|_| usage.get("citation_tokens").is_some()) {
        return Ok((completion.saturating_add(reasoning), reasoning));
    }
    let inside = details.told(["reasoning_tokens"])?;
    let reasoning = inside.or(beside).unwrap_or(0);
    let apart = prompt.saturating_add(completion).saturating_add(reasoning);
    if reasoning > 0 && usage.whole("total_tokens") == Some(apart) {
        Ok((completion.saturating_add(reasoning), reasoning))
    } else {
        Ok((completion, reasoning))
    }
}

/// Counts inside a `usage` object, if there are any.
struct Details<'a>(Option<Object<'a>>);

impl<'a> Details<'a> {
    fn told<const N: usize>(&self, names: [&str; N]) -> Result<Option<u64>, NotACount> {
        let details = self.0.as_ref();
        details.map_or(Ok(None), |details| details.first_count(names))
    }

    fn count(&self, name: &str) -> Result<u64, NotACount> {
        Ok(self.told([name])?.unwrap_or(0))
    }

    fn inside(&self, name: &str) -> Self {
        Self(self.0.as_ref().and_then(|details| details.object(name)))
    }
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

#[cfg(test)]
mod tests {
    use crate::answer::{AnswerReader, Form};
    use crate::api::Api;

    #[test]
    fn base64_is_no_text() {
        // A second of 16 bits at 24 kHz.
        let base64 = "AAAA".repeat(16_000);
        for (api, before, after, tokens) in [
            (
                Api::Realtime,
                r#"{"type":"response.output_audio.delta","event_id":"e","delta":""#,
                r#""}"#,
                20,
            ),
            (
                Api::Realtime,
                r#"{"event_id":"e","type":"response.audio.delta","delta":""#,
                r#""}"#,
                20,
            ),
            (
                Api::Responses,
                r#"{"type":"response.image_generation_call.partial_image","partial_image_b64":""#,
                r#""}"#,
                0,
            ),
            (
                Api::ChatCompletions,
                r#"{"choices":[{"delta":{"audio":{"data":""#,
                r#""}}}]}"#,
                1,
            ),
            (
                Api::Images,
                r#"{"type":"image_generation.partial_image","b64_json":""#,
                r#""}"#,
                1,
            ),
            (
                Api::Audio,
                r#"{"type":"speech.audio.delta","audio":""#,
                r#""}"#,
                1,
            ),
            (
                Api::GenerateContent,
                r#"{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":""#,
                r#""}}]}}]}"#,
                1,
            ),
            (
                Api::Interactions,
                r#"{"event_type":"content.delta","delta":{"type":"image","data":""#,
                r#""}}"#,
                1,
            ),
        ] {
            let mut reader = AnswerReader::new(api, Form::EventStream);
            reader.push_event([before, &base64, after].concat().as_bytes());
            assert_eq!(reader.output_tokens_seen(), tokens, "{before}");
        }
    }

    #[test]
    fn speech_and_its_transcript_are_both_counted() {
        let mut reader = AnswerReader::new(Api::Realtime, Form::EventStream);
        for (name, delta) in [
            ("output_audio", "A".repeat(6400)),
            ("output_audio", String::new()),
            ("output_audio_transcript", "word".repeat(10)),
        ] {
            let event = format!(r#"{{"type":"response.{name}.delta","delta":"{delta}"}}"#);
            reader.push_event(event.as_bytes());
        }
        assert_eq!(reader.output_tokens_seen(), 12);
        let answer = reader.finish();
        assert_eq!((answer.speech_tokens_seen(), answer.delta_events), (2, 3));
    }
}
