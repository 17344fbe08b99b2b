//! What is said of requests and configurations.

use super::check::check;
use super::explain;
use super::explain::Explained;
use super::target::Target;

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
        let checked = check(&file, &mut out).map_err(|error| format!("{error:#}"));
        checked.map(|_| String::from_utf8(out).unwrap())
    };
    let said = say(CONFIGURATION).unwrap();
    let (title, lines) = said.split_once('\n').unwrap();
    assert!(title.ends_with("weir.toml: valid"), "{title}");
    assert_eq!(lines, SAID);
    let said = say("").unwrap();
    for expected in [
        "  warns above $20.00 in any 10m, each user: \"default velocity breaker\"\n",
        "  passes calls of models without a price, uncounted in money (unpriced = \"allow\")\n",
        "  counts nothing for calls that a subscription pays for (subscriptions = \"notional\")\n",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let error = say("[cache]\nmode = \"on\"\n").unwrap_err();
    assert!(error.contains("weir.toml:2:"), "{error}");
    let error = say("[upstream]\nextra_roots = [\"/none.pem\"]\n").unwrap_err();
    assert!(
        error.contains("weir.toml: upstream.extra_roots: /none.pem: "),
        "{error}"
    );
}

const CONFIGURATION: &str = r#"
[intercept]
fail = "closed"
[upstream]
resolve = { "api.anthropic.com" = "127.0.0.1:9443" }
[cache]
mode = "rewrite"
[[cache.rule]]
name = "current-time"
transform = "pin"
[fees]
"openrouter.ai" = 5.5
[teams.core]
user = ["ann", "bob"]
process = ["ci-*"]
[[cap]]
name = "all"
per = ["team"]
window = "day"
timezone = "Europe/Berlin"
limit_usd = 20
clamp = true
kind = "strict"
[[cap]]
name = "dear"
window = "total"
limit_usd = 5
warn_at = [0.125]
on_exceed = "downgrade"
downgrade_to = "nosuchmodel"
[[breaker]]
name = "stop"
limit_usd = 3
[alerts]
webhook = { file = "/none/hook" }
[pricing]
unpriced = "flat"
flat_usd_per_mtok = 12.5
subscriptions = "charged"
[[price]]
provider = "anthropic"
model = "claude-opus-*"
tier = "batch"
from = 2026-12-01
until = 2027-01-01
discount_percent = 12.5
[[price]]
model = "own"
usd_per_mtok = { input = 0.0001, output = 3 }
"#;

const SAID: &str = r#"  inspects port 443 of the known providers
    and of these hosts: none
    but not of these: none
  refuses what it can't handle (fail = "closed")
  dials 127.0.0.1:9443 for api.anthropic.com
  rewrites prompts so that caches hit
    with 1 rule of its own
  takes for team core: user ann or bob; process ci-*
  caps at $20.00 per day, each team: "all"
    days begin in Europe/Berlin; reserves the most that calls can cost; lowers a call's limit on output before it refuses it; warns at 50 %, 80 %
  falls to nosuchmodel above $5.00 in all, all together: "dear"
    warns at 12.5 %
  stops at $3.00 in any 10m, all together: "stop"
  posts warnings to the URL in the file /none/hook
  counts calls of models without a price at $12.50 per million tokens (unpriced = "flat")
  counts calls that a subscription pays for as if they were billed (subscriptions = "charged")
  prices claude-opus-* at anthropic for batch from 2026-12-01 until 2027-01-01: 12.5 % off
  prices own: input $0.0001, output $3.00 per million tokens
  adds 5.50 % to prices of openrouter.ai
  records to sqlite:weir.db
  doubtful: alerts.webhook: expected to read /none/hook: No such file or directory (os error 2); until then no warning is posted
  doubtful: cap "dear": downgrade_to: expected a model with a price at a provider that the cap counts, found "nosuchmodel": calls beyond the limit would be refused; see weir prices show, or give it a [[price]]
"#;
