//! Conversations through a whole sidecar, to a provider with the real rules of caching and of
//! signatures: what it saw for a turn stands inside what it sees for the next, whatever happens to
//! Weir in between.

use std::fmt::Write as _;
use std::time::Duration;

use http::{Request, StatusCode, Version};
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::process::config::{Cache, CacheMode, Config};
use weir_core::prompt::{self, HashKey};
use weir_core::rewrite::JUDGED_CALLS;
use weir_simulator::{Clock, Options, Received, Simulator};
use weir_tests::{Api, Client, World, request};

const KEY: HashKey = HashKey::new([9; 16]);

pub(crate) fn config(mode: CacheMode, rules: &str) -> Config {
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
pub(crate) struct Agent {
    model: &'static str,
    thinks: bool,
    messages: Vec<Value>,
}

impl Agent {
    pub(crate) fn new(model: &'static str, thinks: bool, first: &str) -> Self {
        let mut agent = Self {
            model,
            thinks,
            messages: Vec::new(),
        };
        agent.says(first);
        agent
    }

    pub(crate) fn says(&mut self, text: &str) {
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

    pub(crate) async fn turn(&mut self, client: &mut Client, date: &str) -> StatusCode {
        let (status, answer) = client.ask(Api::Messages, &self.body(date)).await;
        if status == StatusCode::OK {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            self.messages
                .push(json!({ "role": "assistant", "content": answer["content"] }));
        }
        status
    }
}

pub(crate) async fn client(world: &World, simulator: &Simulator) -> Client {
    Client::connect(
        world,
        simulator.addr(),
        Api::Messages.host(),
        Version::HTTP_11,
    )
    .await
}

/// The bodies that the provider saw after the first `others`, each beginning with the one before.
pub(crate) fn assert_each_continues_the_one_before(simulator: &Simulator, others: usize) {
    assert_each_continues(&simulator.received().split_off(others));
}

/// The bodies that the provider saw of a conversation, each beginning with the one before.
pub(crate) fn assert_each_continues(received: &[Received]) {
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

pub(crate) const OTHER_RULES: &str = "[[rule]]\nname = \"current-date\"\ntransform = \"keep\"\n";

/// A conversation, and what happens to Weir while it goes on.
struct Story<'a> {
    configurations: &'a [(CacheMode, &'a str)],
    /// Of its turns.
    dates: &'a [&'a str],
    /// Of other conversations that begin before it.
    before: &'a [&'a str],
    model: &'static str,
    thinks: bool,
}

/// One turn under each configuration in order, with a restart in between.
async fn told(story: Story<'_>) -> Simulator {
    let Story {
        configurations,
        dates,
        before,
        model,
        thinks,
    } = story;
    let simulator = Simulator::start(Options::default()).unwrap();
    let mut agent = Agent::new(model, thinks, "Begin.");
    let state = TempDir::new().unwrap();
    let (mode, rules) = configurations[0];
    let world = World::continued(state, &[simulator.ca_pem()], config(mode, rules));
    let mut other_client = client(&world, &simulator).await;
    for date in before {
        let mut other = Agent::new(model, thinks, &format!("Begin on {date}."));
        assert_eq!(other.turn(&mut other_client, date).await, StatusCode::OK);
    }
    drop(other_client);
    let mut state = world.stop().await;
    for (turn, (mode, rules)) in configurations.iter().enumerate() {
        let world = World::continued(state, &[simulator.ca_pem()], config(*mode, rules));
        let mut client = client(&world, &simulator).await;
        let status = agent.turn(&mut client, dates[turn % dates.len()]).await;
        assert_eq!(status, StatusCode::OK, "turn {turn}");
        agent.says(&format!("Go on {turn}."));
        drop(client);
        state = world.stop().await;
    }
    assert_each_continues_the_one_before(&simulator, before.len());
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
    for thinks in [true, false] {
        let simulator = Box::pin(told(Story {
            configurations: &all,
            dates: &["2026-06-17"],
            before: &["2026-06-15", "2026-06-16"],
            model: "claude-opus-5-5",
            thinks,
        }))
        .await;
        is_read_from_the_third_call_on(&simulator, thinks);
    }
}

