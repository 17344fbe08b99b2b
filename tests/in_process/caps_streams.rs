//! A stream takes more of a cap as it grows, and ends where nothing is left; and a cap is usable to
//! its end by calls that ask for much and take little.

use std::sync::Arc;

use http::Version;
use serde_json::Value;
use tokio::task::JoinSet;
use weir::ledger::{Cost, Outcome};
use weir::process::config::{CapKind, Config};
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World};

use crate::caps::{NANOS_PER_CENT, cap, with};

/// A call whose answer would be much longer than its first reservation.
pub(crate) fn long(api: Api) -> Value {
    let mut body = api.call("[[sim: tokens=12000 events=600 delay_ms=1]]", true);
    let limit = match api {
        Api::Messages => "max_tokens",
        Api::Chat => "max_completion_tokens",
        Api::Responses => "max_output_tokens",
    };
    body[limit] = 64_000.into();
    body
}

/// The data of the events of a stream, the last of which must be complete.
fn events(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let events = text.strip_suffix("\n\n").unwrap().split("\n\n");
    let data = |event: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str(line.unwrap()).unwrap()
    };
    events.map(data).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_outgrows_its_cap_ends_in_the_providers_own_error() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for api in Api::ALL {
            let simulator = Simulator::start(Options::default()).unwrap();
            let world = World::start(&[simulator.ca_pem()], with(cap(8, CapKind::Expected)));
            let mut client = Client::connect(&world, simulator.addr(), api.host(), version).await;
            let answer = client.call(api, &long(api)).await.unwrap();
            assert_eq!(answer.status, 200);
            let body = answer.whole().await.unwrap();
            let events = events(&body);
            assert!(events.len() > 50, "{} events", events.len());
            // After it, for clients of their own, Responses says that the response failed.
            let last = events.len() - if api == Api::Responses { 2 } else { 1 };
            let error = &events[last]["error"];
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with("Weir ended this answer: "), "{message}");
            assert_eq!(error["details"]["cap"], "the test's");
            let record = world.record().await;
            let cap = "the test's".to_owned();
            assert_eq!(record.outcome, Outcome::CutOff { cap });
            assert_eq!(record.status, Some(200));
            assert_eq!(record.reasons, ["cap_exceeded"]);
            assert!(
                matches!(record.cost, Cost::Estimated { .. }),
                "{:?}",
                record.cost
            );
            // What was streamed is charged: most of the limit, and beyond it no more than what came
            // with the piece that did not fit, some events of 20 tokens.
            let spent = record.cost.spent().nanos();
            assert!(spent <= 8 * NANOS_PER_CENT + 10 * 20 * 20_000, "{spent}");
            assert!(spent > 6 * NANOS_PER_CENT, "{spent}");
            assert_eq!(
                world.metric("weir_ended_answers_total{reason=\"cap_exceeded\"}"),
                1
            );
            let answer = client.call(api, &api.call("hello", true)).await;
            if let Ok(answer) = answer {
                assert!([402, 200].contains(&answer.status.as_u16()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_within_its_cap_is_not_touched() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], with(cap(100, CapKind::Expected)));
    for api in Api::ALL {
        let mut client =
            Client::connect(&world, simulator.addr(), api.host(), Version::HTTP_11).await;
        let (status, body) = client.ask(api, &long(api)).await;
        assert_eq!(status, 200);
        assert!(!body.windows(5).any(|window| window == b"Weir "));
        let record = world.record().await;
        assert_eq!(record.outcome, Outcome::Completed);
        assert!(matches!(record.cost, Cost::Priced { .. }));
    }
    let spent = world.sidecar.summary().spend;
    assert_eq!(
        world.sidecar.status()["caps"][0]["spent"],
        spent.to_string()
    );
}

/// Loops of calls like a coding agent's, until the first of them is refused: how much of the limit,
/// in nano-dollars, was spent then.
async fn spent_at_the_first_refusal(
    world: &Arc<World>,
    simulator: &Simulator,
    stream: bool,
) -> i64 {
    let mut agents = JoinSet::new();
    for number in 0..4 {
        let api = Api::ALL[number % 3];
        let (world, target) = (Arc::clone(world), simulator.addr());
        let mut client = Client::connect(&world, target, api.host(), Version::HTTP_11).await;
        agents.spawn(async move {
            loop {
                let mut body = api.call("[[sim: tokens=200 events=5]]", stream);
                for limit in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
                    if body.get(limit).is_some() {
                        body[limit] = 32_000.into();
                    }
                }
                let (status, answer) = client.ask(api, &body).await;
                if status != 200 {
                    let error: Value = serde_json::from_slice(&answer).unwrap();
                    let spent = error["error"]["details"]["spent_usd"].as_str().unwrap();
                    let (dollars, rest) = spent.split_once('.').unwrap();
                    return format!("{dollars}{rest:0<9}").parse::<i64>().unwrap();
                }
            }
        });
    }
    let first = agents.join_next().await.unwrap().unwrap();
    agents.abort_all();
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_tenths_of_a_cap_are_usable_by_agents_that_ask_for_much_and_take_little() {
    for stream in [false, true] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let config: Config = with(cap(100, CapKind::Expected));
        let world = Arc::new(World::start(&[simulator.ca_pem()], config));
        let spent = spent_at_the_first_refusal(&world, &simulator, stream).await;
        assert!(spent >= 90 * NANOS_PER_CENT, "{spent} of $1");
        assert!(spent <= 100 * NANOS_PER_CENT, "{spent} of $1");
    }
}
