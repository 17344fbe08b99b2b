//! Where conversations are remembered that are edited: a database of its own in the state directory,
//! every value in it encrypted.
//!
//! A process writes only over what it has read: where another one that has the same directory was
//! faster, what both know is put together, and written again.
//!
//! Values from prompts are kept only for conversations that are edited, because those must be given
//! the same again after a restart. Those that are only watched stay in this process's memory, where
//! the latest of the others are as well, opened and read: as long as their rows are the same.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use rusqlite::{Connection, OptionalExtension as _, ffi, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_core::prompt::{Fingerprint, HashKey};
use weir_core::rewrite::{RulesId, Tree};

use crate::exchange::secret::Secret;
use crate::process::state;

/// What conversations were given.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    seal: RandomizedNonceKey,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Opened once there is something to read or write.
    database: Option<Connection>,
    /// When it was looked for last and was not there.
    absent_at: Option<Instant>,
    /// Conversations that are only watched.
    watched: Held,
    /// Conversations that are in the database, as they were in a state of their row.
    opened: Held,
    writes: u64,
}

/// What is known of conversations that begin alike.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) tree: Option<Arc<Tree>>,
    state: RowState,
}

/// The state of a row: the nonce, which each writing has of its own. None, if there is no row.
type RowState = Option<Vec<u8>>;

/// Trees in memory.
#[derive(Debug, Default)]
struct Held {
    trees: HashMap<Fingerprint, (RowState, Arc<Tree>)>,
    bytes: usize,
}

