//! The journal of one Weir process: what the request path writes, and the ledger reads behind it.
//!
//! A process owns `INSTANCE.lock`, locked for as long as it lives, and its segments
//! `INSTANCE-N.wal`. An entry is one positioned write into the page cache, which outlives the
//! process but not the machine: no disk flush is in the path of a request. A write that failed
//! half-way does not move the end, so the next one overwrites it. When a segment has grown past
//! its size, a new one takes the writes, and the old one is removed once all of it is committed.
//!
//! The writer of the same process gets most entries in memory beside it (`handed`), and reads the
//! file only for those that were not handed over.

mod handed;

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::{Decoded, Entry, EntryRef, FRAME_BYTES_MAX, decode, encode, next_mark};
pub(super) use handed::Handed;
use handed::{Queue, Queued};

/// Where in a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// The journal that this process writes.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    instance: String,
    lock: File,
    active: Mutex<Active>,
}

#[derive(Debug)]
struct Active {
    file: Arc<File>,
    end: Position,
    /// Where the segment before the active one ends, until all of it is committed.
    sealed_end: Option<u64>,
    committed: Position,
    handed: Queue,
}

impl Journal {
    /// Makes the journal of `instance` in `directory`, which exists.
    pub(super) fn create(directory: &Path, instance: &str) -> io::Result<Self> {
        let lock = lock_as_ours(&lock_path(directory, instance))?;
        let journal = Self {
            directory: directory.to_owned(),
            instance: instance.to_owned(),
            lock,
            active: Mutex::new(Active {
                file: Arc::new(create_segment(directory, instance, 0)?),
                end: Position::default(),
                sealed_end: None,
                committed: Position::default(),
                handed: Queue::default(),
            }),
        };
        let opened = EntryRef::Opened {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
        };
        match journal.append(&encode(opened), None) {
            Ok(()) => Ok(journal),
            Err(error) => {
                // That nothing can be written is what to tell, not that nothing was removed.
                drop(journal.remove());
                Err(error)
            }
        }
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// Appends an entry, and hands it to the writer in memory where that is given. Once this
    /// returned `Ok`, the end of this process does not lose it.
    pub(super) fn append(&self, frame: &[u8], handed: Option<Handed>) -> io::Result<()> {
        let mut active = self.active();
        if active.backlog_bytes() >= BACKLOG_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{BACKLOG_BYTES_MAX} bytes of journal are waiting for the database"
            )));
        }
        active.file.write_all_at(frame, active.end.offset)?;
        active.end.offset = active.end.offset.saturating_add(bytes(frame.len()));
        let end = active.end;
        active.handed.push(frame.len(), end, handed);
        Ok(())
    }

    /// Some of the entries that follow `reader`; none where there are none.
    pub(super) fn next(&self, reader: &Reader) -> io::Result<Option<Batch>> {
        let mut active = self.active();
        let queued = active.handed.take(BATCH_ENTRIES_MAX);
        if !queued.is_empty() {
            drop(active);
            return reader.complete(queued).map(Some);
        }
        let end = active.readable_end(reader);
        if end <= reader.at.offset {
            // From here on each entry is handed over until one is not.
            active.handed.open();
            return Ok(None);
        }
        drop(active);
        reader.read(end).map(Some)
    }

    /// What `next` gave was not committed: it comes again, from the file.
    pub(super) fn again(&self) {
        self.active().handed.close();
    }

    /// Where the next entry goes.
    pub(super) fn end(&self) -> Position {
        self.active().end
    }

    /// Bytes that are not committed.
    pub(super) fn backlog_bytes(&self) -> u64 {
        self.active().backlog_bytes()
    }

    /// A reader from the first entry on.
    pub(super) fn reader(&self) -> Reader {
        Reader {
            file: Arc::clone(&self.active().file),
            at: Position::default(),
        }
    }

    /// Notes that everything before `reader` is committed. When that is a segment's worth, a new
    /// segment takes the writes; when it is all of an old segment, that is removed.
    pub(super) fn committed(&self, reader: &mut Reader) -> io::Result<()> {
        let mut active = self.active();
        active.committed = reader.at;
        if active.sealed_end.is_none() && reader.at.offset >= SEGMENT_BYTES {
            // An empty file is made in some 20 µs: once per segment, under the lock.
            let segment = active.end.segment + 1;
            active.file = Arc::new(create_segment(&self.directory, &self.instance, segment)?);
            active.sealed_end = Some(active.end.offset);
            active.end = Position { segment, offset: 0 };
        }
        if active.sealed_end != Some(reader.at.offset) {
            return Ok(());
        }
        let old = reader.at.segment;
        let at = Position {
            segment: active.end.segment,
            offset: 0,
        };
        *reader = Reader {
            file: Arc::clone(&active.file),
            at,
        };
        active.sealed_end = None;
        active.committed = at;
        drop(active);
        std::fs::remove_file(segment_path(&self.directory, &self.instance, old))
    }

    /// Removes the journal, all of which is committed, and lets go of its lock.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_files(&self.directory, &self.instance)?;
        self.lock.unlock()
    }

    fn active(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    /// Where the segment that `reader` is in ends for now.
    fn readable_end(&self, reader: &Reader) -> u64 {
        match self.sealed_end {
            Some(end) if reader.at.segment < self.end.segment => end,
            _ => self.end.offset,
        }
    }

    fn backlog_bytes(&self) -> u64 {
        // Both terms of the sum are ends of this process's own files.
        self.sealed_end
            .unwrap_or(0)
            .saturating_add(self.end.offset)
            .saturating_sub(self.committed.offset)
    }
}

