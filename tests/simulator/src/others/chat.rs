//! Chat Completions as Mistral and Groq have it: both tell the usage of a stream unasked, Groq beside the choices too.

use super::{Answered, Asked};
use crate::bill::Api;
use crate::body::Event;
use crate::exchange::{Call, Refusal};
use crate::json::{Json, object};
use crate::models::Provider;

/// Answers a call.
pub(super) fn answer(call: &Call<'_>, provider: Provider) -> Answered {
    let body = call.json()?;
    let name = body
        .text("model")
        .ok_or_else(|| Refusal::invalid("model is required"))?;
    let messages = body.get("messages").map_or(&[][..], Json::items);
    let limit = body.get("max_tokens").and_then(Json::as_u64);
    let asked = Asked::read(call, provider, name, messages, limit)?;
    let id = format!("cmpl-simulated{:016x}", call.number);
    let wire = Wire {
        asked: &asked,
        id: &id,
        number: call.number,
        created: call.started.as_secs(),
        is_groq: provider == Provider::Groq,
    };
    let stream = body.is_true("stream");
    let events = if stream { wire.stream() } else { wire.plain() };
    Ok(asked.answer(Api::ChatCompletions, id, events, stream))
}

struct Wire<'a> {
    asked: &'a Asked,
    id: &'a str,
    number: u64,
    created: u64,
    is_groq: bool,
}

impl Wire<'_> {
    fn plain(&self) -> Vec<Event> {
        let mut message = vec![
            ("role".to_owned(), "assistant".into()),
            ("content".to_owned(), self.asked.script.text().into()),
        ];
        message.extend(self.tool_calls());
        let choice = object! {
            "index": 0_u64, "message": Json::Object(message), "finish_reason": self.finish_reason(),
        };
        let mut body = self.head("chat.completion");
        body.push(("choices".to_owned(), vec![choice].into()));
        body.push(("usage".to_owned(), self.usage()));
        self.asked.whole(&Json::Object(body))
    }

    fn stream(&self) -> Vec<Event> {
        let first = object! { "role": "assistant", "content": "" };
        let mut events = vec![self.chunk(first, None, 0)];
        for (text, output) in self.asked.pieces() {
            events.push(self.chunk(object! { "content": text }, None, output));
        }
        let output = self.asked.usage.output;
        if let Some(calls) = self.tool_calls() {
            events.push(self.chunk(Json::Object(vec![calls]), None, output));
        }
        let last = object! { "content": "" };
        events.push(self.chunk(last, Some(self.finish_reason()), output));
        events.push(Event {
            bytes: "data: [DONE]\n\n".into(),
            output,
        });
        events
    }

    fn chunk(&self, delta: Json, finish_reason: Option<&str>, output: u64) -> Event {
        let choice = object! { "index": 0_u64, "delta": delta, "finish_reason": finish_reason };
        let mut body = self.head("chat.completion.chunk");
        body.push(("choices".to_owned(), vec![choice].into()));
        if finish_reason.is_some() {
            let (name, usage) = if self.is_groq {
                ("x_groq", object! { "id": self.id, "usage": self.usage() })
            } else {
                ("usage", self.usage())
            };
            body.push((name.to_owned(), usage));
        }
        Event {
            bytes: format!("data: {}\n\n", Json::Object(body)).into(),
            output,
        }
    }

    fn head(&self, object: &str) -> Vec<(String, Json)> {
        vec![
            ("id".to_owned(), self.id.into()),
            ("object".to_owned(), object.into()),
            ("created".to_owned(), self.created.into()),
            ("model".to_owned(), self.asked.model_name.as_str().into()),
        ]
    }

    fn tool_calls(&self) -> Option<(String, Json)> {
        let (name, arguments) = self.asked.script.tool.as_ref()?;
        let function = object! { "name": name.as_str(), "arguments": arguments.as_str() };
        let call = object! {
            "index": 0_u64,
            // Mistral insists on nine letters and digits.
            "id": format!("call{:05}", self.number % 100_000),
            "type": "function",
            "function": function,
        };
        Some(("tool_calls".to_owned(), vec![call].into()))
    }

    const fn finish_reason(&self) -> &'static str {
        match (&self.asked.script.tool, self.asked.script.cut) {
            (_, true) => "length",
            (Some(_), false) => "tool_calls",
            (None, false) => "stop",
        }
    }

    fn usage(&self) -> Json {
        let usage = &self.asked.usage;
        object! {
            "prompt_tokens": usage.prompt(),
            "completion_tokens": usage.output,
            "total_tokens": usage.prompt() + usage.output,
            "prompt_tokens_details": object! { "cached_tokens": usage.cache_read },
        }
    }
}
