//! Prices of the list, on both sides of every edge.

mod scopes;

use super::*;
use crate::money::Money;

fn unix(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().unwrap().as_second()
}

pub(super) fn call<'a>(provider: &'a str, model: &'a str) -> Context<'a> {
    Context {
        provider,
        model,
        at_unix: unix("2026-11-22T12:00:00Z"),
        ..Context::default()
    }
}

pub(super) fn rates(context: &Context<'_>, prompt_tokens: u64) -> Rates {
    let rates = PriceTable::builtin().rates(context, prompt_tokens);
    rates.unwrap_or_else(|| panic!("{}/{} has no price", context.provider, context.model))
}

pub(super) fn models_of(table: &PriceTable) -> impl Iterator<Item = &Model> {
    table.lists().flat_map(PriceList::models)
}

/// Dollars per million tokens of input, output, cache read, write and long write.
pub(super) fn dollars(rates: &Rates) -> String {
    const MILLION: u64 = 1_000_000;
    let none = Usage::default();
    let buckets = [
        Usage {
            input: MILLION,
            ..none
        },
        Usage {
            output: MILLION,
            ..none
        },
        Usage {
            cache_read: MILLION,
            ..none
        },
        Usage {
            cache_write: MILLION,
            ..none
        },
        Usage {
            cache_write_long: MILLION,
            ..none
        },
    ];
    let prices = buckets.map(|usage| {
        let total = rates.cost(&usage).unwrap().total.to_string();
        let plain = total
            .trim_start_matches('$')
            .trim_end_matches('0')
            .trim_end_matches('.');
        plain.to_owned()
    });
    prices.join(" ")
}

fn check(context: &Context<'_>, prompt_tokens: u64, expected: &str) {
    let found = dollars(&rates(context, prompt_tokens));
    assert_eq!(
        found, expected,
        "{context:?}, prompt of {prompt_tokens} tokens"
    );
}

/// The rows of a table that is written as text, with `|` between cells.
pub(super) fn rows<const CELLS: usize>(table: &str) -> Vec<[&str; CELLS]> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            cells
                .try_into()
                .unwrap_or_else(|_| panic!("wrong number of cells: {line}"))
        })
        .collect()
}

#[test]
fn the_built_in_table_is_valid_and_dated() {
    assert_eq!(PriceTable::builtin().version(), "2026-11-22");
    for (provider, models) in [
        ("anthropic", 16),
        ("openai", 53),
        ("azure", 34),
        ("google", 33),
        ("aws", 52),
        ("", 325),
    ] {
        let of_provider = |model: &&Model| provider.is_empty() || model.provider == provider;
        let found = models_of(PriceTable::builtin()).filter(of_provider).count();
        assert_eq!(found, models, "{provider}");
    }
}

/// A price is one line, and the file is what an import of it would write.
#[test]
fn the_built_in_list_is_in_its_own_form_to_the_byte() {
    let imported = import(BUILTIN_PRICES, Some(Format::Weir), "").unwrap();
    let text = imported.text().unwrap();
    let (_, built_in) = BUILTIN_PRICES.split_once('\n').unwrap();
    let (_, written) = text.split_once('\n').unwrap();
    for (line, (written, built_in)) in written.lines().zip(built_in.lines()).enumerate() {
        assert_eq!(written, built_in, "line {}", line + 2);
    }
    assert_eq!(written.len(), built_in.len());
}

/// Input, output, cache read, write, long write, where one that is not listed costs what input
/// (or a default write) costs.
#[test]
fn flat_prices_are_those_of_the_list() {
    let list = rows(
        "anthropic  | claude-fable-5-2    | 8 40 0.2 10 16
         anthropic  | claude-mythos-5-2   | 8 40 0.2 10 16
         anthropic  | claude-fable-5-1    | 10 50 0.25 12.5 20
         anthropic  | claude-fable-5      | 10 50 1 12.5 20
         anthropic  | claude-opus-5-5     | 4 20 0.2 5 8
         anthropic  | claude-opus-5       | 5 25 0.5 6.25 10
         anthropic  | claude-opus-4-8     | 5 25 0.5 6.25 10
         anthropic  | claude-opus-4-7     | 5 25 0.5 6.25 10
         anthropic  | claude-opus-4-6     | 5 25 0.5 6.25 10
         anthropic  | claude-opus-4-5     | 5 25 0.5 6.25 10
         anthropic  | claude-sonnet-5-5   | 2 10 0.1 2.5 4
         anthropic  | claude-sonnet-5     | 2 10 0.2 2.5 4
         anthropic  | claude-sonnet-4-6   | 3 15 0.3 3.75 6
         anthropic  | claude-haiku-4-5    | 1 5 0.1 1.25 2
         moonshotai | kimi-k3.1-pro       | 2 10 0.2 2 4
         moonshotai | kimi-k3             | 3 15 0.3 3 6
         zai        | glm-5.3             | 1.4 4.4 0.26 1.4 1.4
         mistral    | mistral-large-4     | 0.7 2.1 0.07 0.7 0.7
         groq       | openai/gpt-oss-120b | 0.15 0.6 0.075 0.15 0.15",
    );
    for [provider, model, expected] in list {
        for prompt_tokens in [0, 1, 100_000, 1_000_000] {
            check(&call(provider, model), prompt_tokens, expected);
        }
    }
}