/// The journal of a process that is gone, taken over by this one.
#[derive(Debug)]
pub(super) struct Abandoned {
    directory: PathBuf,
    instance: String,
    _lock: File,
}

impl Abandoned {
    /// Takes over every journal in `directory` whose process is gone.
    pub(super) fn take_all(directory: &Path) -> io::Result<Vec<Self>> {
        let mut taken = Vec::new();
        for instance in instances(directory)? {
            let path = lock_path(directory, &instance);
            let lock = match OpenOptions::new().write(true).open(&path) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // Locked: its process lives. Unlinked: another process has just dealt with it.
            if lock.try_lock().is_ok() && lock.metadata()?.nlink() > 0 {
                taken.push(Self {
                    directory: directory.to_owned(),
                    instance,
                    _lock: lock,
                });
            }
        }
        Ok(taken)
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// A reader of each segment from `from` on, in order, with the segment's length.
    pub(super) fn readers(&self, from: Position) -> io::Result<Vec<(Reader, u64)>> {
        let mut segments: Vec<u64> = file_names(&self.directory)?
            .iter()
            .filter_map(|name| name.strip_prefix(&self.instance)?.strip_prefix('-'))
            .filter_map(|rest| rest.strip_suffix(SEGMENT_SUFFIX)?.parse().ok())
            .filter(|segment| *segment >= from.segment)
            .collect();
        segments.sort_unstable();
        let open = |segment| {
            let file = File::open(segment_path(&self.directory, &self.instance, segment))?;
            let length = file.metadata()?.len();
            let offset = if segment == from.segment {
                from.offset
            } else {
                0
            };
            let at = Position { segment, offset };
            Ok((
                Reader {
                    file: Arc::new(file),
                    at,
                },
                length,
            ))
        };
        segments.into_iter().map(open).collect()
    }

    /// Removes the journal, all of which is committed.
    pub(super) fn remove(self) -> io::Result<()> {
        remove_files(&self.directory, &self.instance)
    }
}

/// Reads a segment from its start on.
#[derive(Debug)]
pub(super) struct Reader {
    file: Arc<File>,
    /// Everything before has been read.
    pub(super) at: Position,
}

/// Some entries of one segment.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// Bytes that are no entry, or one unknown to this version.
    pub(super) damaged_bytes: u64,
    /// Where the batch ends.
    pub(super) end: Position,
}

