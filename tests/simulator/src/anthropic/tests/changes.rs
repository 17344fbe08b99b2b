//! What invalidates what.

use super::{Lab, MARK, block, body};
use crate::json::Json;
use crate::tokens::prose;

/// A request with markers on the tools (about 600 tokens), the system prompt (600) and the message (600).
fn three_levels(tools: &str, system: u64, more: &str) -> String {
    format!(
        r#"{{"tools":[{tools}],"system":[{}],"messages":[{{"role":"user","content":[{}]}}]{more}}}"#,
        block(600, system, MARK),
        block(600, 5, MARK),
    )
}

fn tool(name: &str, mark: &str) -> String {
    // 600 tokens in all, for names of four letters: the frame takes 80 bytes.
    let description = "x".repeat(2400 - 80);
    format!(
        r#"{{"name":"{name}","description":"{description}","input_schema":{{"type":"object"}},"z":"pad12"{mark}}}"#
    )
}

/// Which of the levels tools, system and messages are still read when `after` follows `before`.
fn kept(before: &str, after: &str) -> [bool; 3] {
    let mut lab = Lab::default();
    let [_, _, written, _] = lab.send(before);
    let tools = written - 1200;
    match lab.send(after)[1] {
        0 => [false; 3],
        read if read == tools => [true, false, false],
        read if read == tools + 600 => [true, true, false],
        read if read == written => [true; 3],
        read => panic!("read {read} of {written}"),
    }
}

const ALL: [bool; 3] = [true; 3];
const NOT_MESSAGES: [bool; 3] = [true, true, false];
const TOOLS_ONLY: [bool; 3] = [true, false, false];
const NOTHING: [bool; 3] = [false; 3];

