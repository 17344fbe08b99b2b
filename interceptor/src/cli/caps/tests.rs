//! What is said of caps, and which changes are refused before they are made.

use std::path::Path;

use clap::Parser;
use serde_json::Value;
use weir_core::caps::{Amount, Dimension};
use weir_core::money::Money;

use super::*;
use crate::ledger::{Cost, Identity, Ledger, LedgerOptions, Outcome, Record};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

const CONFIG: &str = r#"
[[cap]]
name = "each user"
per = ["user"]
window = "month"
timezone = "UTC"
limit_usd = 10
warn_at = []

[[cap]]
name = "calls"
window = "total"
limit_calls = 100
"#;

/// A ledger in which ann has spent $4 and bob $6.
fn ledger() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("weir.toml"), CONFIG).unwrap();
    let ledger = Ledger::open(&LedgerOptions::new(directory.path())).unwrap();
    for (user, dollars) in [("ann", 4), ("bob\u{1b}[2J", 6)] {
        ledger.record(Record {
            started_unix_ms: unix_ms(),
            identity: Identity {
                user: Some(user.to_owned()),
                ..Identity::default()
            },
            outcome: Outcome::Completed,
            cost: Cost::Reported {
                total: Money::from_nanos(dollars * 1_000_000_000),
            },
            ..Record::default()
        });
    }
    drop(ledger);
    directory
}

/// What a command says, or why it does not do it.
fn said(directory: &Path, line: &[&str]) -> Result<String, String> {
    let config = directory.join("weir.toml");
    let places = [
        "--config",
        config.to_str().unwrap(),
        "--state-dir",
        directory.to_str().unwrap(),
    ];
    let line = [&["caps"], line, &places].concat();
    let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let arguments = Arguments {
        command: line.command,
    };
    run(&arguments, &mut out).map_err(|error| format!("{error:#}"))?;
    Ok(String::from_utf8(out).unwrap())
}

const BECAUSE: [&str; 2] = ["--reason", "a release"];

#[track_caller]
fn check_refused(directory: &Path, line: &[&str], why: &str) {
    let error = said(directory, &[line, &BECAUSE].concat()).unwrap_err();
    assert!(error.contains(why), "{line:?}: {error}");
}

