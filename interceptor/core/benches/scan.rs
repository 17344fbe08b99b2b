//! How long it takes to find the parts of a request body, and to read the events of an answer:
//! `cargo bench -p weir-core --bench scan`. Prints the best of many rounds, next to `serde_json`
//! passing the same bytes (`IgnoredAny`) and building a tree of them.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use weir_core::answer::{AnswerReader, Form};
use weir_core::api::Api;
use weir_core::{call, json};

fn main() {
    for (name, body) in [("agent", agent_body()), ("prose", prose_body())] {
        let megabytes = body.len() as f64 / 1e6;
        println!("{name} body of {megabytes:.2} MB");
        let show = |what: &str, time: Duration| {
            println!(
                "  {what:<24} {:>8.1} µs/MB",
                time.as_secs_f64() * 1e6 / megabytes
            );
        };
        show("json::document", best(|| json::document(black_box(&body))));
        show(
            "call::parse",
            best(|| call::parse(Api::Messages, black_box(&body))),
        );
        show(
            "serde_json IgnoredAny",
            best(|| serde_json::from_slice::<IgnoredAny>(black_box(&body))),
        );
        show(
            "serde_json Value",
            best(|| serde_json::from_slice::<serde_json::Value>(black_box(&body))),
        );
    }
    for (name, api, stream) in [
        ("messages", Api::Messages, messages_stream()),
        ("chat", Api::ChatCompletions, chat_stream()),
        ("responses", Api::Responses, responses_stream()),
    ] {
        let time = best(|| {
            let mut reader = AnswerReader::new(api, Form::EventStream);
            for chunk in stream.as_bytes().chunks(16 * 1024) {
                reader.push(chunk);
            }
            let answer = reader.finish();
            assert!(answer.usage.is_some() && answer.complete);
            answer
        });
        let each = time.as_secs_f64() * 1e9 / EVENTS as f64;
        println!("{name} stream: {each:.0} ns an event");
    }
}

/// The shortest of many rounds.
fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

/// Like the body of a coding agent: tools with schemas, and turns of short texts, calls of tools
/// and their results, which are source code with many escapes.
fn agent_body() -> Vec<u8> {
    let mut body = String::from(r#"{"model":"claude-opus-5-5","max_tokens":32000,"stream":true,"#);
    body.push_str(r#""system":[{"type":"text","text":"You are an agent."}],"tools":["#);
    for tool in 0..30 {
        let comma = if tool == 0 { "" } else { "," };
        body.push_str(comma);
        body.push_str(&TOOL.replace("NAME", &format!("tool_{tool}")));
    }
    body.push_str(r#"],"messages":["#);
    for turn in 0..120 {
        let comma = if turn == 0 { "" } else { "," };
        body.push_str(comma);
        body.push_str(&TURN.replace("RESULT", &CODE.repeat(60)));
    }
    body.push_str("]}");
    body.into_bytes()
}

/// Few and long texts with few escapes.
fn prose_body() -> Vec<u8> {
    let text = "The weir keeps the level of the river and measures what flows.\\n".repeat(3_000);
    let turn = format!(r#"{{"role":"user","content":"{text}"}}"#);
    let turns = [turn.as_str(); 5].join(",");
    format!(r#"{{"model":"claude-opus-5-5","max_tokens":1,"messages":[{turns}]}}"#).into_bytes()
}

fn messages_stream() -> String {
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
        \"delta\":{\"type\":\"text_delta\",\"text\":\"some words of it\"}}\n\n";
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_1\",\
         \"model\":\"m\",\"usage\":{{\"input_tokens\":3,\"output_tokens\":1}}}}}}\n\n{}event: \
         message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n",
        delta.repeat(EVENTS)
    )
}

fn chat_stream() -> String {
    let chunk = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\
        \"model\":\"gpt-6-sol\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_1\",\
        \"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\
        \"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"aGVsbG8gd29y\"}\n\n";
    format!(
        "{}data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":1}}}}\n\n\
         data: [DONE]\n\n",
        chunk.repeat(EVENTS)
    )
}

fn responses_stream() -> String {
    let delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\
        \"sequence_number\":7,\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\
        \"delta\":\" word\",\"logprobs\":[],\"obfuscation\":\"aGVsbG8gd29y\"}\n\n";
    format!(
        "{}event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":\
         {{\"status\":\"completed\",\"usage\":{{\"input_tokens\":3,\"output_tokens\":1}}}}}}\n\n",
        delta.repeat(EVENTS)
    )
}

const ROUNDS: usize = 60;
const EVENTS: usize = 20_000;

const TOOL: &str = r#"{"name":"NAME","description":"Reads a part of a file.\nLines are numbered from 1.\n- never use \"cat\"","input_schema":{"type":"object","properties":{"path":{"type":"string","description":"The path"},"offset":{"type":"integer","minimum":0},"limit":{"type":"integer"}},"required":["path"],"additionalProperties":false}}"#;

const TURN: &str = r#"{"role":"assistant","content":[{"type":"text","text":"Let me look."},{"type":"tool_use","id":"toolu_01","name":"tool_3","input":{"path":"/src/lib.rs","offset":120}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","content":[{"type":"text","text":"RESULT"}]}]}"#;

const CODE: &str = r#"   142\t    let value = \"text\";\n   143\t    if value.is_empty() {\n   144\t        return Err(Error::Empty { name: \"x\\n\" });\n   145\t    }\n"#;
