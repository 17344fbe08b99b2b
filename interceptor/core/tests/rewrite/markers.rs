//! Breakpoints that are added beside those of the client, wherever those stand: never more than four,
//! and longer lifetimes first.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use weir_core::api::Api;
use weir_core::cache::Sketch;
use weir_core::catalog::Provider;
use weir_core::edit::{self, Edit};
use weir_core::prompt;
use weir_core::rewrite::{Markable, Thread, Warmth, breakpoints};

use crate::KEY;

/// A place in a prompt: what it is in, and whether the client marks it.
type Part = (u8, u8, bool);

fn parts() -> impl Strategy<Value = Vec<Part>> {
    vec((0_u8..5, 0_u8..4, any::<bool>()), 1..30)
}

/// Marks `block`, if there are markers left. They come in the order of the prompt, so the first `long`
/// of them are those that ask for an hour.
struct Marks {
    set: usize,
    left: usize,
    long: usize,
}

impl Marks {
    fn on(&mut self, block: &mut Value, is_marked: bool) {
        if !is_marked || self.set >= self.left {
            return;
        }
        let ttl = if self.set < self.long { "1h" } else { "5m" };
        block["cache_control"] = json!({ "type": "ephemeral", "ttl": ttl });
        self.set = self.set.saturating_add(1);
    }

    /// A block with as many others around its text as `depth` says.
    fn block(&mut self, (kind, depth, is_marked): Part) -> Value {
        let mut block = json!({ "type": "text", "text": "words" });
        self.on(&mut block, is_marked && depth > 0);
        for level in 0..depth {
            let is_last = level.saturating_add(1) == depth;
            block = match (kind, is_last) {
                (0, true) => {
                    json!({ "type": "document", "source": { "type": "content", "content": [block] } })
                }
                (1, true) => json!({ "type": "search_result", "title": "t", "content": [block] }),
                (_, true) => {
                    json!({ "type": "tool_result", "tool_use_id": "t", "content": [{ "type": "text", "text": "r" }, block] })
                }
                (_, false) => json!({ "type": "search_result", "content": [block] }),
            };
            // Where both a block and one inside of it are marked, both count.
            self.on(&mut block, is_marked && kind > 2);
        }
        if depth == 0 {
            self.on(&mut block, is_marked);
        }
        block
    }
}

/// A conversation of three messages of the client, each part a block of it.
fn conversation(parts: &[Part], marks: &mut Marks) -> Value {
    let mut tool = json!({ "name": "n", "input_schema": { "properties": { "cache_control": { "type": "ephemeral" } } } });
    marks.on(&mut tool, parts.len().is_multiple_of(2));
    let mut system = json!({ "type": "text", "text": "You are." });
    marks.on(&mut system, parts.len().is_multiple_of(3));
    let mut messages = Vec::new();
    let each = parts.len().div_ceil(3);
    for (index, parts) in parts.chunks(each).enumerate() {
        if index > 0 {
            let input = json!({ "content": [{ "cache_control": { "type": "ephemeral" } }] });
            messages.push(json!({ "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "n", "input": input }] }));
        }
        let blocks: Vec<Value> = parts.iter().map(|part| marks.block(*part)).collect();
        messages.push(json!({ "role": "user", "content": blocks }));
    }
    json!({ "model": "claude-opus-5-5", "tools": [tool], "system": [system], "messages": messages })
}

/// The lifetimes of all breakpoints in the order of the prompt, read another way than Weir does.
fn lifetimes(body: &Value) -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            Value::Object(members) => {
                for name in ["source", "content"] {
                    members
                        .get(name)
                        .into_iter()
                        .for_each(|inner| walk(inner, found));
                }
                if let Some(control) = members.get("cache_control") {
                    found.push(control["ttl"].as_str().unwrap_or("5m").to_owned());
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for name in ["tools", "system", "messages"] {
        walk(&body[name], &mut found);
    }
    found
}

fn outline(body: &[u8]) -> Sketch {
    let prompt = prompt::read(body).unwrap();
    Sketch::outline(body, &prompt, &KEY)
}

/// The outline of a body with breakpoints, by the sketch of the body without.
fn marked(body: &str, edits: &[Edit]) -> Option<Sketch> {
    let body = body.as_bytes();
    let prompt = prompt::read(body).unwrap();
    Sketch::new(body, &prompt, &KEY).marked(body, &prompt, edits)
}

#[test]
fn an_outline_is_told_from_a_sketch_only_where_nothing_but_markers_come_into_blocks() {
    let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"}, {"text":"b" }, {}]}]}"#;
    let edit = |at: &str, replacement: &str| {
        let end = body.find(at).unwrap().checked_add(at.len()).unwrap();
        let brace = end.checked_sub(1).unwrap();
        vec![Edit {
            range: brace..brace,
            replacement: replacement.into(),
            rule: "r".into(),
        }]
    };
    let marker = r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#;
    let mut fits = edit(r#""a"}"#, marker);
    let by_sketch = marked(body, &fits).unwrap();
    let sent = edit::apply(body.as_bytes(), &mut fits).unwrap();
    assert_eq!(by_sketch, outline(&sent));
    assert_ne!(by_sketch, outline(body.as_bytes()));
    assert_eq!(
        marked(body, &edit(r#""b" }"#, marker)),
        None,
        "behind a blank"
    );
    assert_eq!(
        marked(body, &edit("{}", marker)),
        None,
        "no member before it"
    );
    assert_eq!(marked(body, &edit("]}]}", marker)), None, "no block");
    assert_eq!(
        marked(body, &edit(r#""a"}"#, r#","more":1"#)),
        None,
        "no marker"
    );
    let mut replaced = fits.clone();
    replaced[0].range.end = replaced[0].range.end.saturating_add(1);
    assert_eq!(marked(body, &replaced), None, "something goes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_more_than_four_breakpoints_in_any_nesting_and_longer_lifetimes_come_first(
        parts in parts(), left in 0_usize..5, long in 0_usize..5, automatic in any::<bool>(),
    ) {
        let mut marks = Marks { set: 0, left, long };
        let mut body = conversation(&parts, &mut marks);
        let by_client = lifetimes(&body);
        if automatic && by_client.len() < 4 && by_client.iter().all(|ttl| ttl == "1h") {
            body["cache_control"] = json!({ "type": "ephemeral", "ttl": "1h" });
        }
        let is_automatic = usize::from(body.get("cache_control").is_some());
        let text = body.to_string();
        let prompt = prompt::read(text.as_bytes()).unwrap();
        prop_assert_eq!(prompt.markers(), by_client.len().saturating_add(is_automatic), "{}", text);
        let thread = Thread::of(&prompt, text.as_bytes(), &KEY, &[]).unwrap();
        let call = Markable {
            api: Api::Messages,
            provider: Provider::Anthropic,
            model: "claude-opus-5-5",
            body: text.as_bytes(),
            prompt: &prompt,
            thread: &thread,
            minimum_bytes: 0,
            warm: Warmth { tools: true, system: true, turn: true },
            edits: &[],
        };
        let mut edits = breakpoints(&call);
        let sent = edit::apply(text.as_bytes(), &mut edits).unwrap();
        prop_assert_eq!(marked(&text, &edits), Some(outline(&sent)));
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        let all = lifetimes(&sent);
        prop_assert_eq!(all.len(), by_client.len().saturating_add(edits.len()), "{}", sent);
        prop_assert!(all.len().saturating_add(is_automatic) <= 4, "{:?}: {}", all, sent);
        prop_assert!(all.is_sorted(), "{:?}: {}", all, sent);
    }
}
