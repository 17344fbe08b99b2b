//! What rewriting must keep to, session by session, and that the table says what is so.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use weir::process::config::CacheMode;

use super::nodes::Shared;
use super::replay::{Replay, Way};
use super::session;
use super::sidecar::{Weir, config};
use super::table::{self, Row};

/// The replays that several tests look at.
fn rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(table::rows);
    &ROWS
}

#[test]
fn the_corpus_is_as_wide_as_it_claims() {
    let sessions = session::all();
    let busters: BTreeSet<_> = sessions
        .iter()
        .flat_map(|session| &session.busters)
        .collect();
    let agents: BTreeSet<_> = sessions.iter().map(|session| &session.agent).collect();
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
    if std::env::var_os("WEIR_UPDATE").is_some() {
        std::fs::write(README, fresh).unwrap();
        return;
    }
    assert!(
        readme == fresh,
        "the table is stale: WEIR_UPDATE=1 cargo test -p weir-tests --test corpus\n{fresh}"
    );
}

#[test]
fn only_what_the_client_changes_itself_tears_a_conversation() {
    for Row {
        session,
        off,
        rewritten,
    } in rows()
    {
        let name = &session.name;
        let more: Vec<_> = but(&rewritten.torn, &off.torn);
        assert_eq!(more, [""; 0], "{name}: torn by rewriting");
        assert_eq!(rewritten.torn.len(), session.torn, "{name}");
    }
}

/// Those that `known` has not.
fn but<'a>(torn: &'a [String], known: &[String]) -> Vec<&'a String> {
    torn.iter().filter(|torn| !known.contains(torn)).collect()
}

/// Replays all sessions at the same time, turn by turn, with something done to Weir before each. It may
/// cost so many thousandths more than without Weir.
async fn disturbed(
    mut weir: Weir,
    dearer_permille: u64,
    begin: fn(&'static session::Session, usize) -> Replay<'static>,
    mut disturb: impl AsyncFnMut(&mut Weir, usize),
) {
    let sessions = || rows().iter().map(|row| &row.session).enumerate();
    let begin = || sessions().map(|(index, session)| begin(session, index));
    let mut replays: Vec<_> = begin().collect();
    let turns = sessions().map(|(_, session)| session.turns);
    for turn in 0..turns.max().unwrap() {
        disturb(&mut weir, turn).await;
        for replay in &mut replays {
            replay.turn(turn, &mut Way::Through(&mut weir)).await;
        }
    }
    // Where the ledger was too late a turn went as it came, and is torn, as is the next one, which does not.
    let unreachable = usize::try_from(weir.unreachable()).unwrap();
    let mut excused = 2 * unreachable;
    for ((row, replay), off) in rows().iter().zip(replays).zip(begin()) {
        let name = &row.session.name;
        let off = off.whole(&mut Way::Off).await;
        let disturbed = replay.replayed;
        assert_eq!(disturbed.refused, [""; 0], "{name}");
        let more = but(&disturbed.torn, &row.rewritten.torn);
        if !more.is_empty() && more.len() <= excused {
            excused -= more.len();
        } else {
            assert_eq!(
                more, [""; 0],
                "{name}: torn by it, {unreachable} unreachable"
            );
        }
        let (cost, off) = (disturbed.nanodollars, off.nanodollars);
        let dearer = cost.saturating_sub(off) * 1000;
        assert!(dearer <= off * dearer_permille, "{name}: {cost}, {off}");
    }
}

const STRIPPED: &str = "[[rule]]\nname = \"timestamp\"\ntransform = \"strip\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_saw_stays_as_it_was_when_weir_is_killed_between_all_turns() {
    // What was sent lately is known to the process only, so that breakpoints are not added where they
    // would pay for what is told.
    disturbed(Weir::spawn(), 50, Replay::at_once, async |weir, turn| {
        if turn > 0 {
            weir.restart(config(CacheMode::Rewrite, "")).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_saw_stays_as_it_was_when_rules_change() {
    let weir = Weir::start(config(CacheMode::Rewrite, ""));
    disturbed(weir, 0, Replay::begin, async |weir, turn| {
        if turn == 3 {
            weir.restart(config(CacheMode::Rewrite, STRIPPED)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_saw_stays_as_it_was_when_rewriting_is_switched_off_and_on() {
    let weir = Weir::start(config(CacheMode::Rewrite, ""));
    disturbed(weir, 0, Replay::begin, async |weir, turn| {
        let mode = match turn {
            2 => CacheMode::Observe,
            3 => CacheMode::Off,
            5 => CacheMode::Rewrite,
            _ => return,
        };
        weir.restart(config(mode, "")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_saw_stays_as_it_was_when_all_conversations_move_between_nodes() {
    let shared = Shared::start();
    let weir = Weir::pair(&shared.config());
    shared.connected().await;
    // Each node knows of its own calls only, as above.
    disturbed(weir, 50, Replay::begin, async |weir, turn| {
        if turn > 0 {
            weir.change_places().await;
        }
    })
    .await;
}

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/README.md");
