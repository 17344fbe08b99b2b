//! Answers of Gemini.
//!
//! Nearly every chunk tells usage, as running totals: the last counts. Cached tokens are part of
//! the prompt; thoughts are not part of the candidates, nor what tools put in part of the prompt.

use std::collections::BTreeSet;

use crate::json::Scanner;
use crate::sse::Event;
use crate::usage::Usage;

use super::count;
use super::{Answer, Found, NotACount, Object};

/// Reads an event of `streamGenerateContent`: an answer with the next piece.
pub(super) fn read_chunk(found: &mut Found, data: &[u8]) {
    let Some(chunk) = Object::read(data) else {
        return;
    };
    found.delta();
    read_content(found, &chunk);
    let answer = &mut found.answer;
    answer.complete = answer.stop_reason.is_some() && answer.error.is_none();
}

/// Reads a stream that is sent as one array, or what came of it.
pub(super) fn read_array(found: &mut Found, body: &[u8]) {
    let mut scanner = Scanner::new(body);
    let elements = scanner.elements(|scanner| {
        let element = scanner.value()?;
        read_chunk(found, body.get(element.range).unwrap_or_default());
        Ok::<(), crate::json::Malformed>(())
    });
    if elements.and_then(|_| scanner.end()).is_err() {
        found.answer.complete = false;
    }
}

/// Reads an answer of `generateContent` or `embedContent`, or a piece of one.
pub(super) fn read_content(found: &mut Found, content: &Object<'_>) {
    // Gemini CLI's own service wraps the answer.
    let inner = content.object("response");
    let content = inner.as_ref().unwrap_or(content);
    found.error(content);
    found.is_from(content, "modelVersion", "responseId");
    let candidates: Vec<Object<'_>> = content.objects("candidates").collect();
    for candidate in &candidates {
        found.searches.read(candidate);
    }
    let first = candidates.first();
    let finished = first.and_then(|candidate| candidate.filled("finishReason"));
    let blocked = || {
        let feedback = content.object("promptFeedback")?;
        feedback.filled("blockReason")
    };
    if let Some(reason) = finished.or_else(blocked) {
        found.answer.stop_reason = Some(reason);
    }
    if let Some(usage) = content.object("usageMetadata") {
        let tier = usage
            .filled("serviceTier")
            .or_else(|| usage.filled("trafficType"));
        if tier.is_some() {
            found.answer.service_tier = tier;
        }
        found.told(usage_of(&usage, &OF_CONTENT));
    }
}

/// What was searched for with Google Search, to ground the answer: each query that was asked is
/// told by its text, some of them in more than one piece of a stream. Empty ones are not billed,
/// nor is one that is asked again.
#[derive(Debug, Default)]
pub(super) struct Searches(BTreeSet<String>);

impl Searches {
    fn read(&mut self, candidate: &Object<'_>) {
        let Some(grounding) = candidate.object("groundingMetadata") else {
            return;
        };
        let told = ["webSearchQueries", "imageSearchQueries"].into_iter();
        for query in told.flat_map(|name| grounding.texts(name)) {
            if self.0.len() < SEARCHES_MAX && !query.trim().is_empty() {
                self.0.insert(query);
            }
        }
    }

    /// Adds the searches to the usage.
    pub(super) fn settle(self, answer: &mut Answer) {
        if let Some(usage) = &mut answer.usage {
            let searches = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
            usage.web_searches = usage.web_searches.saturating_add(searches);
        }
    }
}

/// Queries of one answer that are told apart: a model asks a handful.
const SEARCHES_MAX: usize = 1000;

