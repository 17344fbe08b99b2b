//! Conversations that begin with the same message and are not the same: each goes on as it began.

use std::ops::Range;

use weir_core::rewrite::{NODES_MAX, Standings, Withheld};
use weir_core::volatile::Span;

use super::*;

const MANUAL: &str = "Read before you write.\nRun the tests.\nAsk if unsure.\nSay what you did.";

fn planner(date: &str, directory: &str) -> String {
    format!("You plan.\nWorking directory: {directory}\nToday's date: {date}\n{MANUAL}")
}

/// A critic, whose prompt has no value or one of those of the planner.
fn critic(date: Option<&str>) -> String {
    let date = date.map_or_else(String::new, |date| format!("Today's date: {date}\n"));
    format!("You judge what others plan.\n{date}Be strict.\nBe short.\nGive a mark.\nSay why.")
}

fn talk() -> Client {
    Client::new(Api::Messages, json!("Fix lint."))
}

#[test]
fn conversations_that_begin_with_the_same_words_are_told_apart_by_their_values() {
    let api = Api::Messages;
    let mut engine = Engine::new("");
    let (mut one, mut other) = (Client::new(api, json!("Hi")), Client::new(api, json!("Hi")));
    let mut one_sent = engine.send(api, &one.body(&system("2026-06-17", "/one")));
    let mut other_sent = engine.send(api, &other.body(&system("2026-06-17", "/other")));
    for turn in 0..4 {
        one.goes_on(&format!("One {turn}"), json!("Go on."));
        other.goes_on(&format!("Other {turn}"), json!("Go on."));
        let next = engine.send(api, &one.body(&system("2026-06-17", "/one")));
        assert_continues(&one_sent, &next);
        one_sent = next;
        let next = engine.send(
            api,
            &other.body(&system(&format!("2026-06-{turn}9"), "/other")),
        );
        assert_continues(&other_sent, &next);
        other_sent = next;
    }
}

#[test]
fn agents_with_the_same_task_and_other_prompts_are_not_taken_for_each_other() {
    for date in [None, Some("2026-06-17")] {
        let api = Api::Messages;
        let mut engine = Engine::new("");
        let (mut one, mut other) = (talk(), talk());
        let mut judged = engine.send(api, &one.body(&critic(date)));
        let mut planned = engine.send(api, &other.body(&planner("2026-06-17", "/secret")));
        for turn in 0..4 {
            one.goes_on(&format!("Judged {turn}."), json!("Go on."));
            other.goes_on(&format!("Planned {turn}."), json!("Go on."));
            let next = engine.send(api, &one.body(&critic(date)));
            assert_continues(&judged, &next);
            assert!(!next.contains("/secret"), "{next}");
            judged = next;
            let directory = format!("/secret/{turn}");
            let next = engine.send(api, &other.body(&planner("2026-06-17", &directory)));
            assert_continues(&planned, &next);
            planned = next;
        }
    }
}

#[test]
fn a_conversation_that_was_not_seen_is_not_taken_for_one_that_began_alike() {
    let api = Api::Messages;
    for date in [None, Some("2026-06-17")] {
        let mut engine = Engine::new("");
        engine.send(api, &talk().body(&planner("2026-06-17", "/secret")));
        let mut unseen = talk();
        unseen.goes_on("Hm.", json!("Go on."));
        let body = unseen.body(&critic(date));
        let plan = engine.plan(api, &body);
        assert_eq!(plan.withheld, Some(Withheld::NotFromStart));
        assert_eq!(plan.edits, []);
    }
}

#[test]
fn a_line_that_no_rule_knows_may_change() {
    let api = Api::Messages;
    let mut engine = Engine::new("");
    let mut client = talk();
    let body = |build: &str| format!("{}\nBuild: {build}", planner("2026-06-17", "/a"));
    let first = engine.send(api, &client.body(&body("one")));
    client.goes_on("Hm.", json!("Go on."));
    let second = engine.send(api, &client.body(&body("two")));
    assert!(first.contains("[see <current-date>"), "{first}");
    assert!(second.contains("[see <current-date>"), "{second}");
}

