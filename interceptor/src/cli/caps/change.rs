//! `weir caps raise` and `weir caps reset`: a change is a row of the ledger, which every process reads.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use weir_core::caps::{AccountUse, Amount, Cap, Change, ChangeKind, Limits, is_one_of};
use weir_core::money::Money;

use super::{Standing, list, plain, quoted, terms};
use crate::cli::{Places, print_json};
use crate::exchange::{leased_names, like_all_of};
use crate::process::config::{Known, usd};
use crate::report::Since;
use crate::run::invoking_user;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("amount").required(true).multiple(true))]
#[command(group = clap::ArgGroup::new("end").required(true))]
pub(super) struct RaiseArguments {
    #[command(flatten)]
    of: Of,
    /// Dollars more, such as 5 or 0.50.
    #[arg(long, value_name = "DOLLARS", group = "amount", value_parser = dollars)]
    usd: Option<Money>,
    /// Tokens more.
    #[arg(long, value_name = "N", group = "amount", value_parser = clap::value_parser!(u64).range(1..))]
    tokens: Option<u64>,
    /// Calls more.
    #[arg(long, value_name = "N", group = "amount", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// For how long: a number and one of m, h, d, w, such as 2h.
    #[arg(long = "for", value_name = "TIME", group = "end")]
    length: Option<Since>,
    /// Until when: 2026-12-01, 2026-12-01T18:00 (both in the time zone of the cap) or
    /// 2026-12-01T18:00:00Z.
    #[arg(long, value_name = "MOMENT", group = "end")]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ResetArguments {
    #[command(flatten)]
    of: Of,
    /// Every account of the cap.
    #[arg(long, conflicts_with = "scope")]
    all: bool,
}

#[derive(Debug, Args)]
struct Of {
    #[command(flatten)]
    places: Places,
    /// The cap or breaker, by its name.
    cap: String,
    /// The account, as `weir caps list` and refusals show it, such as user=ann; else every account.
    #[arg(long)]
    scope: Option<String>,
    /// Why: kept with the change.
    #[arg(long, value_parser = said)]
    reason: String,
    /// Who decided it, if not the user who types this, who is kept with it.
    #[arg(long, value_parser = said)]
    author: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn raise(arguments: &RaiseArguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut standing = Standing::of(&arguments.of.places)?;
    let cap = standing.cap(&arguments.of.cap)?;
    let by = Amount {
        money: arguments.usd.unwrap_or(Money::ZERO),
        tokens: arguments.tokens.unwrap_or(0),
        calls: arguments.calls.unwrap_or(0),
    };
    refuse_unlimited(cap, by)?;
    let until_ms = arguments.until_ms(cap, standing.now_ms)?;
    refuse_too_many(&standing)?;
    if let Some(scope) = &arguments.of.scope {
        account_of(&standing, cap, scope)?;
    }
    let change = arguments
        .of
        .change(ChangeKind::Raise { by, until_ms }, standing.now_ms);
    let note = unused(&standing, cap, change.scope.as_deref());
    let timezone = cap.timezone.clone();
    let number = standing.books.change(&change, &[])?;
    let change = Change { number, ..change };
    told(&change, note, arguments.of.json, &timezone, out)
}

pub(super) fn reset(arguments: &ResetArguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut standing = Standing::of(&arguments.of.places)?;
    let cap = standing.cap(&arguments.of.cap)?;
    let scope = match &arguments.of.scope {
        None if cap.per.is_empty() => Some("all"),
        None if !arguments.all => bail!(
            "expected --scope {} or --all, found neither",
            example_of(cap)
        ),
        scope => scope.as_deref(),
    };
    let mut of = arguments.of.change(ChangeKind::Reset, standing.now_ms);
    of.scope = scope.map(str::to_owned);
    // One of all accounts takes the place of those before it.
    if scope.is_some() {
        refuse_too_many(&standing)?;
    }
    let accounts = accounts_of(&standing, cap, scope)?;
    let note = unused(&standing, cap, scope);
    let timezone = cap.timezone.clone();
    let number = standing.books.change(&of, &accounts)?;
    let change = Change { number, ..of };
    told(&change, note, arguments.of.json, &timezone, out)
}

impl Of {
    fn change(&self, kind: ChangeKind, at_ms: i64) -> Change {
        let user = invoking_user();
        Change {
            number: 0,
            at_ms,
            cap: self.cap.clone(),
            scope: self.scope.clone(),
            kind,
            author: match &self.author {
                Some(author) if *author != user => format!("{author} (typed by {user})"),
                _ => user,
            },
            reason: self.reason.clone(),
        }
    }
}

impl RaiseArguments {
    fn until_ms(&self, cap: &Cap, now_ms: i64) -> anyhow::Result<i64> {
        let until_ms = match (self.length, &self.until) {
            (Some(Since::Ago(length)), _) => {
                let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
                now_ms.saturating_add(length_ms)
            }
            (Some(Since::Day(_)), _) => {
                bail!(
                    "expected --for with a number and one of m, h, d, w, such as 2h, found a day: see --until"
                )
            }
            (None, Some(text)) => moment(text, &cap.timezone)?,
            (None, None) => bail!("expected --for or --until, found neither"),
        };
        if until_ms <= now_ms {
            bail!("expected an end that is to come, found one that has passed");
        }
        if until_ms.saturating_sub(now_ms) > LONGEST_MS {
            bail!(
                "expected an end within 366 days, found a later one: change limit_usd in the configuration instead"
            );
        }
        Ok(until_ms)
    }
}

/// A moment, or a time that the clock shows in a time zone, in milliseconds since 1970.
pub(super) fn moment(text: &str, timezone: &TimeZone) -> anyhow::Result<i64> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let shown: DateTime = text.parse().with_context(|| {
        format!(
            "expected --until with a moment such as 2026-12-01T18:00, found {}",
            quoted(text)
        )
    })?;
    Ok(shown
        .to_zoned(timezone.clone())?
        .timestamp()
        .as_millisecond())
}

