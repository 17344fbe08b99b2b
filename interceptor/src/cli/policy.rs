//! `weir policy`: what a configuration says, and what rewriting would do to a request.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use weir_core::api::{self, Api, Endpoint};
use weir_core::call;
use weir_core::catalog::{Catalog, Listing, Provider};
use weir_core::edit;
use weir_core::prompt::{self, HashKey, Prompt, Section, Segment};
use weir_core::rewrite::{self, Request, RuleSet, Thread};
use weir_core::volatile::{Rules, Span};

use crate::process::config::{CacheMode, Config, Fail, OnExceed};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration file with rules of its own, for `explain`; else WEIR_CONFIG, else
    /// /etc/weir/weir.toml, else the defaults.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a configuration file, and say what it would do; exit code 1 where it is not valid.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Say what a request's prompt consists of, what in it changes, and what rewriting would edit,
    /// were it the first of a conversation of a workload that has all its values moved. It prints
    /// pieces of the request.
    Explain(ExplainArguments),
}

#[derive(Debug, Args)]
struct ExplainArguments {
    /// The body of a request, as JSON.
    #[arg(value_name = "REQUEST_FILE")]
    file: PathBuf,
    /// The host that it is for.
    #[arg(long, value_name = "HOST", default_value = "api.anthropic.com")]
    host: String,
    /// The path that it is for [default: that of the host's usual API]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Check { file } => check(file, out),
        Command::Explain(explained) => {
            let config = Config::load(arguments.config.as_deref())?;
            explain(explained, &config.cache.rules, out)
        }
    }
}

fn check(file: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let config = Config::load(Some(file))?;
    let list = |of: &[String]| {
        if of.is_empty() {
            "none".to_owned()
        } else {
            of.join(", ")
        }
    };
    let ports: Vec<String> = config.intercept.ports.iter().map(u16::to_string).collect();
    writeln!(out, "{}: valid", file.display())?;
    writeln!(
        out,
        "  inspects port {} of the known providers",
        ports.join(", ")
    )?;
    writeln!(
        out,
        "    and of these hosts: {}",
        list(&config.intercept.hosts)
    )?;
    writeln!(
        out,
        "    but not of these: {}",
        list(&config.intercept.ignore)
    )?;
    let fail = match config.intercept.fail {
        Fail::Open => "passes what it can't handle, counted (fail = \"open\")",
        Fail::Closed => "refuses what it can't handle (fail = \"closed\")",
    };
    writeln!(out, "  {fail}")?;
    let cache = match config.cache.mode {
        CacheMode::Off => "says nothing about prompt caches",
        CacheMode::Observe => "explains prompt caches and edits no prompt",
        CacheMode::Rewrite => "rewrites prompts so that caches hit",
    };
    writeln!(out, "  {cache}")?;
    for cap in &config.caps {
        let per: Vec<&str> = cap.per.iter().map(|dimension| dimension.as_str()).collect();
        let per = if per.is_empty() {
            "all together".to_owned()
        } else {
            format!("each {}", per.join(", "))
        };
        let act = match cap.on_exceed {
            OnExceed::Warn => "warns above",
            OnExceed::Block | OnExceed::Downgrade => "caps",
        };
        let (name, limits, window) = (&cap.name, cap.limits, cap.window);
        writeln!(out, "  {act} {limits} per {window}, {per}: \"{name}\"")?;
    }
    for (host, points) in &config.fees {
        writeln!(
            out,
            "  adds {}.{:02} % to prices of {host}",
            points / 100,
            points % 100
        )?;
    }
    writeln!(out, "  records to {}", config.ledger.url)?;
    Ok(ExitCode::SUCCESS)
}

