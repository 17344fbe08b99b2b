//! Segments as they fill, are taken over, and break.

use weir_core::money::Money;

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
        .append(&encode(EntryRef::Recorded(&record)), None)
        .unwrap();
}

/// What the request path does with a record, a small one.
fn hand_over(journal: &Journal, id: usize) {
    let record = Record {
        id: id.to_string(),
        ..Record::default()
    };
    let frame = encode(EntryRef::Recorded(&record));
    let handed = Handed::Entry(Entry::Recorded(Box::new(record)));
    journal.append(&frame, Some(handed)).unwrap();
}

fn admit(journal: &Journal, id: usize) {
    let record = Record {
        id: id.to_string(),
        ..Record::default()
    };
    let reserved = Money::default();
    let record = &record;
    let frame = encode(EntryRef::Admitted { reserved, record });
    let id = record.id.clone();
    let handed = Handed::Admitted { id };
    journal.append(&frame, Some(handed)).unwrap();
}

fn ids(entries: Vec<Entry>) -> Vec<usize> {
    let id = |entry| match entry {
        Entry::Recorded(record) => Some(record.id.parse().unwrap()),
        Entry::Opened { .. }
        | Entry::Admitted { .. }
        | Entry::Bypassed(_)
        | Entry::Explained { .. } => None,
    };
    entries.into_iter().filter_map(id).collect()
}

/// Reads and commits once.
fn step(journal: &Journal, reader: &mut Reader) -> Vec<usize> {
    let batch = journal.next(reader).unwrap().unwrap_or_else(|| Batch {
        end: reader.at,
        ..Batch::default()
    });
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
    let error = journal.append(b"x", None).unwrap_err().to_string();
    assert!(error.contains("waiting for the database"), "{error}");
}

/// Makes the file useless: what is read after this was handed over.
fn spoil(journal: &Journal) {
    let active = journal.active();
    let length = usize::try_from(active.end.offset).unwrap();
    active.file.write_all_at(&vec![0; length], 0).unwrap();
}

#[test]
fn entries_are_handed_over_in_order_without_reading_the_file_once_that_was_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), "i").unwrap();
    let mut reader = journal.reader();
    (0..3).for_each(|id| hand_over(&journal, id));
    assert_eq!(step(&journal, &mut reader), [0, 1, 2], "from the file");
    assert!(step(&journal, &mut reader).is_empty(), "it is at the end");
    (3..6).for_each(|id| hand_over(&journal, id));
    spoil(&journal);
    assert_eq!(step(&journal, &mut reader), [3, 4, 5]);
    assert_eq!(reader.at, journal.end());
    assert_eq!(journal.backlog_bytes(), 0);
}

#[test]
fn of_a_call_only_the_record_is_taken_and_without_one_its_admission_comes_from_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), "i").unwrap();
    let mut reader = journal.reader();
    step(&journal, &mut reader);
    step(&journal, &mut reader);
    admit(&journal, 0);
    admit(&journal, 1);
    hand_over(&journal, 0);
    let batch = journal.next(&reader).unwrap().unwrap();
    let [Entry::Admitted { record, .. }, Entry::Recorded(_)] = batch.entries.as_slice() else {
        panic!(
            "expected an admission and a record, found {:?}",
            batch.entries
        );
    };
    assert_eq!(record.id, "1");
    assert_eq!(batch.end, journal.end());
}

#[test]
fn what_was_not_committed_and_what_was_not_handed_over_is_read_from_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), "i").unwrap();
    let mut reader = journal.reader();
    step(&journal, &mut reader);
    step(&journal, &mut reader);
    hand_over(&journal, 0);
    let failed = journal.next(&reader).unwrap().unwrap();
    assert_eq!(ids(failed.entries), [0]);
    journal.again();
    hand_over(&journal, 1);
    assert_eq!(step(&journal, &mut reader), [0, 1]);
    assert!(step(&journal, &mut reader).is_empty());
    // One too long to be handed over stands between two that are not.
    hand_over(&journal, 2);
    append(&journal, 3);
    hand_over(&journal, 4);
    assert_eq!(step(&journal, &mut reader), [2]);
    assert_eq!(step(&journal, &mut reader), [3, 4]);
}

#[test]
fn what_is_handed_over_is_bounded_and_nothing_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), "i").unwrap();
    let mut reader = journal.reader();
    step(&journal, &mut reader);
    step(&journal, &mut reader);
    (0..20_000).for_each(|id| hand_over(&journal, id));
    let mut read = Vec::new();
    while journal.backlog_bytes() > 0 {
        read.extend(step(&journal, &mut reader));
    }
    assert_eq!(read, (0..20_000).collect::<Vec<_>>());
}
