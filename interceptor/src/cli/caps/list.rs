//! `weir caps list`: what the ledger says of each cap.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use weir_core::caps::{
    AccountState, AccountUse, Amount, Cap, CapKind, Change, ChangeKind, Limits, OnExceed, Quantity,
};
use weir_core::money::Money;

use super::{Standing, plain, terms};
use crate::cli::{Places, amounts, print_json};
use crate::exchange::{held_of, leased_names};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    places: Places,
    /// Only this cap or breaker.
    cap: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// An account, and what nodes may spend of it beyond what is spent, where they lease.
struct Account {
    state: AccountState,
    held: Option<Amount>,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut standing = Standing::of(&arguments.places)?;
    if let Some(name) = &arguments.cap {
        standing.cap(name)?;
    }
    let uses = standing.caps.uses(standing.now_ms);
    let names: Vec<_> = uses.iter().flat_map(|(_, of)| leased_names(of)).collect();
    let held = standing.books.held(&names)?;
    let accounts: Vec<Account> = uses
        .into_iter()
        .map(|(state, of)| account(state, &of, &held))
        .collect();
    let history = standing.books.history()?;
    let is_meant = |name: &str| arguments.cap.as_ref().is_none_or(|only| only == name);
    let caps = || standing.caps.caps().filter(|cap| is_meant(&cap.name));
    let changes = || history.iter().filter(|change| is_meant(&change.cap));
    if arguments.json {
        let caps: Vec<Value> = caps().map(|cap| cap_json(cap, &accounts)).collect();
        let changes: Vec<Value> = changes()
            .map(|change| {
                let mut json = change_json(change);
                if let Some(json) = json.as_object_mut() {
                    json.insert("in_force".to_owned(), in_force(&standing, change).into());
                }
                json
            })
            .collect();
        print_json(&json!({ "caps": caps, "changes": changes }), out)?;
        return Ok(ExitCode::SUCCESS);
    }
    for cap in caps() {
        let mine = accounts
            .iter()
            .filter(|account| account.state.cap == cap.name);
        let mine: Vec<&Account> = mine.collect();
        let changes = changes().filter(|change| change.cap == cap.name);
        let changes: Vec<&Change> = changes
            .filter(|change| in_force(&standing, change))
            .collect();
        out.write_all(describe(cap, &mine, &changes).as_bytes())?;
    }
    let over = changes()
        .filter(|change| !in_force(&standing, change))
        .count();
    if over > 0 {
        writeln!(
            out,
            "changes that are over, or of caps that are gone: {over}, see --json"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn account(state: AccountState, of: &AccountUse, held: &HashMap<String, i64>) -> Account {
    let is_leased = !held.is_empty() && of.on_exceed != OnExceed::Warn;
    Account {
        state,
        held: is_leased.then(|| held_of(of, held)),
    }
}

/// Whether a change still matters, and the cap is there.
fn in_force(standing: &Standing, change: &Change) -> bool {
    standing
        .changes
        .iter()
        .any(|one| one.number == change.number)
        && standing.caps.caps().any(|cap| cap.name == change.cap)
}

/// A few lines for one cap.
fn describe(cap: &Cap, accounts: &[&Account], changes: &[&Change]) -> String {
    let mut text = format!("{}: {}", plain(&cap.name), terms(cap));
    text.push_str(&match cap.on_exceed {
        OnExceed::Block => "\n".to_owned(),
        OnExceed::Warn => "; warns only\n".to_owned(),
        OnExceed::Downgrade => format!("; falls to {}\n", plain(&cap.downgrade_to)),
    });
    if accounts.is_empty() {
        text.push_str("  nothing is spent in this window\n");
    }
    for account in accounts {
        text.push_str(&format!("  {}\n", account_line(account, &cap.timezone)));
    }
    for change in changes {
        text.push_str(&format!("  * {}\n", change_line(change, &cap.timezone)));
    }
    text
}

fn account_line(account: &Account, timezone: &TimeZone) -> String {
    let state = &account.state;
    let of = |amount: Amount| amounts(&state.limits.shown(amount));
    let limits = amounts(&state.limits.to_string());
    let limits = match limits.as_str() {
        "" => String::new(),
        limits => format!(" of {limits}"),
    };
    let mut line = format!("{}: {}{limits} spent", plain(&state.scope), of(state.spent));
    if state.reserved != Amount::ZERO {
        line.push_str(&format!(", {} reserved", of(state.reserved)));
    }
    if let Some(held) = account.held.filter(|held| *held != Amount::ZERO) {
        line.push_str(&format!(", {} held by nodes", of(held)));
    }
    if let Some(at) = state.resets_at_unix {
        line.push_str(&format!(
            ", resets at {}",
            clock(at.saturating_mul(1000), timezone)
        ));
    }
    line
}

/// `raised by $5.00 for user=ann until …, by ann on …: a release (change 3)`.
pub(super) fn change_line(change: &Change, timezone: &TimeZone) -> String {
    let scope = match &change.scope {
        None => "each account".to_owned(),
        Some(scope) => plain(scope),
    };
    let what = match change.kind {
        ChangeKind::Raise { by, until_ms } => format!(
            "raised by {} for {scope} until {}",
            raised(by),
            clock(until_ms, timezone)
        ),
        ChangeKind::Reset => format!("reset for {scope}"),
    };
    format!(
        "{what}, by {} at {}: {} (change {})",
        plain(&change.author),
        clock(change.at_ms, timezone),
        plain(&change.reason),
        change.number
    )
}

fn raised(by: Amount) -> String {
    let all = [
        Quantity::Money(by.money),
        Quantity::Tokens(by.tokens),
        Quantity::Calls(by.calls),
    ];
    let some = all.into_iter().filter(|quantity| !quantity.is_nothing());
    let some = some.map(|quantity| quantity.to_string());
    amounts(&some.collect::<Vec<_>>().join(", "))
}

fn cap_json(cap: &Cap, accounts: &[Account]) -> Value {
    let mine = accounts
        .iter()
        .filter(|account| account.state.cap == cap.name);
    json!({
        "cap": cap.name,
        "per": cap.per,
        "window": cap.window,
        "timezone": cap.timezone.iana_name(),
        "kind": match cap.kind {
            CapKind::Expected => "expected",
            CapKind::Strict => "strict",
        },
        "on_exceed": cap.on_exceed,
        "breaker": cap.breaker,
        "limit": limits_json(cap.limits),
        "per_call_nano_usd": cap.per_call,
        "accounts": mine.map(account_json).collect::<Vec<_>>(),
    })
}

fn account_json(account: &Account) -> Value {
    let state = &account.state;
    json!({
        "scope": state.scope,
        "spent": amount_json(state.spent),
        "reserved": amount_json(state.reserved),
        "held_by_nodes": account.held.map(amount_json),
        "limit": limits_json(state.limits),
        "resets_at": state.resets_at_unix.map(|at| instant(at.saturating_mul(1000))),
    })
}

pub(super) fn change_json(change: &Change) -> Value {
    let (kind, by, until) = match change.kind {
        ChangeKind::Raise { by, until_ms } => ("raise", Some(by), Some(until_ms)),
        ChangeKind::Reset => ("reset", None, None),
    };
    json!({
        "change": change.number,
        "at": instant(change.at_ms),
        "cap": change.cap,
        "scope": change.scope,
        "kind": kind,
        "by": by.map(amount_json),
        "until": until.map(instant),
        "author": change.author,
        "reason": change.reason,
    })
}

fn amount_json(amount: Amount) -> Value {
    json!({ "nano_usd": amount.money, "tokens": amount.tokens, "calls": amount.calls })
}

fn limits_json(limits: Limits) -> Value {
    let money = limits.money.map(Money::nanos);
    json!({ "nano_usd": money, "tokens": limits.tokens, "calls": limits.calls })
}

fn instant(ms: i64) -> Option<String> {
    let at = Timestamp::from_millisecond(ms).ok()?;
    Some(at.to_string())
}

/// As clocks show it where the cap counts.
fn clock(ms: i64, timezone: &TimeZone) -> String {
    let Ok(at) = Timestamp::from_millisecond(ms) else {
        return "the end of time".to_owned();
    };
    let shown = at.to_zoned(timezone.clone());
    shown.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// The account that each cap has, used or not.
pub(super) const OTHERS: &str = "all others";
