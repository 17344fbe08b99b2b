//! The bytes of a Messages answer, plain and as server-sent events.

use bytes::Bytes;

use crate::bill::Usage;
use crate::body::Event;
use crate::json::{Json, object};
use crate::script::Script;

/// An answer about to be written down.
pub(crate) struct Wire<'a> {
    pub(crate) id: String,
    pub(crate) model: &'a str,
    pub(crate) speed: Option<&'static str>,
    pub(crate) geo: &'a str,
    pub(crate) script: &'a Script,
    pub(crate) usage: Usage,
    /// Signature of the thinking block.
    pub(crate) signature: String,
}

impl Wire<'_> {
    /// The whole answer as one body.
    pub(crate) fn plain(&self) -> Vec<Event> {
        let mut content = Vec::new();
        if self.script.think > 0 {
            content.push(object! {
                "type": "thinking",
                "thinking": self.script.thinking(),
                "signature": self.signature.as_str(),
            });
        }
        if !self.script.pieces.is_empty() {
            content.push(object! { "type": "text", "text": self.script.text() });
        }
        if let Some((name, input)) = &self.script.tool {
            let input = Json::parse(input.as_bytes()).unwrap_or(Json::Null);
            content.push(self.tool_use(name, input));
        }
        let message = self.message(
            content,
            Some(self.stop_reason()),
            self.usage(self.usage.output),
        );
        vec![Event {
            bytes: message.to_string().into(),
            output: self.usage.output,
        }]
    }

    /// The answer as events.
    pub(crate) fn stream(&self) -> Vec<Event> {
        let mut stream = Stream::default();
        let message = self.message(Vec::new(), None, self.usage(PROVISIONAL_OUTPUT));
        stream.event(
            "message_start",
            &object! { "type": "message_start", "message": message },
        );
        if self.script.think > 0 {
            self.stream_thinking(&mut stream);
        }
        if !self.script.pieces.is_empty() {
            self.stream_text(&mut stream);
        }
        if let Some((name, input)) = &self.script.tool {
            stream.start(self.tool_use(name, Json::Object(Vec::new())));
            for (piece, tokens) in [("", 0), (input.as_str(), self.script.tool_tokens)] {
                stream.delta(tokens, "input_json_delta", "partial_json", piece);
            }
            stream.stop();
        }
        // The split of cache writes by lifetime is in message_start only.
        let usage = object! {
            "input_tokens": self.usage.input_uncached,
            "cache_creation_input_tokens": self.written(),
            "cache_read_input_tokens": self.usage.cache_read,
            "output_tokens": self.usage.output,
            "output_tokens_details": object! { "thinking_tokens": self.usage.reasoning },
        };
        stream.output = self.usage.output;
        stream.event(
            "message_delta",
            &object! {
                "type": "message_delta",
                "delta": object! { "stop_reason": self.stop_reason(), "stop_sequence": Json::Null },
                "usage": usage,
            },
        );
        stream.event("message_stop", &object! { "type": "message_stop" });
        stream.events
    }

    fn stream_thinking(&self, stream: &mut Stream) {
        stream.start(object! { "type": "thinking", "thinking": "", "signature": "" });
        stream.delta(
            self.script.think,
            "thinking_delta",
            "thinking",
            &self.script.thinking(),
        );
        stream.delta(0, "signature_delta", "signature", &self.signature);
        stream.stop();
    }

    fn stream_text(&self, stream: &mut Stream) {
        stream.start(object! { "type": "text", "text": "" });
        stream.event("ping", &object! { "type": "ping" });
        for (piece, tokens) in &self.script.pieces {
            stream.delta(*tokens, "text_delta", "text", piece);
        }
        stream.stop();
    }

    fn message(&self, content: Vec<Json>, stop_reason: Option<&str>, usage: Json) -> Json {
        object! {
            "model": self.model,
            "id": self.id.as_str(),
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": Json::Null,
            "usage": usage,
        }
    }

    fn tool_use(&self, name: &str, input: Json) -> Json {
        let id = format!("toolu_{}", self.id.trim_start_matches("msg_"));
        object! { "type": "tool_use", "id": id, "name": name, "input": input }
    }

    fn usage(&self, output: u64) -> Json {
        object! {
            "input_tokens": self.usage.input_uncached,
            "cache_creation_input_tokens": self.written(),
            "cache_read_input_tokens": self.usage.cache_read,
            "cache_creation": object! {
                "ephemeral_5m_input_tokens": self.usage.cache_write_short,
                "ephemeral_1h_input_tokens": self.usage.cache_write_long,
            },
            "output_tokens": output,
            "output_tokens_details": object! {
                "thinking_tokens": self.usage.reasoning.min(output),
            },
            "service_tier": "standard",
            "inference_geo": self.geo,
            "speed": self.speed.unwrap_or("standard"),
        }
    }

    const fn written(&self) -> u64 {
        self.usage.cache_write_short + self.usage.cache_write_long
    }

    const fn stop_reason(&self) -> &'static str {
        match (&self.script.tool, self.script.cut) {
            (_, true) => "max_tokens",
            (Some(_), false) => "tool_use",
            (None, false) => "end_turn",
        }
    }
}

/// The event of a failure in the middle of a stream.
pub(crate) fn failure() -> Bytes {
    let error = object! { "type": "overloaded_error", "message": "Overloaded" };
    event("error", &object! { "type": "error", "error": error })
}

/// Events as they are written, with the content block that is open.
#[derive(Default)]
struct Stream {
    events: Vec<Event>,
    index: u64,
    output: u64,
}

impl Stream {
    fn event(&mut self, name: &str, data: &Json) {
        self.events.push(Event {
            bytes: event(name, data),
            output: self.output,
        });
    }

    fn start(&mut self, block: Json) {
        let data =
            object! { "type": "content_block_start", "index": self.index, "content_block": block };
        self.event("content_block_start", &data);
    }

    fn delta(&mut self, tokens: u64, kind: &str, field: &str, text: &str) {
        self.output += tokens;
        let delta = Json::Object(vec![
            ("type".to_owned(), kind.into()),
            (field.to_owned(), text.into()),
        ]);
        let data = object! { "type": "content_block_delta", "index": self.index, "delta": delta };
        self.event("content_block_delta", &data);
    }

    fn stop(&mut self) {
        let data = object! { "type": "content_block_stop", "index": self.index };
        self.event("content_block_stop", &data);
        self.index += 1;
    }
}

fn event(name: &str, data: &Json) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// What `message_start` says of the output, before there is any to count.
const PROVISIONAL_OUTPUT: u64 = 1;
