//! No answer waits for its record, nor for what is found out about its prompt; the record is completed
//! when that is known, and counted once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{StatusCode, Version};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use weir::process::config::{CacheMode, Config, Unpriced};
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, PATIENCE, World};

use super::explained::{at, record};

/// A row as it stands in the database, and the number of all.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    seq: i64,
    outcome: String,
    cost_nanos: Option<i64>,
    cache_reason: Option<String>,
    missed_nanos: Option<i64>,
}

fn last_row(state: &Path) -> Row {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = Connection::open_with_flags(state.join("weir.db"), flags).unwrap();
    let sql = "SELECT seq, outcome, cost_nanos, cache_reason, missed_nanos
        FROM exchange ORDER BY seq DESC LIMIT 1";
    let row = database.query_row(sql, [], |row| {
        Ok(Row {
            seq: row.get(0)?,
            outcome: row.get(1)?,
            cost_nanos: row.get(2)?,
            cache_reason: row.get(3)?,
            missed_nanos: row.get(4)?,
        })
    });
    row.unwrap()
}

async fn connect(world: &World, simulator: &Simulator) -> Client {
    let host = Api::Messages.host();
    Client::connect(world, simulator.addr(), host, Version::HTTP_11).await
}

async fn answered(client: &mut Client, body: &Value) {
    let (status, answer) = client.ask(Api::Messages, body).await;
    assert_eq!(status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn an_answer_does_not_wait_until_it_is_settled_and_nobody_finds_it_unsettled() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut client = connect(&world, &simulator).await;
    let counted = || {
        let metrics = world.sidecar.metrics();
        let mut lines = metrics.lines();
        lines.any(|line| line.starts_with("weir_exchanges_total{"))
    };
    let held = world.sidecar.hold_settling();
    answered(&mut client, &at("2026-06-09T09:14:07Z", &["Read"], 1)).await;
    assert!(!counted(), "it is still to be settled");
    drop(held);
    assert!(counted());
    assert!(world.sidecar.settled(PATIENCE));
    assert_eq!(last_row(world.state()).outcome, "completed");
}

#[tokio::test]
async fn an_answer_and_its_record_come_first_and_the_record_is_completed_and_counted_once() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut client = connect(&world, &simulator).await;
    record(
        &world,
        &mut client,
        &at("2026-06-09T09:14:07Z", &["Read"], 1),
    )
    .await;
    let held = world.sidecar.hold_analyst();
    // Would anything wait for the analyst, this would never come.
    answered(&mut client, &at("2026-06-09T09:15:38Z", &["Read"], 3)).await;
    assert!(world.sidecar.ledger().flush(PATIENCE));
    let before = last_row(world.state());
    assert_eq!((before.seq, before.outcome.as_str()), (2, "completed"));
    assert_eq!((&before.cache_reason, before.missed_nanos), (&None, None));
    drop(held);
    let record = world.record().await;
    assert_eq!(record.cache_reason.as_deref(), Some("system_changed"));
    assert!(world.sidecar.settled(PATIENCE));
    let after = Row {
        cache_reason: Some("system_changed".to_owned()),
        missed_nanos: record.missed.map(|missed| missed.nanos()),
        ..before
    };
    assert_eq!(last_row(world.state()), after, "the same row, completed");

    let bill = simulator.total_nanodollars();
    let summary = world.sidecar.summary();
    assert_eq!(summary.calls, 2);
    assert_eq!(u64::try_from(summary.spend.nanos()).unwrap(), bill);
    let spent = "weir_spent_nanodollars_total{provider=\"anthropic\"}";
    assert_eq!(world.metric(spent), bill);
    let outcomes = ["write", "hit", "partial", "none"].map(|outcome| {
        let labels = format!("outcome=\"{outcome}\",provider=\"anthropic\"");
        world.metric(&format!("weir_cache_outcomes_total{{{labels}}}"))
    });
    assert_eq!(outcomes.iter().sum::<u64>(), 2, "{outcomes:?}");
    world.no_more_records().await;
}

#[tokio::test]
async fn what_is_being_found_out_when_weir_ends_is_found_out_first() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut client = connect(&world, &simulator).await;
    let held = world.sidecar.hold_analyst();
    for (turn, tools) in [["Read", "Edit"], ["Edit", "Read"]].iter().enumerate() {
        answered(&mut client, &at("noon", tools, 2 * turn + 1)).await;
    }
    drop(client);
    let has_ended = AtomicBool::new(false);
    let end = async {
        world.sidecar.drain(PATIENCE).await;
        has_ended.store(true, Ordering::Release);
        last_row(world.state()).cache_reason
    };
    // Only once the end waits for it, all is found out.
    let release = async {
        while !world.sidecar.awaits_analyst() {
            assert!(!has_ended.load(Ordering::Acquire), "weir does not wait");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(held);
    };
    let (reason, ()) = tokio::join!(end, release);
    assert_eq!(reason.as_deref(), Some("tools_changed"));
}

