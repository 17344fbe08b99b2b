//! `weir run`: one command, its connections captured, everything gone when it ends.
//!
//! What needs privileges or forks comes first, while the process has one thread: signals, cgroup,
//! capture. Then the sidecar starts, and only when it serves does the command.

mod child;
mod invoker;
mod outer;
mod proxies;
mod session;
mod signals;
pub mod summary;
mod trust;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};
use weir_certs::trust::TrustError;
use weir_certs::{Authority, AuthorityError};
use weir_core::catalog::{BadHost, Catalog};
use weir_probes::ChildCgroup;

use crate::capture::{self, CaptureError, Mode, Opened};
use crate::process::config::{Config, ConfigError, Fail, Live};
use crate::process::leftovers::{self, Leftover, Leftovers};
use crate::process::limits::RUN_DRAIN_TIMEOUT;
use crate::process::logging::{self, LogError};
use crate::process::state::{StateDirectory, StateError};
use crate::sidecar::Sidecar;
use child::StartError;
use invoker::Invoker;
use session::Session;
use signals::Signals;
use trust::Trust;

pub use child::can_overlay;
pub(crate) use invoker::invoking_user;
pub use signals::{Ended, die_of};
pub(crate) use trust::public_files;

/// What to run, and how.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// Where the files go that the command reads; `None`: where all runs have them, for as long as
    /// programs may read them.
    pub public_dir: Option<PathBuf>,
    /// `--mode`; `None`: the best that works.
    pub mode: Option<Mode>,
    /// `--observe`: nothing is edited, nothing refused.
    pub observe: bool,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// Runs the command and returns how it ended.
///
/// # Errors
/// The command could not be started, or Weir not set up for it; the command then did not run.
pub fn run(arguments: &Arguments) -> Result<Ended, RunError> {
    let live = Live::load(arguments.config.as_deref(), arguments.observe)?;
    run_watched(arguments, live, |_| {})
}

/// The same with a configuration that is at hand, and a look at the sidecar before the command
/// starts.
///
/// # Errors
/// As [`run`].
pub fn run_watched(
    arguments: &Arguments,
    live: Live,
    watch: impl FnOnce(&Sidecar),
) -> Result<Ended, RunError> {
    let live = Arc::new(live);
    let state = StateDirectory::open(arguments.state_dir.as_deref())?;
    let log = logging::start(&state)?;
    // Arguments are not for the log: people put keys there.
    info!(
        version = env!("CARGO_PKG_VERSION"),
        program = ?arguments.command.first(),
        arguments = arguments.command.len().saturating_sub(1),
        "weir run"
    );
    clean_up(&state);
    let mut leftovers = Leftovers::start(&state).map_err(RunError::Leftovers)?;

    let invoker = Invoker::of_this_process();
    note(invoker.note.iter());
    let authority = authority(&live.config(), &state)?;
    let trust = Trust::prepare(&state, &authority, &invoker, arguments)?;
    note(&trust.notes);
    if let Some(outer) = outer::of_this_run(&state) {
        return inside(outer, arguments, invoker, trust, leftovers);
    }

    // From here on, what the terminal sends is the command's business.
    let signals = Signals::block().map_err(RunError::Signals)?;
    let open_files = raise_open_files();
    let cgroup = command_cgroup(&mut leftovers)?;
    let mut opened = open_capture(arguments, &live.config(), &invoker, &cgroup, &mut leftovers)?;
    let unseen = proxies::unseen(
        opened.capture.mode(),
        &invoker.environment,
        &hosts(&live.config())?,
    );
    opened.steps.extend(unseen);
    note(&opened.steps);

    let mut environment = invoker.environment;
    environment.extend(trust.environment);
    environment.extend(opened.capture.environment());
    let plan = child::Plan {
        command: arguments.command.clone(),
        environment,
        cgroup: procs(&cgroup)?,
        overlays: trust.overlays,
        identity: invoker.identity,
        mask: signals.before(),
        open_files,
    };
    let session = Session::start(
        Arc::clone(&live),
        opened,
        authority,
        state,
        log,
        &mut leftovers,
    )?;
    watch(session.sidecar());
    let started = child::start(plan)?;
    info!(pid = started.pid.as_raw(), "the command runs");
    note(&started.notes);

    let reload = || {
        live.reload();
    };
    let ended = signals
        .wait(started.pid, reload)
        .map_err(RunError::Signals)?;
    info!(?ended, "the command ended");
    let mut summary = session.end(RUN_DRAIN_TIMEOUT);
    summary
        .steps
        .extend(finish(&live.config(), cgroup, leftovers));
    // Nobody may be reading any more, and that is no reason for another exit code.
    let _unread = io::stderr().write_all(summary::render(&summary).as_bytes());
    Ok(ended)
}

/// Runs the command under the run that this one is inside of, process `outer`.
fn inside(
    outer: u32,
    arguments: &Arguments,
    invoker: Invoker,
    trust: Trust,
    leftovers: Leftovers,
) -> Result<Ended, RunError> {
    let signals = Signals::block().map_err(RunError::Signals)?;
    let mut environment = invoker.environment;
    environment.extend(trust.environment);
    let started = child::start(child::Plan {
        command: arguments.command.clone(),
        environment,
        // It stays where its connections are captured.
        cgroup: None,
        overlays: trust.overlays,
        identity: invoker.identity,
        mask: signals.before(),
        open_files: None,
    })?;
    info!(
        pid = started.pid.as_raw(),
        outer, "the command runs inside of another run"
    );
    note(&started.notes);
    let ended = signals
        .wait(started.pid, || {})
        .map_err(RunError::Signals)?;
    drop(leftovers.undo());
    let said = format!(
        "weir: inside of the weir run of process {outer}, which captured this by its own configuration\n"
    );
    let _unread = io::stderr().write_all(said.as_bytes());
    Ok(ended)
}