fn is_read_from_the_third_call_on(simulator: &Simulator, thinks: bool) {
    let received = simulator.received();
    let of = |index: usize| String::from_utf8(received[index].body.to_vec()).unwrap();
    assert!(
        !of(0).contains("context_values"),
        "nothing says that it pays"
    );
    // Where signatures are bound to the history, values stay where they stand.
    let seen = of(2);
    for expected in [
        "[see <current-date> in <context_values>]",
        "<current-date>2026-06-17</current-date>",
    ] {
        assert_eq!(seen.contains(expected), !thinks, "{expected}: {seen}");
    }
    for line in &simulator.bill()[if thinks { 3 } else { 2 }..] {
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
        let simulator = Box::pin(told(Story {
            configurations: &all,
            dates: &["2026-06-17"],
            before: &["2026-06-16"],
            model: "claude-opus-5-5",
            thinks: true,
        }))
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
    let mut rewritten = 0;
    // Where the value stays that the conversation began with, and where it is moved.
    for before in [&[][..], &["2026-06-15 09:00", "2026-06-16 09:00"]] {
        let simulator = Box::pin(told(Story {
            configurations: &all,
            dates: &dates,
            before,
            model: "claude-haiku-4-5",
            thinks: false,
        }))
        .await;
        let bill = simulator.bill().split_off(before.len());
        rewritten = bill.iter().map(|line| line.nanodollars).sum();
        let last = simulator.received().pop().unwrap();
        let last = String::from_utf8(last.body.to_vec()).unwrap();
        assert_eq!(last.matches("10:03").count(), 1, "{last}");
        let is_moved = last.contains("[see <current-date>");
        assert_eq!(is_moved, !before.is_empty(), "{last}");
    }

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
async fn a_conversation_with_signatures_goes_on_when_all_memory_of_it_is_lost() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let mut agent = Agent::new("claude-opus-5-5", true, "Begin.");
    let mut state = TempDir::new().unwrap();
    for turn in 0..4 {
        let world = World::continued(state, &[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
        let mut client = client(&world, &simulator).await;
        // Conversations with other dates, so that moving the date would pay.
        for date in ["2026-06-15", "2026-06-16"] {
            let mut other = Agent::new("claude-opus-5-5", true, &format!("{turn}, on {date}."));
            assert_eq!(other.turn(&mut client, date).await, StatusCode::OK);
        }
        let status = agent.turn(&mut client, "2026-06-17").await;
        assert_eq!(status, StatusCode::OK, "turn {turn}");
        agent.says(&format!("Go on {turn}."));
        drop(client);
        drop(world.stop().await);
        state = TempDir::new().unwrap();
    }
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
    for date in ["2026-06-16", "2026-06-17"] {
        let mut agent = Agent::new("claude-opus-5-5", false, &format!("Begin on {date}."));
        assert_eq!(agent.turn(&mut client, date).await, StatusCode::OK);
    }
    let first = world.record().await;
    assert_eq!(first.edits, [], "nothing says yet that it pays");
    let record = world.record().await;
    let mut rules: Vec<&str> = record.edits.iter().map(|edit| edit.rule.as_str()).collect();
    rules.sort_unstable();
    assert_eq!(
        rules,
        ["context-values", "current-date"],
        "the directory is the same"
    );
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

/// A chat whose every prompt begins with the time, with hours between its turns: no cache has
/// anything to read of it, so that changes are told in vain.
async fn chat(client: &mut Client, clock: &Clock, first: &str, turns: usize) {
    let manual = "Say what you do before you do it, in one sentence. ".repeat(400);
    let mut messages = vec![json!({ "role": "system", "content": "" })];
    for turn in 0..turns {
        clock.advance(Duration::from_secs(100_000));
        let time = format!("2026-06-09 10:{turn:02}:00");
        messages[0]["content"] = json!(format!("The current time is {time}.\n{manual}"));
        let text = if turn == 0 { first } else { "Go on." };
        messages.push(json!({ "role": "user", "content": format!("{text} [[sim: tokens=5]]") }));
        let body = json!({ "model": "gpt-5.5", "messages": messages });
        let (status, answer) = client.ask(Api::Chat, &body).await;
        assert_eq!(status, StatusCode::OK, "{answer:?}");
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        messages.push(answer["choices"][0]["message"].clone());
    }
}

#[tokio::test]
async fn an_edit_that_saves_nothing_is_switched_off_for_its_workload_and_stays_so() {
    const OFF: &str = "weir_rewrite_switched_total{standing=\"off\"}";
    let clock = Clock::manual(Duration::from_secs(1_781_000_000));
    let options = Options {
        clock: clock.clone(),
        ..Options::default()
    };
    let simulator = Simulator::start(options).unwrap();
    let host = Api::Chat.host();
    let rewriting = || config(CacheMode::Rewrite, "");
    let world = World::start(&[simulator.ca_pem()], rewriting());
    let mut client = Client::connect(&world, simulator.addr(), host, Version::HTTP_11).await;
    let judged = usize::try_from(JUDGED_CALLS).unwrap();
    // The first turn costs nothing, and the last one comes after the verdict.
    chat(&mut client, &clock, "Begin.", judged + 2).await;
    assert_eq!(world.metric(OFF), 1);
    let saw = |simulator: &Simulator| {
        let body = simulator.received().pop().unwrap().body;
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert!(
        saw(&simulator).contains("context_values"),
        "a conversation goes on as it began"
    );
    let status = world.sidecar.status();
    assert_eq!(status["cache"][0]["standing"], "off", "{status}");

    drop(client);
    let world = World::continued(world.stop().await, &[simulator.ca_pem()], rewriting());
    let mut client = Client::connect(&world, simulator.addr(), host, Version::HTTP_11).await;
    chat(&mut client, &clock, "Begin once more.", 2).await;
    assert!(!saw(&simulator).contains("context_values"));
    world.record().await;
    let reasons = &world.record().await.reasons;
    assert!(
        reasons.contains(&"not_rewritten_switched_off".to_owned()),
        "{reasons:?}"
    );
}
