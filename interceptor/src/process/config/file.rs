//! From the TOML text to the checked configuration: the raw types mirror the file and keep where
//! each value stands, so that an error names its line.
//!
//! Amounts are read from the source text, not from the number that the TOML parser made of it:
//! money never passes through a float.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use weir_core::catalog::{BadHost, Catalog};
use weir_core::volatile::{RawRule, Rules};

use super::fees::{RawFees, check_fees};
use super::patterns::{self, Known, RawPatterns};
use super::pricing::{self, RawPrice, RawPricing};
use super::{
    Admin, Cache, CacheMode, Config, ConfigError, Fail, Intercept, LEARN_DEFAULT, Ledger, Upstream,
    caps,
};
use crate::ledger;
use crate::process::limits::CONFIG_BYTES_MAX;

/// Reads and checks the file.
pub(super) fn read(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    parse(&text, path)
}

/// Checks `text`; `path` is named in errors.
pub(super) fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let source = Source { text, path };
    let raw: Raw = toml::from_str(text)
        .map_err(|error| source.invalid(error.span().unwrap_or_default(), error.message()))?;
    let intercept = check_intercept(raw.intercept, &source)?;
    let teams = patterns::check_teams(raw.teams, &intercept, &source)?;
    let known = Known {
        teams: &teams,
        intercept: &intercept,
    };
    let (caps, breakers) = caps::check(raw.cap, raw.breaker, known, &source)?;
    Ok(Config {
        source: Some(path.to_owned()),
        observe: false,
        intercept,
        upstream: check_upstream(raw.upstream, &source)?,
        cache: check_cache(raw.cache, &source)?,
        caps,
        breakers,
        teams,
        alerts: caps::check_alerts(raw.alerts, &source)?,
        fees: check_fees(raw.fees, &source)?,
        pricing: pricing::check(raw.pricing, raw.price, &source)?,
        ledger: check_ledger(raw.ledger, &source)?,
        admin: check_admin(raw.admin, &source)?,
    })
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    intercept: RawIntercept,
    upstream: RawUpstream,
    cache: RawCache,
    cap: Vec<caps::RawCap>,
    breaker: Option<Vec<caps::RawBreaker>>,
    teams: BTreeMap<String, RawPatterns>,
    alerts: caps::RawAlerts,
    fees: RawFees,
    pricing: RawPricing,
    price: Vec<RawPrice>,
    ledger: RawLedger,
    admin: RawAdmin,
    #[serde(rename = "audit")]
    _audit: RawAudit,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawIntercept {
    ports: Option<Spanned<Vec<Spanned<u16>>>>,
    hosts: Vec<Spanned<String>>,
    ignore: Vec<Spanned<String>>,
    fail: Fail,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawUpstream {
    resolve: BTreeMap<Spanned<String>, Spanned<String>>,
    extra_roots: Vec<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawCache {
    mode: CacheMode,
    learn: Option<bool>,
    secret_file: Option<PathBuf>,
    rule: Vec<Spanned<RawRule>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawLedger {
    url: Option<Spanned<String>>,
    password_file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawAdmin {
    listen: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawAudit {
    #[serde(rename = "content")]
    _content: AuditContent,
}

/// What is kept of prompts and answers: nothing. Whoever asks for more is told that there is no more.
#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum AuditContent {
    #[default]
    Off,
}

/// The text, for what stands where.
pub(super) struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Source<'_> {
    pub(super) fn invalid(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before
            .rfind('\n')
            .map_or(0, |newline| newline.saturating_add(1));
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        ConfigError::Invalid {
            path: self.path.to_owned(),
            line: before.matches('\n').count().saturating_add(1),
            column: column.saturating_add(1),
            message: message.into(),
        }
    }

    pub(super) fn at(&self, span: Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }
}

fn check_intercept(raw: RawIntercept, source: &Source<'_>) -> Result<Intercept, ConfigError> {
    let mut intercept = Intercept {
        hosts: check_hosts(raw.hosts, Catalog::with_hosts, source)?,
        ignore: check_hosts(raw.ignore, Catalog::with_ignored, source)?,
        fail: raw.fail,
        ..Intercept::default()
    };
    let Some(ports) = raw.ports else {
        return Ok(intercept);
    };
    let whole = ports.span();
    intercept.ports.clear();
    for port in ports.into_inner() {
        if *port.get_ref() == 0 {
            return Err(source.invalid(port.span(), "expected a port from 1 to 65535, found 0"));
        }
        intercept.ports.push(*port.get_ref());
    }
    if intercept.ports.is_empty() || intercept.ports.len() > PORTS_MAX {
        let found = intercept.ports.len();
        let message = format!("expected 1 to {PORTS_MAX} ports, found {found}");
        return Err(source.invalid(whole, message));
    }
    Ok(intercept)
}

/// Names that the catalogue takes by `add`, in lower case.
fn check_hosts(
    raw: Vec<Spanned<String>>,
    add: impl Fn(Catalog, &[String]) -> Result<Catalog, BadHost>,
    source: &Source<'_>,
) -> Result<Vec<String>, ConfigError> {
    raw.into_iter()
        .map(|host| {
            let name = host.get_ref().to_ascii_lowercase();
            match add(Catalog::default(), std::slice::from_ref(&name)) {
                Ok(_) => Ok(name),
                Err(error) => Err(source.invalid(host.span(), error.to_string())),
            }
        })
        .collect()
}

/// A DNS name as it stands in a server name indication, in lower case.
pub(super) fn check_host(
    span: Range<usize>,
    host: &str,
    source: &Source<'_>,
) -> Result<String, ConfigError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    if host.len() > 253 || is_address || !host.split('.').all(label) {
        let message = format!(
            "expected a host name such as \"llm.example.com\", without scheme, port or wildcard, \
             found \"{host}\""
        );
        return Err(source.invalid(span, message));
    }
    Ok(host.to_ascii_lowercase())
}

fn check_upstream(raw: RawUpstream, source: &Source<'_>) -> Result<Upstream, ConfigError> {
    let mut resolve = BTreeMap::new();
    for (host, address) in raw.resolve {
        let host = check_host(host.span(), host.get_ref(), source)?;
        resolve.insert(host, check_address(&address, source)?);
    }
    Ok(Upstream {
        resolve,
        extra_roots: raw.extra_roots,
    })
}

fn check_address(raw: &Spanned<String>, source: &Source<'_>) -> Result<SocketAddr, ConfigError> {
    raw.get_ref().parse().map_err(|_not_an_address| {
        let found = raw.get_ref();
        let message = format!(
            "expected an address with a port such as \"127.0.0.1:9443\" or \"[::1]:9443\", \
             found \"{found}\""
        );
        source.invalid(raw.span(), message)
    })
}

/// Rules are checked one by one, so that an error is at the line of its rule.
fn check_cache(raw: RawCache, source: &Source<'_>) -> Result<Cache, ConfigError> {
    let mut rules = String::new();
    for rule in raw.rule {
        let invalid = |error: String| source.invalid(rule.span(), error);
        let text = toml::to_string(rule.get_ref()).map_err(|error| invalid(error.to_string()))?;
        rules.push_str("[[rule]]\n");
        rules.push_str(&text);
        Rules::parse(&rules).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(Cache {
        mode: raw.mode,
        learn: raw.learn.unwrap_or(LEARN_DEFAULT),
        rules,
        secret_file: raw.secret_file,
    })
}

fn check_ledger(raw: RawLedger, source: &Source<'_>) -> Result<Ledger, ConfigError> {
    let password_file = raw.password_file;
    let Some(url) = raw.url else {
        return Ok(Ledger {
            password_file,
            ..Ledger::default()
        });
    };
    // What it says has no password of the URL in it.
    ledger::check_url(url.get_ref())
        .map_err(|error| source.invalid(url.span(), error.to_string()))?;
    Ok(Ledger {
        url: url.into_inner(),
        password_file,
    })
}

fn check_admin(raw: RawAdmin, source: &Source<'_>) -> Result<Admin, ConfigError> {
    let Some(listen) = raw.listen else {
        return Ok(Admin::default());
    };
    Ok(Admin {
        listen: check_address(&listen, source)?,
    })
}

/// A plain TOML decimal, `1_000.5`, as an integer of `digits` decimals; `None` where it is
/// something else, negative, finer or too large.
pub(super) fn decimal(text: &str, digits: usize) -> Option<i64> {
    let text = text.strip_prefix('+').unwrap_or(text).replace('_', "");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > digits || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<digits$}").parse().ok()
}

/// As many ports as the redirect programs take.
const PORTS_MAX: usize = 16;
/// Decimals of a nano-dollar.
pub(super) const NANO_DIGITS: usize = 9;
/// Decimals of a thousandth.
pub(super) const PERMILLE_DIGITS: usize = 3;
