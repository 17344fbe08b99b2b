//! Every provider's dialect through the whole sidecar: passed to the byte, and recorded with the
//! usage that the provider told; signed requests, and encoded ones.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir::ledger::Outcome;
use weir::process::config::Config;
use weir_core::usage::Usage;
use weir_tests::{World, encode};

use crate::replay::Replay;

#[path = "../../interceptor/core/tests/frames/mod.rs"]
mod frames;

/// A fixture of `core`.
struct Case {
    name: String,
    api: &'static str,
    host: &'static str,
    path: String,
    request: Vec<u8>,
    content_type: &'static str,
    headers: String,
    answer: Vec<u8>,
    expected: Value,
}

/// The folders of fixtures that are no part of `byte_exact`: their API, host and usual path.
const FOLDERS: &[(&str, [&str; 3])] = &[
    ("bedrock-converse", ["converse", BEDROCK, ""]),
    ("bedrock-invoke", ["invoke_model", BEDROCK, ""]),
    ("gemini", ["generate_content", GOOGLE, ""]),
    ("gemini-embeddings", ["embed_content", GOOGLE, ""]),
    (
        "gemini-caches",
        ["cached_contents", GOOGLE, "/v1beta/cachedContents"],
    ),
    (
        "gemini-interactions",
        ["interactions", GOOGLE, "/v1beta/interactions"],
    ),
    (
        "vertex-anthropic",
        ["messages", "us-east5-aiplatform.googleapis.com", ""],
    ),
    ("cohere", ["cohere_chat", "api.cohere.com", "/v2/chat"]),
    (
        "compatible",
        ["chat_completions", "", "/v1/chat/completions"],
    ),
    (
        "completions",
        ["completions", "api.mistral.ai", "/v1/completions"],
    ),
    (
        "embeddings",
        ["embeddings", "api.voyageai.com", "/v1/embeddings"],
    ),
    (
        "images",
        ["images", "api.openai.com", "/v1/images/generations"],
    ),
    (
        "audio",
        ["audio", "api.openai.com", "/v1/audio/transcriptions"],
    ),
];

const BEDROCK: &str = "bedrock-runtime.us-east-1.amazonaws.com";
const GOOGLE: &str = "generativelanguage.googleapis.com";

/// The hosts of those who speak as `OpenAI` does, by the start of a fixture's name.
const COMPATIBLE: &[(&str, &str)] = &[
    ("azure", "contoso.openai.azure.com"),
    ("cerebras", "api.cerebras.ai"),
    ("deepseek", "api.deepseek.com"),
    ("fireworks", "api.fireworks.ai"),
    ("groq", "api.groq.com"),
    ("kimi", "api.moonshot.ai"),
    ("minimax", "api.minimax.io"),
    ("mistral", "api.mistral.ai"),
    ("openrouter", "openrouter.ai"),
    ("perplexity", "api.perplexity.ai"),
    ("together", "api.together.xyz"),
    ("xai", "api.x.ai"),
    ("zhipu", "api.z.ai"),
];

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interceptor/core/tests/fixtures");
    let mut cases = Vec::new();
    for (folder, [api, host, path]) in FOLDERS {
        let found = fs::read_dir(root.join(folder)).unwrap();
        let mut found: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
        found.sort();
        cases.extend(found.iter().map(|case| read_case(case, api, host, path)));
    }
    assert!(cases.len() > 100, "{} cases", cases.len());
    cases
}

fn read_case(folder: &Path, api: &'static str, host: &'static str, path: &str) -> Case {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let host = COMPATIBLE
        .iter()
        .find(|(start, _)| host.is_empty() && name.starts_with(start))
        .map_or(host, |(_, host)| host);
    assert!(!host.is_empty(), "no host for {name}");
    let read = |name: &str| fs::read(folder.join(name)).ok();
    let path =
        read("path").map_or_else(|| path.to_owned(), |path| String::from_utf8(path).unwrap());
    let headers: Value =
        serde_json::from_slice(&read("headers.json").unwrap_or_else(|| b"{}".to_vec())).unwrap();
    let headers = headers.as_object().unwrap().iter();
    let headers = headers.map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap()));
    let (content_type, answer) = [
        ("application/json", read("answer.json")),
        ("text/event-stream", read("answer.sse")),
        ("application/stream+json", read("answer.ndjson")),
        (
            "application/vnd.amazon.eventstream",
            read("answer.frames").map(|text| frames::encode(&text)),
        ),
    ]
    .into_iter()
    .find_map(|(content_type, answer)| Some((content_type, answer?)))
    .unwrap();
    Case {
        name: folder.display().to_string(),
        api,
        host,
        path: path.trim().to_owned(),
        request: read("request.json")
            .or_else(|| read("request.form"))
            .unwrap(),
        content_type,
        headers: headers.collect(),
        answer,
        expected: serde_json::from_slice(&read("expected.json").unwrap()).unwrap(),
    }
}