impl Store {
    /// Opens the memory in `state_dir`, and gives the key of all hashes with it. Both are under
    /// the secret that nodes share, if there is one, else under one of this directory.
    ///
    /// # Errors
    /// The secret can't be read or made.
    pub(super) fn open(state_dir: &Path, shared: Option<&Secret>) -> io::Result<(Self, HashKey)> {
        let secret = match shared {
            Some(shared) => shared.bytes().to_vec(),
            None => state::secret(
                &state_dir.join(SECRET_FILE),
                "remembered conversations go on unedited",
            )?,
        };
        let derive =
            |purpose: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), purpose);
        let seal = RandomizedNonceKey::new(&AES_256_GCM, derive(b"seal").as_ref());
        let seal = seal.map_err(io::Error::other)?;
        let mut hash = [0; 16];
        for (to, from) in hash.iter_mut().zip(derive(b"hash").as_ref()) {
            *to = *from;
        }
        let store = Self {
            path: state_dir.join(DATABASE_FILE),
            seal,
            state: Mutex::default(),
        };
        Ok((store, HashKey::new(hash)))
    }

    /// What is known of conversations that begin so.
    ///
    /// # Errors
    /// The database can't be read. That is not the same as knowing nothing.
    pub(super) fn get(&self, key: Fingerprint, now_s: i64) -> Result<Known, rusqlite::Error> {
        let watched = self.lock().watched.tree(key);
        let mut known = self.stored(key, now_s)?;
        known.tree = match (watched, known.tree) {
            (Some(watched), Some(edited)) => {
                let mut both = Tree::clone(&watched);
                both.merge(&edited);
                Some(Arc::new(both))
            }
            (watched, edited) => watched.or(edited),
        };
        Ok(known)
    }

    fn stored(&self, key: Fingerprint, now_s: i64) -> Result<Known, rusqlite::Error> {
        let sealed = match self.row(key, now_s)? {
            Row::None => return Ok(Known::default()),
            Row::Opened(known) => return Ok(known),
            Row::Sealed(sealed) => sealed,
        };
        let state: RowState = Some(sealed.iter().take(NONCE_BYTES).copied().collect());
        // What can't be opened was sealed with another secret: it is as good as forgotten.
        let tree: Option<Arc<Tree>> = self.unseal(&key.to_be_bytes(), &sealed).map(Arc::new);
        if let Some(tree) = &tree {
            let mut held = self.lock();
            held.opened
                .hold(key, state.clone(), Arc::clone(tree), OPENED);
        }
        Ok(Known { tree, state })
    }

    fn row(&self, key: Fingerprint, now_s: i64) -> Result<Row, rusqlite::Error> {
        let mut state = self.lock();
        let opened = state.opened.trees.get(&key).cloned();
        let Some(database) = self.database(&mut state, false)? else {
            return Ok(Row::None);
        };
        let opened_state = opened.as_ref().and_then(|(state, _)| state.as_deref());
        let row = database
            .prepare_cached(
                "SELECT iif(substr(sealed, 1, 12) = ?2, NULL, sealed), used_at FROM tree \
                 WHERE key = ?1",
            )?
            .query_row(params![&key.to_be_bytes()[..], opened_state], |row| {
                Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let Some((sealed, used_at)) = row else {
            return Ok(Row::None);
        };
        if now_s.saturating_sub(used_at) > TOUCH_SECONDS {
            database
                .prepare_cached("UPDATE tree SET used_at = ?2 WHERE key = ?1")?
                .execute(params![&key.to_be_bytes()[..], now_s])?;
        }
        Ok(match (sealed, opened) {
            (Some(sealed), _) => Row::Sealed(sealed),
            (None, Some((state, tree))) => Row::Opened(Known {
                tree: Some(tree),
                state,
            }),
            (None, None) => Row::None,
        })
    }

    /// Keeps what conversations were given: `tree`, which was made of what was known `before`, and
    /// what other processes have kept since.
    ///
    /// # Errors
    /// The database can't be written, or others are faster each time.
    pub(super) fn put(
        &self,
        key: Fingerprint,
        mut tree: Arc<Tree>,
        before: &Known,
        now_s: i64,
    ) -> Result<(), rusqlite::Error> {
        if !tree.has_edited() {
            self.lock().watched.hold(key, None, tree, WATCHED);
            return Ok(());
        }
        let mut before = Cow::Borrowed(&before.state);
        for _ in 0..PUTS_MAX {
            let sealed = self.seal(&key.to_be_bytes(), &*tree);
            if self.replace((key, &tree), &sealed, before.as_deref(), now_s)? {
                return Ok(());
            }
            let theirs = self.stored(key, now_s)?;
            if let Some(theirs) = &theirs.tree {
                Arc::make_mut(&mut tree).merge(theirs);
            }
            before = Cow::Owned(theirs.state);
        }
        Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_BUSY),
            Some(format!("others wrote it first {PUTS_MAX} times")),
        ))
    }

    /// Writes a row, if it is in the state `before`; whether it was.
    fn replace(
        &self,
        (key, tree): (Fingerprint, &Arc<Tree>),
        sealed: &[u8],
        before: Option<&[u8]>,
        now_s: i64,
    ) -> Result<bool, rusqlite::Error> {
        let mut state = self.lock();
        state.writes = state.writes.saturating_add(1);
        let is_due = state.writes % WRITES_BETWEEN_CLEANINGS == 1;
        let Some(database) = self.database(&mut state, true)? else {
            return Ok(false);
        };
        let bytes = key.to_be_bytes();
        let written = match before {
            None => database
                .prepare_cached(
                    "INSERT OR IGNORE INTO tree (key, sealed, used_at) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![&bytes[..], sealed, now_s])?,
            Some(before) => database
                .prepare_cached(
                    "UPDATE tree SET sealed = ?2, used_at = ?3 \
                     WHERE key = ?1 AND substr(sealed, 1, 12) = ?4",
                )?
                .execute(params![&bytes[..], sealed, now_s, before])?,
        };
        if written == 0 {
            return Ok(false);
        }
        if is_due {
            clean(database, now_s, BYTES_MAX)?;
        }
        state.watched.forget(key);
        let now = Some(sealed.iter().take(NONCE_BYTES).copied().collect());
        state.opened.hold(key, now, Arc::clone(tree), OPENED);
        Ok(true)
    }

    /// The text of a set of rules that a remembered conversation goes by.
    pub(super) fn rules(&self, id: RulesId) -> Option<String> {
        let mut state = self.lock();
        let database = self.database(&mut state, false).ok().flatten()?;
        let row = database
            .prepare_cached("SELECT source FROM rules WHERE id = ?1")
            .ok()?
            .query_row([id.cast_signed()], |row| row.get(0))
            .optional();
        row.ok().flatten()
    }

    /// Keeps the text of a set of rules.
    ///
    /// # Errors
    /// The database can't be written.
    pub(super) fn put_rules(&self, id: RulesId, source: &str) -> Result<(), rusqlite::Error> {
        let mut state = self.lock();
        if let Some(database) = self.database(&mut state, true)? {
            database.execute(
                "INSERT OR IGNORE INTO rules (id, source) VALUES (?1, ?2)",
                params![id.cast_signed(), source],
            )?;
            database.execute(
                "DELETE FROM rules WHERE rowid <= (SELECT max(rowid) FROM rules) - ?1",
                [RULE_SETS_MAX],
            )?;
        }
        Ok(())
    }

    /// Whether any conversation is known: if not, there is nothing to look up.
    pub(super) fn is_empty(&self) -> bool {
        let mut state = self.lock();
        state.watched.trees.is_empty() && !self.has_database(&mut state)
    }

    /// Whether no conversation is known that was edited.
    pub(super) fn has_only_watched(&self) -> bool {
        let mut state = self.lock();
        !self.has_database(&mut state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database; none, if it is not there and not to be made.
    fn database<'a>(
        &self,
        state: &'a mut State,
        make: bool,
    ) -> Result<Option<&'a mut Connection>, rusqlite::Error> {
        if state.database.is_none() && (make || self.has_database(state)) {
            state.database = Some(connect(&self.path, SCHEMA)?);
        }
        Ok(state.database.as_mut())
    }

    /// Whether there is a database. Another process may make it at any time, but that is not worth a
    /// look with each call.
    fn has_database(&self, state: &mut State) -> bool {
        let is_fresh = |at: Instant| at.elapsed() < ABSENCE_BELIEVED;
        if state.database.is_some() || state.absent_at.is_some_and(is_fresh) {
            return state.database.is_some();
        }
        let is_there = self.path.exists();
        state.absent_at = (!is_there).then(Instant::now);
        is_there
    }

    /// Encrypts what is plain data, for `context` alone.
    pub(super) fn seal<T: Serialize>(&self, context: &[u8], what: &T) -> Vec<u8> {
        // Strings and numbers can always be written, and what is sealed is short.
        let mut bytes = serde_json::to_vec(what).unwrap_or_default();
        match self
            .seal
            .seal_in_place_append_tag(Aad::from(context), &mut bytes)
        {
            Ok(nonce) => [&nonce.as_ref()[..], &bytes].concat(),
            Err(_unspecified) => Vec::new(),
        }
    }

    /// What [`Self::seal`] encrypted; none, if that was with another secret or for something else.
    pub(super) fn unseal<T: DeserializeOwned>(&self, context: &[u8], sealed: &[u8]) -> Option<T> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = sealed.to_vec();
        let opened = self
            .seal
            .open_in_place(nonce, Aad::from(context), &mut bytes)
            .ok()?;
        serde_json::from_slice(opened).ok()
    }
}

