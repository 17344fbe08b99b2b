//! Whole calls and answers: `fixtures/<api>/<case>/` holds a request, its answer as sent by the
//! provider (`answer.json` or `answer.sse`), and in `expected.json` what Weir reads in them. Fields
//! that are absent there are expected to be empty.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use weir_core::answer::{Answer, AnswerReader, Form};
use weir_core::api::Api;
use weir_core::call::{self, Call};

/// One fixture.
struct Case {
    name: String,
    api: Api,
    request: Vec<u8>,
    form: Form,
    answer: Vec<u8>,
    expected: Value,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut cases = Vec::new();
    for (folder, api) in [
        ("anthropic", Api::Messages),
        ("openai-chat", Api::ChatCompletions),
        ("openai-responses", Api::Responses),
    ] {
        let mut found: Vec<PathBuf> = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(found.len() >= 12, "{folder} has {} cases", found.len());
        found.sort();
        cases.extend(found.into_iter().map(|path| read_case(&path, api)));
    }
    cases
}

fn read_case(path: &Path, api: Api) -> Case {
    let stream = path.join("answer.sse");
    let (form, answer) = if stream.exists() {
        (Form::EventStream, stream)
    } else {
        (Form::Plain, path.join("answer.json"))
    };
    Case {
        name: path.display().to_string(),
        api,
        request: fs::read(path.join("request.json")).unwrap(),
        form,
        answer: fs::read(answer).unwrap(),
        expected: serde_json::from_slice(&fs::read(path.join("expected.json")).unwrap()).unwrap(),
    }
}

/// Reads an answer that arrives in the given pieces.
fn read<'a>(case: &Case, pieces: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    let mut reader = AnswerReader::new(case.api, case.form);
    for piece in pieces {
        reader.push(piece);
    }
    reader.finish()
}

/// An answer as it is written in `expected.json`.
fn shown(answer: &Answer) -> Value {
    let parts: Vec<Value> = answer
        .parts
        .iter()
        .map(|part| json!({ "model": part.model, "usage": part.usage }))
        .collect();
    compact(json!({
        "model": answer.model,
        "usage": answer.usage,
        "parts": parts,
        "complete": answer.complete,
        "error": answer.error,
        "response_id": answer.response_id,
        "service_tier": answer.service_tier,
        "speed": answer.speed,
        "inference_geo": answer.inference_geo,
        "stop_reason": answer.stop_reason,
        "delta_events": answer.delta_events,
        "unread": answer.unread,
    }))
}

/// A call as it is written in `expected.json`: counts stand for ranges.
fn shown_call(call: &Call) -> Value {
    let ranges = [&call.system, &call.tools, &call.messages];
    let all: u64 = ranges
        .into_iter()
        .flatten()
        .map(|range| range.len() as u64)
        .sum();
    compact(json!({
        "model": call.model,
        "stream": call.stream,
        "max_output_tokens": call.max_output_tokens,
        "choices": if call.choices == 1 { 0 } else { call.choices },
        "system": call.system.len(),
        "tools": call.tools.len(),
        "messages": call.messages.len(),
        "embedded_bytes": all - call.text_bytes,
        "media": call.media,
        "service_tier": call.service_tier,
        "speed": call.speed,
        "inference_geo": call.inference_geo,
        "include_usage": call.include_usage,
        "cache_breakpoints": call.cache_breakpoints,
        "prompt_cache_key": call.prompt_cache_key,
        "session": call.session,
        "previous_response": call.previous_response,
    }))
}

/// The members that are not empty.
fn compact(value: Value) -> Value {
    let Value::Object(members) = value else {
        panic!("expected an object")
    };
    let is_empty = |value: &Value| [json!(null), json!(false), json!(0), json!([])].contains(value);
    let members: Map<String, Value> = members
        .into_iter()
        .filter(|(_, value)| !is_empty(value))
        .collect();
    members.into()
}

#[test]
fn a_call_is_read_as_expected() {
    for case in cases() {
        let call = call::parse(case.api, &case.request).unwrap();
        assert_eq!(
            shown_call(&call),
            compact(case.expected["call"].clone()),
            "{}",
            case.name
        );
    }
}

