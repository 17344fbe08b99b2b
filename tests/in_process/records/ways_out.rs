//! The ways in which an exchange can end.

use http::Version;
use weir::ledger::{Cost, Outcome};
use weir::process::config::{Config, Fail};
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, Scripted, World};

const HOST: &str = "api.anthropic.com";
const CALL: &str =
    "{\"model\":\"claude-opus-5-5\",\"max_tokens\":100,\"stream\":true,\"messages\":[]}";
const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\
    \"claude-opus-5-5\",\"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\n";
const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn call() -> String {
    let length = CALL.len();
    format!("POST /v1/messages HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {length}\r\n\r\n{CALL}")
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Its name, what is sent before the connection closes, and what the record says of it.
type ProviderEnd = (&'static str, &'static str, Outcome, Option<u16>);

/// What the provider does after the request: what it sends, and then closes.
const PROVIDER_ENDS: [ProviderEnd; 7] = [
    ("nothing", "", Outcome::UpstreamFailed, None),
    (
        "half a head",
        "HTTP/1.1 200 OK\r\ncontent-le",
        Outcome::UpstreamFailed,
        None,
    ),
    (
        "garbage",
        "\u{1}\u{2}SSH-2.0\r\n\r\n",
        Outcome::UpstreamFailed,
        None,
    ),
    (
        "a content-length that is no number",
        "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\nx",
        Outcome::UpstreamFailed,
        None,
    ),
    (
        "fewer bytes than announced",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"a\":",
        Outcome::Truncated,
        Some(200),
    ),
    (
        "half a chunk",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: \
         chunked\r\n\r\nff\r\nevent: ",
        Outcome::Truncated,
        Some(200),
    ),
    (
        "a chunk of no length",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: \
         chunked\r\n\r\nzz\r\nevent: ",
        Outcome::Truncated,
        Some(200),
    ),
];

#[tokio::test]
async fn a_provider_that_breaks_off_leaves_one_record_and_the_client_sees_it() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    for (what, sent, outcome, status) in PROVIDER_ENDS {
        let mut client = world.http1(server.addr, HOST).await;
        client.send(call()).await;
        let mut upstream = server.accept().await;
        upstream.message().await;
        upstream.send(sent).await;
        upstream.finish().await;
        let (found, _) = client.rest().await;
        let found = String::from_utf8_lossy(&found);
        assert_eq!(found.is_empty(), status.is_none(), "{what}: {found}");
        assert!(
            !found.ends_with("0\r\n\r\n"),
            "{what}: no clean end: {found}"
        );
        let record = world.record().await;
        assert_eq!(record.outcome, outcome, "{what}");
        assert_eq!(record.status, status, "{what}");
        // It may have been billed: what was reserved counts.
        assert!(
            matches!(record.cost, Cost::Estimated { .. }),
            "{what}: {:?}",
            record.cost
        );
        assert!(record.cost.spent().nanos() > 0, "{what}");
    }
    world.no_more_records().await;
    assert_eq!(world.stored().len(), PROVIDER_ENDS.len());
    assert_eq!(world.metric("weir_calls_in_flight"), 0);
}

#[tokio::test]
async fn a_reset_and_an_end_before_the_end_of_a_stream_are_truncations_that_cost() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for api in Api::ALL {
            for (directions, stream, outcome) in [
                ("reset_after=3 tokens=90", true, Outcome::Truncated),
                ("truncate tokens=90", true, Outcome::Truncated),
                ("lie_content_length tokens=90", false, Outcome::Truncated),
                (
                    "error_after=8 tokens=90 events=9",
                    true,
                    Outcome::ProviderError,
                ),
                ("status=529", true, Outcome::ProviderError),
                ("status=400", false, Outcome::ProviderError),
            ] {
                // An HTTP/2 server does not send a length that it knows to be wrong.
                if version == Version::HTTP_2 && directions.starts_with("lie") {
                    continue;
                }
                let mut client =
                    Client::connect(&world, simulator.addr(), api.host(), version).await;
                let body = api.call(&format!("[[sim: {directions}]]"), stream);
                if let Ok(answer) = client.call(api, &body).await {
                    drop(answer.whole().await);
                }
                let record = world.record().await;
                assert_eq!(record.outcome, outcome, "{api:?} {version:?} {directions}");
                let is_free = directions.starts_with("status");
                let spent = record.cost.spent().nanos();
                assert_eq!(
                    spent == 0,
                    is_free,
                    "{api:?} {version:?} {directions} {:?}",
                    record.cost
                );
            }
        }
    }
    world.no_more_records().await;
}

#[tokio::test]
async fn a_client_that_leaves_at_any_point_leaves_one_record() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let call = call();
    let (head, _) = call.split_once("\r\n\r\n").unwrap();
    let mut left = 0;
    // In the middle of the request: only what has a head is an exchange.
    for sent in [head.len() + 4, head.len() + 14, call.len() - 1] {
        let mut client = world.http1(server.addr, HOST).await;
        client.send(&call.as_bytes()[..sent]).await;
        drop(client);
        let record = world.record().await;
        assert_eq!(record.outcome, Outcome::ClientGone, "after {sent} bytes");
        assert_eq!(record.cost.spent().nanos(), 0);
        left += 1;
    }
    world.no_more_records().await;
    assert_eq!(world.stored().len(), left);
}

