//! OpenAI's cache rules, for models with breakpoints and for those before.

use std::time::Duration;

use super::cache::{BLOCK, Cache};
use super::prompt::Prompt;
use super::wish;
use crate::json::Json;
use crate::models::{Provider, find};
use crate::tokens::prose;

/// A cache and a time.
#[derive(Default)]
struct Lab {
    cache: Cache,
    now: Duration,
}

impl Lab {
    /// Sends a Chat Completions request and gives uncached, read, written for 30 minutes, written for 12 hours.
    fn chat(&mut self, model: &str, body: &str) -> [u64; 4] {
        self.send(model, body, |body, model| Prompt::chat(body, model, "k"))
    }

    fn responses(&mut self, model: &str, body: &str) -> [u64; 4] {
        self.send(model, body, |body, model| {
            Prompt::responses(body, &[], model, "k")
        })
    }

    fn send(
        &mut self,
        model: &str,
        body: &str,
        render: impl Fn(&Json, &crate::models::Model) -> Prompt,
    ) -> [u64; 4] {
        let model = find(Provider::OpenAi, model).unwrap();
        let body = Json::parse(body.as_bytes()).expect(body);
        let prompt = render(&body, model);
        let plan = self
            .cache
            .plan(&prompt, model, wish(&body, model, true).unwrap(), self.now);
        self.cache.commit(&plan, self.now);
        let usage = plan.usage;
        assert_eq!(usage.prompt(), prompt.tokens());
        [
            usage.input_uncached,
            usage.cache_read,
            usage.cache_write_short,
            usage.cache_write_long,
        ]
    }
}