/// What of a row there is to know.
enum Row {
    None,
    /// It is as it was when it was opened.
    Opened(Known),
    Sealed(Vec<u8>),
}

impl Held {
    fn tree(&self, key: Fingerprint) -> Option<Arc<Tree>> {
        self.trees.get(&key).map(|(_, tree)| Arc::clone(tree))
    }

    fn hold(&mut self, key: Fingerprint, state: RowState, tree: Arc<Tree>, bounds: Bounds) {
        self.forget(key);
        self.bytes = self.bytes.saturating_add(tree.bytes());
        self.trees.insert(key, (state, tree));
        while self.trees.len() > bounds.trees_max || self.bytes > bounds.bytes_max {
            // Which one goes does not matter much: it is only watched, or can be read again.
            let any = self.trees.keys().find(|other| **other != key).copied();
            match any {
                Some(any) => self.forget(any),
                None => break,
            }
        }
    }

    fn forget(&mut self, key: Fingerprint) {
        if let Some((_, tree)) = self.trees.remove(&key) {
            self.bytes = self.bytes.saturating_sub(tree.bytes());
        }
    }
}

/// What may be held in memory.
#[derive(Clone, Copy)]
struct Bounds {
    trees_max: usize,
    /// Of what is in the trees.
    bytes_max: usize,
}

