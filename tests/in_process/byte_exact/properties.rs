//! Arbitrary JSON, cut in arbitrary chunks, in every encoding, as request and as answer.

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::{Value, json};
use weir::process::config::Config;
use weir_tests::{Api, World, encode};

use super::post;
use crate::replay::Replay;

/// How many exchanges are tried.
const RUNS: u32 = 96;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(Value::from("\u{2028}\\\"\u{0}[[\u{1f30a}")),
    ];
    leaf.prop_recursive(4, 48, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Also the names that mean something in calls and answers, with values that mean nothing there.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,12}",
        prop::sample::select(vec![
            "model",
            "messages",
            "stream",
            "usage",
            "choices",
            "stream_options",
            "max_tokens",
            "system",
            "tools",
            "type",
            "error",
            "input",
            "include_usage",
            "response",
        ])
        .prop_map(str::to_owned),
    ]
}

/// The same, if it asks for no stream: Weir asks for the usage of one.
fn unstreamed(mut value: Value) -> Value {
    if value.get("stream") == Some(&Value::Bool(true)) {
        value["stream"] = Value::Bool(false);
    }
    value
}

/// A body: sometimes a call or an answer, sometimes something else, sometimes not JSON.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    (any_json().prop_map(unstreamed), 0..5_u8).prop_map(|(value, kind)| match kind {
        0 => value.to_string().into_bytes(),
        1 => serde_json::to_vec_pretty(&value).unwrap(),
        2 => {
            let call = json!({ "model": "gpt-6-sol", "messages": [value], "stream": false });
            call.to_string().into_bytes()
        }
        3 => format!("data: {value}\n\nevent: x\ndata:{value}\r\n\r\ndata: [DO").into_bytes(),
        _ => {
            let mut bytes = value.to_string().into_bytes();
            bytes.truncate(bytes.len() * 2 / 3);
            bytes.push(0xff);
            bytes
        }
    })
}

#[derive(Debug)]
struct Exchange {
    api: Api,
    request: (Vec<u8>, &'static str),
    answer: (Vec<u8>, &'static str),
    answer_type: &'static str,
    chunk_sizes: Vec<usize>,
}

fn any_exchange() -> impl Strategy<Value = Exchange> {
    (
        prop::sample::select(Api::ALL.to_vec()),
        (any_body(), prop::sample::select(encode::ENCODINGS.to_vec())),
        (any_body(), prop::sample::select(encode::ENCODINGS.to_vec())),
        prop::sample::select(vec!["application/json", "text/event-stream", "text/plain"]),
        prop::collection::vec(1..300_usize, 0..12),
    )
        .prop_map(
            |(api, request, answer, answer_type, chunk_sizes)| Exchange {
                api,
                request,
                answer,
                answer_type,
                chunk_sizes,
            },
        )
}

/// `body` in chunks of `sizes` bytes, the rest in one.
fn chunked(mut body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    for size in sizes.iter().copied().chain([usize::MAX]) {
        let (chunk, rest) = body.split_at(size.min(body.len()));
        if !chunk.is_empty() {
            wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        body = rest;
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

async fn check(world: &World, server: &Replay, exchange: &Exchange) {
    let Exchange {
        api,
        request,
        answer,
        ..
    } = exchange;
    let sent = encode::encode(request.1, &request.0);
    let answered = encode::encode(answer.1, &answer.0);
    let encoding = |name| format!("content-encoding: {}\r\n", encode::token(name));
    let head = post(api.path(), &encoding(request.1), "");
    let head = head.replace("content-length: 0", "transfer-encoding: chunked");
    let answer_head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\n{}transfer-encoding: chunked\r\n\r\n",
        exchange.answer_type,
        encoding(answer.1),
    );
    let mut client = world.http1(server.addr, api.host()).await;
    client.send(&head).await;
    client.send(chunked(&sent, &exchange.chunk_sizes)).await;
    let wire = [
        answer_head.as_bytes(),
        &chunked(&answered, &exchange.chunk_sizes),
    ];
    let found = server.answer(wire.concat()).await;
    assert_eq!(found.head, head);
    assert!(found.body == sent, "the request's body");
    let found = client.message().await;
    assert_eq!(found.head, answer_head);
    assert!(found.body == answered, "the answer's body");
    let record = world.record().await;
    assert_eq!(record.edits, []);
    assert_eq!(
        record.response_bytes,
        u64::try_from(answered.len()).unwrap()
    );
}

#[test]
fn whatever_is_said_in_whatever_encoding_arrives_unchanged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (world, server) = runtime.block_on(async {
        let server = Replay::start().await;
        (World::start(&[&server.ca_pem], Config::default()), server)
    });
    let runs = Runs {
        failure_persistence: None,
        ..Runs::with_cases(RUNS)
    };
    TestRunner::new(runs)
        .run(&any_exchange(), |exchange| {
            runtime.block_on(check(&world, &server, &exchange));
            Ok(())
        })
        .unwrap();
    runtime.block_on(world.no_more_records());
}