fn refuse_too_many(standing: &Standing) -> anyhow::Result<()> {
    if standing.changes.len() >= IN_FORCE_MAX {
        bail!(
            "expected less than {IN_FORCE_MAX} changes in force, found them all: raises that have not \
             ended, and each account's last reset, which gives way to a reset of all accounts of its \
             cap (see weir caps list --json)"
        );
    }
    Ok(())
}

/// A raise of what is not limited would do nothing.
fn refuse_unlimited(cap: &Cap, by: Amount) -> anyhow::Result<()> {
    let Limits {
        money,
        tokens,
        calls,
    } = cap.limits;
    for (is_wanted, is_limited, what) in [
        (by.money > Money::ZERO, money.is_some(), "money (--usd)"),
        (by.tokens > 0, tokens.is_some(), "tokens (--tokens)"),
        (by.calls > 0, calls.is_some(), "calls (--calls)"),
    ] {
        if is_wanted && !is_limited {
            bail!(
                "expected to raise a limit of {}, which is {}; found one on {what}, which it does not \
                 limit",
                quoted(&cap.name),
                cap.limits
            );
        }
    }
    Ok(())
}

/// What leases name the accounts that a reset concerns, as patterns of SQL.
fn accounts_of(standing: &Standing, cap: &Cap, scope: Option<&str>) -> anyhow::Result<Vec<String>> {
    let Some(scope) = scope else {
        let any = standing.caps.use_named(&cap.name, list::OTHERS);
        return Ok(any.iter().map(like_all_of).collect());
    };
    // Of a scope that can be read in two ways, each account.
    let mut uses = vec![account_of(standing, cap, scope)?];
    for (state, of) in standing.caps.uses(standing.now_ms) {
        if state.cap == cap.name && state.scope == scope {
            uses.push(of);
        }
    }
    let mut names: Vec<String> = uses
        .iter()
        .flat_map(leased_names)
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The account that is shown as `scope`, which may have nothing spent yet.
fn account_of(standing: &Standing, cap: &Cap, scope: &str) -> anyhow::Result<AccountUse> {
    let found = standing.caps.use_named(&cap.name, scope);
    let found = found.with_context(|| {
        format!(
            "expected an account of {}, such as {}, found {}",
            quoted(&cap.name),
            example_of(cap),
            quoted(scope)
        )
    })?;
    let known = Known::of(&standing.config);
    for (dimension, value) in cap.values_of(scope) {
        let name = dimension.as_str();
        if let Some(value) = value {
            let checked = known.check(dimension, value);
            checked.map_err(|why| anyhow!("--scope {name}=…: {}", plain(&why)))?;
        }
        let only = cap.only.get(&dimension);
        if only.is_some_and(|only| !is_one_of(value.unwrap_or_default(), only)) {
            bail!(
                "expected an account that {} has, which is {}; found {}, which it does not count",
                quoted(&cap.name),
                terms(cap),
                quoted(scope)
            );
        }
    }
    Ok(found)
}

/// What is to be said where nothing is counted in the one account that is changed: its name may be
/// misspelt, or its first call is to come.
fn unused(standing: &Standing, cap: &Cap, scope: Option<&str>) -> Option<String> {
    let scope = scope?;
    let states = standing.caps.states(standing.now_ms);
    let is_used = states
        .iter()
        .any(|state| state.cap == cap.name && state.scope == scope);
    (!is_used).then(|| {
        format!(
            "  nothing is counted for {} in this window; weir caps list shows the accounts that have \
             something",
            quoted(scope)
        )
    })
}

/// What accounts of a cap look like.
fn example_of(cap: &Cap) -> String {
    if cap.per.is_empty() {
        return "all".to_owned();
    }
    let named = cap.per.iter().map(|of| format!("{}=…", of.as_str()));
    format!("\"{}\"", named.collect::<Vec<_>>().join(", "))
}

fn told(
    change: &Change,
    note: Option<String>,
    json: bool,
    timezone: &TimeZone,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    if json {
        print_json(&list::change_json(change), out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (cap, line) = (quoted(&change.cap), list::change_line(change, timezone));
    writeln!(out, "{cap} {line}")?;
    if let Some(note) = note {
        writeln!(out, "{note}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn dollars(text: &str) -> Result<Money, String> {
    usd(text)
        .filter(|money| *money > Money::ZERO)
        .ok_or_else(|| {
            "expected dollars, more than none and of at most nine decimals, such as 5 or 0.50"
                .to_owned()
        })
}

/// A text that is one line, and says something.
fn said(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > SAID_MAX || plain(text) != text {
        return Err(format!(
            "expected one line of at most {SAID_MAX} characters, and not an empty one"
        ));
    }
    Ok(text.to_owned())
}

/// Changes that may be in force at once: each process reads them twice a second.
const IN_FORCE_MAX: usize = 10_000;
/// The longest that a raise may last, in milliseconds.
const LONGEST_MS: i64 = 366 * 86_400_000;
/// The longest reason and the longest name of an author, in characters.
const SAID_MAX: usize = 500;
