//! What a decision about a call costs, with as many accounts as a cap may have.
//!
//! `cargo bench -p weir-core --bench caps` prints, for one call at a time: looking up its price,
//! and reserving and settling it under three caps, one of which has 100,000 accounts, also where each
//! of many accounts is raised; and what an account takes of memory.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program for the terminal"
)]

use std::hint::black_box;
use std::time::Instant;

use weir_core::caps::{
    Amount, Amounts, Cap, Caps, Change, ChangeKind, Decision, Dimension, SCOPES_MAX, Window,
};
use weir_core::identity::{Caller, Subject};
use weir_core::money::Money;
use weir_core::pricing::{Context, PriceTable};
use weir_core::usage::Usage;

const NOW_MS: i64 = 1_795_348_800_000;
const CALLS: usize = 500_000;
/// As many as `weir caps raise` lets be in force.
const RAISES: usize = 10_000;
/// Odd, so that the walk through the callers meets each of them.
const STRIDE: usize = 61_803;

fn main() {
    memory();
    price();
    decide("100,000 accounts", Vec::new());
    let raises = (0..RAISES).map(raise).collect();
    decide("10,000 of 100,000 accounts raised", raises);
}

/// More is asked of the caps where there are changes: whose account is it?
fn raise(number: usize) -> Change {
    Change {
        number: i64::try_from(number).unwrap() + 1,
        at_ms: NOW_MS,
        cap: "each user".to_owned(),
        scope: Some(format!("user=user-{number}")),
        kind: ChangeKind::Raise {
            by: Amount::of_call(Money::from_nanos(1), 1),
            until_ms: i64::MAX,
        },
        author: "bench".to_owned(),
        reason: "bench".to_owned(),
    }
}

/// What accounts add to what is resident: of a calendar window, and of one that rolls and has spent
/// in every step. Before anything else, or it would be memory that was resident already.
fn memory() {
    let callers = callers();
    let mut all = Vec::new();
    for (what, window, steps) in [
        ("of a day", Window::Day, 1),
        ("of a rolling day, spent in 24 steps", rolling_day(), 24),
    ] {
        let before = resident_kib();
        let mut caps = Caps::new(vec![cap("each user", vec![Dimension::User], window)]);
        for step in 0..steps {
            for caller in &callers {
                let decision = caps.reserve(NOW_MS + step * 3_600_000, &subject(caller), amounts());
                let Decision::Admitted { ticket, .. } = decision else {
                    panic!("the limit is too low")
                };
                caps.settle(ticket, amounts().expected);
            }
        }
        let bytes = (resident_kib() - before) * 1024 / SCOPES_MAX;
        println!("memory of an account {what}: {bytes} bytes");
        all.push(caps);
    }
}

fn rolling_day() -> Window {
    Window::Day.rolling().unwrap()
}

/// Of this process.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}

fn callers() -> Vec<Caller> {
    let caller = |number| Caller {
        user: Some(format!("user-{number}")),
        ..Caller::default()
    };
    (0..SCOPES_MAX).map(caller).collect()
}

fn subject(caller: &Caller) -> Subject<'_> {
    Subject {
        caller,
        provider: "anthropic",
        host: "api.anthropic.com",
        model: "claude-opus-5-5",
    }
}

fn amounts() -> Amounts {
    Amounts {
        expected: Amount::of_call(Money::from_nanos(1_000), 100),
        worst: Amount::of_call(Money::from_nanos(9_000), 900),
    }
}

fn price() {
    let table = PriceTable::builtin();
    let usage = Usage {
        input: 100,
        cache_read: 90_000,
        cache_write: 500,
        output: 700,
        ..Usage::default()
    };
    for (provider, model) in [
        ("anthropic", "claude-opus-5-5-20261014"),
        ("openai", "gpt-4o"),
        ("openai", "no-such-model"),
        ("configured", "anthropic/claude-opus-5.5"),
    ] {
        let context = Context {
            provider,
            model,
            at_unix: NOW_MS / 1000,
            ..Context::default()
        };
        let times = (0..CALLS / 10).map(|_| {
            let start = Instant::now();
            black_box(table.price(black_box(&context), black_box(&usage)));
            start.elapsed().as_nanos()
        });
        report(&format!("price {provider} {model}"), times.collect());
    }
}

fn decide(what: &str, changes: Vec<Change>) {
    let callers = callers();
    let mut caps = Caps::new(vec![
        cap("all", Vec::new(), Window::Total),
        cap("each user", vec![Dimension::User], Window::Day),
        cap(
            "each model",
            vec![Dimension::Provider, Dimension::Model],
            Window::Month,
        ),
    ]);
    caps.change(NOW_MS, changes);
    let amounts = amounts();
    let (mut reserving, mut settling) = (Vec::new(), Vec::new());
    for call in 0..CALLS {
        let caller = callers.get(call * STRIDE % SCOPES_MAX).unwrap();
        let subject = subject(caller);
        let start = Instant::now();
        let decision = black_box(caps.reserve(NOW_MS, &subject, amounts));
        let reserved = start.elapsed().as_nanos();
        let Decision::Admitted { ticket, .. } = decision else {
            panic!("the limit is too low")
        };
        let start = Instant::now();
        black_box(caps.settle(ticket, Amount::of_call(Money::from_nanos(900), 90)));
        let settled = start.elapsed().as_nanos();
        // The first round makes the accounts.
        if call >= SCOPES_MAX {
            reserving.push(reserved);
            settling.push(settled);
        }
    }
    assert_eq!(caps.take_shared_calls(), 0);
    report(&format!("reserve, 3 caps, {what}"), reserving);
    report(&format!("settle, 3 caps, {what}"), settling);
}

fn cap(name: &str, per: Vec<Dimension>, window: Window) -> Cap {
    Cap {
        per,
        warn_at_permille: vec![500, 800],
        ..Cap::new(name, window, Money::MAX)
    }
}

fn report(what: &str, mut nanoseconds: Vec<u128>) {
    nanoseconds.sort_unstable();
    let at = |permille: usize| {
        let place = (nanoseconds.len() * permille / 1000).min(nanoseconds.len() - 1);
        nanoseconds.get(place).unwrap()
    };
    println!(
        "{what}: p50 {} ns, p99 {} ns, p99.9 {} ns",
        at(500),
        at(990),
        at(999)
    );
}
