//! What nodes tell each other of conversations: sealed rows in the ledger that they share, which only
//! those can open who have their secret.
//!
//! A node that served a conversation's previous turn knows all there is to know, and asks nobody. One
//! that did not may know nothing, or too little: it asks once, and goes on with what it has where
//! the answer does not come in time. What changes is written behind the calls, never before them, and
//! what others have written of the same is taken in then.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_core::prompt::{Fingerprint, HashKey, Section};
use weir_core::rewrite::{self, RulesId, Thread, Tree};

use super::Read;
use super::store::Store;
use super::turn::Turns;
use crate::exchange::entry::Entry;
use crate::ledger::{Conversations, LedgerError, Sealed};
use crate::sidecar::unix_ms;

/// The other nodes, as this one knows them.
#[derive(Debug)]
pub(super) struct Nodes {
    table: Arc<Conversations>,
    turns: Arc<Turns>,
    seen: Mutex<Seen>,
    /// Who writes what was told here; none, after the end of it.
    writer: Mutex<Option<Writing>>,
    /// How often something was told here that is not written yet.
    unwritten: Arc<AtomicUsize>,
    /// How often a conversation did not fit what waits to be written.
    untold: IntCounter,
}

#[derive(Debug)]
struct Writing {
    /// Conversations in which something was told.
    changed: mpsc::Sender<Fingerprint>,
    task: JoinHandle<()>,
}

/// Turns that this process served, the latest ones.
#[derive(Debug, Default)]
struct Seen {
    young: HashSet<Fingerprint>,
    old: HashSet<Fingerprint>,
}

impl Seen {
    fn has(&self, at: Fingerprint) -> bool {
        self.young.contains(&at) || self.old.contains(&at)
    }

    fn note(&mut self, at: Fingerprint) {
        if self.young.len() >= SEEN_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(at);
    }

    /// Whether others may know more of what came before the new turn. The history up to a first turn
    /// is that of all conversations that begin alike, wherever they did, so that one is known by its
    /// prompt as well: `began`.
    fn is_behind(&self, thread: &Thread, began: Fingerprint) -> bool {
        let mut latest = thread.turns.iter().skip(1).rev().take(2);
        let is_second = thread.turns.len() <= 2;
        !(thread.is_start || latest.any(|turn| self.has(turn.at)) || is_second && self.has(began))
    }
}

/// How a conversation began whose second turn this is, if its prompt has not changed since.
fn began(body: &[u8], read: &Read, key: &HashKey) -> Fingerprint {
    let first = read.thread.first.at.to_be_bytes();
    let segments = read.prompt.segments.iter();
    let prefix = segments.take_while(|segment| segment.section != Section::Messages);
    let texts = prefix.map(|segment| {
        let text = segment.text.as_ref().unwrap_or(&segment.range);
        body.get(text.clone()).unwrap_or_default()
    });
    let parts: Vec<&[u8]> = [&first[..]].into_iter().chain(texts).collect();
    key.hash(&parts)
}

/// What came of asking the other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recalled {
    Found,
    Unknown,
    Unreachable,
    Failed,
}

impl Recalled {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }
}

impl Nodes {
    /// Needs a tokio runtime, for the writing.
    pub(super) fn new(
        table: Arc<Conversations>,
        store: Arc<Store>,
        turns: Arc<Turns>,
        untold: IntCounter,
    ) -> Self {
        let (changed, waiting) = mpsc::channel(CHANGED_MAX);
        let unwritten = Arc::<AtomicUsize>::default();
        let writer = Writer {
            unwritten: Arc::clone(&unwritten),
            table: Arc::clone(&table),
            store,
            turns: Arc::clone(&turns),
            written: HashMap::new(),
            sent: HashMap::new(),
            logged_at: None,
            untold: untold.clone(),
        };
        let task = tokio::spawn(writer.run(waiting));
        Self {
            table,
            turns,
            seen: Mutex::default(),
            writer: Mutex::new(Some(Writing { changed, task })),
            unwritten,
            untold,
        }
    }

