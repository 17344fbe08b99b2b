//! What was learned from prompts: in memory for the workloads of this process, and encrypted in a
//! database of its own, for the next one. It is hashes and times; losing it costs three conversations.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use weir_core::prompt::Fingerprint;
use weir_core::volatile::learned::{News, Observed, Prompts, Units};

use super::store::{Store, connect};

/// What was learned, by workload.
#[derive(Debug)]
pub(super) struct Learner {
    path: PathBuf,
    known: Mutex<HashMap<Fingerprint, Shared>>,
    /// Opened with the first prompt.
    database: Mutex<Option<Connection>>,
}

/// What is known of one workload.
type Shared = Arc<Mutex<Known>>;

#[derive(Debug, Default)]
struct Known {
    /// None, before it was looked for in the database.
    prompts: Option<Arc<Prompts>>,
    used_s: i64,
    written_s: i64,
    writes: u32,
}

impl Learner {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(DATABASE_FILE),
            known: Mutex::default(),
            database: Mutex::default(),
        }
    }

    /// What is known of a workload.
    pub(super) fn prompts(&self, store: &Store, workload: Fingerprint, now_s: i64) -> Arc<Prompts> {
        let known = self.known(workload);
        let mut known = lock(&known);
        known.used_s = now_s;
        Arc::clone(self.loaded(&mut known, store, workload))
    }

    /// Learns from a prompt of a workload, and gives what is known then.
    pub(super) fn observe(
        &self,
        store: &Store,
        workload: Fingerprint,
        units: &Units<'_>,
        observed: &Observed,
    ) -> Arc<Prompts> {
        let known = self.known(workload);
        let mut known = lock(&known);
        self.loaded(&mut known, store, workload);
        let mut prompts = known.prompts.take().unwrap_or_default();
        let news = Arc::make_mut(&mut prompts).observe(units, observed);
        let age = observed.now_s.saturating_sub(known.written_s);
        let is_due = known.writes < WRITES_AT_ONCE || age >= WRITTEN_SECONDS;
        if news == News::Learned || news == News::Evidence && is_due {
            known.writes = known.writes.saturating_add(1);
            known.written_s = observed.now_s;
            if let Err(error) = self.write(store, workload, &prompts, observed.now_s) {
                tracing::warn!(%error, "what was learned from prompts is not written down");
            }
        }
        known.prompts = Some(Arc::clone(&prompts));
        prompts
    }

    fn known(&self, workload: Fingerprint) -> Shared {
        let mut all = lock(&self.known);
        if all.len() >= WORKLOADS_MAX && !all.contains_key(&workload) {
            let used = all.iter().map(|(key, known)| (lock(known).used_s, *key));
            if let Some((_, oldest)) = used.min() {
                all.remove(&oldest);
            }
        }
        Arc::clone(all.entry(workload).or_default())
    }

    /// What is known, read from the database if it was not yet. What can't be read is learned anew.
    fn loaded<'a>(
        &self,
        known: &'a mut Known,
        store: &Store,
        workload: Fingerprint,
    ) -> &'a Arc<Prompts> {
        known.prompts.get_or_insert_with(|| {
            let read = self.read(store, workload).unwrap_or_else(|error| {
                tracing::warn!(%error, "what was learned from prompts can't be read");
                None
            });
            Arc::new(read.unwrap_or_default())
        })
    }

    fn read(&self, store: &Store, workload: Fingerprint) -> rusqlite::Result<Option<Prompts>> {
        let mut database = lock(&self.database);
        if database.is_none() && !self.path.exists() {
            return Ok(None);
        }
        let sealed: Option<Vec<u8>> = self
            .open(&mut database)?
            .prepare_cached("SELECT sealed FROM workload WHERE key = ?1")?
            .query_row([&workload.to_be_bytes()[..]], |row| row.get(0))
            .optional()?;
        Ok(sealed.and_then(|sealed| store.unseal(&context(workload), &sealed)))
    }

    fn write(
        &self,
        store: &Store,
        workload: Fingerprint,
        prompts: &Prompts,
        now_s: i64,
    ) -> rusqlite::Result<()> {
        let sealed = store.seal(&context(workload), prompts);
        let mut database = lock(&self.database);
        let database = self.open(&mut database)?;
        database
            .prepare_cached(
                "INSERT INTO workload (key, sealed, used_at) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (key) DO UPDATE SET sealed = ?2, used_at = ?3",
            )?
            .execute(params![&workload.to_be_bytes()[..], sealed, now_s])?;
        database
            .prepare_cached(
                "DELETE FROM workload WHERE used_at < ?1 OR key IN \
                 (SELECT key FROM workload ORDER BY used_at DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute([now_s.saturating_sub(KEPT_SECONDS), WORKLOADS_KEPT_MAX])?;
        Ok(())
    }

    fn open<'a>(&self, database: &'a mut Option<Connection>) -> rusqlite::Result<&'a Connection> {
        if database.is_none() {
            *database = Some(connect(&self.path, SCHEMA)?);
        }
        database.as_ref().ok_or(rusqlite::Error::InvalidQuery)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a row is sealed for: nothing else can be put in its place.
fn context(workload: Fingerprint) -> Vec<u8> {
    [&b"learned"[..], &workload.to_be_bytes()].concat()
}

const DATABASE_FILE: &str = "learned.db";
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS workload \
     (key BLOB PRIMARY KEY, sealed BLOB NOT NULL, used_at INTEGER NOT NULL) WITHOUT ROWID;";
/// Workloads in memory, of at most about 420 KiB each; a usual one takes a tenth of that.
const WORKLOADS_MAX: usize = 64;
/// Workloads in the database.
const WORKLOADS_KEPT_MAX: i64 = 256;
/// How long a workload is remembered after something was learned of it, in seconds: 30 days.
const KEPT_SECONDS: i64 = 30 * 24 * 3600;
/// How many observations of a process are written down at once: short ones have few.
const WRITES_AT_ONCE: u32 = 16;
/// After how many seconds others are.
const WRITTEN_SECONDS: i64 = 60;
