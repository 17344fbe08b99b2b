//! Several nodes on one PostgreSQL ledger: one cap, held by all of them together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, Version};
use serde_json::Value;
use tokio::task::JoinSet;
use weir::ledger::Outcome;
use weir::process::config::{Cap, CapKind, Config, Fail, Intercept, Ledger, OnExceed, Window};
use weir_core::caps::Limits;
use weir_core::lease::LIMIT_SHARE;
use weir_core::money::Money;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World};

#[path = "../../interceptor/tests/postgres/server.rs"]
#[expect(dead_code, reason = "the tests of the ledger itself use the rest")]
pub(crate) mod server;

use crate::caps_streams::long;
use server::Server;

const NANOS_PER_CENT: i64 = 10_000_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn cap(limit_cents: i64, kind: CapKind) -> Cap {
    let limit = Money::from_nanos(limit_cents * NANOS_PER_CENT);
    Cap {
        kind,
        ..Cap::new("the fleet's", Window::Total, limit)
    }
}

fn config(url: &str, limit_cents: i64, kind: CapKind, fail: Fail) -> Config {
    with(url, vec![cap(limit_cents, kind)], fail)
}

fn with(url: &str, caps: Vec<Cap>, fail: Fail) -> Config {
    Config {
        caps,
        intercept: Intercept {
            fail,
            ..Intercept::default()
        },
        ledger: Ledger {
            url: url.to_owned(),
            ..Ledger::default()
        },
        ..Config::default()
    }
}

fn start(simulator: &Simulator, config: &Config) -> Arc<World> {
    Arc::new(World::start(&[simulator.ca_pem()], config.clone()))
}

async fn client(world: &World, simulator: &Simulator) -> Client {
    let host = Api::Messages.host();
    Client::connect(world, simulator.addr(), host, Version::HTTP_11).await
}

async fn call(client: &mut Client, tokens: usize) -> StatusCode {
    let text = format!("hello [[sim: tokens={tokens} events=4]]");
    let body = Api::Messages.call(&text, true);
    let answer = client.call(Api::Messages, &body).await.unwrap();
    let status = answer.status;
    answer.whole().await.unwrap();
    status
}

async fn eventually(server: &Server, sql: &str, expected: i64) {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = server.number(sql).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "{found}, not {expected}: {sql}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const SPENT: &str = "SELECT coalesce(sum(amount), 0)::bigint FROM weir.spent";
const HELD: &str = "SELECT coalesce(sum(greatest(allowed - coalesce(spent, 0), 0)), 0)::bigint
    FROM weir.lease LEFT JOIN (SELECT holder, sum(amount) AS spent FROM weir.spent GROUP BY 1) AS s
    USING (holder)";

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_spend_no_more_than_one_would() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let mut server = Server::start();
    let url = server.pool();
    let limit_cents = 100;
    let config = config(&url, limit_cents, CapKind::Strict, Fail::Closed);
    let worlds: Vec<_> = (0..3).map(|_| start(&simulator, &config)).collect();
    let mut calls = JoinSet::new();
    for number in 0..60 {
        let world = Arc::clone(&worlds[number % 3]);
        let mut client = client(&world, &simulator).await;
        calls.spawn(async move {
            let mut made = 0;
            for _ in 0..6 {
                let status = call(&mut client, 1_000).await;
                assert!([200, 402, 429].contains(&status.as_u16()), "{status}");
                made += usize::from(status == 200);
            }
            made
        });
    }
    let made: usize = calls.join_all().await.into_iter().sum();
    assert_eq!(simulator.bill().len(), made, "the refused never arrive");
    assert!(made < 360, "nothing was refused");
    let limit = limit_cents * NANOS_PER_CENT;
    let billed = i64::try_from(simulator.total_nanodollars()).unwrap();
    assert!(billed <= limit, "{billed} of {limit}");
    assert!(
        billed >= limit * 8 / 10,
        "only {billed} of {limit} was usable"
    );
    // What nobody uses any more returns, while all nodes live.
    eventually(&server, SPENT, billed).await;
    eventually(&server, HELD, 0).await;
}

