//! What is said of requests and configurations.

use super::explain::Explained;
use super::target::Target;
use super::{check, explain};

const TIME: &str = "The current time is 2026-06-09T10:00:00Z.";

/// An agent's rules, longer than the minimum of any provider.
fn rules() -> String {
    "Say what you do before you do it. ".repeat(200)
}

fn messages(system: &str) -> String {
    let rules = rules();
    format!(
        r#"{{"model":"claude-opus-5-5","tools":[{{"name":"Read","input_schema":{{}}}}],
        "system":[{{"type":"text","text":"{system} {rules}","cache_control":{{"type":"ephemeral"}}}}],
        "messages":[{{"role":"user","content":"hi"}}]}}"#
    )
}

fn explained(body: &str, host: Option<&str>, path: Option<&str>) -> anyhow::Result<Explained> {
    explain::explain(
        &Target::of(body.as_bytes(), host, path)?,
        "",
        body.as_bytes(),
    )
}

fn printed(explained: &Explained) -> String {
    let mut text = Vec::new();
    explained.print(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn names(edits: &[explain::Made]) -> Vec<&str> {
    edits.iter().map(|edit| edit.rule.as_str()).collect()
}

#[test]
fn a_request_is_explained_by_segments_spans_and_edits() {
    let explained = explained(&messages(TIME), None, None).unwrap();
    let segments = explained.segments.iter();
    let places: Vec<_> = segments.map(|shown| shown.place.as_str()).collect();
    assert_eq!(places, ["tools[0]", "system[0]", "messages[0][0]"]);
    assert_eq!(
        (explained.breakpoints, explained.segments[1].breakpoint),
        (1, true)
    );
    let span = explained.spans.first().unwrap();
    assert_eq!(
        (span.value.as_str(), span.place.as_str()),
        ("2026-06-09T10:00:00Z", "system[0]")
    );
    assert_eq!(names(&explained.edits), ["current-time", "context-values"]);
    assert_eq!(explained.edits[0].was, "2026-06-09T10:00:00Z");
    assert_eq!(names(&explained.edits_if_sent_lately), [""; 0]);
    let text = printed(&explained);
    for expected in [
        "messages at api.anthropic.com for claude-opus-5-5\n",
        "what mode = \"rewrite\" would edit:\n",
        "2026-06-09T10:00:00Z → [see <current-time> in <context_values>]\n",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 140),
        "{text}"
    );
}

#[test]
fn breakpoints_are_shown_with_what_they_depend_on() {
    let body = messages(TIME).replace(r#","cache_control":{"type":"ephemeral"}"#, "");
    let explained = explained(&body, None, None).unwrap();
    assert_eq!(names(&explained.edits), ["current-time", "context-values"]);
    assert_eq!(names(&explained.edits_if_sent_lately), ["cache-breakpoint"]);
    assert!(printed(&explained).contains("sent less than five minutes before:\n"));
}

#[test]
fn the_block_by_which_claude_code_says_who_it_is_is_left_alone_at_anthropic_only() {
    let first = r#"{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330.a4f; cc_entrypoint=cli; cch=4fc1a;"},"#;
    let body = messages(TIME).replacen(r#""system":["#, &format!(r#""system":[{first}"#), 1);
    let there = explained(&body, None, None).unwrap();
    assert!(there.segments[1].left_alone, "{there:?}");
    assert_eq!(names(&there.edits), ["current-time", "context-values"]);
    assert!(printed(&there).contains("left alone"));

    let elsewhere = explained(&body, Some("openrouter.ai"), None).unwrap();
    assert!(!elsewhere.segments[1].left_alone, "{elsewhere:?}");
    assert_eq!(names(&elsewhere.edits)[0], "billing");
}

#[test]
fn where_a_request_goes_is_told_by_its_shape() {
    let rules = rules();
    let system = format!("{TIME} {rules}");
    let chat = |model: &str| {
        format!(
            r#"{{"model":"{model}","messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"hi"}}],"provider":{{"order":["anthropic"]}}}}"#
        )
    };
    let responses = format!(r#"{{"model":"gpt-6.1-sol","instructions":"{system}","input":"hi"}}"#);
    let gemini = format!(
        r#"{{"systemInstruction":{{"parts":[{{"text":"{system}"}}]}},"contents":[{{"role":"user","parts":[{{"text":"hi"}}]}}]}}"#
    );
    let converse = format!(
        r#"{{"system":[{{"text":"{system}"}}],"messages":[{{"role":"user","content":[{{"text":"hi"}}]}}]}}"#
    );
    let cases = [
        (
            &chat("gpt-6-sol"),
            "api.openai.com",
            "chat_completions",
            "prompt-cache-key",
        ),
        (
            &chat("anthropic/claude-sonnet-4.5"),
            "openrouter.ai",
            "chat_completions",
            "provider-order",
        ),
        (
            &responses,
            "api.openai.com",
            "responses",
            "prompt-cache-key",
        ),
        (
            &gemini,
            "generativelanguage.googleapis.com",
            "generate_content",
            "current-time",
        ),
        (
            &converse,
            "bedrock-runtime.us-east-1.amazonaws.com",
            "converse",
            "current-time",
        ),
    ];
    for (body, host, api, more) in cases {
        let explained = explained(body, None, None).unwrap();
        assert_eq!((explained.host.as_str(), explained.api), (host, api));
        let names = names(&explained.edits);
        for expected in ["current-time", "context-values", more] {
            assert!(names.contains(&expected), "{expected}: {explained:?}");
        }
    }
    let unnamed = explained(&converse, None, None).unwrap();
    assert!(printed(&unnamed).contains("a model that --path would name"));
    assert_eq!(names(&unnamed.edits_if_sent_lately), [""; 0]);
    let path = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/converse";
    let named = explained(&converse, None, Some(path)).unwrap();
    assert_eq!(names(&named.edits_if_sent_lately), ["cache-breakpoint"]);
}

#[test]
fn a_request_that_is_not_edited_says_why() {
    let calm = explained(&messages("Be brief."), None, None).unwrap();
    assert_eq!(
        (calm.edits.len(), calm.withheld),
        (0, Some("nothing_found"))
    );
    let short = messages(TIME).replace(&rules(), "");
    let short = explained(&short, None, None).unwrap();
    assert_eq!(
        (short.edits.len(), short.withheld),
        (0, Some("below_minimum"))
    );
    assert!(printed(&short).contains("nothing shorter than 512 tokens"));
}

#[test]
fn a_file_that_is_no_request_is_refused_with_what_it_is() {
    for (body, expected) in [
        ("", "a JSON object"),
        ("{\"model\":\"x\",\"messages\":[", "column 25"),
        ("[1]", "found an array"),
        ("{}", "found an empty object"),
        (
            "{\"id\":\"msg_1\",\"usage\":{}}",
            "found the members id, usage",
        ),
        ("{\"messages\":3}", "messages"),
    ] {
        let error = format!("{:#}", explained(body, None, None).unwrap_err());
        assert!(error.contains(expected), "{body}: {error}");
    }
    let error = explained(&messages(TIME), Some("api.openai.com"), Some("/v1/models"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("say which with --path"), "{error}");
}

#[test]
fn a_rule_of_the_configuration_finds_what_the_built_in_ones_do_not_know() {
    let body = messages("Ticket: ABC-17.");
    let ticket = "[[rule]]\nname = \"ticket\"\nhints = [\"ticket:\"]\n\
                  pattern = 'Ticket: (?<value>[A-Z]+-[0-9]+)'\n";
    let found = |rules| {
        let target = Target::of(body.as_bytes(), None, None).unwrap();
        let explained = explain::explain(&target, rules, body.as_bytes()).unwrap();
        let spans = explained.spans.into_iter();
        spans
            .map(|span| (span.rule, span.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(""), []);
    assert_eq!(found(ticket), [("ticket".to_owned(), "ABC-17".to_owned())]);
}

#[test]
fn a_configuration_is_said_in_words_or_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.toml");
    let say = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut out = Vec::new();
        check(&file, &mut out).map(|_| String::from_utf8(out).unwrap())
    };
    let said = say(
        "[cache]\nmode = \"rewrite\"\n[fees]\n\"openrouter.ai\" = 5.5\n\
         [[cap]]\nname = \"all\"\nper = [\"user\"]\nwindow = \"day\"\nlimit_usd = 20\n",
    )
    .unwrap();
    for expected in [
        ": valid",
        "rewrites prompts",
        "caps at $20.00 per day, each user: \"all\"",
        "warns above $20.00 in any 10m, each user: \"default velocity breaker\"",
        "5.50%",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let error = say("[cache]\nmode = \"on\"\n").unwrap_err().to_string();
    assert!(error.contains("weir.toml:2:"), "{error}");
}
