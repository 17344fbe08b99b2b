//! Conversations through the engine, turn by turn: what the provider saw for a turn stands inside
//! what it sees for the next, whatever the client's prompt does, and with everything that is
//! remembered written out and read back in between.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod again;
mod alike;
mod dialects;
mod head;
mod markers;
mod measured;
mod told;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use weir_core::api::Api;
use weir_core::edit;
use weir_core::prompt::{self, Fingerprint, HashKey, Prompt};
use weir_core::rewrite::{self, Heads, Plan, Request, RuleSet, RulesId, Thread, Tree};
use weir_core::volatile::Rules;

use head::remembered;

const KEY: HashKey = HashKey::new([3; 16]);

/// The engine with its memory, as a shell has it.
struct Engine {
    current: RuleSet,
    rules: HashMap<RulesId, Arc<Rules>>,
    /// Trees as they are stored.
    trees: HashMap<Fingerprint, String>,
    heads: Mutex<Heads>,
    begin: bool,
    now_s: i64,
}

/// What a conversation is known by.
fn first(body: &str) -> Fingerprint {
    let prompt = prompt::read(body.as_bytes()).unwrap();
    let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[b"caller"]).unwrap();
    thread.first.at
}

/// A set of rules, which takes its time to compile.
fn compiled(more: &str) -> RuleSet {
    static SETS: Mutex<BTreeMap<String, RuleSet>> = Mutex::new(BTreeMap::new());
    let mut sets = SETS.lock().unwrap();
    let set = sets.entry(more.to_owned());
    set.or_insert_with(|| RuleSet::new(Rules::parse(more).unwrap(), &KEY))
        .clone()
}

impl Engine {
    fn new(rules: &str) -> Self {
        let mut engine = Self {
            current: compiled(""),
            rules: HashMap::new(),
            trees: HashMap::new(),
            heads: Mutex::default(),
            begin: true,
            now_s: 0,
        };
        engine.configure(rules);
        engine
    }

    fn configure(&mut self, rules: &str) {
        self.current = compiled(rules);
        self.rules
            .insert(self.current.id, Arc::clone(&self.current.rules));
    }

    fn plan(&mut self, api: Api, body: &str) -> Plan {
        let at = first(body);
        let tree = self.tree(at);
        let plan = self.plan_with(api, body, tree.as_ref());
        if let Some(tree) = &plan.tree {
            self.trees.insert(at, serde_json::to_string(tree).unwrap());
        }
        plan
    }

    fn tree(&self, at: Fingerprint) -> Option<Tree> {
        let tree = self.trees.get(&at);
        tree.map(|tree| serde_json::from_str(tree).unwrap())
    }

    fn request<'a>(
        &self,
        api: Api,
        body: &'a str,
        prompt: &'a Prompt,
        thread: &'a Thread,
    ) -> Request<'a> {
        Request {
            api,
            model: "m",
            body: body.as_bytes(),
            prompt,
            thread,
            key: &KEY,
            untouchable: None,
            head: None,
            held_by_provider: body.contains("previous_response_id"),
            begin: self.begin,
            now_s: self.now_s,
        }
    }

    fn plan_with(&self, api: Api, body: &str, tree: Option<&Tree>) -> Plan {
        let prompt = prompt::read(body.as_bytes()).unwrap();
        let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[b"caller"]).unwrap();
        let request = self.request(api, body, &prompt, &thread);
        let rules = &self.rules;
        let plan = |request: &Request<'_>| {
            rewrite::plan(request, tree, &self.current, |id| rules.get(&id).cloned())
        };
        remembered(&self.heads, &request, &self.current, plan)
    }

    /// What the provider gets, with a tree that is not written out in between.
    fn grow(&self, api: Api, body: &str, tree: Tree) -> (String, Tree) {
        let mut plan = self.plan_with(api, body, Some(&tree));
        assert!(plan.applied, "{:?}", plan.withheld);
        let sent = edit::apply(body.as_bytes(), &mut plan.edits).unwrap();
        (String::from_utf8(sent).unwrap(), plan.tree.unwrap_or(tree))
    }

    /// What the provider gets.
    fn send(&mut self, api: Api, body: &str) -> String {
        let mut plan = self.plan(api, body);
        if !plan.applied {
            return body.to_owned();
        }
        let sent = edit::apply(body.as_bytes(), &mut plan.edits).unwrap();
        let sent = String::from_utf8(sent).unwrap();
        assert!(serde_json::from_str::<Value>(&sent).is_ok(), "{sent}");
        sent
    }
}