#[test]
fn a_parameter_loses_what_it_changes_and_what_comes_after() {
    let cases = [
        ("", ALL),
        (
            r#","stream":true,"max_tokens":9,"metadata":{},"unknown":1"#,
            ALL,
        ),
        (r#","speed":"fast""#, TOOLS_ONLY),
        (r#","tool_choice":{"type":"any"}"#, NOT_MESSAGES),
        (
            r#","output_config":{"format":{"type":"json_schema"}}"#,
            NOT_MESSAGES,
        ),
        (r#","context_management":{"edits":[]}"#, NOT_MESSAGES),
        (r#","thinking":{"type":"adaptive"}"#, NOTHING),
        (r#","output_config":{"effort":"low"}"#, NOTHING),
    ];
    let tools = tool("Read", MARK);
    for (more, expected) in cases {
        let (before, after) = (three_levels(&tools, 0, ""), three_levels(&tools, 0, more));
        assert_eq!(kept(&before, &after), expected, "{more}");
    }
    let choice = |parallel| {
        let more =
            format!(r#","tool_choice":{{"type":"auto","disable_parallel_tool_use":{parallel}}}"#);
        three_levels(&tools, 0, &more)
    };
    assert_eq!(kept(&choice(false), &choice(true)), NOT_MESSAGES);
}

#[test]
fn a_changed_tool_loses_everything_and_a_changed_system_prompt_keeps_the_tools() {
    let before = three_levels(&tool("Read", MARK), 0, "");
    assert_eq!(
        kept(&before, &three_levels(&tool("Rea2", MARK), 0, "")),
        NOTHING
    );
    assert_eq!(
        kept(&before, &three_levels(&tool("Read", MARK), 1, "")),
        TOOLS_ONLY
    );
    let two = |first, second| format!("{},{}", tool(first, ""), tool(second, MARK));
    let before = three_levels(&two("Grep", "Read"), 0, "");
    assert_eq!(
        kept(&before, &three_levels(&two("Read", "Grep"), 0, "")),
        NOTHING,
        "reordered"
    );
    assert_eq!(
        kept(&before, &three_levels(&tool("Read", MARK), 0, "")),
        NOTHING,
        "removed"
    );
}

#[test]
fn an_added_image_loses_the_messages() {
    let image =
        r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGk="}}"#;
    let mut lab = Lab::default();
    let before = body(&block(600, 0, MARK), &block(600, 5, MARK), "");
    let after = body(
        &block(600, 0, MARK),
        &format!("{},{image}", block(600, 5, MARK)),
        "",
    );
    lab.send(&before);
    assert_eq!(lab.send(&after), [crate::tokens::MEDIA, 600, 600, 0]);
}

#[test]
fn thinking_only_loses_the_messages_on_older_models() {
    let mut lab = Lab::default();
    let request = |more: &str| body(&block(5000, 0, MARK), &block(600, 5, MARK), more);
    lab.send_as(&request(""), "claude-haiku-4-5", "k");
    let thinking = r#","thinking":{"type":"enabled","budget_tokens":1024}"#;
    assert_eq!(
        lab.send_as(&request(thinking), "claude-haiku-4-5", "k"),
        [0, 5000, 600, 0]
    );
}

#[test]
fn thinking_of_older_models_is_dropped_once_the_user_says_something() {
    let thinking = r#"{"type":"thinking","thinking":"Let me see what it is.","signature":"s"}"#;
    let call = r#"{"type":"tool_use","id":"c","name":"read","input":{}}"#;
    let result = r#"{"type":"tool_result","tool_use_id":"c","content":"fine"}"#;
    let request = |after: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":[{}]}},{{"role":"assistant","content":[{thinking},{call}]}},
            {{"role":"user","content":[{result}{after}]}}]}}"#,
            block(5000, 0, MARK)
        )
    };
    // Four bytes are a token: six of thinking, two of the call, one of the result, and one more.
    let more = format!(",{}", block(1, 1, ""));
    for (model, dropped) in [("claude-haiku-4-5", 6), ("claude-sonnet-4-6", 0)] {
        let mut lab = Lab::default();
        let [so_far, ..] = lab.send_as(&request(""), model, "k");
        let [after, read, ..] = lab.send_as(&request(&more), model, "k");
        assert_eq!((read, so_far + 1 - after), (5000, dropped), "{model}");
    }
}

#[test]
fn the_way_of_writing_does_not_matter_but_the_order_of_keys_does() {
    let text = Json::from(prose(600, 0));
    let marked = format!(
        r#"{{"messages":[{{"role":"user","content":[{}]}},{{"role":"assistant","content":"ok"}}]}}"#,
        block(600, 0, MARK)
    );
    let same = [
        format!(
            r#"{{"messages":[{{"role":"user","content":{text}}},{{"role":"assistant","content":[{}]}}]}}"#,
            format_args!(r#"{{"type":"text","text":"ok"{MARK}}}"#)
        ),
        format!(
            r#"{{ "messages" : [ {{ "content": [ {{"text":{text}, "type":"text" {MARK} }} ] , "role":"user" }} ] }}"#
        ),
    ];
    for other in same {
        let mut lab = Lab::default();
        lab.send(&marked);
        assert_eq!(lab.send(&other)[1], 600, "{other}");
    }
    let call = |input: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":[{}]}},{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"Read","input":{input}{MARK}}}]}}]}}"#,
            block(600, 0, "")
        )
    };
    let mut lab = Lab::default();
    lab.send(&call(r#"{"a":1,"b":2}"#));
    assert_eq!(lab.send(&call(r#"{"a": 1, "b": 2}"#))[1], 605);
    assert_eq!(lab.send(&call(r#"{"b":2,"a":1}"#))[1], 0);
}

#[test]
fn the_attribution_block_is_taken_out_where_it_stands_first_and_only_there() {
    let attribution = |n: u32| {
        format!(
            r#"{{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1; cch={n};"}}"#
        )
    };
    let user = block(1, 0, "");
    let first = |n| {
        body(
            &format!("{},{}", attribution(n), block(600, 0, MARK)),
            &user,
            "",
        )
    };
    let second = |n| {
        body(
            &format!(
                "{},{},{}",
                block(5, 0, ""),
                attribution(n),
                block(600, 0, MARK)
            ),
            &user,
            "",
        )
    };
    let mut lab = Lab::default();
    assert_eq!(lab.send(&first(1)), [1, 0, 600, 0]);
    assert_eq!(lab.send(&first(2)), [1, 600, 0, 0]);
    lab.send(&second(1));
    assert_eq!(
        lab.send(&second(2))[1],
        0,
        "in any other place it is part of the prompt"
    );
}