#[test]
fn one_token_beyond_a_cliff_reprices_every_token() {
    let list = rows(
        "anthropic | claude-haiku-5-5       | 100000 | 0.1 0.5 0.01 0.125 0.2   | 0.5 2.5 0.05 0.625 1
         openai    | gpt-6-astra            | 272000 | 10 50 1 12.5 25          | 20 75 2 25 50
         openai    | gpt-6-sol              | 272000 | 2 10 0.2 2.5 5           | 4 15 0.4 5 10
         openai    | gpt-6.1-sol            | 272000 | 2 10 0.1 2.5 5           | 4 15 0.2 5 10
         openai    | gpt-6.1-terra          | 272000 | 1 5 0.05 1.25 2.5        | 2 7.5 0.1 2.5 5
         openai    | gpt-6-luna             | 272000 | 0.1 0.5 0.01 0.125 0.25  | 0.2 0.75 0.02 0.25 0.5
         openai    | gpt-5.6-sol            | 272000 | 4 20 0.4 5 10            | 8 30 0.8 10 20
         openai    | gpt-5.6-terra          | 272000 | 2 12 0.2 2.5 5           | 4 18 0.4 5 10
         openai    | gpt-5.6-luna           | 272000 | 0.2 1.2 0.02 0.25 0.5    | 0.4 1.8 0.04 0.5 1
         openai    | gpt-5.5                | 272000 | 5 30 0.5 5 5             | 10 45 1 10 10
         google    | gemini-3.1-pro-preview | 200000 | 2 12 0.2 2 2             | 4 18 0.4 4 4
         x-ai      | grok-4.7               | 199999 | 2 6 0.5 2 2              | 4 12 1 4 4
         x-ai      | grok-4.6               | 199999 | 2 6 0.5 2 2              | 4 12 1 4 4
         minimax   | minimax-m3             | 512000 | 0.3 1.2 0.06 0.3 0.3     | 0.6 2.4 0.12 0.6 0.6",
    );
    for [provider, model, cliff, below, above] in list {
        let cliff: u64 = cliff.parse().unwrap();
        let sides = [
            (0, below),
            (1, below),
            (cliff, below),
            (cliff + 1, above),
            (u64::MAX, above),
        ];
        for (prompt_tokens, expected) in sides {
            check(&call(provider, model), prompt_tokens, expected);
        }
    }
}

#[test]
fn read_and_written_tokens_count_towards_the_cliff() {
    let at = |cache_read| {
        let usage = Usage {
            input: 50_000,
            cache_write: 25_000,
            cache_read,
            ..Usage::default()
        };
        let cost = PriceTable::builtin().price(&call("anthropic", "claude-haiku-5-5"), &usage);
        cost.unwrap().input.to_string()
    };
    assert_eq!(at(25_000), "$0.005");
    assert_eq!(at(25_001), "$0.025");
}

#[test]
fn a_new_price_holds_from_midnight_utc_of_its_day() {
    let list = rows(
        "google | gemini-4-argon   | 2026-12-01 | 2 10 0.1 2 2                | 4 20 0.2 4 4
         google | gemini-3.6-flash | 2027-01-01 | 0.75 3.75 0.075 0.75 0.75   | 1.5 7.5 0.15 1.5 1.5
         google | gemini-3.7-flash | 2027-01-01 | 0.75 3.75 0.075 0.75 0.75   | 1.5 7.5 0.15 1.5 1.5
         google | gemini-3.8-flash | 2027-01-01 | 0.75 3.75 0.075 0.75 0.75   | 1.5 7.5 0.15 1.5 1.5
         openai | o3               | 2025-06-10 | 10 40 0.5 10 10             | 2 8 0.5 2 2",
    );
    for [provider, model, day, before, after] in list {
        let midnight = unix(&format!("{day}T00:00:00Z"));
        let sides = [
            (0, before),
            (midnight - 1, before),
            (midnight, after),
            (midnight + 1, after),
        ];
        for (at_unix, expected) in sides {
            check(
                &Context {
                    at_unix,
                    ..call(provider, model)
                },
                1000,
                expected,
            );
        }
    }
}

