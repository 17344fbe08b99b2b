//! How long it takes to find the price of a call: `cargo bench -p weir-core --bench prices`.
//! Prints the best of many rounds for a name that is listed as it is, for names that have to be
//! taken apart, and for one that no list has. A call does this twice or so.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::time::Instant;

use weir_core::pricing::{Context, PriceTable};
use weir_core::usage::Usage;

fn main() {
    let table = PriceTable::builtin();
    let usage = Usage {
        input: 1_000,
        cache_read: 100_000,
        output: 500,
        ..Usage::default()
    };
    for (provider, model) in [
        ("anthropic", "claude-opus-5-5"),
        ("anthropic", "claude-opus-5-5-20261014"),
        ("openai", "gpt-6.1-sol-2026-11-03"),
        (
            "aws",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-5-5-v1:0",
        ),
        ("openrouter", "anthropic/claude-opus-5.5:nitro"),
        ("configured", "nobody-knows-this-model"),
    ] {
        let context = Context {
            provider,
            model,
            at_unix: 1_795_399_200,
            ..Context::default()
        };
        let nanos = best(|| table.price(black_box(&context), black_box(&usage)));
        println!("{nanos:>8.0} ns  {provider} {model}");
    }
}

/// Nanoseconds of one, of the best of many rounds.
fn best<T>(mut work: impl FnMut() -> T) -> f64 {
    let round = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(work());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    std::iter::repeat_with(round)
        .take(ROUNDS)
        .fold(f64::INFINITY, f64::min)
}

const ROUNDS: usize = 50;
const CALLS: u32 = 1_000;
