//! Conversations whose model thinks: where it binds its signatures to the history, they go on whatever Weir remembers of them.

use std::fmt::Write as _;

use http::{StatusCode, Version};
use serde_json::{Value, json};
use weir::process::config::{Cache, CacheMode, Config};
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World};

fn config(mode: CacheMode) -> Config {
    Config {
        cache: Cache {
            mode,
            ..Cache::default()
        },
        ..Config::default()
    }
}

/// An agent with a date in its system prompt.
struct Agent {
    model: &'static str,
    messages: Vec<Value>,
}

impl Agent {
    fn new(model: &'static str, first: &str) -> Self {
        let mut agent = Self {
            model,
            messages: Vec::new(),
        };
        agent.says(first);
        agent
    }

    fn says(&mut self, text: &str) {
        let text = format!("{text} [[sim: think=20 tokens=10]]");
        self.messages
            .push(json!({ "role": "user", "content": text }));
    }

    fn body(&self, date: &str) -> Value {
        let mut manual = String::new();
        for rule in 0..400 {
            let _infallible = writeln!(manual, "{rule}. Say what you do before you do it.");
        }
        let system = format!("You are an agent.\nToday's date: {date}\n{manual}");
        json!({
            "model": self.model, "max_tokens": 200, "thinking": { "type": "adaptive" },
            "system": [{ "type": "text", "text": system, "cache_control": { "type": "ephemeral" } }],
            "messages": self.messages,
        })
    }

    async fn turn(&mut self, client: &mut Client, body: &Value) -> StatusCode {
        let (status, answer) = client.ask(Api::Messages, body).await;
        if status == StatusCode::OK {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let content = &answer["content"];
            self.messages
                .push(json!({ "role": "assistant", "content": content }));
        }
        status
    }
}

async fn client(world: &World, simulator: &Simulator) -> Client {
    let host = Api::Messages.host();
    Client::connect(world, simulator.addr(), host, Version::HTTP_11).await
}

#[tokio::test]
async fn values_are_moved_where_a_model_that_thinks_is_known_not_to_bind_its_history() {
    for (model, is_moved) in [
        ("claude-sonnet-5", true),
        ("claude-sonnet-4-6", true),
        ("claude-sonnet-5-5", false),
    ] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite));
        let mut client = client(&world, &simulator).await;
        for date in ["2026-06-15", "2026-06-16", "2026-06-17"] {
            let mut agent = Agent::new(model, &format!("Begin on {date}."));
            for turn in 0..2 {
                let body = agent.body(date);
                assert_eq!(agent.turn(&mut client, &body).await, StatusCode::OK);
                agent.says(&format!("Go on {turn}."));
            }
        }
        let last = simulator.received().pop().unwrap();
        let last = String::from_utf8(last.body.to_vec()).unwrap();
        assert_eq!(last.contains("[see <current-date>"), is_moved, "{model}");
        // The first call of the last conversation reads what the one before wrote.
        let begun = &simulator.bill()[4].usage;
        assert_eq!(begun.cache_read > 0, is_moved, "{model}: {begun:?}");
    }
}
