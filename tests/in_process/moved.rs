//! Conversations that move between nodes with a state directory each, one PostgreSQL ledger and one
//! secret: what a node told in a turn, another one tells again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::StatusCode;
use tempfile::TempDir;
use tokio::task::JoinSet;
use weir::process::config::{Cache, CacheMode, Config, Ledger};
use weir_simulator::{Options, Simulator};
use weir_tests::World;

use crate::nodes::server::Server;
use crate::rewrite::{
    Agent, OTHER_RULES, assert_each_continues, assert_each_continues_the_one_before, client,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// A call may wait for other nodes for a quarter of a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(2);
const THINKS: &str = "claude-opus-5-5";
const PLAIN: &str = "claude-haiku-4-5";

fn secret(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    path
}

fn node(simulator: &Simulator, server: &Server, secret: &Path, rules: &str) -> World {
    let config = Config {
        cache: Cache {
            mode: CacheMode::Rewrite,
            rules: rules.to_owned(),
            secret_file: Some(secret.to_owned()),
            ..Cache::default()
        },
        ledger: Ledger {
            url: server.url(),
            ..Ledger::default()
        },
        ..Config::default()
    };
    World::start(&[simulator.ca_pem()], config)
}

const WRITTEN: &str =
    "SELECT coalesce(sum(version), 0)::bigint FROM weir.conversation WHERE length(key) = 16";

/// Until all nodes are connected: a call waits for an answer, but not for that.
async fn connected(server: &Server, nodes: i64) {
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir'
        AND state = 'idle' AND query LIKE '%FROM weir.conversation WHERE key%'";
    let until = Instant::now() + PATIENCE;
    while server.number(connected).await < nodes {
        assert!(Instant::now() < until, "expected {nodes} connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Until a conversation was written since `before`, which is what [`WRITTEN`] gave then.
async fn written_after(server: &Server, before: i64) {
    let until = Instant::now() + PATIENCE;
    while server.number(WRITTEN).await <= before {
        assert!(Instant::now() < until, "nothing was written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[track_caller]
fn assert_recalled(world: &World, result: &str, expected: u64) {
    let line = format!("weir_conversations_recalled_total{{result=\"{result}\"}} ");
    let metrics = world.sidecar.metrics();
    let found = metrics.lines().find_map(|text| text.strip_prefix(&line));
    assert_eq!(found.unwrap_or("0"), expected.to_string(), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_at_another_node_and_back_as_if_there_were_one() {
    // Where the value stays that the conversation began with, as it does with signatures, and where
    // it is moved.
    let moved = &["2026-06-15", "2026-06-16"][..];
    for (before, model, thinks) in [(&[][..], THINKS, true), (moved, PLAIN, false)] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let server = Server::start();
        let secrets = TempDir::new().unwrap();
        let secret = secret(&secrets, "shared", &[7; 32]);
        // The other node has other rules: those of the beginning count.
        let nodes = [
            node(&simulator, &server, &secret, ""),
            node(&simulator, &server, &secret, OTHER_RULES),
        ];
        connected(&server, 2).await;
        let mut clients = [
            client(&nodes[0], &simulator).await,
            client(&nodes[1], &simulator).await,
        ];
        for date in before {
            let written = server.number(WRITTEN).await;
            let mut other = Agent::new(model, thinks, &format!("Begin on {date}."));
            assert_eq!(other.turn(&mut clients[0], date).await, StatusCode::OK);
            written_after(&server, written).await;
        }
        let mut agent = Agent::new(model, thinks, "Begin.");
        let turns = [
            (0, "2026-06-17"),
            (1, "2026-06-18"),
            (0, "2026-06-18"),
            (0, "2026-06-19"),
            (1, "2026-06-19"),
            (1, "2026-06-20"),
            (0, "2026-06-20"),
        ];
        let mut date_before = "";
        for (turn, (at, date)) in turns.into_iter().enumerate() {
            let written = server.number(WRITTEN).await;
            let status = agent.turn(&mut clients[at], date).await;
            assert_eq!(status, StatusCode::OK, "turn {turn}");
            agent.says(&format!("Go on {turn}."));
            if date != date_before {
                written_after(&server, written).await;
            }
            date_before = date;
        }
        assert_each_continues_the_one_before(&simulator, before.len());
        let last = simulator.received().pop().unwrap();
        let last = String::from_utf8(last.body.to_vec()).unwrap();
        for date in ["17", "18", "19", "20"] {
            let date = format!("2026-06-{date}");
            assert_eq!(last.matches(&date).count(), 1, "{date}: {last}");
        }
        let is_moved = last.contains("[see <current-date>");
        assert_eq!(is_moved, !before.is_empty(), "{last}");
        for node in &nodes {
            assert_recalled(node, "found", 2);
            assert_recalled(node, "unreachable", 0);
        }
        nothing_is_to_be_read(&server).await;
    }
}

/// Until nothing was written for a second.
async fn all_written(server: &Server) {
    let (mut before, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        let now = server.number(WRITTEN).await;
        if now != before {
            (before, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_that_begin_alike_at_two_nodes_at_once_all_change_places() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let secrets = TempDir::new().unwrap();
    let secret = secret(&secrets, "shared", &[7; 32]);
    let nodes = [
        node(&simulator, &server, &secret, ""),
        node(&simulator, &server, &secret, ""),
    ];
    connected(&server, 2).await;
    let mut agents: Vec<_> = (0..6).map(|_| Agent::new(THINKS, true, "Begin.")).collect();
    // All are one row of the table, which both nodes write at the same time.
    for turn in 0..3 {
        let mut turns = JoinSet::new();
        for (number, mut agent) in agents.drain(..).enumerate() {
            let mut client = client(&nodes[(number + turn) % 2], &simulator).await;
            let month = if turn < 2 { "2026-06" } else { "2026-07" };
            turns.spawn(async move {
                let date = format!("{month}-{}", 10 + number);
                let status = agent.turn(&mut client, &date).await;
                assert_eq!(status, StatusCode::OK, "turn {turn} of {number}");
                agent.says(&format!("Go on {turn} of {number}."));
                (number, agent)
            });
        }
        let mut after = turns.join_all().await;
        after.sort_by_key(|(number, _)| *number);
        agents.extend(after.into_iter().map(|(_, agent)| agent));
        all_written(&server).await;
    }
    for number in 0..agents.len() {
        let date = format!("2026-06-{}", 10 + number);
        let mut received = simulator.received();
        received.retain(|request| String::from_utf8_lossy(&request.body).contains(&date));
        assert_eq!(received.len(), 3, "{date} is told at each turn");
        assert_each_continues(&received);
    }
    for node in &nodes {
        assert_recalled(node, "found", 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_a_purge_is_read_before_it_is_written_over() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let secrets = TempDir::new().unwrap();
    let secret = secret(&secrets, "shared", &[7; 32]);
    let here = node(&simulator, &server, &secret, "");
    let there = node(&simulator, &server, &secret, "");
    connected(&server, 2).await;
    let mut client_here = client(&here, &simulator).await;
    let mut client_there = client(&there, &simulator).await;
    let [mut one, mut other] = [(); 2].map(|()| Agent::new(THINKS, true, "Begin."));
    assert_eq!(
        one.turn(&mut client_here, "2026-06-17").await,
        StatusCode::OK
    );
    written_after(&server, 0).await;
    let purge = "DELETE FROM weir.conversation";
    server.client().await.execute(purge, &[]).await.unwrap();
    assert_eq!(
        other.turn(&mut client_there, "2026-05-05").await,
        StatusCode::OK
    );
    written_after(&server, 0).await;
    // The same first message: the same row, of which this node wrote the first version, too. It asks
    // nobody, since it served all turns before.
    let written = server.number(WRITTEN).await;
    for date in ["2026-06-17", "2026-06-18"] {
        one.says(&format!("Go on before {date}."));
        assert_eq!(one.turn(&mut client_here, date).await, StatusCode::OK);
    }
    assert_recalled(&here, "found", 0);
    written_after(&server, written).await;
    let third = node(&simulator, &server, &secret, "");
    // The others wrote last.
    connected(&server, 1).await;
    let mut client_third = client(&third, &simulator).await;
    other.says("Go on otherwise.");
    assert_eq!(
        other.turn(&mut client_third, "2026-05-05").await,
        StatusCode::OK,
        "what it began with stands in its prefix"
    );
    let mut received = simulator.received();
    received.retain(|request| String::from_utf8_lossy(&request.body).contains("2026-05-05"));
    assert_eq!(received.len(), 2);
    assert_each_continues(&received);
}

/// Searches the rows as they are for what was in the prompts and in the rules.
async fn nothing_is_to_be_read(server: &Server) {
    let client = server.client().await;
    let rows = client.query("SELECT key, sealed FROM weir.conversation", &[]);
    let rows = rows.await.unwrap();
    assert!(rows.len() >= 2, "a conversation and its rules");
    for row in rows {
        let bytes: Vec<u8> = [row.get::<_, Vec<u8>>(0), row.get(1)].concat();
        for canary in ["2026-06", "/src/app", "current-date", "working", "rule"] {
            let mut windows = bytes.windows(canary.len());
            assert!(!windows.any(|found| found == canary.as_bytes()), "{canary}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_ledger_delays_a_call_a_little_and_fails_none() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let secrets = TempDir::new().unwrap();
    let secret = secret(&secrets, "shared", &[7; 32]);
    let here = node(&simulator, &server, &secret, "");
    let there = node(&simulator, &server, &secret, "");
    connected(&server, 2).await;
    let mut agent = Agent::new(PLAIN, false, "Begin.");
    let mut client_here = client(&here, &simulator).await;
    let mut client_there = client(&there, &simulator).await;
    for (turn, date) in ["2026-06-17", "2026-06-18"].into_iter().enumerate() {
        let written = server.number(WRITTEN).await;
        assert_eq!(agent.turn(&mut client_here, date).await, StatusCode::OK);
        agent.says(&format!("Go on {turn}."));
        written_after(&server, written).await;
    }
    server.freeze();
    let began = Instant::now();
    let status = agent.turn(&mut client_there, "2026-06-18").await;
    let took = began.elapsed();
    assert_eq!(status, StatusCode::OK);
    assert!(took < SOON, "{took:?}");
    let reasons = there.record().await.reasons.clone();
    let not_from_start = "not_rewritten_not_from_start".to_owned();
    assert!(reasons.contains(&not_from_start), "{reasons:?}");
    assert_recalled(&there, "unreachable", 1);
    server.thaw();
    // Nobody asks for a second; then the conversation is as it was.
    let until = Instant::now() + PATIENCE;
    loop {
        agent.says("Go on again.");
        assert_eq!(
            agent.turn(&mut client_there, "2026-06-18").await,
            StatusCode::OK
        );
        let sent = simulator.received().pop().unwrap();
        let sent = String::from_utf8(sent.body.to_vec()).unwrap();
        // What it began with stands in the prefix again.
        if sent.contains("date: 2026-06-17") {
            break;
        }
        assert!(Instant::now() < until, "{sent}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_recalled(&there, "found", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_would_be_refused_waits_longer_for_what_other_nodes_told() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let secrets = TempDir::new().unwrap();
    let secret = secret(&secrets, "shared", &[7; 32]);
    let here = node(&simulator, &server, &secret, "");
    let there = node(&simulator, &server, &secret, "");
    connected(&server, 2).await;
    let mut agent = Agent::new(THINKS, true, "Begin.");
    let mut client_here = client(&here, &simulator).await;
    let mut client_there = client(&there, &simulator).await;
    let status = agent.turn(&mut client_here, "2026-06-17").await;
    assert_eq!(status, StatusCode::OK);
    agent.says("Go on.");
    written_after(&server, 0).await;
    server.freeze();
    let thawed = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.thaw();
    };
    let turn = agent.turn(&mut client_there, "2026-06-18");
    let (status, ()) = tokio::join!(turn, thawed);
    assert_eq!(status, StatusCode::OK, "its signatures hold");
    assert_recalled(&there, "found", 1);
    assert_each_continues_the_one_before(&simulator, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_stays_at_its_node_asks_nobody() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let secrets = TempDir::new().unwrap();
    let secret = secret(&secrets, "shared", &[7; 32]);
    let node = node(&simulator, &server, &secret, "");
    connected(&server, 1).await;
    let mut client = client(&node, &simulator).await;
    let mut agent = Agent::new(PLAIN, false, "Begin.");
    for turn in 0..4 {
        // Its prompt is the same at its second turn: later it may change.
        let date = if turn < 2 { "2026-06-17" } else { "2026-06-18" };
        assert_eq!(agent.turn(&mut client, date).await, StatusCode::OK);
        agent.says(&format!("Go on {turn}."));
    }
    for result in ["found", "unknown", "unreachable", "failed"] {
        assert_recalled(&node, result, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_secret_learns_nothing() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let server = Server::start();
    let secrets = TempDir::new().unwrap();
    let ours = secret(&secrets, "ours", &[7; 32]);
    let theirs = secret(&secrets, "theirs", &[8; 32]);
    let here = node(&simulator, &server, &ours, "");
    let there = node(&simulator, &server, &theirs, "");
    connected(&server, 2).await;
    let mut agent = Agent::new(PLAIN, false, "Begin.");
    let mut client_here = client(&here, &simulator).await;
    assert_eq!(
        agent.turn(&mut client_here, "2026-06-17").await,
        StatusCode::OK
    );
    agent.says("Go on.");
    written_after(&server, 0).await;
    let mut client_there = client(&there, &simulator).await;
    assert_eq!(
        agent.turn(&mut client_there, "2026-06-18").await,
        StatusCode::OK
    );
    assert_recalled(&there, "unknown", 1);
    let sent = simulator.received().pop().unwrap();
    let sent = String::from_utf8(sent.body.to_vec()).unwrap();
    assert!(sent.contains("date: 2026-06-18"), "{sent}");
}
