//! Caps hold, whatever the number and order of calls; and a refusal says what the caller must know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use serde_json::Value;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use weir::ledger::{Cost, Outcome};
use weir::process::config::{Cap, CapKind, Config, Dimension, OnExceed, Window};
use weir_core::money::Money;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, PATIENCE, Stored, World};

pub(crate) const NANOS_PER_CENT: i64 = 10_000_000;

pub(crate) fn cap(limit_cents: i64, kind: CapKind) -> Cap {
    let limit = Money::from_nanos(limit_cents * NANOS_PER_CENT);
    Cap {
        kind,
        ..Cap::new("the test's", Window::Total, limit)
    }
}

pub(crate) fn with(cap: Cap) -> Config {
    Config {
        caps: vec![cap],
        ..Config::default()
    }
}

/// Connects the caller of this number: which API, and which version of HTTP.
async fn caller(world: &World, simulator: &Simulator, number: usize) -> (Api, Client) {
    let api = Api::ALL[number % 3];
    let version = if number % 4 < 2 {
        Version::HTTP_11
    } else {
        Version::HTTP_2
    };
    let client = Client::connect(world, simulator.addr(), api.host(), version).await;
    (api, client)
}

/// What it does: the number says how long an answer is, streamed or not, and whether it leaves
/// early: in the middle of a stream, before the body of a plain answer, or before there is any answer.
async fn make_a_call(api: Api, mut client: Client, number: usize) {
    let stream = number.is_multiple_of(2);
    let tokens = TOKENS_MIN + number % 7 * 50;
    let text = format!("{number} [[sim: tokens={tokens} events=10 delay_ms=1]]");
    let body = api.call(&text, stream);
    if number % 20 == 9 {
        let patience = Duration::from_millis(u64::try_from(number / 5).unwrap());
        drop(tokio::time::timeout(patience, client.call(api, &body)).await);
        return;
    }
    let mut answer = client.call(api, &body).await.unwrap();
    if answer.status == 200 && number % 10 == 4 {
        answer.next().await.unwrap();
        return;
    }
    if answer.status == 200 && number % 20 == 7 {
        return;
    }
    let status = answer.status;
    let body = answer.whole().await.unwrap();
    let expected = [200, 402, 429];
    assert!(expected.contains(&status.as_u16()), "{status} {body:?}");
}

const CALLS: usize = 1000;

/// Tokens of the shortest answer, and of the longest.
const TOKENS_MIN: usize = 400;
const TOKENS_MAX: usize = TOKENS_MIN + 6 * 50;

/// Asserts that who stayed to the end is billed to the nano-dollar, call by call, and that the rest
/// of the bill is of those who left.
fn assert_on_the_bill(stored: &[Stored], simulator: &Simulator) {
    let of = |outcome: &'static str| stored.iter().filter(move |row| row.outcome == outcome);
    let mut lines: Vec<i64> = simulator
        .bill()
        .iter()
        .map(|line| i64::try_from(line.nanodollars).unwrap())
        .collect();
    lines.sort_unstable();
    for row in of("completed") {
        let cost = row.cost_nanos.unwrap();
        let at = lines
            .binary_search(&cost)
            .unwrap_or_else(|_| panic!("{cost} is not on the bill"));
        lines.remove(at);
    }
    let gone = of("client_gone").count();
    assert!(gone > 0, "nobody left of those who were admitted");
    // Who left before the call was sent is on no bill.
    assert!(
        lines.len() <= gone,
        "the rest of the bill is of those who left"
    );
}

