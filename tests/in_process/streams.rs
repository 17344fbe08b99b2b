//! Events arrive one by one and without delay, and long bodies without being held.

use std::time::Duration;

use http::Version;
use weir::process::config::Config;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, Scripted, World};

const HOST: &str = "api.anthropic.com";
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: \
    chunked\r\n\r\n";

fn call(path: &str) -> String {
    let body = "{\"model\":\"gpt-6-sol\",\"stream\":true,\"messages\":[]}";
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

#[tokio::test]
async fn each_event_is_at_the_client_before_the_next_is_sent() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    // The last one is a stream that Weir takes a chunk out of.
    for (host, path) in [
        (HOST, "/v1/messages"),
        (HOST, "/v1/other"),
        ("api.openai.com", "/v1/chat/completions"),
    ] {
        let mut client = world.http1(server.addr, host).await;
        client.send(call(path)).await;
        let mut upstream = server.accept().await;
        upstream.message().await;
        upstream.send(HEAD).await;
        assert_eq!(client.head().await, HEAD);
        for number in 0..200 {
            let event = format!("data: {{\"n\":{number}}}\n\n");
            upstream.send(chunk(&event)).await;
            assert_eq!(client.chunk().await, event.as_bytes());
        }
        upstream.send("0\r\n\r\n").await;
        assert_eq!(client.chunks().await, (vec![], String::new()));
        world.record().await;
    }
}

#[tokio::test]
async fn half_an_event_is_not_held_back() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    client.send(call("/v1/messages")).await;
    let mut upstream = server.accept().await;
    upstream.message().await;
    upstream.send(HEAD).await;
    client.head().await;
    for part in ["ev", "ent: message_start\nda", "ta: {", "}\n", "\n"] {
        upstream.send(chunk(part)).await;
        assert_eq!(client.chunk().await, part.as_bytes());
    }
}

#[tokio::test]
async fn events_that_are_ready_together_arrive_together() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    client.send(call("/v1/messages")).await;
    let mut upstream = server.accept().await;
    upstream.message().await;
    upstream.send(HEAD).await;
    client.head().await;
    let events: Vec<String> = (0..100).map(|n| format!("data: {n}\n\n")).collect();
    let chunks: Vec<String> = events.iter().map(|event| chunk(event)).collect();
    // One TLS record of the server.
    upstream.send(chunks.concat()).await;
    let found = client.chunk().await;
    assert_eq!(String::from_utf8(found).unwrap(), events.concat());
}

#[tokio::test]
async fn events_of_an_encoded_or_multiplexed_stream_are_not_held_back() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for encoding in ["", "gzip", "br", "zstd", "deflate"] {
            for api in Api::ALL {
                let mut client =
                    Client::connect(&world, simulator.addr(), api.host(), version).await;
                // Events come and then nothing: what arrives was not waiting for what follows.
                let text = format!("[[sim: tokens=60 events=20 stall_after=5 {encoding}]]");
                let mut answer = client.call(api, &api.call(&text, true)).await.unwrap();
                assert!(answer.next().await.is_some_and(|data| !data.is_empty()));
                drop((answer, client));
                world.record().await;
            }
        }
    }
}

/// More than all buffers between two sockets of loopback together.
const LONG: usize = 192 << 20;
const PIECE: usize = 1 << 20;
/// What Weir and all buffers may take of a body that nobody reads.
const HELD_MAX: usize = 64 << 20;

#[tokio::test]
async fn a_long_upload_that_is_no_call_is_passed_on_and_not_held() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    client
        .send(format!(
            "POST /v1/files HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {LONG}\r\n\r\n"
        ))
        .await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    let sent = send_until_stuck(&mut client).await;
    assert!(sent < HELD_MAX, "{sent} bytes are somewhere");
    // Only now the server reads.
    let (rest, _) = tokio::join!(
        async {
            let mut left = LONG - sent;
            while left > 0 {
                let piece = vec![b'x'; left.min(PIECE)];
                client.send(&piece).await;
                left -= piece.len();
            }
        },
        async {
            for _ in 0..LONG / PIECE {
                assert!(
                    upstream
                        .exactly(PIECE)
                        .await
                        .iter()
                        .all(|byte| *byte == b'x')
                );
            }
        }
    );
    let () = rest;
    upstream
        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    assert_eq!(client.message().await.body, b"ok");
    assert_eq!(world.record().await.status, Some(200));
}

#[tokio::test]
async fn a_long_download_is_passed_on_and_not_held() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    client
        .send(format!(
            "GET /v1/files/f/content HTTP/1.1\r\nhost: {HOST}\r\n\r\n"
        ))
        .await;
    let mut upstream = server.accept().await;
    upstream.message().await;
    upstream
        .send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n"))
        .await;
    let sent = send_until_stuck(&mut upstream).await;
    assert!(sent < HELD_MAX, "{sent} bytes are somewhere");
    client.head().await;
    tokio::join!(
        async {
            let mut left = LONG - sent;
            while left > 0 {
                let piece = vec![b'x'; left.min(PIECE)];
                upstream.send(&piece).await;
                left -= piece.len();
            }
        },
        async {
            for _ in 0..LONG / PIECE {
                assert!(client.exactly(PIECE).await.iter().all(|byte| *byte == b'x'));
            }
        }
    );
    let record = world.record().await;
    assert_eq!(record.response_bytes, u64::try_from(LONG).unwrap());
}

/// Sends as much as is taken while the other side reads nothing; the number of bytes.
///
/// That nothing more is taken shows only by waiting: a wait too short makes the number smaller,
/// never the test fail.
async fn send_until_stuck<S>(wire: &mut weir_tests::Wire<S>) -> usize
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    const STUCK: Duration = Duration::from_millis(300);
    let piece = vec![b'x'; 16 << 10];
    let mut sent = 0;
    while sent < HELD_MAX {
        let mut at = 0;
        while at < piece.len() {
            let write = wire.write_some(&piece[at..]);
            match tokio::time::timeout(STUCK, write).await {
                Ok(written) => at += written,
                Err(_) => return sent + at,
            }
        }
        sent += piece.len();
    }
    sent
}
