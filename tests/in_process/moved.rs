//! Conversations that move between nodes with a state directory each, one PostgreSQL ledger and one
//! secret: what a node told in a turn, another one tells again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use http::StatusCode;
use tempfile::TempDir;
use tokio::task::JoinSet;
use weir::process::config::{Cache, CacheMode, Config, Ledger};
use weir_simulator::{Options, Simulator};
use weir_tests::{Client, PATIENCE, World};

use crate::nodes::server::Server;
use crate::rewrite::{
    Agent, OTHER_RULES, assert_each_continues, assert_each_continues_the_one_before, client,
};

/// A call may wait for other nodes for a quarter of a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(5);
const THINKS: &str = "claude-opus-5-5";
const PLAIN: &str = "claude-haiku-4-5";
const SECRET: [u8; 32] = [7; 32];

/// Nodes on one ledger, before one provider, and an application's connection to each.
struct Fleet {
    simulator: Simulator,
    server: Server,
    secrets: TempDir,
    nodes: Vec<World>,
    clients: Vec<Client>,
}

impl Fleet {
    /// So many nodes with one secret and the same rules.
    async fn of(nodes: usize) -> Self {
        Self::start(&vec![(SECRET, ""); nodes]).await
    }

    /// A node for each secret, with its own rules beside it.
    async fn start(nodes: &[([u8; 32], &str)]) -> Self {
        let mut fleet = Self {
            simulator: Simulator::start(Options::default()).unwrap(),
            server: Server::start(),
            secrets: TempDir::new().unwrap(),
            nodes: Vec::new(),
            clients: Vec::new(),
        };
        for (secret, rules) in nodes {
            fleet.join(secret, rules).await;
        }
        fleet.connected(nodes.len()).await;
        fleet
    }

    /// Adds a node.
    async fn join(&mut self, secret: &[u8], rules: &str) {
        let file = self.secrets.path().join(self.nodes.len().to_string());
        fs::write(&file, secret).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
        let config = Config {
            cache: Cache {
                mode: CacheMode::Rewrite,
                rules: rules.to_owned(),
                secret_file: Some(file),
                ..Cache::default()
            },
            ledger: Ledger {
                url: self.server.url(),
                ..Ledger::default()
            },
            ..Config::default()
        };
        let node = World::start(&[self.simulator.ca_pem()], config);
        self.clients.push(client(&node, &self.simulator).await);
        self.nodes.push(node);
    }