/// Two nodes, one after the other, each until its slice is used up, and what they could then do.
async fn frozen(fail: Fail) -> (Simulator, Server, [Arc<World>; 2]) {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let limit_cents = 1_000;
    let config = config(&server.url(), limit_cents, CapKind::Expected, fail);
    let worlds = [(); 2].map(|()| start(&simulator, &config));
    let mut clients = Vec::new();
    for world in &worlds {
        let mut client = client(world, &simulator).await;
        assert_eq!(call(&mut client, 100).await, 200);
        clients.push(client);
    }
    server.freeze();
    for client in &mut clients {
        // The slice is a small part of the limit, and of more than one call.
        let (mut made, mut refused) = (0, 0);
        for _ in 0..60 {
            let began = Instant::now();
            match call(client, 1_000).await.as_u16() {
                200 => made += 1,
                402 | 429 => refused += 1,
                other => panic!("{other}"),
            }
            let took = began.elapsed();
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
        assert!(made >= 3, "the slice is used up first: {made}");
        match fail {
            Fail::Closed => assert!(refused > 0),
            Fail::Open => assert_eq!(refused, 0),
        }
    }
    if fail == Fail::Closed {
        // Two slices, and what was needed beside them at once or went beyond what was reserved.
        let most = 3 * limit_cents * NANOS_PER_CENT / LIMIT_SHARE;
        let billed = i64::try_from(simulator.total_nanodollars()).unwrap();
        assert!(billed <= most, "{billed}, expected {most} at most");
    }
    (simulator, server, worlds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_ledger_uses_up_the_slices_and_then_refuses_if_it_fails_closed() {
    let (simulator, server, worlds) = Box::pin(frozen(Fail::Closed)).await;
    server.thaw();
    for world in &worlds {
        let mut client = client(world, &simulator).await;
        let until = Instant::now() + PATIENCE;
        while call(&mut client, 100).await != 200 {
            assert!(Instant::now() < until, "no call passes again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let billed = i64::try_from(simulator.total_nanodollars()).unwrap();
    eventually(&server, SPENT, billed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn or_admits_and_counts_later_if_it_fails_open() {
    let (simulator, server, worlds) = Box::pin(frozen(Fail::Open)).await;
    server.thaw();
    let billed = i64::try_from(simulator.total_nanodollars()).unwrap();
    eventually(&server, SPENT, billed).await;
    let flagged = "SELECT count(DISTINCT instance) FROM weir.exchange
        WHERE reasons LIKE '%ledger_unreachable%'";
    assert_eq!(server.number(flagged).await, 2);
    drop(worlds);
}

/// What is spent meanwhile is not in the books, which were asked before; nodes read it of each other.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_while_a_cap_only_warned_counts_when_it_blocks_again() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    for (on_exceed, calls) in [
        (OnExceed::Block, vec![200]),
        (OnExceed::Warn, vec![200; 20]),
        (OnExceed::Block, vec![402]),
    ] {
        let cap = Cap {
            on_exceed,
            ..cap(20, CapKind::Strict)
        };
        let config = with(&server.url(), vec![cap], Fail::Closed);
        let world = World::start(&[simulator.ca_pem()], config);
        let mut client = client(&world, &simulator).await;
        for expected in calls {
            let status = call(&mut client, 1_000).await;
            assert_eq!(status.as_u16(), expected, "{on_exceed:?}");
        }
        drop(world.stop().await);
    }
    let billed = i64::try_from(simulator.total_nanodollars()).unwrap();
    let spent = server.number(SPENT).await;
    assert!(spent < billed, "{spent} of {billed} is in the books");
}

/// A call that may answer with so many tokens: the status, and how it was made cheaper.
async fn asks_for(world: &World, simulator: &Simulator, tokens: u32) -> (StatusCode, Vec<String>) {
    let mut body = Api::Messages.call("hello", false);
    body["max_tokens"] = tokens.into();
    let mut client = client(world, simulator).await;
    let (status, answer) = client.ask(Api::Messages, &body).await;
    let record = world.record().await;
    if status == 200 {
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let model = answer["model"].as_str().unwrap().to_owned();
        let falls = record.reasons.iter().any(|reason| reason == "downgraded");
        assert_eq!(model.starts_with(LESSER), falls, "{model}");
        assert_eq!(record.model_requested.as_deref() == Some(LESSER), falls);
    }
    (status, record.reasons.clone())
}

/// A cap that leads to the lesser model, and one that refuses.
fn falls(over: Cap) -> Vec<Cap> {
    let falls = Cap {
        name: "falls".to_owned(),
        on_exceed: OnExceed::Downgrade,
        downgrade_to: LESSER.to_owned(),
        ..over
    };
    let refuses = Cap {
        limits: Limits {
            tokens: Some(10_000_000),
            ..Limits::default()
        },
        ..cap(0, CapKind::Strict)
    };
    vec![falls, refuses]
}

const LESSER: &str = "claude-haiku-5-5";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_a_slice_goes_on_with_the_lesser_model_and_says_so() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let single = Cap {
        limits: Limits::default(),
        per_call: Some(Money::from_nanos(50 * NANOS_PER_CENT)),
        ..cap(0, CapKind::Strict)
    };
    let world = start(
        &simulator,
        &with(&server.url(), falls(single), Fail::Closed),
    );
    for _ in 0..2 {
        let (status, reasons) = asks_for(&world, &simulator, 64_000).await;
        assert_eq!(
            (status.as_u16(), reasons),
            (200, vec!["downgraded".to_owned()])
        );
    }
}

/// As another node would have spent it just now, which this one has not heard of yet.
async fn spend_elsewhere(server: &Server, window: &str, cents: i64) {
    let sql = format!(
        "WITH new AS (
             INSERT INTO weir.spent
             SELECT account, 'other', extract(epoch FROM now())::bigint * 1000, {} FROM weir.lease
             WHERE account LIKE '%:money:{window}:%' RETURNING 1
         ) SELECT count(*) FROM new",
        cents * NANOS_PER_CENT,
    );
    assert_eq!(server.number(&sql).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_that_others_have_used_up_leads_to_the_lesser_model() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let caps = falls(cap(1_000, CapKind::Strict));
    let world = start(&simulator, &with(&server.url(), caps, Fail::Closed));
    let (status, reasons) = asks_for(&world, &simulator, 100).await;
    assert_eq!((status.as_u16(), reasons.len()), (200, 0));
    spend_elsewhere(&server, &i64::MIN.to_string(), 1_000).await;
    let (status, reasons) = asks_for(&world, &simulator, 64_000).await;
    assert_eq!(
        (status.as_u16(), reasons),
        (200, vec!["downgraded".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_clamped_to_what_nodes_may_spend_together() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let clamps = Cap {
        clamp: true,
        ..cap(10, CapKind::Strict)
    };
    let world = start(&simulator, &with(&server.url(), vec![clamps], Fail::Closed));
    for others_spend_cents in [0, 5] {
        if others_spend_cents > 0 {
            spend_elsewhere(&server, &i64::MIN.to_string(), others_spend_cents).await;
        }
        let (status, reasons) = asks_for(&world, &simulator, 64_000).await;
        assert_eq!(
            (status.as_u16(), reasons),
            (200, vec!["clamped".to_owned()])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_others_have_tripped_refuses_for_a_time() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let breaker = Cap {
        breaker: true,
        window: Window::Hour.rolling().unwrap(),
        ..cap(1_000, CapKind::Strict)
    };
    let config = Config {
        breakers: vec![breaker],
        ..with(&server.url(), Vec::new(), Fail::Closed)
    };
    let world = start(&simulator, &config);
    assert_eq!(asks_for(&world, &simulator, 100).await.0, 200);
    spend_elsewhere(&server, "rolling3600", 1_000).await;
    let mut body = Api::Messages.call("hello", false);
    body["max_tokens"] = 64_000.into();
    let mut client = client(&world, &simulator).await;
    let answer = client.call(Api::Messages, &body).await.unwrap();
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["retry-after"], "150");
    assert_eq!(world.record().await.reasons, ["too_fast"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_outgrows_its_slice_asks_for_no_other_call() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let mut cap = cap(100, CapKind::Expected);
    cap.limits.calls = Some(1);
    let world = start(&simulator, &with(&server.url(), vec![cap], Fail::Closed));
    let mut client = client(&world, &simulator).await;
    let (status, _) = client.ask(Api::Messages, &long(Api::Messages)).await;
    assert_eq!(status, 200);
    assert_eq!(world.record().await.outcome, Outcome::Completed);
    let (status, _) = client.ask(Api::Messages, &long(Api::Messages)).await;
    assert_eq!(status, 402, "it was the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_brings_in_large_pieces_is_leased() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let config = config(&server.url(), 100, CapKind::Expected, Fail::Closed);
    let world = start(&simulator, &config);
    let text = "[[sim: tokens=12000 events=6 delay_ms=300]]";
    let mut body = Api::Messages.call(text, true);
    body["max_tokens"] = 64_000.into();
    let mut client = client(&world, &simulator).await;
    assert_eq!(client.ask(Api::Messages, &body).await.0, 200);
    // A piece costs 5 cents, more than a slice has beyond what is needed at once.
    let leased = server.number("SELECT max(allowed) FROM weir.lease").await;
    assert!(leased > 20 * NANOS_PER_CENT, "{leased}");
}
