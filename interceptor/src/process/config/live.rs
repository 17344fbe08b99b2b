//! The configuration of a running process: replaced as a whole when its file changes, kept where
//! the new text is invalid.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tracing::{info, warn};

use super::{Config, ConfigError, path};
use crate::process::limits::CONFIG_POLL_INTERVAL;

/// The configuration in force, and the file that it follows.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Config>,
    path: Option<PathBuf>,
    observe: bool,
    /// What the file looked like when it was read last.
    seen: Mutex<Option<Stamp>>,
}

impl Live {
    /// Loads as [`Config::load`] does. With `observe`, each configuration, also a later one, has
    /// [`Config::observe`] set.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(given: Option<&Path>, observe: bool) -> Result<Self, ConfigError> {
        let path = path(given);
        // Taken before reading: a change in between is then seen as one.
        let seen = path.as_deref().and_then(Stamp::of);
        let mut config = Config::load(path.as_deref())?;
        config.observe = observe;
        let current = ArcSwap::from_pointee(config);
        Ok(Self {
            current,
            path,
            observe,
            seen: Mutex::new(seen),
        })
    }

    /// A configuration without a file, for tests and the demo.
    #[must_use]
    pub fn fixed(config: Config) -> Self {
        let observe = config.observe;
        let current = ArcSwap::from_pointee(config);
        Self {
            current,
            path: None,
            observe,
            seen: Mutex::new(None),
        }
    }

    /// The configuration in force. Take it once per exchange: the next call may give another.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// The cell itself, for readers that keep a cache of it.
    #[must_use]
    pub fn cell(&self) -> &ArcSwap<Config> {
        &self.current
    }

    /// Reads the file again. An invalid one is refused with a line in the log.
    pub fn reload(&self) -> Reload {
        let Some(path) = &self.path else {
            return Reload::Unchanged;
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Stamp::of(path);
        match Config::load(Some(path)) {
            Err(error) => {
                warn!(%error, "configuration refused, the one before stays in force");
                Reload::Refused
            }
            Ok(mut config) => {
                config.observe = self.observe;
                let before = self.current.load();
                if **before == config {
                    return Reload::Unchanged;
                }
                for key in needs_restart(&before, &config) {
                    warn!(key, "this change takes effect when weir is started again");
                }
                self.current.store(Arc::new(config));
                info!(path = %path.display(), "configuration replaced");
                Reload::Replaced
            }
        }
    }

    /// Reads the file again if it looks different from the last time.
    pub fn reload_if_changed(&self) -> Reload {
        let Some(path) = &self.path else {
            return Reload::Unchanged;
        };
        let now = Stamp::of(path);
        // A file that is gone is being replaced, or was taken away: neither is a configuration.
        if now.is_none() || now == *self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            return Reload::Unchanged;
        }
        self.reload()
    }

    /// Follows the file until dropped.
    pub async fn follow(self: Arc<Self>) {
        let mut tick = tokio::time::interval(CONFIG_POLL_INTERVAL);
        loop {
            tick.tick().await;
            self.reload_if_changed();
        }
    }
}

/// What became of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The file says what is in force already, or there is none.
    Unchanged,
    /// A new configuration is in force.
    Replaced,
    /// The file is invalid; the old configuration is in force.
    Refused,
}

/// What is bound to sockets, kernel programs and files that were opened at the start.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let keys = [
        (
            "intercept.ports",
            before.intercept.ports != after.intercept.ports,
        ),
        (
            "intercept.fail",
            before.intercept.fail != after.intercept.fail,
        ),
        (
            "cache.secret_file",
            before.cache.secret_file != after.cache.secret_file,
        ),
        ("ledger.url", before.ledger != after.ledger),
        ("admin.listen", before.admin != after.admin),
    ];
    keys.into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect()
}

/// Enough of a file's metadata to see that it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
        })
    }
}
