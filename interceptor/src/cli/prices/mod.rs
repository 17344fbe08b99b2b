//! `weir prices`: what models cost, which calls have no price, and price lists of others.

mod check;
mod import;
mod show;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a model costs: rates with their dates, lengths, tiers and where they come from.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(show::Arguments),
    /// Calls in the ledger that have no price, and what would help.
    Check(check::Arguments),
    /// Put in force a price file of litellm, genai-prices (version 2), models.dev or OpenRouter.
    #[command(after_help = IMPORT_HELP)]
    Import(import::Arguments),
}

const SHOW_EXAMPLES: &str = "\
Examples:
  weir prices show claude-opus-5-5
  weir prices show gpt-6-sol --provider azure --at 2026-12-01";
const IMPORT_HELP: &str = "\
What the file says otherwise than the lists so far holds from now on, also in processes that run.

Examples:
  weir prices import litellm.json --dry-run
  weir prices import litellm.json
  weir prices import --remove litellm";

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Show(arguments) => show::run(arguments, out),
        Command::Check(arguments) => check::run(arguments, out),
        Command::Import(arguments) => import::run(arguments, out),
    }
}
