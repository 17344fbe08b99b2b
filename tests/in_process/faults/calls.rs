//! Calls and answers that can't be read are forwarded and counted, or refused where so configured.

use weir::ledger::{Cost, Outcome};
use weir::process::config::Config;
use weir::process::limits::BODY_BYTES_MAX;
use weir_tests::{Scripted, World, encode};

use super::{HOST, closed};
use crate::replay::Replay;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

fn post(fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {HOST}\r\n{fields}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Bodies that are no call, with the fields that come with them.
fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
    let deep = "[".repeat(100_000);
    let bomb = vec![b' '; BODY_BYTES_MAX + 1];
    vec![
        ("", b"".to_vec()),
        ("", b"{\"model\":\"m\",}".to_vec()),
        ("", b"\xff\xfe{}".to_vec()),
        ("", b"{\"model\":\"m\"".to_vec()),
        ("", deep.into_bytes()),
        ("content-encoding: gzip\r\n", b"not gzip at all".to_vec()),
        ("content-encoding: br\r\n", vec![0xff; 300]),
        ("content-encoding: zstd, gzip\r\n", b"{}".to_vec()),
        ("content-encoding: \u{fffd}\r\n", b"{}".to_vec()),
        ("content-encoding: gzip\r\n", encode::encode("gzip", &bomb)),
        ("content-encoding: zstd\r\n", encode::encode("zstd", &bomb)),
        ("content-encoding: br\r\n", encode::encode("br", &bomb)),
    ]
}

#[tokio::test]
async fn a_call_that_cannot_be_read_is_forwarded_unread_and_counted() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    for (number, (fields, body)) in (1..).zip(unreadable()) {
        client.send(post(fields, &body)).await;
        assert!(server.answer(OK).await.body == body, "{fields}");
        client.message().await;
        let record = world.record().await;
        assert_eq!(record.outcome, Outcome::Unread, "{fields}");
        assert_eq!(record.reasons, ["request_unreadable"], "{fields}");
        assert_eq!(record.cost, Cost::Unknown, "{fields}");
        assert_eq!(
            world.metric("weir_unreadable_total{what=\"request_unreadable\"}"),
            number
        );
        let told = world.sidecar.summary().not_inspected;
        assert_eq!(told, [("request_unreadable".to_owned(), number)]);
    }
    assert_eq!(
        world.metric("weir_bounds_reached_total{bound=\"decoded_body\"}"),
        3
    );
}

#[tokio::test]
async fn a_call_that_cannot_be_read_is_refused_where_nothing_may_go_unread() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], closed());
    let mut client = world.http1(server.addr, HOST).await;
    for (fields, body) in unreadable() {
        client.send(post(fields, &body)).await;
        let answer = client.message().await;
        assert!(
            answer.head.starts_with("HTTP/1.1 400 "),
            "{fields} {}",
            answer.head
        );
        let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error");
        assert_eq!(world.record().await.outcome, Outcome::Denied);
    }
    let mut upstream = server.accept().await;
    drop(client);
    world.stop().await;
    assert!(upstream.is_over().await, "nothing was sent");
}

#[tokio::test]
async fn a_body_longer_than_what_is_held_is_forwarded_unread_or_refused() {
    let server = Replay::start().await;
    let length = BODY_BYTES_MAX + 70_000;
    let body = [
        b"{\"model\":\"m\",\"x\":\"",
        vec![b'x'; length - 20].as_slice(),
        b"\"}",
    ]
    .concat();
    let chunked = format!("{:x}\r\n", body.len());
    let chunked = [chunked.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let head = format!("POST /v1/messages HTTP/1.1\r\nhost: {HOST}\r\n");
    let requests = [
        post("", &body),
        [
            format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes(),
            &chunked,
        ]
        .concat(),
    ];
    let world = World::start(&[&server.ca_pem], Config::default());
    for (number, request) in (1..).zip(&requests) {
        let mut client = world.http1(server.addr, HOST).await;
        let (sent, found) = tokio::join!(client.try_send(request), server.answer(OK));
        sent.unwrap();
        assert!(found.body == body);
        client.message().await;
        let record = world.record().await;
        assert_eq!(record.reasons, ["request_too_long"]);
        assert_eq!(record.outcome, Outcome::Unread);
        assert_eq!(
            world.metric("weir_bounds_reached_total{bound=\"request_body\"}"),
            number
        );
    }
    let world = World::start(&[&server.ca_pem], closed());
    for request in &requests {
        let stream = world.tls(server.addr, HOST, &[b"http/1.1"]).await.unwrap();
        let (reader, mut writer) = tokio::io::split(stream);
        // The rest may not be taken any more.
        let sending = async {
            drop(tokio::io::AsyncWriteExt::write_all(&mut writer, request).await);
        };
        let mut reader = weir_tests::Wire::new(tokio::io::join(reader, tokio::io::sink()));
        let ((), answer) = tokio::join!(sending, reader.message());
        assert!(answer.head.starts_with("HTTP/1.1 413 "), "{}", answer.head);
        assert_eq!(world.record().await.outcome, Outcome::Denied);
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_passes_all_the_same() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    let bomb = vec![b'x'; 300 << 20];
    for (fields, body, what) in [
        (
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            b"this is no gzip at all".to_vec(),
            "answer_body",
        ),
        (
            "content-type: text/event-stream\r\ncontent-encoding: zstd\r\n",
            vec![9; 400],
            "answer_body",
        ),
        (
            "content-type: application/json\r\ncontent-encoding: rot13\r\n",
            b"{}".to_vec(),
            "answer_encoding",
        ),
        (
            "content-type: image/png\r\n",
            b"\x89PNG".to_vec(),
            "answer_type",
        ),
        ("", b"{}".to_vec(), "answer_type"),
        (
            "content-type: text/event-stream\r\ncontent-encoding: zstd\r\n",
            encode::encode("zstd", &bomb),
            "answer_body",
        ),
    ] {
        let metric = format!("weir_unreadable_total{{what=\"{what}\"}}");
        let before = world.metric(&metric);
        client
            .send(post("", b"{\"model\":\"claude-opus-5-5\"}"))
            .await;
        let head = format!(
            "HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n",
            body.len()
        );
        server.answer([head.as_bytes(), &body].concat()).await;
        let found = client.message().await;
        assert_eq!(found.head, head);
        assert!(found.body == body, "{fields}");
        let record = world.record().await;
        assert_eq!(record.usage, None);
        assert_eq!(world.metric(&metric), before + 1, "{fields}");
    }
    assert_eq!(
        world.metric("weir_bounds_reached_total{bound=\"decoded_body\"}"),
        1
    );
}
