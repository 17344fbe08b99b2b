//! Each call says why it did not read from the cache what it could have, and what that cost.

use std::sync::Arc;

use http::Version;
use serde_json::{Value, json};
use weir::ledger::Record;
use weir::process::config::{Cache, CacheMode, Config};
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World, encode, request};

/// An agent's call with the time in its system prompt.
pub(super) fn at(time: &str, tools: &[&str], turns: usize) -> Value {
    let rules = "Read a file before you change it, and change no more than you must. ".repeat(200);
    let marker = json!({ "type": "ephemeral" });
    let tool = |name: &&str| json!({ "name": name, "input_schema": { "type": "object" } });
    let message = |turn: usize| {
        let role = if turn.is_multiple_of(2) {
            "user"
        } else {
            "assistant"
        };
        json!({ "role": role, "content": format!("This is part {turn} of it. [[sim: tokens=3]]") })
    };
    json!({
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "tools": tools.iter().map(tool).collect::<Vec<_>>(),
        "system": [{
            "type": "text",
            "text": format!("{rules}\nThe current time is {time}.\n"),
            "cache_control": marker,
        }],
        "messages": (0..turns).map(message).collect::<Vec<_>>(),
    })
}

/// A provider, Weir, and an application between them.
async fn start(mode: CacheMode, version: Version) -> (Simulator, World, Client) {
    let simulator = Simulator::start(Options::default()).unwrap();
    let cache = Cache {
        mode,
        ..Cache::default()
    };
    let config = Config {
        cache,
        ..Config::default()
    };
    let world = World::start(&[simulator.ca_pem()], config);
    let host = Api::Messages.host();
    let client = Client::connect(&world, simulator.addr(), host, version).await;
    (simulator, world, client)
}

pub(super) async fn record(world: &World, client: &mut Client, body: &Value) -> Arc<Record> {
    let (status, answer) = client.ask(Api::Messages, body).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    world.record().await
}

#[tokio::test]
async fn a_lost_prefix_has_a_reason_a_place_a_rule_and_a_price() {
    let (_simulator, world, mut client) = start(CacheMode::Observe, Version::HTTP_11).await;
    let tools = ["Read", "Edit"];
    let first = record(&world, &mut client, &at("2026-06-09T09:14:07Z", &tools, 1)).await;
    assert_eq!((&first.cache_reason, first.missed), (&None, None));
    let same = record(&world, &mut client, &at("2026-06-09T09:14:07Z", &tools, 3)).await;
    assert_eq!(same.cache_outcome.as_deref(), Some("hit"));
    assert_eq!(same.cache_reason, None);

    let later = record(&world, &mut client, &at("2026-06-09T09:15:38Z", &tools, 5)).await;
    assert_eq!(later.cache_outcome.as_deref(), Some("write"));
    assert_eq!(later.cache_reason.as_deref(), Some("system_changed"));
    let place = later.cache_where.clone().unwrap();
    assert!(
        place.starts_with("system[0]+13"),
        "behind 13 600 bytes of rules: {place}"
    );
    assert!(later.cache_rule.is_some(), "a rule knows the time");
    // 3400 tokens were written at 1.25 of the input price and could have been read at a twentieth.
    let missed = later.missed.unwrap().nanos();
    let tokens = later.usage.unwrap().cache_write;
    let expected = i64::try_from(tokens).unwrap() * (5_000 - 200);
    assert!(
        missed.abs_diff(expected) < 200_000,
        "{missed} of {expected}"
    );

    let swapped = record(
        &world,
        &mut client,
        &at("2026-06-09T09:15:38Z", &["Edit", "Read"], 7),
    )
    .await;
    assert_eq!(swapped.cache_reason.as_deref(), Some("tools_changed"));
    assert!(
        swapped
            .cache_where
            .as_deref()
            .is_some_and(|place| place.starts_with("tools[0]+"))
    );
    let metric = "weir_cache_reasons_total{provider=\"anthropic\",reason=\"tools_changed\"}";
    assert_eq!(world.metric(metric), 1);
    let metric =
        "weir_cache_missed_nanodollars_total{provider=\"anthropic\",reason=\"system_changed\"}";
    assert_eq!(i64::try_from(world.metric(metric)).unwrap(), missed);
}

#[tokio::test]
async fn what_the_provider_takes_out_by_its_place_is_no_reason() {
    let (_simulator, world, mut client) = start(CacheMode::Observe, Version::HTTP_11).await;
    let mut record_of = async |cch: &str, time: &str, turns| {
        let mut body = at(time, &["Read"], turns);
        let header = format!("x-anthropic-billing-header: cc_version=2.1.330.a1b; cch={cch};");
        let system = body["system"].as_array_mut().unwrap();
        system.insert(0, json!({ "type": "text", "text": header }));
        record(&world, &mut client, &body).await
    };
    record_of("0f3a1", "2026-06-09T09:14:07Z", 1).await;
    let second = record_of("0f3a2", "2026-06-09T09:14:07Z", 3).await;
    assert_eq!(second.cache_outcome.as_deref(), Some("hit"));
    let third = record_of("0f3a3", "2026-06-09T09:15:38Z", 5).await;
    assert_eq!(third.cache_reason.as_deref(), Some("system_changed"));
    let place = third.cache_where.clone().unwrap();
    assert!(
        place.starts_with("system[1]+13"),
        "behind the rules: {place}"
    );
}

