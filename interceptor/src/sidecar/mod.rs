//! The sidecar: everything that serves connections, built once and put together here.

mod house;
pub(crate) mod named;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use weir_certs::Authority;
use weir_core::caps::{self, Caps, OnExceed, Warning};
use weir_core::catalog::Catalog;
use weir_core::pricing::PriceTable;

use crate::accept;
use crate::alerts::{self, Alerts};
use crate::capture::Capture;
use crate::decrypt::{Leaves, Rejections};
use crate::exchange::{
    self, Analyst, Behind, CacheMemory, Chains, Keyring, Memory, Pending, Rewriter, Secret,
};
use crate::forward::{Dialer, Forwarder, connect};
use crate::ledger::{Ledger, LedgerError, LedgerOptions, Spend};
use crate::metrics::{Bound, Metrics};
use crate::process;
use crate::process::clock::Clock;
use crate::process::config::{Config, Live};
use crate::process::limits;
use crate::process::prices::PriceFiles;
use crate::process::state::StateDirectory;
use crate::run::summary::Summary;

/// For records to reach the database before a cap is seeded from it.
const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// How long the end of Weir waits for other nodes to hear of the latest turns.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The grain in which memory for request bodies is counted.
pub(crate) const BODY_PERMIT_BYTES: usize = 1024;

/// What the sidecar is made of.
#[derive(Debug)]
pub struct Parts {
    /// The configuration, followed while it runs.
    pub live: Arc<Live>,
    /// Where connections come from.
    pub capture: Arc<Capture>,
    /// The local CA.
    pub authority: Authority,
    /// Where the ledger and the secret of key hashes are.
    pub state: StateDirectory,
    /// The time by which calls are dated.
    pub clock: Clock,
}

/// What every connection shares.
pub(crate) struct Context {
    pub(crate) capture: Arc<Capture>,
    pub(crate) leaves: Leaves,
    pub(crate) rejections: Rejections,
    pub(crate) keyring: Keyring,
    pub(crate) memory: Memory,
    pub(crate) analyst: Analyst,
    pub(crate) cache: CacheMemory,
    pub(crate) rewriter: Rewriter,
    pub(crate) pending: Pending,
    pub(crate) behind: Behind,
    pub(crate) chains: Chains,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Metrics,
    /// One permit for each connection that may be open.
    pub(crate) connections: Arc<Semaphore>,
    /// One permit for each [`BODY_PERMIT_BYTES`] of request bodies that may be held.
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) clock: Clock,
    live: Arc<Live>,
    state_dir: PathBuf,
    rules: ArcSwap<Rules>,
    price_files: PriceFiles,
    /// Replaced when a list is imported, or the configuration changes. An exchange keeps the table
    /// that it began with.
    prices: ArcSwap<PriceTable>,
    alerts: Alerts,
    totals: Mutex<Summary>,
    caps: Mutex<Caps>,
    drain: watch::Sender<bool>,
}

/// What follows from the configuration, and changes with it. A connection keeps the rules that it
/// began with.
pub(crate) struct Rules {
    pub(crate) config: Arc<Config>,
    pub(crate) catalog: Catalog,
    pub(crate) forwarder: Forwarder,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Writes down what was learned of calls, for the next start; `last`: all of it, since this process ends.
    fn keep_learned(&self, last: bool) {
        if let Err(error) = self.memory.save(&self.state_dir) {
            tracing::warn!(%error, "expected to keep what estimates were learned");
        }
        if let Err(error) = self.rewriter.save(&self.state_dir, last) {
            tracing::warn!(%error, "expected to keep what rewriting brings");
        }
    }

    pub(crate) fn prices(&self) -> Arc<PriceTable> {
        self.prices.load_full()
    }

