//! What client and server say to each other: requests as an agent sends them, answers as Anthropic
//! gives them, always the same bytes for the same size.

use serde_json::{Value, json};

/// The host that every contender has to terminate and that Weir reads.
pub(crate) const API_HOST: &str = "api.anthropic.com";
/// A host that no interceptor has any business with.
pub(crate) const OTHER_HOST: &str = "downloads.example";
/// The request says how long its body is beside `content-length`, so that the server notices a
/// change that would pass for HTTP.
pub(crate) const BODY_BYTES: &str = "x-bench-body-bytes";
/// Number of text events in a streamed answer.
pub(crate) const EVENTS: &str = "x-bench-events";
/// Microseconds between two of them.
pub(crate) const INTERVAL_MICROS: &str = "x-bench-interval-micros";
/// Path of a download; the number of bytes follows.
pub(crate) const DOWNLOAD: &str = "/download/";
/// Stands before the send time (ns, decimal, then a space) in the text of an event.
pub(crate) const SENT_AT: &str = "\"text\":\"sent ";
/// Ends every streamed answer.
pub(crate) const LAST_EVENT: &str = "event: message_stop";

const MODEL: &str = "claude-sonnet-4-5-20250929";

/// The body of a call: system prompt, tools and a conversation with tool results, `bytes` long.
///
/// # Errors
/// `bytes` has no room for the fixed parts (about 1 KB).
pub(crate) fn request_body(bytes: usize, stream: bool) -> anyhow::Result<Vec<u8>> {
    let mut words = Words(0x9e37_79b9_7f4a_7c15);
    let tools: Vec<Value> = (0..(bytes / 8_000).clamp(1, 16))
        .map(|number| tool(number, &mut words))
        .collect();
    let mut request = json!({
        "model": MODEL,
        "max_tokens": 1024,
        "stream": stream,
        "system": [{
            "type": "text",
            "text": words.text((bytes / 8).clamp(200, 20_000)),
            "cache_control": {"type": "ephemeral"},
        }],
        "tools": tools,
        "messages": [],
    });
    let mut size = serde_json::to_vec(&request)?.len();
    let mut messages = Vec::new();
    let turn_bytes = (bytes / 20).clamp(200, 12_000);
    // The last message fills what is left to the byte.
    while size + 4 * turn_bytes < bytes {
        for message in turn(messages.len(), turn_bytes, &mut words) {
            size += serde_json::to_vec(&message)?.len() + 1;
            messages.push(message);
        }
    }
    let last = json!({"role": "user", "content": ""});
    size += serde_json::to_vec(&last)?.len();
    let missing = bytes
        .checked_sub(size)
        .ok_or_else(|| anyhow::anyhow!("expected room for {size} bytes, found {bytes}"))?;
    messages.push(json!({"role": "user", "content": words.ascii(missing)}));
    if let Some(request) = request.as_object_mut() {
        request.insert("messages".to_owned(), Value::Array(messages));
    }
    let body = serde_json::to_vec(&request)?;
    anyhow::ensure!(
        body.len() == bytes,
        "expected {bytes} bytes, made {}",
        body.len()
    );
    Ok(body)
}

/// What the assistant asked of a tool, and what the tool answered.
fn turn(number: usize, bytes: usize, words: &mut Words) -> [Value; 2] {
    let id = format!("toolu_{number:024}");
    [
        json!({"role": "assistant", "content": [
            {"type": "text", "text": words.text(bytes / 8)},
            {"type": "tool_use", "id": id, "name": "tool_0", "input": {"path": "src/main.rs"}},
        ]}),
        json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "content": words.text(bytes)},
        ]}),
    ]
}

fn tool(number: usize, words: &mut Words) -> Value {
    json!({
        "name": format!("tool_{number}"),
        "description": words.text(300),
        "input_schema": {
            "type": "object",
            "properties": {"path": {"type": "string", "description": words.text(80)}},
            "required": ["path"],
        },
    })
}

