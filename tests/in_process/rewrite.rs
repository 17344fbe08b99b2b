//! Conversations through a whole sidecar, to a provider with the real rules of caching and of
//! signatures: what it saw for a turn stands inside what it sees for the next, whatever happens to
//! Weir in between.

use std::fmt::Write as _;

use http::{Request, StatusCode, Version};
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::process::config::{Cache, CacheMode, Config};
use weir_core::prompt::{self, HashKey};
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World, request};

const KEY: HashKey = HashKey::new([9; 16]);

fn config(mode: CacheMode, rules: &str) -> Config {
    Config {
        cache: Cache {
            mode,
            rules: rules.to_owned(),
            ..Cache::default()
        },
        ..Config::default()
    }
}

/// An agent as they are: a long system prompt with a value in its midst, and markers that move.
struct Agent {
    model: &'static str,
    thinks: bool,
    messages: Vec<Value>,
}

impl Agent {
    fn new(model: &'static str, thinks: bool, first: &str) -> Self {
        let mut agent = Self {
            model,
            thinks,
            messages: Vec::new(),
        };
        agent.says(first);
        agent
    }

    fn says(&mut self, text: &str) {
        let think = if self.thinks { "think=20 " } else { "" };
        let text = format!("{text} [[sim: {think}tokens=10]]");
        self.messages
            .push(json!({ "role": "user", "content": [{ "type": "text", "text": text }] }));
    }

    fn body(&self, date: &str) -> Value {
        let mut manual = String::new();
        // Longer than the longest minimum of any model.
        for rule in 0..400 {
            let _infallible = writeln!(
                manual,
                "{rule}. Say what you do before you do it, in one sentence."
            );
        }
        let system = format!(
            "You are an agent.\nToday's date: {date}\nWorking directory: /src/app\n{manual}"
        );
        let mut messages = self.messages.clone();
        let last = messages
            .last_mut()
            .and_then(|m| m["content"].as_array_mut())
            .unwrap();
        last.last_mut().unwrap()["cache_control"] = json!({ "type": "ephemeral" });
        let mut body = json!({
            "model": self.model, "max_tokens": 200, "messages": messages,
            "system": [{ "type": "text", "text": system, "cache_control": { "type": "ephemeral" } }],
            "tools": [{ "name": "read", "description": "Reads a file.", "input_schema": { "type": "object" } }],
        });
        if self.thinks {
            body["thinking"] = json!({ "type": "adaptive" });
        }
        body
    }

    async fn turn(&mut self, client: &mut Client, date: &str) -> StatusCode {
        let (status, answer) = client.ask(Api::Messages, &self.body(date)).await;
        if status == StatusCode::OK {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            self.messages
                .push(json!({ "role": "assistant", "content": answer["content"] }));
        }
        status
    }
}

async fn client(world: &World, simulator: &Simulator) -> Client {
    Client::connect(
        world,
        simulator.addr(),
        Api::Messages.host(),
        Version::HTTP_11,
    )
    .await
}

/// The bodies that the provider saw, each beginning with the one before.
fn assert_each_continues_the_one_before(simulator: &Simulator) {
    let received = simulator.received();
    let prints = received.iter().map(|request| {
        let prompt = prompt::read(&request.body).unwrap();
        prompt.fingerprints(&request.body, &KEY)
    });
    let prints: Vec<_> = prints.collect();
    for (turn, pair) in prints.windows(2).enumerate() {
        let (before, after) = (&pair[0], &pair[1]);
        let body = |turn: usize| String::from_utf8_lossy(&received[turn].body).into_owned();
        assert!(
            after.starts_with(before),
            "{turn}:\n{}\n{}",
            body(turn),
            body(turn + 1)
        );
    }
}

const OTHER_RULES: &str = "[[rule]]\nname = \"current-date\"\ntransform = \"keep\"\n";

