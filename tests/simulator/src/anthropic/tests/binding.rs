//! Preserved thinking.

use super::super::binding;
use crate::json::{Json, object};

/// A conversation with a thinking block in its second message, signed for what stands before it.
fn thought(system: &str, tools: &str, user: &str) -> Json {
    let before = format!(
        r#"{{"system":{system},"tools":{tools},"messages":[{{"role":"user","content":{user}}}]}}"#
    );
    let signature = binding::sign(&Json::parse(before.as_bytes()).expect(&before));
    object! { "signature": signature }
}

#[test]
fn a_thinking_block_is_bound_to_system_tools_and_earlier_messages() {
    let (system, tools, user) = (
        r#""be good""#,
        r#"[{"name":"a","input_schema":{"x":1,"y":2}},{"name":"b","input_schema":{}}]"#,
        r#""hello  you""#,
    );
    let signed = thought(system, tools, user);
    let signature = signed.text("signature").unwrap();
    let with = |system: &str, tools: &str, user: &str| {
        let body = format!(
            r#"{{"system":{system},"tools":{tools},"messages":[{{"role":"user","content":{user}}},
            {{"role":"assistant","content":[{{"type":"thinking","thinking":"hm","signature":"{signature}"}},{{"type":"text","text":"hi"}}]}},
            {{"role":"user","content":"anything new"}}]}}"#
        );
        binding::check(&Json::parse(body.as_bytes()).expect(&body))
    };
    let same = [
        (system, tools, user),
        (
            r#"[{"type":"text","text":" be good\n","cache_control":{"type":"ephemeral"}}]"#,
            tools,
            user,
        ),
        (
            system,
            r#"[{"name":"b","input_schema":{}},{"input_schema":{"y":2,"x":1},"name":"a"}]"#,
            user,
        ),
        (
            system,
            r#"[{"name":"a","input_schema":{"x":1,"y":2}},{"name":"b","input_schema":{}},{"name":"c","defer_loading":true}]"#,
            user,
        ),
        (
            system,
            tools,
            r#"[{"type":"text","text":"hello  you"},{"type":"text","text":"  "}]"#,
        ),
    ];
    for (system, tools, user) in same {
        with(system, tools, user).unwrap();
    }
    let changed = [
        (r#""be bad""#, tools, user),
        (
            system,
            r#"[{"name":"a","input_schema":{"x":1,"y":2}}]"#,
            user,
        ),
        (
            system,
            r#"[{"name":"a","input_schema":{"x":1,"y":3}},{"name":"b","input_schema":{}}]"#,
            user,
        ),
        (system, tools, r#""hello you""#),
        (
            system,
            tools,
            r#"[{"type":"text","text":"hello  you"},{"type":"text","text":"today is Monday"}]"#,
        ),
    ];
    for (system, tools, user) in changed {
        let refusal = with(system, tools, user).unwrap_err();
        assert!(
            refusal.message.starts_with(
                "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different \
                 conversation"
            ),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_compaction_frees_thinking_from_what_it_replaced() {
    let before = |first: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"{first}"}},
            {{"role":"assistant","content":[{{"type":"compaction","content":"so far"}}]}},{{"role":"user","content":"go on"}}"#
        )
    };
    let signature =
        binding::sign(&Json::parse(format!("{}]}}", before("one")).as_bytes()).unwrap());
    let after = format!(
        r#"{},{{"role":"assistant","content":[{{"type":"thinking","thinking":"t","signature":"{signature}"}}]}}]}}"#,
        before("two")
    );
    binding::check(&Json::parse(after.as_bytes()).unwrap()).unwrap();
}
