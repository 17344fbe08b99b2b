//! What rewriting must keep to, session by session, and that the table says what is so.

use std::sync::LazyLock;

use super::replay::{Sent, Way, replay};
use super::table::{self, Row};
use super::{README, session};
use crate::weir::Weir;

/// The replays that several tests look at.
fn rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(table::rows);
    &ROWS
}

#[test]
fn the_corpus_is_as_wide_as_it_claims() {
    let sessions = session::all();
    let mut busters: Vec<_> = sessions
        .iter()
        .flat_map(|session| &session.busters)
        .collect();
    busters.sort_unstable();
    busters.dedup();
    let mut agents: Vec<_> = sessions.iter().map(|session| &session.agent).collect();
    agents.sort_unstable();
    agents.dedup();
    let counts = (sessions.len(), busters.len(), agents.len());
    assert!(
        counts.0 >= 40 && counts.1 >= 25 && counts.2 >= 15,
        "{counts:?}"
    );
}

#[test]
fn rewriting_pays_where_a_prefix_was_broken_and_costs_nothing_elsewhere() {
    let rows = rows();
    let refused: Vec<_> = rows
        .iter()
        .flat_map(|row| row.rewritten.refused.iter().chain(&row.off.refused))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let names = |rows: Vec<&'static Row>| -> Vec<&str> {
        rows.into_iter()
            .map(|row| row.session.name.as_str())
            .collect()
    };
    let dearer = rows.iter().filter(|row| row.saved_permille() < 0).collect();
    assert_eq!(names(dearer), [""; 0], "what became dearer");
    let broken = rows.iter().filter(|row| row.session.repairable);
    let poor = broken.filter(|row| row.saved_permille() < 600).collect();
    assert_eq!(
        names(poor),
        [""; 0],
        "where a broken prefix saves less than 60 %"
    );
}

#[test]
fn the_table_in_the_readme_is_what_the_corpus_says() {
    let readme = std::fs::read_to_string(README).unwrap();
    let fresh = table::replaced(&readme, &table::table(rows()));
    assert!(
        readme == fresh,
        "the table is stale: cargo run -p weir-tests --bin corpus -- --write"
    );
}

/// Replays every session with something done to Weir before each call.
fn disturbed(what: &str, disturb: fn(&mut Weir, usize)) {
    struct Disturbed(Weir, fn(&mut Weir, usize));
    impl Way for Disturbed {
        fn pass(&mut self, sent: &Sent<'_>) -> String {
            (self.1)(&mut self.0, sent.turn);
            self.0.pass(sent)
        }
    }
    for (index, session) in session::all().iter().enumerate() {
        let calm = replay(session, index, &mut Weir::new());
        let replayed = replay(session, index, &mut Disturbed(Weir::new(), disturb));
        assert!(
            replayed.refused.is_empty(),
            "{what}, {}: {:?}",
            session.name,
            replayed.refused
        );
        assert_eq!(replayed.torn, calm.torn, "{what}, {}", session.name);
    }
}

#[test]
fn what_a_provider_saw_stays_as_it_was_across_restarts_and_nodes() {
    disturbed("restarted between all turns", |weir, _| weir.restart());
}

#[test]
fn what_a_provider_saw_stays_as_it_was_when_rules_change() {
    disturbed("other rules half way", |weir, turn| match turn {
        0..3 => {}
        _ => weir.strip_times(),
    });
}

#[test]
fn what_a_provider_saw_stays_as_it_was_when_rewriting_is_switched_off_and_on() {
    disturbed("off, then on again", |weir, turn| {
        weir.on = !(3..5).contains(&turn);
    });
}
