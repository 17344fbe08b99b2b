//! What the configuration accepts, how it says what it does not, and how it is replaced.

use weir_core::caps::Limits;
use weir_core::money::Money;
use weir_core::pricing::{Kind, Negotiated};

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("weir.toml")).map_err(|error| error.to_string())
}

const COMPLETE: &str = r#"
[intercept]
ports  = [443, 8443]
hosts  = ["Extra.LLM.example"]
ignore = ["api.groq.com"]
fail   = "closed"

[upstream]
resolve     = { "api.anthropic.com" = "127.0.0.1:9443" }
extra_roots = ["/etc/weir/corp-root.pem"]

[cache]
mode = "rewrite"
learn = false
secret_file = "/run/secrets/weir-cache"

[[cap]]
name = "each developer, each day"
per  = ["user"]
match = { provider = ["anthropic"] }
window = "day"
timezone = "Europe/Berlin"
limit_usd = 20.00
on_exceed = "warn"
kind = "strict"
warn_at = [0.8, 0.25]

[[cap]]
name = "all"
window = "total"
limit_usd = 1_000

[fees]
"openrouter.ai" = 5.5

[pricing]
unpriced = "flat"
flat_usd_per_mtok = 12.50
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
usd_per_mtok = { input = 0.000001, output = 3 }

[ledger]
url = "sqlite:other.db"

[admin]
listen = "[::1]:9465"

[audit]
content = "off"
"#;

#[test]
fn every_key_of_the_contract_is_read() {
    let cap = Cap {
        name: "each developer, each day".into(),
        per: vec![Dimension::User],
        only: BTreeMap::from([(Dimension::Provider, vec!["anthropic".into()])]),
        window: Window::Day,
        timezone: TimeZone::get("Europe/Berlin").unwrap(),
        limits: Limits::of_money(Money::from_nanos(20_000_000_000)),
        on_exceed: OnExceed::Warn,
        kind: CapKind::Strict,
        warn_at_permille: vec![250, 800],
        ..Cap::new("", Window::Day, Money::ZERO)
    };
    let all = Cap {
        warn_at_permille: CAP_WARN_AT_PERMILLE_DEFAULT.to_vec(),
        ..Cap::new("all", Window::Total, Money::from_nanos(1_000_000_000_000))
    };
    let expected = Config {
        source: Some(PathBuf::from("weir.toml")),
        observe: false,
        intercept: Intercept {
            ports: vec![443, 8443],
            hosts: vec!["extra.llm.example".into()],
            ignore: vec!["api.groq.com".into()],
            fail: Fail::Closed,
        },
        upstream: Upstream {
            resolve: BTreeMap::from([(
                "api.anthropic.com".into(),
                "127.0.0.1:9443".parse().unwrap(),
            )]),
            extra_roots: vec!["/etc/weir/corp-root.pem".into()],
        },
        cache: Cache {
            mode: CacheMode::Rewrite,
            learn: false,
            rules: String::new(),
            secret_file: Some("/run/secrets/weir-cache".into()),
        },
        caps: vec![cap, all],
        breakers: vec![default_breaker()],
        teams: BTreeMap::new(),
        alerts: Alerts::default(),
        fees: BTreeMap::from([("openrouter.ai".into(), 550)]),
        pricing: pricing_of_the_contract(),
        ledger: Ledger {
            url: "sqlite:other.db".into(),
            password_file: None,
        },
        admin: Admin {
            listen: "[::1]:9465".parse().unwrap(),
        },
    };
    assert_eq!(parse(COMPLETE), Ok(expected));
}

