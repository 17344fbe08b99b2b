//! Properties of prices that hold for any usage of any model.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that panics is one that fails"
)]

use proptest::prelude::*;
use weir_core::money::Money;
use weir_core::pricing::{Context, Kind, PriceTable, Rates};
use weir_core::usage::Usage;

/// Models with every kind of price: flat, with cliffs, by the hour, with media, with fees.
const MODELS: [(&str, &str); 10] = [
    ("anthropic", "claude-opus-5-5"),
    ("anthropic", "claude-haiku-5-5"),
    ("openai", "gpt-6-astra"),
    ("openai", "gpt-realtime"),
    ("google", "gemini-2.5-flash"),
    ("x-ai", "grok-4.7"),
    ("deepseek", "deepseek-v4-pro"),
    ("perplexity", "sonar-deep-research"),
    ("aws", "us.anthropic.claude-sonnet-5-5"),
    ("mistral", "mistral-large-4"),
];

/// 2026-11-23, a Monday, in an hour that costs more at some.
const AT_UNIX: i64 = 1_795_399_200;

/// A quarter of a prompt: four are below the lowest cliff, of 100 000 tokens.
const QUARTER: u64 = 20_000;

fn rates(model: usize, prompt_tokens: u64, batch: bool, regional: bool) -> Rates {
    let (provider, model) = MODELS[model];
    let context = Context {
        provider,
        model,
        at_unix: AT_UNIX,
        batch,
        regional,
        ..Context::default()
    };
    PriceTable::builtin()
        .rates(&context, prompt_tokens)
        .unwrap()
}

prop_compose! {
    fn usages()(
        input in 0..QUARTER, cache_read in 0..QUARTER, cache_write in 0..QUARTER,
        cache_write_long in 0..QUARTER, output in 0..200_000_u64,
        shares in prop::array::uniform8(0..10_000_u64), pieces in prop::array::uniform3(0..50_u64),
    ) -> Usage {
        let [input_audio, input_image, input_video, cache_audio, cache_image, output_audio,
            output_image, reasoning] = shares;
        let [web_searches, file_searches, citation] = pieces;
        Usage {
            input, cache_read, cache_write, cache_write_long, output, reasoning, web_searches,
            file_searches, citation, input_audio, input_image, input_video, cache_audio,
            cache_image, output_audio, output_image,
        }
    }
}

fn bucket(usage: &mut Usage, at: usize) -> &mut u64 {
    match at {
        0 => &mut usage.input,
        1 => &mut usage.cache_read,
        2 => &mut usage.cache_write,
        3 => &mut usage.cache_write_long,
        4 => &mut usage.output,
        5 => &mut usage.web_searches,
        6 => &mut usage.file_searches,
        _ => &mut usage.citation,
    }
}

proptest! {
    #[test]
    fn a_cost_is_never_negative_and_one_more_token_never_costs_less(
        model in 0..MODELS.len(), usage in usages(), at in 0..8_usize, more in 1..1000_u64,
        batch: bool, regional: bool,
    ) {
        let rates = rates(model, usage.prompt(), batch, regional);
        let cost = rates.cost(&usage).unwrap();
        let parts = [cost.input, cost.cache_read, cost.cache_write, cost.output, cost.extras];
        prop_assert!(parts.iter().all(|part| *part >= Money::ZERO));
        prop_assert!(cost.total >= Money::ZERO && cost.without_cache >= Money::ZERO);
        let mut longer = usage;
        *bucket(&mut longer, at) += more;
        prop_assert!(rates.cost(&longer).unwrap().total >= cost.total);
    }

    #[test]
    fn the_parts_are_the_whole_but_for_their_rounding(
        model in 0..MODELS.len(), usage in usages(), batch: bool, regional: bool,
    ) {
        let cost = rates(model, usage.prompt(), batch, regional).cost(&usage).unwrap();
        let parts = [cost.input, cost.cache_read, cost.cache_write, cost.output, cost.extras];
        let sum = parts.into_iter().sum::<Money>();
        prop_assert!(cost.total <= sum && sum.nanos() - cost.total.nanos() <= 5);
    }

    #[test]
    fn a_cost_is_the_exact_sum_rounded_up_once(
        model in 0..MODELS.len(), input in 0..QUARTER, cache_read in 0..QUARTER,
        output in 0..200_000_u64,
    ) {
        let usage = Usage { input, cache_read, output, ..Usage::default() };
        let rates = rates(model, usage.prompt(), false, false);
        let picos = [(input, Kind::Input), (cache_read, Kind::CacheRead), (output, Kind::Output)]
            .into_iter()
            .map(|(tokens, kind)| u128::from(tokens) * u128::from(rates.per_token(kind).unwrap()))
            .sum::<u128>();
        let total = rates.cost(&usage).unwrap().total;
        prop_assert_eq!(total, Money::from_picos_rounded_up(picos));
    }

    #[test]
    fn a_share_is_never_counted_beside_its_whole(
        model in 0..MODELS.len(), tokens in 0..QUARTER, share in 0..2 * QUARTER,
    ) {
        let rates = rates(model, tokens, false, false);
        let dearest = Kind::ALL.iter().filter_map(|kind| rates.per_token(*kind)).max().unwrap();
        let usage = Usage {
            output: tokens,
            reasoning: share,
            output_audio: share,
            output_image: share,
            ..Usage::default()
        };
        let most = u128::from(tokens) * u128::from(dearest);
        prop_assert!(rates.cost(&usage).unwrap().output <= Money::from_picos_rounded_up(most));
    }
}
