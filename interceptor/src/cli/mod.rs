//! The command line: each command parses its arguments, does one thing, and returns an exit code:
//! 0 done, 1 failed, 2 usage.

mod ca;
mod caps;
mod doctor;
mod policy;
mod prices;
mod status;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::capture::Mode;
use crate::demo;
use crate::ledger::LedgerOptions;
use crate::process::config::{Config, usd};
use crate::process::state::StateDirectory;
use crate::report;
use crate::run::{self, Ended};

/// Sees, prices, caps and cache-repairs the LLM calls of a program, without its knowing.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a program with its LLM calls going through Weir.
    #[command(after_help = RUN_HELP)]
    Run(RunArguments),
    /// The local certificate authority that Weir answers LLM hosts with.
    Ca(ca::Arguments),
    /// What this machine allows, what each runtime trusts, and what to do about it.
    Doctor(doctor::Arguments),
    /// What running Weir processes are doing.
    Status(status::Arguments),
    /// What was used, spent, and not seen, from the ledger.
    Report(ReportArguments),
    /// The same workload on two hosts, side by side: cache, price, completion, latency.
    Compare(CompareCommand),
    /// What caps stand at, and to raise or reset them while they are in force.
    Caps(caps::Arguments),
    /// What a configuration says, and what rewriting would do to a request.
    Policy(policy::Arguments),
    /// What models cost, which ones have no price, and price lists of others.
    Prices(prices::Arguments),
    /// Everything on this machine with simulated providers: no key, no network.
    Demo(demo::Arguments),
}

/// Where configuration and state are.
#[derive(Debug, Clone, Args)]
struct Places {
    /// Configuration file; else WEIR_CONFIG, else /etc/weir/weir.toml, else the defaults.
    #[arg(long, value_name = "FILE", global = true, display_order = LAST)]
    config: Option<PathBuf>,
    /// State directory; else WEIR_STATE_DIR, else /var/lib/weir for root, else
    /// $XDG_STATE_HOME/weir, else ~/.local/state/weir.
    #[arg(long, value_name = "DIR", global = true, display_order = LAST)]
    state_dir: Option<PathBuf>,
}

impl Places {
    fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref())?)
    }

    /// For commands that make what is missing.
    fn open_state(&self) -> anyhow::Result<StateDirectory> {
        Ok(StateDirectory::open(self.state_dir.as_deref())?)
    }

    fn ledger(&self, config: &Config) -> anyhow::Result<LedgerOptions> {
        Ok(LedgerOptions {
            state_dir: self.find_state()?.path().to_owned(),
            url: config.ledger.url.clone(),
            password_file: config.ledger.password_file.clone(),
        })
    }

    /// For commands that only read.
    fn find_state(&self) -> anyhow::Result<StateDirectory> {
        Ok(StateDirectory::find(self.state_dir.as_deref())?)
    }
}

#[derive(Debug, Args)]
struct ReportArguments {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    report: report::Arguments,
}

