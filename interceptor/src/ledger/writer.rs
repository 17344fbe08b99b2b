//! The thread that moves the journal into the database, and what it shares with the request path.
//!
//! Nothing here fails an exchange. What the journal does not take is kept in memory, within a
//! bound, and tried again; what does not fit there is counted as dropped.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::backend::Store;
use super::frame::{Decoded, Entry, decode};
use super::journal::{Abandoned, Batch, Handed, Journal, Position, Reader};
use super::{LedgerError, LedgerHealth};
use crate::process::give_way;

/// What the request path and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) journal: Journal,
    /// Something was written since the writer last looked.
    dirty: AtomicBool,
    /// Somebody waits for a flush: how many.
    flushing: AtomicU64,
    stopping: AtomicBool,
    /// Everything before is in the database.
    committed: Mutex<Position>,
    /// The writer has done a round, whether it went well or not.
    round_done: Condvar,
    overflow: Mutex<Overflow>,
    committed_entries: AtomicU64,
    dropped_entries: AtomicU64,
    error: Mutex<Option<String>>,
}

/// Entries that the journal did not take.
#[derive(Debug, Default)]
struct Overflow {
    frames: VecDeque<Vec<u8>>,
    /// Of all, those that were taken out too.
    bytes: usize,
    /// How many more the writer has taken out, to do something about them.
    in_hand: usize,
}

impl Overflow {
    fn len(&self) -> usize {
        self.frames.len().saturating_add(self.in_hand)
    }
}