#[test]
fn a_cliff_that_was_abolished_holds_before_that_day() {
    let before = unix("2026-03-12T23:59:59Z");
    let context = Context {
        at_unix: before,
        ..call("anthropic", "claude-sonnet-4-6")
    };
    check(&context, 200_001, "6 22.5 0.6 7.5 12");
    check(
        &Context {
            at_unix: before + 1,
            ..context
        },
        200_001,
        "3 15 0.3 3.75 6",
    );
}

#[test]
fn peak_hours_cost_more_on_working_days() {
    let flash = (
        "deepseek-flash",
        "0.15 0.6 0.003 0.15 0.15",
        "0.3 1.2 0.006 0.3 0.3",
    );
    let pro = (
        "deepseek-v4-pro",
        "0.66 1.98 0.022 0.66 0.66",
        "1.32 3.96 0.044 1.32 1.32",
    );
    // 2026-11-20 is a Friday, 2026-11-23 a Monday.
    let times = [
        ("2026-11-23T00:59:59Z", false),
        ("2026-11-23T01:00:00Z", true),
        ("2026-11-23T03:59:59Z", true),
        ("2026-11-23T04:00:00Z", false),
        ("2026-11-23T05:59:59Z", false),
        ("2026-11-23T06:00:00Z", true),
        ("2026-11-23T09:59:59Z", true),
        ("2026-11-23T10:00:00Z", false),
        ("2026-11-20T02:00:00Z", true),
        ("2026-11-21T02:00:00Z", false),
        ("2026-11-22T09:00:00Z", false),
    ];
    for (model, off_peak, peak) in [flash, pro] {
        for (time, is_peak) in times {
            let context = Context {
                at_unix: unix(time),
                ..call("deepseek", model)
            };
            check(&context, 1000, if is_peak { peak } else { off_peak });
        }
    }
}

#[test]
fn tiers_speeds_and_batches_have_prices_of_their_own() {
    // The last row: a rate that the variant lacks is the standard one.
    let list = rows(
        "anthropic | claude-opus-5-5 | speed | fast     | 8 40 0.4 10 16
         anthropic | claude-opus-5   | speed | fast     | 10 50 1 12.5 20
         anthropic | claude-opus-4-8 | speed | fast     | 10 50 1 12.5 20
         anthropic | claude-opus-5-5 | speed | standard | 4 20 0.2 5 8
         anthropic | claude-opus-5-5 | batch |          | 2 10 0.1 2.5 4
         anthropic | claude-opus-5-5 | tier  | batch    | 2 10 0.1 2.5 4
         anthropic | claude-opus-5-5 | tier  | standard | 4 20 0.2 5 8
         openai    | gpt-6-astra     | tier  | default  | 10 50 1 12.5 25
         openai    | gpt-6-astra     | tier  | flex     | 5 25 0.5 6.25 12.5
         openai    | gpt-6-astra     | tier  | priority | 20 100 2 25 50
         openai    | gpt-6-astra     | tier  | fast     | 20 100 2 25 50
         openai    | gpt-6-astra     | tier  | ultrafast | 60 300 6 75 150
         openai    | gpt-6-astra     | batch |          | 5 25 0.5 6.25 12.5
         google    | gemini-3.1-pro-preview | batch |   | 1 6 0.2 1 1",
    );
    for [provider, model, what, value, expected] in list {
        let plain = call(provider, model);
        let context = match what {
            "speed" => Context {
                speed: Some(value),
                ..plain
            },
            "tier" => Context {
                service_tier: Some(value),
                ..plain
            },
            _ => Context {
                batch: true,
                ..plain
            },
        };
        check(&context, 1000, expected);
    }
    let flex = Context {
        service_tier: Some("flex"),
        ..call("openai", "gpt-6-astra")
    };
    check(&flex, 272_001, "10 37.5 1 12.5 25");
}

#[test]
fn inference_in_the_us_costs_a_tenth_more_on_models_that_offer_it() {
    let us = |model| Context {
        inference_geo: Some("us"),
        ..call("anthropic", model)
    };
    check(&us("claude-opus-5-5"), 1000, "4.4 22 0.22 5.5 8.8");
    check(
        &Context {
            batch: true,
            ..us("claude-opus-5-5")
        },
        1000,
        "2.2 11 0.11 2.75 4.4",
    );
    check(&us("claude-haiku-4-5"), 1000, "1 5 0.1 1.25 2");
    let elsewhere = Context {
        inference_geo: Some("global"),
        ..us("claude-opus-5-5")
    };
    check(&elsewhere, 1000, "4 20 0.2 5 8");
}

#[test]
fn web_searches_are_paid_by_the_piece_and_without_surcharge() {
    let searched = Usage {
        web_searches: 3,
        ..Usage::default()
    };
    for model in ["claude-opus-5-5", "claude-haiku-4-5"] {
        let context = Context {
            inference_geo: Some("us"),
            ..call("anthropic", model)
        };
        let cost = PriceTable::builtin().price(&context, &searched).unwrap();
        assert_eq!(
            (cost.total, cost.extras),
            (Money::from_nanos(30_000_000), cost.total)
        );
    }
}

