//! Entries on their way from the request path to the writer, in memory beside the journal.
//!
//! The file is what lasts; this only saves reading it. The queue holds every entry since it was
//! opened, in order, or it is closed: where it is full, where an entry is too long, or where a batch
//! must be read again. The writer then reads the file, and opens the queue when it has caught up.

use std::collections::VecDeque;

use super::super::frame::Entry;
use super::Position;

/// An entry as it is handed over.
#[derive(Debug)]
pub(in crate::ledger) enum Handed {
    /// A call of this id is about to be sent. Its record mostly follows at once and makes this void,
    /// so no copy is made of what is known so far: the file has it.
    Admitted { id: String },
    /// The entry itself.
    Entry(Entry),
}

/// An entry that was handed over, and where the file has it.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) entry: Handed,
    /// Bytes in the file.
    pub(super) length: usize,
    /// Where it ends there.
    pub(super) end: Position,
}

impl Queued {
    /// The id of the call that this is the record of.
    pub(super) fn ended(&self) -> Option<String> {
        match &self.entry {
            Handed::Entry(Entry::Recorded(record)) => Some(record.id.clone()),
            Handed::Entry(_) | Handed::Admitted { .. } => None,
        }
    }
}

/// What was handed over, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    open: bool,
    entries: VecDeque<Queued>,
    /// Of the entries, in the file; in memory they take about as much.
    bytes: usize,
}

impl Queue {
    /// Takes an entry that was just appended, or closes.
    pub(super) fn push(&mut self, length: usize, end: Position, entry: Option<Handed>) {
        let bytes = self.bytes.saturating_add(length);
        match entry {
            Some(entry)
                if self.open && length <= HANDED_ENTRY_BYTES_MAX && bytes <= HANDED_BYTES_MAX =>
            {
                self.bytes = bytes;
                self.entries.push_back(Queued { entry, length, end });
            }
            // What is in it stays good: the file is read from its end on.
            _ => self.open = false,
        }
    }

    /// The oldest entries, at most `count`, all of one segment.
    pub(super) fn take(&mut self, count: usize) -> Vec<Queued> {
        let segment = self.entries.front().map(|first| first.end.segment);
        let count = self
            .entries
            .iter()
            .take(count)
            .take_while(|queued| Some(queued.end.segment) == segment)
            .count();
        let taken: Vec<Queued> = self.entries.drain(..count).collect();
        let bytes = taken.iter().map(|queued| queued.length).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }

    /// Takes entries from now on: only where all before were read.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// Drops what it has and takes nothing more: it is read from the file.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }
}

/// Most bytes of one entry. A longer one may differ in the file, where texts are clipped.
const HANDED_ENTRY_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of all; some 4,000 records.
const HANDED_BYTES_MAX: usize = 4 * 1024 * 1024;
