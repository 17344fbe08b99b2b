//! Conversations whose model thinks: where it binds its signatures to the history, they go on whatever Weir remembers of them.

mod scripted;

use std::fmt::Write as _;

use bytes::Bytes;
use http::{StatusCode, Version};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::ledger;
use weir::process::config::CacheMode;
use weir_simulator::{Options, Simulator};
use weir_tests::{Api, Client, World};

use crate::rewrite::config;

/// An agent with a date in its system prompt.
struct Agent {
    model: &'static str,
    /// Whether thinking is switched on.
    thinks: bool,
    messages: Vec<Value>,
}

impl Agent {
    fn new(model: &'static str, first: &str) -> Self {
        let mut agent = Self {
            model,
            thinks: true,
            messages: Vec::new(),
        };
        agent.says(first);
        agent
    }

    fn says(&mut self, text: &str) {
        let think = if self.thinks { "think=20 " } else { "" };
        let text = format!("{text} [[sim: {think}tokens=10]]");
        self.messages
            .push(json!({ "role": "user", "content": text }));
    }

    fn body(&self, date: &str) -> Value {
        let mut manual = String::new();
        for rule in 0..400 {
            let _infallible = writeln!(manual, "{rule}. Say what you do before you do it.");
        }
        let system = format!("You are an agent.\nToday's date: {date}\n{manual}");
        let kind = if self.thinks { "adaptive" } else { "disabled" };
        json!({
            "model": self.model, "max_tokens": 200, "thinking": { "type": kind },
            "system": [{ "type": "text", "text": system, "cache_control": { "type": "ephemeral" } }],
            "messages": self.messages,
        })
    }

    async fn turn(&mut self, client: &mut Client, date: &str) -> (StatusCode, Bytes) {
        let (status, answer) = client.ask(Api::Messages, &self.body(date)).await;
        if status == StatusCode::OK {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let content = &answer["content"];
            self.messages
                .push(json!({ "role": "assistant", "content": content }));
            let turns = self.messages.len();
            self.says(&format!("Go on {turns}."));
        }
        (status, answer)
    }
}

async fn client(world: &World, simulator: &Simulator) -> Client {
    connect(world, simulator, Version::HTTP_11).await
}

async fn connect(world: &World, simulator: &Simulator, version: Version) -> Client {
    Client::connect(world, simulator.addr(), Api::Messages.host(), version).await
}

