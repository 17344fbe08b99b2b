//! The models on offer, their cache limits and their prices: typed in from the providers' lists (November 2026), and
//! deliberately shared with nothing else, so that two wrong prices cannot agree.

use crate::bill::Usage;

/// A model the simulated providers offer.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) id: &'static str,
    pub(crate) provider: Provider,
    /// Tokens below which a prefix is not cached.
    pub(crate) cacheable_min: u64,
    /// Whether caches are written at breakpoints (and paid for), or by blocks of 128 tokens for nothing. OpenAI only.
    pub(crate) breakpoints: bool,
    /// Whether this is one of the models with preserved thinking, mid-conversation system messages, and a cache that
    /// the thinking configuration is part of from its first token. Anthropic only.
    pub(crate) preserved_thinking: bool,
    rates: Rates,
    /// The rates of a call whose prompt is longer than this many tokens.
    cliff: Option<(u64, Rates)>,
    /// Whether the tier above standard is on offer (`fast` at Anthropic, `priority` at OpenAI): double of everything.
    fast: bool,
}

/// Who offers a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Anthropic,
    OpenAi,
    Google,
    Mistral,
    Groq,
    Cohere,
    Bedrock,
}

/// Pico-dollars per token: a price of 1 USD per million tokens is 1 000 000.
#[derive(Clone, Copy, Debug)]
struct Rates {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write_short: u64,
    cache_write_long: u64,
}

/// What a call is charged by besides its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tier {
    #[default]
    Standard,
    /// Anthropic `speed: fast`; OpenAI `priority` and `fast`.
    Fast,
    /// OpenAI `flex`: half of everything.
    Flex,
}

/// The model called `id`, also with a date after its name (`-20261101`, `-2026-11-01`).
pub(crate) fn find(provider: Provider, id: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| {
        model.provider == provider
            && id
                .strip_prefix(model.id)
                .is_some_and(|rest| rest.is_empty() || is_date(rest))
    })
}

fn is_date(suffix: &str) -> bool {
    let digits = suffix.bytes().filter(u8::is_ascii_digit).count();
    suffix.starts_with('-')
        && digits == 8
        && suffix.bytes().all(|b| b == b'-' || b.is_ascii_digit())
}

impl Model {
    /// Whether `tier` is on offer for this model.
    pub(crate) const fn offers(&self, tier: Tier) -> bool {
        match tier {
            Tier::Standard => true,
            Tier::Fast => self.fast,
            Tier::Flex => matches!(self.provider, Provider::OpenAi),
        }
    }

    /// Whether thinking is no part of the prompt any more once the user says something: with Sonnet and Haiku to 4.5.
    pub(crate) fn drops_thinking(&self) -> bool {
        ["sonnet-4-5", "haiku-4-5"]
            .iter()
            .any(|name| self.id.contains(name))
    }

    /// What `usage` costs, in nano-dollars, rounded up once for the whole call. `us` is Anthropic's
    /// `inference_geo: us`, a tenth on top.
    pub(crate) fn nanodollars(&self, usage: &Usage, tier: Tier, us: bool) -> u64 {
        let rates = match self.cliff {
            Some((above, rates)) if usage.prompt() > above => rates,
            Some(_) | None => self.rates,
        };
        let pico = [
            (usage.input_uncached, rates.input),
            (usage.cache_read, rates.cache_read),
            (usage.cache_write_short, rates.cache_write_short),
            (usage.cache_write_long, rates.cache_write_long),
            (usage.output, rates.output),
        ]
        .iter()
        .fold(0_u64, |sum, (tokens, rate)| {
            sum.saturating_add(tokens.saturating_mul(*rate))
        });
        let twentieths = match tier {
            Tier::Standard => 20,
            Tier::Fast => 40,
            Tier::Flex => 10,
        };
        let twentieths = twentieths + if us { twentieths / 10 } else { 0 };
        pico.saturating_mul(twentieths).div_ceil(20 * PICO_PER_NANO)
    }
}

/// Rates given in ten-thousandths of a dollar per million tokens: `4_0000` is 4 USD.
const fn usd(input: u64, output: u64, cache_read: u64, write_short: u64, write_long: u64) -> Rates {
    const PICO: u64 = 100;
    Rates {
        input: input * PICO,
        output: output * PICO,
        cache_read: cache_read * PICO,
        cache_write_short: write_short * PICO,
        cache_write_long: write_long * PICO,
    }
}

const PICO_PER_NANO: u64 = 1000;

/// Longer than any prompt.
const NEVER_CACHED: u64 = 1 << 40;

