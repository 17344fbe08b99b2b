//! Conversations whose model thinks: where it binds its signatures to the history, they go on whatever Weir remembers of them.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{StatusCode, Version};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::process::config::{Cache, CacheMode, Config};
use weir_simulator::{Options, Simulator};
use weir_tests::encode::{decode, encode};
use weir_tests::{Api, Client, Scripted, World};

fn config(mode: CacheMode, rules: &str) -> Config {
    Config {
        cache: Cache {
            mode,
            rules: rules.to_owned(),
            ..Cache::default()
        },
        ..Config::default()
    }
}

/// An agent with a date in its system prompt.
struct Agent {
    model: &'static str,
    /// Whether thinking is switched on.
    thinks: bool,
    messages: Vec<Value>,
}

impl Agent {
    fn new(model: &'static str, first: &str) -> Self {
        let mut agent = Self {
            model,
            thinks: true,
            messages: Vec::new(),
        };
        agent.says(first);
        agent
    }

    fn says(&mut self, text: &str) {
        let think = if self.thinks { "think=20 " } else { "" };
        let text = format!("{text} [[sim: {think}tokens=10]]");
        self.messages
            .push(json!({ "role": "user", "content": text }));
    }

    fn body(&self, date: &str) -> Value {
        let mut manual = String::new();
        for rule in 0..400 {
            let _infallible = writeln!(manual, "{rule}. Say what you do before you do it.");
        }
        let system = format!("You are an agent.\nToday's date: {date}\n{manual}");
        let kind = if self.thinks { "adaptive" } else { "disabled" };
        json!({
            "model": self.model, "max_tokens": 200, "thinking": { "type": kind },
            "system": [{ "type": "text", "text": system, "cache_control": { "type": "ephemeral" } }],
            "messages": self.messages,
        })
    }

    async fn turn(&mut self, client: &mut Client, date: &str) -> (StatusCode, Bytes) {
        let (status, answer) = client.ask(Api::Messages, &self.body(date)).await;
        if status == StatusCode::OK {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let content = &answer["content"];
            self.messages
                .push(json!({ "role": "assistant", "content": content }));
            let turns = self.messages.len();
            self.says(&format!("Go on {turns}."));
        }
        (status, answer)
    }
}

async fn client(world: &World, simulator: &Simulator) -> Client {
    connect(world, simulator, Version::HTTP_11).await
}

async fn connect(world: &World, simulator: &Simulator, version: Version) -> Client {
    Client::connect(world, simulator.addr(), Api::Messages.host(), version).await
}

#[tokio::test]
async fn values_are_moved_where_a_model_that_thinks_is_known_not_to_bind_its_history() {
    for (model, is_moved) in [
        ("claude-sonnet-5", true),
        ("claude-sonnet-4-6", true),
        ("claude-sonnet-5-5", false),
    ] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
        let mut client = client(&world, &simulator).await;
        for date in ["2026-06-15", "2026-06-16", "2026-06-17"] {
            let mut agent = Agent::new(model, &format!("Begin on {date}."));
            for turn in 0..2 {
                let (status, _) = agent.turn(&mut client, date).await;
                assert_eq!(status, StatusCode::OK, "{model}, turn {turn}");
            }
        }
        let last = simulator.received().pop().unwrap();
        let last = String::from_utf8(last.body.to_vec()).unwrap();
        assert_eq!(last.contains("[see <current-date>"), is_moved, "{model}");
        // The first call of the last conversation reads what the one before wrote.
        let begun = &simulator.bill()[4].usage;
        assert_eq!(begun.cache_read > 0, is_moved, "{model}: {begun:?}");
    }
}

const DATE: &str = "2026-06-17";

/// The turns of a conversation whose date is moved, before and after thinking is switched on: all that
/// comes after is bound to what Weir made of it.
async fn moved(simulator: &Simulator, version: Version) -> (Agent, TempDir) {
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
    let mut client = connect(&world, simulator, version).await;
    let new = |first: &str| {
        let mut agent = Agent::new("claude-opus-5-5", "");
        agent.thinks = false;
        agent.messages.clear();
        agent.says(first);
        agent
    };
    for date in ["2026-06-15", "2026-06-16"] {
        let mut other = new(&format!("Begin on {date}."));
        assert_eq!(other.turn(&mut client, date).await.0, StatusCode::OK);
    }
    let mut agent = new("Begin.");
    assert_eq!(agent.turn(&mut client, DATE).await.0, StatusCode::OK);
    agent.thinks = true;
    agent.messages.pop();
    agent.says("Think.");
    assert_eq!(agent.turn(&mut client, DATE).await.0, StatusCode::OK);
    drop(client);
    (agent, world.stop().await)
}

/// How often a call was sent again, by what came of it.
fn sent_again(world: &World, result: &str) -> u64 {
    world.metric(&format!(
        "weir_sent_again_calls_total{{result=\"{result}\"}}"
    ))
}

