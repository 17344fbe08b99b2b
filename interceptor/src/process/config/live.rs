//! The configuration of a running process: replaced as a whole when its file changes, kept where
//! the new text is invalid.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;
use tracing::{info, warn};

use super::{Config, ConfigError, path};
use crate::process::limits::CONFIG_POLL_INTERVAL;

/// The configuration in force, and the file that it follows.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Config>,
    path: Option<PathBuf>,
    observe: bool,
    /// What can't change before the next start is as it says.
    at_start: Arc<Config>,
    /// What the file looked like when it was read last.
    seen: Mutex<Option<Stamp>>,
    standing: Mutex<Standing>,
    /// Why what the file says, as it is in `current`, could not be put in force.
    unfollowed: Mutex<Option<String>>,
}

/// How far the file is in force, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Why the file was refused: the configuration before is in force.
    pub refused: Option<String>,
    /// Settings of the file that take effect when Weir is started again.
    pub needs_restart: Vec<&'static str>,
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
        Ok(Self {
            path,
            seen: Mutex::new(seen),
            ..Self::fixed(config)
        })
    }

    /// A configuration without a file, for tests and the demo.
    #[must_use]
    pub fn fixed(config: Config) -> Self {
        let at_start = Arc::new(config);
        Self {
            current: ArcSwap::new(Arc::clone(&at_start)),
            path: None,
            observe: at_start.observe,
            at_start,
            seen: Mutex::default(),
            standing: Mutex::default(),
            unfollowed: Mutex::default(),
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

    /// How far the file is in force.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let mut standing = self.stands().clone();
        standing.refused = standing.refused.or_else(|| self.unfollowed().clone());
        standing
    }

    /// Notes whether what follows from the configuration could be put in force.
    pub(crate) fn note_followed(&self, followed: Result<(), String>) {
        *self.unfollowed() = followed.err().inspect(|reason| warn!(reason, "{REFUSED}"));
    }

    fn unfollowed(&self) -> MutexGuard<'_, Option<String>> {
        let reason = self.unfollowed.lock();
        reason.unwrap_or_else(PoisonError::into_inner)
    }

    fn stands(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Option<Stamp>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again. An invalid one is refused with a line in the log.
    pub fn reload(&self) -> Reload {
        let Some(path) = &self.path else {
            return Reload::Unchanged;
        };
        *self.seen() = Stamp::of(path);
        match Config::load(Some(path)) {
            Err(error) => {
                warn!(%error, "{REFUSED}");
                self.stands().refused = Some(error.to_string());
                Reload::Refused
            }
            Ok(mut config) => {
                config.observe = self.observe;
                let needs_restart = keep_until_restart(&self.at_start, &mut config);
                for key in &needs_restart {
                    warn!(key, "this change takes effect when weir is started again");
                }
                *self.stands() = Standing {
                    refused: None,
                    needs_restart,
                };
                if **self.current.load() == config {
                    return Reload::Unchanged;
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
        if now == *self.seen() {
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

/// Gives `config` what is bound to sockets, kernel programs and files that were opened at the start as
/// it was then, and returns the settings in which that differs from what the file says.
fn keep_until_restart(at_start: &Config, config: &mut Config) -> Vec<&'static str> {
    let mut differing = Vec::new();
    let (start, now) = (&at_start.intercept, &mut config.intercept);
    let mut note = |key, is_kept: bool| differing.extend(is_kept.then_some(key));
    note("intercept.ports", keep(&start.ports, &mut now.ports));
    note("intercept.fail", keep(&start.fail, &mut now.fail));
    let (start, now) = (&at_start.cache, &mut config.cache);
    note(
        "cache.secret_file",
        keep(&start.secret_file, &mut now.secret_file),
    );
    note("ledger.url", keep(&at_start.ledger, &mut config.ledger));
    note("admin.listen", keep(&at_start.admin, &mut config.admin));
    differing
}

/// Whether there was anything to keep.
fn keep<T: Clone + PartialEq>(at_start: &T, now: &mut T) -> bool {
    let differs = at_start != now;
    if differs {
        now.clone_from(at_start);
    }
    differs
}

const REFUSED: &str = "configuration refused, the one before stays in force";

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