    /// Writes what was told, for at most `timeout`; what is told later is not written.
    pub(super) async fn close(&self, timeout: Duration) {
        let writer = self.writer().take();
        let Some(Writing { changed, task }) = writer else {
            return;
        };
        drop(changed);
        if tokio::time::timeout(timeout, task).await.is_err() {
            tracing::warn!("other nodes may not have heard of the latest turns of conversations");
        }
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writing>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a conversation written that changed. What does not fit is written when it changes again.
    pub(super) fn tell(&self, at: Fingerprint) {
        let writer = self.writer();
        let Some(writing) = writer.as_ref() else {
            return;
        };
        self.unwritten.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = writing.changed.try_send(at) {
            self.unwritten.fetch_sub(1, Ordering::AcqRel);
            self.untold.inc();
            tracing::debug!(%error, "a conversation is not told to other nodes now");
        }
    }

    /// Whether all is written that was told here.
    pub(super) fn has_told(&self) -> bool {
        self.unwritten.load(Ordering::Acquire) == 0
    }

    /// Takes in what others know of a conversation, where they may know more. None, if not.
    async fn recall(&self, store: &Store, asked: &Question<'_>) -> Option<Recalled> {
        let Question { thread, began, .. } = *asked;
        let is_behind = self.seen().is_behind(thread, began);
        let recalled = if is_behind {
            Some(self.look_up(store, asked).await)
        } else {
            None
        };
        // A question that was not answered is asked again: a signature that was refused for want of
        // the answer is not refused then.
        if recalled != Some(Recalled::Unreachable) {
            let last = thread.turns.last().filter(|_| !thread.is_start);
            self.seen().note(last.map_or(began, |last| last.at));
        }
        recalled
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(&self, store: &Store, asked: &Question<'_>) -> Recalled {
        let Question { thread, now_s, .. } = *asked;
        let at = thread.first.at;
        if !asked.is_bound && self.table.is_down() {
            return Recalled::Unreachable;
        }
        let wait = if asked.is_bound {
            BOUND_WAIT
        } else {
            RECALL_WAIT
        };
        let until = Instant::now() + wait;
        let Some(row) = self.ask(&at.to_be_bytes(), until).await else {
            return Recalled::Unreachable;
        };
        let theirs: Option<Tree> = row.and_then(|row| store.unseal(&at.to_be_bytes(), &row.bytes));
        let Some(theirs) = theirs else {
            return Recalled::Unknown;
        };
        let rules: HashSet<RulesId> = theirs.rules().collect();
        for id in rules.into_iter().filter(|id| store.rules(*id).is_none()) {
            let Some(row) = self.ask(&id.to_be_bytes(), until).await else {
                return Recalled::Unreachable;
            };
            let text = row.and_then(|row| store.unseal::<String>(&id.to_be_bytes(), &row.bytes));
            if let Some(text) = text
                && let Err(error) = store.put_rules(id, &text)
            {
                tracing::warn!(%error, "expected to keep the rules of another node");
                return Recalled::Failed;
            }
        }
        let _alone = self.turns.alone(at);
        match take_in(store, at, &theirs, now_s) {
            Ok(_both) => Recalled::Found,
            Err(error) => {
                tracing::warn!(%error, "expected to keep a conversation of another node");
                Recalled::Failed
            }
        }
    }

    async fn ask(&self, key: &[u8], until: Instant) -> Option<Option<Sealed>> {
        let left = until.saturating_duration_since(Instant::now());
        self.table.ask(key.to_vec(), left).await
    }
}

/// A call that may belong to a conversation that others know more of.
#[derive(Clone, Copy)]
struct Question<'a> {
    thread: &'a Thread,
    began: Fingerprint,
    /// Whether signatures in it are bound to its history, so that it is refused if that changes.
    is_bound: bool,
    now_s: i64,
}

/// Adds what others know to what is known here; gives all of it. To be done alone.
fn take_in(
    store: &Store,
    at: Fingerprint,
    theirs: &Tree,
    now_s: i64,
) -> Result<Arc<Tree>, rusqlite::Error> {
    let mine = store.get(at, now_s)?;
    let mut both = mine.tree.as_deref().cloned().unwrap_or_default();
    both.merge(theirs);
    let both = Arc::new(both);
    if mine.tree.as_ref() != Some(&both) {
        store.put(at, Arc::clone(&both), &mine, now_s)?;
    }
    Ok(both)
}

/// Writes what changed.
struct Writer {
    unwritten: Arc<AtomicUsize>,
    table: Arc<Conversations>,
    store: Arc<Store>,
    turns: Arc<Turns>,
    /// The versions of rows that are as they were written here, as far as it is known.
    written: HashMap<Fingerprint, i64>,
    /// When the text of a set of rules was written last.
    sent: HashMap<RulesId, Instant>,
    logged_at: Option<Instant>,
    untold: IntCounter,
}

impl Writer {
    /// Writes until nobody tells any more, then a last time.
    async fn run(mut self, mut changed: mpsc::Receiver<Fingerprint>) {
        // No call shall wait for a connection to be made.
        if let Err(error) = self.table.get(&[]).await {
            self.log(&error.into());
        }
        let mut pending = HashSet::new();
        let mut told = Vec::new();
        let mut unwritten = 0_usize;
        loop {
            let receiving = changed.recv_many(&mut told, CHANGED_MAX);
            let is_open = if pending.is_empty() {
                receiving.await > 0
            } else {
                let received = tokio::time::timeout(RETRY_AFTER, receiving).await;
                received.map_or(true, |count| count > 0)
            };
            unwritten = unwritten.saturating_add(told.len());
            hold(&mut pending, &mut told, &self.untold);
            pending = self.write(pending).await;
            if pending.is_empty() {
                let written = std::mem::take(&mut unwritten);
                self.unwritten.fetch_sub(written, Ordering::AcqRel);
            }
            if !is_open {
                return;
            }
        }
    }

