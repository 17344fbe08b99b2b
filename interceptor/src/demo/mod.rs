//! `weir demo`: simulated providers, a scripted agent, and the real redirect between them.
//!
//! Three processes, as in life: the providers, this one, which is `weir run`, and the agent, which
//! knows of neither.

mod agent;
mod providers;
mod screen;

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use tokio::sync::broadcast;
use weir_simulator::Simulator;
use weir_simulator::agent::Agent;

use crate::capture::Mode;
use crate::cli::ModeArgument;
use crate::ledger::Record;
use crate::process::config::{Config, Live};
use crate::run::{self, Ended};
use providers::Providers;
use screen::Screen;

/// The agent's budget in the demo: spent a few calls before its work is done.
const CONFIG: &str = r#"
[admin]
listen = "127.0.0.1:0"

[[cap]]
name = "demo budget"
window = "total"
limit_usd = 0.45
"#;

/// `weir demo`
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How connections are captured.
    #[arg(long, value_enum, default_value = "auto")]
    mode: ModeArgument,
    /// Run as one of the demo's other processes.
    #[arg(long, value_enum, hide = true)]
    part: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Providers,
    Agent,
}

/// Runs the demo, or one of its parts.
///
/// # Errors
/// Something could not be started.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(part) = arguments.part else {
        return demo(arguments.mode.mode());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match part {
            Part::Providers => providers::serve().await,
            Part::Agent => agent::run().await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn demo(mode: Option<Mode>) -> anyhow::Result<ExitCode> {
    let scratch = tempfile::Builder::new().prefix("weir-demo-").tempdir()?;
    // The agent may be another user's, who must get to its roots. What is secret has a directory
    // that is closed.
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    let providers = Providers::start()?;
    let root = scratch.path().join("simulator-root.pem");
    std::fs::write(&root, &providers.ca_pem)?;
    let mut config = Config::parse(CONFIG, "the demo's configuration".as_ref())?;
    config.upstream.extra_roots.push(root);
    let hosts = Simulator::HOSTS.iter();
    let resolve = hosts.map(|host| ((*host).to_owned(), providers.address));
    config.upstream.resolve.extend(resolve);
    let itself = std::env::current_exe().context("expected to find the program itself")?;
    let arguments = run::Arguments {
        state_dir: Some(scratch.path().join("state")),
        public_dir: Some(scratch.path().join("trust")),
        mode,
        command: [
            itself.as_os_str(),
            "demo".as_ref(),
            "--part".as_ref(),
            "agent".as_ref(),
        ]
        .map(ToOwned::to_owned)
        .to_vec(),
        ..run::Arguments::default()
    };
    introduce()?;
    let mut printer = None;
    let ended = run::run_watched(&arguments, Live::fixed(config), |sidecar| {
        let records = sidecar.ledger().subscribe();
        printer = Some(thread::spawn(move || print(records)));
    })?;
    if let Some(printer) = printer {
        printer
            .join()
            .map_err(|_panicked| anyhow::anyhow!("the printing thread panicked"))??;
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\nThe providers' own bill: {}.",
        screen::cents(providers.bill()?)
    )?;
    match ended {
        Ended::Code(code) => Ok(ExitCode::from(code)),
        Ended::Signal(signal) => anyhow::bail!("the demo's agent was ended by {signal}"),
    }
}

fn introduce() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "An agent works on a small task. Its providers are simulated, with their real\n\
         cache rules and prices; its connections are captured as those of any program.\n\
         It has $0.45: a call that may cost more than is left of that is refused.\n\
         *: the time in its system prompt is another than in the turn before, so the\n\
         cache has nothing for it. That is what cache.mode = \"rewrite\" is for.\n"
    )
}

/// Prints each call as its record is written, until the ledger is closed.
fn print(mut records: broadcast::Receiver<Arc<Record>>) -> io::Result<()> {
    let mut screen = Screen::new();
    let mut labels = Agent::labels();
    Screen::header(&mut io::stdout().lock())?;
    loop {
        match records.blocking_recv() {
            Ok(record) => {
                let what = labels.next().unwrap_or_default();
                screen.call(&mut io::stdout().lock(), what, &record)?;
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}
