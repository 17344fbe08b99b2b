//! Entries as bytes, whole, torn and damaged.

use super::*;

fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        host: "api.anthropic.com".to_owned(),
        ..Record::default()
    }
}

fn decode_all(mut bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (mut entries, mut skipped) = (Vec::new(), 0);
    loop {
        let length = match decode(bytes) {
            Decoded::Entry { entry, length } => {
                entries.push(entry);
                length
            }
            Decoded::Damaged { length } => {
                skipped += length;
                length
            }
            Decoded::Incomplete => return (entries, skipped + bytes.len()),
        };
        bytes = &bytes[length..];
    }
}

fn three_frames() -> Vec<Vec<u8>> {
    ["a", "b", "c"]
        .map(|id| encode(EntryRef::Recorded(&record(id))))
        .to_vec()
}

#[test]
fn every_kind_of_entry_comes_back_as_it_was_written() {
    let bypass = Bypass {
        host: "example.org".to_owned(),
        count: 3,
        ..Bypass::default()
    };
    let explained = Explained {
        cache_reason: Some("tools_changed".to_owned()),
        missed: Some(Money::from_nanos(9)),
        ..Explained::default()
    };
    let (record, reserved) = (record("a"), Money::from_nanos(7));
    let pairs = [
        (
            EntryRef::Opened {
                pid: 1,
                version: "v",
            },
            Entry::Opened {
                pid: 1,
                version: "v".to_owned(),
            },
        ),
        (
            EntryRef::Admitted {
                reserved,
                record: &record,
            },
            Entry::Admitted {
                reserved,
                record: Box::new(record.clone()),
            },
        ),
        (
            EntryRef::Recorded(&record),
            Entry::Recorded(Box::new(record.clone())),
        ),
        (EntryRef::Bypassed(&bypass), Entry::Bypassed(bypass.clone())),
        (
            EntryRef::Explained {
                id: "a",
                explained: &explained,
            },
            Entry::Explained {
                id: "a".to_owned(),
                explained: explained.clone(),
            },
        ),
    ];
    for (written, expected) in pairs {
        let frame = encode(written);
        let length = frame.len();
        assert_eq!(
            decode(&frame),
            Decoded::Entry {
                entry: expected,
                length
            }
        );
    }
}

#[test]
fn a_journal_torn_at_any_byte_gives_every_entry_before_the_tear() {
    let frames = three_frames();
    let journal = frames.concat();
    for torn_at in 0..=journal.len() {
        let whole = frames
            .iter()
            .scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            })
            .filter(|end| *end <= torn_at)
            .count();
        let (entries, _) = decode_all(&journal[..torn_at]);
        assert_eq!(entries.len(), whole, "torn at {torn_at}");
    }
}

#[test]
fn any_damaged_byte_costs_only_the_entry_that_it_is_in() {
    let journal = three_frames().concat();
    let length = journal.len() / 3;
    for damaged_at in 0..journal.len() - length {
        let mut journal = journal.clone();
        journal[damaged_at] ^= 0x55;
        let (entries, skipped) = decode_all(&journal);
        let ids: Vec<_> = entries
            .iter()
            .map(|entry| match entry {
                Entry::Recorded(record) => record.id.as_str(),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        let expected = if damaged_at < length {
            ["b", "c"]
        } else {
            ["a", "c"]
        };
        // A length made larger can reach beyond the end, where it looks like a torn write.
        if ids.len() == 2 {
            assert_eq!(ids, expected, "damaged at {damaged_at}");
            assert_eq!(skipped, length);
        } else {
            assert!(
                (4..8).contains(&(damaged_at % length)),
                "damaged at {damaged_at}"
            );
        }
    }
}

#[test]
fn absurdly_long_texts_are_clipped_to_what_an_entry_may_hold() {
    let mut long = record("a");
    long.model_requested = Some("\u{1}€".repeat(1_000_000));
    long.reasons = vec!["\u{1}".repeat(100_000); 100];
    let frame = encode(EntryRef::Recorded(&long));
    assert!(frame.len() <= FRAME_BYTES_MAX);
    let Decoded::Entry {
        entry: Entry::Recorded(read),
        ..
    } = decode(&frame)
    else {
        panic!("unreadable");
    };
    assert_eq!(read.id, "a");
    assert!(
        long.model_requested
            .unwrap()
            .starts_with(&read.model_requested.unwrap())
    );
}