/// Rates in this order: input, output, cache read, short write, long write.
pub(crate) const MODELS: [Model; 20] = [
    Model {
        id: "claude-opus-5-5",
        provider: Provider::Anthropic,
        cacheable_min: 512,
        breakpoints: true,
        preserved_thinking: true,
        rates: usd(4_0000, 20_0000, 2000, 5_0000, 8_0000),
        cliff: None,
        fast: true,
    },
    Model {
        id: "claude-sonnet-5-5",
        provider: Provider::Anthropic,
        cacheable_min: 512,
        breakpoints: true,
        preserved_thinking: true,
        rates: usd(2_0000, 10_0000, 1000, 2_5000, 4_0000),
        cliff: None,
        fast: false,
    },
    Model {
        id: "claude-haiku-5-5",
        provider: Provider::Anthropic,
        cacheable_min: 512,
        breakpoints: true,
        preserved_thinking: true,
        rates: usd(1000, 5000, 100, 1250, 2000),
        cliff: Some((100_000, usd(5000, 2_5000, 500, 6250, 1_0000))),
        fast: false,
    },
    Model {
        id: "claude-sonnet-5",
        provider: Provider::Anthropic,
        cacheable_min: 1024,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(2_0000, 10_0000, 2000, 2_5000, 4_0000),
        cliff: None,
        fast: false,
    },
    Model {
        id: "claude-sonnet-4-6",
        provider: Provider::Anthropic,
        cacheable_min: 1024,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(3_0000, 15_0000, 3000, 3_7500, 6_0000),
        cliff: None,
        fast: false,
    },
    Model {
        id: "claude-haiku-4-5",
        provider: Provider::Anthropic,
        cacheable_min: 4096,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(1_0000, 5_0000, 1000, 1_2500, 2_0000),
        cliff: None,
        fast: false,
    },
    Model {
        id: "gpt-6-sol",
        provider: Provider::OpenAi,
        cacheable_min: 1024,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(2_0000, 10_0000, 2000, 2_5000, 5_0000),
        cliff: Some((272_000, usd(4_0000, 15_0000, 4000, 5_0000, 10_0000))),
        fast: true,
    },
    Model {
        id: "gpt-6.1-sol",
        provider: Provider::OpenAi,
        cacheable_min: 1024,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(2_0000, 10_0000, 1000, 2_5000, 5_0000),
        cliff: Some((272_000, usd(4_0000, 15_0000, 2000, 5_0000, 10_0000))),
        fast: true,
    },
    Model {
        id: "gpt-5.5",
        provider: Provider::OpenAi,
        cacheable_min: 1024,
        breakpoints: false,
        preserved_thinking: false,
        rates: usd(5_0000, 30_0000, 5000, 0, 0),
        cliff: Some((272_000, usd(10_0000, 45_0000, 1_0000, 0, 0))),
        fast: false,
    },
    Model {
        id: "text-embedding-3-small",
        provider: Provider::OpenAi,
        cacheable_min: NEVER_CACHED,
        breakpoints: false,
        preserved_thinking: false,
        rates: usd(200, 0, 200, 0, 0),
        cliff: None,
        fast: false,
    },
    Model {
        id: "gpt-realtime",
        provider: Provider::OpenAi,
        cacheable_min: 1024,
        breakpoints: false,
        preserved_thinking: false,
        rates: usd(4_0000, 16_0000, 4000, 0, 0),
        cliff: None,
        fast: false,
    },
    Model {
        id: "gemini-3.8-flash",
        provider: Provider::Google,
        cacheable_min: 4096,
        breakpoints: false,
        preserved_thinking: false,
        rates: usd(7500, 3_7500, 750, 0, 0),
        cliff: None,
        fast: false,
    },
    Model {
        id: "gemini-embedding-001",
        provider: Provider::Google,
        cacheable_min: NEVER_CACHED,
        breakpoints: false,
        preserved_thinking: false,
        rates: usd(1500, 0, 1500, 0, 0),
        cliff: None,
        fast: false,
    },
    Model {
        id: "mistral-large-4",
        provider: Provider::Mistral,
        cacheable_min: 1024,
        breakpoints: false,
        preserved_thinking: false,
        rates: usd(7000, 2_1000, 700, 0, 0),
        cliff: None,
        fast: false,
    },
    Model {
        id: "openai/gpt-oss-120b",
        provider: Provider::Groq,
        cacheable_min: 1024,
        breakpoints: false,
        preserved_thinking: false,
        rates: usd(1500, 6000, 750, 0, 0),
        cliff: None,
        fast: false,
    },
    Model {
        id: "command-a-03-2025",
        provider: Provider::Cohere,
        cacheable_min: NEVER_CACHED,
        breakpoints: false,
        preserved_thinking: false,
        rates: usd(2_5000, 10_0000, 2_5000, 0, 0),
        cliff: None,
        fast: false,
    },
    Model {
        id: "global.anthropic.claude-sonnet-4-6",
        provider: Provider::Bedrock,
        cacheable_min: 1024,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(3_0000, 15_0000, 3000, 3_7500, 6_0000),
        cliff: None,
        fast: false,
    },
    Model {
        id: "us.anthropic.claude-sonnet-4-6",
        provider: Provider::Bedrock,
        cacheable_min: 1024,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(3_3000, 16_5000, 3300, 4_1250, 6_6000),
        cliff: None,
        fast: false,
    },
    Model {
        id: "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        provider: Provider::Bedrock,
        cacheable_min: 4096,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(1_1000, 5_5000, 1100, 1_3750, 2_2000),
        cliff: None,
        fast: false,
    },
    Model {
        id: "us.amazon.nova-lite-v1:0",
        provider: Provider::Bedrock,
        cacheable_min: 1024,
        breakpoints: true,
        preserved_thinking: false,
        rates: usd(600, 2400, 150, 600, 600),
        cliff: None,
        fast: false,
    },
];