const OTHER_RULES: &str = "[[rule]]\nname = \"current-date\"\ntransform = \"keep\"";

/// Two conversations of which nothing but what the model answers is different, each with one turn
/// before and one after the other began. `between` happens before the second.
fn two_alike(engine: &mut Engine, between: impl Fn(&mut Engine)) -> [String; 2] {
    let api = Api::Messages;
    let system = planner("2026-06-17", "/a");
    let (mut one, mut other) = (talk(), talk());
    let one_sent = engine.send(api, &one.body(&system));
    between(engine);
    let other_sent = engine.send(api, &other.body(&system));
    one.goes_on("One.", json!("Go on."));
    other.goes_on("Other.", json!("Go on."));
    assert_continues(&one_sent, &engine.send(api, &one.body(&system)));
    assert_continues(&other_sent, &engine.send(api, &other.body(&system)));
    [one_sent, other_sent]
}

#[test]
fn what_can_not_be_told_apart_begins_alike_under_other_rules_and_another_mode() {
    let mut engine = Engine::new("");
    two_alike(&mut engine, |engine| engine.configure(OTHER_RULES));
    let mut engine = Engine::new("");
    engine.begin = false;
    let [one, other] = two_alike(&mut engine, |engine| engine.begin = true);
    assert_eq!(one, other, "only watched");
    // The first has come to its end, most probably.
    engine.now_s += 3600;
    let sent = engine.send(Api::Messages, &talk().body(&planner("2026-06-17", "/a")));
    assert!(sent.contains("[see <current-date>"), "{sent}");
}

#[test]
fn nothing_begins_edited_that_is_only_to_be_watched() {
    let mut engine = Engine::new("");
    let body = talk().body(&planner("2026-06-17", "/a"));
    assert_ne!(engine.send(Api::Messages, &body), body);
    engine.begin = false;
    assert_eq!(engine.send(Api::Messages, &body), body);
}

/// A prompt with a list of files as long as asked.
fn lister(index: usize, bytes: usize) -> String {
    let files = format!("{index}.rs {}", "x".repeat(bytes));
    format!("You list.\n<files>\n{files}\n</files>\n{MANUAL}")
}

/// Conversations that begin after another with other values, until the other would have to go if it
/// did not go on: `tree` has that one.
fn crowd(engine: &Engine, (first, mut tree): (&str, Tree), each: usize, indices: Range<usize>) {
    let api = Api::Messages;
    let (mut one, mut one_sent) = (talk(), first.to_owned());
    let (mut last, mut last_sent) = (talk(), String::new());
    let end = indices.end;
    for index in indices {
        last = talk();
        (last_sent, tree) = engine.grow(api, &last.body(&lister(index, each)), tree);
        if index % 5 == 0 {
            one.goes_on("Hm.", json!("Go on."));
            let (next, grown) = engine.grow(api, &one.body(&lister(0, each)), tree);
            assert_continues(&one_sent, &next);
            (one_sent, tree) = (next, grown);
        }
    }
    last.goes_on("Hm.", json!("Go on."));
    let (next, _) = engine.grow(api, &last.body(&lister(end, each)), tree);
    assert!(next.contains(&format!("{}.rs", end - 1)), "{next}");
    assert_continues(&last_sent, &next);
}

