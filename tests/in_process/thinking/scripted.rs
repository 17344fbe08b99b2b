//! What is sent again, and what the application gets of it, byte by byte.

use std::fmt::Write as _;

use http::Version;
use serde_json::{Value, json};
use weir::process::config::CacheMode;
use weir_simulator::{Options, Simulator};
use weir_tests::encode::{decode, encode};
use weir_tests::{Api, KEY, Scripted, World};

use super::{Agent, DATE, config, moved, sent_again};

/// A turn of a conversation that Weir does not know, with thinking in it.
fn unknown_body() -> String {
    let mut agent = Agent::new("claude-opus-5-5", "Begin.");
    let thinking = json!({ "type": "thinking", "thinking": "Well.", "signature": "c2lnbmVk" });
    let content = json!([thinking, { "type": "text", "text": "Yes." }]);
    agent
        .messages
        .push(json!({ "role": "assistant", "content": content }));
    agent.says("Go on.");
    agent.body(DATE).to_string()
}

/// The same in the words of OpenRouter's chat completions.
fn unknown_chat() -> String {
    let body: Value = serde_json::from_str(&unknown_body()).unwrap();
    let mut messages = body["messages"].as_array().unwrap().clone();
    messages[1] = json!({ "role": "assistant", "content": "Yes.", "reasoning_details": [
        { "type": "reasoning.text", "text": "Well.", "signature": "c2lnbmVk" }] });
    messages[0]["content"] = json!("Begin elsewhere.");
    let system = json!({ "role": "system", "content": body["system"] });
    messages.insert(0, system);
    let model = "anthropic/claude-opus-5.5";
    json!({ "model": model, "reasoning": { "effort": "high" }, "messages": messages }).to_string()
}

/// A call to `host` with more fields in its head.
fn call(host: &str, path: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn unknown_turn(more: &str) -> Vec<u8> {
    let more = format!("X-Api-Key: sk-ant-api03-test\r\n{more}");
    let body = unknown_body();
    call(Api::Messages.host(), "/v1/messages", &more, body.as_bytes())
}

const REFUSED: &str = "{\"type\":\"error\", \"error\":{\"message\":\"messages.1.content.0: Invalid `signature` in \
    `thinking` block. The block is bound to a different conversation: the system prompt differs\"}}";

/// A head and a body, in an encoding, whose length is announced or not.
fn error(status: &str, encoding: &str, body: &str, is_chunked: bool) -> Vec<u8> {
    let body = encode(encoding, body.as_bytes());
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Odd: 1,2\r\n");
    if encoding != "identity" {
        let _infallible = write!(head, "Content-Encoding: {encoding}\r\n");
    }
    if !is_chunked {
        let _infallible = write!(head, "Content-Length: {}\r\n\r\n", body.len());
        return [head.as_bytes(), &body].concat();
    }
    head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    let mut sent = head.into_bytes();
    for piece in body.chunks(50) {
        sent.extend(format!("{:x}\r\n", piece.len()).bytes());
        sent.extend(piece);
        sent.extend(b"\r\n");
    }
    sent.extend(b"0\r\n\r\n");
    sent
}

#[tokio::test]
async fn a_refusal_that_counts_is_passed_on_as_it_came_however_it_is_cut_and_encoded() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], config(CacheMode::Rewrite, ""));
    for second in ["400 Bad Request", "403 Forbidden", "413 Content Too Large"] {
        for encoding in ["identity", "gzip", "br"] {
            for is_chunked in [false, true] {
                let mut client = world.http1(server.addr, Api::Messages.host()).await;
                client.send(unknown_turn("")).await;
                let mut upstream = server.accept().await;
                let came = upstream.message().await;
                let refused = error("400 Bad Request", encoding, REFUSED, is_chunked);
                upstream.send(&refused).await;
                let again = upstream.message().await;
                let again = (again.head, String::from_utf8(again.body).unwrap());
                assert!(again.1.contains("[see <current-date>"), "{}", again.1);
                assert!(!String::from_utf8(came.body).unwrap().contains("[see"));
                let without_length = |head: &str| {
                    let lines = head.lines();
                    let kept = lines.filter(|line| !line.starts_with("Content-Length"));
                    kept.collect::<Vec<_>>().join("\n")
                };
                assert_eq!(without_length(&again.0), without_length(&came.head));
                upstream
                    .send(&error(second, "identity", "{\"no\":1}", false))
                    .await;
                let found = client.message().await;
                let body = encode(encoding, REFUSED.as_bytes());
                assert_eq!(found.body, body, "{second} {encoding} {is_chunked}");
                let head = String::from_utf8_lossy(&refused);
                let head = head.split("\r\n\r\n").next().unwrap();
                assert_eq!(found.head.trim_end(), head);
                assert_eq!(world.record().await.status, Some(400));
            }
        }
    }
    world.no_more_records().await;
}