#[test]
fn an_unknown_model_is_unpriced_and_not_free() {
    let usage = Usage {
        input: 1,
        ..Usage::default()
    };
    let price = |provider, model| PriceTable::builtin().price(&call(provider, model), &usage);
    assert_eq!(price("anthropic", "claude-next"), None);
    assert_eq!(price("ollama", "llama"), None);
    assert!(price("anthropic", "claude-opus-5-5").unwrap().total > Money::ZERO);
}

#[test]
fn output_of_a_model_that_sells_none_is_unpriced() {
    let context = call("openai", "text-embedding-3-small");
    let usage = Usage {
        input: 1_000_000,
        ..Usage::default()
    };
    let price = |usage| PriceTable::builtin().price(&context, &usage);
    assert_eq!(price(usage).unwrap().total, Money::from_nanos(20_000_000));
    assert_eq!(price(Usage { output: 1, ..usage }), None);
}

#[test]
fn a_cost_is_rounded_up_once() {
    // Until August 2026 a token that was read cost 3.625 nano-dollars.
    let rates = rates(
        &Context {
            at_unix: 0,
            ..call("deepseek", "deepseek-v4-pro")
        },
        1000,
    );
    let read = |cache_read| Usage {
        cache_read,
        ..Usage::default()
    };
    let total = |usage: &Usage| rates.cost(usage).unwrap().total.nanos();
    assert_eq!(
        [1, 2, 7, 8].map(|tokens| total(&read(tokens))),
        [4, 8, 26, 29]
    );
    let usage = Usage {
        input: 1,
        output: 1,
        ..read(1)
    };
    let cost = rates.cost(&usage).unwrap();
    assert_eq!(cost.total.nanos(), 435 + 870 + 4);
    assert_eq!(
        [cost.input, cost.output, cost.cache_read].map(Money::nanos),
        [435, 870, 4]
    );
    assert_eq!(cost.without_cache.nanos(), 435 + 870 + 435);
}

#[test]
fn the_largest_usage_saturates() {
    let most = u64::MAX;
    let usage = Usage {
        input: most,
        cache_read: most,
        cache_write: most,
        cache_write_long: most,
        output: most,
        reasoning: most,
        web_searches: most,
        ..Usage::default()
    };
    let context = Context {
        inference_geo: Some("us"),
        ..call("anthropic", "claude-opus-5-5")
    };
    let cost = PriceTable::builtin().price(&context, &usage).unwrap();
    assert_eq!((cost.total, cost.without_cache), (Money::MAX, Money::MAX));
}

#[test]
fn limits_of_models_are_told() {
    let table = PriceTable::builtin();
    let output = |provider, model| table.listing(provider, model).max_output_tokens;
    assert_eq!(output("anthropic", "claude-opus-5-5"), Some(128_000));
    assert_eq!(output("openai", "gpt-5-pro"), Some(272_000));
    assert_eq!(output("anthropic", "claude-next"), None);
    assert_eq!(
        table.context_window("anthropic", "claude-haiku-4-5"),
        Some(200_000)
    );
    let minimums = rows(
        "anthropic | claude-opus-5-5     | 512
         anthropic | claude-fable-5-2    | 512
         anthropic | claude-mythos-5-2   | 512
         anthropic | claude-sonnet-5-5   | 512
         anthropic | claude-haiku-5-5    | 512
         anthropic | claude-opus-4-8     | 1024
         anthropic | claude-sonnet-5     | 1024
         anthropic | claude-sonnet-4-5   | 1024
         anthropic | claude-opus-4-7     | 2048
         anthropic | claude-opus-4-6     | 4096
         anthropic | claude-haiku-4-5    | 4096
         openai    | gpt-6-astra         | 1024
         openai    | gpt-4o              | 1024
         groq      | openai/gpt-oss-120b | none",
    );
    for [provider, model, expected] in minimums {
        let found = table.listing(provider, model).min_cacheable_tokens;
        assert_eq!(found, expected.parse().ok(), "{model}");
    }
}

#[test]
fn a_time_before_all_prices_or_beyond_the_calendar_does_not_panic() {
    for at_unix in [i64::MIN, -1, i64::MAX] {
        for model in models_of(PriceTable::builtin()) {
            let context = Context {
                provider: &model.provider,
                model: &model.id,
                at_unix,
                ..Context::default()
            };
            let rates = PriceTable::builtin().rates(&context, 1);
            assert!(rates.is_none_or(|rates| rates.cost(&Usage::default()).is_some()));
        }
    }
}
