//! Whole calls and answers: `fixtures/<api>/<case>/` holds a request, its answer as sent by the
//! provider (`answer.json`, `answer.sse`, `answer.ndjson`, or `answer.frames`, which names the
//! messages of a binary stream), and in `expected.json` what Weir reads in them. Fields that are
//! absent there are expected to be empty.

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
use weir_core::api::{Api, Endpoint, SaidByPath, recognize, said_by_path};
use weir_core::call::{self, Call};
use weir_core::catalog::Provider;
use weir_core::money::Money;

mod frames;

/// One fixture.
struct Case {
    name: String,
    api: Api,
    said: SaidByPath,
    request: Vec<u8>,
    form: Form,
    headers: Map<String, Value>,
    answer: Vec<u8>,
    expected: Value,
}

/// A folder, its API, the least number of cases, and the path.
type Folder = (&'static str, Api, usize, &'static str);

/// The folders of fixtures: of which API, at least how many cases, and the path where a case has
/// none of its own.
const FOLDERS: &[Folder] = &[
    ("anthropic", Api::Messages, 12, "/v1/messages"),
    (
        "openai-chat",
        Api::ChatCompletions,
        12,
        "/v1/chat/completions",
    ),
    ("openai-responses", Api::Responses, 12, "/v1/responses"),
    (
        "compatible",
        Api::ChatCompletions,
        14,
        "/v1/chat/completions",
    ),
    ("vertex-anthropic", Api::Messages, 3, ""),
    ("gemini", Api::GenerateContent, 10, ""),
    ("gemini-embeddings", Api::EmbedContent, 2, ""),
    (
        "gemini-caches",
        Api::CachedContents,
        2,
        "/v1beta/cachedContents",
    ),
    (
        "gemini-interactions",
        Api::Interactions,
        5,
        "/v1beta/interactions",
    ),
    ("bedrock-converse", Api::Converse, 9, ""),
    ("bedrock-invoke", Api::InvokeModel, 10, ""),
    ("cohere", Api::CohereChat, 8, "/v2/chat"),
    ("completions", Api::Completions, 3, "/v1/completions"),
    ("embeddings", Api::Embeddings, 4, "/v1/embeddings"),
    ("images", Api::Images, 3, "/v1/images/generations"),
    ("audio", Api::Audio, 3, "/v1/audio/transcriptions"),
    ("realtime", Api::Realtime, 5, "/v1/realtime"),
];

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut cases = Vec::new();
    for (folder, api, at_least, path) in FOLDERS {
        let mut found: Vec<PathBuf> = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(found.len() >= *at_least, "{folder} has {}", found.len());
        found.sort();
        cases.extend(found.into_iter().map(|case| read_case(&case, *api, path)));
    }
    cases
}

fn read_case(folder: &Path, api: Api, path: &str) -> Case {
    let own = fs::read_to_string(folder.join("path")).unwrap_or_else(|_| path.to_owned());
    // A socket is opened by GET; what is said inside it is not recognised by its path.
    if api != Api::Realtime {
        let found = recognize(Provider::Configured, "POST", own.trim());
        assert_eq!(found, Endpoint::Call(api), "{}", folder.display());
    }
    let (form, answer) = [
        (Form::Plain, "answer.json"),
        (Form::EventStream, "answer.sse"),
        (Form::Frames, "answer.frames"),
        (Form::Lines, "answer.ndjson"),
    ]
    .into_iter()
    .find_map(|(form, name)| Some((form, fs::read(folder.join(name)).ok()?)))
    .unwrap();
    let request = fs::read(folder.join("request.json"));
    let headers = fs::read(folder.join("headers.json")).unwrap_or_else(|_| b"{}".to_vec());
    Case {
        name: folder.display().to_string(),
        api,
        said: said_by_path(api, own.trim()),
        request: request.unwrap_or_else(|_| fs::read(folder.join("request.form")).unwrap()),
        form,
        headers: serde_json::from_slice(&headers).unwrap(),
        answer: if form == Form::Frames {
            frames::encode(&answer)
        } else {
            answer
        },
        expected: serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap(),
    }
}

fn call_of(case: &Case) -> Call {
    let mut call = call::parse(case.api, &case.request).unwrap();
    call.complete(case.said.clone());
    call
}