#[tokio::test]
async fn a_conversation_whose_memory_is_lost_is_refused_once_unseen_and_goes_on_as_it_was_moved() {
    const OTHER_RULES: &str = "[[rule]]\nname = \"working-directory\"\ntransform = \"keep\"\n";
    for (version, rules) in [(Version::HTTP_11, OTHER_RULES), (Version::HTTP_2, "")] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let (mut agent, lost) = moved(&simulator, version).await;
        drop(lost);
        let mut state = TempDir::new().unwrap();
        for turn in 0..3 {
            let before = simulator.received().len();
            let rules = config(CacheMode::Rewrite, rules);
            let world = World::continued(state, &[simulator.ca_pem()], rules);
            let mut client = connect(&world, &simulator, version).await;
            let (status, answer) = agent.turn(&mut client, DATE).await;
            assert_eq!(status, StatusCode::OK, "turn {turn}: {answer:?}");
            let record = world.record().await;
            let received = simulator.received().split_off(before);
            let last = String::from_utf8(received.last().unwrap().body.to_vec()).unwrap();
            assert!(last.contains("[see <current-date>"), "{last}");
            // Only the first turn after the loss is refused: what it goes by is remembered.
            let again = usize::from(turn == 0);
            assert_eq!(received.len(), 1 + again, "turn {turn}");
            assert_eq!(sent_again(&world, "anew"), u64::try_from(again).unwrap());
            let said = record.reasons.contains(&"sent_again_anew".to_owned());
            assert_eq!(said, turn == 0, "{:?}", record.reasons);
            assert_eq!(record.status, Some(200));
            let mut rules: Vec<&str> = record.edits.iter().map(|e| e.rule.as_str()).collect();
            rules.sort_unstable();
            rules.retain(|rule| *rule != "cache-breakpoint");
            assert_eq!(rules, ["context-values", "current-date"], "turn {turn}");
            let billed = simulator.bill().pop().unwrap();
            let nanos = record.cost.spent().nanos();
            assert_eq!(nanos, billed.nanodollars.cast_signed(), "turn {turn}");
            world.no_more_records().await;
            drop(client);
            state = world.stop().await;
        }
    }
}

#[tokio::test]
async fn a_conversation_that_went_on_without_weir_goes_on_as_it_came() {
    for mode in [CacheMode::Rewrite, CacheMode::Observe, CacheMode::Off] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let (mut agent, mut state) = moved(&simulator, Version::HTTP_11).await;
        // Without what was signed for its history as Weir made it.
        agent.messages.truncate(2);
        agent.says("Think without it.");
        let without = World::start(&[simulator.ca_pem()], config(CacheMode::Off, ""));
        let mut client_without = client(&without, &simulator).await;
        assert_eq!(
            agent.turn(&mut client_without, DATE).await.0,
            StatusCode::OK
        );
        for turn in 0..3 {
            let before = simulator.received().len();
            let world = World::continued(state, &[simulator.ca_pem()], config(mode, ""));
            let mut client = client(&world, &simulator).await;
            let (status, answer) = agent.turn(&mut client, DATE).await;
            assert_eq!(status, StatusCode::OK, "turn {turn}: {answer:?}");
            let again = usize::from(turn == 0);
            let received = simulator.received().split_off(before);
            assert_eq!(received.len(), 1 + again, "{mode:?}, turn {turn}");
            let last = String::from_utf8(received.last().unwrap().body.to_vec()).unwrap();
            assert!(!last.contains("context_values"), "{last}");
            assert_eq!(
                sent_again(&world, "as_it_came"),
                u64::try_from(again).unwrap()
            );
            let record = world.record().await;
            let moved = |edit: &&str| *edit != "cache-breakpoint";
            let rules = record.edits.iter().map(|edit| edit.rule.as_str());
            assert_eq!(rules.filter(moved).count(), 0, "{:?}", record.edits);
            drop(client);
            state = world.stop().await;
        }
    }
}

#[tokio::test]
async fn a_mode_that_edits_nothing_sends_nothing_again_that_it_does_not_remember() {
    for mode in [CacheMode::Observe, CacheMode::Off] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let (mut agent, lost) = moved(&simulator, Version::HTTP_11).await;
        drop(lost);
        let before = simulator.received().len();
        let world = World::start(&[simulator.ca_pem()], config(mode, ""));
        let mut client = client(&world, &simulator).await;
        let (status, _) = agent.turn(&mut client, DATE).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(simulator.received().len(), before + 1);
    }
}

#[tokio::test]
async fn where_the_other_form_is_refused_too_the_record_says_so_once_and_nothing_is_spent() {
    refused_twice(Version::HTTP_11).await;
    refused_twice(Version::HTTP_2).await;
}

async fn refused_twice(version: Version) {
    let simulator = Simulator::start(Options::default()).unwrap();
    let (mut agent, lost) = moved(&simulator, version).await;
    drop(lost);
    let before = simulator.received().len();
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
    let mut client = connect(&world, &simulator, version).await;
    // The client's own prompt is another one.
    let (status, answer) = agent.turn(&mut client, "2026-06-18").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&answer).contains("bound to a different conversation"));
    assert_eq!(simulator.received().len(), before + 2);
    let record = world.record().await;
    assert_eq!(record.status, Some(400));
    assert_eq!(record.cost.spent().nanos(), 0);
    assert!(record.reasons.contains(&"sent_again_in_vain".to_owned()));
    assert!(record.edits.is_empty(), "{:?}", record.edits);
    assert_eq!(sent_again(&world, "in_vain"), 1);
    world.no_more_records().await;
}

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