    /// Gives back those that could not be written.
    async fn write(&mut self, pending: HashSet<Fingerprint>) -> HashSet<Fingerprint> {
        let mut left = HashSet::new();
        for at in pending {
            // After the first failure the others can wait, too.
            if !left.is_empty() {
                left.insert(at);
                continue;
            }
            match self.share(at).await {
                Ok(()) => {}
                Err(error) => {
                    self.log(&error);
                    left.insert(at);
                }
            }
        }
        left
    }

    fn log(&mut self, error: &Unshared) {
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged_at = Some(Instant::now());
            tracing::warn!(%error, "other nodes do not hear of conversations; it is tried again");
        }
    }

    /// Writes a conversation, together with what others have written of it.
    async fn share(&mut self, at: Fingerprint) -> Result<(), Unshared> {
        let key = at.to_be_bytes();
        let now_s = unix_ms().div_euclid(1000);
        let Some(mut tree) = self.store.get(at, now_s)?.tree else {
            return Ok(());
        };
        // First, so that whoever finds the conversation finds its rules.
        self.share_rules(&tree).await?;
        let mut before = self.written.remove(&at).unwrap_or(0);
        for _ in 0..WRITES_MAX {
            let sealed = self.store.seal(&key, &*tree);
            if let Some(version) = self.table.put(&key, &sealed, before).await? {
                if self.written.len() >= WRITTEN_MAX {
                    self.written.clear();
                }
                self.written.insert(at, version);
                return Ok(());
            }
            // Others have written it since.
            let row = self.table.get(&key).await?;
            before = row.as_ref().map_or(0, |row| row.version);
            let theirs = row.and_then(|row| self.store.unseal::<Tree>(&key, &row.bytes));
            if let Some(theirs) = theirs {
                let _alone = self.turns.alone(at);
                tree = take_in(&self.store, at, &theirs, now_s)?;
            }
        }
        Err(Unshared::Overtaken)
    }