impl ReportArguments {
    fn run(&self, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let config = self.places.config()?;
        let ledger = self.places.ledger(&config)?;
        report::run(&self.report, &ledger, &config.fees, columns(), out)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
struct CompareCommand {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    compare: report::CompareArguments,
}

impl CompareCommand {
    fn run(&self, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let config = self.places.config()?;
        let ledger = self.places.ledger(&config)?;
        report::compare(&self.compare, &ledger, &config.fees, columns(), out)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    places: Places,
    /// How connections are captured: by programs in the kernel, by the packet filter, or by telling
    /// CMD of a proxy.
    #[arg(long, value_enum, default_value_t = ModeArgument::Auto)]
    mode: ModeArgument,
    /// Edit nothing and refuse nothing.
    #[arg(long)]
    observe: bool,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How connections are captured, as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ModeArgument {
    /// The best that works, in the order of this list.
    Auto,
    /// Programs in the kernel; needs CAP_BPF and CAP_NET_ADMIN.
    Ebpf,
    /// The packet filter (nftables); needs root.
    Redirect,
    /// HTTPS_PROXY; needs no privilege, and misses programs that ignore it.
    Proxy,
}

impl ModeArgument {
    pub(crate) fn mode(self) -> Option<Mode> {
        match self {
            Self::Auto => None,
            Self::Ebpf => Some(Mode::Ebpf),
            Self::Redirect => Some(Mode::Redirect),
            Self::Proxy => Some(Mode::Proxy),
        }
    }
}

/// Parses the command line of this process and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Usage on stderr with code 2, help and version on stdout with 0; a closed pipe is fine.
            let _unread = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut out = io::stdout().lock();
    let done = match line.command {
        Command::Run(arguments) => {
            // The command writes there.
            drop(out);
            return run_command(arguments);
        }
        Command::Ca(arguments) => ca::run(&arguments, &mut out),
        Command::Doctor(arguments) => doctor::run(&arguments, &mut out),
        Command::Status(arguments) => status::run(&arguments, &mut out),
        Command::Report(arguments) => arguments.run(&mut out),
        Command::Compare(arguments) => arguments.run(&mut out),
        Command::Caps(arguments) => caps::run(&arguments, &mut out),
        Command::Policy(arguments) => policy::run(&arguments, &mut out),
        Command::Prices(arguments) => prices::run(&arguments, &mut out),
        Command::Demo(arguments) => {
            // Several threads write there.
            drop(out);
            demo::run(&arguments)
        }
    };
    match done {
        Ok(code) => code,
        // The reader has seen enough, as in `weir status | head -1`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run_command(arguments: RunArguments) -> ExitCode {
    let arguments = run::Arguments {
        config: arguments.places.config,
        state_dir: arguments.places.state_dir,
        public_dir: None,
        mode: arguments.mode.mode(),
        observe: arguments.observe,
        command: arguments.command,
    };
    match run::run(&arguments) {
        Ok(Ended::Code(code)) => ExitCode::from(code),
        Ok(Ended::Signal(signal)) => {
            run::die_of(signal);
            // A signal that ends nobody, or that is blocked: what a shell would have said.
            ExitCode::from(u8::try_from(128_i32.saturating_add(signal as i32)).unwrap_or(u8::MAX))
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

/// How wide a table may be: as the terminal is, and as it likes where there is none.
fn columns() -> usize {
    match terminal_size::terminal_size_of(io::stdout()) {
        Some((terminal_size::Width(columns), _)) => usize::from(columns),
        None => usize::MAX,
    }
}

/// What `--json` prints: one value, for programs and for whoever looks at it.
fn print_json(value: &impl serde::Serialize, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// Amounts as `$0.1234567` or `1000000 tokens`, with commas between them, for a person: dollars
/// rounded up to a hundredth of a cent, thousands of others apart.
fn amounts(text: &str) -> String {
    let shown = text.split(", ").map(|amount| {
        if let Some(money) = usd(amount).filter(|_| amount.starts_with('$')) {
            return report::short_dollars(money);
        }
        match amount.split_once(' ') {
            Some((count, of)) => format!("{} {of}", in_thousands(count)),
            None => amount.to_owned(),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Digits in groups of three.
fn in_thousands(digits: &str) -> String {
    let mut shown = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// The error and its causes, those left out that the text before them names.
fn sentence(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |said, cause| {
            match (said.is_empty(), said.contains(&cause)) {
                (true, _) => cause,
                (false, true) => said,
                (false, false) => format!("{said}: {cause}"),
            }
        })
}

fn complain(message: &str) {
    // Where stderr is closed there is nobody to tell.
    let _unread = writeln!(io::stderr(), "weir: {message}");
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let source = error.downcast_ref::<io::Error>();
    source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Options that all commands have come behind their own.
const LAST: usize = 900;
/// What the options do not say.
const RUN_HELP: &str = "\
Examples:
  sudo weir run -- claude
  weir run --observe -- python agent.py
  weir run --mode proxy -- npx @openai/codex

The exit code is that of CMD; 127 if there is no such program, 126 if it cannot be executed, 1 if \
Weir could not be set up and CMD did not run. If a signal ends CMD, the same signal ends Weir.

Started through sudo, CMD runs as the user who typed the command line, with that user's \
environment. Weir writes to its log (in the state directory) and, at the end, a summary to stderr.

Weir serves CMD until it ends. What CMD leaves running in the background then connects directly, or \
is refused with `fail = \"closed\"`.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Line::command().debug_assert();
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = || io::Error::other("disk full");
        let told = anyhow::Error::new(cause()).context("cannot write x: disk full");
        assert_eq!(sentence(&told), "cannot write x: disk full");
        let untold = anyhow::Error::new(cause()).context("cannot write x");
        assert_eq!(sentence(&untold), "cannot write x: disk full");
    }

    #[test]
    fn amounts_are_short_enough_to_be_read() {
        for (amount, expected) in [
            ("$20.00", "$20.00"),
            ("$0.9725504", "$0.9726"),
            ("$0.946", "$0.946"),
            ("$1234.5, 1 call", "$1234.50, 1 call"),
            ("890073 tokens", "890,073 tokens"),
            ("1000000 tokens, 100 calls", "1,000,000 tokens, 100 calls"),
            ("?", "?"),
            ("", ""),
        ] {
            assert_eq!(amounts(amount), expected, "{amount}");
        }
    }

    /// What commands and those below them say at the end of their help.
    fn endings(command: &clap::Command) -> Vec<String> {
        let own = command.get_after_help().map(ToString::to_string);
        let below = command.get_subcommands().flat_map(endings);
        own.into_iter().chain(below).collect()
    }

    /// As a shell cuts it, without what is told of it behind blanks, or where it is written to.
    fn words(example: &str) -> Vec<String> {
        let typed = example.split("  ").next().unwrap_or_default();
        let typed = typed.split(" > ").next().unwrap_or_default();
        let parts = typed.split('"').enumerate().map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        parts.collect::<Vec<_>>().concat()
    }

    #[test]
    fn what_help_gives_as_an_example_can_be_typed() {
        let endings = endings(&Line::command());
        let lines = endings.iter().flat_map(|ending| ending.lines());
        let lines = lines.filter_map(|line| line.strip_prefix("  "));
        let examples = lines.map(|line| line.strip_prefix("sudo ").unwrap_or(line));
        let examples: Vec<&str> = examples.filter(|line| line.starts_with("weir ")).collect();
        assert!(examples.len() >= 20, "{examples:?}");
        for example in examples {
            let parsed = Line::try_parse_from(words(example));
            assert!(parsed.is_ok(), "{example}: {parsed:?}");
            assert!(example.chars().count() <= 78, "{example}");
        }
    }

    fn command_of(line: &[&str]) -> Vec<OsString> {
        match Line::try_parse_from(line).unwrap().command {
            Command::Run(arguments) => arguments.command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_the_program_is_its_own() {
        let expected = ["claude", "--config", "x", "--", "-p"];
        assert_eq!(
            command_of(&[&["weir", "run", "--observe", "--"], &expected[..]].concat()),
            expected
        );
        assert_eq!(
            command_of(&[&["weir", "run", "--mode=ebpf"], &expected[..]].concat()),
            expected
        );
    }

    #[test]
    fn places_are_taken_before_and_after_what_to_do_in_them() {
        for line in [
            ["weir", "report", "--state-dir", "d", "spend"],
            ["weir", "report", "spend", "--state-dir", "d"],
            ["weir", "ca", "show", "--state-dir", "d"],
        ] {
            Line::try_parse_from(line).unwrap();
        }
    }

    #[test]
    fn mistakes_are_usage() {
        for line in [
            &["weir", "run"][..],
            &["weir", "run", "--mode", "tun", "--", "true"],
            &["weir", "run", "--observ", "true"],
            &["weir", "ca"],
            &["weir", "nonsense"],
        ] {
            let error = Line::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }
}
