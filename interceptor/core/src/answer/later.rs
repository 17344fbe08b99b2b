//! Answers that tell of calls which were made before: the results of batches, and what `OpenRouter`
//! charged for a call.
//!
//! A line of results holds the whole answer to one call, and the name that the application gave
//! the call. Which API the call was of, the answer shows by itself.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::api::Api;
use crate::usage::Usage;

use super::{Found, NotACount, Object, Part};

/// Reads a line of the results of a batch; one of anything else is passed over.
pub(super) fn read_result(found: &mut Found, line: &[u8]) {
    // Most files are no results.
    if CUSTOM_ID.find(line).is_none() {
        return;
    }
    let Some(line) = Object::read(line) else {
        return;
    };
    let Some(id) = line.filled("custom_id") else {
        return;
    };
    let Some((api, answer)) = answer_in(&line) else {
        return;
    };
    if found.answer.parts.len() >= RESULTS_MAX {
        found.answer.unread = found.answer.unread.saturating_add(1);
        return;
    }
    let mut result = Found::default();
    super::read_object(api, &mut result, &answer);
    let result = result.settle();
    if result.usage_unreadable {
        found.answer.unread = found.answer.unread.saturating_add(1);
        return;
    }
    let passes = if result.parts.is_empty() {
        let usage = result.usage.map(|usage| Part {
            usage,
            ..Part::default()
        });
        usage.into_iter().collect()
    } else {
        result.parts
    };
    let parts = passes.into_iter().map(|pass| Part {
        id: Some(id.clone()),
        model: pass.model.or_else(|| result.model.clone()),
        inference_geo: result.inference_geo.clone(),
        usage: pass.usage,
    });
    found.answer.parts.extend(parts);
    if found.answer.model.is_none() {
        found.answer.model = result.model;
    }
}

/// The answer in a line of results, if the call was answered: Anthropic's is a message, the others
/// have the answer over HTTP.
fn answer_in<'a>(line: &Object<'a>) -> Option<(Api, Object<'a>)> {
    if let Some(message) = line.object("result").and_then(|of| of.object("message")) {
        return Some((Api::Messages, message));
    }
    let body = line.object("response")?.object("body")?;
    let api = match body.name("object").as_deref() {
        Some("response") => Api::Responses,
        Some("list") => Api::Embeddings,
        _ => Api::ChatCompletions,
    };
    Some((api, body))
}

/// Reads what `OpenRouter` tells of a call: tokens as the provider counted them, and the charge.
pub(super) fn read_generation(found: &mut Found, body: &[u8]) {
    let Some(data) = Object::read(body).and_then(|body| body.object("data")) else {
        return;
    };
    found.is_from(&data, "model", "id");
    found.answer.reported_cost = super::cost::of_generation(&data);
    found.answer.complete = found.told(usage_of_generation(&data));
}

fn usage_of_generation(data: &Object<'_>) -> Result<Option<Usage>, NotACount> {
    let prompt = data.first_count(["native_tokens_prompt", "tokens_prompt"])?;
    let output = data.first_count(["native_tokens_completion", "tokens_completion"])?;
    let (Some(prompt), Some(output)) = (prompt, output) else {
        return Ok(None);
    };
    let cached = data.count_or_zero("native_tokens_cached")?.min(prompt);
    Ok(Some(Usage {
        input: prompt.saturating_sub(cached),
        cache_read: cached,
        output,
        reasoning: data.count_or_zero("native_tokens_reasoning")?.min(output),
        ..Usage::default()
    }))
}

static CUSTOM_ID: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""custom_id""#));