impl Reader {
    /// A batch of what was handed over. An admission is read from the file, and that only where its
    /// record is not in the same batch, which is seldom.
    fn complete(&self, queued: Vec<Queued>) -> io::Result<Batch> {
        let ended: HashSet<String> = queued.iter().filter_map(Queued::ended).collect();
        let mut batch = Batch {
            end: self.at,
            ..Batch::default()
        };
        for queued in queued {
            batch.end = queued.end;
            match queued.entry {
                Handed::Entry(entry) => batch.entries.push(entry),
                Handed::Admitted { id } if ended.contains(&id) => {}
                Handed::Admitted { .. } => {
                    let mut frame = vec![0; queued.length];
                    let start = queued.end.offset.saturating_sub(bytes(queued.length));
                    self.file.read_exact_at(&mut frame, start)?;
                    match decode(&frame) {
                        Decoded::Entry { entry, .. } => batch.entries.push(entry),
                        Decoded::Damaged { .. } | Decoded::Incomplete => {
                            batch.damaged_bytes =
                                batch.damaged_bytes.saturating_add(bytes(frame.len()));
                        }
                    }
                }
            }
        }
        Ok(batch)
    }

    /// Some of the entries before `end`, which no entry crosses unless it is torn. Ends at `end`
    /// sooner or later, whatever the bytes are.
    pub(super) fn read(&self, end: u64) -> io::Result<Batch> {
        let mut batch = Batch {
            end: self.at,
            ..Batch::default()
        };
        let left = end.saturating_sub(self.at.offset);
        let (length, at_end) = (left.min(READ_BYTES), left <= READ_BYTES);
        let mut chunk = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut chunk, self.at.offset)?;
        let mut rest = chunk.as_slice();
        while batch.entries.len() < BATCH_ENTRIES_MAX {
            let length = match decode(rest) {
                // At the end of a segment nothing will complete it: torn, or its length damaged.
                Decoded::Incomplete if at_end && !rest.is_empty() => {
                    let length = next_mark(rest).unwrap_or(rest.len());
                    batch.damaged_bytes = batch.damaged_bytes.saturating_add(bytes(length));
                    length
                }
                Decoded::Incomplete => break,
                Decoded::Damaged { length } => {
                    batch.damaged_bytes = batch.damaged_bytes.saturating_add(bytes(length));
                    length
                }
                Decoded::Entry { entry, length } => {
                    batch.entries.push(entry);
                    length
                }
            };
            rest = rest.get(length..).unwrap_or_default();
            batch.end.offset = batch.end.offset.saturating_add(bytes(length));
        }
        Ok(batch)
    }
}

/// The instances that have a journal in `directory`, alive or not.
pub(super) fn instances(directory: &Path) -> io::Result<Vec<String>> {
    let names = file_names(directory)?;
    let instance = |name: &String| Some(name.strip_suffix(LOCK_SUFFIX)?.to_owned());
    Ok(names.iter().filter_map(instance).collect())
}

/// A new file, of its owner alone.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Makes and locks a file. Another process may take it for abandoned between the two steps, and
/// remove it; then it is made again.
fn lock_as_ours(path: &Path) -> io::Result<File> {
    loop {
        let lock = create_private(path)?;
        lock.lock()?;
        if lock.metadata()?.nlink() > 0 {
            return Ok(lock);
        }
    }
}

/// Removes the lock last: a journal without one would never be looked at again.
fn remove_files(directory: &Path, instance: &str) -> io::Result<()> {
    let prefix = format!("{instance}-");
    for name in file_names(directory)?
        .iter()
        .filter(|name| name.starts_with(&prefix))
    {
        std::fs::remove_file(directory.join(name))?;
    }
    std::fs::remove_file(lock_path(directory, instance))
}

fn create_segment(directory: &Path, instance: &str, segment: u64) -> io::Result<File> {
    create_private(&segment_path(directory, instance, segment))
}

fn segment_path(directory: &Path, instance: &str, segment: u64) -> PathBuf {
    directory.join(format!("{instance}-{segment}{SEGMENT_SUFFIX}"))
}

fn lock_path(directory: &Path, instance: &str) -> PathBuf {
    directory.join(format!("{instance}{LOCK_SUFFIX}"))
}

fn file_names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

const LOCK_SUFFIX: &str = ".lock";
const SEGMENT_SUFFIX: &str = ".wal";
/// A segment that has grown this far is replaced.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Most bytes that wait for a database that cannot be written; some 200,000 records.
const BACKLOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most entries in one transaction.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Read at once: at least one entry, whatever its size.
const READ_BYTES: u64 = 1024 * 1024;
const _: () = assert!(READ_BYTES as usize > 2 * FRAME_BYTES_MAX, "an entry fits");

#[cfg(test)]
mod tests;
