//! Ways around a cap, and ways in which watching could break traffic, that were open once.

use http::Version;
use weir::ledger::Cost;
use weir::process::config::Config;
use weir_core::money::Money;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, Scripted, Wire, World};

use crate::replay::Replay;

const HOST: &str = "api.anthropic.com";
const CALL: &str =
    r#"{"model":"claude-opus-5-5","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}"#;
const UPLOAD_BYTES: usize = 4 << 20;

/// A configuration with one cap over everything.
fn capped(limit_usd: &str) -> Config {
    let text = format!("[[cap]]\nname = \"all\"\nwindow = \"total\"\nlimit_usd = {limit_usd}\n");
    Config::parse(&text, "the test's".as_ref()).unwrap()
}

fn post(path: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer sk-test-0123456789\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    )
}

#[tokio::test]
async fn neither_an_upgrade_nor_a_spelling_of_the_path_gets_around_a_cap() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], capped("0"));
    let upgrade = "connection: upgrade\r\nupgrade: x\r\n";
    for (path, more) in [
        ("/v1/messages", ""),
        ("/v1/messages", upgrade),
        ("/v1//messages/", ""),
        ("/v1/mess%61ges?beta=true", ""),
    ] {
        let mut client = world.http1(server.addr, HOST).await;
        client.send(post(path, more, CALL)).await;
        let head = client.message().await.head;
        assert!(head.starts_with("HTTP/1.1 402 "), "{path} {more}: {head}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_counts_with_what_was_reserved() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], capped("0.05"));
    let mut client = world.http1(server.addr, HOST).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                  content-encoding: identity, identity\r\ncontent-length: 2\r\n\r\n{}";
    let mut spent = Money::ZERO;
    for _ in 0..2 {
        client.send(post("/v1/messages", "", CALL)).await;
        server.answer(answer).await;
        client.message().await;
        let record = world.record().await;
        assert!(matches!(record.cost, Cost::Estimated { .. }), "{record:?}");
        assert!(record.cost.spent() > Money::ZERO);
        assert!(record.reasons.contains(&"answer_unreadable".to_owned()));
        spent += record.cost.spent();
    }
    let accounts = world.sidecar.status();
    assert_eq!(
        accounts["caps"][0]["spent"],
        spent.to_string(),
        "{accounts}"
    );
}

#[tokio::test]
async fn a_cap_continues_after_a_restart_where_it_stood() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let call = Api::Messages.call("[[sim: tokens=300]] hello", false);
    let world = World::start(&[simulator.ca_pem()], capped("0.05"));
    let mut client = Client::connect(&world, simulator.addr(), HOST, Version::HTTP_11).await;
    assert_eq!(client.ask(Api::Messages, &call).await.0, 200);
    let spent = world.sidecar.status()["caps"][0]["spent"].clone();
    assert_ne!(spent, "$0.00");
    drop(client);
    let state = world.stop().await;
    let world = World::continued(state, &[simulator.ca_pem()], capped("0.05"));
    assert_eq!(world.sidecar.status()["caps"][0]["spent"], spent);
}

#[tokio::test]
async fn each_connection_of_an_application_has_an_http2_connection_of_its_own() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let call = Api::Messages.call("hello", false);
    let mut clients = Vec::new();
    for number in 1..=3 {
        let client = Client::connect(&world, simulator.addr(), HOST, Version::HTTP_2).await;
        clients.push(client);
        for client in &mut clients {
            assert_eq!(client.ask(Api::Messages, &call).await.0, 200);
        }
        assert_eq!(simulator.connections(), number);
    }
}

#[tokio::test]
async fn an_answer_in_the_middle_of_an_upload_reaches_the_application() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    let refused = "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\
                   connection: close\r\n\r\nbig";
    let serving = async {
        let mut wire = Wire::new(server.next().await);
        wire.head().await;
        wire.send(refused).await;
        wire.finish().await;
        // As servers do, so that their answer is not lost on the way either.
        wire.rest().await;
    };
    let uploading = async {
        let body = "x".repeat(UPLOAD_BYTES);
        // It may be cut off once the answer is there.
        drop(client.try_send(post("/v1/files", "", &body)).await);
        let answer = client.message().await;
        assert!(answer.head.starts_with("HTTP/1.1 413 "), "{}", answer.head);
        assert_eq!(answer.body, b"big");
    };
    tokio::join!(serving, uploading);
}
