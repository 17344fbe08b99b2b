//! Why a call read less than it could have: each reason, on pairs of bodies.

use super::super::{CacheRules, Explanation, Made, Reason, Replayed, Seen, Sketch};
use crate::prompt::{self, HashKey};
use crate::usage::Usage;

const KEY: HashKey = HashKey::new(*b"sixteen bytes ok");
const MARKERS: CacheRules = CacheRules::by_markers(true, 512);

fn sketch(body: &str) -> Sketch {
    let prompt = prompt::read(body.as_bytes()).unwrap();
    Sketch::new(body.as_bytes(), &prompt, &KEY)
}

/// Tools, a system prompt and messages, of about 4000 tokens.
fn body(tool: &str, system: &str, messages: &[&str], more: &str) -> String {
    let filler = "Never say more than is known. ".repeat(400);
    let texts = messages.iter().enumerate().map(|(index, text)| {
        let role = if index % 2 == 0 { "user" } else { "assistant" };
        format!(r#"{{"role":"{role}","content":[{{"type":"text","text":"{text}"}}]}}"#)
    });
    let texts: Vec<String> = texts.collect();
    format!(
        r#"{{{more}"tools":[{{"name":"{tool}","input_schema":{{}}}}],"system":[{{"type":"text","text":"{filler}{system}","cache_control":{{"type":"ephemeral"}}}}],"messages":[{}]}}"#,
        texts.join(",")
    )
}

fn made(sketch: Sketch, read: u64, written: u64, sent_ms: i64) -> Made {
    let usage = Usage {
        input: 4000_u64.saturating_sub(read).saturating_sub(written),
        cache_read: read,
        cache_write: written,
        ..Usage::default()
    };
    Made {
        sketch,
        usage,
        sent_ms,
        answered_ms: sent_ms.saturating_add(500),
    }
}

/// What is said of a call that read `read` tokens, a second after one that wrote all of its 4000.
fn explained(before: &str, after: &str, read: u64) -> Explanation {
    let mut seen = Seen::default();
    seen.explain(1, made(sketch(before), 0, 4000, 0), MARKERS);
    seen.explain(1, made(sketch(after), read, 0, 1000), MARKERS)
}

#[test]
fn what_changed_first_in_cache_order_is_the_reason() {
    let long = "x".repeat(100);
    let before = body("Read", "It is 09:14:07.", &["Go on.", "Yes."], "");
    let cases = [
        (
            body("Grep", "It is 09:15:09.", &["Go on.", "Yes."], ""),
            Reason::ToolsChanged,
            "tools[0]+0",
        ),
        (
            body("Read", "It is 09:15:09.", &["Go on.", "Yes."], ""),
            Reason::SystemChanged,
            "system[0]+12009",
        ),
        (
            body("Read", "It is 09:14:07.", &["Go on!", "Yes."], ""),
            Reason::MessagesChanged,
            "messages[0][0]+0",
        ),
        (
            body("Read", "It is 09:14:07.", &["Go on.", &long], ""),
            Reason::MessagesChanged,
            "messages[1][0]+0",
        ),
        (
            body(
                "Read",
                "It is 09:15:09.",
                &["Go on.", "Yes."],
                r#""thinking":{"type":"adaptive"},"#,
            ),
            Reason::ParameterChanged,
            "thinking",
        ),
        (
            body(
                "Read",
                "It is 09:14:07.",
                &["Go on.", "Yes."],
                r#""tool_choice":{"type":"any"},"#,
            ),
            Reason::ParameterChanged,
            "tool_choice",
        ),
    ];
    for (after, reason, place) in cases {
        let explanation = explained(&before, &after, 0);
        assert_eq!(explanation.reason, Some(reason), "{place}");
        assert_eq!(explanation.place.as_deref(), Some(place), "{reason:?}");
    }
}

#[test]
fn the_piece_that_differs_is_found_in_the_body_that_was_sent() {
    let before = body("Read", "It is 09:14:07.", &["Go on."], "");
    let after = body("Read", "It is 09:15:09.", &["Go on."], "");
    let parting = explained(&before, &after, 0).parting.unwrap();
    let prompt = prompt::read(after.as_bytes()).unwrap();
    let segment = prompt.segments.get(parting.segment).unwrap();
    let found = after.get(segment.range.clone()).unwrap();
    let piece = found.get(parting.bytes.clone()).unwrap();
    assert!(piece.len() <= 32 && piece.contains("5:09"), "{piece:?}");
}

#[test]
fn another_conversation_with_the_same_answers_is_not_the_one_before() {
    for (first, other_first) in [("South?", "North?"), ("Go on.", "Go on.")] {
        let start = |place, question, more: &[&str]| {
            sketch(&body("Read", place, &[&[question], more].concat(), ""))
        };
        let scripted = ["OK", "Next.", "OK", "And then?", "OK"];
        let north = start("North", other_first, &scripted);
        let south = start("South", first, &[]);
        let mut seen = Seen::default();
        seen.explain(1, made(south, 0, 4000, 0), MARKERS);
        seen.explain(1, made(north, 0, 4000, 1000), MARKERS);
        let next = start("South", first, &["OK", "Next."]);
        let explanation = seen.explain(1, made(next, 0, 0, 2000), MARKERS);
        assert_eq!(explanation.reason, Some(Reason::Provider), "{first}");
        assert_eq!(explanation.expected_tokens, Some(4000), "{first}");
    }
}

#[test]
fn a_prompt_that_only_grew_has_another_reason() {
    let before = body("Read", "", &["Go on."], "");
    let after = body("Read", "", &["Go on.", "Yes.", "And then?"], "");
    assert_eq!(explained(&before, &after, 4000).reason, None, "a hit");
    assert_eq!(explained(&before, &after, 0).reason, Some(Reason::Provider));
    let explain = |first: Made, second: Made, rules| {
        let mut seen = Seen::default();
        seen.explain(1, first, rules);
        seen.explain(1, second, rules).reason
    };
    let (first, second) = (sketch(&before), sketch(&after));
    let late = made(second.clone(), 0, 4000, 301_000);
    assert_eq!(
        explain(made(first.clone(), 0, 4000, 0), late, MARKERS),
        Some(Reason::LifetimeElapsed)
    );
    let at_once = made(second.clone(), 0, 4000, 400);
    assert_eq!(
        explain(made(first.clone(), 0, 4000, 0), at_once, MARKERS),
        Some(Reason::NotWrittenYet)
    );
    let partly = made(second.clone(), 2000, 0, 1000);
    assert_eq!(
        explain(made(first.clone(), 0, 2000, 0), partly, MARKERS),
        Some(Reason::TooFewBreakpoints)
    );
    let never = CacheRules::by_markers(false, 512);
    assert_eq!(
        explain(
            made(first.clone(), 0, 0, 0),
            made(second.clone(), 0, 0, 1000),
            never
        ),
        Some(Reason::NoBreakpoint)
    );
    let short = CacheRules::by_markers(true, 4096);
    assert_eq!(
        explain(made(first, 0, 0, 0), made(second, 0, 0, 1000), short),
        Some(Reason::BelowMinimum)
    );
}

#[test]
fn where_it_went_and_who_pays_come_before_what_it_says() {
    let prompt = sketch(&body("Read", "", &["Go on."], ""));
    let reason = |change: fn(&mut Sketch)| {
        let mut other = prompt.clone();
        change(&mut other);
        let mut seen = Seen::default();
        seen.explain(1, made(prompt.clone(), 0, 4000, 0), MARKERS);
        seen.explain(1, made(other, 0, 0, 1000), MARKERS).reason
    };
    assert_eq!(
        reason(|sketch| sketch.account = 1),
        Some(Reason::OtherAccount)
    );
    assert_eq!(reason(|sketch| sketch.route = 1), Some(Reason::OtherRoute));
    assert_eq!(
        reason(|sketch| sketch.model = 1),
        Some(Reason::ModelChanged)
    );
    assert_eq!(
        reason(|sketch| sketch.cache_key = 1),
        Some(Reason::CacheKeyChanged)
    );
}

#[test]
fn what_was_written_is_out_of_reach_after_twenty_positions() {
    let marked = |texts: usize| {
        let text = r#"{"type":"text","text":"more"}"#;
        let texts = [text].repeat(texts).join(",");
        let filler = "word ".repeat(600);
        format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"{filler}"}},{texts},{{"type":"text","text":"end","cache_control":{{"type":"ephemeral"}}}}]}}]}}"#
        )
    };
    // The marked block of the first call is like any other in the second.
    let before = marked(1).replace("\"end\"", "\"more\"");
    for (texts, expected) in [(20, Reason::Provider), (21, Reason::BeyondLookBack)] {
        assert_eq!(
            explained(&before, &marked(texts), 0).reason,
            Some(expected),
            "{texts}"
        );
    }
}

