//! The bytes of Bedrock's answers: Converse, and `InvokeModel` in the shapes of the models' makers.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::frames;
use crate::anthropic;
use crate::bill::Usage;
use crate::body::Event;
use crate::json::{Json, object};
use crate::script::Script;

/// An answer in the shape of Converse.
pub(super) struct Converse<'a> {
    pub(super) id: &'a str,
    pub(super) script: &'a Script,
    pub(super) usage: Usage,
    pub(super) signature: String,
    /// Whether it is Nova's own shape: no times, and names of its own for what the cache did.
    pub(super) nova: bool,
}

impl Converse<'_> {
    /// The whole answer as one body.
    pub(super) fn plain(&self) -> Json {
        let mut content = Vec::new();
        if self.script.think > 0 {
            let thought =
                object! { "text": self.script.thinking(), "signature": self.signature.as_str() };
            content.push(object! { "reasoningContent": object! { "reasoningText": thought } });
        }
        if !self.script.pieces.is_empty() {
            content.push(object! { "text": self.script.text() });
        }
        if let Some((name, input)) = &self.script.tool {
            let input = Json::parse(input.as_bytes()).unwrap_or(Json::Null);
            let tool =
                object! { "toolUseId": self.tool_id(), "name": name.as_str(), "input": input };
            content.push(object! { "toolUse": tool });
        }
        let message = object! { "role": "assistant", "content": content };
        let mut body = vec![
            ("output".to_owned(), object! { "message": message }),
            ("stopReason".to_owned(), self.stop_reason().into()),
        ];
        body.extend(self.metadata());
        Json::Object(body)
    }

    /// The answer as events: name, data, and the tokens of output so far.
    pub(super) fn events(&self) -> Vec<(&'static str, Json, u64)> {
        let mut events = Events::default();
        events.push("messageStart", object! { "role": "assistant" });
        if self.script.think > 0 {
            events.output += self.script.think;
            events
                .delta(object! { "reasoningContent": object! { "text": self.script.thinking() } });
            let signature = object! { "signature": self.signature.as_str() };
            events.delta(object! { "reasoningContent": signature });
            events.stop();
        }
        if !self.script.pieces.is_empty() {
            for (piece, tokens) in &self.script.pieces {
                events.output += tokens;
                events.delta(object! { "text": piece.as_str() });
            }
            events.stop();
        }
        if let Some((name, input)) = &self.script.tool {
            let tool = object! { "toolUseId": self.tool_id(), "name": name.as_str() };
            let start =
                object! { "start": object! { "toolUse": tool }, "contentBlockIndex": events.index };
            events.push("contentBlockStart", start);
            events.output += self.script.tool_tokens;
            events.delta(object! { "toolUse": object! { "input": input.as_str() } });
            events.stop();
        }
        events.push("messageStop", object! { "stopReason": self.stop_reason() });
        events.push("metadata", Json::Object(self.metadata()));
        events.read
    }

    fn metadata(&self) -> Vec<(String, Json)> {
        let usage = &self.usage;
        let written = usage.cache_write_short + usage.cache_write_long;
        let mut counts = vec![
            ("inputTokens".to_owned(), usage.input_uncached.into()),
            ("outputTokens".to_owned(), usage.output.into()),
            (
                "totalTokens".to_owned(),
                (usage.prompt() + usage.output).into(),
            ),
        ];
        let [read_name, written_name] = if self.nova {
            ["cacheReadInputTokenCount", "cacheWriteInputTokenCount"]
        } else {
            ["cacheReadInputTokens", "cacheWriteInputTokens"]
        };
        counts.push((read_name.to_owned(), usage.cache_read.into()));
        counts.push((written_name.to_owned(), written.into()));
        if self.nova {
            return vec![("usage".to_owned(), Json::Object(counts))];
        }
        let details = [
            ("5m", usage.cache_write_short),
            ("1h", usage.cache_write_long),
        ];
        let details: Vec<Json> = details
            .into_iter()
            .filter(|(_, tokens)| *tokens > 0)
            .map(|(ttl, tokens)| object! { "ttl": ttl, "inputTokens": tokens })
            .collect();
        if !details.is_empty() {
            counts.push(("cacheDetails".to_owned(), details.into()));
        }
        vec![
            ("usage".to_owned(), Json::Object(counts)),
            ("metrics".to_owned(), object! { "latencyMs": LATENCY_MS }),
        ]
    }

    fn tool_id(&self) -> String {
        format!("tooluse_{}", self.id)
    }

    const fn stop_reason(&self) -> &'static str {
        match (&self.script.tool, self.script.cut) {
            (_, true) => "max_tokens",
            (Some(_), false) => "tool_use",
            (None, false) => "end_turn",
        }
    }
}

