//! `weir policy check`: what a configuration would do, in words.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use weir_core::caps::CapKind;
use weir_core::pricing::{Negotiated, PriceTable};

use crate::cli::caps::{plain, terms};
use crate::process::config::{
    CacheMode, Cap, Config, Fail, OnExceed, Secret, Subscriptions, Unpriced,
};
use crate::process::prices::PriceFiles;
use crate::process::state::StateDirectory;
use crate::sidecar::named;

pub(super) fn check(file: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let config = Config::load(Some(file))?;
    named::check(&config).with_context(|| file.display().to_string())?;
    let mut lines = Vec::new();
    connections(&config, &mut lines);
    cache(&config, &mut lines);
    caps(&config, &mut lines);
    prices(&config, &mut lines);
    lines.push(format!("records to {}", ledger(&config)));
    let doubts = named::doubts(&config, &table(&config)).into_iter();
    lines.extend(doubts.map(|doubt| format!("doubtful: {doubt}")));
    writeln!(out, "{}: valid", file.display())?;
    for line in lines {
        writeln!(out, "  {}", plain(&line))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The prices that would be in force here.
fn table(config: &Config) -> PriceTable {
    match StateDirectory::find(None) {
        Ok(state) => PriceFiles::of(state.path()).table(config),
        Err(_no_place) => PriceTable::builtin()
            .clone()
            .with_negotiated(config.pricing.negotiated.clone()),
    }
}

fn connections(config: &Config, lines: &mut Vec<String>) {
    let list = |of: &[String]| match of {
        [] => "none".to_owned(),
        of => of.join(", "),
    };
    let intercept = &config.intercept;
    let ports: Vec<String> = intercept.ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    lines.push(format!("inspects port {ports} of the known providers"));
    lines.push(format!("  and of these hosts: {}", list(&intercept.hosts)));
    lines.push(format!("  but not of these: {}", list(&intercept.ignore)));
    let fail = match intercept.fail {
        Fail::Open => "passes what it can't handle, counted (fail = \"open\")",
        Fail::Closed => "refuses what it can't handle (fail = \"closed\")",
    };
    lines.push(fail.to_owned());
    for (host, address) in &config.upstream.resolve {
        lines.push(format!("dials {address} for {host}"));
    }
    for path in &config.upstream.extra_roots {
        lines.push(format!("trusts the roots in {}", path.display()));
    }
}

fn cache(config: &Config, lines: &mut Vec<String>) {
    let cache = match config.cache.mode {
        CacheMode::Off => "says nothing about prompt caches",
        CacheMode::Observe => "explains prompt caches and edits no prompt",
        CacheMode::Rewrite => "rewrites prompts so that caches hit",
    };
    lines.push(cache.to_owned());
    let rules = config.cache.rules.lines();
    match rules.filter(|line| *line == "[[rule]]").count() {
        0 => {}
        1 => lines.push("  with 1 rule of its own".to_owned()),
        rules => lines.push(format!("  with {rules} rules of its own")),
    }
}

fn caps(config: &Config, lines: &mut Vec<String>) {
    for (name, members) in &config.teams {
        let members = members
            .iter()
            .map(|(of, values)| format!("{} {}", of.as_str(), values.join(" or ")));
        let members: Vec<String> = members.collect();
        lines.push(format!("takes for team {name}: {}", members.join("; ")));
    }
    for cap in config.caps.iter().chain(&config.breakers) {
        let act = match cap.on_exceed {
            OnExceed::Warn => "warns above".to_owned(),
            OnExceed::Block if cap.breaker => "stops at".to_owned(),
            OnExceed::Block => "caps at".to_owned(),
            OnExceed::Downgrade => format!("falls to {} above", cap.downgrade_to),
        };
        lines.push(format!("{act} {}: \"{}\"", terms(cap), cap.name));
        let how = how(cap);
        if !how.is_empty() {
            lines.push(format!("  {}", how.join("; ")));
        }
    }
    let webhook = match &config.alerts.webhook {
        None => return,
        Some(Secret::Here(_)) => "the webhook of the configuration".to_owned(),
        Some(Secret::File(path)) => format!("the URL in the file {}", path.display()),
        Some(Secret::Variable(name)) => format!("the URL in the environment variable {name}"),
    };
    lines.push(format!("posts warnings to {webhook}"));
}

/// What of a cap is not as by default, and when it warns.
fn how(cap: &Cap) -> Vec<String> {
    let mut how = Vec::new();
    let zone = cap.timezone.iana_name().unwrap_or("another time zone");
    if zone != "UTC" {
        how.push(format!("days begin in {zone}"));
    }
    if cap.kind == CapKind::Strict {
        how.push("reserves the most that calls can cost".to_owned());
    }
    if cap.clamp {
        how.push("lowers a call's limit on output before it refuses it".to_owned());
    }
    let shares = cap.warn_at_permille.iter();
    let shares: Vec<String> = shares
        .map(|permille| format!("{} %", decimal(u64::from(*permille), 1, 0)))
        .collect();
    if !shares.is_empty() {
        how.push(format!("warns at {}", shares.join(", ")));
    }
    how
}

fn prices(config: &Config, lines: &mut Vec<String>) {
    lines.push(match config.pricing.unpriced {
        Unpriced::Allow => {
            "passes calls of models without a price, uncounted in money (unpriced = \"allow\")"
                .to_owned()
        }
        Unpriced::Refuse => {
            "refuses calls of models without a price (unpriced = \"refuse\")".to_owned()
        }
        Unpriced::Flat { picos_per_token } => format!(
            "counts calls of models without a price at {} per million tokens (unpriced = \"flat\")",
            per_million(picos_per_token)
        ),
    });
    let subscriptions = match config.pricing.subscriptions {
        Subscriptions::Notional => {
            "counts nothing for calls that a subscription pays for (subscriptions = \"notional\")"
        }
        Subscriptions::Charged => {
            "counts calls that a subscription pays for as if they were billed (subscriptions = \
             \"charged\")"
        }
    };
    lines.push(subscriptions.to_owned());
    lines.extend(config.pricing.negotiated.iter().map(negotiated));
    for (host, points) in &config.fees {
        let percent = decimal(u64::from(*points), 2, 2);
        lines.push(format!("adds {percent} % to prices of {host}"));
    }
}

fn negotiated(price: &Negotiated) -> String {
    let mut text = format!("prices {}", price.model);
    if let Some(provider) = &price.provider {
        text.push_str(&format!(" at {provider}"));
    }
    if let Some(tier) = &price.tier {
        text.push_str(&format!(" for {tier}"));
    }
    for (word, at) in [("from", price.from_unix), ("until", price.until_unix)] {
        let day = at.and_then(|at| Timestamp::from_second(at).ok());
        if let Some(day) = day {
            let day = day.to_zoned(TimeZone::UTC).date();
            text.push_str(&format!(" {word} {day}"));
        }
    }
    let rates = price.per_token.iter();
    let rates = rates.map(|(kind, picos)| format!("{} {}", kind.as_str(), per_million(*picos)));
    let rates: Vec<String> = rates.collect();
    let rates = match rates.as_slice() {
        [] => None,
        rates => Some(format!("{} per million tokens", rates.join(", "))),
    };
    let off = price.factor_ppm.map(|left| {
        // Four decimals of a percent are six of the whole.
        let off = ALL_PPM.saturating_sub(left);
        format!("{} % off", decimal(off, 4, 0))
    });
    let terms: Vec<String> = rates.into_iter().chain(off).collect();
    format!("{text}: {}", terms.join(", "))
}

/// Dollars: a pico-dollar per token is a millionth of a dollar per million tokens.
fn per_million(picos_per_token: u64) -> String {
    format!("${}", decimal(picos_per_token, 6, 2))
}

/// A number of which `digits` are decimals, `least` of them shown in any case.
fn decimal(number: u64, digits: usize, least: usize) -> String {
    let padded = format!("{number:0>width$}", width = digits.saturating_add(1));
    let (whole, fraction) = padded.split_at(padded.len().saturating_sub(digits));
    let shown = fraction.trim_end_matches('0').len().max(least);
    match fraction.get(..shown) {
        None | Some("") => whole.to_owned(),
        Some(fraction) => format!("{whole}.{fraction}"),
    }
}

/// The URL without a password that may be in it.
fn ledger(config: &Config) -> String {
    // A password may stand among the options, too.
    let url = config.ledger.url.split('?').next().unwrap_or_default();
    match url.split_once("://").zip(url.rsplit_once('@')) {
        Some(((scheme, _), (credentials, place))) if credentials.contains("://") => {
            let user = credentials.rsplit("://").next().unwrap_or_default();
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{place}")
        }
        _ => url.to_owned(),
    }
}

const ALL_PPM: u64 = 1_000_000;
