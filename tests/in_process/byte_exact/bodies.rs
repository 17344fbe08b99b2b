//! Bodies: lengths, chunks, trailers, ends without a length, and edits.

use http::Version;
use serde_json::Value;
use weir::ledger::Outcome;
use weir::process::config::Config;
use weir_tests::{Api, Client, World, encode};

use super::{HOST, post};
use crate::replay::Replay;

const CHUNKED: &str = "POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\n\
    Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A body of `length` bytes that is a call where it is long enough for one.
fn body(length: usize) -> String {
    let (start, end) = ("{\"model\":\"m\",\"messages\":[\"", "\"]}");
    match length.checked_sub(start.len() + end.len()) {
        Some(rest) => format!("{start}{}{end}", "x".repeat(rest)),
        None => "[".repeat(length),
    }
}

/// `body` in chunks of `size` bytes.
fn chunks(body: &str, size: usize) -> String {
    let chunks = body.as_bytes().chunks(size);
    let chunks = chunks.map(|chunk| {
        let data = String::from_utf8_lossy(chunk);
        format!("{:x};ext=1\r\n{data}\r\n", chunk.len())
    });
    chunks.chain(["0\r\n\r\n".to_owned()]).collect()
}

#[tokio::test]
async fn bodies_of_any_length_pass_both_ways_with_a_length_and_in_chunks() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    for length in [0, 1, 2, 30, 31, 1000, 16_384, 65_537, 3 << 20] {
        let body = body(length);
        for path in ["/v1/messages", "/v1/elsewhere"] {
            let heads = [
                post(path, "", &body),
                format!(
                    "{}{}",
                    CHUNKED.replace("/v1/messages", path),
                    chunks(&body, 5000)
                ),
            ];
            for request in heads {
                let answer_head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let answer = format!("{answer_head}{}", chunks(&body, 1 + length / 7));
                let (sent, found) = tokio::join!(client.try_send(&request), server.answer(&answer));
                sent.unwrap();
                let head = request.split_once("\r\n\r\n").unwrap().0;
                // A call without a body needs no transfer coding.
                if length > 0 || path != "/v1/messages" {
                    assert_eq!(found.head, format!("{head}\r\n\r\n"));
                }
                assert!(found.body == body.as_bytes(), "{length} bytes to {path}");
                let found = client.message().await;
                assert_eq!(found.head, answer_head);
                assert!(found.body == body.as_bytes(), "{length} bytes from {path}");
                let record = world.record().await;
                assert_eq!(record.response_bytes, u64::try_from(length).unwrap());
            }
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    for (path, body) in [("/v1/messages", "{\"model\":\"m\"}"), ("/v1/x", "abc")] {
        let size = body.len();
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nhost: {HOST}\r\nte: trailers\r\nTrailer: x-checksum, \
                 x-more\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\
                 x-checksum: abc\r\nx-more: 1\r\n\r\n"
            ))
            .await;
        let found = server
            .answer(
                "HTTP/1.1 200 OK\r\ntrailer: x-done\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n\
                 0\r\nx-done: yes\r\n\r\n",
            )
            .await;
        assert_eq!(found.body, body.as_bytes());
        assert_eq!(
            found.trailers, "x-checksum: abc\r\nx-more: 1\r\n",
            "to {path}"
        );
        let found = client.message().await;
        assert_eq!(found.body, b"ok");
        assert_eq!(found.trailers, "x-done: yes\r\n", "from {path}");
        world.record().await;
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_arrives_whole() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    client
        .send(post("/v1/messages", "", "{\"model\":\"m\"}"))
        .await;
    let text = "{\"id\":\"msg_1\",\"type\":\"message\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}";
    server
        .answer(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{text}"
        ))
        .await;
    let found = client.message().await;
    assert_eq!(String::from_utf8_lossy(&found.body), text);
    let record = world.record().await;
    assert_eq!(record.outcome, Outcome::Completed);
    assert_eq!(record.usage.unwrap().output, 4);
}