/// Events as they are written, with the content block that is open.
#[derive(Default)]
struct Events {
    read: Vec<(&'static str, Json, u64)>,
    index: u64,
    output: u64,
}

impl Events {
    fn push(&mut self, name: &'static str, data: Json) {
        self.read.push((name, data, self.output));
    }

    fn delta(&mut self, delta: Json) {
        let data = object! { "delta": delta, "contentBlockIndex": self.index };
        self.push("contentBlockDelta", data);
    }

    fn stop(&mut self) {
        self.push(
            "contentBlockStop",
            object! { "contentBlockIndex": self.index },
        );
        self.index += 1;
    }
}

/// A stream of Converse: each event in a message of its own.
pub(super) fn converse_stream(answer: &Converse<'_>) -> Vec<Event> {
    let events = answer.events().into_iter().enumerate();
    events
        .map(|(at, (name, data, output))| Event {
            bytes: frames::event(name, &padded(data, at)),
            output,
        })
        .collect()
}

/// A stream of `InvokeModel` for Nova: the events of Converse in chunks.
pub(super) fn nova_stream(answer: &Converse<'_>) -> Vec<Event> {
    let events = answer.events().into_iter().enumerate();
    events
        .map(|(at, (name, data, output))| {
            let mut event = vec![(name.to_owned(), data)];
            if name == "metadata" {
                event.push((METRICS.to_owned(), metrics(&answer.usage)));
            }
            chunk(&Json::Object(event), at, output)
        })
        .collect()
}

/// A stream of `InvokeModel` for Claude: the events of a Messages answer in chunks, the last with counts of the service.
/// There are no pings.
pub(super) fn claude_stream(answer: &anthropic::Wire<'_>) -> Vec<Event> {
    let events = answer.stream().into_iter().filter_map(|event| {
        let text = std::str::from_utf8(&event.bytes).ok()?;
        let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
        Some((Json::parse(data.as_bytes()).ok()?, event.output))
    });
    events
        .filter(|(data, _)| data.text("type") != Some("ping"))
        .enumerate()
        .map(|(at, (mut data, output))| {
            if let (Some("message_stop"), Json::Object(members)) =
                (data.text("type").map(str::to_owned).as_deref(), &mut data)
            {
                members.push((METRICS.to_owned(), metrics(&answer.usage)));
            }
            chunk(&data, at, output)
        })
        .collect()
}

fn chunk(data: &Json, at: usize, output: u64) -> Event {
    let payload = object! { "bytes": BASE64_STANDARD.encode(data.to_string()) };
    Event {
        bytes: frames::event("chunk", &padded(payload, at)),
        output,
    }
}

/// `data` with a member of some length that says nothing, as the service adds it against those who read lengths.
fn padded(data: Json, at: usize) -> Json {
    let padding: String = PADDING
        .chars()
        .cycle()
        .take(at % PADDING.len() + 1)
        .collect();
    match data {
        Json::Object(mut members) => {
            members.push(("p".to_owned(), padding.into()));
            Json::Object(members)
        }
        other => other,
    }
}

fn metrics(usage: &Usage) -> Json {
    object! {
        "inputTokenCount": usage.input_uncached,
        "outputTokenCount": usage.output,
        "invocationLatency": LATENCY_MS,
        "firstByteLatency": LATENCY_MS,
        "cacheReadInputTokenCount": usage.cache_read,
        "cacheWriteInputTokenCount": usage.cache_write_short + usage.cache_write_long,
    }
}

/// The counts in the head of a plain answer of `InvokeModel`.
pub(super) fn count_headers(usage: &Usage) -> Vec<(&'static str, String)> {
    let written = usage.cache_write_short + usage.cache_write_long;
    vec![
        (
            "x-amzn-bedrock-input-token-count",
            usage.input_uncached.to_string(),
        ),
        (
            "x-amzn-bedrock-output-token-count",
            usage.output.to_string(),
        ),
        (
            "x-amzn-bedrock-cache-read-input-token-count",
            usage.cache_read.to_string(),
        ),
        (
            "x-amzn-bedrock-cache-write-input-token-count",
            written.to_string(),
        ),
        ("x-amzn-bedrock-invocation-latency", LATENCY_MS.to_string()),
    ]
}

/// The event of a failure in the middle of a stream.
pub(super) fn failure() -> Bytes {
    frames::exception(
        "throttlingException",
        "Too many tokens, please wait before trying again.",
    )
}

const METRICS: &str = "amazon-bedrock-invocationMetrics";

const LATENCY_MS: u64 = 1;

const PADDING: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