    /// Writes the rules of a conversation again every day, so that they are kept as long as it.
    async fn share_rules(&mut self, tree: &Tree) -> Result<(), Unshared> {
        let rules: HashSet<RulesId> = tree.rules().collect();
        for id in rules {
            let is_due = |at: &Instant| at.elapsed() >= RULES_EVERY;
            if !self.sent.get(&id).is_none_or(is_due) {
                continue;
            }
            let Some(text) = self.store.rules(id) else {
                continue;
            };
            let key = id.to_be_bytes();
            let version = self.table.get(&key).await?.map_or(0, |row| row.version);
            let sealed = self.store.seal(&key, &text);
            // Whoever was faster wrote the same.
            self.table.put(&key, &sealed, version).await?;
            if self.sent.len() >= RULES_SENT_MAX {
                self.sent.clear();
            }
            self.sent.insert(id, Instant::now());
        }
        Ok(())
    }
}

/// Adds what was told to what waits; what does not fit is counted.
fn hold(pending: &mut HashSet<Fingerprint>, told: &mut Vec<Fingerprint>, untold: &IntCounter) {
    for at in told.drain(..) {
        if pending.len() < PENDING_MAX || pending.contains(&at) {
            pending.insert(at);
        } else {
            untold.inc();
        }
    }
}

/// Why a conversation was not written.
#[derive(Debug, thiserror::Error)]
enum Unshared {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("expected the memory of conversations to work: {0}")]
    Memory(#[from] rusqlite::Error),
    #[error("expected to write a conversation, found others writing it {WRITES_MAX} times")]
    Overtaken,
}

impl Entry {
    /// Takes in what other nodes told in the conversation of a call, where this one did not serve its
    /// previous turn: waits for that for at most [`RECALL_WAIT`], or [`BOUND_WAIT`].
    pub(in crate::exchange) async fn recall(&mut self, body: &[u8]) {
        let rewriter = &self.context.rewriter;
        let (Some(nodes), Some(call)) = (&rewriter.nodes, &self.call) else {
            return;
        };
        if !self.may_edit() || call.previous_response || !rewrite::covers(call.api, body) {
            return;
        }
        let caller = self.record.identity.key_hash.as_deref().unwrap_or_default();
        let scope = [caller.as_bytes(), self.record.host.as_bytes()];
        let model = call.model.as_deref().unwrap_or_default();
        let read = catch_unwind(AssertUnwindSafe(|| {
            let read = rewriter.read(body, &scope).ok().flatten()?;
            let began = began(body, &read, &rewriter.key);
            Some((read, began, rewrite::binds_history(model, body)))
        }));
        let Ok(Some((read, began, is_bound))) = read else {
            return;
        };
        let asked = Question {
            thread: &read.thread,
            began,
            is_bound,
            now_s: self.record.started_unix_ms.div_euclid(1000),
        };
        if let Some(recalled) = nodes.recall(&rewriter.store, &asked).await {
            let counted = &self.context.metrics.recalled;
            counted.with_label_values(&[recalled.as_str()]).inc();
        }
        self.recalled = Some(read);
    }
}

/// The longest that a call waits for what other nodes know of its conversation.
const RECALL_WAIT: Duration = Duration::from_millis(250);
/// The same where the call would be refused if its conversation were not known.
const BOUND_WAIT: Duration = Duration::from_secs(2);
/// Turns that are known to have been served here: 16 bytes each, and some for the table.
const SEEN_MAX: usize = 65_536;
/// Rows of which it is known that they are as they were written here.
const WRITTEN_MAX: usize = 4096;
/// Conversations that wait to be written.
const CHANGED_MAX: usize = 1024;
/// Conversations that wait for a database that does not take them.
const PENDING_MAX: usize = 65_536;
/// How soon it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often others may be faster before it is tried again later.
const WRITES_MAX: usize = 5;
/// How often the text of a set of rules is written again.
const RULES_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Sets of rules of which it is known when they were written.
const RULES_SENT_MAX: usize = 1024;
/// How often it is said that nothing can be written.
const LOG_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
