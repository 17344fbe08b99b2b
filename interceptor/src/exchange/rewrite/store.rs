//! Where conversations are remembered that are edited: a database of its own in the state directory,
//! every value in it encrypted.
//!
//! Values from prompts are kept only for conversations that are edited, because those must be given
//! the same again after a restart. Those that are only watched stay in this process's memory.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hmac, rand};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_core::prompt::{Fingerprint, HashKey};
use weir_core::rewrite::{RulesId, Tree};

use crate::exchange::secret::Secret;

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
    /// Conversations that are only watched.
    watched: HashMap<Fingerprint, Tree>,
    watched_bytes: usize,
    writes: u64,
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
            None => secret(&state_dir.join(SECRET_FILE))?,
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
    pub(super) fn get(
        &self,
        key: Fingerprint,
        now_s: i64,
    ) -> Result<Option<Tree>, rusqlite::Error> {
        let mut state = self.lock();
        if let Some(tree) = state.watched.get(&key) {
            return Ok(Some(tree.clone()));
        }
        let Some(database) = self.database(&mut state, false)? else {
            return Ok(None);
        };
        let row: Option<(Vec<u8>, i64)> = database
            .prepare_cached("SELECT sealed, used_at FROM tree WHERE key = ?1")?
            .query_row([&key.to_be_bytes()[..]], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((sealed, used_at)) = row else {
            return Ok(None);
        };
        if now_s.saturating_sub(used_at) > TOUCH_SECONDS {
            database
                .prepare_cached("UPDATE tree SET used_at = ?2 WHERE key = ?1")?
                .execute(params![&key.to_be_bytes()[..], now_s])?;
        }
        // What can't be opened was sealed with another secret: it is as good as forgotten.
        Ok(self.unseal(&key.to_be_bytes(), &sealed))
    }

    /// Keeps what a conversation was given.
    ///
    /// # Errors
    /// The database can't be written.
    pub(super) fn put(
        &self,
        key: Fingerprint,
        tree: &Tree,
        edited: bool,
        now_s: i64,
    ) -> Result<(), rusqlite::Error> {
        let mut state = self.lock();
        if !edited {
            state.watch(key, tree.clone());
            return Ok(());
        }
        state.forget(key);
        let sealed = self.seal(&key.to_be_bytes(), tree);
        state.writes = state.writes.saturating_add(1);
        let is_due = state.writes % WRITES_BETWEEN_CLEANINGS == 1;
        let Some(database) = self.database(&mut state, true)? else {
            return Ok(());
        };
        database
            .prepare_cached(
                "INSERT INTO tree (key, sealed, used_at) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (key) DO UPDATE SET sealed = ?2, used_at = ?3",
            )?
            .execute(params![&key.to_be_bytes()[..], sealed, now_s])?;
        if is_due {
            clean(database, now_s)?;
        }
        Ok(())
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
        let state = self.lock();
        state.watched.is_empty() && state.database.is_none() && !self.path.exists()
    }

    /// Whether no conversation is known that was edited.
    pub(super) fn has_only_watched(&self) -> bool {
        let state = self.lock();
        state.database.is_none() && !self.path.exists()
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
        if state.database.is_none() && (make || self.path.exists()) {
            state.database = Some(connect(&self.path, SCHEMA)?);
        }
        Ok(state.database.as_mut())
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

impl State {
    fn watch(&mut self, key: Fingerprint, tree: Tree) {
        self.forget(key);
        self.watched_bytes = self.watched_bytes.saturating_add(tree.bytes());
        self.watched.insert(key, tree);
        while self.watched.len() > TREES_WATCHED_MAX || self.watched_bytes > WATCHED_BYTES_MAX {
            // Which one goes does not matter much: it is only watched.
            let any = self.watched.keys().find(|other| **other != key).copied();
            match any {
                Some(any) => self.forget(any),
                None => break,
            }
        }
    }

    fn forget(&mut self, key: Fingerprint) {
        if let Some(tree) = self.watched.remove(&key) {
            self.watched_bytes = self.watched_bytes.saturating_sub(tree.bytes());
        }
    }
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

/// Removes what has expired, and the oldest beyond the bound.
fn clean(database: &Connection, now_s: i64) -> Result<(), rusqlite::Error> {
    database.execute(
        "DELETE FROM tree WHERE used_at < ?1",
        [now_s.saturating_sub(KEPT_SECONDS)],
    )?;
    database.execute(
        "DELETE FROM tree WHERE key IN (SELECT key FROM tree ORDER BY used_at DESC LIMIT -1 OFFSET ?1)",
        [TREES_MAX],
    )?;
    Ok(())
}

/// Reads the secret, or makes it: whole or not at all, and of two processes one makes it for both.
fn secret(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(secret) if secret.len() != SECRET_BYTES => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "expected {SECRET_BYTES} bytes in {}, found {}: remove the file, and remembered \
                     conversations go on unedited",
                    path.display(),
                    secret.len()
                ),
            ));
        }
        read => return read,
    }
    let mut secret = [0; SECRET_BYTES];
    rand::fill(&mut secret).map_err(io::Error::other)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&secret)?;
    file.as_file().sync_all()?;
    match fs::hard_link(file.path(), path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::read(path),
    }
}