/// One turn under each configuration in order, with a restart in between.
async fn each_turn_under(
    configurations: &[(CacheMode, &str)],
    dates: &[&str],
    model: &'static str,
    thinks: bool,
) -> Simulator {
    let simulator = Simulator::start(Options::default()).unwrap();
    let mut agent = Agent::new(model, thinks, "Begin.");
    let mut state = TempDir::new().unwrap();
    for (turn, (mode, rules)) in configurations.iter().enumerate() {
        let world = World::continued(state, &[simulator.ca_pem()], config(*mode, rules));
        let mut client = client(&world, &simulator).await;
        let status = agent.turn(&mut client, dates[turn % dates.len()]).await;
        assert_eq!(status, StatusCode::OK, "turn {turn}");
        agent.says(&format!("Go on {turn}."));
        drop(client);
        state = world.stop().await;
    }
    assert_each_continues_the_one_before(&simulator);
    simulator
}

#[tokio::test]
async fn no_signature_is_refused_and_nothing_is_read_anew_whatever_happens_to_weir_in_between() {
    use CacheMode::{Observe, Off, Rewrite};
    let all = [
        (Rewrite, ""),
        (Rewrite, ""),
        (Rewrite, OTHER_RULES),
        (Observe, ""),
        (Off, OTHER_RULES),
        (Rewrite, OTHER_RULES),
        (Rewrite, ""),
    ];
    let simulator = Box::pin(each_turn_under(
        &all,
        &["2026-06-17"],
        "claude-opus-5-5",
        true,
    ))
    .await;
    let first = String::from_utf8(simulator.received()[0].body.to_vec()).unwrap();
    assert!(
        first.contains("[see <current-date> in <context_values>]"),
        "{first}"
    );
    assert!(
        first.contains("<current-date>2026-06-17</current-date>"),
        "{first}"
    );
    for line in &simulator.bill()[1..] {
        assert!(
            line.usage.cache_read * 10 > line.usage.prompt() * 9,
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn a_conversation_that_began_unedited_is_left_alone_when_rewriting_is_switched_on() {
    use CacheMode::{Observe, Off, Rewrite};
    for before in [Observe, Off] {
        let all = [(before, ""), (Rewrite, ""), (Rewrite, "")];
        let simulator = Box::pin(each_turn_under(
            &all,
            &["2026-06-17"],
            "claude-opus-5-5",
            true,
        ))
        .await;
        for request in simulator.received() {
            let body = String::from_utf8(request.body.to_vec()).unwrap();
            assert!(!body.contains("context_values"), "{body}");
        }
    }
}

#[tokio::test]
async fn a_date_that_moves_with_each_turn_is_told_and_costs_no_cache() {
    let all = [(CacheMode::Rewrite, ""); 6];
    let dates = [
        "2026-06-17 10:01",
        "2026-06-17 10:02",
        "2026-06-17 10:02",
        "2026-06-17 10:03",
    ];
    let simulator = Box::pin(each_turn_under(&all, &dates, "claude-haiku-4-5", false)).await;
    let rewritten = simulator.total_nanodollars();
    let last = simulator.received().pop().unwrap();
    let last = String::from_utf8(last.body.to_vec()).unwrap();
    assert_eq!(last.matches("10:03").count(), 1, "{last}");

    let all = [(CacheMode::Observe, ""); 6];
    let simulator = Simulator::start(Options::default()).unwrap();
    let mut agent = Agent::new("claude-haiku-4-5", false, "Begin.");
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Observe, ""));
    let mut client = client(&world, &simulator).await;
    for (turn, _) in all.iter().enumerate() {
        assert_eq!(
            agent.turn(&mut client, dates[turn % dates.len()]).await,
            200
        );
        agent.says(&format!("Go on {turn}."));
    }
    let as_it_came = simulator.total_nanodollars();
    assert!(
        rewritten * 10 < as_it_came * 6,
        "{rewritten} of {as_it_came}"
    );
}

#[tokio::test]
async fn observing_changes_no_byte() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Observe, ""));
    let mut client = client(&world, &simulator).await;
    let agent = Agent::new("claude-opus-5-5", false, "Begin.");
    let body = agent.body("2026-06-17");
    assert_eq!(client.ask(Api::Messages, &body).await.0, StatusCode::OK);
    let received = simulator.received().pop().unwrap();
    assert_eq!(received.body, body.to_string());
    assert!(world.record().await.edits.is_empty());
}

