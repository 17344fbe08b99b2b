//! Cohere Chat, version 2. It bills fewer tokens than the model sees: those of its template are free.

use super::{Answered, Asked};
use crate::bill::Api;
use crate::body::Event;
use crate::exchange::{Call, Refusal};
use crate::json::{Json, object};
use crate::models::Provider;

/// Answers a call.
pub(super) fn answer(call: &Call<'_>) -> Answered {
    let body = call.json()?;
    let name = body
        .text("model")
        .ok_or_else(|| Refusal::invalid("model is required"))?;
    let messages = body.get("messages").map_or(&[][..], Json::items);
    let limit = body.get("max_tokens").and_then(Json::as_u64);
    let asked = Asked::read(call, Provider::Cohere, name, messages, limit)?;
    let id = format!("00000000-0000-4000-8000-{:012x}", call.number);
    let stream = body.is_true("stream");
    let events = if stream {
        events(&asked, &id)
    } else {
        let text = object! { "type": "text", "text": asked.script.text() };
        asked.whole(&object! {
            "id": id.as_str(),
            "finish_reason": finish_reason(&asked),
            "message": object! { "role": "assistant", "content": vec![text] },
            "usage": usage(&asked),
        })
    };
    Ok(asked.answer(Api::CohereChat, id, events, stream))
}

fn events(asked: &Asked, id: &str) -> Vec<Event> {
    let message = object! { "role": "assistant", "content": Vec::<Json>::new() };
    let begun = object! { "type": "text", "text": "" };
    let mut events = vec![
        event(
            0,
            object! { "type": "message-start", "id": id, "delta": object! { "message": message } },
        ),
        event(
            0,
            object! {
                "type": "content-start", "index": 0_u64,
                "delta": object! { "message": object! { "content": begun } },
            },
        ),
    ];
    for (text, output) in asked.pieces() {
        let content = object! { "content": object! { "text": text } };
        let delta = object! { "message": content };
        events.push(event(
            output,
            object! { "type": "content-delta", "index": 0_u64, "delta": delta },
        ));
    }
    let output = asked.usage.output;
    events.push(event(
        output,
        object! { "type": "content-end", "index": 0_u64 },
    ));
    let delta = object! { "finish_reason": finish_reason(asked), "usage": usage(asked) };
    events.push(event(
        output,
        object! { "type": "message-end", "delta": delta },
    ));
    events
}

fn event(output: u64, data: Json) -> Event {
    let name = data.text("type").unwrap_or_default();
    Event {
        bytes: format!("event: {name}\ndata: {data}\n\n").into(),
        output,
    }
}

const fn finish_reason(asked: &Asked) -> &'static str {
    if asked.script.cut {
        "MAX_TOKENS"
    } else {
        "COMPLETE"
    }
}

fn usage(asked: &Asked) -> Json {
    let (input, output) = (asked.usage.prompt(), asked.usage.output);
    object! {
        "billed_units": object! { "input_tokens": input, "output_tokens": output },
        "tokens": object! { "input_tokens": input + TEMPLATE_TOKENS, "output_tokens": output },
    }
}

const TEMPLATE_TOKENS: u64 = 64;