#[tokio::test]
async fn values_are_moved_where_a_model_that_thinks_is_known_not_to_bind_its_history() {
    for (model, is_moved) in [
        ("claude-sonnet-5", true),
        ("claude-sonnet-4-6", true),
        ("claude-sonnet-5-5", false),
    ] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
        let mut client = client(&world, &simulator).await;
        for date in ["2026-06-15", "2026-06-16", "2026-06-17"] {
            let mut agent = Agent::new(model, &format!("Begin on {date}."));
            for turn in 0..2 {
                let (status, _) = agent.turn(&mut client, date).await;
                assert_eq!(status, StatusCode::OK, "{model}, turn {turn}");
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

const DATE: &str = "2026-06-17";

/// The turns of a conversation whose date is moved, before and after thinking is switched on: all that
/// comes after is bound to what Weir made of it.
async fn moved(simulator: &Simulator, version: Version) -> (Agent, TempDir) {
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
    let mut client = connect(&world, simulator, version).await;
    let new = |first: &str| {
        let mut agent = Agent::new("claude-opus-5-5", "");
        agent.thinks = false;
        agent.messages.clear();
        agent.says(first);
        agent
    };
    for date in ["2026-06-15", "2026-06-16"] {
        let mut other = new(&format!("Begin on {date}."));
        assert_eq!(other.turn(&mut client, date).await.0, StatusCode::OK);
    }
    let mut agent = new("Begin.");
    assert_eq!(agent.turn(&mut client, DATE).await.0, StatusCode::OK);
    agent.thinks = true;
    agent.messages.pop();
    agent.says("Think.");
    assert_eq!(agent.turn(&mut client, DATE).await.0, StatusCode::OK);
    drop(client);
    (agent, world.stop().await)
}

/// How often a call was sent again, by what came of it.
fn sent_again(world: &World, result: &str) -> u64 {
    world.metric(&format!(
        "weir_sent_again_calls_total{{result=\"{result}\"}}"
    ))
}

#[tokio::test]
async fn a_conversation_whose_memory_is_lost_is_refused_once_unseen_and_goes_on_as_it_was_moved() {
    const OTHER_RULES: &str = "[[rule]]\nname = \"working-directory\"\ntransform = \"keep\"\n";
    for (version, rules) in [(Version::HTTP_11, OTHER_RULES), (Version::HTTP_2, "")] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let (mut agent, lost) = moved(&simulator, version).await;
        drop(lost);
        let mut state = TempDir::new().unwrap();
        for turn in 0..3 {
            let before = simulator.received().len();
            let rules = config(CacheMode::Rewrite, rules);
            let world = World::continued(state, &[simulator.ca_pem()], rules);
            let mut client = connect(&world, &simulator, version).await;
            let (status, answer) = agent.turn(&mut client, DATE).await;
            assert_eq!(status, StatusCode::OK, "turn {turn}: {answer:?}");
            let record = world.record().await;
            let received = simulator.received().split_off(before);
            let last = String::from_utf8(received.last().unwrap().body.to_vec()).unwrap();
            assert!(last.contains("[see <current-date>"), "{last}");
            // Only the first turn after the loss is refused: what it goes by is remembered.
            let again = usize::from(turn == 0);
            assert_eq!(received.len(), 1 + again, "turn {turn}");
            assert_eq!(sent_again(&world, "anew"), u64::try_from(again).unwrap());
            let said = record.reasons.contains(&"sent_again_anew".to_owned());
            assert_eq!(said, turn == 0, "{:?}", record.reasons);
            assert_eq!(record.status, Some(200));
            let mut rules: Vec<&str> = record.edits.iter().map(|e| e.rule.as_str()).collect();
            rules.sort_unstable();
            rules.retain(|rule| *rule != "cache-breakpoint");
            assert_eq!(rules, ["context-values", "current-date"], "turn {turn}");
            let billed = simulator.bill().pop().unwrap();
            let nanos = record.cost.spent().nanos();
            assert_eq!(nanos, billed.nanodollars.cast_signed(), "turn {turn}");
            world.no_more_records().await;
            drop(client);
            state = world.stop().await;
        }
    }
}

#[tokio::test]
async fn a_conversation_that_went_on_without_weir_goes_on_as_it_came() {
    for mode in [CacheMode::Rewrite, CacheMode::Observe, CacheMode::Off] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let (mut agent, mut state) = moved(&simulator, Version::HTTP_11).await;
        // Without what was signed for its history as Weir made it.
        agent.messages.truncate(2);
        agent.says("Think without it.");
        let without = World::start(&[simulator.ca_pem()], config(CacheMode::Off, ""));
        let mut client_without = client(&without, &simulator).await;
        assert_eq!(
            agent.turn(&mut client_without, DATE).await.0,
            StatusCode::OK
        );
        for turn in 0..3 {
            let before = simulator.received().len();
            let world = World::continued(state, &[simulator.ca_pem()], config(mode, ""));
            let mut client = client(&world, &simulator).await;
            let (status, answer) = agent.turn(&mut client, DATE).await;
            assert_eq!(status, StatusCode::OK, "turn {turn}: {answer:?}");
            let again = usize::from(turn == 0);
            let received = simulator.received().split_off(before);
            assert_eq!(received.len(), 1 + again, "{mode:?}, turn {turn}");
            let last = String::from_utf8(received.last().unwrap().body.to_vec()).unwrap();
            assert!(!last.contains("context_values"), "{last}");
            assert_eq!(
                sent_again(&world, "as_it_came"),
                u64::try_from(again).unwrap()
            );
            let record = world.record().await;
            let moved = |edit: &&str| *edit != "cache-breakpoint";
            let rules = record.edits.iter().map(|edit| edit.rule.as_str());
            assert_eq!(rules.filter(moved).count(), 0, "{:?}", record.edits);
            drop(client);
            state = world.stop().await;
        }
    }
}

#[tokio::test]
async fn a_mode_that_edits_nothing_sends_nothing_again_that_it_does_not_remember() {
    for mode in [CacheMode::Observe, CacheMode::Off] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let (mut agent, lost) = moved(&simulator, Version::HTTP_11).await;
        drop(lost);
        let before = simulator.received().len();
        let world = World::start(&[simulator.ca_pem()], config(mode, ""));
        let mut client = client(&world, &simulator).await;
        let (status, _) = agent.turn(&mut client, DATE).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(simulator.received().len(), before + 1);
    }
}

#[tokio::test]
async fn where_the_other_form_is_refused_too_the_record_says_so_once_and_nothing_is_spent() {
    refused_twice(Version::HTTP_11).await;
    refused_twice(Version::HTTP_2).await;
}

