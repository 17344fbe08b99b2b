//! The pieces: what stands where, and what is coarse.

use super::render::{coarse, place};
use super::*;

#[test]
fn a_coarse_moment_has_its_hour_and_nothing_finer() {
    for (raw, expected) in [
        ("2026-06-17T14:03:22.123Z", "2026-06-17T14:00:00.000Z"),
        (
            "Monday, March 9, 2026 at 06:17:31 PM PDT",
            "Monday, March 9, 2026 at 06:00:00 PM PDT",
        ),
        ("2026年6月17日 10:11", "2026年6月17日 10:00"),
        ("1781694123", "1781694000"),
        ("1781694123456", "1781694000000"),
        ("2026-06-17", "2026-06-17"),
        ("é 9:5", "é 9:5"),
    ] {
        assert_eq!(coarse(raw), expected, "{raw}");
    }
}

#[test]
fn a_value_is_told_at_the_end_of_a_text_or_behind_what_must_come_first() {
    let told = |api, body: &str| {
        let prompt = crate::prompt::read(body.as_bytes()).unwrap();
        let place = place(api, body.as_bytes(), &prompt, prompt.messages.last()?)?;
        let (range, replacement) = place.insert("X");
        let mut edits = [Edit {
            range,
            replacement,
            rule: "test".into(),
        }];
        let edited = crate::edit::apply(body.as_bytes(), &mut edits).unwrap();
        Some(String::from_utf8(edited).unwrap())
    };
    for (api, body, expected) in [
        (
            Api::Messages,
            r#"{"messages":[{"role":"user","content":"hi"}]}"#,
            r#"{"messages":[{"role":"user","content":"hi\n\nX"}]}"#,
        ),
        (
            Api::Messages,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi\n\nX","cache_control":{"type":"ephemeral"}}]}]}"#,
        ),
        (
            Api::Messages,
            r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"r"} ]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"r"} ,{"type":"text","text":"X"}]}]}"#,
        ),
        (
            Api::ChatCompletions,
            r#"{"messages":[{"role":"tool","tool_call_id":"1","content":"r"}]}"#,
            r#"{"messages":[{"role":"tool","tool_call_id":"1","content":"r\n\nX"}]}"#,
        ),
        (
            Api::Responses,
            r#"{"input":"hi"}"#,
            r#"{"input":"hi\n\nX"}"#,
        ),
        (
            Api::Responses,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"u"}]}]}"#,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"u"},{"type":"input_text","text":"X"}]}]}"#,
        ),
        (
            Api::GenerateContent,
            r#"{"contents":[{"role":"user","parts":[{"functionResponse":{}}]}]}"#,
            r#"{"contents":[{"role":"user","parts":[{"functionResponse":{}},{"text":"X"}]}]}"#,
        ),
    ] {
        assert_eq!(told(api, body).as_deref(), Some(expected));
    }
    let nowhere = r#"{"messages":[{"role":"user","content":[]}]}"#;
    assert_eq!(told(Api::Messages, nowhere), None);
}
