//! The demo's providers, in a process of their own: they get no say in what Weir does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use weir_core::money::Money;
use weir_simulator::{Options, Simulator};

/// What the process says when it serves, as one line of JSON.
#[derive(Serialize, Deserialize)]
struct Hello {
    address: SocketAddr,
    ca_pem: String,
}

/// What it says at the end.
#[derive(Serialize, Deserialize)]
struct Bill {
    nanodollars: i64,
}

/// The running process. It ends when its standard input does, so it never outlives the demo.
pub(super) struct Providers {
    pub(super) address: SocketAddr,
    pub(super) ca_pem: String,
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Providers {
    pub(super) fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["demo", "--part", "providers"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("expected to start the simulated providers")?;
        let input = process
            .stdin
            .take()
            .context("expected its standard input")?;
        let output = process
            .stdout
            .take()
            .context("expected its standard output")?;
        let mut output = BufReader::new(output);
        let Hello { address, ca_pem } = line(&mut output)?;
        Ok(Self {
            address,
            ca_pem,
            process,
            input,
            output,
        })
    }

    /// Ends the process and returns what it would bill.
    pub(super) fn bill(self) -> anyhow::Result<Money> {
        let Self {
            mut process,
            input,
            mut output,
            ..
        } = self;
        drop(input);
        let Bill { nanodollars } = line(&mut output)?;
        process.wait()?;
        Ok(Money::from_nanos(nanodollars))
    }
}

fn line<T: for<'de> Deserialize<'de>>(output: &mut BufReader<ChildStdout>) -> anyhow::Result<T> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    serde_json::from_str(&line).context("expected a line of JSON from the simulated providers")
}

/// Serves until standard input ends.
pub(super) async fn serve() -> anyhow::Result<()> {
    let simulator = Simulator::start(Options::default())?;
    let hello = Hello {
        address: simulator.addr(),
        ca_pem: simulator.ca_pem().to_owned(),
    };
    writeln!(
        std::io::stdout().lock(),
        "{}",
        serde_json::to_string(&hello)?
    )?;
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    let bill = Bill {
        nanodollars: i64::try_from(simulator.total_nanodollars())?,
    };
    writeln!(
        std::io::stdout().lock(),
        "{}",
        serde_json::to_string(&bill)?
    )?;
    Ok(())
}