    pub(crate) fn caps(&self) -> MutexGuard<'_, Caps> {
        self.caps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `configured` in force as caps, with what was spent in their windows so far. Blocks on
    /// the database, before it takes the lock that every call needs.
    ///
    /// # Errors
    /// The database can't be read; the caps then stay as they were.
    fn reconfigure(&self, configured: Vec<caps::Cap>) -> Result<(), LedgerError> {
        self.behind.finish();
        if !self.ledger.flush(FLUSH_WAIT) {
            tracing::warn!("recent records are not in the database yet, new caps miss them");
        }
        let elsewhere = self.count_others()?;
        let mut all_new = Caps::default();
        all_new.reconfigure(configured.clone());
        let mut spent = Vec::new();
        if let Some(since) = all_new.replay_since_ms(unix_ms()) {
            self.ledger.spent_since(since, |spend| spent.push(spend))?;
        }
        let mut caps = self.caps();
        caps.reconfigure(configured);
        for spend in &spent {
            caps.replay(&spend.for_caps());
        }
        caps.replace_elsewhere(unix_ms(), elsewhere.iter().map(Spend::for_caps));
        Ok(())
    }

    /// Counts what other processes on the same ledger spent and have in flight, and returns the
    /// latter. Blocks on the database.
    fn count_others(&self) -> Result<Vec<Spend>, LedgerError> {
        let others = self.ledger.poll_others()?;
        let mut caps = self.caps();
        if caps.change(unix_ms(), others.changes) {
            tracing::info!("caps were raised or reset, or a raise ended; see weir caps list");
        }
        for spend in &others.spent {
            caps.record_spend(&spend.for_caps());
        }
        caps.replace_elsewhere(unix_ms(), others.reserved.iter().map(Spend::for_caps));
        let shared = caps.take_shared_calls();
        drop(caps);
        self.metrics.counter_of(Bound::CapAccounts).inc_by(shared);
        if let Some(leases) = self.ledger.leases() {
            exchange::give_back(|| self.caps(), leases);
            self.metrics.caps.leases(leases.counts());
        }
        Ok(others.reserved)
    }

    /// Puts a configuration that has changed in force, for connections from now on. Blocks.
    fn follow(&self, config: Arc<Config>) -> anyhow::Result<()> {
        let caps = caps_of(&config);
        let prices = self.price_files.table(&config);
        let rules = Rules::new(config, &self.capture)?;
        self.reconfigure(caps)?;
        self.warn_of_doubts(&rules.config, &prices);
        self.prices.store(Arc::new(prices));
        self.rules.store(Arc::new(rules));
        Ok(())
    }

    fn warn_of_doubts(&self, config: &Config, prices: &PriceTable) {
        let split = Secret::missed_by_caps(config, self.ledger.leases().is_some());
        for doubt in split.into_iter().chain(named::doubts(config, prices)) {
            tracing::warn!("{doubt}");
        }
    }

    /// Says what reached a threshold of a cap: to the log, the metrics, and who is to be alerted.
    pub(crate) fn warn(&self, warnings: &[Warning]) {
        for warning in warnings {
            let kind = match warning {
                Warning::Exceeded(exceeded) => {
                    tracing::warn!(
                        cap = exceeded.cap, scope = exceeded.scope, limit = %exceeded.limit,
                        spent = %exceeded.spent, "a cap that only warns is exceeded"
                    );
                    "exceeded"
                }
                Warning::Reached { permille, account } => {
                    tracing::warn!(
                        cap = account.cap, scope = account.scope, limit = %account.limits,
                        spent = %account.spent.money, permille, "a share of a cap is spent"
                    );
                    "share"
                }
            };
            self.metrics.caps.warnings.with_label_values(&[kind]).inc();
            if self.rules().config.alerts.webhook.is_some() && !self.alerts.tell(warning) {
                self.metrics.bound_reached(Bound::Alerts);
            }
        }
    }