/// The ranges of a call point at the very values that a parser finds.
#[test]
fn the_parts_of_a_call_are_where_its_ranges_say() {
    for case in cases() {
        let call = call::parse(case.api, &case.request).unwrap();
        let body: Value = serde_json::from_slice(&case.request).unwrap();
        let list = |name: &str| match &body[name] {
            Value::Array(parts) => parts.clone(),
            Value::Null => Vec::new(),
            whole => vec![whole.clone()],
        };
        let names = match case.api {
            Api::Messages => ["system", "messages"],
            Api::ChatCompletions => ["none", "messages"],
            Api::Responses => ["instructions", "input"],
            other => panic!("no fixtures of {other:?}"),
        };
        let prompt: Vec<Value> = names.into_iter().flat_map(list).collect();
        let at = |range: &Range<usize>| -> Value {
            serde_json::from_slice(&case.request[range.clone()]).unwrap()
        };
        let found: Vec<Value> = call.system.iter().chain(&call.messages).map(at).collect();
        assert_eq!(found, prompt, "{}", case.name);
        let tools: Vec<Value> = call.tools.iter().map(at).collect();
        let expected: Vec<Value> = ["tools", "functions"].into_iter().flat_map(list).collect();
        assert_eq!(tools, expected, "{}", case.name);
        if let Some(range) = &call.stream_options {
            assert_eq!(at(range), body["stream_options"], "{}", case.name);
        }
    }
}

#[test]
fn an_answer_is_read_as_expected() {
    for case in cases() {
        let answer = read(&case, [case.answer.as_slice()]);
        assert_eq!(shown(&answer), case.expected["answer"], "{}", case.name);
    }
}

#[test]
fn an_answer_reads_the_same_however_it_is_cut() {
    for case in cases() {
        let whole = read(&case, [case.answer.as_slice()]);
        assert_eq!(
            read(&case, case.answer.chunks(1)),
            whole,
            "{} byte by byte",
            case.name
        );
        for at in 0..=case.answer.len() {
            let (first, second) = case.answer.split_at(at);
            assert_eq!(
                read(&case, [first, second]),
                whole,
                "{} cut at {at}",
                case.name
            );
        }
    }
}

#[test]
fn a_stream_reads_the_same_with_other_line_ends_and_between_comments() {
    for case in cases()
        .into_iter()
        .filter(|case| case.form == Form::EventStream)
    {
        let whole = read(&case, [case.answer.as_slice()]);
        let text = String::from_utf8(case.answer.clone()).unwrap();
        for other in [
            text.replace('\n', "\r\n"),
            text.replace('\n', "\r"),
            format!(
                "\u{feff}: hello\n\n{}",
                text.replace("\n\n", "\n\n: keep-alive\n\n")
            ),
            text.replace("data: ", "id: 7\ndata:"),
        ] {
            assert_eq!(
                read(&case, [other.as_bytes()]),
                whole,
                "{} as {other:?}",
                case.name
            );
        }
    }
}

/// A stream that ends early tells no more than the whole one, and never that it is complete.
#[test]
fn a_stream_that_is_cut_is_not_complete() {
    for case in cases()
        .into_iter()
        .filter(|case| case.form == Form::EventStream)
    {
        let whole = read(&case, [case.answer.as_slice()]);
        let last_event = case.answer.len() - 2;
        for end in 0..last_event {
            let cut = read(&case, [&case.answer[..end]]);
            assert!(!cut.complete, "{} up to {end}", case.name);
            assert!(cut.delta_events <= whole.delta_events);
        }
    }
}

#[test]
fn a_plain_body_beyond_the_bound_is_counted_and_not_kept() {
    for case in cases().into_iter().filter(|case| case.form == Form::Plain) {
        let padding = vec![b' '; weir_core::answer::ANSWER_BYTES_MAX];
        let fits = padding.len() - case.answer.len();
        let expected = read(&case, [case.answer.as_slice()]);
        assert_eq!(
            read(&case, [&padding[..fits], &case.answer]),
            expected,
            "{}",
            case.name
        );
        let beyond = read(&case, [&padding[..=fits], &case.answer]);
        assert_eq!(
            beyond,
            Answer {
                unread: 1,
                ..Answer::default()
            },
            "{}",
            case.name
        );
    }
}

#[test]
fn the_form_of_an_answer_is_told_by_its_content_type() {
    for (content_type, form) in [
        ("text/event-stream", Some(Form::EventStream)),
        ("Text/Event-Stream; charset=utf-8", Some(Form::EventStream)),
        ("application/json", Some(Form::Plain)),
        (" application/json ;charset=utf-8", Some(Form::Plain)),
        ("application/problem+json", Some(Form::Plain)),
        ("application/vnd.amazon.eventstream", None),
        ("text/html", None),
        ("", None),
    ] {
        assert_eq!(Form::of_content_type(content_type), form, "{content_type}");
    }
}

#[test]
fn a_plain_body_with_something_behind_it_is_not_read() {
    for case in cases().into_iter().filter(|case| case.form == Form::Plain) {
        for behind in ["x", "{}", "\0"] {
            let answer = read(&case, [case.answer.as_slice(), behind.as_bytes()]);
            assert_eq!(answer, Answer::default(), "{} and {behind:?}", case.name);
        }
    }
}
