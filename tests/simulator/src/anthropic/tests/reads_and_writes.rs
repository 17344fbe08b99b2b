//! What a prompt reads and writes, how far back it looks, and for how long.

use std::time::Duration;

use super::super::cache::LOOK_BACK;
use super::super::prompt::Prompt;
use super::{Lab, MARK, MARK_1H, block, body, buckets};
use crate::json::Json;
use crate::models::{Provider, find};

#[test]
fn a_marked_prefix_is_written_once_and_then_read() {
    let mut lab = Lab::default();
    let first = body(&block(600, 0, MARK), &block(10, 1, ""), "");
    let second = body(&block(600, 0, MARK), &block(20, 2, ""), "");
    assert_eq!(lab.send(&first), [10, 0, 600, 0]);
    assert_eq!(lab.send(&first), [10, 600, 0, 0]);
    assert_eq!(
        lab.send(&second),
        [20, 600, 0, 0],
        "another question reads the same system prompt"
    );
}

#[test]
fn what_changes_behind_a_breakpoint_is_written_again_and_the_rest_is_read() {
    let mut lab = Lab::default();
    let with_user = |n| body(&block(600, 0, MARK), &block(200, n, MARK), "");
    assert_eq!(lab.send(&with_user(1)), [0, 0, 800, 0]);
    assert_eq!(lab.send(&with_user(2)), [0, 600, 200, 0]);
    assert_eq!(lab.send(&with_user(1)), [0, 800, 0, 0]);
}

#[test]
fn prefixes_below_the_minimum_of_the_model_are_not_cached() {
    let cases = [
        ("claude-opus-5-5", 511, [512, 0, 0, 0], [512, 0, 0, 0]),
        ("claude-opus-5-5", 512, [1, 0, 512, 0], [1, 512, 0, 0]),
        ("claude-haiku-4-5", 4095, [4096, 0, 0, 0], [4096, 0, 0, 0]),
        ("claude-haiku-4-5", 4096, [1, 0, 4096, 0], [1, 4096, 0, 0]),
    ];
    for (model, tokens, first, second) in cases {
        let mut lab = Lab::default();
        let body = body(&block(tokens, 0, MARK), &block(1, 0, ""), "");
        assert_eq!(lab.send_as(&body, model, "k"), first, "{model} {tokens}");
        assert_eq!(lab.send_as(&body, model, "k"), second, "{model} {tokens}");
    }
}

#[test]
fn without_a_marker_nothing_is_cached() {
    let mut lab = Lab::default();
    let body = body(&block(6000, 0, ""), &block(10, 1, ""), "");
    assert_eq!([lab.send(&body), lab.send(&body)], [[6010, 0, 0, 0]; 2]);
}