/// Opens a database of the state directory, and makes its tables.
pub(super) fn connect(path: &Path, schema: &str) -> Result<Connection, rusqlite::Error> {
    let database = Connection::open(path)?;
    // Readable by its owner alone, whatever the mask of the process says.
    if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
        tracing::warn!(%error, "expected to close the memory of conversations to others");
    }
    database.busy_timeout(BUSY_TIMEOUT)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    // A power cut may lose the last turns, which costs a miss; waiting for the disk would cost each
    // call its time.
    database.pragma_update(None, "synchronous", "OFF")?;
    database.execute_batch(schema)?;
    Ok(database)
}

/// Removes what has expired, and the oldest beyond the bounds.
fn clean(database: &Connection, now_s: i64, bytes_max: i64) -> Result<(), rusqlite::Error> {
    database.execute(
        "DELETE FROM tree WHERE used_at < ?1",
        [now_s.saturating_sub(KEPT_SECONDS)],
    )?;
    database.execute(
        "DELETE FROM tree WHERE key IN (SELECT key FROM tree ORDER BY used_at DESC LIMIT -1 OFFSET ?1)",
        [TREES_MAX],
    )?;
    // Pages that are in use: the file does not get shorter, but no longer either.
    let bytes: i64 = database.query_row(
        "SELECT (page_count - freelist_count) * page_size \
         FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        [],
        |row| row.get(0),
    )?;
    if bytes > bytes_max {
        database.execute(
            "DELETE FROM tree WHERE key IN (SELECT key FROM tree ORDER BY used_at \
             LIMIT (SELECT count(*) / 16 + 1 FROM tree))",
            [],
        )?;
    }
    Ok(())
}

const DATABASE_FILE: &str = "conversations.db";
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS tree \
     (key BLOB PRIMARY KEY, sealed BLOB NOT NULL, used_at INTEGER NOT NULL) WITHOUT ROWID;
     CREATE INDEX IF NOT EXISTS tree_used ON tree (used_at);
     CREATE TABLE IF NOT EXISTS rules (id INTEGER UNIQUE NOT NULL, source TEXT NOT NULL);";
const SECRET_FILE: &str = "conversations.secret";
/// Of AES-GCM (RFC 5116); the statements that look at it have it as a number.
const NONCE_BYTES: usize = 12;
/// How long another process may have the database.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a conversation is remembered after its last turn, in seconds: 30 days.
const KEPT_SECONDS: i64 = 30 * 24 * 3600;
/// How exactly the last use is noted, in seconds.
const TOUCH_SECONDS: i64 = 3600;
/// Conversations that are remembered; a usual one takes a few kilobytes.
const TREES_MAX: i64 = 100_000;
/// What they may take in the file, in bytes, about: then a sixteenth of them goes, the oldest first.
const BYTES_MAX: i64 = 1 << 30;
/// How long a database that was not there is taken not to be there.
const ABSENCE_BELIEVED: Duration = Duration::from_millis(100);
/// Conversations that are watched.
const WATCHED: Bounds = Bounds {
    trees_max: 4096,
    bytes_max: 32 << 20,
};
/// Conversations that are opened: a usual one is opened in no time.
const OPENED: Bounds = Bounds {
    trees_max: 256,
    bytes_max: 8 << 20,
};
/// Rule sets that are remembered.
const RULE_SETS_MAX: i64 = 64;
/// How often other processes may be faster before a turn is not remembered.
const PUTS_MAX: usize = 16;
/// How many writes lie between two cleanings.
const WRITES_BETWEEN_CLEANINGS: u64 = 256;