fn prints(body: &str) -> Vec<Fingerprint> {
    let prompt = prompt::read(body.as_bytes()).unwrap();
    prompt.fingerprints(body.as_bytes(), &KEY)
}

fn assert_continues(before: &str, after: &str) {
    let (before_prints, after_prints) = (prints(before), prints(after));
    assert!(
        after_prints.starts_with(&before_prints),
        "expected the second to begin with the first:\n{before}\n{after}"
    );
}

/// A client that puts the same words around changing values.
#[derive(Clone)]
struct Client {
    api: Api,
    messages: Vec<Value>,
}

impl Client {
    fn new(api: Api, first: Value) -> Self {
        Self {
            api,
            messages: vec![json!({ "role": "user", "content": first })],
        }
    }

    fn body(&self, system: &str) -> String {
        match self.api {
            Api::Responses => {
                json!({ "model": "m", "instructions": system, "input": self.messages })
            }
            Api::ChatCompletions => {
                let mut messages = vec![json!({ "role": "system", "content": system })];
                messages.extend(self.messages.clone());
                json!({ "model": "m", "messages": messages })
            }
            _ => json!({ "model": "m", "system": system, "messages": self.messages }),
        }
        .to_string()
    }

    fn goes_on(&mut self, answer: &str, next: Value) {
        self.messages
            .push(json!({ "role": "assistant", "content": answer }));
        self.messages
            .push(json!({ "role": "user", "content": next }));
    }
}

fn system(date: &str, directory: &str) -> String {
    format!(
        "You are an agent.\n<env>\nWorking directory: {directory}\nToday's date: {date}\n</env>\nBe \"good\"."
    )
}

const APIS: [Api; 3] = [Api::Messages, Api::ChatCompletions, Api::Responses];

#[test]
fn two_days_and_two_directories_share_the_prefix_and_lose_no_value() {
    for api in APIS {
        let client = Client::new(api, json!("Fix the bug."));
        let mut engine = Engine::new("");
        let one = engine.send(api, &client.body(&system("2026-06-17", "/src/a")));
        let other = engine.send(api, &client.body(&system("2026-06-18", "/src/b")));
        let (one_prints, other_prints) = (prints(&one), prints(&other));
        assert_eq!(one_prints[0], other_prints[0], "{one}\n{other}");
        assert_ne!(one_prints[1], other_prints[1]);
        for value in [
            "2026-06-17",
            "/src/a",
            "[see <current-date> in <context_values>]",
        ] {
            assert!(one.contains(value), "{one}");
        }
    }
}

#[test]
fn a_value_that_changes_is_told_where_it_changed_and_stays_there() {
    for api in APIS {
        let mut engine = Engine::new("");
        let mut client = Client::new(api, json!("Fix the bug."));
        let mut sent = vec![engine.send(api, &client.body(&system("2026-06-17", "/a")))];
        client.goes_on("I look.", json!("Go on."));
        sent.push(engine.send(api, &client.body(&system("2026-06-17", "/a"))));
        client.goes_on("I see.", json!([{ "type": "text", "text": "It is late." }]));
        sent.push(engine.send(api, &client.body(&system("2026-06-18", "/a"))));
        client.goes_on("Done.", json!("Thanks."));
        sent.push(engine.send(api, &client.body(&system("2026-06-18", "/a"))));
        for pair in sent.windows(2) {
            assert_continues(&pair[0], &pair[1]);
        }
        let last = sent.last().unwrap();
        assert_eq!(last.matches("2026-06-17").count(), 1, "{last}");
        assert_eq!(last.matches("2026-06-18").count(), 1, "{last}");
        assert!(last.find("2026-06-18").unwrap() > last.find("It is late.").unwrap());
    }
}