#[test]
fn the_top_level_marker_follows_a_growing_conversation() {
    let mut lab = Lab::default();
    let turns = |messages: &str| {
        let system = block(600, 0, "");
        format!(
            r#"{{"cache_control":{{"type":"ephemeral"}},"system":[{system}],"messages":[{messages}]}}"#
        )
    };
    let first = format!(r#"{{"role":"user","content":[{}]}}"#, block(10, 1, ""));
    let answer = format!(r#"{{"role":"assistant","content":[{}]}}"#, block(20, 2, ""));
    assert_eq!(lab.send(&turns(&first)), [0, 0, 610, 0]);
    assert_eq!(
        lab.send(&turns(&format!("{first},{answer},{first}"))),
        [0, 610, 30, 0]
    );
    assert_eq!(
        lab.send(&turns(&format!(
            "{first},{answer},{first},{answer},{first}"
        ))),
        [0, 640, 30, 0]
    );
}

#[test]
fn a_breakpoint_looks_back_over_twenty_positions_its_own_included() {
    for (added, expected) in [
        (LOOK_BACK - 1, [0, 600, 19, 0]),
        // One block more, and what was written is out of reach although nothing before it changed.
        (LOOK_BACK, [0, 0, 620, 0]),
    ] {
        let mut lab = Lab::default();
        assert_eq!(
            lab.send(&body("", &block(600, 0, MARK), "")),
            [0, 0, 600, 0]
        );
        let mut blocks = vec![block(600, 0, "")];
        blocks.extend((1..added as u64).map(|n| block(1, n, "")));
        blocks.push(block(1, 0, MARK));
        assert_eq!(
            lab.send(&body("", &blocks.join(","), "")),
            expected,
            "{added} blocks added"
        );
    }
}

#[test]
fn a_run_of_tool_calls_or_results_is_one_position() {
    let mut lab = Lab::default();
    let first = format!(r#"{{"role":"user","content":[{}]}}"#, block(600, 0, MARK));
    let calls: Vec<String> = (0..30)
        .map(|n| format!(r#"{{"type":"tool_use","id":"t{n}","name":"Read","input":{{}}}}"#))
        .collect();
    let results: Vec<String> = (0..30)
        .map(|n| {
            let mark = if n == 29 { MARK } else { "" };
            format!(r#"{{"type":"tool_result","tool_use_id":"t{n}","content":"okay"{mark}}}"#)
        })
        .collect();
    let (calls, results) = (calls.join(","), results.join(","));
    let second = format!(
        r#"{{"messages":[{first},{{"role":"assistant","content":[{calls}]}},{{"role":"user","content":[{results}]}}]}}"#
    );
    lab.send(&format!(r#"{{"messages":[{first}]}}"#));
    assert_eq!(lab.send(&second), [0, 600, 30 * 2 + 30, 0]);
}

#[test]
fn an_entry_lives_for_its_lifetime_after_it_was_last_used() {
    for (mark, minutes) in [(MARK, 5), (MARK_1H, 60)] {
        let mut lab = Lab::default();
        let body = body(&block(600, 0, mark), &block(1, 0, ""), "");
        let just_before = Duration::from_mins(minutes).saturating_sub(Duration::from_millis(1));
        lab.send(&body);
        for _ in 0..3 {
            lab.now += just_before;
            assert_eq!(
                lab.send(&body),
                [1, 600, 0, 0],
                "{minutes} minutes: refreshed by each read"
            );
        }
        lab.now += Duration::from_mins(minutes);
        assert_eq!(lab.send(&body)[1], 0, "{minutes} minutes: gone");
    }
}

#[test]
fn writes_are_billed_by_the_lifetime_of_their_breakpoint() {
    let mut lab = Lab::default();
    let body = body(&block(600, 0, MARK_1H), &block(200, 1, MARK), "");
    assert_eq!(lab.send(&body), [0, 0, 200, 600]);
    lab.now += Duration::from_mins(30);
    assert_eq!(
        lab.send(&body),
        [0, 600, 200, 0],
        "the message is gone, the system prompt is not"
    );
}

#[test]
fn callers_in_parallel_all_pay_until_the_first_answer_starts() {
    let lab = Lab::default();
    let body = Json::parse(body(&block(600, 0, MARK), &block(1, 0, ""), "").as_bytes()).unwrap();
    let model = find(Provider::Anthropic, "claude-opus-5-5").unwrap();
    let prompt = Prompt::render(&body, model, "k").unwrap();
    let mut cache = lab.cache;
    let plans = [0; 3].map(|_| cache.plan(&prompt, 512, lab.now));
    assert!(
        plans
            .iter()
            .all(|plan| buckets(&plan.usage) == [1, 0, 600, 0]),
        "{plans:?}"
    );
    cache.commit(&plans[0], lab.now);
    assert_eq!(
        buckets(&cache.plan(&prompt, 512, lab.now).usage),
        [1, 600, 0, 0]
    );
}

#[test]
fn a_cache_belongs_to_an_account_and_a_model() {
    let mut lab = Lab::default();
    let body = body(&block(600, 0, MARK), &block(1, 0, ""), "");
    lab.send_as(&body, "claude-opus-5-5", "one");
    assert_eq!(lab.send_as(&body, "claude-opus-5-5", "two"), [1, 0, 600, 0]);
    assert_eq!(
        lab.send_as(&body, "claude-sonnet-5-5", "one"),
        [1, 0, 600, 0]
    );
    assert_eq!(lab.send_as(&body, "claude-opus-5-5", "one"), [1, 600, 0, 0]);
}