fn pricing_of_the_contract() -> Pricing {
    let day = |day: &str| {
        let start: jiff::Timestamp = format!("{day}T00:00:00Z").parse().unwrap();
        Some(start.as_second())
    };
    Pricing {
        unpriced: Unpriced::Flat {
            picos_per_token: 12_500_000,
        },
        subscriptions: Subscriptions::Charged,
        negotiated: vec![
            Negotiated {
                provider: Some("anthropic".into()),
                model: "claude-opus-*".into(),
                tier: Some("batch".into()),
                from_unix: day("2026-12-01"),
                until_unix: day("2027-01-01"),
                per_token: BTreeMap::new(),
                factor_ppm: Some(875_000),
            },
            Negotiated {
                model: "own".into(),
                per_token: BTreeMap::from([(Kind::Input, 1), (Kind::Output, 3_000_000)]),
                ..Negotiated::default()
            },
        ],
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    let expected = Config {
        source: Some(PathBuf::from("weir.toml")),
        ..Config::default()
    };
    assert_eq!(parse(""), Ok(expected.clone()));
    assert_eq!(
        parse("[intercept]\n[cache]\n[ledger]\n[admin]\n[audit]\n"),
        Ok(expected)
    );
}

#[test]
fn an_error_names_file_line_and_column_and_what_was_expected() {
    for case in MISTAKES.split("\n---\n") {
        let (expected, text) = case.trim_start().split_once('\n').unwrap();
        let mut expected = expected.split(" | ");
        let start = format!("weir.toml:{}: ", expected.next().unwrap());
        let error = parse(text).expect_err(text);
        assert!(
            error.starts_with(&start),
            "{text}\nexpected {start}\nfound {error}"
        );
        for fragment in expected {
            assert!(
                error.contains(fragment),
                "{text}\nexpected {fragment}\nfound {error}"
            );
        }
    }
}

/// The position and fragments of the message, then the file.
const MISTAKES: &str = r#"
1:2 | unknown field `intercpt` | `intercept` | `ledger`
[intercpt]
---
3:1 | unknown field `port` | `ports` | `hosts`

[intercept]
port = [443]
---
2:8 | `opne` | `open` | `closed`
[intercept]
fail = "opne"
---
2:15 | 1 to 65535 | found 0
[intercept]
ports = [443, 0]
---
2:15 | 70000 | u16
[intercept]
ports = [443, 70000]
---
2:9 | 1 to 16 ports, found 0
[intercept]
ports = []
---
2:19 | expected a DNS name | https://x
[intercept]
hosts = ["ok.io", "https://x"]
---
2:10 | expected a DNS name | 10.0.0.1
[intercept]
hosts = ["10.0.0.1"]
---
2:20 | expected a DNS name
[intercept]
ignore = ["*.a.b", "ä"]
---
2:13 | without scheme, port or wildcard
[upstream]
resolve = { "*.a.b" = "127.0.0.1:9443" }
---
2:21 | 127.0.0.1:9443 | found "9443"
[upstream]
resolve = { "a.b" = "9443" }
---
2:8 | wanted string
[cache]
mode = 1
---
2:7 | sqlite:PATH | postgres
[ledger]
url = "mysql://h/d"
---
2:7 | sqlite:PATH
[ledger]
url = "sqlite:"
---
2:7 | sslmode is "prefer"
[ledger]
url = "postgres://w@db.example/weir?sslmode=prefer"
---
2:7 | foo
[ledger]
url = "postgres://w@db.example/weir?foo=bar"
---
2:10 | address with a port
[admin]
listen = "localhost"
---
2:11 | `full` | expected `off`
[audit]
content = "full"
---
2:8 | limit_usd
[[cap]]
name = "a"
window = "day"
---
3:8 | a name
[[cap]]
window = "day"
name = " "
limit_usd = 1
---
4:13 | not negative | found -1.5
[[cap]]
name = "a"
window = "day"
limit_usd = -1.5
---
4:13 | no exponent
[[cap]]
name = "a"
window = "day"
limit_usd = 1e3
---
4:13 | nine decimals
[[cap]]
name = "a"
window = "day"
limit_usd = 0.0000000001
---
4:13 | amount of dollars
[[cap]]
name = "a"
window = "day"
limit_usd = 99999999999999999999.0
---
4:13 | found inf
[[cap]]
name = "a"
window = "day"
limit_usd = inf
---
4:13 | found "20"
[[cap]]
name = "a"
window = "day"
limit_usd = "20"
---
5:1 | unknown field `windo` | `window`
[[cap]]
name = "a"
window = "day"
limit_usd = 1
windo = 1
---
2:16 | `usr` | `session`
[[cap]]
per = ["user", "usr"]
name = "a"
window = "day"
limit_usd = 1
---
2:16 | twice
[[cap]]
per = ["user", "user"]
name = "a"
window = "day"
limit_usd = 1
---
2:11 | `usr`
[[cap]]
match = { usr = [] }
name = "a"
window = "day"
limit_usd = 1
---
2:12 | Mars/Base | time zone
[[cap]]
timezone = "Mars/Base"
name = "a"
window = "day"
limit_usd = 1
---
2:12 | share of the limit | 1.5
[[cap]]
warn_at = [1.5]
name = "a"
window = "day"
limit_usd = 1
---
2:17 | above 0
[[cap]]
warn_at = [0.5, 0]
name = "a"
window = "day"
limit_usd = 1
---
7:8 | a second cap named "a"
[[cap]]
name = "a"
window = "day"
limit_usd = 1

[[cap]]
name = "a"
window = "day"
limit_usd = 1
---
6:1 | unknown field `patern` | `pattern`
[intercept]
fail = "open"
[[cache.rule]]
name = "ticket"
hints = ["ticket:"]
patern = "Ticket: (?<value>[A-Z]+)"
---
5:13 | `relocate` | `strip`
[cache]
mode = "observe"
[[cache.rule]]
name = "current-time"
transform = "move"
---
6:1 | rule b: expected a group
[[cache.rule]]
name = "a"
hints = ["ticket:"]
pattern = "Ticket: (?<value>[A-Z]+)"

[[cache.rule]]
name = "b"
hints = ["ticket:"]
pattern = "Ticket"
---
1:11 | unclosed table
[intercept
"#;

#[test]
fn an_amount_is_read_exactly() {
    for (text, nanos) in [
        ("0", 0),
        ("20", 20_000_000_000),
        ("+0.1", 100_000_000),
        ("0.30", 300_000_000),
        ("1_000.000000001", 1_000_000_000_001),
        ("9007199254.740993", 9_007_199_254_740_993_000),
        ("0.1234567890", 123_456_789),
    ] {
        let text = format!("[[cap]]\nname = \"a\"\nwindow = \"5m\"\nlimit_usd = {text}\n");
        let limit = parse(&text).unwrap().caps[0].limits.money;
        assert_eq!(limit, Some(Money::from_nanos(nanos)), "{text}");
    }
}

#[test]
fn any_text_is_answered_without_a_panic() {
    for cut in 0..COMPLETE.len() {
        let _any: Result<Config, String> = parse(COMPLETE.get(..cut).unwrap());
        let _any: Result<Config, String> = parse(COMPLETE.get(cut..).unwrap());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some(Path::new("/nonexistent/weir.toml")))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/nonexistent/weir.toml: expected a readable"),
        "{error}"
    );
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn a_changed_file_replaces_the_configuration_and_an_invalid_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.toml");
    std::fs::write(&path, "[cache]\nmode = \"off\"\n").unwrap();
    let live = Live::load(Some(&path), true).unwrap();
    assert_eq!(live.config().cache.mode, CacheMode::Off);
    assert_eq!(live.reload_if_changed(), Reload::Unchanged);

    std::fs::write(&path, "[cache]\nmode = \"rewrite\"\n").unwrap();
    assert_eq!(live.reload_if_changed(), Reload::Replaced);
    assert_eq!(live.config().cache.mode, CacheMode::Rewrite);
    assert!(live.config().observe, "--observe outlives a reload");

    std::fs::write(&path, "[cache]\nmode = \"rewrites\"\n").unwrap();
    assert_eq!(live.reload_if_changed(), Reload::Refused);
    assert_eq!(live.config().cache.mode, CacheMode::Rewrite);
    assert_eq!(
        live.reload_if_changed(),
        Reload::Unchanged,
        "it is said once"
    );
    assert_eq!(live.reload(), Reload::Refused, "and again when asked");

    let refused = || live.standing().refused.unwrap_or_default();
    assert!(refused().contains("rewrites"), "{}", refused());

    std::fs::remove_file(&path).unwrap();
    assert_eq!(live.reload_if_changed(), Reload::Refused);
    assert!(refused().contains("No such file"), "{}", refused());
    assert_eq!(live.reload_if_changed(), Reload::Unchanged);
    assert_eq!(live.config().cache.mode, CacheMode::Rewrite);

    std::fs::write(&path, "[cache]\nmode = \"rewrite\"\n").unwrap();
    assert_eq!(live.reload_if_changed(), Reload::Unchanged);
    assert_eq!(live.standing(), Standing::default());
}

#[test]
fn what_needs_a_restart_stays_as_it_was_at_the_start_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("");
    let live = Live::load(Some(&path), false).unwrap();
    write("[intercept]\nfail = \"closed\"\nignore = [\"api.groq.com\"]\n");
    assert_eq!(live.reload_if_changed(), Reload::Replaced);
    let intercept = live.config().intercept.clone();
    assert_eq!(intercept.fail, Fail::Open, "as the kernel has it");
    assert_eq!(intercept.ignore, ["api.groq.com"]);
    assert_eq!(live.standing().needs_restart, ["intercept.fail"]);

    assert_eq!(live.reload(), Reload::Unchanged);
    assert_eq!(live.standing().needs_restart, ["intercept.fail"]);
    write("");
    assert_eq!(live.reload_if_changed(), Reload::Replaced);
    assert_eq!(live.standing(), Standing::default());
}