/// Reads an explicit cache that was made. Its tokens are billed once as input; what keeping them
/// costs is not told here.
pub(super) fn read_cache(found: &mut Found, cache: &Object<'_>) {
    found.error(cache);
    found.is_from(cache, "model", "name");
    if let Some(model) = &mut found.answer.model {
        *model = model.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(usage) = cache.object("usageMetadata") {
        let written = |cache_write| Usage {
            cache_write,
            ..Usage::default()
        };
        let total = usage.count("totalTokenCount");
        found.told(total.map(|total| total.map(written)));
    }
}

/// Reads an event of a stream of Interactions.
pub(super) fn read_event(found: &mut Found, event: &Event<'_>) {
    let named;
    let name = if event.name.is_empty() {
        let data = Object::read(event.data);
        named = data.and_then(|data| data.name("event_type"));
        named.as_deref().unwrap_or_default().as_bytes()
    } else {
        event.name
    };
    match name {
        b"error" => {
            if let Some(data) = Object::read(event.data) {
                found.error(&data);
            }
        }
        // With and without the `-d`: the names of two revisions.
        _ if name.starts_with(b"interaction.c") || name.starts_with(b"interaction.start") => {
            let data = Object::read(event.data);
            if let Some(interaction) = data.and_then(|data| data.object("interaction")) {
                found.answer.complete = true;
                read_interaction(found, &interaction);
            }
        }
        _ if name.ends_with(b".delta") => found.delta(),
        _ => {}
    }
}

/// Reads an interaction. One that is still being made is not complete.
pub(super) fn read_interaction(found: &mut Found, interaction: &Object<'_>) {
    found.error(interaction);
    found.is_from(interaction, "model", "id");
    let status = interaction.filled("status");
    match status.as_deref() {
        Some("in_progress" | "queued") => {
            found.answer.complete = false;
            return;
        }
        Some("failed") if found.answer.error.is_none() => {
            found.answer.error = status.clone();
        }
        _ => {}
    }
    found.answer.stop_reason = status;
    if let Some(usage) = interaction.object("usage") {
        found.told(usage_of(&usage, &OF_INTERACTION));
    }
}

/// What counts are called.
struct Names {
    /// Cached tokens included.
    prompt: &'static str,
    /// What tools put in, beside the prompt.
    tools: &'static str,
    cached: &'static str,
    /// Thoughts excluded.
    answer: &'static str,
    thoughts: &'static str,
    /// Lists of counts by modality: of the prompt, of tools, cached, of the answer.
    prompt_by: &'static str,
    tools_by: &'static str,
    cached_by: &'static str,
    answer_by: &'static str,
    /// The count in such a list.
    tokens: &'static str,
}

const OF_CONTENT: Names = Names {
    prompt: "promptTokenCount",
    tools: "toolUsePromptTokenCount",
    cached: "cachedContentTokenCount",
    answer: "candidatesTokenCount",
    thoughts: "thoughtsTokenCount",
    prompt_by: "promptTokensDetails",
    tools_by: "toolUsePromptTokensDetails",
    cached_by: "cacheTokensDetails",
    answer_by: "candidatesTokensDetails",
    tokens: "tokenCount",
};

const OF_INTERACTION: Names = Names {
    prompt: "total_input_tokens",
    tools: "total_tool_use_tokens",
    cached: "total_cached_tokens",
    answer: "total_output_tokens",
    thoughts: "total_thought_tokens",
    prompt_by: "input_tokens_by_modality",
    tools_by: "tool_use_tokens_by_modality",
    cached_by: "cached_tokens_by_modality",
    answer_by: "output_tokens_by_modality",
    tokens: "tokens",
};

/// Usage in disjoint buckets; nothing if it has no counts, as at the start of some streams. What is
/// zero is left out, but never all of it.
fn usage_of(usage: &Object<'_>, names: &Names) -> Result<Option<Usage>, NotACount> {
    let told = usage.first_count([names.prompt, names.answer, names.thoughts])?;
    if told.is_none() {
        return Ok(None);
    }
    let by = |list: &str, modality: &str| {
        let is_it = |entry: &Object<'_>| {
            let name = entry.name("modality");
            name.is_some_and(|name| name.eq_ignore_ascii_case(modality))
        };
        count::sum(usage.objects(list).filter(is_it), names.tokens)
    };
    let cached = usage.count_or_zero(names.cached)?;
    let answer = usage.count_or_zero(names.answer)?;
    let thoughts = usage.count_or_zero(names.thoughts)?;
    let of_tools = usage.count_or_zero(names.tools)?;
    let prompt = usage.count_or_zero(names.prompt)?.saturating_add(of_tools);
    let input = prompt.saturating_sub(cached);
    let cache_share = |modality: &str| Ok(by(names.cached_by, modality)?.min(cached));
    let input_share = |modality: &str| {
        let tools = by(names.tools_by, modality)?;
        let all = by(names.prompt_by, modality)?.saturating_add(tools);
        Ok(all.saturating_sub(cache_share(modality)?).min(input))
    };
    let answer_share = |modality: &str| Ok(by(names.answer_by, modality)?.min(answer));
    // Only Interactions count them: elsewhere their texts are told.
    let tools = usage.objects("grounding_tool_count");
    let by_search = tools.filter(|tool| tool.name("type").as_deref() == Some("google_search"));
    Ok(Some(Usage {
        input,
        cache_read: cached,
        output: answer.saturating_add(thoughts),
        reasoning: thoughts,
        web_searches: count::sum(by_search, "count")?,
        input_audio: input_share("AUDIO")?,
        input_image: input_share("IMAGE")?,
        input_video: input_share("VIDEO")?,
        cache_audio: cache_share("AUDIO")?,
        cache_image: cache_share("IMAGE")?,
        output_audio: answer_share("AUDIO")?,
        output_image: answer_share("IMAGE")?,
        ..Usage::default()
    }))
}
