//! `weir policy`: what a configuration says, and what rewriting would do to a request.

mod check;
mod explain;
mod print;
mod target;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::print_json;
use crate::process::config::Config;
use target::Target;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a configuration file, and say what it would do; exit code 1 where it is not valid, or names
    /// a file that is not there.
    #[command(after_help = CHECK_EXAMPLE)]
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Say what a request's prompt consists of, what in it changes, and what rewriting would edit.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainArguments),
}

const CHECK_EXAMPLE: &str = "\
Example:
  weir policy check /etc/weir/weir.toml";
const EXPLAIN_HELP: &str = "\
The request is taken for the first of a conversation, of a workload that has all its values moved. \
Pieces of it are printed.

Examples:
  weir policy explain request.json
  weir policy explain request.json --config new.toml   with its rules
  weir policy explain request.json --host openrouter.ai";

#[derive(Debug, Args)]
struct ExplainArguments {
    /// The body of a request, as JSON.
    #[arg(value_name = "REQUEST_FILE")]
    file: PathBuf,
    /// Configuration file, for its own rules; else WEIR_CONFIG, else /etc/weir/weir.toml, else the
    /// built-in rules alone.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The host that it is for [default: what its shape tells].
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The path that it is for, which names the model of Gemini and Bedrock [default: what its shape
    /// tells].
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Check { file } => check::check(file, out),
        Command::Explain(explained) => {
            let config = Config::load(explained.config.as_deref())?;
            explain_file(explained, &config.cache.rules, out)
        }
    }
}

fn explain_file(
    arguments: &ExplainArguments,
    rules: &str,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let file = arguments.file.display();
    let body = std::fs::read(&arguments.file)
        .with_context(|| format!("expected to read a request from {file}"))?;
    let (host, path) = (arguments.host.as_deref(), arguments.path.as_deref());
    let explained = Target::of(&body, host, path)
        .and_then(|target| explain::explain(&target, rules, &body))
        .with_context(|| format!("{file}"))?;
    if arguments.json {
        print_json(&explained, out)?;
    } else {
        explained.print(out)?;
    }
    Ok(ExitCode::SUCCESS)
}
