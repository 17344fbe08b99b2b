//! When a call asks other nodes, and what becomes of more conversations than can wait to be told.

use super::*;
use crate::ledger::LedgerOptions;
use weir_core::rewrite::Turn;

fn thread(turns: &[Fingerprint]) -> Thread {
    let turns: Vec<Turn> = turns
        .iter()
        .map(|at| Turn {
            message: 0,
            at: *at,
        })
        .collect();
    Thread {
        first: turns[0],
        is_start: turns.len() == 1,
        turns,
    }
}

#[test]
fn only_a_turn_behind_one_that_was_not_served_here_asks() {
    let mut seen = Seen::default();
    let is_behind =
        |seen: &Seen, turns: &[Fingerprint], began| seen.is_behind(&thread(turns), began);
    assert!(!is_behind(&seen, &[1], 100), "a first turn never waits");
    seen.note(100);
    assert!(!is_behind(&seen, &[1, 2], 100), "begun here");
    assert!(is_behind(&seen, &[1, 2], 101), "with another prompt");
    assert!(is_behind(&seen, &[1, 2, 3], 100), "2 was elsewhere");
    seen.note(2);
    assert!(!is_behind(&seen, &[1, 2], 101), "the same turn again");
    assert!(!is_behind(&seen, &[1, 2, 3], 101));
    assert!(is_behind(&seen, &[1, 2, 3, 4], 101), "3 was elsewhere");
    seen.note(4);
    assert!(!is_behind(&seen, &[1, 2, 3, 4], 101), "asked already");
    assert!(!is_behind(&seen, &[1, 2, 3, 4, 5], 101));
    assert!(is_behind(&seen, &[7, 8, 9], 102), "begun elsewhere");
}

#[test]
fn what_is_known_of_turns_is_bounded_and_the_latest_are_kept() {
    let mut seen = Seen::default();
    for at in 0..200_000 {
        seen.note(at);
    }
    assert!(seen.young.len() + seen.old.len() <= SEEN_MAX);
    assert!(seen.has(199_999) && seen.has(199_999 - 30_000));
}

/// Tells nobody: the database is not there.
fn nodes(state_dir: &std::path::Path, untold: IntCounter) -> Nodes {
    let options = LedgerOptions {
        url: "postgres://weir@%2Fnone/weir".to_owned(),
        ..LedgerOptions::new(state_dir)
    };
    let table = options.conversations().unwrap().unwrap();
    let (store, _) = Store::open(state_dir, None).unwrap();
    Nodes::new(table, Arc::new(store), Arc::default(), untold)
}

fn counter() -> IntCounter {
    IntCounter::new("untold", "Not told.").unwrap()
}

/// The writer has no turn while this test does not wait.
#[tokio::test]
async fn what_does_not_fit_the_queue_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let untold = counter();
    let nodes = nodes(dir.path(), untold.clone());
    for at in 0..CHANGED_MAX {
        nodes.tell(at as Fingerprint);
    }
    assert_eq!(untold.get(), 0);
    assert!(!nodes.has_told());
    nodes.tell(Fingerprint::MAX);
    assert_eq!(untold.get(), 1);
}

#[test]
fn what_waits_for_a_database_that_is_away_is_bounded_and_the_rest_is_counted() {
    let untold = counter();
    let mut pending: HashSet<Fingerprint> = (1..PENDING_MAX as Fingerprint).collect();
    let mut told = vec![0, 1, Fingerprint::MAX, 1];
    hold(&mut pending, &mut told, &untold);
    assert_eq!((pending.len(), untold.get()), (PENDING_MAX, 1));
    assert!(told.is_empty() && !pending.contains(&Fingerprint::MAX));
}
