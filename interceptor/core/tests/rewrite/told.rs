//! What a change says: which of the values in the prompt it is about.

use serde_json::json;
use weir_core::api::Api;

use crate::{APIS, Client, Engine, assert_continues};

const PIN: &str = "[[rule]]\nname = \"session-id\"\ntransform = \"pin\"\n\
    [[rule]]\nname = \"file-list\"\ntransform = \"pin\"";

fn sessions(ids: [&str; 3]) -> String {
    let [one, two, three] = ids;
    format!(
        "You are an agent.\nSession ID: {one}\nThe parent's session_id={two}, \"trace_id\": \"{three}\"\nBe good."
    )
}

/// A conversation in which one value after another changes; what the provider gets for each turn.
fn changes(api: Api, prompts: &[[&str; 3]]) -> Vec<String> {
    let mut engine = Engine::new(PIN);
    let mut client = Client::new(api, json!("Begin."));
    let mut sent = Vec::new();
    for ids in prompts {
        sent.push(engine.send(api, &client.body(&sessions(*ids))));
        client.goes_on("Yes.", json!("Go on."));
    }
    for (before, after) in sent.iter().zip(sent.iter().skip(1)) {
        assert_continues(before, after);
    }
    sent
}

#[test]
fn of_several_values_of_a_rule_a_change_says_by_the_words_before_it_which_one_is_meant() {
    let first = ["a1b2c3d4e5", "b1b2c3d4e5", "c1b2c3d4e5"];
    for api in APIS {
        let second = ["a1b2c3d4e5", "b9b9c9d9e9", "c1b2c3d4e5"];
        let third = ["a8b8c8d8e8", "b9b9c9d9e9", "c8b8c8d8e8"];
        let sent = changes(api, &[first, first, second, third, third]);
        let last = sent.last().unwrap();
        for told in [
            r#"<session-id-2 instead-of=\"The parent's session_id=b1b2c3d4e5\">b9b9c9d9e9</session-id-2>"#,
            r#"<session-id instead-of=\"Session ID: a1b2c3d4e5\">a8b8c8d8e8</session-id>"#,
            r#"<session-id-3 instead-of=\"\"trace_id\": \"c1b2c3d4e5\">c8b8c8d8e8</session-id-3>"#,
        ] {
            assert_eq!(last.matches(told).count(), 1, "{told}\n{last}");
        }
        // Nothing else in the prefix than at the start.
        assert!(last.contains("Session ID: a1b2c3d4e5"), "{last}");
        assert!(last.contains("session_id=b1b2c3d4e5"), "{last}");
    }
}

#[test]
fn values_that_read_the_same_are_counted() {
    let system = |three: &str| {
        format!("Session ID: a1b2c3d4e5\nSession ID: a1b2c3d4e5\nSession ID: {three}\nBe good.")
    };
    let mut engine = Engine::new(PIN);
    let mut client = Client::new(Api::Messages, json!("Begin."));
    engine.send(Api::Messages, &client.body(&system("a1b2c3d4e5")));
    client.goes_on("Yes.", json!("Go on."));
    let sent = engine.send(Api::Messages, &client.body(&system("z9b2c3d4e5")));
    let told = r#"<session-id-3 instead-of=\"Session ID: a1b2c3d4e5 (no. 3)\">z9b2c3d4e5<"#;
    assert!(sent.contains(told), "{sent}");
}

#[test]
fn of_a_long_value_only_the_beginning_is_quoted() {
    let system = |file: &str| {
        let files = format!("src/{file}\n").repeat(40);
        format!("You are.\n<files>\nREADME.md\n</files>\nOpen:\n<open_files>\n{files}</open_files>")
    };
    let mut engine = Engine::new(PIN);
    let mut client = Client::new(Api::Messages, json!("Begin."));
    engine.send(Api::Messages, &client.body(&system("a.rs")));
    client.goes_on("Yes.", json!("Go on."));
    let sent = engine.send(Api::Messages, &client.body(&system("b.rs")));
    let told = r#"<file-list-2 instead-of=\"<open_files> src/a.rs…\">\nsrc/b.rs\n"#;
    assert!(sent.contains(told), "{sent}");
}