fn message(role: &str, tokens: u64, n: u64, more: &str) -> String {
    let text = Json::from(prose(tokens, n));
    format!(r#"{{"role":"{role}","content":[{{"type":"text","text":{text}{more}}}]}}"#)
}

fn chat(messages: &[String], more: &str) -> String {
    format!(r#"{{"messages":[{}]{more}}}"#, messages.join(","))
}

const MARK: &str = r#","prompt_cache_breakpoint":{"mode":"explicit"}"#;

#[test]
fn before_breakpoints_the_cache_works_by_blocks_of_128_tokens_from_1024_on() {
    for (tokens, read) in [
        (1023, 0),
        (1024, 1024),
        (1151, 1024),
        (1152, 1152),
        (3000, 2944),
    ] {
        let mut lab = Lab::default();
        let body = chat(&[message("user", tokens, 0, "")], "");
        assert_eq!(lab.chat("gpt-5.5", &body), [tokens, 0, 0, 0]);
        assert_eq!(
            lab.chat("gpt-5.5", &body),
            [tokens - read, read, 0, 0],
            "{tokens}"
        );
        assert_eq!(read % BLOCK, 0);
    }
}

#[test]
fn before_breakpoints_any_common_prefix_is_read() {
    let mut lab = Lab::default();
    let body = |n| {
        chat(
            &[message("system", 1500, 0, ""), message("user", 100, n, "")],
            "",
        )
    };
    lab.chat("gpt-5.5", &body(1));
    assert_eq!(lab.chat("gpt-5.5", &body(2)), [1600 - 1408, 1408, 0, 0]);
    lab.now += Duration::from_hours(24);
    assert_eq!(lab.chat("gpt-5.5", &body(2))[1], 0, "kept for 24 hours");
}

#[test]
fn tools_come_before_instructions() {
    let mut lab = Lab::default();
    let tool = format!(
        r#"{{"type":"function","name":"Read","description":"{}"}}"#,
        "x".repeat(6000)
    );
    let body = |n| {
        let instructions = Json::from(prose(500, n));
        format!(r#"{{"tools":[{tool}],"instructions":{instructions},"input":"hi"}}"#)
    };
    lab.responses("gpt-5.5", &body(0));
    assert_eq!(
        lab.responses("gpt-5.5", &body(1))[1],
        1408,
        "the tools are still there"
    );
}

#[test]
fn with_breakpoints_the_whole_prompt_is_written_and_read_to_the_token() {
    let mut lab = Lab::default();
    let question = message("user", 1100, 0, "");
    let answer = message("assistant", 50, 3, "");
    assert_eq!(
        lab.chat("gpt-6-sol", &chat(&[message("user", 1023, 0, "")], "")),
        [1023, 0, 0, 0]
    );
    assert_eq!(
        lab.chat("gpt-6-sol", &chat(std::slice::from_ref(&question), "")),
        [0, 0, 1100, 0]
    );
    assert_eq!(
        lab.chat("gpt-6-sol", &chat(std::slice::from_ref(&question), "")),
        [0, 1100, 0, 0]
    );
    let longer = [question, answer, message("user", 10, 1, "")];
    assert_eq!(lab.chat("gpt-6-sol", &chat(&longer, "")), [0, 1100, 60, 0]);
}

#[test]
fn with_breakpoints_a_shared_system_prompt_is_read_only_if_it_is_marked() {
    for (mark, read) in [("", 0), (MARK, 1500)] {
        let mut lab = Lab::default();
        let body = |n| {
            chat(
                &[
                    message("system", 1500, 0, mark),
                    message("user", 100, n, ""),
                ],
                "",
            )
        };
        assert_eq!(lab.chat("gpt-6-sol", &body(1)), [0, 0, 1600, 0]);
        assert_eq!(lab.chat("gpt-6-sol", &body(2)), [0, read, 1600 - read, 0]);
    }
}

#[test]
fn in_explicit_mode_only_marks_count_and_the_latest_four_are_written() {
    let explicit = r#","prompt_cache_options":{"mode":"explicit"}"#;
    let mut lab = Lab::default();
    let unmarked = chat(&[message("user", 2000, 0, "")], explicit);
    assert_eq!(
        [
            lab.chat("gpt-6-sol", &unmarked),
            lab.chat("gpt-6-sol", &unmarked)
        ],
        [[2000, 0, 0, 0]; 2]
    );

    let marked = |count: u64| -> Vec<String> {
        (0..count).map(|n| message("user", 1100, n, MARK)).collect()
    };
    assert_eq!(
        lab.chat("gpt-6-sol", &chat(&marked(5), explicit)),
        [0, 0, 5500, 0]
    );
    assert_eq!(
        lab.chat("gpt-6-sol", &chat(&marked(2), explicit)),
        [0, 2200, 0, 0]
    );
    let mut lab = Lab::default();
    lab.chat("gpt-6-sol", &chat(&marked(5), explicit));
    assert_eq!(
        lab.chat("gpt-6-sol", &chat(&marked(1), explicit)),
        [0, 0, 1100, 0],
        "the first of five"
    );
}

#[test]
fn lifetimes_and_what_else_is_part_of_the_key() {
    let base = r#""prompt_cache_key":"a","reasoning":{"effort":"low"}"#;
    let body = |more: &str| {
        let text = Json::from(prose(1100, 0));
        format!(r#"{{"input":{text},{more}}}"#)
    };
    let cases = [
        ("nothing", "gpt-6-sol", base, 0, 1100),
        ("29 minutes", "gpt-6-sol", base, 29, 1100),
        ("30 minutes", "gpt-6-sol", base, 30, 0),
        (
            "cache key",
            "gpt-6-sol",
            r#""prompt_cache_key":"b","reasoning":{"effort":"low"}"#,
            0,
            0,
        ),
        (
            "effort",
            "gpt-6-sol",
            r#""prompt_cache_key":"a","reasoning":{"effort":"high"}"#,
            0,
            0,
        ),
        (
            "verbosity",
            "gpt-6-sol",
            r#""prompt_cache_key":"a","reasoning":{"effort":"low"},"text":{"verbosity":"low"}"#,
            0,
            0,
        ),
        (
            "tier",
            "gpt-6-sol",
            r#""prompt_cache_key":"a","reasoning":{"effort":"low"},"service_tier":"flex""#,
            0,
            0,
        ),
        (
            "limit and stream",
            "gpt-6-sol",
            r#""prompt_cache_key":"a","reasoning":{"effort":"low"},"stream":true,"max_output_tokens":7"#,
            0,
            1100,
        ),
        (
            "effort, older",
            "gpt-5.5",
            r#""prompt_cache_key":"a","reasoning":{"effort":"high"}"#,
            0,
            1024,
        ),
        (
            "cache key, older",
            "gpt-5.5",
            r#""prompt_cache_key":"b""#,
            0,
            0,
        ),
    ];
    for (what, model, more, minutes, read) in cases {
        let mut lab = Lab::default();
        lab.responses(model, &body(base));
        lab.now += Duration::from_mins(minutes);
        assert_eq!(lab.responses(model, &body(more))[1], read, "{what}");
    }
    let long = body(r#""prompt_cache_options":{"ttl":"12h"}"#);
    let mut lab = Lab::default();
    assert_eq!(lab.responses("gpt-6.1-sol", &long), [0, 0, 0, 1100]);
    lab.now += Duration::from_hours(11);
    assert_eq!(lab.responses("gpt-6.1-sol", &long), [0, 1100, 0, 0]);
}

#[test]
fn cache_options_that_are_not_on_offer_are_refused() {
    let cases = [
        (
            "gpt-5.5",
            r#"{"prompt_cache_options":{"mode":"implicit"}}"#,
            true,
            false,
        ),
        (
            "gpt-6-sol",
            r#"{"prompt_cache_options":{"mode":"implicit","ttl":"30m"}}"#,
            false,
            true,
        ),
        (
            "gpt-6-sol",
            r#"{"prompt_cache_options":{"ttl":"12h"}}"#,
            false,
            false,
        ),
        (
            "gpt-6-sol",
            r#"{"prompt_cache_options":{"ttl":"12h"}}"#,
            true,
            true,
        ),
        (
            "gpt-6-sol",
            r#"{"prompt_cache_options":{"ttl":"1h"}}"#,
            true,
            false,
        ),
    ];
    for (model, body, long_allowed, accepted) in cases {
        let model = find(Provider::OpenAi, model).unwrap();
        let body = Json::parse(body.as_bytes()).unwrap();
        assert_eq!(wish(&body, model, long_allowed).is_ok(), accepted, "{body}");
    }
}
