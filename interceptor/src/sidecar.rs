//! The sidecar: everything that serves connections, built once and put together here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use weir_certs::Authority;
use weir_core::caps::{self, AccountState, Caps};
use weir_core::catalog::Catalog;
use weir_core::identity::{Caller, Subject};

use crate::accept;
use crate::capture::Capture;
use crate::decrypt::{Leaves, Rejections};
use crate::exchange::{Keyring, Memory};
use crate::forward::{Dialer, Forwarder, connect};
use crate::ledger::{self, Identity, Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::process::config::Config;
use crate::process::limits;

/// How often idle connections are closed and the spend of other processes is read.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);

/// What the sidecar is made of.
pub struct Parts {
    /// The configuration in force.
    pub config: Config,
    /// Where connections come from.
    pub capture: Arc<Capture>,
    /// The local CA.
    pub authority: Arc<Authority>,
    /// Where records go.
    pub ledger: Arc<Ledger>,
    /// Where the secret of key hashes is kept.
    pub state_dir: std::path::PathBuf,
}

/// What every connection shares.
pub(crate) struct Context {
    pub(crate) capture: Arc<Capture>,
    pub(crate) leaves: Leaves,
    pub(crate) rejections: Rejections,
    pub(crate) keyring: Keyring,
    pub(crate) memory: Memory,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Arc<Metrics>,
    /// One permit for each connection that may be open.
    pub(crate) connections: Arc<Semaphore>,
    rules: ArcSwap<Rules>,
    caps: Mutex<Caps>,
    drain: watch::Sender<bool>,
}

/// What follows from the configuration, and changes with it. A connection keeps the rules that it
/// began with.
pub(crate) struct Rules {
    pub(crate) config: Config,
    pub(crate) catalog: Catalog,
    pub(crate) forwarder: Forwarder,
}

impl Context {
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    pub(crate) fn caps(&self) -> MutexGuard<'_, Caps> {
        self.caps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `caps` in force, with what was spent in their windows so far.
    fn reconfigure(&self, configured: Vec<caps::Cap>) -> Result<(), LedgerError> {
        let mut caps = self.caps();
        caps.reconfigure(configured);
        let Some(since) = caps.replay_since_ms(unix_ms()) else {
            return Ok(());
        };
        self.ledger.spent_since(since, |spend| {
            as_cap_spend(&spend, |spend| caps.replay(spend))
        })
    }

    /// Resolves once the sidecar is to finish what it has and take nothing more.
    pub(crate) async fn draining(&self) {
        let mut drain = self.drain.subscribe();
        // The sender lives as long as `self`, so an error can't be.
        if drain.wait_for(|draining| *draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Rules {
    fn new(config: Config, capture: &Arc<Capture>) -> anyhow::Result<Self> {
        use anyhow::Context as _;

        let catalog = Catalog::builtin()
            .with_hosts(&config.intercept.hosts)?
            .with_ignored(&config.intercept.ignore)?;
        let mut extra_roots = Vec::new();
        for path in &config.upstream.extra_roots {
            let pem = std::fs::read(path).with_context(|| {
                format!("upstream.extra_roots: expected to read {}", path.display())
            })?;
            extra_roots.push(pem);
        }
        let roots = connect::roots(&extra_roots).map_err(anyhow::Error::msg)?;
        let resolve = config.upstream.resolve.clone();
        let dialer = Dialer::new(roots, resolve, Arc::clone(capture), limits::DIAL_TIMEOUT);
        Ok(Self {
            config,
            catalog,
            forwarder: Forwarder::new(dialer),
        })
    }
}

/// Who called, as caps know them.
pub(crate) fn caller(identity: &Identity, session: Option<&str>) -> Caller {
    Caller {
        key: identity.key_hash.clone(),
        user: identity
            .user
            .clone()
            .or_else(|| identity.uid.map(|uid| uid.to_string())),
        process: identity.program.clone(),
        cgroup: identity.cgroup.clone(),
        container: identity.container.clone(),
        session: session.map(str::to_owned),
        ..Caller::default()
    }
}

/// Hands what the ledger knows as spent to `each` as caps know it.
fn as_cap_spend(spend: &ledger::Spend, each: impl FnOnce(&caps::Spend<'_>)) {
    let caller = caller(&spend.identity, spend.session.as_deref());
    let subject = Subject {
        caller: &caller,
        provider: &spend.provider,
        host: &spend.host,
        model: spend.model.as_deref().unwrap_or_default(),
    };
    each(&caps::Spend {
        at_ms: spend.at_unix_ms,
        subject,
        amount: spend.amount,
    });
}

/// A sidecar at work.
pub struct Sidecar {
    context: Arc<Context>,
}

impl Sidecar {
    /// Starts to accept what the capture brings. Needs a tokio runtime.
    ///
    /// # Errors
    /// The configuration names something that is not there, or the ledger can't be read.
    pub fn start(parts: Parts) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let keyring = Keyring::open_or_create(&parts.state_dir)?;
        let rules = Rules::new(parts.config, &parts.capture)?;
        let context = Arc::new(Context {
            leaves: Leaves::new(parts.authority),
            rejections: Rejections::default(),
            keyring,
            memory: Memory::default(),
            metrics,
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)),
            caps: Mutex::new(Caps::new(rules.config.caps.clone())),
            rules: ArcSwap::from_pointee(rules),
            drain: watch::Sender::new(false),
            capture: parts.capture,
            ledger: parts.ledger,
        });
        context.reconfigure(context.rules().config.caps.clone())?;
        for listener in context.capture.listeners()? {
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(accept::accept_all(Arc::clone(&context), listener));
        }
        tokio::spawn(beat(Arc::clone(&context)));
        tokio::spawn(keep_house(Arc::clone(&context)));
        Ok(Self { context })
    }

    /// The metrics of this process.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.context.metrics
    }

    /// The accounts of all caps.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountState> {
        self.context.caps().states(unix_ms())
    }

    /// Puts another configuration in force, for connections from now on. Ports and the way of
    /// capture stay as they were.
    ///
    /// # Errors
    /// As [`Self::start`]; the old configuration then stays in force.
    pub fn reload(&self, config: Config) -> anyhow::Result<()> {
        let rules = Rules::new(config, &self.context.capture)?;
        self.context.reconfigure(rules.config.caps.clone())?;
        self.context.rules.store(Arc::new(rules));
        Ok(())
    }

    /// Takes no more connections and waits for those that are open; false where that took
    /// longer than `timeout`.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.context.drain.send_replace(true);
        let all = u32::try_from(limits::CONNECTIONS_MAX).unwrap_or(u32::MAX);
        let closed = self.context.connections.acquire_many(all);
        tokio::time::timeout(timeout, closed).await.is_ok()
    }
}

/// Tells the kernel that Weir is alive, from the runtime that serves connections: if that hangs,
/// or has all the connections that it may have, the kernel lets new ones go direct.
async fn beat(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(limits::HEARTBEAT_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.draining() => return,
        }
        if context.connections.available_permits() == 0 {
            continue;
        }
        if let Err(error) = context.capture.heartbeat() {
            tracing::error!(%error, "expected to tell the kernel that Weir is alive");
        }
    }
}

async fn keep_house(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.draining() => return,
        }
        let rules = context.rules();
        rules.forwarder.close_idle(limits::POOL_IDLE_TIMEOUT);
        if rules.config.caps.is_empty() {
            continue;
        }
        let ledger = Arc::clone(&context.ledger);
        let polled = tokio::task::spawn_blocking(move || ledger.poll_others()).await;
        match polled {
            Ok(Ok(others)) => {
                let mut caps = context.caps();
                for spend in &others.spent {
                    as_cap_spend(spend, |spend| caps.record_spend(spend));
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "expected to read what others spent"),
            Err(error) => tracing::error!(%error, "reading what others spent ended"),
        }
    }
}

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
