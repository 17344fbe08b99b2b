//! One exchange, one record, on every way out; usage and cost as the provider bills them.

mod behind;
mod canaries;
mod explained;
mod ways_out;
mod window;

use http::Version;
use serde_json::Value;
use weir::ledger::{Cost, Outcome, Record};
use weir::process::config::Config;
use weir_simulator::{Billed, Options, Simulator};
use weir_tests::{Api, Client, World};

/// Asserts that a record says what the bill says, to the token and the nano-dollar.
fn assert_billed(what: &str, record: &Record, billed: &Billed) {
    let usage = record.usage.unwrap_or_default();
    let found = [
        usage.input,
        usage.cache_read,
        usage.cache_write,
        usage.cache_write_long,
        usage.output,
        usage.reasoning,
    ];
    let expected = [
        billed.usage.input_uncached,
        billed.usage.cache_read,
        billed.usage.cache_write_short,
        billed.usage.cache_write_long,
        billed.usage.output,
        billed.usage.reasoning,
    ];
    assert_eq!(found, expected, "usage of {what}");
    let Cost::Priced { total, .. } = &record.cost else {
        panic!("expected a price for {what}, found {:?}", record.cost);
    };
    assert_eq!(
        u64::try_from(total.nanos()).unwrap(),
        billed.nanodollars,
        "cost of {what}"
    );
}

/// A call long enough for the prompt cache, with marks for it where the API has some.
fn cached(api: Api, directions: &str, stream: bool) -> Value {
    let mut call = api.call(directions, stream);
    let context = "The river is deep and the bridge is old. ".repeat(700);
    match api {
        Api::Messages => {
            call["system"] = serde_json::json!([
                { "type": "text", "text": context, "cache_control": { "type": "ephemeral" } }
            ]);
        }
        Api::Chat => {
            let system = serde_json::json!({ "role": "system", "content": context });
            call["messages"].as_array_mut().unwrap().insert(0, system);
        }
        Api::Responses => call["instructions"] = context.into(),
    }
    call
}

#[tokio::test]
async fn usage_and_cost_are_the_providers_own() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut checked = 0;
    for api in Api::ALL {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut client = Client::connect(&world, simulator.addr(), api.host(), version).await;
            for encoding in ["", "gzip", "br", "zstd", "deflate"] {
                for stream in [false, true] {
                    let text =
                        format!("[[sim: tokens=120 events=9 think=33 tool=Read {encoding}]]");
                    let body = cached(api, &text, stream);
                    let (status, _) = client.ask(api, &body).await;
                    assert_eq!(status, 200);
                    let record = world.record().await;
                    let what = format!("{api:?} {version:?} {encoding} stream: {stream}");
                    assert_eq!(record.outcome, Outcome::Completed, "{what}");
                    assert_eq!(record.stream, stream, "{what}");
                    let billed = simulator.bill().pop().unwrap();
                    assert_billed(&what, &record, &billed);
                    checked += usize::from(billed.usage.cache_read > 0);
                }
            }
        }
    }
    assert!(checked > 30, "the cache was read {checked} times");
    world.no_more_records().await;
    let stored = world.stored();
    assert_eq!(stored.len(), simulator.bill().len());
    let total: i64 = stored.iter().filter_map(|row| row.cost_nanos).sum();
    assert_eq!(u64::try_from(total).unwrap(), simulator.total_nanodollars());
    let summary = world.sidecar.summary();
    assert_eq!(summary.spend.nanos(), total);
}

#[tokio::test]
async fn a_stream_of_chat_completions_that_asked_for_nothing_is_priced_too() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut client =
        Client::connect(&world, simulator.addr(), Api::Chat.host(), Version::HTTP_2).await;
    let mut body = cached(Api::Chat, "[[sim: tokens=50]]", true);
    body.as_object_mut().unwrap().remove("stream_options");
    let (_, answer) = client.ask(Api::Chat, &body).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
    assert!(!answer.contains("\"choices\":[]"), "{answer}");
    let record = world.record().await;
    assert_billed("the stream", &record, &simulator.bill()[0]);
    assert_eq!(record.edits[0].rule, "ask_for_usage");
}

#[tokio::test]
async fn a_model_without_a_price_is_unpriced_and_not_free() {
    let server = crate::replay::Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, "api.anthropic.com").await;
    let body = "{\"model\":\"claude-of-tomorrow\",\"messages\":[]}";
    client
        .send(format!(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    let answer = "{\"type\":\"message\",\"model\":\"claude-of-tomorrow\",\"usage\":{\"input_tokens\":5,\"output_tokens\":6}}";
    server
        .answer(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        ))
        .await;
    client.message().await;
    let record = world.record().await;
    assert_eq!(record.cost, Cost::Unpriced);
    assert_eq!(record.usage.unwrap().output, 6);
    assert_eq!(world.sidecar.summary().unpriced, 1);
    assert_eq!(world.stored()[0].cost_nanos, None);
    let metric = "weir_unpriced_calls_total{provider=\"anthropic\"}";
    assert_eq!(world.metric(metric), 1);
}
