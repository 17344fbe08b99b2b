//! A value that no rule knows, in the prompts of one conversation after another: it is learned, moved
//! out of the prefix where a conversation begins, and never in the midst of one.

use std::fmt::Write as _;
use std::fs;

use http::{StatusCode, Version};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::process::config::{Cache, CacheMode, Config};
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World};

fn config(mode: CacheMode, learn: bool) -> Config {
    Config {
        cache: Cache {
            mode,
            learn,
            ..Cache::default()
        },
        ..Config::default()
    }
}

/// An agent whose system prompt has a value in its first lines.
struct Agent {
    messages: Vec<Value>,
}

impl Agent {
    fn new(task: &str) -> Self {
        let mut agent = Self {
            messages: Vec::new(),
        };
        agent.says(task);
        agent
    }

    fn says(&mut self, text: &str) {
        let text = format!("{text} [[sim: tokens=10]]");
        self.messages
            .push(json!({ "role": "user", "content": text }));
    }

    fn body(&self, build: &str) -> Value {
        let mut system = format!("You are an agent.\nBuild: {build} (stable)\n");
        // Longer than the longest minimum of any model.
        for rule in 0..600 {
            let _infallible = writeln!(system, "{rule}. Say what you do, then do it.");
        }
        json!({
            "model": "claude-haiku-4-5", "max_tokens": 200, "messages": self.messages,
            "system": [{ "type": "text", "text": system, "cache_control": { "type": "ephemeral" } }],
        })
    }

    async fn turn(&mut self, client: &mut Client, build: &str) {
        let (status, answer) = client.ask(Api::Messages, &self.body(build)).await;
        assert_eq!(status, StatusCode::OK, "{answer:?}");
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        self.messages
            .push(json!({ "role": "assistant", "content": answer["content"] }));
    }
}

/// A sidecar and a client of it, at a provider that outlives both.
struct Node {
    world: World,
    client: Client,
}

impl Node {
    async fn start(simulator: &Simulator, state: TempDir, config: &Config) -> Self {
        let world = World::continued(state, &[simulator.ca_pem()], config.clone());
        let host = Api::Messages.host();
        let client = Client::connect(&world, simulator.addr(), host, Version::HTTP_11);
        let client = Box::pin(client).await;
        Self { world, client }
    }

    /// Conversations of one turn, each with a build of its own.
    async fn conversations(&mut self, builds: &[&str]) {
        for build in builds {
            let mut agent = Agent::new(&format!("Task {build}."));
            agent.turn(&mut self.client, build).await;
        }
    }

    async fn stop(self) -> TempDir {
        drop(self.client);
        self.world.stop().await
    }
}

/// What the provider was sent last.
fn last(simulator: &Simulator) -> String {
    let received = simulator.received().pop().unwrap();
    String::from_utf8(received.body.to_vec()).unwrap()
}

fn was_read(simulator: &Simulator) -> bool {
    let usage = simulator.bill().last().unwrap().usage;
    usage.cache_read * 10 > usage.prompt() * 9
}

const BUILDS: [&str; 6] = ["k3x9", "p07a", "zz81", "q4d5", "m2b6", "t9f3"];
const REFERENCE: &str = "Build: [see <learned-value-";

#[tokio::test]
async fn an_unknown_value_is_learned_from_conversations_and_moved_where_later_ones_begin() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let rewrite = config(CacheMode::Rewrite, true);
    let mut node = Node::start(&simulator, TempDir::new().unwrap(), &rewrite).await;
    let mut first = Agent::new("The first task.");
    first.turn(&mut node.client, "a0a0").await;
    node.conversations(&BUILDS).await;
    let sent = last(&simulator);
    assert!(sent.contains(REFERENCE), "{sent}");
    assert!(sent.contains(">t9f3</learned-value-"), "{sent}");
    assert!(!sent.contains("Build: t9f3"), "{sent}");
    assert!(was_read(&simulator), "{:?}", simulator.bill().last());

    // One that is under way goes on as it began.
    first.says("Go on.");
    first.turn(&mut node.client, "a0a0").await;
    let sent = last(&simulator);
    assert!(sent.contains("Build: a0a0 (stable)"), "{sent}");
    assert!(!sent.contains("learned-value"), "{sent}");

    // What was learned outlives the process, and is not to be read.
    let state = node.stop().await;
    for file in fs::read_dir(state.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("learned.db") {
            let bytes = fs::read(&path).unwrap();
            for canary in ["k3x9", "Build", "agent", "claude"] {
                let mut windows = bytes.windows(canary.len());
                let is_found = windows.any(|window| window == canary.as_bytes());
                assert!(!is_found, "{canary} in {name}");
            }
        }
    }
    assert!(state.path().join("learned.db").exists());
    let mut node = Node::start(&simulator, state, &rewrite).await;
    let mut late = Agent::new("A late task.");
    late.turn(&mut node.client, "x1x1").await;
    assert!(last(&simulator).contains(REFERENCE));
    assert!(was_read(&simulator), "{:?}", simulator.bill().last());

    // Switched off, it is for conversations that begin; this one goes on as it began.
    let state = node.stop().await;
    let mut node = Node::start(&simulator, state, &config(CacheMode::Rewrite, false)).await;
    late.says("Go on.");
    late.turn(&mut node.client, "y2y2").await;
    let sent = last(&simulator);
    assert!(sent.contains(REFERENCE), "{sent}");
    assert!(sent.contains(">x1x1</learned-value-"), "{sent}");
    assert!(sent.contains(">y2y2</learned-value-"), "{sent}");
    assert!(was_read(&simulator), "{:?}", simulator.bill().last());
    node.conversations(&["z3z3"]).await;
    assert!(last(&simulator).contains("Build: z3z3 (stable)"));
}

#[tokio::test]
async fn a_prompt_that_is_deployed_anew_stays_as_it_is() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let rewrite = config(CacheMode::Rewrite, true);
    let mut node = Node::start(&simulator, TempDir::new().unwrap(), &rewrite).await;
    for build in ["2026.1", "2026.2"] {
        for task in 0..6 {
            let mut agent = Agent::new(&format!("Task {task} of {build}."));
            agent.turn(&mut node.client, build).await;
        }
    }
    for request in simulator.received() {
        let sent = String::from_utf8(request.body.to_vec()).unwrap();
        assert!(!sent.contains("learned-value"), "{sent}");
    }
    assert!(was_read(&simulator), "{:?}", simulator.bill().last());
}

#[tokio::test]
async fn what_is_only_observed_is_learned_too_and_named_where_it_costs() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let observe = config(CacheMode::Observe, true);
    let mut node = Node::start(&simulator, TempDir::new().unwrap(), &observe).await;
    let mut rules = Vec::new();
    let mut saved = Vec::new();
    for build in BUILDS {
        node.conversations(&[build]).await;
        assert!(last(&simulator).contains(&format!("Build: {build} (stable)")));
        let record = node.world.record().await;
        assert!(record.edits.is_empty());
        rules.push(record.cache_rule.clone());
        saved.push(record.rewrite_saving);
    }
    let last = rules.last().unwrap().as_deref();
    assert_eq!(last, Some("learned-value"), "{rules:?}");
    let last = saved.last().unwrap().unwrap();
    assert!(last.nanos() > 0, "{saved:?}");
}
