//! WebSockets: bytes pass as they came, each response is a record, and a cap refuses it inside the socket.

use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};
use weir::ledger::{Cost, Outcome};
use weir::process::config::{Cap, Config, Fail, Window};
use weir_core::money::Money;
use weir_tests::{Scripted, Wire, World};

mod ends;
mod golden;
#[path = "../../../interceptor/src/exchange/websocket/frames/made.rs"]
mod made;

use made::{MASK, PING, REST, TEXT, frame};

/// Both ends of a socket through the sidecar.
struct Socket {
    application: Wire<client::TlsStream<TcpStream>>,
    provider: Wire<server::TlsStream<TcpStream>>,
}

/// Opens a socket at `path` for which the provider agrees to `extensions`, a line of the head.
async fn open(world: &World, server: &Scripted, path: &str, extensions: &str) -> Socket {
    let mut application = world.http1(server.addr, "api.openai.com").await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: api.openai.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n"
    );
    application.send(&request).await;
    let mut provider = server.accept().await;
    assert_eq!(provider.head().await, request);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{extensions}\r\n"
    );
    provider.send(&answer).await;
    assert_eq!(application.head().await, answer);
    Socket {
        application,
        provider,
    }
}

async fn started(config: Config) -> (Scripted, World) {
    let server = Scripted::http1().await;
    let world = World::start(&[&server.ca_pem], config);
    (server, world)
}

const RESPONSES: &str = "/v1/responses";
const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
const DEFLATE_AFRESH: &str =
    "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n";

/// A message of the application.
fn said(message: &Value) -> Vec<u8> {
    frame(TEXT, message.to_string().as_bytes(), true, false, MASK)
}

/// A message of the provider.
fn told(message: &Value) -> Vec<u8> {
    frame(TEXT, message.to_string().as_bytes(), true, false, None)
}

fn create() -> Value {
    json!({ "type": "response.create", "model": "gpt-6-sol", "input": "How high is the water?" })
}

fn event(kind: &str, id: &str, usage: Value) -> Value {
    let status = match kind.trim_start_matches("response.") {
        "created" => "in_progress",
        status => status,
    };
    json!({ "type": kind, "response": {
        "id": id, "object": "response", "status": status, "model": "gpt-6-sol",
        "output": [], "usage": usage,
    } })
}

fn usage() -> Value {
    json!({
        "input_tokens": 2000, "input_tokens_details": { "cached_tokens": 1000 },
        "output_tokens": 10, "output_tokens_details": { "reasoning_tokens": 4 }, "total_tokens": 2010,
    })
}

/// 1000 tokens at 2 USD a million, 1000 at 0.2, 10 at 10.
const COST: i64 = 2_000_000 + 200_000 + 100_000;

impl Socket {
    /// The application sends `bytes`, which the provider gets as they are.
    async fn up(&mut self, bytes: &[u8]) {
        self.application.send(bytes).await;
        assert!(self.provider.exactly(bytes.len()).await == bytes);
    }

    /// The other way.
    async fn down(&mut self, bytes: &[u8]) {
        self.provider.send(bytes).await;
        assert!(self.application.exactly(bytes.len()).await == bytes);
    }

    /// The next message that the application gets.
    async fn message(&mut self) -> Value {
        let head = self.application.exactly(2).await;
        assert_eq!(head[0], 0x81, "a whole text message");
        let length = match head[1] {
            126 => {
                let bytes = self.application.exactly(2).await;
                usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
            }
            short => usize::from(short),
        };
        serde_json::from_slice(&self.application.exactly(length).await).unwrap()
    }

