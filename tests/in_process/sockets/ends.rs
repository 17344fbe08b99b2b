//! What ends a call inside a socket, or keeps it from being made; and keys in its subprotocols.

use serde_json::{Value, json};
use weir::ledger::{Cost, Outcome};
use weir::process::config::{Cap, Config, Fail, Unpriced, Window};
use weir::process::limits::BODY_BYTES_MAX;
use weir_core::money::Money;

use super::{RESPONSES, create, event, open, opened, said, started, told};

#[tokio::test]
async fn a_call_without_a_price_is_refused_inside_a_socket_too() {
    let mut config = Config::default();
    config.pricing.unpriced = Unpriced::Refuse;
    let (server, world) = started(config).await;
    let mut socket = open(&world, &server, RESPONSES, "").await;
    opened(&world).await;
    let mut message = create();
    message["model"] = "nobody-knows-this".into();
    socket.application.send(said(&message)).await;
    let error = socket.message().await;
    assert_eq!(error["status"], 402, "{error}");
    assert_eq!(error["error"]["code"], "unpriced_model", "{error}");
    let record = world.record().await;
    assert_eq!(record.outcome, Outcome::Denied);
    assert_eq!(record.reasons, ["unpriced"]);
    socket.up(&said(&create())).await;
}

/// Enough for what is reserved first, 2048 tokens at 10 USD a million, and not for twice that.
fn three_cents() -> Config {
    let limit = Money::from_nanos(30_000_000);
    Config {
        caps: vec![Cap::new("pocket money", Window::Total, limit)],
        ..Config::default()
    }
}

#[tokio::test]
async fn a_response_that_outgrows_its_cap_ends_in_the_apis_own_events() {
    for (path, last) in [
        (RESPONSES, "response.failed"),
        ("/v1/realtime?model=gpt-6-sol", "response.done"),
    ] {
        let (server, world) = started(three_cents()).await;
        let mut socket = open(&world, &server, path, "").await;
        opened(&world).await;
        let in_lane = |mut message: Value| {
            message["stream_id"] = "a".into();
            message
        };
        socket.up(&said(&in_lane(create()))).await;
        let created = in_lane(event("response.created", "resp_1", Value::Null));
        socket.down(&told(&created)).await;
        let delta = json!({ "type": "response.output_text.delta", "response_id": "resp_1",
            "stream_id": "a", "delta": "two ".repeat(2000) });
        let delta = told(&delta);
        socket.down(&delta).await;
        world.no_more_records().await;
        // The message that is too much passes: it was sent already when it was read.
        socket.down(&delta).await;
        let ended = socket.message().await;
        assert_eq!(ended["type"], last, "{ended}");
        assert_eq!(ended["stream_id"], "a", "{ended}");
        assert_eq!(ended["response"]["id"], "resp_1", "{ended}");
        assert_eq!(ended["response"]["status"], "failed", "{ended}");
        let pointers = ["/response/error", "/response/status_details/error"];
        let error = pointers.iter().find_map(|pointer| ended.pointer(pointer));
        assert_eq!(error.unwrap()["code"], "insufficient_quota", "{ended}");
        socket.is_cut_off().await;
        let record = world.record().await;
        let cap = "pocket money".to_owned();
        assert_eq!(record.outcome, Outcome::CutOff { cap });
        // What passed is charged: some 4000 tokens.
        let spent = record.cost.spent().nanos();
        assert!((40_000_000..42_000_000).contains(&spent), "{spent}");
    }
}

#[tokio::test]
async fn a_response_that_nobody_asked_for_ends_too_where_its_cap_is_spent() {
    let limit = Money::ZERO;
    let config = Config {
        caps: vec![Cap::new("pocket money", Window::Total, limit)],
        ..Config::default()
    };
    let (server, world) = started(config).await;
    let path = "/v1/realtime?model=gpt-6-sol";
    let mut socket = open(&world, &server, path, "").await;
    opened(&world).await;
    // The provider heard that somebody has finished to speak.
    socket
        .down(&told(&event("response.created", "resp_1", Value::Null)))
        .await;
    let ended = socket.message().await;
    assert_eq!(ended["type"], "response.done", "{ended}");
    assert_eq!(ended["response"]["id"], "resp_1", "{ended}");
    socket.is_cut_off().await;
    let record = world.record().await;
    let cap = "pocket money".to_owned();
    assert_eq!(record.outcome, Outcome::CutOff { cap });
    // It was begun, so it counts as such a call was expected to.
    let spent = record.cost.spent();
    assert!(spent > Money::ZERO, "{record:?}");
    assert_eq!(
        world.sidecar.status()["caps"][0]["spent"],
        spent.to_string()
    );
}