#[tokio::test]
async fn a_client_that_leaves_before_or_during_the_answer_is_seen_by_the_provider_too() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    for sent in ["", STREAM_HEAD, &format!("{STREAM_HEAD}{}", chunk(START))] {
        let mut client = world.http1(server.addr, HOST).await;
        client.send(call()).await;
        let mut upstream = server.accept().await;
        upstream.message().await;
        upstream.send(sent).await;
        if !sent.is_empty() {
            client.head().await;
        }
        if sent.contains("message_start") {
            assert_eq!(client.chunk().await, START.as_bytes());
        }
        drop(client);
        let record = world.record().await;
        assert_eq!(record.outcome, Outcome::ClientGone, "after {sent:?}");
        assert!(record.cost.spent().nanos() > 0);
        if sent.contains("message_start") {
            assert_eq!(record.usage.unwrap().input, 1000);
        }
        upstream.rest().await;
    }
    world.no_more_records().await;
    assert_eq!(world.metric("weir_calls_in_flight"), 0);
}

#[tokio::test]
async fn a_client_that_leaves_after_the_last_event_has_had_it_all() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    client.send(call()).await;
    let mut upstream = server.accept().await;
    upstream.message().await;
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    // The chunk that ends the body does not come: many clients do not wait for it.
    upstream
        .send(format!("{STREAM_HEAD}{}", chunk(&format!("{START}{stop}"))))
        .await;
    client.head().await;
    client.chunk().await;
    drop(client);
    let record = world.record().await;
    assert_eq!(record.outcome, Outcome::Completed);
    assert!(
        matches!(record.cost, Cost::Priced { .. }),
        "{:?}",
        record.cost
    );
}

#[tokio::test]
async fn what_was_decoded_of_an_encoded_answer_counts_when_it_breaks_off() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let mut client = world.http1(server.addr, HOST).await;
        client.send(call()).await;
        let mut upstream = server.accept().await;
        upstream.message().await;
        // Noise after the event fills the encoders' blocks, so that the start can be decoded.
        let noise: String = (0..60_000_u64)
            .map(|n| format!("{:x}", n * n * n))
            .collect();
        let plain = format!("{START}event: x\ndata: {noise}\n\n");
        let encoded = weir_tests::encode::encode(encoding, plain.as_bytes());
        let head = STREAM_HEAD.replace("transfer-encoding: chunked", "content-length: 9999999");
        let head = head.replace(
            "\r\n\r\n",
            &format!("\r\ncontent-encoding: {encoding}\r\n\r\n"),
        );
        upstream.send(head).await;
        upstream.send(&encoded[..encoded.len() - 20]).await;
        upstream.finish().await;
        client.rest().await;
        let record = world.record().await;
        assert_eq!(record.outcome, Outcome::Truncated, "{encoding}");
        assert_eq!(
            record.usage.map(|usage| usage.input),
            Some(1000),
            "{encoding}"
        );
    }
}

#[tokio::test]
async fn a_stalled_provider_is_waited_for_as_long_as_the_client_waits() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut client = Client::connect(&world, simulator.addr(), HOST, Version::HTTP_2).await;
    let body = Api::Messages.call("[[sim: stall_after=2]]", true);
    let mut answer = client.call(Api::Messages, &body).await.unwrap();
    let first = answer.next().await.unwrap();
    assert!(first.starts_with(b"event: message_start"));
    assert_eq!(world.metric("weir_calls_in_flight"), 1);
    world.no_more_records().await;
    drop((answer, client));
    assert_eq!(world.record().await.outcome, Outcome::ClientGone);
}

#[tokio::test]
async fn a_provider_that_is_gone_when_the_request_comes_leaves_a_record() {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    let mut upstream = server.accept().await;
    server.close().await;
    assert!(tokio::net::TcpStream::connect(server.addr).await.is_err());
    upstream.finish().await;
    drop(upstream);
    client.send(call()).await;
    let (found, _) = client.rest().await;
    assert!(found.is_empty());
    let record = world.record().await;
    assert_eq!(record.outcome, Outcome::UpstreamFailed);
    assert_eq!(record.cost.spent().nanos(), 0, "{:?}", record.cost);
}

#[tokio::test]
async fn what_is_refused_unread_leaves_a_record_and_costs_nothing() {
    let server = Scripted::http1().await;
    let mut config = Config::default();
    config.intercept.fail = Fail::Closed;
    let world = World::start(&[&server.ca_pem], config);
    let mut client = world.http1(server.addr, HOST).await;
    client
        .send("POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n{a}")
        .await;
    let answer = client.message().await;
    assert!(answer.head.starts_with("HTTP/1.1 400 "), "{}", answer.head);
    let record = world.record().await;
    assert_eq!(record.outcome, Outcome::Denied);
    assert_eq!(record.status, Some(400));
    assert_eq!(record.reasons, ["unreadable"]);
    assert_eq!(record.cost.spent().nanos(), 0);
    assert_eq!(
        world.metric("weir_refused_calls_total{reason=\"unreadable\"}"),
        1
    );
    world.no_more_records().await;
}