#[test]
fn without_memory_an_unchanged_prompt_would_be_rewritten_the_same() {
    let client = Client::new(Api::Messages, json!("Fix the bug."));
    let body = client.body(&system("2026-06-17", "/a"));
    let sent = || Engine::new("").send(Api::Messages, &body);
    assert_eq!(sent(), sent());
}

#[test]
fn what_was_rewritten_is_left_alone() {
    for api in APIS {
        let client = Client::new(api, json!("Fix the bug."));
        let once = Engine::new("").send(api, &client.body(&system("2026-06-17", "/a")));
        assert_eq!(Engine::new("").send(api, &once), once);
    }
}

#[test]
fn a_conversation_is_not_touched_if_its_start_was_not_seen() {
    let mut engine = Engine::new("");
    let mut client = Client::new(Api::Messages, json!("Hello."));
    client.goes_on("Hi.", json!("Go on."));
    let body = client.body(&system("2026-06-17", "/a"));
    assert_eq!(engine.send(Api::Messages, &body), body);
}

#[test]
fn a_conversation_that_began_unedited_stays_so_and_one_that_began_edited_too() {
    for begin in [false, true] {
        let mut engine = Engine::new("");
        let mut client = Client::new(Api::Messages, json!("Hello."));
        engine.begin = begin;
        let first = engine.send(Api::Messages, &client.body(&system("2026-06-17", "/a")));
        engine.begin = !begin;
        client.goes_on("Hi.", json!("Go on."));
        let second = engine.send(Api::Messages, &client.body(&system("2026-06-17", "/a")));
        assert_eq!(first.contains("context_values"), begin);
        assert_continues(&first, &second);
    }
}

#[test]
fn new_rules_are_for_new_conversations() {
    let mut engine = Engine::new("[[rule]]\nname = \"working-directory\"\ntransform = \"keep\"");
    let mut client = Client::new(Api::Messages, json!("Hello."));
    let first = engine.send(Api::Messages, &client.body(&system("2026-06-17", "/a")));
    engine.configure("[[rule]]\nname = \"current-date\"\ntransform = \"keep\"");
    client.goes_on("Hi.", json!("Go on."));
    let second = engine.send(Api::Messages, &client.body(&system("2026-06-17", "/a")));
    assert_continues(&first, &second);
    let other = Client::new(Api::Messages, json!("Another one."));
    let other = engine.send(Api::Messages, &other.body(&system("2026-06-17", "/a")));
    assert!(other.contains("[see <working-directory>"), "{other}");
    assert!(!other.contains("[see <current-date>"), "{other}");
}

#[test]
fn branches_and_retries_find_their_own_way() {
    let api = Api::Messages;
    let mut engine = Engine::new("");
    let mut client = Client::new(api, json!("Hello."));
    let first = engine.send(api, &client.body(&system("2026-06-17 10:00", "/a")));
    // A retry a minute later, and it is this one that is answered.
    let retried = engine.send(api, &client.body(&system("2026-06-17 10:01", "/a")));
    assert_ne!(first, retried);
    let (mut left, mut right) = (client.clone(), client.clone());
    left.goes_on("Hi.", json!("Left."));
    right.goes_on("Hi.", json!("Right."));
    let left_sent = engine.send(api, &left.body(&system("2026-06-17 10:02", "/a")));
    let right_sent = engine.send(api, &right.body(&system("2026-06-17 10:03", "/a")));
    assert_continues(&retried, &left_sent);
    assert_continues(&retried, &right_sent);
    left.goes_on("L.", json!("Go on."));
    right.goes_on("R.", json!("Go on."));
    assert_continues(
        &left_sent,
        &engine.send(api, &left.body(&system("2026-06-17 10:04", "/a"))),
    );
    assert_continues(
        &right_sent,
        &engine.send(api, &right.body(&system("2026-06-17 10:04", "/a"))),
    );
    client.goes_on("Oh.", json!("Go on."));
    engine.send(api, &client.body(&system("2026-06-17 10:05", "/a")));
}