#[tokio::test]
async fn every_host_that_hands_the_refusal_on_gets_the_other_form() {
    const BEDROCK: &str = "bedrock-runtime.us-east-1.amazonaws.com";
    const INVOKE: &str = "/model/us.anthropic.claude-opus-5-5/invoke";
    const CHAT: &str = "/api/v1/chat/completions";
    const VERTEX: &str = "us-east5-aiplatform.googleapis.com";
    const PREDICT: &str = "/v1/projects/p/locations/us-east5/publishers/anthropic/models/\
                           claude-opus-5-5:streamRawPredict";
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], config(CacheMode::Rewrite, ""));
    let inside = |text: &str| json!({ "message": text, "raw": REFUSED }).to_string();
    let bearer = "Authorization: Bearer ABSKtest\r\n";
    let login = "Authorization: Bearer ya29.test\r\n";
    let router = "Authorization: Bearer sk-or-v1-test\r\n";
    for (host, path, more, encoding) in [
        (BEDROCK, INVOKE, bearer, "identity"),
        (VERTEX, PREDICT, login, "gzip"),
        ("openrouter.ai", "/api/v1/messages", router, "zstd"),
        ("openrouter.ai", CHAT, router, "identity"),
    ] {
        let version = r#"{"anthropic_version":"bedrock-2023-05-31","#;
        let body = match path {
            CHAT => unknown_chat(),
            _ => unknown_body().replacen('{', version, 1),
        };
        let encoded = encode(encoding, body.as_bytes());
        let more = match encoding {
            "identity" => more.to_owned(),
            _ => format!("{more}Content-Encoding: {encoding}\r\n"),
        };
        let mut client = world.http1(server.addr, host).await;
        client.send(call(host, path, &more, &encoded)).await;
        let mut upstream = server.accept().await;
        let is_as_it_came = upstream.message().await.body == encoded;
        assert!(is_as_it_came, "{host}{path}");
        let refused = error("400 Bad Request", "identity", &inside("Bad."), false);
        upstream.send(&refused).await;
        let again = upstream.message().await;
        let again = String::from_utf8(decode(encoding, &again.body)).unwrap();
        assert!(again.contains("[see <current-date>"), "{host}: {again}");
        upstream
            .send(&error("200 OK", "identity", "{\"yes\":1}", true))
            .await;
        assert_eq!(client.message().await.body, b"{\"yes\":1}", "{host}");
        let record = world.record().await;
        assert_eq!(record.status, Some(200), "{host}");
        let edits = record.edits.iter().map(|edit| edit.rule.as_str());
        let edits: Vec<&str> = edits.filter(|rule| *rule != "accept-encoding").collect();
        assert_eq!(edits.len(), 2, "{host}: {edits:?}");
    }
    world.no_more_records().await;
}