/// Reads an answer that arrives in the given pieces.
fn read<'a>(case: &Case, pieces: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    let mut reader = AnswerReader::new(case.api, case.form);
    for (name, value) in &case.headers {
        reader.header(name, value.as_str().unwrap());
    }
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
        "usage_unreadable": answer.usage_unreadable,
        "parts": parts,
        "reported_nanos": answer.reported_cost.map(Money::nanos),
        "complete": answer.complete,
        "error": answer.error,
        "response_id": answer.response_id,
        "service_tier": answer.service_tier,
        "speed": answer.speed,
        "inference_geo": answer.inference_geo,
        "background": answer.background,
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
        "embedded_bytes": all.saturating_sub(call.text_bytes),
        "media": call.media,
        "service_tier": call.service_tier,
        "speed": call.speed,
        "inference_geo": call.inference_geo,
        "include_usage": call.include_usage,
        "cache_breakpoints": call.cache_breakpoints,
        "prompt_cache_key": call.prompt_cache_key,
        "session": call.session,
        "continues": call.continues,
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
        let call = call_of(&case);
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
        let Ok(body) = serde_json::from_slice::<Value>(&case.request) else {
            assert!(case.request.starts_with(b"--"), "{} is no form", case.name);
            continue;
        };
        let body = match &body["request"] {
            Value::Object(_) => &body["request"],
            _ => &body,
        };
        let list = |pointer: &str| match body.pointer(pointer) {
            Some(Value::Array(parts)) => parts.clone(),
            Some(Value::Null) | None => Vec::new(),
            Some(whole) => vec![whole.clone()],
        };
        // A text or a list of them is one part.
        let whole = |pointer: &str| body.pointer(pointer).cloned().into_iter().collect();
        let [system, messages, tools] = places(case.api);
        let mut prompt: Vec<Value> = system.iter().copied().flat_map(list).collect();
        for pointer in messages {
            let parts: Vec<Value> = match pointer.strip_prefix('=') {
                Some(pointer) => whole(pointer),
                None => list(pointer),
            };
            prompt.extend(parts);
        }
        let at = |range: &Range<usize>| -> Value {
            serde_json::from_slice(&case.request[range.clone()]).unwrap()
        };
        let found: Vec<Value> = call.system.iter().chain(&call.messages).map(at).collect();
        assert_eq!(found, prompt, "{}", case.name);
        let expected: Vec<Value> = tools.iter().copied().flat_map(list).collect();
        let tools: Vec<Value> = call.tools.iter().map(at).collect();
        assert_eq!(tools, expected, "{}", case.name);
        if let Some(range) = &call.stream_options {
            assert_eq!(at(range), body["stream_options"], "{}", case.name);
        }
    }
}

/// Where values stand in a body.
type Pointers = &'static [&'static str];

/// Where the system prompt, the messages and the tools of an API stand. What is one part whatever
/// it is has a `=` before it.
fn places(api: Api) -> [Pointers; 3] {
    match api {
        Api::Messages => [&["/system"], &["/messages"], &["/tools"]],
        Api::ChatCompletions => [&[], &["/messages"], &["/tools", "/functions"]],
        Api::Responses => [&["/instructions"], &["/input"], &["/tools"]],
        Api::Realtime => [
            &["/response/instructions", "/session/instructions"],
            &["/response/input"],
            &["/response/tools", "/session/tools"],
        ],
        Api::Completions => [&[], &["=/prompt", "=/suffix"], &[]],
        Api::Embeddings => [&[], &["=/input", "=/texts"], &[]],
        Api::Images => [&[], &["=/prompt"], &[]],
        Api::Audio => [&["/instructions"], &["=/input"], &[]],
        Api::GenerateContent | Api::CachedContents => [
            &["/systemInstruction/parts", "/system_instruction/parts"],
            &["/contents"],
            &["/tools"],
        ],
        Api::EmbedContent => [&[], &["/content", "/requests"], &[]],
        Api::Interactions => [&["/system_instruction"], &["/input"], &["/tools"]],
        Api::InvokeModel => [
            &["/system"],
            &["/messages", "=/prompt", "=/inputText"],
            &["/tools", "/toolConfig/tools"],
        ],
        Api::Converse => [&["/system"], &["/messages"], &["/toolConfig/tools"]],
        Api::CohereChat => [
            &["/preamble"],
            &["/messages", "/chat_history", "=/message"],
            &["/tools"],
        ],
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

/// A stream that ends early tells no more than the whole one, and that it is complete only where
/// nothing was left to tell: providers differ in what they send behind the usage.
#[test]
fn a_stream_that_is_cut_is_not_complete() {
    for case in cases()
        .into_iter()
        .filter(|case| matches!(case.form, Form::EventStream | Form::Frames))
    {
        let whole = read(&case, [case.answer.as_slice()]);
        for end in 0..case.answer.len() - 2 {
            let cut = read(&case, [&case.answer[..end]]);
            assert!(cut.delta_events <= whole.delta_events);
            if cut.complete {
                assert_eq!(cut, whole, "{} up to {end}", case.name);
                assert!(end > case.answer.len() / 2, "{} up to {end}", case.name);
            }
        }
    }
}

#[test]
fn a_plain_body_beyond_the_bound_is_counted_and_not_kept() {
    for case in cases().into_iter().filter(|case| case.form == Form::Plain) {
        let padding = vec![b' '; weir_core::answer::ANSWER_BYTES_MAX];
        let fits = padding.len() - case.answer.len();
        let expected = read(&case, [case.answer.as_slice()]);
        if !case.headers.is_empty() {
            continue; // What the head tells is told all the same.
        }
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
        ("application/vnd.amazon.eventstream", Some(Form::Frames)),
        ("application/x-ndjson", Some(Form::Lines)),
        ("application/stream+json", Some(Form::Lines)),
        ("audio/mpeg", None),
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
            // Of a stream that is sent as an array, what came before is read.
            if case.answer.starts_with(b"[") {
                assert!(!answer.complete, "{} and {behind:?}", case.name);
            } else if case.headers.is_empty() {
                assert_eq!(answer, Answer::default(), "{} and {behind:?}", case.name);
            }
        }
    }
}