fn note<'a>(sentences: impl IntoIterator<Item = &'a String>) {
    for sentence in sentences {
        warn!("{sentence}");
    }
}

fn clean_up(state: &StateDirectory) {
    for sentence in leftovers::clean_up(state) {
        info!("{sentence}");
    }
    match weir_probes::clean_stale() {
        Ok(0) => {}
        Ok(instances) => info!(instances, "cleaned up after dead processes"),
        Err(error) => info!(%error, "no cgroups to clean up"),
    }
}

/// The CA, made at first use.
pub(crate) fn authority(config: &Config, state: &StateDirectory) -> Result<Authority, RunError> {
    let hosts = hosts(config)?;
    let authority = Authority::open_or_create(&state.authority(), &hosts)?;
    let missing = authority.missing(&hosts);
    if !missing.is_empty() {
        warn!(
            ?missing,
            "the CA does not cover these hosts, they pass uninspected: weir ca rotate"
        );
    }
    Ok(authority)
}

/// LLM hosts; each stands for those below it, too.
fn hosts(config: &Config) -> Result<Vec<String>, BadHost> {
    let catalog = Catalog::builtin().with_hosts(&config.intercept.hosts)?;
    Ok(catalog.permitted_subtrees())
}

/// Raises the limit of open files to what is allowed and returns what it was: each connection
/// takes two, and the usual limit of 1024 is a courtesy to programs that call `select`.
fn raise_open_files() -> Option<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok()?;
    Some((soft, hard))
}

fn command_cgroup(leftovers: &mut Leftovers) -> Result<Result<ChildCgroup, String>, RunError> {
    match ChildCgroup::create() {
        Ok(cgroup) => {
            let leftover = Leftover::Cgroup(cgroup.path().to_owned());
            leftovers.will_make(leftover).map_err(RunError::Leftovers)?;
            Ok(Ok(cgroup))
        }
        Err(error) if nix::unistd::geteuid().is_root() => Ok(Err(error.to_string())),
        Err(error) => Ok(Err(format!("{error}; root can make one: sudo weir run …"))),
    }
}

fn open_capture(
    arguments: &Arguments,
    config: &Config,
    invoker: &Invoker,
    cgroup: &Result<ChildCgroup, String>,
    leftovers: &mut Leftovers,
) -> Result<Opened, CaptureError> {
    let request = capture::Request {
        mode: arguments.mode,
        command: match cgroup {
            Ok(cgroup) => capture::Command::Cgroup(cgroup.path().to_owned()),
            Err(reason) => capture::Command::Descendants {
                reason: reason.clone(),
            },
        },
        uid: invoker.uid().as_raw(),
        ports: config.intercept.ports.clone(),
        fail: config.intercept.fail,
    };
    capture::open(&request, leftovers)
}

/// Opened by this process, whose rights then count when the command's process writes to it.
fn procs(cgroup: &Result<ChildCgroup, String>) -> Result<Option<std::fs::File>, RunError> {
    let Ok(cgroup) = cgroup else { return Ok(None) };
    let path = cgroup.path().join("cgroup.procs");
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    file.map(Some)
        .map_err(|source| RunError::Cgroup { path, source })
}

/// Takes everything down, unless processes of the command live on and must be refused. Says what becomes of
/// those that live on.
fn finish(
    config: &Config,
    cgroup: Result<ChildCgroup, String>,
    leftovers: Leftovers,
) -> Option<String> {
    let survivors = match &cgroup {
        Ok(cgroup) => capture::processes_in(cgroup.path()).len(),
        Err(_) => 0,
    };
    let closed = config.intercept.fail == Fail::Closed;
    let said = (survivors > 0).then(|| {
        let connections = if closed { "are refused" } else { "go direct" };
        format!("{survivors} of the command's processes live on: new connections of theirs {connections}")
    });
    note(&said);
    if survivors > 0 && closed {
        leftovers.keep();
        return said;
    }
    for failure in leftovers.undo() {
        warn!(%failure, "not cleaned up, the next start of weir tries again");
    }
    drop(cgroup);
    said
}

/// Why the command did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A host in the configuration.
    #[error("intercept.hosts: {0}")]
    Host(#[from] BadHost),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What has to be cleaned up cannot be noted.
    #[error("expected to note in the state directory what is to be cleaned up, found: {0}")]
    Leftovers(io::Error),
    /// The CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// What the command is to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The working directory is gone.
    #[error("expected a working directory, found: {0}")]
    WorkingDirectory(io::Error),
    /// Signals cannot be waited for.
    #[error("expected to wait for signals, found: {0}")]
    Signals(io::Error),
    /// Processes cannot be put into the cgroup.
    #[error("expected to write {}, found: {source}", path.display())]
    Cgroup {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Connections cannot be captured.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The sidecar does not start.
    #[error("{0:#}")]
    Sidecar(anyhow::Error),
    /// The command does not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl RunError {
    /// As `env` and `nohup` have it: 127 not found, 126 found but not executable; 1 for Weir's own.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start(StartError::NotFound { .. }) => 127,
            Self::Start(StartError::NotExecutable { .. }) => 126,
            _ => 1,
        }
    }
}