/// Makes a call that there is no room to look at; gives its body.
async fn leave_a_gap(world: &World, client: &mut Client) -> Value {
    // Bodies of 64 MiB may wait: a third of this size is too much.
    let padding = "x".repeat(24 << 20);
    let body = json!({
        "model": "claude-opus-5-5", "max_tokens": 10, "padding": padding,
        "messages": [{ "role": "user", "content": "Hello. [[sim: tokens=3]]" }],
    });
    let held = world.sidecar.hold_analyst();
    for _ in 0..3 {
        answered(client, &body).await;
    }
    drop(held);
    for is_explained in [true, true, false] {
        let record = world.record().await;
        let says_not = record
            .reasons
            .iter()
            .any(|reason| reason == "not_explained");
        assert_eq!(says_not, !is_explained, "{record:?}");
    }
    body
}

#[tokio::test]
async fn a_call_that_there_is_no_room_for_is_answered_and_its_record_says_so() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut client = connect(&world, &simulator).await;
    let body = leave_a_gap(&world, &mut client).await;
    let bound = "weir_bounds_reached_total{bound=\"explanations\"}";
    assert_eq!(world.metric(bound), 1);
    // There is room again.
    let next = record(&world, &mut client, &body).await;
    assert_eq!(next.reasons, Vec::<String>::new());
}

/// What the call that was not looked at left in the cache is not known: a call behind it may have saved
/// less than it seems.
#[tokio::test]
async fn of_the_first_call_behind_one_that_was_not_looked_at_nobody_says_what_rewriting_saves() {
    for has_gap in [false, true] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let world = World::start(&[simulator.ca_pem()], Config::default());
        let mut client = connect(&world, &simulator).await;
        let first = at("2026-06-09T09:14:07Z", &["Read"], 1);
        record(&world, &mut client, &first).await;
        if has_gap {
            leave_a_gap(&world, &mut client).await;
        }
        let second = at("2026-06-09T09:15:38Z", &["Read"], 3);
        let second = record(&world, &mut client, &second).await;
        assert_eq!(second.rewrite_saving.is_some(), !has_gap, "{second:?}");
        let third = at("2026-06-09T09:16:40Z", &["Read"], 5);
        let third = record(&world, &mut client, &third).await;
        assert!(third.rewrite_saving.is_some(), "{third:?}");
    }
}

/// Puts `config` in force: a model without a price tells when it is.
async fn put_in_force(world: &World, simulator: &Simulator, mut config: Config) {
    config.pricing.unpriced = Unpriced::Refuse;
    world.live.cell().store(Arc::new(config));
    let body = json!({
        "model": "nobody-knows-this-one", "max_tokens": 10,
        "messages": [{ "role": "user", "content": "Hello. [[sim: tokens=3]]" }],
    });
    let until = Instant::now() + PATIENCE;
    loop {
        let mut client = connect(world, simulator).await;
        client.ask(Api::Messages, &body).await;
        // Not by `World::metric`, which waits for what is held here.
        if world
            .sidecar
            .metrics()
            .contains("weir_refused_calls_total{")
        {
            return;
        }
        assert!(Instant::now() < until, "the configuration is not followed");
    }
}

/// What the provider was sent last, and what was asked.
fn is_edited(simulator: &Simulator, body: &Value) -> bool {
    let received = simulator.received().pop().unwrap();
    received.body != serde_json::to_vec(body).unwrap()
}

#[tokio::test]
async fn what_began_unedited_stays_so_where_the_mode_changes_before_it_was_looked_at() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], Config::default());
    let mut client = connect(&world, &simulator).await;
    let held = world.sidecar.hold_analyst();
    let first = at("2026-06-09T09:14:07Z", &["Read"], 1);
    answered(&mut client, &first).await;
    let mut config = (*world.live.config()).clone();
    config.cache.mode = CacheMode::Rewrite;
    put_in_force(&world, &simulator, config).await;
    // The same once more, as a client does that got no answer: it is the same conversation.
    let mut client = connect(&world, &simulator).await;
    answered(&mut client, &first).await;
    // It is planned at once, so that what waits gets no longer by it.
    let metrics = world.sidecar.metrics();
    let observed = "weir_rewritten_calls_total{result=\"observed\"} 1";
    assert!(metrics.contains(observed), "{metrics}");
    drop(held);
    assert!(world.sidecar.settled(PATIENCE));
    let second = at("2026-06-09T09:15:38Z", &["Read"], 3);
    answered(&mut client, &second).await;
    assert!(!is_edited(&simulator, &second), "it began unedited");

    // One that begins now is edited as soon as its value changes.
    let other = |time: &str, turns| {
        let mut body = at(time, &["Read"], turns);
        body["messages"][0]["content"] = json!("Something else. [[sim: tokens=3]]");
        body
    };
    answered(&mut client, &other("2026-06-09T09:16:00Z", 1)).await;
    let later = other("2026-06-09T09:17:01Z", 3);
    answered(&mut client, &later).await;
    assert!(is_edited(&simulator, &later));
}