#[cfg(test)]
mod tests {
    use super::{Provider, Tier, find};
    use crate::bill::Usage;

    /// Provider, model, tier, `us` or `-`, then uncached, read, short write, long write, output, and nano-dollars.
    const PRICED: &str = "
        anthropic claude-opus-5-5 standard - 1000000 0 0 0 0 4000000000
        anthropic claude-opus-5-5 standard - 0 1000000 0 0 0 200000000
        anthropic claude-opus-5-5 standard - 0 0 1000000 0 0 5000000000
        anthropic claude-opus-5-5 standard - 0 0 0 1000000 0 8000000000
        anthropic claude-opus-5-5 standard - 0 0 0 0 1000000 20000000000
        anthropic claude-opus-5-5 fast - 0 0 0 0 1000000 40000000000
        anthropic claude-opus-5-5 standard us 0 0 0 0 1000000 22000000000
        anthropic claude-sonnet-5-5 standard - 1 2 3 4 5 75700
        anthropic claude-haiku-4-5-20251001 standard - 1 1 1 1 1 9350
        one token more than 100 000 reprices all of them
        anthropic claude-haiku-5-5 standard - 100000 0 0 0 0 10000000
        anthropic claude-haiku-5-5 standard - 100001 0 0 0 0 50000500
        anthropic claude-haiku-5-5 standard - 1 100000 0 0 10 5025500
        ten nano-dollars and a tenth; 125 and a tenth, which is rounded up
        anthropic claude-haiku-5-5 standard us 0 1 0 0 0 11
        anthropic claude-haiku-5-5 standard us 0 0 1 0 0 138
        openai gpt-6-sol standard - 1000 1000 1000 1000 1000 19700000
        openai gpt-6-sol fast - 1000 0 0 0 0 4000000
        openai gpt-6-sol flex - 1000 0 0 0 0 1000000
        openai gpt-6-sol standard - 272001 0 0 0 0 1088004000
        openai gpt-6.1-sol standard - 0 1000 0 0 0 100000
        openai gpt-5.5-2026-04-23 standard - 1000 1000 0 0 1000 35500000
    ";

    #[test]
    fn each_bucket_has_its_price_and_the_sum_is_rounded_up_once() {
        let mut checked = 0;
        for row in PRICED.lines().map(str::trim) {
            let words: Vec<&str> = row.split(' ').collect();
            let (provider, [id, tier, geo, numbers @ ..]) = (match words[0] {
                "anthropic" => (Provider::Anthropic, &words[1..]),
                "openai" => (Provider::OpenAi, &words[1..]),
                _ => continue,
            }) else {
                panic!("{row}");
            };
            let tier = match *tier {
                "fast" => Tier::Fast,
                "flex" => Tier::Flex,
                _ => Tier::Standard,
            };
            let numbers: Vec<u64> = numbers
                .iter()
                .map(|number| number.parse().unwrap())
                .collect();
            let usage = Usage {
                input_uncached: numbers[0],
                cache_read: numbers[1],
                cache_write_short: numbers[2],
                cache_write_long: numbers[3],
                output: numbers[4],
                reasoning: 0,
            };
            let model = find(provider, id).unwrap();
            assert_eq!(
                model.nanodollars(&usage, tier, *geo == "us"),
                numbers[5],
                "{row}"
            );
            checked += 1;
        }
        assert_eq!(checked, 20);
    }

    #[test]
    fn a_model_is_known_by_its_name_or_its_dated_name_only() {
        let cases = [
            (Provider::Anthropic, "claude-opus-5-5", true),
            (Provider::Anthropic, "claude-opus-5-5-20260901", true),
            (Provider::Anthropic, "claude-opus-5-5x", false),
            (Provider::Anthropic, "claude-opus-5", false),
            (Provider::Anthropic, "gpt-5.5", false),
            (Provider::OpenAi, "gpt-5.5-2026-04-23", true),
            (Provider::OpenAi, "gpt-5.5-mini", false),
            (Provider::OpenAi, "", false),
        ];
        for (provider, id, known) in cases {
            assert_eq!(find(provider, id).is_some(), known, "{id}");
        }
    }
}