#[test]
fn a_pinned_value_stays_and_its_change_is_told_once() {
    for transform in ["pin", "coarsen"] {
        let rules = format!("[[rule]]\nname = \"current-date\"\ntransform = \"{transform}\"");
        let mut engine = Engine::new(&rules);
        let mut client = Client::new(Api::Messages, json!("Hello."));
        let mut sent = Vec::new();
        for minute in ["10:05", "10:05", "11:07", "11:08"] {
            let date = format!("2026-06-17 {minute}");
            sent.push(engine.send(Api::Messages, &client.body(&system(&date, "/a"))));
            client.goes_on("Hm.", json!("Go on."));
        }
        for pair in sent.windows(2) {
            assert_continues(&pair[0], &pair[1]);
        }
        let last = &sent[3];
        if transform == "pin" {
            assert!(last.contains("Today's date: 2026-06-17 10:05"), "{last}");
            assert!(last.contains(">2026-06-17 11:08</current-date>"), "{last}");
        } else {
            assert!(last.contains("Today's date: 2026-06-17 10:00"), "{last}");
            assert_eq!(last.matches("2026-06-17 11:00").count(), 1, "{last}");
        }
    }
}

#[test]
fn tools_are_put_back_in_the_order_and_with_the_keys_that_came_first() {
    let api = Api::Messages;
    let body = |tools: &str, turn: usize| {
        let more =
            r#",{"role":"assistant","content":"a"},{"role":"user","content":"b"}"#.repeat(turn);
        format!(
            r#"{{"tools":[{tools}],"system":"s","messages":[{{"role":"user","content":"x"}}{more}]}}"#
        )
    };
    let a = r#"{"name":"a","description":"Today's date: 2026-01-02","input_schema":{"type":"object","properties":{"p":{"type":"string"},"q":{"type":"number"}}}}"#;
    let a_otherwise = r#"{"input_schema":{"properties":{"q":{"type":"number"},"p":{"type":"string"}},"type":"object"},"name":"a","description":"Today's date: 2026-01-02"}"#;
    let b = r#"{"name":"b","input_schema":{}}"#;
    let mut engine = Engine::new("");
    let first = engine.send(api, &body(&format!("{a},{b}"), 0));
    assert!(first.contains("[see <current-date>"), "{first}");
    let second = engine.send(api, &body(&format!("{b},{a_otherwise}"), 1));
    assert_continues(&first, &second);
    // One more tool comes last, so that those before it are still read.
    let c = r#"{"name":"c","input_schema":{}}"#;
    let third = engine.send(api, &body(&format!("{c},{b},{a}"), 2));
    assert_eq!(prints(&third)[..2], prints(&first)[..2], "{third}");
}

#[test]
fn where_the_provider_holds_the_history_the_new_turn_is_told() {
    let mut engine = Engine::new("");
    let body = |input: &str, date: &str| {
        json!({ "model": "m", "instructions": system(date, "/a"), "previous_response_id": "resp_1",
            "input": [{ "type": "function_call_output", "call_id": "c", "output": input }] })
        .to_string()
    };
    let one = engine.send(Api::Responses, &body("one", "2026-06-17"));
    let two = engine.send(Api::Responses, &body("two", "2026-06-18"));
    assert_eq!(prints(&one)[0], prints(&two)[0]);
    assert!(two.contains("2026-06-18"), "{two}");
}