/// The answer to a call that does not stream.
pub(crate) fn answer() -> Value {
    json!({
        "id": "msg_01ABCDEFGHIJKLMNOPQRSTUV",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": Words(7).text(600)}],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        "usage": {
            "input_tokens": 211,
            "cache_creation_input_tokens": 318,
            "cache_read_input_tokens": 20_480,
            "cache_creation": {"ephemeral_5m_input_tokens": 318, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 153,
            "service_tier": "standard",
        },
    })
}

/// The event number `number` of a streamed answer with `texts` text events, made now; `None` after
/// the last.
pub(crate) fn event(number: usize, texts: usize) -> Option<String> {
    let data = match number.checked_sub(2) {
        None if number == 0 => json!({"type": "message_start", "message": {
            "id": "msg_01ABCDEFGHIJKLMNOPQRSTUV", "type": "message", "role": "assistant",
            "model": MODEL, "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": 211, "cache_creation_input_tokens": 318,
                "cache_read_input_tokens": 20_480, "output_tokens": 1},
        }}),
        None => json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}),
        // Written out, because it is the one that is made thousands of times in a burst.
        Some(text) if text < texts => {
            let now = crate::clock::monotonic_ns();
            return Some(format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
                 \"delta\":{{\"type\":\"text_delta\",{SENT_AT}{now} some words\"}}}}\n\n"
            ));
        }
        Some(text) => match text - texts {
            0 => json!({"type": "content_block_stop", "index": 0}),
            1 => json!({"type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                "usage": {"output_tokens": texts}}),
            2 => json!({"type": "message_stop"}),
            _ => return None,
        },
    };
    let name = data.get("type").and_then(Value::as_str).unwrap_or_default();
    Some(format!("event: {name}\ndata: {data}\n\n"))
}

/// Text that looks like what agents send: words, code, quotes, line ends, some of it not ASCII.
struct Words(u64);

impl Words {
    /// At least `bytes` bytes before escaping.
    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            text.push_str(self.pick(&WORDS));
        }
        text
    }

    /// Exactly `bytes` bytes that JSON does not escape.
    fn ascii(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            text.push_str(self.pick(&WORDS_PLAIN));
        }
        text.truncate(bytes);
        text
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        // xorshift64: the same sequence in every process.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let at = usize::try_from(self.0 >> 33).unwrap_or_default() % words.len();
        words.get(at).copied().unwrap_or_default()
    }
}

const WORDS: [&str; 24] = [
    "the ",
    "stream ",
    "returns ",
    "a ",
    "value ",
    "when ",
    "reading ",
    "fails, ",
    "so ",
    "callers ",
    "check ",
    "it. ",
    "\n",
    "    let next = parse(&line)?;\n",
    "fn main() {\n",
    "}\n\n",
    "println!(\"{name}: {count}\");\n",
    "// keeps the order of arrival\n",
    "naïve ",
    "— ",
    "“quoted” ",
    "path\\to\\file ",
    "\t",
    "語 ",
];
const WORDS_PLAIN: [&str; 8] = [
    "please ", "look ", "at ", "the ", "failing ", "test ", "and ", "fix it. ",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_asked_for_and_is_a_conversation() {
        for bytes in [2_048, 102_400, 1 << 20] {
            let body = request_body(bytes, false).unwrap();
            assert_eq!(body.len(), bytes);
            let value: Value = serde_json::from_slice(&body).unwrap();
            let messages = value["messages"].as_array().unwrap();
            assert_eq!(messages.len() % 2, 1, "ends with the user");
            assert!(!value["tools"].as_array().unwrap().is_empty());
            if bytes > 100_000 {
                assert!(messages.len() > 10, "{}", messages.len());
            }
        }
        assert!(request_body(100, false).is_err());
    }

    #[test]
    fn a_stream_is_framed_as_anthropic_frames_it() {
        let events: Vec<String> = (0..).map_while(|number| event(number, 3)).collect();
        assert_eq!(events.len(), 8);
        for event in &events {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(
                Some(data["type"].as_str().unwrap()),
                name.strip_prefix("event: ")
            );
        }
        assert!(events.last().unwrap().starts_with(LAST_EVENT));
    }
}