async fn a_thousand_calls_at_once(kind: CapKind) {
    let simulator = Simulator::start(Options::default()).unwrap();
    let limit_cents = 100;
    let cap = cap(limit_cents, kind);
    let world = World::start(&[simulator.ca_pem()], with(cap));
    let together = Arc::new(Barrier::new(CALLS));
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        // One after the other: who opens a connection is looked up, which takes its time in this
        // mode, and a handshake that takes too long is not inspected.
        let (api, client) = caller(&world, &simulator, number).await;
        let together = Arc::clone(&together);
        calls.spawn(async move {
            together.wait().await;
            make_a_call(api, client, number).await;
        });
    }
    calls.join_all().await;
    // Who left has nobody who waits for them.
    world.sidecar.drain(PATIENCE).await;
    let stored = world.stored();
    let refused = stored.iter().filter(|row| row.outcome == "refused").count();
    let admitted = stored.len() - refused;
    assert!(refused > 0 && admitted > 0, "{refused} refused");
    // Some may have left before their call was read.
    assert!((CALLS - CALLS / 20..=CALLS).contains(&stored.len()));
    let limit = u64::try_from(limit_cents * NANOS_PER_CENT).unwrap();
    let billed = simulator.total_nanodollars();
    // The bound of `weir_core::caps`: what calls in flight cost beyond their reservation. A strict
    // cap reserves the worst case. What is expected is never less than the shortest answer, since
    // nobody got a shorter one; so a call costs at most so many times its reservation as the longest
    // costs the shortest, and all reservations together were within the limit.
    let price = |tokens: usize| u64::try_from(tokens).unwrap() * 20_000;
    let (longest, least) = (price(TOKENS_MAX) + 100 * 8_000, price(TOKENS_MIN));
    let bound = match kind {
        CapKind::Strict => 0,
        CapKind::Expected => limit * (longest - least) / least,
    };
    // All together would be beyond it, at half the price and if half of them left.
    assert!(limit + bound < price(TOKENS_MIN * CALLS / 4));
    assert!(billed <= limit + bound, "{billed} of {limit} and {bound}");
    assert!(
        simulator.bill().len() <= admitted,
        "the refused never arrive"
    );
    assert_on_the_bill(&stored, &simulator);
    let accounts = world.sidecar.status();
    assert_eq!(
        accounts["caps"][0]["reserved"],
        Money::ZERO.to_string(),
        "all is settled"
    );
    let spent: i64 = stored.iter().filter_map(|row| row.cost_nanos).sum();
    assert_eq!(
        accounts["caps"][0]["spent"],
        Money::from_nanos(spent).to_string()
    );
    // Who left is charged for what was streamed, not for what was generated meanwhile.
    let gone = stored.iter().filter(|row| row.outcome == "client_gone");
    let unseen = longest * u64::try_from(gone.count()).unwrap();
    let spent = u64::try_from(spent).unwrap();
    assert!(spent + unseen >= billed, "{spent} of {billed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once_stay_under_a_strict_cap() {
    a_thousand_calls_at_once(CapKind::Strict).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once_stay_within_the_bound_of_an_expected_cap() {
    a_thousand_calls_at_once(CapKind::Expected).await;
}

#[tokio::test]
async fn a_refusal_is_the_providers_own_error_and_says_what_was_exceeded() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], with(cap(0, CapKind::Expected)));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for api in Api::ALL {
            for stream in [false, true] {
                let mut client =
                    Client::connect(&world, simulator.addr(), api.host(), version).await;
                let answer = client.call(api, &api.call("hello", stream)).await.unwrap();
                assert_eq!(answer.status, 402);
                assert_eq!(answer.headers["x-should-retry"], "false");
                assert_eq!(answer.headers["content-type"], "application/json");
                assert!(!answer.headers.contains_key("retry-after"));
                let record = world.record().await;
                let id = match api {
                    Api::Messages => "request-id",
                    Api::Chat | Api::Responses => "x-request-id",
                };
                assert_eq!(answer.headers[id], record.id);
                let error: Value = serde_json::from_slice(&answer.whole().await.unwrap()).unwrap();
                let kind = match api {
                    Api::Messages => "billing_error",
                    Api::Chat | Api::Responses => "insufficient_quota",
                };
                assert_eq!(error["error"]["type"], kind);
                let message = error["error"]["message"].as_str().unwrap();
                assert!(message.contains("\"the test's\""), "{message}");
                let cap = "the test's".to_owned();
                assert_eq!(record.outcome, Outcome::Refused { cap });
                assert_eq!(record.status, Some(402));
                assert_eq!(record.cost.spent(), Money::ZERO);
                assert_eq!(record.reasons, ["cap_exceeded"]);
            }
        }
    }
    assert_eq!(simulator.received().len(), 0);
    assert_eq!(world.sidecar.summary().refused, 12);
    assert_eq!(
        world.metric("weir_refused_calls_total{reason=\"cap_exceeded\"}"),
        12
    );
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let only = BTreeMap::from([(Dimension::Model, vec!["claude-opus-*".to_owned()])]);
    let cap = Cap {
        only,
        ..cap(0, CapKind::Expected)
    };
    let world = World::start(&[simulator.ca_pem()], with(cap));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let api = Api::Messages;
        let mut client = Client::connect(&world, simulator.addr(), api.host(), version).await;
        let mut other = api.call("hello", false);
        other["model"] = "claude-haiku-5-5".into();
        let calls = [(api.call("hello", false), 402), (other, 200)];
        for (body, expected) in calls.iter().chain(&calls) {
            assert_eq!(client.ask(api, body).await.0, *expected);
        }
    }
}

