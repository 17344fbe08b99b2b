//! Prompts that the provider refuses.

use super::super::prompt::Prompt;
use super::{Lab, MARK, MARK_1H, block, body};
use crate::json::Json;
use crate::models::{Provider, find};

/// The message `body` is refused with.
fn refused(model: &str, body: &str) -> String {
    let model = find(Provider::Anthropic, model).unwrap();
    let body = Json::parse(body.as_bytes()).expect(body);
    let refusal = Prompt::render(&body, model, "k").unwrap_err();
    assert_eq!(
        (refusal.status, refusal.kind),
        (400, "invalid_request_error")
    );
    refusal.message
}

const AUTOMATIC: &str = r#","cache_control":{"type":"ephemeral"}"#;
const AUTOMATIC_1H: &str = r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#;
const FOREVER: &str = r#","cache_control":{"type":"forever"}"#;
const TWO_HOURS: &str = r#","cache_control":{"type":"ephemeral","ttl":"2h"}"#;

#[test]
fn markers_too_many_out_of_order_or_in_the_wrong_place_are_refused() {
    let (one, long) = (block(1, 0, MARK), block(1, 1, MARK_1H));
    let marked = |count| vec![one.clone(); count].join(",");
    let inside = |blocks: &str| {
        format!(r#"{{"type":"tool_result","tool_use_id":"t","content":[{blocks}]}}"#)
    };
    let cases = [
        (
            body("", &marked(5), ""),
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        (body(&marked(4), &block(1, 0, ""), AUTOMATIC), "Found 5."),
        (body(&marked(4), &inside(&one), ""), "Found 5."),
        (body("", &inside(&inside(&marked(5))), ""), "Found 5."),
        (body(&one, &inside(&long), ""), "must not come after"),
        (body("", &one, AUTOMATIC_1H), "another ttl"),
        (body(&one, &long, ""), "must not come after"),
        (body("", &block(0, 0, MARK), ""), "empty text or thinking"),
        (body("", &block(1, 0, FOREVER), ""), "cache_control.type"),
        (body("", &block(1, 0, TWO_HOURS), ""), "cache_control.ttl"),
    ];
    for (body, message) in cases {
        let found = refused("claude-opus-5-5", &body);
        assert!(
            found.contains(message),
            "expected {message:?}, found {found:?}"
        );
    }
    let deferred = format!(r#"{{"tools":[{{"name":"far","defer_loading":true{MARK}}}]}}"#);
    let found = refused("claude-opus-5-5", &deferred);
    assert!(found.contains("Tool 'far' cannot have both"), "{found}");
    let thinking = format!(r#"{{"type":"thinking","thinking":"t","signature":"s"{MARK}}}"#);
    let found = refused("claude-opus-5-5", &body("", &thinking, ""));
    assert!(found.contains("empty text or thinking"), "{found}");
}

#[test]
fn the_same_lifetime_twice_on_the_last_block_is_one_marker() {
    let body = body(&block(600, 0, MARK), &block(1, 0, MARK), AUTOMATIC);
    assert_eq!(Lab::default().send(&body), [0, 0, 601, 0]);
}

#[test]
fn messages_of_the_wrong_shape_are_refused() {
    let later = r#"{"messages":[{"role":"user","content":"x"},{"role":"system","content":"x"}]}"#;
    let cases = [
        (
            "claude-opus-5-5",
            r#"{"messages":[{"role":"system","content":"x"}]}"#,
            "cannot come first",
        ),
        (
            "claude-haiku-4-5",
            later,
            "role 'system' is not supported on this model",
        ),
        (
            "claude-opus-5-5",
            r#"{"messages":[{"role":"tool","content":"x"}]}"#,
            "expected user or",
        ),
        (
            "claude-opus-5-5",
            r#"{"messages":[{"role":"user"}]}"#,
            "messages.0.content",
        ),
    ];
    for (model, body, message) in cases {
        let found = refused(model, body);
        assert!(
            found.contains(message),
            "expected {message:?}, found {found:?}"
        );
    }
}