    pub(crate) fn totals(&self) -> MutexGuard<'_, Summary> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection or a call that was not inspected.
    pub(crate) fn count_not_inspected(&self, reason: &str) {
        let mut totals = self.totals();
        match totals
            .not_inspected
            .iter_mut()
            .find(|(name, _)| name == reason)
        {
            Some((_, count)) => *count = count.saturating_add(1),
            None => totals.not_inspected.push((reason.to_owned(), 1)),
        }
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

/// The caps of a configuration; those of one that only observes refuse nothing.
pub(crate) fn caps_of(config: &Config) -> Vec<caps::Cap> {
    let mut caps = [config.caps.as_slice(), config.breakers.as_slice()].concat();
    if config.observe {
        caps.iter_mut()
            .for_each(|cap| cap.on_exceed = OnExceed::Warn);
    }
    caps
}

impl Rules {
    fn new(config: Arc<Config>, capture: &Arc<Capture>) -> anyhow::Result<Self> {
        let catalog = Catalog::builtin()
            .with_hosts(&config.intercept.hosts)?
            .with_ignored(&config.intercept.ignore)?;
        let roots = connect::roots(&config.upstream.extra_roots).map_err(anyhow::Error::msg)?;
        let resolve = config.upstream.resolve.clone();
        let dialer = Dialer::new(roots, resolve, Arc::clone(capture), limits::DIAL_TIMEOUT);
        Ok(Self {
            config,
            catalog,
            forwarder: Forwarder::new(dialer),
        })
    }
}

/// A sidecar at work.
#[derive(Debug)]
pub struct Sidecar {
    context: Arc<Context>,
}

impl Sidecar {
    /// Starts to accept what the capture brings. Needs a tokio runtime.
    ///
    /// # Errors
    /// The configuration names something that is not there, or the ledger can't be opened.
    pub fn start(parts: Parts) -> anyhow::Result<Self> {
        let config = parts.live.config();
        let options = LedgerOptions {
            state_dir: parts.state.path().to_owned(),
            url: config.ledger.url.clone(),
            password_file: config.ledger.password_file.clone(),
        };
        let ledger = Ledger::open(&options)?;
        let shared = options.conversations()?;
        let secret = Secret::of(&config.cache, shared.is_some())?;
        let secret = secret.as_ref();
        let price_files = PriceFiles::of(parts.state.path());
        let (alerts, waiting) = alerts::queue();
        let metrics = Metrics::new()?;
        let untold = metrics.counter_of(Bound::Conversations);
        let context = Arc::new(Context {
            prices: ArcSwap::from_pointee(price_files.table(&config)),
            price_files,
            state_dir: parts.state.path().to_owned(),
            leaves: Leaves::new(parts.authority),
            rejections: Rejections::default(),
            keyring: secret.map_or_else(
                || Keyring::open_or_create(parts.state.path()),
                |secret| Ok(Keyring::shared(secret)),
            )?,
            memory: Memory::open(parts.state.path()),
            analyst: Analyst::start()?,
            behind: Behind::default(),
            chains: Chains::default(),
            cache: CacheMemory::default(),
            rewriter: Rewriter::open(parts.state.path(), secret, shared, untold)?,
            pending: Pending::new(parts.state.path()),
            metrics,
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)),
            bodies: Arc::new(Semaphore::new(limits::BODIES_BYTES_MAX / BODY_PERMIT_BYTES)),
            // Put in force below, with what the ledger says was spent.
            caps: Mutex::default(),
            alerts,
            totals: Mutex::default(),
            rules: ArcSwap::from_pointee(Rules::new(config, &parts.capture)?),
            clock: parts.clock,
            live: parts.live,
            drain: watch::Sender::new(false),
            capture: parts.capture,
            ledger: Arc::new(ledger),
        });
        context.caps().set_leased(context.ledger.leases().is_some());
        context.reconfigure(caps_of(&context.rules().config))?;
        context.warn_of_doubts(&context.rules().config, &context.prices());
        for listener in context.capture.listeners()? {
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(accept::accept_all(Arc::clone(&context), listener));
        }
        // Before the command can connect.
        context.capture.heartbeat()?;
        tokio::spawn(house::beat(Arc::clone(&context)));
        tokio::spawn(house::keep(Arc::clone(&context)));
        tokio::spawn(alerts::post_all(Arc::clone(&context), waiting));
        tokio::spawn(house::follow_prices(Arc::clone(&context)));
        tokio::task::spawn_blocking({
            let context = Arc::clone(&context);
            move || {
                context.rewriter.prepare(&context.rules().config.cache);
                process::give_back_memory();
            }
        });
        Ok(Self { context })
    }

