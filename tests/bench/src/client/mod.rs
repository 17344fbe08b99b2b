//! The client: one thread, connections that cost as little as they can, every answer checked.

mod callers;
mod connection;
mod http2;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::job::{Answer, Job, Order, Outcome};
use crate::process;
use callers::Caller;
use connection::Target;

/// How the client is started.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to connect to; with a proxy, what to ask it for.
    #[arg(long)]
    to: SocketAddr,
    /// The CA that must have signed the certificate of the LLM host, PEM. By default the one that
    /// `NODE_EXTRA_CA_CERTS` names, as `weir run` sets it.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The CA that must have signed the certificate of other hosts, PEM.
    #[arg(long)]
    other_ca: PathBuf,
    /// A proxy that understands CONNECT.
    #[arg(long)]
    proxy: Option<SocketAddr>,
}

/// Does what it reads from standard input until that is closed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let ca = match &options.ca {
        Some(ca) => ca.clone(),
        None => std::env::var_os(CA_VARIABLE)
            .with_context(|| format!("expected --ca or {CA_VARIABLE}"))?
            .into(),
    };
    let target = Arc::new(Target::new(
        options.to,
        options.proxy,
        &ca,
        &options.other_ca,
    )?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(&target));
    // Reading standard input takes a thread that can't be interrupted.
    runtime.shutdown_background();
    served
}

async fn serve(target: &Arc<Target>) -> anyhow::Result<()> {
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    process::say(&Answer::Started {
        pid: std::process::id().cast_signed(),
    })?;
    while let Some(line) = orders.next_line().await? {
        let Order::Prepare(job) = serde_json::from_str(&line)? else {
            anyhow::bail!("expected a job first, found {line}");
        };
        let Some(outcome) = perform(target, job, &mut orders).await? else {
            break;
        };
        process::say(&Answer::Done(Box::new(outcome)))?;
    }
    Ok(())
}

/// Prepares `job`, waits for the order to go, does it. `None` where the order never came.
async fn perform(
    target: &Arc<Target>,
    job: Job,
    orders: &mut Lines<BufReader<Stdin>>,
) -> anyhow::Result<Option<Outcome>> {
    let (ready, mut prepared) = mpsc::channel(1);
    let (go, end) = watch::channel(None);
    let mut callers = JoinSet::new();
    let gate = Gate { ready, end };
    for _ in 0..job.tasks() {
        let caller = Caller::new(target, job)?;
        callers.spawn(caller.run(gate.clone()));
    }
    drop(gate);
    // Ends when each caller has said that it is ready, or failed to become it.
    while prepared.recv().await.is_some() {}
    process::say(&Answer::Ready)?;
    match orders.next_line().await? {
        None => return Ok(None),
        Some(line) => match serde_json::from_str(&line)? {
            Order::Go => {}
            Order::Prepare(_) => anyhow::bail!("expected an order to go, found {line}"),
        },
    }
    let began = Instant::now();
    go.send_replace(Some(began + job.duration()));
    let mut total = Outcome::default();
    while let Some(outcome) = callers.join_next().await {
        total.join(outcome?);
    }
    if !matches!(job, Job::Downloads { .. }) {
        total.api_calls = total.calls;
    }
    total.elapsed_ns = u64::try_from(began.elapsed().as_nanos())?;
    Ok(Some(total))
}

/// Where callers wait for each other.
#[derive(Clone)]
struct Gate {
    /// Dropped by each caller when it is ready.
    ready: mpsc::Sender<()>,
    /// When to stop; set when all may go.
    end: watch::Receiver<Option<Instant>>,
}

impl Gate {
    /// Says that the caller is ready, and returns when to stop once it may go; `None` where it
    /// never may.
    async fn pass(self) -> Option<Instant> {
        let Self { ready, mut end } = self;
        drop(ready);
        let end = end.wait_for(Option::is_some).await.ok()?;
        *end
    }
}

impl Job {
    fn tasks(self) -> usize {
        match self {
            Self::Calls { callers, .. }
            | Self::Connections { callers, .. }
            | Self::Streams { callers, .. } => callers,
            // One connection that is shared.
            Self::CallsHttp2 { .. } | Self::Downloads { .. } => 1,
            Self::Hold { streams, .. } => streams,
        }
    }

    fn duration(self) -> Duration {
        match self {
            Self::Calls { millis, .. }
            | Self::CallsHttp2 { millis, .. }
            | Self::Connections { millis, .. }
            | Self::Streams { millis, .. }
            | Self::Downloads { millis, .. } => Duration::from_millis(millis),
            Self::Hold { .. } => Duration::ZERO,
        }
    }
}

/// Names the file of the local CA alone; the other variables that `weir run` sets name bundles.
const CA_VARIABLE: &str = "NODE_EXTRA_CA_CERTS";
