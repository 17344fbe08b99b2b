//! Simulated nodes that share caps: seeded and deterministic, through crashes, partitions, lost,
//! late, repeated and reordered messages, and clocks that are off and run wrong.
//!
//! `WEIR_SIM_SEED=N` replays one run; `WEIR_SIM_RUNS=N` makes more of them than usual.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod dice;
mod network;
mod node;
mod world;

use dice::Dice;
use weir_core::lease::{Answer, Ask, Book, Sign, Slices};
use world::World;

const RUNS: u64 = 3_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The three invariants are asserted inside, after each step and at the end.
#[test]
fn no_schedule_breaks_a_cap_forgets_spend_or_keeps_a_slice() {
    let seeds = match number("WEIR_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEIR_SIM_RUNS").unwrap_or(RUNS),
    };
    let mut seen = world::Seen::default();
    for seed in seeds.clone() {
        // Printed where a run fails, and only there.
        println!("WEIR_SIM_SEED={seed}");
        seen.add(&World::new(seed).run());
    }
    if seeds.count() >= 1_000 {
        // A simulation in which nothing goes wrong proves nothing.
        assert!(seen.admitted > 100_000, "{seen:?}");
        for (what, count) in [
            ("refusals", seen.refused),
            ("crashes", seen.crashed),
            ("disks lost", seen.disks_lost),
            ("holders given up", seen.given_up),
            ("holders given up that live", seen.given_up_alive),
            ("overshoots within the bound", seen.over_limit),
            ("late answers", seen.late_answers),
        ] {
            assert!(count > 20, "too few {what}: {seen:?}");
        }
    }
}

fn register(slices: &mut Slices, book: &mut Book, name: &str) {
    let sign = slices.sign();
    assert_eq!(sign, Sign::Register { epoch: 1 });
    slices.signed(0, sign, book.register(name, 1, 0));
}

/// A holder on a perfect network, for one call after the other.
fn spend_alone(
    slices: &mut Slices,
    book: &mut Book,
    used: &mut i64,
    need: i64,
    limit: i64,
) -> bool {
    if *used + need > slices.allowed("a", 0) {
        let ask = Ask {
            account: "a",
            used: *used,
            need,
            limit,
            from_ms: 0,
            seed: 0,
            seed_ms: 0,
        };
        let take = slices.ask(&ask, 0).unwrap();
        let answer = book.take(&take);
        slices.answered(&take, Some(answer), 0);
    }
    let fits = *used + need <= slices.allowed("a", 0);
    *used += if fits { need } else { 0 };
    fits
}

#[test]
fn a_cap_can_be_used_up_by_one_and_nearly_so_before_many_are_first_refused() {
    for (holders, usable) in [(1, 10_000), (3, 9_500), (20, 9_000)] {
        let (limit, need) = (10_000, 5);
        let mut book = Book::default();
        let mut all: Vec<_> = (0..holders)
            .map(|number| {
                let name = number.to_string();
                let mut slices = Slices::new(name.clone());
                register(&mut slices, &mut book, &name);
                (slices, 0)
            })
            .collect();
        let mut dice = Dice::new(7);
        loop {
            let (slices, used) = &mut all[dice.below(holders) as usize];
            if !spend_alone(slices, &mut book, used, need, limit) {
                break;
            }
        }
        let used: i64 = all.iter().map(|(_, used)| used).sum();
        assert!((usable..=limit).contains(&used), "{used} by {holders}");
    }
}

#[test]
fn questions_become_single_decisions_near_the_limit_and_are_rare_far_from_it() {
    let (limit, need) = (100_000, 100);
    let mut book = Book::default();
    let mut slices = Slices::new("n");
    register(&mut slices, &mut book, "n");
    let (mut used, mut allowed, mut questions) = (0, 0, [0; 10]);
    while spend_alone(&mut slices, &mut book, &mut used, need, limit) {
        if slices.allowed("a", 0) != allowed {
            allowed = slices.allowed("a", 0);
            questions[usize::try_from((used - 1) * 10 / limit).unwrap()] += 1;
        }
    }
    assert_eq!(used, limit);
    assert!(questions[..5].iter().all(|few| *few <= 4), "{questions:?}");
    assert!(questions[9] >= 30, "{questions:?}");
}

#[test]
fn who_first_asks_tells_what_was_spent_before() {
    let mut book = Book::default();
    let mut slices = Slices::new("n");
    register(&mut slices, &mut book, "n");
    let ask = Ask {
        account: "a",
        used: 0,
        need: 10,
        limit: 100,
        from_ms: 50,
        seed: 95,
        seed_ms: 80,
    };
    let take = slices.ask(&ask, 0).unwrap();
    let answer = book.take(&take);
    let expected = Answer::Short {
        number: 1,
        allowed: 0,
        spent: 95,
        held: 0,
    };
    assert_eq!(answer, expected);
    slices.answered(&take, Some(answer), 0);
    assert_eq!(slices.short("a", 10, 100), Some(expected));
    assert_eq!(slices.short("a", 5, 100), None);
    assert_eq!(slices.short("a", 10, 10_000), None);
    // A rolling window goes on: what was told counts for the next who asks, too, and is told once.
    let mut next = Slices::new("m");
    register(&mut next, &mut book, "m");
    let later = |from_ms| Ask {
        from_ms,
        seed: 5,
        seed_ms: from_ms + 30,
        ..ask
    };
    let take = next.ask(&later(80), 0).unwrap();
    assert_eq!(book.take(&take), expected);
    next.answered(&take, None, 0);
    let take = next.ask(&later(81), 0).unwrap();
    assert!(matches!(book.take(&take), Answer::Granted { .. }));
}

#[test]
fn an_account_is_forgotten_once_all_of_it_is_given_back() {
    let (mut book, mut slices) = (Book::default(), Slices::new("n"));
    register(&mut slices, &mut book, "n");
    let ask = |used, need| Ask {
        account: "a",
        used,
        need,
        limit: 1_000,
        from_ms: 0,
        seed: 0,
        seed_ms: 0,
    };
    let take = slices.ask(&ask(0, 10), 0).unwrap();
    assert!(!slices.forget_if_unheld("a"), "it may be answered");
    slices.answered(&take, None, 0);
    assert!(!slices.forget_if_unheld("a"), "it may have been granted");
    let take = slices.ask(&ask(0, 10), 0).unwrap();
    slices.answered(&take, Some(book.take(&take)), 0);
    assert!(!slices.forget_if_unheld("a"), "it is held");
    let take = slices.give_back(&ask(0, 0), i64::MAX).unwrap();
    assert!(!slices.forget_if_unheld("a"), "the book may not know");
    slices.answered(&take, Some(book.take(&take)), 0);
    assert!(slices.forget_if_unheld("a"));
    assert_eq!((slices.accounts().count(), book.held("a", 0)), (0, 0));
}