const DATABASE_FILE: &str = "conversations.db";
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS tree \
     (key BLOB PRIMARY KEY, sealed BLOB NOT NULL, used_at INTEGER NOT NULL) WITHOUT ROWID;
     CREATE INDEX IF NOT EXISTS tree_used ON tree (used_at);
     CREATE TABLE IF NOT EXISTS rules (id INTEGER UNIQUE NOT NULL, source TEXT NOT NULL);";
const SECRET_FILE: &str = "conversations.secret";
const SECRET_BYTES: usize = 32;
/// Of AES-GCM (RFC 5116).
const NONCE_BYTES: usize = 12;
/// How long another process may have the database.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a conversation is remembered after its last turn, in seconds: 30 days.
const KEPT_SECONDS: i64 = 30 * 24 * 3600;
/// How exactly the last use is noted, in seconds.
const TOUCH_SECONDS: i64 = 3600;
/// Conversations that are remembered; a usual one takes a few kilobytes.
const TREES_MAX: i64 = 100_000;
/// Conversations that are watched at a time.
const TREES_WATCHED_MAX: usize = 4096;
/// What they may take in memory, in bytes.
const WATCHED_BYTES_MAX: usize = 32 << 20;
/// Rule sets that are remembered.
const RULE_SETS_MAX: i64 = 64;
/// How many writes lie between two cleanings.
const WRITES_BETWEEN_CLEANINGS: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::api::Api;
    use weir_core::prompt;
    use weir_core::rewrite::{self, Request, RuleSet, Thread};
    use weir_core::volatile::Rules;

    fn tree(key: &HashKey) -> Tree {
        let body = br#"{"system":"Working directory: /canary/secret","messages":[{"role":"user","content":"x"}]}"#;
        let prompt = prompt::read(body).unwrap();
        let thread = Thread::of(&prompt, body, key, &[]).unwrap();
        let request = Request {
            api: Api::Messages,
            model: "",
            body,
            prompt: &prompt,
            thread: &thread,
            key,
            untouchable: None,
            held_by_provider: false,
            begin: true,
            now_s: 0,
        };
        let current = RuleSet::new(Rules::builtin().unwrap(), key);
        rewrite::plan(&request, None, &current, |_| None)
            .tree
            .unwrap()
    }

    #[test]
    fn what_is_remembered_outlives_the_process_and_is_not_to_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key) = Store::open(dir.path(), None).unwrap();
        let tree = tree(&key);
        assert!(store.is_empty());
        store.put(7, &tree, true, 1000).unwrap();
        store.put_rules(1, "text").unwrap();
        drop(store);
        let (again, same_key) = Store::open(dir.path(), None).unwrap();
        assert_eq!(same_key, key);
        assert_eq!(again.get(7, 2000).unwrap(), Some(tree));
        assert_eq!(again.get(8, 2000).unwrap(), None);
        assert_eq!(again.rules(1).as_deref(), Some("text"));
        drop(again);
        for file in fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert!(
                memchr::memmem::find(&bytes, b"canary").is_none(),
                "{}",
                path.display()
            );
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o077;
            assert_eq!(mode, 0, "{}", path.display());
        }
    }

    #[test]
    fn what_is_only_watched_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key) = Store::open(dir.path(), None).unwrap();
        let tree = tree(&key);
        store.put(7, &tree, false, 1000).unwrap();
        assert_eq!(store.get(7, 1000).unwrap(), Some(tree));
        assert!(!dir.path().join(DATABASE_FILE).exists());
    }

    #[test]
    fn a_conversation_expires_after_its_last_turn() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key) = Store::open(dir.path(), None).unwrap();
        let tree = tree(&key);
        store.put(7, &tree, true, 1000).unwrap();
        let mut state = store.lock();
        let database = store.database(&mut state, true).unwrap().unwrap();
        clean(database, 1000 + KEPT_SECONDS).unwrap();
        let count = |database: &Connection| -> i64 {
            database
                .query_row("SELECT count(*) FROM tree", [], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(count(database), 1);
        clean(database, 1001 + KEPT_SECONDS).unwrap();
        assert_eq!(count(database), 0);
    }

    #[test]
    fn another_secret_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let (store, key) = Store::open(dir.path(), None).unwrap();
        store.put(7, &tree(&key), true, 1000).unwrap();
        drop(store);
        fs::remove_file(dir.path().join(SECRET_FILE)).unwrap();
        let (store, _) = Store::open(dir.path(), None).unwrap();
        assert_eq!(store.get(7, 1000).unwrap(), None);
    }
}
