//! Gemini: `generateContent`, and `streamGenerateContent` as server-sent events or as one JSON array.

use super::{Answered, Asked};
use crate::bill::Api;
use crate::body::Event;
use crate::exchange::{Call, Refusal};
use crate::json::{Json, object};
use crate::models::Provider;

/// Answers a call of a model that the path names.
pub(super) fn answer(call: &Call<'_>, path: &str, query: Option<&str>) -> Answered {
    // Of whichever version of the API.
    let target = path.split_once("/models/");
    let (model, verb) = target
        .and_then(|(_, target)| target.split_once(':'))
        .ok_or_else(|| Refusal::new(404, "NOT_FOUND", format!("no such path: {path}")))?;
    let body = call.json()?;
    let mut prompt: Vec<Json> = ["tools", "systemInstruction"]
        .iter()
        .filter_map(|name| body.get(name).cloned())
        .collect();
    prompt.extend_from_slice(body.get("contents").map_or(&[][..], Json::items));
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
            let whole = chunk(&asked, &id, &asked.script.text(), asked.usage.output, true);
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
        _ => Err(Refusal::new(404, "NOT_FOUND", "no such method")),
    }
}

fn stream(asked: &Asked, id: &str, is_sse: bool) -> Vec<Event> {
    let pieces = asked.pieces();
    let last = pieces.len().saturating_sub(1);
    let mut events = Vec::new();
    for (at, (text, output)) in pieces.into_iter().enumerate() {
        let chunk = chunk(asked, id, text, output, at == last);
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

/// The counts are those up to this piece. Thoughts are no part of the candidates.
fn chunk(asked: &Asked, id: &str, text: &str, output: u64, is_last: bool) -> Json {
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
    let part = object! { "text": text };
    let content = object! { "role": "model", "parts": vec![part] };
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