/// Calls until one is refused; how many were not.
async fn calls_until_refused(world: &World, simulator: &Simulator) -> usize {
    let api = Api::Messages;
    let mut client = Client::connect(world, simulator.addr(), api.host(), Version::HTTP_11).await;
    for made in 0..100 {
        let body = api.call("[[sim: tokens=100]]", false);
        if client.ask(api, &body).await.0 == 402 {
            return made;
        }
    }
    panic!("expected a refusal within 100 calls");
}

#[tokio::test]
async fn after_a_restart_a_cap_stands_where_it_stood() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let config = with(cap(6, CapKind::Expected));
    let world = World::start(&[simulator.ca_pem()], config.clone());
    assert!(calls_until_refused(&world, &simulator).await > 2);
    let spent = world.sidecar.status()["caps"][0]["spent"].clone();
    let state = world.stop().await;
    let world = World::continued(state, &[simulator.ca_pem()], config);
    assert_eq!(world.sidecar.status()["caps"][0]["spent"], spent);
    assert!(calls_until_refused(&world, &simulator).await <= 1);
    assert!(simulator.total_nanodollars() <= u64::try_from(6 * NANOS_PER_CENT).unwrap());
}

#[tokio::test]
async fn with_observe_or_a_cap_that_warns_nothing_is_refused() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let warns = Cap {
        on_exceed: OnExceed::Warn,
        ..cap(0, CapKind::Strict)
    };
    let observes = Config {
        observe: true,
        ..with(cap(0, CapKind::Strict))
    };
    for config in [with(warns), observes] {
        let world = World::start(&[simulator.ca_pem()], config);
        for api in Api::ALL {
            let mut client =
                Client::connect(&world, simulator.addr(), api.host(), Version::HTTP_11).await;
            assert_eq!(client.ask(api, &api.call("hello", false)).await.0, 200);
            let record = world.record().await;
            assert_eq!(record.outcome, Outcome::Completed);
            assert_eq!(record.reasons, Vec::<String>::new());
            assert!(matches!(record.cost, Cost::Priced { .. }));
        }
        let billed: Money = world.sidecar.summary().spend;
        // What was spent is never forgotten, whether or not it was refused.
        assert_eq!(
            world.sidecar.status()["caps"][0]["spent"],
            billed.to_string()
        );
    }
}

#[tokio::test]
async fn an_upgrade_that_is_asked_for_with_a_call_does_not_get_around_a_cap() {
    let server = crate::replay::Replay::start().await;
    let world = World::start(&[&server.ca_pem], with(cap(0, CapKind::Expected)));
    let mut client = world.http1(server.addr, "api.anthropic.com").await;
    let body = Api::Messages.call("hello", false).to_string();
    client
        .send(format!(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: \
             websocket\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    assert!(client.message().await.head.starts_with("HTTP/1.1 402 "));
}