#[test]
fn another_conversation_shares_what_stands_before_its_messages() {
    let before = body("Read", "It is nine.", &["Go on.", "Yes.", "Well."], "");
    let same = body("Read", "It is nine.", &["What is a weir?"], "");
    let other = body("Read", "It is ten.", &["What is a weir?"], "");
    assert_eq!(explained(&before, &same, 3990).reason, None);
    let explanation = explained(&before, &other, 0);
    assert_eq!(explanation.reason, Some(Reason::SystemChanged));
    assert!(
        explanation
            .expected_tokens
            .is_some_and(|tokens| (3900..4000).contains(&tokens))
    );
}

#[test]
fn memory_is_bounded_by_families_and_calls() {
    let mut seen = Seen::default();
    let one = sketch(r#"{"messages":[{"role":"user","content":"a"}]}"#);
    for family in 0..1000 {
        seen.explain(family, made(one.clone(), 0, 0, 0), MARKERS);
    }
    for number in 0..100 {
        let other = sketch(&format!(
            r#"{{"messages":[{{"role":"user","content":"{number}"}}]}}"#
        ));
        seen.explain(999, made(other, 0, 0, 0), MARKERS);
    }
    assert_eq!(
        seen.size(),
        (super::super::FAMILIES_MAX, super::super::CALLS_MAX)
    );
}

#[test]
fn what_the_provider_takes_out_is_no_reason_and_is_replayed_without() {
    let header = |cch: &str| {
        let header =
            format!(r#"{{"type":"text","text":"x-anthropic-billing-header: cch={cch};"}},"#);
        let system = format!(r#""system":[{header}"#);
        body("Read", "", &["Go on."], "").replace(r#""system":["#, &system)
    };
    let (before, after) = (header("00001"), header("00002"));
    let changed = explained(&before, &after, 0);
    assert_eq!(changed.place.as_deref(), Some("system[0]+9"));
    let [before, after] = [before, after].map(|body| {
        let mut sketch = sketch(&body);
        sketch.take_out(1);
        sketch
    });
    let mut seen = Seen::default();
    seen.explain(1, made(before.clone(), 0, 4000, 0), MARKERS);
    let explanation = seen.explain(1, made(after.clone(), 0, 0, 1000), MARKERS);
    assert_eq!(explanation.reason, Some(Reason::Provider));
    assert_eq!(seen.size(), (1, 1), "one conversation");
    let mut replayed = Replayed::default();
    let mut send =
        |sketch: &Sketch, now_ms| replayed.send(sketch, 4000, &Usage::default(), MARKERS, now_ms);
    let written = send(&before, 0).cache_write;
    assert_eq!(send(&after, 1000).cache_read, written);
}

#[test]
fn a_replay_reads_what_would_have_been_written() {
    let mut replayed = Replayed::default();
    let mut send = |body: &str, tokens: u64, rules, now_ms| {
        let usage = replayed.send(&sketch(body), tokens, &Usage::default(), rules, now_ms);
        (usage.input, usage.cache_read, usage.cache_write)
    };
    let first = body("Read", "It is [time].", &["Go on."], "");
    let second = body(
        "Read",
        "It is [time].",
        &["Go on.", "Yes.", "And then?"],
        "",
    );
    let (rest, read, written) = send(&first, 4000, MARKERS, 0);
    assert_eq!((read, rest + written), (0, 4000));
    assert!(
        (3900..4000).contains(&written),
        "up to the marker of the system prompt: {written}"
    );
    let (_, read, _) = send(&second, 4020, MARKERS, 1000);
    assert!(read.abs_diff(written) < 20, "{read} of {written}");
    let (_, read, _) = send(&second, 4020, MARKERS, 1000 + 300_000);
    assert_eq!(read, 0, "five minutes later it is gone");
    let automatic = CacheRules::automatic(false, 1024);
    let (_, read, written) = send(&second, 4020, automatic, 400_000);
    assert_eq!(
        (read % 128, written),
        (0, 0),
        "blocks, and nothing is billed as written"
    );
}

#[test]
fn the_provider_is_believed_and_a_place_is_kept_where_both_agree() {
    let before = body("Read", "It is 09:14:07.", &["Go on.", "Yes."], "");
    let after = body("Read", "It is 09:15:09.", &["Go on.", "Yes."], "");
    let ours = explained(&before, &after, 0);
    assert_eq!(ours.reason, Some(Reason::SystemChanged));
    let said = |word: &str| {
        let mut explanation = ours.clone();
        if let Some(reason) = Reason::of_provider(word) {
            explanation.believe(reason);
        }
        (explanation.reason, explanation.place.is_some())
    };
    assert_eq!(said("system_changed"), (Some(Reason::SystemChanged), true));
    assert_eq!(said("tools_changed"), (Some(Reason::ToolsChanged), false));
    assert_eq!(
        said("service_tier_changed"),
        (Some(Reason::ParameterChanged), false)
    );
    for nothing in ["unavailable", "previous_message_not_found", ""] {
        assert_eq!(said(nothing), (Some(Reason::SystemChanged), true));
    }
}
