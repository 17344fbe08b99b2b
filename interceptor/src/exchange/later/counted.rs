//! What was counted already, so that it is not counted again: hashes in a small database of the
//! state directory, which processes on it share.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use rusqlite::{Connection, TransactionBehavior};

use crate::process::block;

/// What was counted.
pub(super) struct Counted {
    path: PathBuf,
    /// Opened once there is something to note.
    database: Mutex<Option<Connection>>,
}

/// The hash of a name in parts.
pub(super) fn hash(parts: &[&str]) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let digest = context.finish();
    let first = digest.as_ref().first_chunk::<8>().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}

impl Counted {
    /// Kept in `state_dir`.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(DATABASE_FILE),
            database: Mutex::default(),
        }
    }

    /// Notes that these are counted; for each, whether it had not been before. Of two alike the
    /// second is not new, unless it follows the first: passes of one call.
    ///
    /// Where the database fails, all are new: rather twice than never. It may take as long as another
    /// process has the database, or some tenths of a second for the results of a large batch: the
    /// runtime's other tasks go on meanwhile.
    pub(super) fn add(&self, hashes: &[u64]) -> Vec<bool> {
        if hashes.is_empty() {
            return Vec::new();
        }
        block(|| self.add_now(hashes))
    }

    fn add_now(&self, hashes: &[u64]) -> Vec<bool> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let added = match &mut *database {
            Some(database) => add(database, hashes),
            closed @ None => {
                open(&self.path).and_then(|database| add(closed.insert(database), hashes))
            }
        };
        added.unwrap_or_else(|error| {
            tracing::warn!(%error, "expected to note what was counted; it may be counted again");
            vec![true; hashes.len()]
        })
    }
}

fn add(database: &mut Connection, hashes: &[u64]) -> rusqlite::Result<Vec<bool>> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut new = Vec::with_capacity(hashes.len());
    {
        let mut insert =
            transaction.prepare_cached("INSERT OR IGNORE INTO counted (hash) VALUES (?)")?;
        let mut last = None;
        for hash in hashes {
            let is_new = match last {
                Some((same, is_new)) if same == *hash => is_new,
                _ => insert.execute([hash.cast_signed()])? > 0,
            };
            last = Some((*hash, is_new));
            new.push(is_new);
        }
        transaction
            .prepare_cached("DELETE FROM counted WHERE seq <= (SELECT max(seq) FROM counted) - ?")?
            .execute([COUNTED_MAX])?;
    }
    transaction.commit()?;
    Ok(new)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    // Readable by its owner alone, whatever the mask of the process says.
    if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
        tracing::warn!(%error, "expected to close what was counted to others");
    }
    database.busy_timeout(BUSY_TIMEOUT)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS counted (seq INTEGER PRIMARY KEY, hash INTEGER NOT NULL UNIQUE) STRICT",
    )?;
    Ok(database)
}

const DATABASE_FILE: &str = "counted.db";

/// Hashes that are kept, some 20 bytes each: the results of ten batches of the largest size.
const COUNTED_MAX: i64 = 1_000_000;

/// How long another process may take with the database, in the middle of an answer.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_new_once_for_all_processes_and_after_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let [one, two, three] = ["1", "2", "3"].map(|id| hash(&["openai", "file", id]));
        let first = Counted::new(state.path());
        // Two passes of one call follow each other.
        assert_eq!(first.add(&[one, one, two]), [true, true, true]);
        assert_eq!(first.add(&[one, one]), [false, false]);
        let second = Counted::new(state.path());
        assert_eq!(second.add(&[two, three, two]), [false, true, false]);
        drop((first, second));
        let third = Counted::new(state.path());
        assert_eq!(third.add(&[three]), [false]);
        assert_eq!(third.add(&[]), [] as [bool; 0]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_go_on_while_another_process_has_the_database() {
        let state = tempfile::tempdir().unwrap();
        let counted = Counted::new(state.path());
        assert_eq!(counted.add(&[1]), [true]);
        let mut other = open(&state.path().join(DATABASE_FILE)).unwrap();
        let held = other.transaction_with_behavior(TransactionBehavior::Immediate);
        let held = held.unwrap();
        let adds = tokio::spawn(async move { counted.add(&[1]) });
        tokio::task::yield_now().await;
        let begun = std::time::Instant::now();
        tokio::spawn(async {}).await.unwrap();
        assert!(begun.elapsed() < BUSY_TIMEOUT / 2, "{:?}", begun.elapsed());
        drop(held);
        assert_eq!(adds.await.unwrap(), [false]);
    }

    #[test]
    fn the_parts_of_a_name_are_told_apart() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
