//! Weir between a client and its provider: a whole sidecar, and the simulated providers behind it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{Request, StatusCode, Version};
use http_body_util::Full;
use tempfile::TempDir;
use weir::process::clock::Clock;
use weir::process::config::{Cache, CacheMode, Config};
use weir_simulator::{Options, Refused, Served, Simulator, Usage};
use weir_tests::{Api, Client, World};

use crate::process::Process;
use crate::replay::Sent;
use crate::session::Dialect;

/// A sidecar before the simulated providers.
pub(crate) struct Weir {
    simulator: Simulator,
    provider_clock: weir_simulator::Clock,
    clock: Arc<AtomicI64>,
    node: Node,
    /// To which conversations move.
    other: Node,
    clients: HashMap<Dialect, Client>,
}

enum Node {
    /// In this process, with the clock of the sessions.
    Here(World),
    /// In a process of its own, which can be killed.
    There(Process),
    /// Between one and the next.
    Down,
}

impl Weir {
    /// A sidecar in this process.
    pub(crate) fn start(config: Config) -> Self {
        let provider_clock = weir_simulator::Clock::manual(Duration::ZERO);
        let simulator = Simulator::start(Options {
            clock: provider_clock.clone(),
            ..Options::default()
        });
        let mut weir = Self {
            simulator: simulator.unwrap(),
            provider_clock,
            clock: Arc::default(),
            node: Node::Down,
            other: Node::Down,
            clients: HashMap::new(),
        };
        weir.node = Node::Here(weir.world(TempDir::new().unwrap(), config));
        weir
    }

    /// Two sidecars with a state directory each.
    pub(crate) fn pair(config: &Config) -> Self {
        let mut weir = Self::start(config.clone());
        weir.other = Node::Here(weir.world(TempDir::new().unwrap(), config.clone()));
        weir
    }

    /// Has the other sidecar serve what comes next, once it can know what was told here.
    pub(crate) async fn change_places(&mut self) {
        self.clients.clear();
        if let Node::Here(world) = &self.node {
            world.told().await;
        }
        std::mem::swap(&mut self.node, &mut self.other);
    }

    /// How often a sidecar had no answer of the ledger in time, so that a call went as it came.
    pub(crate) fn unreachable(&self) -> u64 {
        let name = "weir_conversations_recalled_total{result=\"unreachable\"}";
        let of = |node: &Node| match node {
            Node::Here(world) => world.metric(name),
            Node::There(_) | Node::Down => 0,
        };
        of(&self.node) + of(&self.other)
    }

    /// A process.
    pub(crate) fn spawn() -> Self {
        let mut weir = Self::start(Config::default());
        weir.node = Node::There(Process::start(weir.simulator.ca_pem()));
        weir
    }

    fn world(&self, state: TempDir, config: Config) -> World {
        let clock = Clock::Set(Arc::clone(&self.clock));
        World::at(clock, state, &[self.simulator.ca_pem()], config)
    }

    /// Ends the sidecar, or kills its process, and starts another one on what it leaves behind.
    pub(crate) async fn restart(&mut self, config: Config) {
        self.clients.clear();
        if let Node::There(process) = &mut self.node {
            process.kill_and_start_again();
        } else if let Node::Here(world) = std::mem::replace(&mut self.node, Node::Down) {
            self.node = Node::Here(self.world(world.stop().await, config));
        }
    }

    /// Sends a call through the sidecar; gives what the provider makes of what arrived.
    pub(crate) async fn pass(&mut self, sent: Sent<'_>) -> Result<Served, Refused> {
        let now = Duration::from_millis(u64::try_from(sent.unix_ms).unwrap());
        self.provider_clock.set(now);
        self.clock.store(sent.unix_ms, Ordering::SeqCst);
        let request = request(&sent);
        let (status, answer) = {
            let client = self.client(sent.api).await;
            let answer = client.send(request).await.unwrap();
            (answer.status, answer.whole().await.unwrap())
        };
        if let Node::Here(world) = &self.node {
            // What it taught is known when it is written down.
            world.record().await;
        }
        let arrived = self.simulator.last_received().unwrap().body;
        let billed = self.simulator.last_billed().unwrap().usage;
        let served = sent.serve(Some(&arrived));
        // Whoever answers by the wire says the same as whoever is asked here.
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(served.is_ok(), status == StatusCode::OK, "{answer}");
        if let Ok(served) = &served {
            let output = Usage {
                output: billed.output,
                reasoning: billed.reasoning,
                ..served.usage
            };
            assert_eq!(billed, output, "{answer}");
        }
        served
    }

    async fn client(&mut self, dialect: Dialect) -> &mut Client {
        if !self.clients.contains_key(&dialect) {
            let client = self.connect(api(dialect).host()).await;
            self.clients.insert(dialect, client);
        }
        self.clients.get_mut(&dialect).unwrap()
    }

    async fn connect(&self, host: &'static str) -> Client {
        let provider: SocketAddr = self.simulator.addr();
        match &self.node {
            Node::Here(world) => Client::connect(world, provider, host, Version::HTTP_11).await,
            Node::There(process) => process.connect(provider, host).await,
            Node::Down => panic!("expected Weir to run"),
        }
    }
}

const fn api(dialect: Dialect) -> Api {
    match dialect {
        Dialect::Messages => Api::Messages,
        Dialect::Chat => Api::Chat,
        Dialect::Responses => Api::Responses,
    }
}

/// The request of a call, which asks for a short answer.
fn request(sent: &Sent<'_>) -> Request<Full<bytes::Bytes>> {
    let request = Request::post(api(sent.api).path())
        .header("content-type", "application/json")
        .header("anthropic-version", "2023-06-01");
    let key = format!("sk-corpus-0123456789-{}", sent.session);
    let request = match sent.api {
        Dialect::Messages => request.header("x-api-key", key),
        Dialect::Chat | Dialect::Responses => {
            request.header("authorization", format!("Bearer {key}"))
        }
    };
    request.body(Full::new(sent.body.clone().into())).unwrap()
}

/// `mode`, with rules beside the built-in ones.
pub(crate) fn config(mode: CacheMode, rules: &str) -> Config {
    let cache = Cache {
        mode,
        rules: rules.to_owned(),
        ..Cache::default()
    };
    Config {
        cache,
        ..Config::default()
    }
}
