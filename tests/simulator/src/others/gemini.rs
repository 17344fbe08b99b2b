//! Gemini: `generateContent`, `streamGenerateContent` as server-sent events or as one JSON array, and embeddings. Tokens are
//! counted for nothing.

use super::{Answered, Asked};
use crate::bill::Api;
use crate::body::Event;
use crate::directive::Directive;
use crate::exchange::{Answer, Call, Refusal};
use crate::json::{Json, object};
use crate::models::Provider;
use crate::openai::Prompt;

/// Answers a call of a model that the path names.
pub(super) fn answer(call: &Call<'_>, path: &str, query: Option<&str>) -> Answered {
    let (model, verb) = target(path)
        .ok_or_else(|| Refusal::new(404, "NOT_FOUND", format!("no such path: {path}")))?;
    let body = call.json()?;
    let prompt = prompt(&body);
    let limit = body.at(&["generationConfig", "maxOutputTokens"]);
    let asked = Asked::read(
        call,
        Provider::Google,
        model,
        &prompt,
        limit.and_then(Json::as_u64),
    )?;
    let id = format!("simulated{:016x}", call.number);
    match verb {
        "generateContent" => {
            let mut parts = vec![object! { "text": asked.script.text() }];
            parts.extend(function_call(&asked, &id));
            let whole = chunk(&asked, &id, parts, asked.usage.output, true);
            let events = asked.whole(&whole);
            Ok(asked.answer(Api::GenerateContent, id, events, false))
        }
        "streamGenerateContent" => {
            let is_sse = query.is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"));
            let events = stream(&asked, &id, is_sse);
            let (mut answer, directive) = asked.answer(Api::GenerateContent, id, events, true);
            if !is_sse {
                let json = ("content-type", "application/json".to_owned());
                answer.headers.push(json);
            }
            Ok((answer, directive))
        }
        "embedContent" | "batchEmbedContents" => Ok(embeddings(asked, &body, id)),
        _ => Err(Refusal::new(404, "NOT_FOUND", "no such method")),
    }
}

/// Answers `countTokens`: those of a prompt, whatever the cache has of it.
pub(super) fn count_tokens(call: &Call<'_>) -> Result<Json, Refusal> {
    let tokens = Prompt::texts(&prompt(&call.json()?), &[]).tokens();
    Ok(object! { "totalTokens": tokens })
}

/// Whether the path is that of `countTokens`.
pub(super) fn is_count(path: &str) -> bool {
    target(path).is_some_and(|(_, verb)| verb == "countTokens")
}

/// Model and verb of a path, of whichever version of the API.
fn target(path: &str) -> Option<(&str, &str)> {
    path.split_once("/models/")?.1.split_once(':')
}

/// The parts of a body that the model sees.
fn prompt(body: &Json) -> Vec<Json> {
    let mut prompt: Vec<Json> = ["tools", "systemInstruction", "content"]
        .iter()
        .filter_map(|name| body.get(name).cloned())
        .collect();
    prompt.extend_from_slice(body.get("contents").map_or(&[][..], Json::items));
    let requests = body.get("requests").map_or(&[][..], Json::items);
    prompt.extend(
        requests
            .iter()
            .filter_map(|one| one.get("content").cloned()),
    );
    prompt
}

/// Numbers in place of each content; the answer has no tokens.
fn embeddings(mut asked: Asked, body: &Json, id: String) -> (Answer, Directive) {
    asked.usage.output = 0;
    asked.usage.reasoning = 0;
    let embedding = object! { "values": vec![Json::from(1_u64), Json::from(0_u64)] };
    let (name, embedded) = match body.get("requests") {
        Some(requests) => {
            let all = requests.items().iter().map(|_| embedding.clone());
            ("embeddings", all.collect::<Vec<Json>>().into())
        }
        None => ("embedding", embedding),
    };
    let prompt = asked.usage.prompt();
    let usage = object! { "promptTokenCount": prompt, "totalTokenCount": prompt };
    let whole = Json::Object(vec![
        (name.to_owned(), embedded),
        ("usageMetadata".to_owned(), usage),
    ]);
    let events = asked.whole(&whole);
    asked.answer(Api::EmbedContent, id, events, false)
}

fn stream(asked: &Asked, id: &str, is_sse: bool) -> Vec<Event> {
    let pieces = asked.pieces().into_iter();
    let mut parts: Vec<(Json, u64)> = pieces
        .map(|(text, output)| (object! { "text": text }, output))
        .collect();
    parts.extend(function_call(asked, id).map(|part| (part, asked.usage.output)));
    let last = parts.len().saturating_sub(1);
    let mut events = Vec::new();
    for (at, (part, output)) in parts.into_iter().enumerate() {
        let chunk = chunk(asked, id, vec![part], output, at == last);
        let bytes = match (is_sse, at) {
            (true, _) => format!("data: {chunk}\r\n\r\n"),
            (false, 0) => format!("[{chunk}"),
            (false, _) => format!(",\r\n{chunk}"),
        };
        events.push(Event {
            bytes: bytes.into(),
            output,
        });
    }
    if !is_sse {
        events.push(Event {
            bytes: "]".into(),
            output: asked.usage.output,
        });
    }
    events
}

fn function_call(asked: &Asked, id: &str) -> Option<Json> {
    let (name, arguments) = asked.script.tool.as_ref()?;
    let arguments = Json::parse(arguments.as_bytes()).unwrap_or(Json::Null);
    let call = object! { "id": id, "name": name.as_str(), "args": arguments };
    Some(object! { "functionCall": call })
}

/// The counts are those up to this piece. Thoughts are no part of the candidates.
fn chunk(asked: &Asked, id: &str, parts: Vec<Json>, output: u64, is_last: bool) -> Json {
    let (prompt, thoughts) = (asked.usage.prompt(), asked.usage.reasoning.min(output));
    let mut usage = vec![
        ("promptTokenCount".to_owned(), prompt.into()),
        (
            "candidatesTokenCount".to_owned(),
            (output - thoughts).into(),
        ),
        ("totalTokenCount".to_owned(), (prompt + output).into()),
    ];
    for (name, count) in [
        ("cachedContentTokenCount", asked.usage.cache_read),
        ("thoughtsTokenCount", thoughts),
    ] {
        if count > 0 {
            usage.push((name.to_owned(), count.into()));
        }
    }
    let content = object! { "role": "model", "parts": parts };
    let mut candidate = vec![
        ("content".to_owned(), content),
        ("index".to_owned(), 0_u64.into()),
    ];
    if is_last {
        let reason = if asked.script.cut {
            "MAX_TOKENS"
        } else {
            "STOP"
        };
        candidate.push(("finishReason".to_owned(), reason.into()));
    }
    object! {
        "candidates": vec![Json::Object(candidate)],
        "usageMetadata": Json::Object(usage),
        "modelVersion": asked.model_name.as_str(),
        "responseId": id,
    }
}
