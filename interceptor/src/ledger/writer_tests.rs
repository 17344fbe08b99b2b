//! What waits in memory for a journal that has no room.

use super::super::Explained;
use super::super::frame::{EntryRef, encode};
use super::*;

#[test]
fn what_completes_a_record_stays_behind_it_while_that_waits_for_room() {
    let directory = tempfile::tempdir().unwrap();
    let shared = Shared::new(Journal::create(directory.path(), "this").unwrap());
    let before = shared.journal.end();
    let explained = Explained::default();
    let frame = encode(EntryRef::Explained {
        id: "a",
        explained: &explained,
    });
    let explain = || {
        let id = "a".to_owned();
        let explained = explained.clone();
        shared.write(
            frame.clone(),
            Handed::Entry(Entry::Explained { id, explained }),
        )
    };
    shared.keep(b"record a".to_vec());
    explain();
    let taken = shared.take_overflow();
    assert_eq!(taken, [b"record a".to_vec(), frame.clone()]);
    // The writer has it in hand and may not get rid of it.
    explain();
    assert_eq!(shared.journal.end(), before, "nothing is journaled");
    shared.put_back([b"record a".to_vec()].into());
    let taken = shared.take_overflow();
    assert_eq!(taken, [b"record a".to_vec(), frame.clone()]);
    shared.put_back(VecDeque::new());
    explain();
    assert!(shared.journal.end() > before, "there is nothing before it");
}

#[test]
fn what_is_in_hand_counts_for_the_bound_of_memory() {
    let directory = tempfile::tempdir().unwrap();
    let shared = Shared::new(Journal::create(directory.path(), "this").unwrap());
    let half = vec![0; OVERFLOW_BYTES_MAX / 2];
    shared.keep(half.clone());
    shared.keep(half);
    let taken = shared.take_overflow();
    shared.keep(vec![0]);
    assert_eq!(shared.health().dropped, 1);
    shared.put_back(taken);
    assert_eq!(shared.health().in_memory, 2);
    shared.take_overflow();
    shared.put_back(VecDeque::new());
    shared.keep(vec![0]);
    assert_eq!(shared.health().dropped, 1, "there is room again");
}