async fn refused_twice(version: Version) {
    let simulator = Simulator::start(Options::default()).unwrap();
    let (mut agent, lost) = moved(&simulator, version).await;
    drop(lost);
    let before = simulator.received().len();
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
    let mut client = connect(&world, &simulator, version).await;
    // The client's own prompt is another one.
    let (status, answer) = agent.turn(&mut client, "2026-06-18").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&answer).contains("bound to a different conversation"));
    assert_eq!(simulator.received().len(), before + 2);
    let record = world.record().await;
    assert_eq!(record.status, Some(400));
    assert_eq!(record.cost.spent().nanos(), 0);
    assert!(record.reasons.contains(&"sent_again_in_vain".to_owned()));
    assert!(record.edits.is_empty(), "{:?}", record.edits);
    assert_eq!(sent_again(&world, "in_vain"), 1);
    // It is not tried again, neither at this turn nor at the next one.
    for turn in 1..3 {
        let before = simulator.received().len();
        let (status, _) = agent.turn(&mut client, "2026-06-18").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(simulator.received().len(), before + 1, "turn {turn}");
        let record = world.record().await;
        assert!(record.reasons.contains(&"not_sent_again".to_owned()));
        assert_eq!(sent_again(&world, "known_in_vain"), turn);
        agent.says("Do go on.");
    }
    assert_eq!(sent_again(&world, "in_vain"), 1);
    // Another form may be taken.
    let (status, _) = agent.turn(&mut client, DATE).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.record().await.status, Some(200));
    world.no_more_records().await;
}

#[tokio::test]
async fn a_conversation_whose_memory_is_lost_and_that_is_taken_for_another_goes_on_too() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let simulator = Simulator::start(Options::default()).unwrap();
        let (mut agent, lost) = moved(&simulator, version).await;
        drop(lost);
        let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
        let mut client = connect(&world, &simulator, version).await;
        let mut other = Agent::new("claude-opus-5-5", "");
        other.thinks = false;
        other.messages.clear();
        other.says("Begin.");
        let (status, _) = other.turn(&mut client, "2026-06-20").await;
        assert_eq!(status, StatusCode::OK);
        world.record().await;
        for turn in 0..3 {
            let before = simulator.received().len();
            let (status, answer) = agent.turn(&mut client, DATE).await;
            assert_eq!(status, StatusCode::OK, "turn {turn}: {answer:?}");
            let record = world.record().await;
            // As the other one, as it came, and as it was moved when it began.
            let received = simulator.received().split_off(before);
            let expected = if turn == 0 { 3 } else { 1 };
            assert_eq!(received.len(), expected, "turn {turn}");
            let sent = |at: usize| String::from_utf8(received[at].body.to_vec()).unwrap();
            if turn == 0 {
                assert!(sent(0).contains("2026-06-20"));
                assert!(!sent(1).contains("context_values"));
            }
            assert!(sent(expected - 1).contains("[see <current-date>"));
            let said = record.reasons.contains(&"sent_again_anew".to_owned());
            assert_eq!(said, turn == 0, "{:?}", record.reasons);
            let billed = simulator.bill().pop().unwrap();
            let nanos = record.cost.spent().nanos();
            assert_eq!(nanos, billed.nanodollars.cast_signed(), "turn {turn}");
            // The other one is no other for it.
            let before = simulator.received().len();
            let (status, _) = other.turn(&mut client, "2026-06-20").await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(simulator.received().len(), before + 1);
            world.record().await;
        }
        assert_eq!(sent_again(&world, "anew"), 1);
        world.no_more_records().await;
    }
}

#[tokio::test]
async fn the_form_that_is_taken_has_breakpoints_and_a_turn_that_is_made_again_takes_it_at_once() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let world = World::start(&[simulator.ca_pem()], config(CacheMode::Rewrite, ""));
    let mut client = client(&world, &simulator).await;
    let mut agent = Agent::new("claude-opus-5-5", "Begin.");
    let mut other = Agent::new("claude-opus-5-5", "Begin.");
    for (one, date) in [(&mut agent, "2026-06-15"), (&mut other, "2026-06-16")] {
        assert_eq!(one.turn(&mut client, date).await.0, StatusCode::OK);
        world.record().await;
    }
    // Nothing that it says now tells which of the two it is.
    let body = agent.body(DATE);
    let before = simulator.received().len();
    for again in [true, false] {
        let (status, _) = client.ask(Api::Messages, &body).await;
        assert_eq!(status, StatusCode::OK);
        let record = world.record().await;
        let said = record.reasons.contains(&"sent_again_another".to_owned());
        assert_eq!(said, again, "{:?}", record.reasons);
        let is_set = |edit: &ledger::Edit| edit.rule == "cache-breakpoint";
        assert!(record.edits.iter().any(is_set), "{:?}", record.edits);
    }
    let received = simulator.received().split_off(before);
    // As the other one, as it came, as what it is, and that once more.
    assert_eq!(received.len(), 4);
    assert_eq!(received[2].body, received[3].body);
    // What the turn that was sent again wrote is read when it is made again.
    let usage = &simulator.bill().pop().unwrap().usage;
    assert_eq!(
        (usage.cache_write_short, usage.input_uncached),
        (0, 0),
        "{usage:?}"
    );
    world.no_more_records().await;
}