impl Shared {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            dirty: AtomicBool::new(false),
            flushing: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            committed: Mutex::default(),
            round_done: Condvar::new(),
            overflow: Mutex::default(),
            committed_entries: AtomicU64::new(0),
            dropped_entries: AtomicU64::new(0),
            error: Mutex::default(),
        }
    }

    /// Journals an entry, or keeps it in memory; returns whether the writer must be woken.
    pub(super) fn write(&self, frame: Vec<u8>, handed: Handed) -> bool {
        // What completes a record must not get ahead of it, where that waits for room.
        let follows = matches!(handed, Handed::Entry(Entry::Explained { .. }));
        if follows && lock(&self.overflow).len() > 0 {
            self.keep(frame);
        } else if let Err(error) = self.journal.append(&frame, Some(handed)) {
            *lock(&self.error) = Some(format!("journal: {error}"));
            self.keep(frame);
        }
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// Waits until everything written so far is in the database; false where that took longer.
    pub(super) fn flush(&self, writer: &thread::Thread, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        self.flushing.fetch_add(1, Ordering::AcqRel);
        writer.unpark();
        let mut target = None;
        let mut committed = lock(&self.committed);
        let done = loop {
            if lock(&self.overflow).len() > 0 {
                // What is in memory may yet be journaled, behind what is there now.
                target = None;
            } else if *committed >= *target.get_or_insert_with(|| self.journal.end()) {
                break true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            let waited = self.round_done.wait_timeout(committed, left);
            committed = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(committed);
        self.flushing.fetch_sub(1, Ordering::AcqRel);
        done
    }

    pub(super) fn stop(&self, writer: &thread::Thread) {
        self.stopping.store(true, Ordering::Release);
        writer.unpark();
    }

    pub(super) fn health(&self) -> LedgerHealth {
        LedgerHealth {
            committed: self.committed_entries.load(Ordering::Relaxed),
            journal_bytes: self.journal.backlog_bytes(),
            in_memory: u64::try_from(lock(&self.overflow).len()).unwrap_or(u64::MAX),
            dropped: self.dropped_entries.load(Ordering::Relaxed),
            error: lock(&self.error).clone(),
        }
    }

    fn keep(&self, frame: Vec<u8>) {
        let mut overflow = lock(&self.overflow);
        if overflow.bytes.saturating_add(frame.len()) > OVERFLOW_BYTES_MAX {
            self.dropped_entries.fetch_add(1, Ordering::Relaxed);
            return;
        }
        overflow.bytes = overflow.bytes.saturating_add(frame.len());
        overflow.frames.push_back(frame);
    }

    fn take_overflow(&self) -> VecDeque<Vec<u8>> {
        let mut overflow = lock(&self.overflow);
        overflow.in_hand = overflow.frames.len();
        std::mem::take(&mut overflow.frames)
    }

    /// Before what has come since, which may complete some of it.
    fn put_back(&self, mut frames: VecDeque<Vec<u8>>) {
        let mut overflow = lock(&self.overflow);
        frames.append(&mut overflow.frames);
        let lengths = frames.iter().map(Vec::len);
        overflow.bytes = lengths.fold(0, usize::saturating_add);
        overflow.frames = frames;
        overflow.in_hand = 0;
    }

    fn is_urgent(&self) -> bool {
        self.flushing.load(Ordering::Acquire) > 0 || self.is_stopping()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The writer's own state.
pub(super) struct Writer<'a> {
    shared: &'a Shared,
    store: Store,
    journals: &'a Path,
    reader: Reader,
    /// The last round failed, or left something in memory.
    behind: bool,
    recovered_at: Instant,
    logged_at: Option<Instant>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(shared: &'a Shared, store: Store, journals: &'a Path) -> Self {
        Self {
            shared,
            store,
            journals,
            reader: shared.journal.reader(),
            behind: false,
            recovered_at: Instant::now(),
            logged_at: None,
        }
    }

    /// Runs until the ledger is dropped and everything is written, or that has taken too long.
    pub(super) fn run(mut self) {
        give_way(NICENESS);
        let mut give_up_at = None;
        loop {
            self.wait();
            self.shared.dirty.store(false, Ordering::Release);
            let stopping = self.shared.is_stopping();
            let round = self.round();
            self.note(round);
            if stopping {
                let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + CLOSE_WAIT);
                if !self.behind || Instant::now() >= give_up_at {
                    return self.close();
                }
            }
        }
    }

    /// Waits for something to do, then a little more so that it is done in batches.
    fn wait(&self) {
        if self.behind {
            return self.park(RETRY_AFTER, |shared| shared.is_stopping());
        }
        self.park(RECOVER_EVERY, |shared| {
            shared.is_urgent() || shared.dirty.load(Ordering::Acquire)
        });
        if self.shared.dirty.load(Ordering::Acquire) {
            self.park(COLLECT_FOR, Shared::is_urgent);
        }
    }

    fn park(&self, at_most: Duration, is_over: impl Fn(&Shared) -> bool) {
        let until = Instant::now() + at_most;
        while !is_over(self.shared) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
        // A failing writer that is to stop must not spin until it gives up.
        if self.behind {
            thread::sleep(RETRY_AFTER.min(at_most) / 10);
        }
    }

    fn round(&mut self) -> Result<(), LedgerError> {
        self.refile();
        self.drain_journal()?;
        self.drain_overflow()?;
        if self.recovered_at.elapsed() >= RECOVER_EVERY {
            self.recovered_at = Instant::now();
            recover(self.journals, &mut self.store)?;
        }
        Ok(())
    }

    /// Gives the journal what it would not take before: it outlives this process, memory does not.
    fn refile(&self) {
        let mut frames = self.shared.take_overflow();
        while let Some(frame) = frames.pop_front() {
            if self.shared.journal.append(&frame, None).is_err() {
                frames.push_front(frame);
                break;
            }
        }
        self.shared.put_back(frames);
    }

    fn drain_journal(&mut self) -> Result<(), LedgerError> {
        let journal = &self.shared.journal;
        while let Some(batch) = self.next_batch()? {
            let span = Some((self.reader.at, batch.end));
            let count = batch.entries.len();
            self.reader.at = self
                .store
                .commit(journal.instance(), span, batch.entries)
                .inspect_err(|_| journal.again())?;
            if self.reader.at != batch.end {
                // An earlier answer was lost: some of it was committed before.
                journal.again();
            }
            self.count(count);
            let moved_on = journal.committed(&mut self.reader);
            *lock(&self.shared.committed) = self.reader.at;
            moved_on.map_err(LedgerError::Journal)?;
        }
        Ok(())
    }

    fn next_batch(&self) -> Result<Option<Batch>, LedgerError> {
        let journal = &self.shared.journal;
        journal
            .next(&self.reader)
            .inspect_err(|_| journal.again())
            .map_err(LedgerError::Journal)
    }

    /// The journal is full or broken, but perhaps the database is not.
    fn drain_overflow(&mut self) -> Result<(), LedgerError> {
        let frames = self.shared.take_overflow();
        let entries: Vec<Entry> = frames
            .iter()
            .filter_map(|frame| match decode(frame) {
                Decoded::Entry { entry, .. } => Some(entry),
                Decoded::Damaged { .. } | Decoded::Incomplete => None,
            })
            .collect();
        let instance = self.shared.journal.instance();
        let count = entries.len();
        let committed = if entries.is_empty() {
            Ok(())
        } else {
            self.store.commit(instance, None, entries).map(drop)
        };
        self.count(if committed.is_ok() { count } else { 0 });
        self.shared.put_back(if committed.is_ok() {
            VecDeque::new()
        } else {
            frames
        });
        committed
    }

    fn count(&self, entries: usize) {
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        self.shared
            .committed_entries
            .fetch_add(entries, Ordering::Relaxed);
    }

    /// Makes the result of a round known: to `health`, to the log once a minute, to who waits.
    fn note(&mut self, round: Result<(), LedgerError>) {
        let was_behind = self.behind;
        self.behind = round.is_err() || lock(&self.shared.overflow).len() > 0;
        match round {
            Err(error) => *lock(&self.shared.error) = Some(error.to_string()),
            Ok(()) if !self.behind => *lock(&self.shared.error) = None,
            Ok(()) => {}
        }
        let due = self.logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if self.behind && due {
            self.logged_at = Some(Instant::now());
            let LedgerHealth {
                journal_bytes,
                in_memory,
                dropped,
                error,
                ..
            } = self.shared.health();
            let error = error.unwrap_or_default();
            tracing::error!(
                error,
                journal_bytes,
                in_memory,
                dropped,
                "the ledger cannot be written; calls go on, and their records wait"
            );
        } else if was_behind && !self.behind {
            self.logged_at = None;
            let dropped = self.shared.dropped_entries.load(Ordering::Relaxed);
            tracing::info!(dropped, "the ledger is written again");
        }
        // Under the lock, so that who has just looked is not missed.
        let committed = lock(&self.shared.committed);
        self.shared.round_done.notify_all();
        drop(committed);
    }

    /// Ends this instance in the ledger, or leaves its journal to whoever opens the ledger next.
    fn close(mut self) {
        if self.behind {
            self.refile();
            let lost = lock(&self.shared.overflow).len();
            let journal_bytes = self.shared.journal.backlog_bytes();
            tracing::error!(
                lost,
                journal_bytes,
                "the ledger could not be written to its end"
            );
            return;
        }
        if let Err(error) = self.end_instance() {
            tracing::warn!(%error, "the journal stays behind; the next start takes it over");
        }
    }

    fn end_instance(&mut self) -> Result<(), LedgerError> {
        let instance = self.shared.journal.instance();
        self.store.settle_lost(instance)?;
        self.shared.journal.remove().map_err(LedgerError::Journal)?;
        self.store.forget(instance)
    }
}

/// Takes over the journals of processes that are gone.
pub(super) fn recover(journals: &Path, store: &mut Store) -> Result<(), LedgerError> {
    for abandoned in Abandoned::take_all(journals).map_err(LedgerError::Journal)? {
        let instance = abandoned.instance().to_owned();
        let from = store.committed(&instance)?;
        let (mut entries, mut damaged_bytes) = (0_usize, 0_u64);
        for (mut reader, end) in abandoned.readers(from).map_err(LedgerError::Journal)? {
            while reader.at.offset < end {
                let batch = reader.read(end).map_err(LedgerError::Journal)?;
                let span = Some((reader.at, batch.end));
                entries = entries.saturating_add(batch.entries.len());
                reader.at = store.commit(&instance, span, batch.entries)?;
                damaged_bytes = damaged_bytes.saturating_add(batch.damaged_bytes);
            }
        }
        let lost = store.settle_lost(&instance)?;
        abandoned.remove().map_err(LedgerError::Journal)?;
        store.forget(&instance)?;
        tracing::warn!(
            instance,
            entries,
            lost,
            damaged_bytes,
            "took over a dead weir's journal"
        );
    }
    store.settle_vanished(journals)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long entries are collected into one transaction.
const COLLECT_FOR: Duration = Duration::from_millis(50);
/// How much the thread gives way to those that serve calls: a quarter of a contended core is left to
/// it, which keeps what it writes within the half second that other processes count on.
const NICENESS: i32 = 5;
/// How soon a round that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// How often the writer looks for journals of processes that died.
const RECOVER_EVERY: Duration = Duration::from_secs(1);
/// How often a ledger that cannot be written is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// How long the end of Weir waits for a database that cannot be written.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Most bytes kept in memory while the journal cannot be written; some 20,000 records.
const OVERFLOW_BYTES_MAX: usize = 32 * 1024 * 1024;

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
