//! What a session is: the calls of one count together, however it is named, and those of others do not.

use http::Version;
use serde_json::{Value, json};
use weir::ledger::Record;
use weir::process::config::{Cap, CapKind, Config, Dimension, Window};
use weir_core::money::Money;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World, request};

use crate::caps::{NANOS_PER_CENT, with};
use crate::replay::Replay;

/// Stops a session that spends more than six cents: six of these calls, or a little more.
fn breaker() -> Config {
    with(Cap {
        per: vec![Dimension::Session],
        breaker: true,
        kind: CapKind::Expected,
        ..Cap::new(
            "a session that runs away",
            Window::Day,
            Money::from_nanos(6 * NANOS_PER_CENT),
        )
    })
}

/// Costs a cent.
const CALL: &str = "[[sim: tokens=1000]]";
/// More calls than any session may make.
const CALLS_MAX: usize = 20;

/// The id of a response, plain or streamed.
fn id_of(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let (_, id) = text.split_once(r#""id":"resp_"#).unwrap();
    format!("resp_{}", id.split('"').next().unwrap())
}

/// Calls that each continue the answer before, until one is refused; the ids of the answers.
async fn chain_until_refused(client: &mut Client, stream: bool) -> Vec<String> {
    let mut ids = Vec::<String>::new();
    while ids.len() < CALLS_MAX {
        let mut call = Api::Responses.call(CALL, stream);
        call["previous_response_id"] = ids.last().cloned().into();
        let (status, answer) = client.ask(Api::Responses, &call).await;
        if status == 429 {
            break;
        }
        assert_eq!(status, 200);
        ids.push(id_of(&answer));
    }
    ids
}

#[tokio::test]
async fn a_chain_of_responses_is_one_session_under_a_breaker() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let api = Api::Responses;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for stream in [false, true] {
            let world = World::start(&[simulator.ca_pem()], breaker());
            let mut client = Client::connect(&world, simulator.addr(), api.host(), version).await;
            let ids = chain_until_refused(&mut client, stream).await;
            assert!((4..=9).contains(&ids.len()), "{} calls passed", ids.len());
            let first = world.record().await;
            assert_eq!(first.session, None);
            for _ in 1..=ids.len() {
                assert_eq!(world.record().await.session.as_ref(), ids.first());
            }
            // Another chain has an account of its own.
            let other = chain_until_refused(&mut client, stream).await;
            assert!(other.len() > 3, "{} calls passed", other.len());
        }
    }
}

#[tokio::test]
async fn sessions_that_a_header_names_do_not_share_an_account() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], breaker());
    for (api, header) in [
        (Api::Messages, "x-claude-code-session-id"),
        (Api::Responses, "session_id"),
        (Api::Chat, "x-session-id"),
    ] {
        let mut client =
            Client::connect(&world, simulator.addr(), api.host(), Version::HTTP_11).await;
        for session in ["one", "other"] {
            let session = format!("{session} of {header}");
            let mut passed = 0;
            while passed < CALLS_MAX {
                let mut request = request(api, api.call(CALL, false).to_string());
                let fields = request.headers_mut();
                fields.insert(header, session.parse().unwrap());
                let answer = client.send(request).await.unwrap();
                let status = answer.status;
                answer.whole().await.unwrap();
                assert_eq!(world.record().await.session.as_ref(), Some(&session));
                if status == 429 {
                    break;
                }
                passed += 1;
            }
            assert!(
                (1..=9).contains(&passed),
                "{passed} calls of {session} passed"
            );
        }
    }
}

#[tokio::test]
async fn a_cache_key_names_no_session() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let api = Api::Chat;
    let mut client = Client::connect(&world, simulator.addr(), api.host(), Version::HTTP_11).await;
    let mut call = api.call("hello", false);
    call["prompt_cache_key"] = "everybody's".into();
    assert_eq!(client.ask(api, &call).await.0, 200);
    assert_eq!(world.record().await.session, None);
}

const OPENAI: &str = "api.openai.com";
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                      transfer-encoding: chunked\r\n\r\n";

fn continuing(id: &str, stream: bool) -> String {
    let body = json!({ "model": "gpt-6-sol", "input": "And now?", "stream": stream,
                       "previous_response_id": id })
    .to_string();
    let length = body.len();
    format!("POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn response(id: &str) -> Value {
    json!({ "id": id, "object": "response", "status": "completed", "model": "gpt-6-sol",
            "output": [], "usage": { "input_tokens": 9, "output_tokens": 1, "total_tokens": 10 } })
}

/// Has a call continue the answer `id`, and be answered with `new`.
async fn continued(server: &Replay, world: &World, id: &str, new: &str) -> std::sync::Arc<Record> {
    let mut client = world.http1(server.addr, OPENAI).await;
    client.send(continuing(id, false)).await;
    let body = response(new).to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
    server
        .answer(format!("{head}: {}\r\n\r\n{body}", body.len()))
        .await;
    client.message().await;
    world.record().await
}

/// Programs go on at the last event, whenever the stream ends.
#[tokio::test]
async fn a_stream_that_has_not_ended_is_continued_in_its_session() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, OPENAI).await;
    client.send(continuing("resp_0", true)).await;
    let event = json!({ "type": "response.completed", "response": response("resp_1") });
    let event = format!("event: response.completed\ndata: {event}\n\n");
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    server.answer([STREAM, &chunk].concat()).await;
    client.until(event.as_bytes()).await;
    let record = continued(&server, &world, "resp_1", "resp_2").await;
    assert_eq!(record.session.as_deref(), Some("resp_0"));
    let record = continued(&server, &world, "resp_2", "resp_3").await;
    assert_eq!(record.session.as_deref(), Some("resp_0"));
}

#[tokio::test]
async fn after_a_restart_a_chain_begins_with_the_answer_that_it_continues() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    continued(&server, &world, "resp_0", "resp_1").await;
    let state = world.stop().await;
    let world = World::continued(state, &[&server.ca_pem], Config::default());
    for (id, new) in [("resp_1", "resp_2"), ("resp_2", "resp_3")] {
        let record = continued(&server, &world, id, new).await;
        assert_eq!(record.session.as_deref(), Some("resp_1"));
    }
}