/// What there is to say of a request.
#[derive(Debug, Serialize)]
struct Explained {
    host: String,
    api: &'static str,
    bytes: usize,
    breakpoints: usize,
    segments: Vec<Shown>,
    spans: Vec<Found>,
    edits: Vec<Made>,
    /// Why there is no edit.
    withheld: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Shown {
    place: String,
    kind: String,
    range: Range<usize>,
    breakpoint: bool,
}

#[derive(Debug, Serialize)]
struct Found {
    rule: String,
    kind: String,
    transform: &'static str,
    place: String,
    range: Range<usize>,
    value: String,
}

#[derive(Debug, Serialize)]
struct Made {
    rule: String,
    range: Range<usize>,
    replacement: String,
}

fn explain(
    arguments: &ExplainArguments,
    rules: &str,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let file = &arguments.file;
    let body = std::fs::read(file).with_context(|| format!("{}", file.display()))?;
    let provider = match Catalog::builtin().lookup(&arguments.host) {
        Listing::Provider(provider) => provider,
        Listing::Ignored | Listing::Unknown => Provider::Configured,
    };
    let path = arguments.path.as_deref().unwrap_or_else(|| match provider {
        Provider::Anthropic | Provider::Configured => "/v1/messages",
        _ if memchr::memmem::find(&body, b"\"input\"").is_some() => "/v1/responses",
        _ => "/v1/chat/completions",
    });
    let Endpoint::Call(api) = api::recognize(provider, "POST", path) else {
        bail!(
            "expected the path of a call, found {path} of {}; say which with --path",
            arguments.host
        );
    };
    let explained = explain_body(&arguments.host, api, rules, &body)?;
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&explained)?)?;
    } else {
        explained.print(out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `rules` are those of the configuration.
fn explain_body(host: &str, api: Api, rules: &str, body: &[u8]) -> anyhow::Result<Explained> {
    let prompt = prompt::read(body).context("expected a JSON object as the request")?;
    let key = HashKey::new([0; 16]);
    let rules = RuleSet::new(Rules::parse(rules)?, &key);
    let places = places(&prompt);
    let segments = prompt.segments.iter().zip(&places);
    let segments = segments.map(|(segment, place)| Shown {
        place: place.clone(),
        kind: format!("{:?}", segment.kind).to_lowercase(),
        range: segment.range.clone(),
        breakpoint: segment.breakpoint().is_some(),
    });
    let mut explained = Explained {
        host: host.to_owned(),
        api: api.as_str(),
        bytes: body.len(),
        breakpoints: prompt.markers(),
        segments: segments.collect(),
        spans: Vec::new(),
        edits: Vec::new(),
        withheld: Some("nothing_found"),
    };
    let Some(thread) = Thread::of(&prompt, body, &key, &[]) else {
        return Ok(explained);
    };
    // As if it were the first of its conversation: what later ones were given is not known here.
    let thread = Thread {
        is_start: true,
        ..thread
    };
    let call = call::parse(api, body).ok();
    let model = call.and_then(|call| call.model).unwrap_or_default();
    let request = Request {
        api,
        model: &model,
        body,
        prompt: &prompt,
        thread: &thread,
        key: &key,
        untouchable: None,
        held_by_provider: false,
        begin: true,
        now_s: 0,
    };
    let plan = rewrite::plan(&request, None, &rules, |_| None);
    explained.withheld = plan.withheld.map(rewrite::Withheld::as_str);
    explained.spans = found(body, &plan.spans, &rules.rules, &places);
    if !rewrite::covers(api, body) {
        explained.withheld = Some("api_not_covered");
        return Ok(explained);
    }
    // That they fit is checked here too, so that nobody is told of edits that never happen.
    let mut edits = plan.edits;
    edit::apply(body, &mut edits)?;
    let made = edits.into_iter().map(|edit| Made {
        rule: edit.rule.into_owned(),
        range: edit.range,
        replacement: String::from_utf8_lossy(&edit.replacement).into_owned(),
    });
    explained.edits = made.collect();
    Ok(explained)
}

/// The values that rules found.
fn found(body: &[u8], spans: &[Span], rules: &Rules, places: &[String]) -> Vec<Found> {
    let found = spans.iter().filter_map(|span| {
        let rule = rules.rule(span.rule)?;
        let value = body.get(span.range.clone())?;
        Some(Found {
            rule: rule.name.clone(),
            kind: rule.kind.clone(),
            transform: rule.transform.as_str(),
            place: places.get(span.segment).cloned().unwrap_or_default(),
            range: span.range.clone(),
            value: String::from_utf8_lossy(value).into_owned(),
        })
    });
    found.collect()
}

/// `system[0]`, `messages[3][1]` and so on, as in reports.
fn places(prompt: &Prompt) -> Vec<String> {
    let mut counts: BTreeMap<(Section, Option<usize>), usize> = BTreeMap::new();
    let leading = |segment: &Segment| segment.section != Section::Messages;
    let first = prompt.segments.iter().find(|segment| !leading(segment));
    let first = first.and_then(|segment| segment.message).unwrap_or(0);
    let place = |segment: &Segment| {
        let of = (
            segment.section,
            segment.message.filter(|_| !leading(segment)),
        );
        let count = counts.entry(of).or_default();
        let index = *count;
        *count += 1;
        match segment.section {
            Section::Tools => format!("tools[{index}]"),
            Section::System => format!("system[{index}]"),
            Section::Messages => {
                let message = segment.message.unwrap_or(0).saturating_sub(first);
                format!("messages[{message}][{index}]")
            }
        }
    };
    prompt.segments.iter().map(place).collect()
}

impl Explained {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{} at {}: {} bytes, {} segments, {} breakpoints\n",
            self.api,
            self.host,
            self.bytes,
            self.segments.len(),
            self.breakpoints
        )?;
        for shown in &self.segments {
            let mark = if shown.breakpoint { "  breakpoint" } else { "" };
            let bytes = shown.range.len();
            writeln!(
                out,
                "  {:<16} {:<11} {bytes:>8} bytes{mark}",
                shown.place, shown.kind
            )?;
        }
        if !self.spans.is_empty() {
            writeln!(out, "\nwhat changes:")?;
        }
        for found in &self.spans {
            let at = format!("{}..{}", found.range.start, found.range.end);
            let value = excerpt(&found.value);
            writeln!(
                out,
                "  {:<16} {:<20} {:<9} {at:>15}  {value}",
                found.place, found.rule, found.transform
            )?;
        }
        if self.edits.is_empty() {
            let why = self.withheld.unwrap_or("nothing_found").replace('_', " ");
            return writeln!(out, "\nno edits: {why}");
        }
        writeln!(out, "\nwhat mode = \"rewrite\" would edit:")?;
        for made in &self.edits {
            let at = format!("{}..{}", made.range.start, made.range.end);
            writeln!(
                out,
                "  {:<20} {at:>15}  {}",
                made.rule,
                excerpt(&made.replacement)
            )?;
        }
        Ok(())
    }
}