#[tokio::test]
async fn a_prompt_without_a_marker_is_told_so() {
    let (_simulator, world, mut client) = start(CacheMode::Observe, Version::HTTP_2).await;
    let mut record_of = async |turns| {
        let mut body = at("noon", &["Read"], turns);
        body["system"][0]
            .as_object_mut()
            .unwrap()
            .remove("cache_control");
        record(&world, &mut client, &body).await
    };
    record_of(1).await;
    let second = record_of(3).await;
    assert_eq!(second.cache_reason.as_deref(), Some("no_breakpoint"));
    assert!(second.missed.is_some_and(|missed| missed.nanos() > 0));
}

/// What rewriting saves of three calls between which the time changes, in nano-dollars, and what
/// the bill of the simulator comes to.
async fn saved(mode: CacheMode) -> (Vec<Option<i64>>, i64) {
    let (simulator, world, mut client) = start(mode, Version::HTTP_11).await;
    let mut saved = Vec::new();
    for (turn, time) in ["09:14:07Z", "09:15:38Z", "09:17:01Z"].iter().enumerate() {
        let body = at(&format!("2026-06-09T{time}"), &["Read"], 2 * turn + 1);
        let record = record(&world, &mut client, &body).await;
        saved.push(record.rewrite_saving.map(|saving| saving.nanos()));
    }
    (saved, i64::try_from(simulator.total_nanodollars()).unwrap())
}

#[tokio::test]
async fn what_rewriting_would_save_is_what_it_then_saves() {
    let (would, watched_bill) = saved(CacheMode::Observe).await;
    let (did, rewritten_bill) = saved(CacheMode::Rewrite).await;
    let difference = watched_bill - rewritten_bill;
    assert!(
        difference > 20_000_000,
        "{watched_bill} and {rewritten_bill}"
    );
    for saved in [would, did] {
        let sum: i64 = saved.iter().flatten().sum();
        // Tokens are counted by bytes there: a twentieth is near enough.
        assert!(
            sum.abs_diff(difference) < difference.unsigned_abs() / 20,
            "{saved:?} of {difference}"
        );
    }
}

/// What was found out about calls whose bodies come in an encoding, between which the time changes, and
/// then the order of the tools.
async fn found(mode: CacheMode, encoding: &str) -> Vec<impl PartialEq + std::fmt::Debug> {
    let (_simulator, world, mut client) = start(mode, Version::HTTP_11).await;
    let mut found = Vec::new();
    for (time, tools, turns) in [
        ("09:14:07Z", ["Read", "Edit"], 1),
        ("09:15:38Z", ["Read", "Edit"], 3),
        ("09:15:38Z", ["Edit", "Read"], 5),
    ] {
        let body = at(&format!("2026-06-09T{time}"), &tools, turns).to_string();
        let mut request = request(Api::Messages, encode::encode(encoding, body.as_bytes()));
        if encoding != "identity" {
            let token = encode::token(encoding).parse().unwrap();
            request.headers_mut().insert("content-encoding", token);
        }
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status, 200, "{encoding}");
        answer.whole().await.unwrap();
        let record = world.record().await;
        let is_encoded = record.reasons.contains(&"request_encoded".to_owned());
        assert_eq!(is_encoded, encoding != "identity");
        found.push((
            record.cache_outcome.clone(),
            record.cache_reason.clone(),
            record.cache_where.clone(),
            record.cache_rule.clone(),
            record.missed.map(|missed| missed.nanos()),
            record.rewrite_saving.map(|saving| saving.nanos()),
            record.edits.clone(),
        ));
    }
    found
}

#[tokio::test]
async fn a_body_that_comes_encoded_is_explained_as_a_plain_one() {
    for mode in [CacheMode::Observe, CacheMode::Rewrite] {
        let plain = found(mode, "identity").await;
        let shown = format!("{plain:?}");
        assert!(shown.contains("tools_changed") || mode == CacheMode::Rewrite);
        assert!(shown.contains("system_changed") || mode == CacheMode::Rewrite);
        assert!(shown.contains("Edit {") || mode == CacheMode::Observe);
        for encoding in ["gzip", "deflate", "br", "zstd"] {
            assert_eq!(found(mode, encoding).await, plain, "{mode:?}, {encoding}");
        }
    }
}