#[test]
fn a_raise_and_a_reset_are_listed_with_who_and_why() {
    let directory = ledger();
    let at = directory.path();
    let before = said(at, &["list", "each user"]).unwrap();
    assert!(
        before.starts_with(
            "each user: $10.00 per month, each user\n  user=ann: $4.00 of $10.00 spent, resets at "
        ),
        "{before}"
    );
    assert!(
        before.contains("user=bob\\u{1b}[2J: $6.00 of $10.00 spent"),
        "{before}"
    );
    let raise = [
        "raise",
        "each user",
        "--scope",
        "user=ann",
        "--usd",
        "$2.50",
        "--for",
        "2h",
    ];
    let made = said(at, &[&raise, &BECAUSE[..], &["--author", "carol"]].concat()).unwrap();
    assert!(
        made.starts_with("\"each user\" raised by $2.50 for user=ann until "),
        "{made}"
    );
    assert!(made.contains("carol (typed by "), "{made}");
    let both = ["raise", "each user", "--usd", "1", "--for", "1h", "--json"];
    let made = said(at, &[&both, &BECAUSE[..]].concat()).unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(
        (&made["change"], &made["by"]["nano_usd"]),
        (&2.into(), &1_000_000_000.into())
    );
    let reset = ["reset", "each user", "--scope", "user=bob\u{1b}[2J"];
    said(at, &[&reset, &BECAUSE[..]].concat()).unwrap();
    let listed: Value = serde_json::from_str(&said(at, &["list", "--json"]).unwrap()).unwrap();
    let accounts = listed["caps"][0]["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 1, "{listed}");
    assert_eq!(accounts[0]["limit"]["nano_usd"], 13_500_000_000_i64);
    assert_eq!(accounts[0]["spent"]["nano_usd"], 4_000_000_000_i64);
    assert_eq!(listed["caps"][1]["accounts"][0]["spent"]["calls"], 2);
    let changes = listed["changes"].as_array().unwrap();
    let kinds: Vec<_> = changes
        .iter()
        .map(|change| (&change["kind"], &change["in_force"]))
        .collect();
    assert_eq!(
        kinds,
        [
            (&"raise".into(), &true.into()),
            (&"raise".into(), &true.into()),
            (&"reset".into(), &true.into())
        ]
    );
    let after = said(at, &["list"]).unwrap();
    for part in [
        "* raised by $2.50 for user=ann until",
        ": a release (change 1)",
        "* raised by $1.00 for each account",
        "* reset for user=bob",
    ] {
        assert!(after.contains(part), "{part}: {after}");
    }
}

#[test]
fn what_is_changed_of_a_cap_that_is_gone_is_kept_and_does_nothing() {
    let directory = ledger();
    let at = directory.path();
    let raise = ["raise", "calls", "--calls", "5", "--for", "1d"];
    said(at, &[&raise, &BECAUSE[..]].concat()).unwrap();
    let without = CONFIG
        .split("[[cap]]")
        .take(2)
        .collect::<Vec<_>>()
        .join("[[cap]]");
    std::fs::write(at.join("weir.toml"), without).unwrap();
    check_refused(at, &raise, "found \"calls\": there is \"each user\"");
    let listed = said(at, &["list"]).unwrap();
    assert!(
        listed.ends_with("changes that are over, or of caps that are gone: 1, see --json\n"),
        "{listed}"
    );
}

#[test]
fn a_change_that_would_do_nothing_or_too_much_is_refused() {
    let directory = ledger();
    let at = directory.path();
    let raise = |more: &[&'static str]| [&["raise", "each user"], more].concat();
    for (line, why) in [
        (raise(&["--usd", "-5", "--for", "1h"]), "-5"),
        (raise(&["--usd=-5", "--for", "1h"]), "more than none"),
        (raise(&["--usd", "0", "--for", "1h"]), "more than none"),
        (raise(&["--usd", "1e9", "--for", "1h"]), "more than none"),
        (
            raise(&["--usd", "99999999999999999999", "--for", "1h"]),
            "more than none",
        ),
        (raise(&["--calls", "0", "--for", "1h"]), "0 is not in 1.."),
        (
            raise(&["--calls", "5", "--for", "1h"]),
            "found one on calls",
        ),
        (raise(&["--for", "1h"]), "--usd"),
        (raise(&["--usd", "5"]), "--for"),
        (
            raise(&["--usd", "5", "--for", "1h", "--until", "2099-01-01"]),
            "cannot be used",
        ),
        (raise(&["--usd", "5", "--for", "0h"]), "has passed"),
        (raise(&["--usd", "5", "--for", "367d"]), "within 366 days"),
        (raise(&["--usd", "5", "--for", "2026-01-01"]), "see --until"),
        (
            raise(&["--usd", "5", "--until", "2020-01-01"]),
            "has passed",
        ),
        (raise(&["--usd", "5", "--until", "soon"]), "found \"soon\""),
        (
            raise(&["--usd", "5", "--for", "1h", "--scope", "team=x"]),
            "such as \"user=…\"",
        ),
        (
            raise(&["--usd", "5", "--for", "1h", "--author", "\u{1b}[2J"]),
            "one line",
        ),
        (
            vec!["raise", "each", "--usd", "5", "--for", "1h"],
            "\"each user\", \"calls\"",
        ),
        (vec!["reset", "each user"], "--scope \"user=…\" or --all"),
        (
            vec!["reset", "each user", "--all", "--scope", "user=ann"],
            "cannot be used",
        ),
        (vec!["list"], "--reason"),
    ] {
        check_refused(at, &line, why);
    }
    let unsaid = said(at, &["reset", "calls", "--reason", "  "]).unwrap_err();
    assert!(unsaid.contains("one line"), "{unsaid}");
    let listed: Value = serde_json::from_str(&said(at, &["list", "--json"]).unwrap()).unwrap();
    assert_eq!(listed["changes"], Value::Array(Vec::new()));
    let nowhere = tempfile::tempdir().unwrap();
    std::fs::write(nowhere.path().join("weir.toml"), CONFIG).unwrap();
    let absent = said(nowhere.path(), &["list"]).unwrap_err();
    assert!(absent.contains("there is no ledger"), "{absent}");
    assert!(!nowhere.path().join("weir.db").exists());
}

#[test]
fn a_change_of_an_account_that_no_call_can_have_is_refused() {
    let directory = ledger();
    let at = directory.path();
    let more = "[teams.core]\nuser = [\"ann\"]\n[[cap]]\nname = \"each key\"\nper = [\"key\", \"team\"]\n\
                match = { team = [\"core\"] }\nwindow = \"day\"\nlimit_usd = 1\n";
    std::fs::write(at.join("weir.toml"), format!("{CONFIG}{more}")).unwrap();
    let hash = "734463d5".repeat(4);
    for (scope, why) in [
        ("key=734463d5…1111, team=core", "the whole hash of a key"),
        ("key=sk-ant-1, team=core", "which is not repeated here"),
        (&format!("key={hash}, team=cor"), "there are core"),
        (
            &format!("key={hash}, team=unknown"),
            "which it does not count",
        ),
    ] {
        for line in [
            vec![
                "raise", "each key", "--usd", "1", "--for", "1h", "--scope", scope,
            ],
            vec!["reset", "each key", "--scope", scope],
        ] {
            check_refused(at, &line, why);
        }
    }
    let unused = format!("key={hash}, team=core");
    for (cap, scope, is_noted) in [
        ("each key", unused.as_str(), true),
        ("each user", "user=anne", true),
        ("each user", "user=ann", false),
        ("calls", "all", false),
    ] {
        let line = ["reset", cap, "--scope", scope];
        let made = said(at, &[&line, &BECAUSE[..]].concat()).unwrap();
        assert_eq!(made.contains("nothing is counted for"), is_noted, "{made}");
    }
}

#[test]
fn a_reset_of_all_and_of_a_cap_that_is_kept_by_nothing_needs_no_scope() {
    let directory = ledger();
    let at = directory.path();
    said(
        at,
        &[&["reset", "each user", "--all"], &BECAUSE[..]].concat(),
    )
    .unwrap();
    said(at, &[&["reset", "calls"], &BECAUSE[..]].concat()).unwrap();
    let listed = said(at, &["list"]).unwrap();
    assert_eq!(
        listed.matches("nothing is spent in this window").count(),
        2,
        "{listed}"
    );
    assert!(
        listed.contains("* reset for each account") && listed.contains("* reset for all,"),
        "{listed}"
    );
}

#[test]
fn a_moment_without_a_zone_is_of_the_zone_of_the_cap() {
    let cap = Cap {
        per: vec![Dimension::User],
        timezone: jiff::tz::TimeZone::posix("CET-1").unwrap(),
        ..Cap::new("x", Window::Day, Money::MAX)
    };
    let at = |text| change::moment(text, &cap.timezone).unwrap();
    assert_eq!(at("2026-12-01T18:00"), at("2026-12-01T17:00:00Z"));
    assert_eq!(at("2026-12-01"), at("2026-11-30T23:00:00Z"));
    let no_more = cap.limits.raised_by(Amount {
        money: Money::MAX,
        ..Amount::ZERO
    });
    assert_eq!(no_more.money, Some(Money::MAX), "sums saturate");
}

#[test]
fn what_a_cap_says_is_said_in_words() {
    let config = |text: &str| {
        let text = format!("[[cap]]\nname = \"a\"\n{text}");
        let config = Config::parse(&text, Path::new("weir.toml")).unwrap();
        terms(&config.caps[0])
    };
    for (text, expected) in [
        (
            "window = \"day\"\nlimit_usd = 20\nper = [\"user\"]",
            "$20.00 per day, each user",
        ),
        ("per_call_usd = 2", "$2.00 a call, all together"),
        (
            "window = \"total\"\nlimit_tokens = 1000000\nlimit_calls = 1",
            "1,000,000 tokens, 1 call in all, all together",
        ),
        (
            "window = \"rolling 24h\"\nlimit_usd = 1.5\nper_call_usd = 0.5\nper = [\"team\", \"model\"]\n\
             match = { provider = [\"anthropic\", \"openai\"] }",
            "$1.50 in any 24h and $0.50 a call, each team and model, of provider anthropic or openai",
        ),
    ] {
        assert_eq!(config(text), expected, "{text}");
    }
}
