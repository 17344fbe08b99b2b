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
        asked.whole(&object! {
            "id": id.as_str(),
            "finish_reason": finish_reason(&asked),
            "message": message(&asked, &id),
            "usage": usage(&asked),
        })
    };
    Ok(asked.answer(Api::CohereChat, id, events, stream))
}

/// Where a tool is called, the text is the plan to do so.
fn message(asked: &Asked, id: &str) -> Json {
    let text = asked.script.text();
    match tool_call(asked, id) {
        Some(call) => {
            object! { "role": "assistant", "tool_plan": text, "tool_calls": vec![call] }
        }
        None => {
            let text = object! { "type": "text", "text": text };
            object! { "role": "assistant", "content": vec![text] }
        }
    }
}

fn tool_call(asked: &Asked, id: &str) -> Option<Json> {
    let (name, arguments) = asked.script.tool.as_ref()?;
    let function = object! { "name": name.as_str(), "arguments": arguments.as_str() };
    Some(object! { "id": format!("{name}_{id}"), "type": "function", "function": function })
}

fn events(asked: &Asked, id: &str) -> Vec<Event> {
    let message = object! { "role": "assistant", "content": Vec::<Json>::new() };
    let delta = object! { "message": message };
    let start = object! { "type": "message-start", "id": id, "delta": delta };
    let mut events = vec![event(0, start)];
    let output = asked.usage.output;
    match tool_call(asked, id) {
        Some(call) => plan_events(&mut events, asked, call),
        None => text_events(&mut events, asked),
    }
    let delta = object! { "finish_reason": finish_reason(asked), "usage": usage(asked) };
    events.push(event(
        output,
        object! { "type": "message-end", "delta": delta },
    ));
    events
}

fn text_events(events: &mut Vec<Event>, asked: &Asked) {
    let begun = object! { "type": "text", "text": "" };
    events.push(of_message("content-start", object! { "content": begun }, 0));
    for (text, output) in asked.pieces() {
        let content = object! { "content": object! { "text": text } };
        events.push(of_message("content-delta", content, output));
    }
    let end = object! { "type": "content-end", "index": 0_u64 };
    events.push(event(asked.usage.output, end));
}

fn plan_events(events: &mut Vec<Event>, asked: &Asked, call: Json) {
    for (text, output) in asked.pieces() {
        events.push(of_message(
            "tool-plan-delta",
            object! { "tool_plan": text },
            output,
        ));
    }
    let output = asked.usage.output;
    let begun = object! { "tool_calls": call };
    events.push(of_message("tool-call-start", begun, output));
    let end = object! { "type": "tool-call-end", "index": 0_u64 };
    events.push(event(output, end));
}

fn of_message(name: &str, message: Json, output: u64) -> Event {
    let delta = object! { "message": message };
    event(
        output,
        object! { "type": name, "index": 0_u64, "delta": delta },
    )
}

fn event(output: u64, data: Json) -> Event {
    let name = data.text("type").unwrap_or_default();
    Event {
        bytes: format!("event: {name}\ndata: {data}\n\n").into(),
        output,
    }
}

const fn finish_reason(asked: &Asked) -> &'static str {
    match (&asked.script.tool, asked.script.cut) {
        (_, true) => "MAX_TOKENS",
        (Some(_), false) => "TOOL_CALL",
        (None, false) => "COMPLETE",
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