    /// The application is told that its answer was ended, and both sides are closed.
    async fn is_cut_off(&mut self) {
        let error = self.message().await;
        assert_eq!(error["type"], "error", "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("Weir ended this answer: "), "{message}");
        self.is_closed().await;
    }

    /// Both sides are closed, towards the application with 1008, for a violated policy (RFC 6455, 7.4.1).
    async fn is_closed(&mut self) {
        let (goodbye, _) = self.application.rest().await;
        assert_eq!(
            (goodbye[0], &goodbye[2..4]),
            (0x88, &1008_u16.to_be_bytes()[..])
        );
        // The provider generates no more.
        assert_eq!(self.provider.rest().await.0, b"");
    }
}

/// The record of the socket itself comes first.
async fn opened(world: &World) {
    let record = world.record().await;
    assert_eq!((record.status, record.api.as_str()), (Some(101), ""));
    assert!(matches!(record.cost, Cost::Priced { total, .. } if total == Money::ZERO));
}

#[tokio::test]
async fn every_byte_passes_and_each_response_is_a_record() {
    let (server, world) = started(Config::default()).await;
    let mut socket = open(&world, &server, RESPONSES, "").await;
    opened(&world).await;
    for id in ["resp_1", "resp_2"] {
        let message = create().to_string();
        let (begun, rest) = message.as_bytes().split_at(20);
        let frames = [
            frame(PING, b"are you there?", true, false, MASK),
            frame(TEXT, begun, false, false, MASK),
            frame(PING, b"", true, false, MASK),
            frame(REST, rest, true, false, MASK),
            said(&json!({ "type": "response.steer", "input": "higher" })),
        ]
        .concat();
        socket.up(&frames).await;
        let delta = json!({ "type": "response.output_text.delta", "delta": "two" });
        for message in [event("response.created", id, Value::Null), delta] {
            let message = told(&message);
            let (begun, rest) = message.split_at(9);
            socket.down(begun).await;
            socket.down(rest).await;
        }
        world.no_more_records().await;
        socket
            .down(&told(&event("response.completed", id, usage())))
            .await;
        let record = world.record().await;
        assert_eq!(record.api, "responses");
        assert_eq!(record.outcome, Outcome::Completed);
        assert_eq!(record.model_requested.as_deref(), Some("gpt-6-sol"));
        let used = record.usage.unwrap();
        assert_eq!((used.input, used.cache_read, used.output), (1000, 1000, 10));
        assert_eq!(record.cost.spent(), Money::from_nanos(COST));
    }
    socket.application.finish().await;
    let (rest, _) = socket.provider.rest().await;
    assert_eq!(rest, b"");
    world.no_more_records().await;
}

#[tokio::test]
async fn responses_in_lanes_are_told_apart() {
    let (server, world) = started(Config::default()).await;
    let mut socket = open(&world, &server, RESPONSES, "").await;
    opened(&world).await;
    let in_lane = |mut message: Value, lane: &str| {
        message["stream_id"] = lane.into();
        message
    };
    for (lane, model) in [("a", "gpt-6-sol"), ("b", "gpt-5.5")] {
        let mut message = in_lane(create(), lane);
        message["model"] = model.into();
        socket.up(&said(&message)).await;
    }
    for (kind, lane, id) in [
        ("response.created", "b", "resp_b"),
        ("response.created", "a", "resp_a"),
        ("response.failed", "b", "resp_b"),
        ("response.completed", "a", "resp_a"),
    ] {
        let told_usage = if kind == "response.created" {
            Value::Null
        } else {
            usage()
        };
        socket
            .down(&told(&in_lane(event(kind, id, told_usage), lane)))
            .await;
    }
    for model in ["gpt-5.5", "gpt-6-sol"] {
        assert_eq!(world.record().await.model_requested.as_deref(), Some(model));
    }
    // An error ends the call of its lane.
    socket.up(&said(&in_lane(create(), "a"))).await;
    socket.up(&said(&in_lane(create(), "b"))).await;
    let error = json!({ "type": "error", "status": 400, "error": { "type": "invalid_request_error", "code": "x" } });
    socket.down(&told(&in_lane(error, "b"))).await;
    let record = world.record().await;
    assert_eq!(record.outcome, Outcome::ProviderError);
    assert_eq!(record.cost.spent(), Money::ZERO);
    drop(socket);
    assert_eq!(world.record().await.outcome, Outcome::ClientGone);
}

fn spent() -> Config {
    Config {
        caps: vec![Cap::new(
            "pocket money",
            Window::Total,
            Money::from_nanos(1),
        )],
        ..Config::default()
    }
}

#[tokio::test]
async fn a_refused_call_stays_here_and_the_socket_goes_on() {
    let (server, world) = started(spent()).await;
    let mut socket = open(&world, &server, RESPONSES, "").await;
    opened(&world).await;
    let message = create().to_string();
    let (begun, rest) = message.as_bytes().split_at(20);
    let ping = frame(PING, b"still there?", true, false, MASK);
    let refused = [
        frame(TEXT, begun, false, false, MASK),
        ping.clone(),
        frame(REST, rest, true, false, MASK),
    ]
    .concat();
    // In the middle of a message of the provider nothing can be said.
    let other = told(&json!({ "type": "rate_limits.updated" }));
    let (first, last) = other.split_at(10);
    socket.down(first).await;
    socket.application.send(&refused).await;
    assert_eq!(socket.provider.exactly(ping.len()).await, ping);
    let record = world.record().await;
    assert_eq!(
        record.outcome,
        Outcome::Refused {
            cap: "pocket money".to_owned()
        }
    );
    assert_eq!(record.status, Some(402));
    socket.down(last).await;
    let error = socket.message().await;
    assert_eq!(error["type"], "error", "{error}");
    assert_eq!(error["status"], 402, "{error}");
    assert_eq!(error["error"]["code"], "insufficient_quota", "{error}");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("pocket money"),
        "{error}"
    );
    // What is no call passes as before.
    socket
        .up(&said(&json!({ "type": "response.cancel" })))
        .await;
    socket
        .down(&told(&json!({ "type": "rate_limits.updated" })))
        .await;
    world.no_more_records().await;
}

/// Messages as one side compresses them, each on top of those before.
struct Compressed(Compress);