    /// The ledger that this process writes, with the records of all answers that have gone out.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        self.context.behind.finish();
        &self.context.ledger
    }

    /// For `/metrics`: the Prometheus text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.context.behind.finish();
        let is_refused = self.context.live.standing().refused.is_some();
        self.context.metrics.config_refused.set(is_refused.into());
        self.context.metrics.render()
    }

    /// For `/api/v1/status`: `in_flight`, `caps`, `bypasses`, `ledger`.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        self.context.behind.finish();
        let accounts = self.context.caps().states(unix_ms());
        let not_inspected: BTreeMap<String, u64> = self
            .context
            .totals()
            .not_inspected
            .iter()
            .cloned()
            .collect();
        serde_json::json!({
            "in_flight": self.context.metrics.in_flight.get(),
            "caps": accounts.iter().map(|account| serde_json::json!({
                "name": account.cap,
                "scope": account.scope,
                "window": account.window,
                "spent": account.limits.shown(account.spent),
                "reserved": account.limits.shown(account.reserved),
                "limit": account.limits.to_string(),
                "spent_tokens": account.spent.tokens,
                "spent_calls": account.spent.calls,
                "warned_permille": account.warned_permille,
                "resets_at_unix": account.resets_at_unix,
            })).collect::<Vec<_>>(),
            "estimates": self.context.memory.error(),
            "cache": self.context.rewriter.status(unix_ms().div_euclid(1000)),
            "bypasses": not_inspected,
            "ledger": self.context.ledger.health(),
        })
    }

    /// What came of the connections so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.context.behind.finish();
        self.context.totals().clone()
    }

    /// Waits until all calls that are over are explained and in the database; false where either
    /// took longer than `timeout`. Blocks: not for a runtime's worker thread.
    #[must_use]
    pub fn settled(&self, timeout: Duration) -> bool {
        self.context.behind.finish();
        self.context.analyst.finish(timeout) && self.context.ledger.flush(timeout)
    }

    /// Has no answer settled until what is returned is dropped: for tests.
    pub fn hold_settling(&self) -> impl Drop + use<'_> {
        self.context.behind.hold()
    }

    /// Whether other nodes can read all that was told in conversations here: for tests.
    pub fn has_told(&self) -> bool {
        self.context.rewriter.has_told()
    }

    /// Whether somebody waits until all calls are explained: for tests.
    pub fn awaits_analyst(&self) -> bool {
        self.context.analyst.is_awaited()
    }

    /// Has no call explained until what is returned is dropped: for tests.
    pub fn hold_analyst(&self) -> impl Drop + use<> {
        self.context.analyst.hold()
    }

    /// Takes no more connections and waits, at most for `timeout`, until those that are open have
    /// ended and all records are in the database.
    pub async fn drain(&self, timeout: Duration) {
        self.context.drain.send_replace(true);
        let all = u32::try_from(limits::CONNECTIONS_MAX).unwrap_or(u32::MAX);
        let closed = self.context.connections.acquire_many(all);
        if tokio::time::timeout(timeout, closed).await.is_err() {
            tracing::info!("connections that are still open are given up");
        }
        self.context.rewriter.close(timeout.min(CLOSE_WAIT)).await;
        let context = Arc::clone(&self.context);
        let settled = tokio::task::spawn_blocking(move || {
            context.behind.finish();
            context.pending.give_up_all(&context);
            let is_explained = context.analyst.finish(timeout);
            context.keep_learned(true);
            context.ledger.flush(timeout) && is_explained
        })
        .await;
        if !matches!(settled, Ok(true)) {
            tracing::warn!("records wait in the journal for the next start, or are not explained");
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
