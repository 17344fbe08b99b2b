//! Outcomes and counterfactuals by example.

mod explain;

use super::*;
use crate::pricing::{Context, PriceTable};

fn usage(input: u64, cache_read: u64, cache_write: u64) -> Usage {
    Usage {
        input,
        cache_read,
        cache_write,
        ..Usage::default()
    }
}

#[test]
fn the_outcome_tells_what_the_cache_did() {
    // Rules | input, read and written tokens | prompt of the previous call | outcome.
    let table = "
        marked    |   50 9000  950 | 9000 | hit           | the conversation has grown
        marked    |  200 8800    0 | 9000 | hit           | the last message was not marked
        marked    |    0 4000 6000 | 9000 | partial       | the system prompt was read, no more
        marked    |    0 4000    0 | 9000 | hit           | the conversation was cut short
        marked    | 5000 5000    0 |    - | hit           | half of it was read
        marked    | 5001 4999    0 |    - | partial       | less was read
        marked    |   10    0 5000 |    - | write         | a first call
        marked    |   10    0 9000 | 9000 | write         | the prefix was lost
        marked    | 5000    0    0 | 5000 | miss          | nothing happened
        marked    | 1024    0    0 |    - | miss          | long enough
        marked    | 1023    0    0 |    - | below_minimum | a token too short
        unmarked  | 5000    0    0 | 5000 | not_asked     | no marker
        unmarked  |    5    0    0 |    - | not_asked     | short, no marker
        unmarked  |    0 5000    0 | 5000 | hit           | no marker that was seen
        automatic |  976 8960    0 | 9087 | hit           | all whole blocks were read
        automatic | 9000    0    0 |    - | miss          | a cold cache
        automatic |  900    0    0 |    - | below_minimum | too short to cache";
    for row in table.trim().lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let rules = match cells[0] {
            "automatic" => CacheRules::automatic(false, 1024),
            marked => CacheRules::by_markers(marked == "marked", 1024),
        };
        let tokens: Vec<u64> = cells[1]
            .split_whitespace()
            .map(|count| count.parse().unwrap())
            .collect();
        let usage = usage(tokens[0], tokens[1], tokens[2]);
        let outcome = judge(&usage, rules, cells[2].parse().ok());
        assert_eq!(outcome.as_str(), cells[3], "{}", cells[4]);
    }
}

#[test]
fn a_long_write_is_a_write() {
    let usage = Usage {
        cache_write_long: 5000,
        ..Usage::default()
    };
    let rules = CacheRules::by_markers(true, 1024);
    assert_eq!(judge(&usage, rules, None), CacheOutcome::Write);
}

#[test]
fn outcomes_are_named_as_they_are_stored() {
    let all = [
        CacheOutcome::Hit,
        CacheOutcome::Partial,
        CacheOutcome::Write,
        CacheOutcome::Miss,
        CacheOutcome::BelowMinimum,
        CacheOutcome::NotAsked,
        CacheOutcome::NotReported,
    ];
    for outcome in all {
        assert_eq!(
            serde_json::to_string(&outcome).unwrap(),
            format!("{:?}", outcome.as_str())
        );
    }
}

/// What a call cost, without cache, and with a perfect one, in millionths of a dollar.
fn costs(model: (&str, &str), rules: CacheRules, usage: &Usage, previous: Option<u64>) -> [i64; 3] {
    let (provider, model) = model;
    let context = Context {
        provider,
        model,
        at_unix: 1_795_348_800,
        ..Context::default()
    };
    let rates = PriceTable::builtin()
        .rates(&context, usage.prompt())
        .unwrap();
    let cost = rates.cost(usage).unwrap();
    let perfect = perfect(usage, &rates, &cost, rules, previous);
    [cost.total, cost.without_cache, perfect].map(|amount| amount.nanos().div_euclid(1000))
}

/// Input 4, read 0.2, write 5, long write 8 dollars per million.
const OPUS: (&str, &str) = ("anthropic", "claude-opus-5-5");
/// Input 5, read 0.5 dollars per million; writes are free.
const GPT: (&str, &str) = ("openai", "gpt-5.5");

#[test]
fn a_lost_prefix_costs_what_a_perfect_cache_would_have_saved() {
    let rules = CacheRules::by_markers(true, 512);
    let lost = usage(0, 0, 10_000);
    // 10 000 written; or uncached; or 9000 read and 1000 written.
    assert_eq!(
        costs(OPUS, rules, &lost, Some(9000)),
        [50_000, 40_000, 1_800 + 5_000]
    );
}

#[test]
fn a_call_that_the_cache_served_well_was_perfect() {
    let rules = CacheRules::by_markers(true, 512);
    let served = usage(0, 9000, 1000);
    assert_eq!(
        costs(OPUS, rules, &served, Some(9000)),
        [6_800, 40_000, 6_800]
    );
}

#[test]
fn a_perfect_cache_reads_no_less_than_was_read() {
    let rules = CacheRules::by_markers(true, 512);
    // Another conversation had written the prefix.
    assert_eq!(
        costs(OPUS, rules, &usage(0, 8000, 2000), None),
        [11_600, 40_000, 11_600]
    );
}

#[test]
fn a_perfect_cache_is_never_dearer_than_what_happened() {
    let rules = CacheRules::by_markers(false, 512);
    // A single call gains nothing from writing what nobody reads.
    assert_eq!(
        costs(OPUS, rules, &usage(10_000, 0, 0), None),
        [40_000, 40_000, 40_000]
    );
    assert_eq!(
        costs(OPUS, rules, &usage(500, 0, 0), Some(500)),
        [2_000, 2_000, 2_000]
    );
}

#[test]
fn a_perfect_cache_writes_for_as_long_as_the_call_did() {
    let rules = CacheRules::by_markers(true, 512);
    let lost = Usage {
        cache_write_long: 10_000,
        ..Usage::default()
    };
    assert_eq!(
        costs(OPUS, rules, &lost, Some(9000)),
        [80_000, 40_000, 1_800 + 8_000]
    );
}

#[test]
fn reads_of_caches_without_markers_are_whole_blocks() {
    let rules = CacheRules::automatic(false, 1024);
    let cold = usage(10_000, 0, 0);
    // 8960 of 9000 tokens are 70 blocks.
    assert_eq!(
        costs(GPT, rules, &cold, Some(9000)),
        [50_000, 50_000, 4_480 + 5_200]
    );
    assert_eq!(
        costs(GPT, rules, &cold, Some(1023)),
        [50_000, 50_000, 50_000]
    );
    assert_eq!(
        costs(GPT, rules, &cold, Some(1024)),
        [50_000, 50_000, 512 + 44_880]
    );
    assert_eq!(
        costs(GPT, rules, &cold, Some(u64::MAX)),
        [50_000, 50_000, 4_992 + 80]
    );
}