#[tokio::test]
async fn nothing_else_is_sent_again() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], config(CacheMode::Rewrite, ""));
    let invalid = "Invalid `signature` in `thinking` block";
    let tampered = format!("{{\"error\":{{\"message\":\"{invalid}\"}}}}");
    let long = format!("{REFUSED}{}", " ".repeat(80 << 10));
    let signed = "Signature: sig1=:aGFzaA==:\r\n";
    for (what, status, body, more) in [
        ("another reason", "400 Bad Request", "{\"error\":{}}", ""),
        (
            "a signature that is none",
            "400 Bad Request",
            &*tampered,
            "",
        ),
        ("another status", "422 Unprocessable Content", REFUSED, ""),
        ("an error that is too long", "400 Bad Request", &*long, ""),
        (
            "a request that is signed",
            "400 Bad Request",
            REFUSED,
            signed,
        ),
    ] {
        for is_chunked in [false, true] {
            let mut client = world.http1(server.addr, Api::Messages.host()).await;
            client.send(unknown_turn(more)).await;
            let mut upstream = server.accept().await;
            upstream.message().await;
            upstream
                .send(&error(status, "identity", body, is_chunked))
                .await;
            let found = client.message().await;
            assert_eq!(found.body, body.as_bytes(), "{what}");
            let record = world.record().await;
            let again = |reason: &String| reason.starts_with("sent_again");
            assert!(!record.reasons.iter().any(again), "{what}");
            drop(client);
        }
    }
}

#[tokio::test]
async fn what_comes_of_the_other_form_counts_if_it_may_have_been_taken() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], config(CacheMode::Rewrite, ""));
    for status in [Some(529), None] {
        let mut client = world.http1(server.addr, Api::Messages.host()).await;
        client.send(unknown_turn("")).await;
        let mut upstream = server.accept().await;
        upstream.message().await;
        let refused = error("400 Bad Request", "gzip", REFUSED, true);
        upstream.send(&refused).await;
        upstream.message().await;
        if status.is_some() {
            let overloaded = error("529 Overloaded", "identity", "{\"wait\":1}", false);
            upstream.send(&overloaded).await;
            assert_eq!(client.message().await.body, b"{\"wait\":1}");
        }
        drop(upstream);
        let record = world.record().await;
        assert_eq!(record.status, status);
        // It may have been worked on where nothing came.
        let is_paid = record.cost.spent().nanos() > 0;
        assert_eq!(is_paid, status.is_none(), "{:?}", record.cost);
    }
    assert_eq!(sent_again(&world, "not_answered"), 1);
    world.no_more_records().await;
}

#[tokio::test]
async fn of_several_refusals_the_application_gets_that_of_what_it_sent_itself() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let (agent, state) = moved(&simulator, Version::HTTP_11).await;
    let server = Scripted::http1().await;
    let world = World::continued(state, &[&server.ca_pem], config(CacheMode::Rewrite, ""));
    let mut client = world.http1(server.addr, Api::Messages.host()).await;
    let body = agent.body(DATE).to_string();
    let key = format!("Authorization: Bearer {KEY}\r\n");
    client
        .send(call(
            Api::Messages.host(),
            "/v1/messages",
            &key,
            body.as_bytes(),
        ))
        .await;
    let mut upstream = server.accept().await;
    let first = String::from_utf8(upstream.message().await.body).unwrap();
    assert!(first.contains("[see <current-date>"), "{first}");
    upstream
        .send(&error("400 Bad Request", "gzip", REFUSED, true))
        .await;
    assert!(upstream.message().await.body == body.as_bytes());
    let own = format!("{REFUSED}\n");
    upstream
        .send(&error("400 Bad Request", "identity", &own, false))
        .await;
    assert_eq!(client.message().await.body, own.as_bytes());
    let record = world.record().await;
    assert!(record.edits.is_empty(), "{:?}", record.edits);
    assert_eq!(record.response_bytes, own.len() as u64);
    assert!(record.reasons.contains(&"sent_again_in_vain".to_owned()));
    world.no_more_records().await;
}
