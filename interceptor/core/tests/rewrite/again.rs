//! Conversations whose history is refused: the other form continues what the provider saw, and so does
//! every later turn, with what is remembered of it.

use std::collections::HashMap;

use serde_json::json;
use weir_core::api::Api;
use weir_core::edit;
use weir_core::prompt::{self, Fingerprint};
use weir_core::rewrite::{self, Form, Plan, Thread, Withheld};

use super::{Client, Engine, KEY, assert_continues, first, system};

const DATE: &str = "2026-06-17";

impl Engine {
    /// What the provider gets in another form, which is remembered. None, where there is no such form.
    fn again(&mut self, body: &str, form: Form) -> Option<String> {
        let prompt = prompt::read(body.as_bytes()).unwrap();
        let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[b"caller"]).unwrap();
        let tree = self.tree(first(body));
        let plan: Plan = rewrite::plan_again(
            &self.request(Api::Messages, body, &prompt, &thread),
            tree.as_ref(),
            (&self.current, form),
            |id| self.rules.get(&id).cloned(),
            |_| rewrite::Standings::default(),
        )?;
        if let Some(tree) = plan.tree {
            let tree = serde_json::to_string(&tree).unwrap();
            self.trees.insert(first(body), tree);
        }
        let mut edits = plan.edits;
        let sent = edit::apply(body.as_bytes(), &mut edits).unwrap();
        Some(String::from_utf8(sent).unwrap())
    }
}

/// Sends four more turns, of which each has to continue the one before.
fn goes_on(engine: &mut Engine, client: &mut Client, mut before: String, dates: &[&str]) {
    for (turn, date) in dates.iter().enumerate() {
        client.goes_on("Yes.", json!(format!("Go on {turn}.")));
        let sent = engine.send(Api::Messages, &client.body(&system(date, "/a")));
        assert_continues(&before, &sent);
        before = sent;
    }
}

#[test]
fn a_conversation_without_its_memory_goes_on_as_it_was_moved() {
    let mut client = Client::new(Api::Messages, json!("Hello."));
    let first = Engine::new("").send(Api::Messages, &client.body(&system(DATE, "/a")));
    client.goes_on("Hi.", json!("Go on."));
    let body = client.body(&system(DATE, "/a"));
    let mut engine = Engine::new("");
    assert_eq!(engine.send(Api::Messages, &body), body);
    assert_eq!(engine.again(&body, Form::Remembered), None);
    assert_eq!(engine.again(&body, Form::AsItCame), None);
    let taken = engine.again(&body, Form::Anew).unwrap();
    assert_continues(&first, &taken);
    // The same turn once more takes the same form.
    assert_eq!(engine.send(Api::Messages, &body), taken);
    goes_on(
        &mut engine,
        &mut client,
        taken,
        &[DATE, "2026-06-18", "2026-06-18"],
    );
}

#[test]
fn a_conversation_that_was_taken_as_it_came_goes_on_so_and_its_branches_as_they_began() {
    let mut engine = Engine::new("");
    let mut client = Client::new(Api::Messages, json!("Hello."));
    let first = engine.send(Api::Messages, &client.body(&system(DATE, "/a")));
    let mut branch = client.clone();
    // The date changed, so that something is told at the turn that is refused.
    client.goes_on("Hi.", json!("Go on."));
    let body = client.body(&system("2026-06-18", "/a"));
    assert_ne!(engine.send(Api::Messages, &body), body);
    assert_eq!(engine.again(&body, Form::AsItCame).as_ref(), Some(&body));
    assert_eq!(engine.send(Api::Messages, &body), body, "the same turn");
    let plan = engine.plan(Api::Messages, &body);
    assert_eq!(plan.withheld, Some(Withheld::TakenAsItCame));
    for turn in 0..3 {
        client.goes_on("Yes.", json!(format!("Go on {turn}.")));
        let body = client.body(&system("2026-06-18", "/a"));
        assert_eq!(engine.send(Api::Messages, &body), body, "turn {turn}");
    }
    goes_on(&mut engine, &mut branch, first, &[DATE, "2026-06-19", DATE]);
}

#[test]
fn a_conversation_that_was_only_watched_goes_on_edited_where_only_that_is_taken() {
    let mut engine = Engine::new("");
    let mut client = Client::new(Api::Messages, json!("Hello."));
    let edited = Engine::new("").send(Api::Messages, &client.body(&system(DATE, "/a")));
    engine.begin = false;
    let body = client.body(&system(DATE, "/a"));
    assert_eq!(engine.send(Api::Messages, &body), body);
    client.goes_on("Hi.", json!("Go on."));
    let body = client.body(&system(DATE, "/a"));
    assert_eq!(engine.again(&body, Form::Remembered), None, "only watched");
    engine.begin = true;
    assert_eq!(engine.send(Api::Messages, &body), body);
    let taken = engine.again(&body, Form::Remembered).unwrap();
    assert_continues(&edited, &taken);
    engine.begin = false;
    goes_on(&mut engine, &mut client, taken, &[DATE, "2026-06-18", DATE]);
}

#[test]
fn another_conversation_that_begins_alike_is_no_hindrance() {
    let mut client = Client::new(Api::Messages, json!("Hello."));
    let first = Engine::new("").send(Api::Messages, &client.body(&system(DATE, "/a")));
    let mut engine = Engine::new("[[rule]]\nname = \"current-date\"\ntransform = \"pin\"\n");
    let other = Client::new(Api::Messages, json!("Hello."));
    engine.send(Api::Messages, &other.body(&system(DATE, "/a")));
    engine.configure("");
    client.goes_on("Hi.", json!("Go on."));
    let body = client.body(&system(DATE, "/a"));
    let refused = engine.send(Api::Messages, &body);
    assert!(!refused.contains("[see <current-date>"), "{refused}");
    let taken = engine.again(&body, Form::Anew).unwrap();
    assert_continues(&first, &taken);
    goes_on(&mut engine, &mut client, taken, &[DATE, "2026-06-18", DATE]);
}

#[test]
fn a_conversation_that_is_taken_for_another_goes_on_as_it_began_and_stays_so() {
    let mut engine = Engine::new("");
    let mut client = Client::new(Api::Messages, json!("Hello."));
    let first = engine.send(Api::Messages, &client.body(&system("2026-06-15", "/a")));
    let other = Client::new(Api::Messages, json!("Hello."));
    engine.send(Api::Messages, &other.body(&system("2026-06-16", "/a")));
    // Nothing that it says now tells which of the two it is.
    client.goes_on("Hi.", json!("Go on."));
    let body = client.body(&system(DATE, "/a"));
    let refused = engine.send(Api::Messages, &body);
    assert!(refused.contains("2026-06-16"), "{refused}");
    let taken = engine.again(&body, Form::Another(1)).unwrap();
    assert_continues(&first, &taken);
    assert_eq!(engine.again(&body, Form::Another(2)), None);
    // The same turn once more is not refused.
    assert_eq!(engine.send(Api::Messages, &body), taken);
    // What was planned before it was refused is a turn of the other one.
    goes_on(
        &mut engine,
        &mut client,
        taken,
        &[DATE, "2026-06-18", "2026-06-18"],
    );
}

#[test]
fn forms_are_of_conversations_that_went_on_here() {
    let mut engine = Engine::new("");
    let client = Client::new(Api::Messages, json!("Hello."));
    let begun = client.body(&system(DATE, "/a"));
    for form in Form::ALL {
        assert_eq!(engine.again(&begun, form), None, "{form:?}");
    }
    let known: HashMap<Fingerprint, String> = HashMap::new();
    assert_eq!(engine.trees, known);
}
