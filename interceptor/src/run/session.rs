//! All that serves the command: the runtime, the sidecar, the heartbeat, the admin server.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};
use weir_certs::Authority;

use super::RunError;
use super::summary::Summary;
use crate::capture::{Capture, Opened};
use crate::process::admin::{self, Pages};
use crate::process::clock::Clock;
use crate::process::config::Live;
use crate::process::leftovers::{Leftover, Leftovers};
use crate::process::limits::RUN_SHUTDOWN_TIMEOUT;
use crate::process::state::StateDirectory;
use crate::sidecar::{Parts, Sidecar};

/// Serves until it is ended.
#[derive(Debug)]
pub(super) struct Session {
    sidecar: Arc<Sidecar>,
    capture: Arc<Capture>,
    steps: Vec<String>,
    state: Kept,
    runtime: Runtime,
}

/// The state directory, and which it was at the start.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    inode: Option<u64>,
}

impl Kept {
    fn of(state: &StateDirectory) -> Self {
        let path = state.path().to_owned();
        let inode = inode(&path);
        Self { path, inode }
    }

    /// Says so, if it is not there any more.
    fn loss(&self) -> Option<String> {
        (inode(&self.path) != self.inode).then(|| {
            let path = self.path.display();
            format!("the state directory {path} was removed meanwhile: what weir recorded is lost")
        })
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|found| found.ino())
}

impl Session {
    /// Starts to serve. When it returns, connections are captured and answered.
    pub(super) fn start(
        live: Arc<Live>,
        opened: Opened,
        authority: Authority,
        state: StateDirectory,
        log: PathBuf,
        leftovers: &mut Leftovers,
    ) -> Result<Self, RunError> {
        let failed = |error: std::io::Error| RunError::Sidecar(error.into());
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .thread_name("weir")
            .build()
            .map_err(failed)?;
        let Opened { capture, steps } = opened;
        info!(mode = %capture.mode(), "connections are captured");
        let capture = Arc::new(capture);
        let kept = Kept::of(&state);
        let socket = state.run().join(format!("{}.sock", leftovers.id()));
        leftovers
            .will_make(Leftover::Socket(socket.clone()))
            .map_err(RunError::Leftovers)?;
        let about = About {
            id: leftovers.id().to_owned(),
            log,
            started: Instant::now(),
        };
        let parts = Parts {
            live: Arc::clone(&live),
            capture: Arc::clone(&capture),
            authority,
            state,
            clock: Clock::System,
        };
        let sidecar = runtime
            .block_on(async { Sidecar::start(parts) })
            .map_err(RunError::Sidecar)?;
        let sidecar = Arc::new(sidecar);
        let pages = pages(
            about,
            Arc::clone(&live),
            Arc::clone(&capture),
            Arc::clone(&sidecar),
        );
        runtime.spawn(serve_admin(live.config().admin.listen, pages.clone()));
        match runtime.block_on(async { admin::listen_on_socket(&socket) }) {
            Ok(listener) => drop(runtime.spawn(admin::serve_socket(listener, pages))),
            Err(error) => warn!(%error, socket = %socket.display(), "no socket for weir status"),
        }
        runtime.spawn(live.follow());
        Ok(Self {
            sidecar,
            capture,
            steps,
            state: kept,
            runtime,
        })
    }

    pub(super) fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// Lets what is in flight end, at most for `timeout`, and stops serving.
    pub(super) fn end(self, timeout: Duration) -> Summary {
        let Self {
            sidecar,
            capture,
            mut steps,
            state,
            runtime,
        } = self;
        runtime.block_on(sidecar.drain(timeout));
        // What is still running is given up: it was told to end. Its records are written now.
        runtime.shutdown_timeout(RUN_SHUTDOWN_TIMEOUT);
        if !sidecar.settled(RUN_SHUTDOWN_TIMEOUT) {
            warn!("what was given up is not explained, or waits in the journal for the next start");
        }
        capture.close();
        steps.extend(state.loss());
        let mut summary = sidecar.summary();
        summary.mode = Some(capture.mode());
        summary.steps = steps;
        // Its last owner: the ledger commits what came late, and removes its journal.
        drop(sidecar);
        summary
    }
}

async fn serve_admin(address: std::net::SocketAddr, pages: Pages) {
    match TcpListener::bind(address).await {
        Ok(listener) => admin::serve_address(listener, pages).await,
        Err(error) => warn!(%address, %error, "no admin server: its address cannot be used"),
    }
}

/// What does not change.
struct About {
    id: String,
    log: PathBuf,
    started: Instant,
}

fn pages(about: About, live: Arc<Live>, capture: Arc<Capture>, sidecar: Arc<Sidecar>) -> Pages {
    let of_metrics = Arc::clone(&sidecar);
    let of_ready = Arc::clone(&capture);
    Pages {
        metrics: Arc::new(move || of_metrics.metrics()),
        ready: Arc::new(move || of_ready.ready()),
        status: Arc::new(move || {
            let (config, standing) = (live.config(), live.standing());
            let ready = capture.ready();
            let mut status = json!({
                "id": about.id,
                "pid": std::process::id(),
                "mode": capture.mode(),
                "uptime_s": about.started.elapsed().as_secs(),
                "ready": ready.is_ok(),
                "not_ready_reason": ready.err(),
                "fail": config.intercept.fail,
                "observe": config.observe,
                "cache_mode": config.cache.mode,
                "config": config.source,
                "config_refused": standing.refused,
                "config_needs_restart": standing.needs_restart,
                "log": about.log,
                "not_redirected": capture.skipped().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            });
            if let (Some(status), serde_json::Value::Object(more)) =
                (status.as_object_mut(), sidecar.status())
            {
                status.extend(more);
            }
            status
        }),
    }
}