#[test]
fn the_billing_block_of_claude_code_goes_elsewhere_and_stays_where_it_must() {
    let header = "x-anthropic-billing-header: cc_version=2.1.330.a1b; cch=0f3a1;";
    let body = json!({ "system": [{ "type": "text", "text": header }, { "type": "text", "text": "You are." }],
        "messages": [{ "role": "user", "content": "x" }] })
    .to_string();
    let mut engine = Engine::new("");
    let sent = engine.send(Api::Messages, &body);
    assert!(!sent.contains("x-anthropic"), "{sent}");
    let prompt = prompt::read(body.as_bytes()).unwrap();
    let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[]).unwrap();
    let request = Request {
        untouchable: Some(0),
        ..engine.request(Api::Messages, &body, &prompt, &thread)
    };
    let plan = rewrite::plan(&request, None, &engine.current, |_| None);
    assert_eq!(plan.edits, []);
}

/// Something that a prompt may say around its values.
fn prose() -> impl Strategy<Value = String> {
    let scraps = select(vec![
        "plain words ",
        "\n",
        "\"quoted\" ",
        "\\back\\slash ",
        "\u{1F600} ",
        "é\u{301} ",
        "\t",
        "</env> ",
        "2026-01-01 ",
        "[see ",
        "<context_values>",
        "\u{7}",
        "漢字 ",
        "Today's date ",
    ]);
    vec(scraps, 0..8).prop_map(|scraps| scraps.concat())
}

/// A turn of the client: what it says, in which form, whether it says it twice.
fn turn() -> impl Strategy<Value = (String, u8, bool, u8)> {
    (prose(), 0_u8..4, any::<bool>(), 0_u8..3)
}

fn content(text: &str, form: u8) -> Value {
    match form {
        0 => json!(text),
        1 => json!([{ "type": "text", "text": text }]),
        2 => json!([{ "type": "text", "text": text, "cache_control": { "type": "ephemeral" } }]),
        _ => json!([{ "type": "tool_result", "tool_use_id": "t", "content": text }]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_turn_continues_the_one_before_and_nothing_else_is_touched(
        around in (prose(), prose(), prose()), turns in vec(turn(), 1..7), pin in any::<bool>(),
    ) {
        let rules = if pin { "[[rule]]\nname = \"current-date\"\ntransform = \"pin\"" } else { "" };
        let mut engine = Engine::new(rules);
        let mut client = Client { api: Api::Messages, messages: Vec::new() };
        let mut before: Option<String> = None;
        for (number, (text, form, twice, value)) in turns.iter().enumerate() {
            if number > 0 {
                client.messages.push(json!({ "role": "assistant", "content": "answer" }));
            }
            client.messages.push(json!({ "role": "user", "content": content(text, *form) }));
            let (a, b, c) = &around;
            let date = format!("2026-06-1{value} 10:0{value}");
            let body = client.body(&format!("{a}\nToday's date: {date}\n{b}\nWorking directory: /src/{value}\n{c}"));
            let mut plan = engine.plan(Api::Messages, &body);
            let sent = edit::apply(body.as_bytes(), &mut plan.edits).unwrap();
            let sent = String::from_utf8(sent).unwrap();
            prop_assert!(serde_json::from_str::<Value>(&sent).is_ok());
            // The bytes between the edits are those of the client.
            let mut from = 0;
            for edit in &plan.edits {
                let kept = &body.as_bytes()[from..edit.range.start];
                prop_assert!(sent.as_bytes().windows(kept.len().max(1)).any(|w| w == kept) || kept.is_empty());
                from = edit.range.end;
            }
            // What changed is still told.
            let directory = format!("/src/{value}");
            prop_assert!(sent.contains(&date) && sent.contains(&directory), "{}", sent);
            if let Some(before) = &before {
                assert_continues(before, &sent);
            }
            if *twice {
                let again = engine.send(Api::Messages, &body);
                prop_assert_eq!(&again, &sent);
            }
            before = Some(sent);
        }
    }
}