/// A stream of Chat Completions as a provider sends it to who asked for its usage.
const STREAM: &str = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
    : ping\n\ndata: {\"id\":\"c\",\"choices\":[{\"delta\":{}}],\"usage\":null,\"new\":[]}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"model\":\"gpt-6-sol\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A call that does not ask for its usage, with the edit of it.
const UNASKED: [(&str, &str); 4] = [
    (
        "{\"model\":\"gpt-6-sol\",\"stream\":true,\"messages\":[]}",
        "{\"stream_options\":{\"include_usage\":true},\"model\":\"gpt-6-sol\",\"stream\":true,\"messages\":[]}",
    ),
    (
        " {\n\"stream\" : true, \"stream_options\" : {}, \"model\":\"gpt-6-sol\" , \"x\":[1.0 ]}\n",
        " {\n\"stream\" : true, \"stream_options\" : {\"include_usage\":true}, \"model\":\"gpt-6-sol\" , \"x\":[1.0 ]}\n",
    ),
    (
        "{\"model\":\"gpt-6-sol\",\"stream\":true,\"stream_options\":{\"include_usage\":false,\"a\":1}}",
        "{\"model\":\"gpt-6-sol\",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"a\":1}}",
    ),
    (
        "{\"model\":\"gpt-6-sol\",\"stream\":true,\"stream_options\":null}",
        "{\"model\":\"gpt-6-sol\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
    ),
];

#[tokio::test]
async fn a_stream_that_would_not_tell_its_usage_is_asked_and_the_chunk_taken_out() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, "api.openai.com").await;
    for (original, edited) in UNASKED {
        for cut in [1, 3, 50, 1 << 20] {
            client
                .send(post("/v1/chat/completions", "", original))
                .await;
            let events = chunks(&format!("{STREAM}{USAGE}{DONE}"), cut);
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: \
                 chunked\r\n\r\n{events}"
            );
            let found = server.answer(answer).await;
            let sent = post("/v1/chat/completions", "", edited);
            assert_eq!(found.head, sent.strip_suffix(edited).unwrap());
            assert_eq!(String::from_utf8_lossy(&found.body), edited);
            let found = client.message().await;
            assert_eq!(
                String::from_utf8_lossy(&found.body),
                format!("{STREAM}{DONE}")
            );
            let record = world.record().await;
            assert_eq!(record.edits.len(), 1);
            assert_eq!(record.edits[0].rule, "ask_for_usage");
            assert_eq!(record.usage.unwrap().prompt(), 9);
            assert_eq!(record.outcome, Outcome::Completed);
        }
    }
}

#[tokio::test]
async fn no_answer_is_touched_that_is_no_plain_stream_though_usage_was_asked_for() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, "api.openai.com").await;
    let stream = format!("{STREAM}{USAGE}{DONE}");
    let usage = USAGE.trim_start_matches("data: ");
    for (content_type, encoding, plain) in [
        (
            "application/json",
            "identity",
            "{\"error\":{\"message\":\"no\"}}",
        ),
        ("application/json", "identity", usage),
        ("text/html", "identity", stream.as_str()),
        ("text/event-stream", "gzip", &stream),
        ("text/event-stream", "zstd", &stream),
    ] {
        client
            .send(post(
                "/v1/chat/completions",
                "Accept-Encoding: gzip, zstd\r\n",
                UNASKED[0].0,
            ))
            .await;
        let body = encode::encode(encoding, plain.as_bytes());
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: {content_type}\r\n\
             Content-Encoding: {encoding}\r\nX-Last: 1\r\n\r\n",
            body.len()
        );
        let found = server.answer([head.as_bytes(), &body].concat()).await;
        assert!(
            found.head.contains("\r\nAccept-Encoding: identity\r\n"),
            "{}",
            found.head
        );
        let found = client.message().await;
        assert_eq!(found.head, head);
        assert!(found.body == body, "{content_type} {encoding}");
        let rules: Vec<String> = world
            .record()
            .await
            .edits
            .iter()
            .map(|edit| edit.rule.clone())
            .collect();
        assert_eq!(rules, ["ask_for_usage", "accept-encoding"]);
    }
}

#[tokio::test]
async fn with_observe_nothing_is_edited() {
    let server = Replay::start().await;
    let config = Config {
        observe: true,
        ..Config::default()
    };
    let world = World::start(&[&server.ca_pem], config);
    let mut client = world.http1(server.addr, "api.openai.com").await;
    client
        .send(post(
            "/v1/chat/completions",
            "accept-encoding: br\r\n",
            UNASKED[0].0,
        ))
        .await;
    let found = server
        .answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert_eq!(String::from_utf8_lossy(&found.body), UNASKED[0].0);
    assert!(found.head.contains("accept-encoding: br\r\n"));
    client.message().await;
    assert_eq!(world.record().await.edits, []);
}

#[tokio::test]
async fn both_versions_of_http_are_mirrored() {
    let simulator = weir_simulator::Simulator::start(weir_simulator::Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for api in Api::ALL {
            let mut client = Client::connect(&world, simulator.addr(), api.host(), version).await;
            let body = api.call("how deep is the river?", false);
            let (status, answer) = client.ask(api, &body).await;
            assert_eq!(status, 200);
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let record = world.record().await;
            assert_eq!(record.model_answered.as_deref(), answer["model"].as_str());
            let received = simulator.received().pop().unwrap();
            assert_eq!(received.version, version);
            assert_eq!(received.body, body.to_string());
        }
    }
}