    /// Until so many nodes are connected: a call waits for an answer, but not for that.
    async fn connected(&self, nodes: usize) {
        let connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir'
            AND state = 'idle' AND query LIKE '%FROM weir.conversation WHERE key%'";
        let until = Instant::now() + PATIENCE;
        while self.server.number(connected).await < i64::try_from(nodes).unwrap() {
            assert!(Instant::now() < until, "expected {nodes} connections");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A turn at a node, which is answered and may be continued; the other nodes may not know of it yet.
    async fn turn(&mut self, node: usize, agent: &mut Agent, date: &str) {
        let status = agent.turn(&mut self.clients[node], date).await;
        assert_eq!(status, StatusCode::OK, "{date} at node {node}");
        let day = date.rsplit('-').next().unwrap();
        agent.says(&format!("Go on {day} at node {node}."));
    }

    /// The same, until the other nodes know of it.
    async fn told(&mut self, node: usize, agent: &mut Agent, date: &str) {
        self.turn(node, agent, date).await;
        self.nodes[node].told().await;
    }

    /// What the provider saw last.
    fn last(&self) -> String {
        let last = self.simulator.received().pop().unwrap();
        String::from_utf8(last.body.to_vec()).unwrap()
    }

    /// What the provider saw of the conversation that a text is in: each begins with the one before.
    fn assert_continues(&self, text: &str, turns: usize) {
        let mut received = self.simulator.received();
        received.retain(|request| String::from_utf8_lossy(&request.body).contains(text));
        assert_eq!(received.len(), turns, "{text} is told at each turn");
        assert_each_continues(&received);
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
        // The other node has other rules: those of the beginning count.
        let mut fleet = Fleet::start(&[(SECRET, ""), (SECRET, OTHER_RULES)]).await;
        for date in before {
            let mut other = Agent::new(model, thinks, &format!("Begin on {date}."));
            fleet.told(0, &mut other, date).await;
        }
        let mut agent = Agent::new(model, thinks, "Begin.");
        for (node, date) in [
            (0, "2026-06-17"),
            (1, "2026-06-18"),
            (0, "2026-06-18"),
            (0, "2026-06-19"),
            (1, "2026-06-19"),
            (1, "2026-06-20"),
            (0, "2026-06-20"),
        ] {
            fleet.told(node, &mut agent, date).await;
        }
        assert_each_continues_the_one_before(&fleet.simulator, before.len());
        let last = fleet.last();
        for date in ["17", "18", "19", "20"] {
            let date = format!("2026-06-{date}");
            assert_eq!(last.matches(&date).count(), 1, "{date}: {last}");
        }
        let is_moved = last.contains("[see <current-date>");
        assert_eq!(is_moved, !before.is_empty(), "{last}");
        for node in &fleet.nodes {
            assert_recalled(node, "found", 2);
            assert_recalled(node, "unreachable", 0);
        }
        nothing_is_to_be_read(&fleet.server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_that_begin_alike_at_two_nodes_at_once_all_change_places() {
    let fleet = Fleet::of(2).await;
    let mut agents: Vec<_> = (0..6).map(|_| Agent::new(THINKS, true, "Begin.")).collect();
    // All are one row of the table, which both nodes write at the same time.
    for turn in 0..3 {
        let mut turns = JoinSet::new();
        for (number, mut agent) in agents.drain(..).enumerate() {
            let node = &fleet.nodes[(number + turn) % 2];
            let mut client = client(node, &fleet.simulator).await;
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
        for node in &fleet.nodes {
            node.told().await;
        }
    }
    for number in 0..agents.len() {
        fleet.assert_continues(&format!("2026-06-{}", 10 + number), 3);
    }
    for node in &fleet.nodes {
        assert_recalled(node, "found", 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_a_purge_is_read_before_it_is_written_over() {
    let mut fleet = Fleet::of(2).await;
    let [mut one, mut other] = [(); 2].map(|()| Agent::new(THINKS, true, "Begin."));
    fleet.told(0, &mut one, "2026-06-17").await;
    let client = fleet.server.client().await;
    let purge = "DELETE FROM weir.conversation";
    assert!(client.execute(purge, &[]).await.unwrap() >= 1);
    fleet.told(1, &mut other, "2026-05-05").await;
    // The same first message: the same row, of which this node wrote the first version, too. It asks
    // nobody, since it served all turns before.
    fleet.turn(0, &mut one, "2026-06-17").await;
    fleet.told(0, &mut one, "2026-06-18").await;
    assert_recalled(&fleet.nodes[0], "found", 0);
    fleet.join(&SECRET, "").await;
    // The others wrote last.
    fleet.connected(1).await;
    // What it began with stands in its prefix.
    fleet.turn(2, &mut other, "2026-05-05").await;
    fleet.assert_continues("2026-05-05", 2);
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
    let mut fleet = Fleet::of(2).await;
    let mut agent = Agent::new(PLAIN, false, "Begin.");
    for date in ["2026-06-17", "2026-06-18"] {
        fleet.told(0, &mut agent, date).await;
    }
    fleet.server.freeze();
    let began = Instant::now();
    fleet.turn(1, &mut agent, "2026-06-18").await;
    let took = began.elapsed();
    assert!(took < SOON, "{took:?}");
    let there = &fleet.nodes[1];
    let reasons = there.record().await.reasons.clone();
    let not_from_start = "not_rewritten_not_from_start".to_owned();
    assert!(reasons.contains(&not_from_start), "{reasons:?}");
    assert_recalled(there, "unreachable", 1);
    fleet.server.thaw();
    // Nobody asks for a second; then the conversation is as it was.
    let until = Instant::now() + PATIENCE;
    loop {
        fleet.turn(1, &mut agent, "2026-06-18").await;
        // What it began with stands in the prefix again.
        if fleet.last().contains("date: 2026-06-17") {
            break;
        }
        assert!(Instant::now() < until, "{}", fleet.last());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_recalled(&fleet.nodes[1], "found", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_would_be_refused_waits_longer_for_what_other_nodes_told() {
    let mut fleet = Fleet::of(2).await;
    let mut agent = Agent::new(THINKS, true, "Begin.");
    fleet.told(0, &mut agent, "2026-06-17").await;
    let server = &fleet.server;
    server.freeze();
    // Longer than another call waits, and by far not as long as this one may.
    let thawed = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        server.thaw();
    };
    let turn = agent.turn(&mut fleet.clients[1], "2026-06-18");
    let (status, ()) = tokio::join!(turn, thawed);
    assert_eq!(status, StatusCode::OK, "its signatures hold");
    assert_recalled(&fleet.nodes[1], "found", 1);
    assert_each_continues_the_one_before(&fleet.simulator, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_stays_at_its_node_asks_nobody() {
    let mut fleet = Fleet::of(1).await;
    let mut agent = Agent::new(PLAIN, false, "Begin.");
    // Its prompt is the same at its second turn: later it may change.
    for date in ["2026-06-17", "2026-06-17", "2026-06-18", "2026-06-18"] {
        fleet.turn(0, &mut agent, date).await;
    }
    for result in ["found", "unknown", "unreachable", "failed"] {
        assert_recalled(&fleet.nodes[0], result, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_secret_learns_nothing() {
    let mut fleet = Fleet::start(&[(SECRET, ""), ([8; 32], "")]).await;
    let mut agent = Agent::new(PLAIN, false, "Begin.");
    fleet.told(0, &mut agent, "2026-06-17").await;
    fleet.turn(1, &mut agent, "2026-06-18").await;
    assert_recalled(&fleet.nodes[1], "unknown", 1);
    let sent = fleet.last();
    assert!(sent.contains("date: 2026-06-18"), "{sent}");
}