impl Compressed {
    fn new() -> Self {
        Self(Compress::new(Compression::fast(), false))
    }

    fn frame(&mut self, text: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut payload = Vec::with_capacity(text.len() + 1000);
        self.0
            .compress_vec(text.as_bytes(), &mut payload, FlushCompress::Sync)
            .unwrap();
        let payload = payload.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
        frame(TEXT, payload, true, true, mask)
    }
}

#[tokio::test]
async fn compressed_messages_are_read_too() {
    let (server, world) = started(Config::default()).await;
    let mut socket = open(&world, &server, RESPONSES, DEFLATE).await;
    opened(&world).await;
    let (mut up, mut down) = (Compressed::new(), Compressed::new());
    for id in ["resp_1", "resp_2"] {
        socket.up(&up.frame(&create().to_string(), MASK)).await;
        for message in [
            event("response.created", id, Value::Null),
            event("response.completed", id, usage()),
        ] {
            socket.down(&down.frame(&message.to_string(), None)).await;
        }
        let record = world.record().await;
        assert_eq!(record.cost.spent(), Money::from_nanos(COST));
    }
}

#[tokio::test]
async fn after_a_refusal_only_a_socket_whose_messages_stand_alone_goes_on() {
    let (server, world) = started(spent()).await;
    let mut socket = open(&world, &server, RESPONSES, DEFLATE_AFRESH).await;
    opened(&world).await;
    socket
        .application
        .send(&Compressed::new().frame(&create().to_string(), MASK))
        .await;
    assert_eq!(socket.message().await["status"], 402);
    socket
        .up(&Compressed::new().frame("{\"type\":\"response.cancel\"}", MASK))
        .await;
    world.record().await;

    let mut socket = open(&world, &server, RESPONSES, DEFLATE).await;
    opened(&world).await;
    socket
        .application
        .send(&Compressed::new().frame(&create().to_string(), MASK))
        .await;
    assert_eq!(socket.message().await["status"], 402);
    socket.is_closed().await;
}

#[tokio::test]
async fn a_socket_that_ends_in_the_middle_of_a_response_says_whose_end_it_was() {
    let (server, world) = started(Config::default()).await;
    let cases = [(true, Outcome::Truncated), (false, Outcome::ClientGone)];
    for (by_provider, outcome) in cases {
        let mut socket = open(&world, &server, RESPONSES, "").await;
        opened(&world).await;
        socket.up(&said(&create())).await;
        socket
            .down(&told(&event("response.created", "resp_1", Value::Null)))
            .await;
        let delta = json!({ "type": "response.output_text.delta", "delta": "two" });
        socket.down(&told(&delta)).await;
        if by_provider {
            drop(socket.provider);
        } else {
            drop(socket.application);
        }
        let record = world.record().await;
        assert_eq!(record.outcome, outcome);
        assert!(matches!(record.cost, Cost::Estimated { .. }), "{record:?}");
        assert!(record.cost.spent() > Money::ZERO);
    }
}

#[tokio::test]
async fn what_cannot_be_read_passes_unless_the_policy_says_otherwise() {
    let unknown = "Sec-WebSocket-Extensions: x-secret\r\n";
    let (server, world) = started(Config::default()).await;
    let mut socket = open(&world, &server, RESPONSES, unknown).await;
    socket.up(&said(&create())).await;
    socket
        .down(&told(&event("response.completed", "resp_1", usage())))
        .await;
    assert_eq!(world.record().await.reasons, ["socket_extension"]);
    // Not a byte is held back, of a frame that could not be one whatever came after it.
    for broken in [&b"\x83no frame at all"[..], b"\x87", b"\x81\x7e"] {
        let mut socket = open(&world, &server, RESPONSES, "").await;
        world.record().await;
        socket.up(broken).await;
    }
    let mut socket = open(&world, &server, RESPONSES, "").await;
    world.record().await;
    // RFC 6455, section 5.1: a client masks, a server does not.
    let unmasked = frame(TEXT, create().to_string().as_bytes(), true, false, None);
    socket.up(&unmasked).await;
    socket.down(b"\x83nor is this").await;
    socket.up(&said(&create())).await;
    assert_eq!(
        world.metric("weir_unreadable_total{what=\"socket_framing\"}"),
        5
    );
    world.no_more_records().await;

    let mut config = Config::default();
    config.intercept.fail = Fail::Closed;
    let (server, world) = started(config).await;
    let mut socket = open(&world, &server, RESPONSES, "").await;
    world.record().await;
    socket
        .application
        .send(frame(TEXT, b"not json", true, false, MASK))
        .await;
    assert_eq!(
        socket.message().await["error"]["code"],
        "unreadable_request"
    );
    assert_eq!(world.record().await.outcome, Outcome::Denied);
    socket.application.send(b"\x83no frame at all").await;
    assert_eq!(socket.provider.rest().await.0, b"");
}