/// Results of one batch that are read: what Anthropic takes at most in one, of some 200 bytes each.
const RESULTS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::super::{Answer, AnswerReader};
    use crate::api::Later;
    use crate::money::Money;

    const MESSAGES: &str = concat!(
        r#"{"custom_id":"a","result":{"type":"succeeded","message":{"id":"msg_1","model":"claude-opus-5","usage":{"input_tokens":10,"cache_read_input_tokens":4,"output_tokens":3,"service_tier":"batch"}}}}"#,
        "\n",
        r#"{"custom_id":"b","result":{"type":"errored","error":{"type":"error","error":{"type":"invalid_request_error"}}}}"#,
        "\n",
        r#"{"custom_id":"c","result":{"type":"expired"}}"#,
        "\n",
        r#"{"custom_id":"d","result":{"type":"succeeded","message":{"id":"msg_2","model":"claude-haiku-4-5","usage":{"input_tokens":1,"output_tokens":2,"iterations":[{"type":"message","input_tokens":1,"output_tokens":2},{"type":"compaction","model":"claude-opus-5","input_tokens":7,"output_tokens":1}]}}}}"#,
    );
    const FILE: &str = concat!(
        r#"{"id":"batch_req_1","custom_id":"a","response":{"status_code":200,"body":{"object":"chat.completion","model":"gpt-6-sol","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}},"error":null}"#,
        "\n",
        r#"{"id":"batch_req_2","custom_id":"b","response":{"status_code":400,"body":{"error":{"code":"x"}}},"error":null}"#,
        "\n",
        r#"{"id":"batch_req_3","custom_id":"c","response":{"status_code":200,"body":{"object":"list","model":"text-embedding-3-small","data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}},"error":null}"#,
        "\n",
        r#"{"id":"batch_req_4","custom_id":"d","response":{"status_code":200,"body":{"object":"response","status":"completed","model":"gpt-6-sol","output":[],"usage":{"input_tokens":2,"output_tokens":1}}},"error":null}"#,
        "\n",
        r#"{"custom_id":"e","method":"POST","url":"/v1/responses","body":{"model":"gpt-6-sol","input":"This is a request."}}"#,
        "\n{\"custom_id\":\nno line of results\n",
    );

    fn read(later: Later, text: &str, cut: usize) -> Answer {
        let mut reader = AnswerReader::later(later, None);
        text.as_bytes()
            .chunks(cut)
            .for_each(|part| reader.push(part));
        reader.finish()
    }

    type Told<'a> = (&'a str, &'a str, u64, u64, u64);

    fn check(later: Later, text: &str, expected: &[Told<'_>]) {
        for cut in [1, 7, 100, text.len()] {
            let answer = read(later, text, cut);
            let told = answer.parts.iter().map(|part| {
                let usage = part.usage;
                let (id, model) = (part.id.as_deref(), part.model.as_deref());
                let (id, model) = (id.unwrap_or_default(), model.unwrap_or_default());
                (id, model, usage.input, usage.cache_read, usage.output)
            });
            assert_eq!(told.collect::<Vec<_>>(), expected, "{cut}");
        }
    }

    #[test]
    fn every_answered_call_of_a_batch_is_a_part_with_its_model() {
        let expected = [
            ("a", "claude-opus-5", 10, 4, 3),
            ("d", "claude-haiku-4-5", 1, 0, 2),
            ("d", "claude-opus-5", 7, 0, 1),
        ];
        check(Later::MessageBatch, MESSAGES, &expected);
        let expected = [
            ("a", "gpt-6-sol", 6, 4, 3),
            ("c", "text-embedding-3-small", 5, 0, 0),
            ("d", "gpt-6-sol", 2, 0, 1),
        ];
        check(Later::File, FILE, &expected);
    }

    #[test]
    fn each_line_tells_where_it_was_inferred() {
        let line = |geo: &str| {
            format!(
                r#"{{"custom_id":"a","result":{{"type":"succeeded","message":{{"model":"m","usage":{{"input_tokens":1,"output_tokens":2{geo}}}}}}}}}"#
            )
        };
        let us = r#","inference_geo":"us""#;
        let text = [line(""), line(us), line("")].join("\n");
        let answer = read(Later::MessageBatch, &text, 100);
        let told = answer
            .parts
            .iter()
            .map(|part| part.inference_geo.as_deref());
        assert_eq!(told.collect::<Vec<_>>(), [None, Some("us"), None]);
    }

    #[test]
    fn a_generation_tells_its_charge() {
        let text = r#"{"data":{"id":"gen-1","model":"openai/gpt-6-sol","total_cost":0.0015,"tokens_prompt":9,"native_tokens_prompt":10,"native_tokens_completion":7,"native_tokens_reasoning":2,"native_tokens_cached":4}}"#;
        let answer = read(Later::Generation, text, 9);
        assert_eq!(answer.response_id.as_deref(), Some("gen-1"));
        assert_eq!(answer.reported_cost, Some(Money::from_nanos(1_500_000)));
        let usage = answer.usage.unwrap();
        assert_eq!((usage.input, usage.cache_read, usage.output), (6, 4, 7));
        let own_key = text.replace("\"model\"", "\"is_byok\":true,\"model\"");
        assert_eq!(read(Later::Generation, &own_key, 9).reported_cost, None);
        assert_eq!(read(Later::Generation, "{}", 9), Answer::default());
    }

    #[test]
    fn results_beyond_the_bound_are_counted() {
        let line = r#"{"custom_id":"a","response":{"body":{"usage":{"prompt_tokens":1}}}}"#;
        let mut reader = AnswerReader::later(Later::File, None);
        for _ in 0..super::RESULTS_MAX + 2 {
            reader.push(line.as_bytes());
            reader.push(b"\n");
        }
        let answer = reader.finish();
        assert_eq!((answer.parts.len(), answer.unread), (super::RESULTS_MAX, 2));
    }
}