/// One line of it, without what could steer a terminal.
fn excerpt(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text
        .chars()
        .take(EXCERPT_CHARS_MAX)
        .map(printable)
        .collect();
    if text.chars().count() > EXCERPT_CHARS_MAX {
        shown.push('…');
    }
    shown
}

const EXCERPT_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"model":"claude-opus-5-5","tools":[{"name":"Read","input_schema":{}}],
        "system":[{"type":"text","text":"Today's date is 2026-06-09.","cache_control":{"type":"ephemeral"}}],
        "messages":[{"role":"user","content":"hi"}]}"#;

    #[test]
    fn a_request_is_explained_by_segments_spans_and_edits() {
        let explained =
            explain_body("api.anthropic.com", Api::Messages, "", BODY.as_bytes()).unwrap();
        let places: Vec<_> = explained
            .segments
            .iter()
            .map(|shown| shown.place.as_str())
            .collect();
        assert_eq!(places, ["tools[0]", "system[0]", "messages[0][0]"]);
        assert_eq!(
            (explained.breakpoints, explained.segments[1].breakpoint),
            (1, true)
        );
        let span = explained.spans.first().unwrap();
        assert_eq!(
            (span.value.as_str(), span.place.as_str()),
            ("2026-06-09", "system[0]")
        );
        assert!(
            explained.edits.len() >= 2,
            "out of the prompt, into the message: {explained:?}"
        );
        let mut text = Vec::new();
        explained.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("what mode = \"rewrite\" would edit:"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 140),
            "{text}"
        );
    }

    #[test]
    fn a_request_that_changes_nowhere_has_no_edits() {
        let body = BODY.replace("Today's date is 2026-06-09.", "Be brief.");
        let explained = explain_body("x", Api::Messages, "", body.as_bytes()).unwrap();
        assert_eq!(
            (explained.edits.len(), explained.withheld),
            (0, Some("nothing_found"))
        );
        assert!(explain_body("x", Api::Messages, "", b"[]").is_err());
    }

    #[test]
    fn a_rule_of_the_configuration_finds_what_the_built_in_ones_do_not_know() {
        let body = BODY.replace("Today's date is 2026-06-09.", "Ticket: ABC-17.");
        let rules = "[[rule]]\nname = \"ticket\"\nhints = [\"ticket:\"]\n\
                     pattern = 'Ticket: (?<value>[A-Z]+-[0-9]+)'\n";
        let found = |rules| {
            let explained = explain_body("x", Api::Messages, rules, body.as_bytes()).unwrap();
            let spans = explained.spans.into_iter();
            spans
                .map(|span| (span.rule, span.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(""), []);
        assert_eq!(found(rules), [("ticket".to_owned(), "ABC-17".to_owned())]);
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
            "each user: \"all\"",
            "5.50 %",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        let error = say("[cache]\nmode = \"on\"\n").unwrap_err().to_string();
        assert!(error.contains("weir.toml:2:"), "{error}");
    }
}
