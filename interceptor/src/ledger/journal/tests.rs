//! Segments as they fill, are taken over, and break.

use super::super::record::Record;
use super::*;

fn append(journal: &Journal, id: usize) {
    // Some 100 kB, so that a segment fills within fifty entries.
    let record = Record {
        id: id.to_string(),
        session: Some("s".repeat(100_000)),
        ..Record::default()
    };
    journal
        .append(&encode(EntryRef::Recorded(&record)))
        .unwrap();
}

fn ids(entries: Vec<Entry>) -> Vec<usize> {
    let id = |entry| match entry {
        Entry::Recorded(record) => Some(record.id.parse().unwrap()),
        Entry::Opened { .. } | Entry::Admitted { .. } | Entry::Bypassed(_) => None,
    };
    entries.into_iter().filter_map(id).collect()
}

/// Reads and commits once.
fn step(journal: &Journal, reader: &mut Reader) -> Vec<usize> {
    let batch = reader.read(journal.readable_end(reader)).unwrap();
    assert_eq!(batch.damaged_bytes, 0);
    reader.at = batch.end;
    journal.committed(reader).unwrap();
    ids(batch.entries)
}

fn segments(directory: &Path) -> Vec<String> {
    let mut names = file_names(directory).unwrap();
    names.retain(|name| name.ends_with(SEGMENT_SUFFIX));
    names.sort();
    names
}

#[test]
fn a_full_segment_is_replaced_while_it_is_written_and_removed_once_it_is_committed() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), "i").unwrap();
    let mut reader = journal.reader();
    (0..60).for_each(|id| append(&journal, id));
    let mut read = Vec::new();
    while journal.end().segment == 0 {
        read.extend(step(&journal, &mut reader));
    }
    assert!(read.len() < 60, "replaced before all of it is committed");
    assert_eq!(segments(directory.path()), ["i-0.wal", "i-1.wal"]);
    (60..80).for_each(|id| append(&journal, id));
    while journal.backlog_bytes() > 0 {
        read.extend(step(&journal, &mut reader));
    }
    assert_eq!(read, (0..80).collect::<Vec<_>>());
    assert_eq!(segments(directory.path()), ["i-1.wal"]);
    assert_eq!(reader.at, journal.end());
}

#[test]
fn only_a_journal_whose_process_is_gone_is_taken_over_and_by_one_only() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), "i").unwrap();
    let mut reader = journal.reader();
    (0..45).for_each(|id| append(&journal, id));
    while journal.end().segment == 0 {
        step(&journal, &mut reader);
    }
    append(&journal, 45);
    assert!(Abandoned::take_all(directory.path()).unwrap().is_empty());
    drop(journal);
    let taken = Abandoned::take_all(directory.path())
        .unwrap()
        .pop()
        .unwrap();
    assert!(Abandoned::take_all(directory.path()).unwrap().is_empty());
    let mut left = Vec::new();
    for (mut reader, end) in taken.readers(reader.at).unwrap() {
        while reader.at.offset < end {
            let batch = reader.read(end).unwrap();
            reader.at = batch.end;
            left.extend(ids(batch.entries));
        }
    }
    assert_eq!(left.last(), Some(&45));
    taken.remove().unwrap();
    assert_eq!(file_names(directory.path()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_torn_or_damaged_end_is_counted_and_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), "i").unwrap();
    append(&journal, 0);
    append(&journal, 1);
    let end = journal.end().offset;
    let reader = journal.reader();
    let batch = reader.read(end - 1).unwrap();
    assert_eq!(ids(batch.entries), [0]);
    assert_eq!(batch.end.offset, end - 1);
    assert!(batch.damaged_bytes > 100_000);
}

#[test]
fn a_backlog_has_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), "i").unwrap();
    journal.active().end.offset = BACKLOG_BYTES_MAX;
    let error = journal.append(b"x").unwrap_err().to_string();
    assert!(error.contains("waiting for the database"), "{error}");
}