#[test]
fn where_a_rule_found_one_value_its_name_is_enough() {
    let system = |id: &str| format!("You are.\nSession ID: {id}\nBe good.");
    let mut engine = Engine::new(PIN);
    let mut client = Client::new(Api::Messages, json!("Begin."));
    engine.send(Api::Messages, &client.body(&system("a1b2c3d4e5")));
    client.goes_on("Yes.", json!("Go on."));
    let sent = engine.send(Api::Messages, &client.body(&system("b1b2c3d4e5")));
    assert!(
        sent.contains("<session-id>b1b2c3d4e5</session-id>"),
        "{sent}"
    );
    assert!(sent.contains("Session ID: a1b2c3d4e5"), "{sent}");
}

#[test]
fn a_value_that_the_prompt_calls_otherwise_than_its_rule_is_quoted() {
    let rule = "[[rule]]\nname = \"resources\"\ntransform = \"pin\"";
    let system = |free: &str| format!("You are.\nMemory free: {free}\nBe good.");
    let mut engine = Engine::new(rule);
    let mut client = Client::new(Api::Messages, json!("Begin."));
    engine.send(Api::Messages, &client.body(&system("3120 MB")));
    client.goes_on("Yes.", json!("Go on."));
    let sent = engine.send(Api::Messages, &client.body(&system("2800 MB")));
    let told = r#"<resources instead-of=\"Memory free: 3120 MB\">2800 MB</resources>"#;
    assert!(sent.contains(told), "{sent}");
}

#[test]
fn where_a_reference_stands_its_name_is_enough() {
    let mut engine = Engine::new("");
    let mut client = Client::new(Api::Messages, json!("Begin."));
    let one = sessions(["a1b2c3d4e5", "b1b2c3d4e5", "c1b2c3d4e5"]);
    let other = sessions(["a1b2c3d4e5", "b9b9c9d9e9", "c1b2c3d4e5"]);
    engine.send(Api::Messages, &client.body(&one));
    client.goes_on("Yes.", json!("Go on."));
    let sent = engine.send(Api::Messages, &client.body(&other));
    assert!(
        sent.contains("<session-id-2>b9b9c9d9e9</session-id-2>"),
        "{sent}"
    );
    assert!(sent.contains("[see <session-id-2> in"), "{sent}");
}

#[test]
fn what_an_earlier_version_told_stays_as_it_told_it() {
    let api = Api::Messages;
    let mut engine = Engine::new(PIN);
    let mut client = Client::new(api, json!("Begin."));
    let first = ["a1b2c3d4e5", "b1b2c3d4e5", "c1b2c3d4e5"];
    let second = ["a1b2c3d4e5", "b9b9c9d9e9", "c1b2c3d4e5"];
    engine.send(api, &client.body(&sessions(first)));
    client.goes_on("Yes.", json!("Go on."));
    let sent = engine.send(api, &client.body(&sessions(second)));
    // As a version without places had told and remembered it.
    let place = "The parent's session_id=b1b2c3d4e5";
    let before = sent.replace(&format!(r#" instead-of=\"{place}\""#), "");
    assert_ne!(before, sent);
    for tree in engine.trees.values_mut() {
        let without = tree.replace(&format!(r#","place":"{place}""#), "");
        assert_ne!(*tree, without);
        *tree = without;
    }
    let again = engine.send(api, &client.body(&sessions(second)));
    assert_eq!(again, before, "the same turn, made again");
    client.goes_on("Yes.", json!("Go on."));
    let after = engine.send(api, &client.body(&sessions(second)));
    assert_continues(&before, &after);
}