#[test]
fn in_a_tree_that_is_full_the_conversation_goes_that_was_not_used_for_longest() {
    let engine = Engine::new("");
    let begun = |each| {
        engine.grow(
            Api::Messages,
            &talk().body(&lister(0, each)),
            Tree::default(),
        )
    };
    let (first, tree) = begun(30_000);
    crowd(&engine, (&first, tree), 30_000, 1..60);
    // Full by its turns: it has all but some.
    let (first, tree) = begun(1);
    let tree = serde_json::to_string(&tree).unwrap();
    let (start, end) = tree.rsplit_once("],\"clock\"").unwrap();
    let node = start.strip_prefix("{\"nodes\":[").unwrap();
    let idle = node.replace("\"used\":1", "\"used\":0");
    let copies = (100..NODES_MAX + 90).map(|index| idle.replace("0.rs", &format!("{index}.rs")));
    let nodes = [node.to_owned()].into_iter().chain(copies);
    let nodes: Vec<String> = nodes.collect();
    let tree = format!("{{\"nodes\":[{}],\"clock\"{end}", nodes.join(","));
    let tree = serde_json::from_str(&tree).unwrap();
    crowd(&engine, (&first, tree), 1, 1..30);
}

#[test]
fn what_can_not_be_remembered_is_not_edited() {
    let mut engine = Engine::new("");
    let lists: Vec<String> = (0..9).map(|index| lister(index, 60_000)).collect();
    let plan = engine.plan(Api::Messages, &talk().body(&lists.concat()));
    assert_eq!(plan.withheld, Some(Withheld::TooLong));
    assert!(!plan.applied && plan.edits.is_empty());
}

#[test]
fn a_value_that_comes_before_others_of_its_rule_is_not_taken_for_one_of_them() {
    for pin in ["", "[[rule]]\nname = \"session-id\"\ntransform = \"pin\""] {
        let mut engine = Engine::new(pin);
        let mut client = talk();
        let ids = |reply: &str| {
            format!("{MANUAL}\nmessage_id: wamid_9f8e7d6c5b4a\n{reply}chat_id: chat_1a2b3c4d5e6f\n")
        };
        engine.send(Api::Messages, &client.body(&ids("")));
        client.goes_on("Hm.", json!("Go on."));
        let reply = "reply_to_id: wamid_0a1b2c3d4e5f\n";
        let sent = engine.send(Api::Messages, &client.body(&ids(reply)));
        assert!(sent.contains("reply_to_id: wamid_0a1b2c3d4e5f"), "{sent}");
        assert!(sent.contains("chat_id: chat_1a2b3c4d5e6f"), "{sent}");
    }
}

#[test]
fn of_what_began_alike_at_several_nodes_all_go_on_with_what_began_first() {
    let api = Api::Messages;
    let body = talk().body(&planner("2026-06-17", "/a"));
    let prompt = prompt::read(body.as_bytes()).unwrap();
    let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[b"caller"]).unwrap();
    // Nodes differ in what each found to pay, or in their rules.
    let find = |id| {
        let mut sets = ["", OTHER_RULES].into_iter().map(compiled);
        sets.find(|set| set.id == id).map(|set| set.rules)
    };
    let begin = |(rules, moves): (&str, bool), now_s, tree: &Tree| {
        let mut engine = Engine::new(rules);
        engine.now_s = now_s;
        let request = engine.request(api, &body, &prompt, &thread);
        let standings = |spans: &[Span]| Standings {
            moved: spans
                .iter()
                .filter(|_| moves)
                .map(|span| span.name.clone())
                .collect(),
            off: Vec::new(),
        };
        let mut plan =
            rewrite::plan_measured(&request, Some(tree), &engine.current, find, standings);
        let sent = edit::apply(body.as_bytes(), &mut plan.edits).unwrap();
        let tree = plan.tree.unwrap_or_else(|| tree.clone());
        (String::from_utf8(sent).unwrap(), tree)
    };
    let kinds = [("", true), ("", false), (OTHER_RULES, true)];
    for (first, later) in kinds
        .into_iter()
        .flat_map(|one| kinds.map(|other| (one, other)))
    {
        let (sent, begun) = begin(first, 10, &Tree::default());
        let (_, mut known) = begin(later, 20, &Tree::default());
        known.merge(&begun);
        for kind in [later, first, later] {
            let (again, grown) = begin(kind, 30, &known);
            assert_eq!(again, sent, "{first:?}, then {later:?}: {kind:?}");
            known = grown;
        }
    }
}
