//! `[[cap]]`, `[[breaker]]` and `[alerts]`: what may be spent, and who hears of it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;
use weir_core::caps::Limits;
use weir_core::money::Money;

use super::file::{NANO_DIGITS, PERMILLE_DIGITS, Source, decimal};
use super::patterns::{self, Known, RawPatterns};
use super::{
    Alerts, CAP_TIMEZONE_DEFAULT, CAP_WARN_AT_PERMILLE_DEFAULT, Cap, CapKind, ConfigError,
    Dimension, OnExceed, Secret, Window, default_breaker,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCap {
    name: Spanned<String>,
    #[serde(default)]
    per: Vec<Spanned<Dimension>>,
    #[serde(default, rename = "match")]
    only: RawPatterns,
    window: Option<Window>,
    rolling: Option<Spanned<bool>>,
    timezone: Option<Spanned<String>>,
    limit_usd: Option<Spanned<IgnoredAny>>,
    limit_tokens: Option<u64>,
    limit_calls: Option<u64>,
    per_call_usd: Option<Spanned<IgnoredAny>>,
    #[serde(default)]
    on_exceed: OnExceed,
    downgrade_to: Option<Spanned<String>>,
    #[serde(default)]
    kind: CapKind,
    #[serde(default)]
    clamp: bool,
    warn_at: Option<Vec<Spanned<IgnoredAny>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBreaker {
    name: Spanned<String>,
    #[serde(default)]
    per: Vec<Spanned<Dimension>>,
    #[serde(default, rename = "match")]
    only: RawPatterns,
    window: Option<Window>,
    limit_usd: Spanned<IgnoredAny>,
    #[serde(default)]
    on_exceed: OnExceed,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAlerts {
    webhook: Option<Spanned<RawSecret>>,
}

/// A secret, or where it is.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawSecret {
    Here(String),
    Elsewhere(RawPlace),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawPlace {
    File(PathBuf),
    Env(String),
}

/// Caps, then breakers.
type Checked = (Vec<Cap>, Vec<Cap>);

/// The caps and the breakers; the built-in breaker where none is configured.
pub(super) fn check(
    caps: Vec<RawCap>,
    breakers: Option<Vec<RawBreaker>>,
    known: Known<'_>,
    source: &Source<'_>,
) -> Result<Checked, ConfigError> {
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(caps.len());
    for cap in caps {
        let name = check_name(&cap.name, &mut names, source)?;
        checked.push(check_cap(name, cap, known, source)?);
    }
    let Some(breakers) = breakers else {
        return Ok((checked, vec![default_breaker()]));
    };
    let mut checked_breakers = Vec::with_capacity(breakers.len());
    for breaker in breakers {
        let name = check_name(&breaker.name, &mut names, source)?;
        checked_breakers.push(check_breaker(name, breaker, known, source)?);
    }
    Ok((checked, checked_breakers))
}

pub(super) fn check_alerts(raw: RawAlerts, source: &Source<'_>) -> Result<Alerts, ConfigError> {
    let Some(webhook) = raw.webhook else {
        return Ok(Alerts::default());
    };
    let span = webhook.span();
    let secret = match webhook.into_inner() {
        RawSecret::Here(url) => {
            if !url.starts_with("https://") {
                let message = "expected a URL that starts with https://, or { file = \"…\" } or \
                               { env = \"…\" } that holds one";
                return Err(source.invalid(span, message));
            }
            Secret::Here(url)
        }
        RawSecret::Elsewhere(RawPlace::File(path)) => Secret::File(path),
        RawSecret::Elsewhere(RawPlace::Env(name)) => Secret::Variable(name),
    };
    Ok(Alerts {
        webhook: Some(secret),
    })
}

fn check_name(
    raw: &Spanned<String>,
    names: &mut BTreeSet<String>,
    source: &Source<'_>,
) -> Result<String, ConfigError> {
    let name = raw.get_ref().trim();
    if name.is_empty() {
        return Err(source.invalid(raw.span(), "expected a name for the cap, found none"));
    }
    if !names.insert(name.to_owned()) {
        let message = format!("expected a name of its own, found a second cap named \"{name}\"");
        return Err(source.invalid(raw.span(), message));
    }
    Ok(name.to_owned())
}

fn check_cap(
    name: String,
    raw: RawCap,
    known: Known<'_>,
    source: &Source<'_>,
) -> Result<Cap, ConfigError> {
    let span = raw.name.span();
    let money = |raw: &Option<Spanned<IgnoredAny>>| {
        raw.as_ref()
            .map(|amount| check_limit(amount.span(), source))
            .transpose()
    };
    let limits = Limits {
        money: money(&raw.limit_usd)?,
        tokens: raw.limit_tokens,
        calls: raw.limit_calls,
    };
    let per_call = money(&raw.per_call_usd)?;
    let window = match raw.window {
        Some(window) => check_rolling(window, raw.rolling, source)?,
        // The cap is on single calls alone.
        None if limits == Limits::default() && per_call.is_some() => Window::Total,
        None => return Err(source.invalid(span, "missing field `window`")),
    };
    if limits == Limits::default() && per_call.is_none() {
        let message = "expected a limit: limit_usd, limit_tokens, limit_calls or per_call_usd";
        return Err(source.invalid(span, message));
    }
    Ok(Cap {
        name,
        per: check_per(raw.per, source)?,
        only: patterns::check(raw.only, known, source)?,
        window,
        timezone: check_timezone(raw.timezone, source)?,
        limits,
        per_call,
        on_exceed: raw.on_exceed,
        downgrade_to: check_downgrade(raw.on_exceed, raw.downgrade_to, span, source)?,
        kind: raw.kind,
        clamp: raw.clamp,
        breaker: false,
        warn_at_permille: check_warnings(raw.warn_at, source)?,
    })
}

fn check_breaker(
    name: String,
    raw: RawBreaker,
    known: Known<'_>,
    source: &Source<'_>,
) -> Result<Cap, ConfigError> {
    if raw.on_exceed == OnExceed::Downgrade {
        let message = "expected on_exceed = \"block\" or \"warn\" for a breaker";
        return Err(source.invalid(raw.name.span(), message));
    }
    let default = default_breaker();
    let window = raw.window.unwrap_or(default.window);
    Ok(Cap {
        name,
        per: check_per(raw.per, source)?,
        only: patterns::check(raw.only, known, source)?,
        window: window.rolling().unwrap_or(default.window),
        limits: Limits::of_money(check_limit(raw.limit_usd.span(), source)?),
        on_exceed: raw.on_exceed,
        ..default
    })
}

fn check_rolling(
    window: Window,
    rolling: Option<Spanned<bool>>,
    source: &Source<'_>,
) -> Result<Window, ConfigError> {
    let Some(rolling) = rolling.filter(|rolling| *rolling.get_ref()) else {
        return Ok(window);
    };
    window.rolling().ok_or_else(|| {
        let message = "expected a window with an end: \"total\" cannot roll";
        source.invalid(rolling.span(), message)
    })
}

fn check_downgrade(
    on_exceed: OnExceed,
    to: Option<Spanned<String>>,
    cap: Range<usize>,
    source: &Source<'_>,
) -> Result<String, ConfigError> {
    match (on_exceed, to) {
        (OnExceed::Downgrade, Some(to)) if !to.get_ref().trim().is_empty() => Ok(to.into_inner()),
        (OnExceed::Downgrade, _) => {
            let message = "expected downgrade_to = \"a model\" beside on_exceed = \"downgrade\"";
            Err(source.invalid(cap, message))
        }
        (OnExceed::Block | OnExceed::Warn, None) => Ok(String::new()),
        (OnExceed::Block | OnExceed::Warn, Some(to)) => {
            let message = "expected on_exceed = \"downgrade\" beside downgrade_to";
            Err(source.invalid(to.span(), message))
        }
    }
}

fn check_per(
    raw: Vec<Spanned<Dimension>>,
    source: &Source<'_>,
) -> Result<Vec<Dimension>, ConfigError> {
    let mut per = BTreeSet::new();
    for dimension in raw {
        if !per.insert(*dimension.get_ref()) {
            let message = "expected each dimension once, found this one twice";
            return Err(source.invalid(dimension.span(), message));
        }
    }
    Ok(per.into_iter().collect())
}

fn check_timezone(
    raw: Option<Spanned<String>>,
    source: &Source<'_>,
) -> Result<TimeZone, ConfigError> {
    let Some(name) = raw else {
        return Ok(CAP_TIMEZONE_DEFAULT);
    };
    TimeZone::get(name.get_ref()).map_err(|error| {
        let found = name.get_ref();
        let message = format!(
            "expected a time zone such as \"Europe/Berlin\" that this machine knows (package \
             tzdata), found \"{found}\": {error}"
        );
        source.invalid(name.span(), message)
    })
}

fn check_limit(span: Range<usize>, source: &Source<'_>) -> Result<Money, ConfigError> {
    let text = source.at(span.clone());
    decimal(text, NANO_DIGITS)
        .map(Money::from_nanos)
        .ok_or_else(|| {
            let message = format!(
                "expected an amount of dollars such as 20.00, not negative, with at most nine \
             decimals and no exponent, found {text}"
            );
            source.invalid(span, message)
        })
}

fn check_warnings(
    raw: Option<Vec<Spanned<IgnoredAny>>>,
    source: &Source<'_>,
) -> Result<Vec<u16>, ConfigError> {
    let Some(shares) = raw else {
        return Ok(CAP_WARN_AT_PERMILLE_DEFAULT.to_vec());
    };
    let mut permilles = BTreeSet::new();
    for share in shares {
        let text = source.at(share.span());
        let permille = decimal(text, PERMILLE_DIGITS)
            .and_then(|permille| u16::try_from(permille).ok())
            .filter(|permille| (1..=1000).contains(permille));
        let Some(permille) = permille else {
            let message = format!(
                "expected a share of the limit above 0 and up to 1, such as 0.8, with at most \
                 three decimals, found {text}"
            );
            return Err(source.invalid(share.span(), message));
        };
        permilles.insert(permille);
    }
    Ok(permilles.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("weir.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn caps_limit_tokens_calls_and_single_calls_over_windows_that_roll() {
        let config = parse(
            r#"
[[cap]]
name = "a"
window = "rolling 24h"
limit_tokens = 1000
limit_calls = 5
clamp = true

[[cap]]
name = "b"
window = "week"
rolling = true
limit_usd = 1
per_call_usd = 0.5
on_exceed = "downgrade"
downgrade_to = "claude-haiku-5-5"

[[cap]]
name = "c"
per_call_usd = 2

[[breaker]]
name = "d"
per = ["session"]
window = "5m"
limit_usd = 3

[alerts]
webhook = { file = "/run/secrets/hook" }
"#,
        )
        .unwrap();
        let [a, b, c] = config.caps.as_slice() else {
            panic!("three caps")
        };
        assert_eq!(
            (a.window.to_string().as_str(), a.clamp),
            ("rolling 24h", true)
        );
        assert_eq!(
            (a.limits.money, a.limits.tokens, a.limits.calls),
            (None, Some(1000), Some(5))
        );
        assert_eq!(
            (b.window.to_string().as_str(), b.on_exceed),
            ("rolling 7d", OnExceed::Downgrade)
        );
        assert_eq!(
            (c.window, c.per_call),
            (Window::Total, Some(Money::from_nanos(2_000_000_000)))
        );
        let [breaker] = config.breakers.as_slice() else {
            panic!("one breaker, and not the default one")
        };
        assert_eq!(
            (breaker.window.to_string().as_str(), breaker.breaker),
            ("rolling 5m", true)
        );
        assert_eq!(breaker.on_exceed, OnExceed::Block);
        assert_eq!(
            config.alerts.webhook,
            Some(Secret::File("/run/secrets/hook".into()))
        );
    }

    #[test]
    fn caps_without_sense_are_errors() {
        for (rest, part) in [
            ("window = \"day\"", "expected a limit"),
            ("limit_usd = 1", "window"),
            (
                "window = \"total\"\nrolling = true\nlimit_usd = 1",
                "cannot roll",
            ),
            ("window = \"rolling 5y\"\nlimit_usd = 1", "rolling 24h"),
            (
                "window = \"day\"\nlimit_usd = 1\non_exceed = \"downgrade\"",
                "downgrade_to",
            ),
            (
                "window = \"day\"\nlimit_usd = 1\ndowngrade_to = \"m\"",
                "on_exceed",
            ),
        ] {
            let error = parse(&format!("[[cap]]\nname = \"a\"\n{rest}\n")).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let error = parse("[alerts]\nwebhook = \"hooks.example\"\n").unwrap_err();
        assert!(error.contains("https://"), "{error}");
    }
}