fn post(host: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer in chunks of `cut` bytes.
fn chunked(content_type: &str, headers: &str, body: &[u8], cut: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{headers}Transfer-Encoding: \
         chunked\r\n\r\n"
    );
    let chunks = body
        .chunks(cut)
        .map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let chunks: Vec<Vec<u8>> = chunks.collect();
    [head.as_bytes(), &chunks.concat(), b"0\r\n\r\n"].concat()
}

const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261125/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=0123456789abcdef\r\n";

#[tokio::test]
async fn every_dialect_passes_and_is_recorded_with_the_usage_that_was_told() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    for case in cases() {
        let mut client = world.http1(server.addr, case.host).await;
        let signature = if case.host == BEDROCK { SIGNED } else { "" };
        client
            .send(post(case.host, &case.path, signature, &case.request))
            .await;
        let answer = chunked(case.content_type, &case.headers, &case.answer, 11);
        let asked = server.answer(answer).await;
        let answered = client.message().await;
        let record = world.record().await;
        let name = &case.name;
        assert!(asked.body == case.request, "the request of {name}");
        assert!(answered.body == case.answer, "the answer of {name}");
        assert_eq!(record.api, case.api, "{name}");
        assert_eq!(record.edits, [], "{name}");
        let call = &case.expected["call"];
        assert_eq!(
            record.model_requested.as_deref(),
            call["model"].as_str(),
            "{name}"
        );
        assert_eq!(record.stream, call["stream"] == true, "{name}");
        let told = &case.expected["answer"];
        if told["error"].is_string() {
            assert_eq!(record.outcome, Outcome::ProviderError, "{name}");
        } else if told["complete"] == true {
            assert_eq!(record.outcome, Outcome::Completed, "{name}");
            let usage: Option<Usage> = serde_json::from_value(told["usage"].clone()).unwrap();
            assert_eq!(record.usage, usage, "{name}");
        } else {
            assert_eq!(record.outcome, Outcome::Truncated, "{name}");
        }
    }
    world.no_more_records().await;
}

const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const USAGE: &str = "data: {\"model\":\"gpt-6-sol\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\
     \"completion_tokens\":1,\"total_tokens\":10}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const UNASKED: &str = "{\"model\":\"gpt-6-sol\",\"messages\":[],\"stream\":true}";
const ASKED: &str = "{\"stream_options\":{\"include_usage\":true},\"model\":\"gpt-6-sol\",\
     \"messages\":[],\"stream\":true}";

#[tokio::test]
async fn an_encoded_request_is_edited_and_encoded_again() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let host = "api.openai.com";
    let mut client = world.http1(server.addr, host).await;
    for encoding in encode::ENCODINGS {
        let token = encode::token(encoding);
        let headers = format!("Content-Encoding: {token}\r\nX-Last: 1\r\n");
        let body = encode::encode(encoding, UNASKED.as_bytes());
        client
            .send(post(host, "/v1/chat/completions", &headers, &body))
            .await;
        let whole = [STREAM, USAGE, DONE].concat();
        let asked = server
            .answer(chunked("text/event-stream", "", whole.as_bytes(), 40))
            .await;
        let sent = encode::decode(token, &asked.body);
        assert_eq!(String::from_utf8(sent).unwrap(), ASKED, "{encoding}");
        let length = format!("\r\ncontent-length: {}\r\n", asked.body.len());
        assert!(asked.head.contains(&length), "{encoding}: {}", asked.head);
        assert!(asked.head.contains(&headers), "{encoding}: {}", asked.head);
        let answered = client.message().await;
        assert_eq!(
            answered.body,
            [STREAM, DONE].concat().as_bytes(),
            "{encoding}"
        );
        let record = world.record().await;
        assert_eq!(record.edits[0].rule, "ask_for_usage", "{encoding}");
        assert_eq!(record.usage.unwrap().prompt(), 9, "{encoding}");
        assert_eq!(record.outcome, Outcome::Completed, "{encoding}");
    }
}

#[tokio::test]
async fn a_signed_request_is_never_edited_and_recorded_all_the_same() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let host = "api.openai.com";
    let mut client = world.http1(server.addr, host).await;
    let path = "/v1/chat/completions";
    for (path, headers, edited) in [
        (path, "", true),
        (path, SIGNED, false),
        (path, "Content-Digest: sha-256=:x:\r\n", false),
        (
            "/v1/chat/completions?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=01ab",
            "",
            false,
        ),
    ] {
        client
            .send(post(host, path, headers, UNASKED.as_bytes()))
            .await;
        // A provider may tell usage without being asked.
        let whole = [STREAM, USAGE, DONE].concat();
        let asked = server
            .answer(chunked("text/event-stream", "", whole.as_bytes(), 40))
            .await;
        let expected = if edited { ASKED } else { UNASKED };
        assert_eq!(
            String::from_utf8(asked.body).unwrap(),
            expected,
            "{headers}"
        );
        let answered = client.message().await;
        let usage = if edited { "" } else { USAGE };
        assert_eq!(answered.body, [STREAM, usage, DONE].concat().as_bytes());
        let record = world.record().await;
        assert_eq!(record.edits.is_empty(), !edited);
        assert_eq!(record.usage.unwrap().prompt(), 9);
        assert!(record.cost.spent() > weir_core::money::Money::ZERO);
    }
}