#[tokio::test]
async fn a_subscription_and_a_short_prompt_are_only_watched() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
    let mut client = client(&world, &simulator).await;
    let agent = Agent::new("claude-opus-5-5", false, "Begin.");
    let body = agent.body("2026-06-17").to_string();
    let subscribed = Request::post(Api::Messages.path())
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-ant-oat01-made-up-token")
        .header("anthropic-version", "2023-06-01")
        .body(Full::new(body.clone().into()))
        .unwrap();
    client
        .send(subscribed)
        .await
        .unwrap()
        .whole()
        .await
        .unwrap();
    assert_eq!(simulator.received().pop().unwrap().body, body);
    let reasons = &world.record().await.reasons;
    assert!(
        reasons.contains(&"not_rewritten_subscription".to_owned()),
        "{reasons:?}"
    );

    let short = json!({ "model": "claude-opus-5-5", "max_tokens": 20, "system": "Today's date: 2026-06-17",
        "messages": [{ "role": "user", "content": "Hi" }] });
    let sent = request(Api::Messages, short.to_string());
    client.send(sent).await.unwrap().whole().await.unwrap();
    assert_eq!(simulator.received().pop().unwrap().body, short.to_string());
    let reasons = &world.record().await.reasons;
    assert!(
        reasons.contains(&"not_rewritten_below_minimum".to_owned()),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn every_edit_is_in_the_record_under_its_rule() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
    let mut client = client(&world, &simulator).await;
    let mut agent = Agent::new("claude-opus-5-5", false, "Begin.");
    assert_eq!(agent.turn(&mut client, "2026-06-17").await, StatusCode::OK);
    let record = world.record().await;
    let rules: Vec<&str> = record.edits.iter().map(|edit| edit.rule.as_str()).collect();
    for rule in ["current-date", "working-directory", "context-values"] {
        assert!(rules.contains(&rule), "{rules:?}");
    }
    assert_eq!(
        world.metric("weir_rewritten_calls_total{result=\"edited\"}"),
        1
    );
}

#[tokio::test]
async fn breakpoints_are_added_where_they_will_be_read_and_never_more_than_four() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
    let mut client = client(&world, &simulator).await;
    let mut agent = Agent::new("claude-opus-5-5", false, "Begin.");
    let mut plain = Vec::new();
    for turn in 0..4 {
        let mut body = agent.body("2026-06-17");
        body["system"][0]
            .as_object_mut()
            .unwrap()
            .remove("cache_control");
        let last = body["messages"].as_array().unwrap().len() - 1;
        body["messages"][last]["content"][0]
            .as_object_mut()
            .unwrap()
            .remove("cache_control");
        let (status, answer) = client.ask(Api::Messages, &body).await;
        assert_eq!(status, StatusCode::OK, "{answer:?}");
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        agent
            .messages
            .push(json!({ "role": "assistant", "content": answer["content"] }));
        agent.says(&format!("Go on {turn}."));
        plain.push(body);
    }
    let bill = simulator.bill();
    assert_eq!(
        bill[0].usage.cache_write_short, 0,
        "nothing says that it will be read"
    );
    assert!(bill[1].usage.cache_write_short > 0, "{:?}", bill[1]);
    assert!(bill[3].usage.cache_read > 0, "{:?}", bill[3]);
    for request in simulator.received() {
        let prompt = prompt::read(&request.body).unwrap();
        assert!(prompt.markers() <= 4);
    }
}