#[tokio::test]
async fn a_key_among_the_subprotocols_tells_who_calls_and_is_not_at_rest() {
    let (server, world) = started(Config::default()).await;
    let key = "sk-canary-4ZQ7vN3tWx81";
    let protocols = format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{key}\r\n");
    let mut socket = open(&world, &server, "/v1/realtime?model=gpt-6-sol", &protocols).await;
    opened(&world).await;
    socket
        .up(&said(&json!({ "type": "response.create" })))
        .await;
    drop(socket);
    let record = world.record().await;
    assert_eq!(record.model_requested.as_deref(), Some("gpt-6-sol"));
    let identity = &record.identity;
    assert_eq!(identity.key_kind.as_deref(), Some("api_key"));
    assert_eq!(identity.key_tail.as_deref(), Some("Wx81"));
    let hash = identity.key_hash.clone().unwrap();
    let stored = world.stored();
    assert_eq!(stored.len(), 2);
    let database = std::fs::read(world.state().join("weir.db-wal")).unwrap();
    let has = |text: &str| {
        let mut windows = database.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    };
    assert!(has(&hash) && !has(key) && !has("4ZQ7vN3t"));
}

#[tokio::test]
async fn speech_is_counted_as_it_is_billed() {
    let (server, world) = started(three_cents()).await;
    let path = "/v1/realtime?model=gpt-realtime";
    let second = json!({ "type": "response.output_audio.delta", "response_id": "resp_1",
        "delta": "AAAA".repeat(16_000) });
    for ends in [true, false] {
        let mut socket = open(&world, &server, path, "").await;
        opened(&world).await;
        let create = json!({ "type": "response.create", "response": { "max_output_tokens": 16 } });
        socket.up(&said(&create)).await;
        let created = event("response.created", "resp_1", Value::Null);
        socket.down(&told(&created)).await;
        for _ in 0..2 {
            socket.down(&told(&second)).await;
        }
        if !ends {
            world.no_more_records().await;
            drop(socket.application);
            let record = world.record().await;
            assert_eq!(record.outcome, Outcome::ClientGone);
            // Twice 20 tokens at 64 USD a million, and the input as the call before tells it.
            let spent = record.cost.spent().nanos();
            assert!((2_560_000..5_000_000).contains(&spent), "{spent}");
            break;
        }
        let done = event("response.done", "resp_1", super::usage());
        socket.down(&told(&done)).await;
        assert_eq!(world.record().await.outcome, Outcome::Completed);
    }
}

#[tokio::test]
async fn a_message_whose_last_byte_is_too_much_is_not_read_and_counted_once() {
    let too_long = "weir_unreadable_total{what=\"request_too_long\"}";
    let message = |bytes: usize| {
        let mut message = create();
        let rest = bytes - message.to_string().len();
        message["input"] = [message["input"].as_str().unwrap(), &"x".repeat(rest)]
            .concat()
            .into();
        said(&message)
    };
    let (server, world) = started(Config::default()).await;
    let mut socket = open(&world, &server, RESPONSES, "").await;
    opened(&world).await;
    for (count, bytes) in [(1, BODY_BYTES_MAX + 1), (2, BODY_BYTES_MAX + 100_000)] {
        let message = message(bytes);
        let ((), got) = tokio::join!(
            socket.application.send(&message),
            socket.provider.exactly(message.len())
        );
        assert!(got == message);
        assert_eq!(world.metric(too_long), count);
    }
    // What came of it is told by the provider all the same.
    for kind in ["response.created", "response.completed"] {
        let usage = match kind {
            "response.created" => Value::Null,
            _ => super::usage(),
        };
        socket.down(&told(&event(kind, "resp_1", usage))).await;
    }
    let record = world.record().await;
    assert_eq!(record.outcome, Outcome::Completed);
    assert_eq!(record.model_requested.as_deref(), Some("gpt-6-sol"));
    assert_eq!(record.cost.spent(), Money::from_nanos(super::COST));

    let mut config = Config::default();
    config.intercept.fail = Fail::Closed;
    let (server, world) = started(config).await;
    let mut socket = open(&world, &server, RESPONSES, "").await;
    opened(&world).await;
    let message = message(BODY_BYTES_MAX + 1);
    let (_, got) = tokio::join!(
        socket.application.try_send(&message),
        socket.provider.rest()
    );
    assert_eq!(got.0, b"");
    assert_eq!(world.metric(too_long), 1);
}

#[tokio::test]
async fn the_address_or_the_session_names_the_model() {
    let (server, world) = started(Config::default()).await;
    let path = "/openai/realtime?api-version=2026-01-01&deployment=gpt-realtime";
    for named in [None, Some("gpt-realtime-mini")] {
        let mut socket = open(&world, &server, path, "").await;
        opened(&world).await;
        if let Some(model) = named {
            let session = json!({ "type": "session.created", "session": { "model": model } });
            socket.down(&told(&session)).await;
            socket
                .down(&told(&json!({ "type": "rate_limits.updated" })))
                .await;
        }
        socket
            .up(&said(&json!({ "type": "response.create" })))
            .await;
        let done = json!({ "type": "response.done", "response": { "id": "resp_1",
            "status": "completed", "usage": super::usage() } });
        socket.down(&told(&done)).await;
        let record = world.record().await;
        let model = named.unwrap_or("gpt-realtime");
        assert_eq!(record.model_requested.as_deref(), Some(model));
        assert!(matches!(record.cost, Cost::Priced { .. }), "{record:?}");
    }
}
