//! `weir caps`: what caps stand at by the ledger, and to raise or reset them while they are in force.

mod change;
mod list;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use weir_core::caps::{Cap, Caps, Change, Window};

use super::{Places, amounts};
use crate::ledger::Books;
use crate::process::config::Config;
use crate::report::short_dollars;
use crate::sidecar::{caps_of, unix_ms};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Each cap and breaker, each of its accounts, and what was changed of it by whom and why.
    List(list::Arguments),
    /// Allow more for a time.
    #[command(after_help = RAISE_HELP)]
    Raise(change::RaiseArguments),
    /// Forget what was spent in the window.
    #[command(after_help = RESET_HELP)]
    Reset(change::ResetArguments),
}

const RAISE_HELP: &str = "\
A raise holds within a second in every Weir on the ledger, survives restarts, and ends by itself.

Examples:
  weir caps raise daily --scope user=ann --usd 5 --for 2h --reason release
  weir caps raise tokens --tokens 1000000 --until 2026-12-01 --reason release";
const RESET_HELP: &str = "\
A reset holds within a second in every Weir on the ledger; calls in flight still count.

Example:
  weir caps reset daily --scope user=ann --reason \"a loop of ours\"";

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::List(arguments) => list::run(arguments, out),
        Command::Raise(arguments) => change::raise(arguments, out),
        Command::Reset(arguments) => change::reset(arguments, out),
    }
}

/// The configured caps, with what the ledger has of them.
struct Standing {
    caps: Caps,
    /// Changes that are in force.
    changes: Vec<Change>,
    books: Books,
    now_ms: i64,
    config: Config,
}

impl Standing {
    fn of(places: &Places) -> anyhow::Result<Self> {
        let config = places.config()?;
        let mut books = Books::open(&places.ledger(&config)?)?;
        let now_ms = unix_ms();
        let mut caps = Caps::new(caps_of(&config));
        let mut spent = Vec::new();
        let since = caps.replay_since_ms(now_ms).unwrap_or(now_ms);
        let others = books.read(since, |spend| spent.push(spend))?;
        caps.change(now_ms, others.changes.clone());
        for spend in spent.iter().chain(&others.spent) {
            caps.record_spend(&spend.for_caps());
        }
        caps.replace_elsewhere(now_ms, others.reserved.iter().map(|spend| spend.for_caps()));
        Ok(Self {
            caps,
            changes: others.changes,
            books,
            now_ms,
            config,
        })
    }

    fn cap(&self, name: &str) -> anyhow::Result<&Cap> {
        let Some(cap) = self.caps.caps().find(|cap| cap.name == name) else {
            let source = match &self.config.source {
                Some(path) => path.display().to_string(),
                None => "the built-in configuration".to_owned(),
            };
            let names: Vec<String> = self.caps.caps().map(|cap| quoted(&cap.name)).collect();
            bail!(
                "expected the name of a cap or breaker of {source}, found {}: there is {}",
                quoted(name),
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            );
        };
        Ok(cap)
    }
}

/// What a cap says: `$20.00 per day and $5.00 a call, each user, of provider anthropic`.
pub(super) fn terms(cap: &Cap) -> String {
    let window = match cap.window {
        Window::Total => "in all".to_owned(),
        Window::Rolling(length) => format!("in any {length}"),
        window => format!("per {window}"),
    };
    let limits = amounts(&cap.limits.to_string());
    let limits = (!limits.is_empty()).then(|| format!("{limits} {window}"));
    let per_call = cap
        .per_call
        .map(|most| format!("{} a call", short_dollars(most)));
    let limits: Vec<String> = limits.into_iter().chain(per_call).collect();
    let per: Vec<&str> = cap.per.iter().map(|of| of.as_str()).collect();
    let whose = match per.as_slice() {
        [] => "all together".to_owned(),
        per => format!("each {}", per.join(" and ")),
    };
    let only = cap
        .only
        .iter()
        .map(|(dimension, values)| format!(", of {} {}", dimension.as_str(), values.join(" or ")));
    plain(&format!(
        "{}, {whose}{}",
        limits.join(" and "),
        only.collect::<String>()
    ))
}

/// What programs and configurations named, without what would steer the terminal.
pub(super) fn plain(text: &str) -> String {
    let escaped = |character: char| -> String {
        if character.is_control() {
            character.escape_default().collect()
        } else {
            character.into()
        }
    };
    text.chars().map(escaped).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", plain(text))
}
