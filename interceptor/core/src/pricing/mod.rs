//! What a call costs: the price table, the rates of one call, and the cost of its usage.
//!
//! Rates are pico-dollars per token (USD per million tokens × 10⁶, exact for six decimals), sums
//! are `u128` pico-dollars, and a cost is rounded up once, to a nano-dollar. No float is involved:
//! decimals are read from their text.
//!
//! What is not priced: tokens that have a price of their own which [`Usage`] does not tell apart
//! (audio, images), storage of explicit caches, plans and subscriptions. A model that is not in
//! the table is unpriced, which is not the same as free.

mod file;
mod model_name;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::money::Money;
use crate::usage::Usage;
use file::{Model, Rate, Scope};

pub use file::PriceTableError;

/// What decides the price of a call, beside its usage.
///
/// Model, tier and speed are those of the **answer** where it tells them; the time is that of the
/// start of the request, as providers apply it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The provider's id in the table (`anthropic`, `openai`, …). For any other, such as a
    /// host that was configured, see [`PriceTable::rates`].
    pub provider: &'a str,
    /// The model as the provider or the application spells it.
    pub model: &'a str,
    /// The start of the request, in seconds since 1970-01-01 UTC.
    pub at_unix: i64,
    /// `service_tier` (`flex`, `priority`, `fast`, `ultrafast`, `batch`, …).
    pub service_tier: Option<&'a str>,
    /// Anthropic's `speed` (`fast`).
    pub speed: Option<&'a str>,
    /// Anthropic's `inference_geo` (`us` costs a tenth more on most models).
    pub inference_geo: Option<&'a str>,
    /// Whether the call was part of a batch.
    pub batch: bool,
}

/// Prices of the models of all providers.
#[derive(Debug)]
pub struct PriceTable {
    version: String,
    providers: HashMap<String, Vec<Model>>,
}

/// The rates that apply to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Pico-dollars per uncached input token.
    input: u64,
    /// Pico-dollars per output token; none for models that have no output.
    output: Option<u64>,
    /// Pico-dollars per token read from the cache, where that has a price of its own.
    cache_read: Option<u64>,
    /// Pico-dollars per token written to the cache, where that has a price of its own.
    cache_write: Option<u64>,
    /// The same for the long lifetime.
    cache_write_long: Option<u64>,
    /// Pico-dollars per server-side web search.
    web_search: u64,
    /// Pico-dollars per request.
    request: u64,
    /// A surcharge on all tokens, in parts per million (1 000 000 is none).
    factor_ppm: u64,
    /// Whether these are the list prices of the model's maker, for a provider that is not in the
    /// table and may charge something else.
    pub notional: bool,
}

/// What a call cost. The parts are rounded up one by one, `total` once, so that the parts may add
/// up to a few nano-dollars more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The whole call.
    pub total: Money,
    /// Uncached input tokens.
    pub input: Money,
    /// Tokens read from the cache.
    pub cache_read: Money,
    /// Tokens written to the cache.
    pub cache_write: Money,
    /// Output tokens, reasoning included.
    pub output: Money,
    /// Web searches and charges per request.
    pub extras: Money,
    /// What the same call would have cost with no cache: every prompt token at the input rate.
    /// Less than `total` where more was paid for writes than reads saved.
    pub without_cache: Money,
}

impl PriceTable {
    /// The table that is built in.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<PriceTable> = LazyLock::new(|| {
            #[expect(
                clippy::expect_used,
                reason = "a constant of the build, parsed by a test"
            )]
            PriceTable::parse(BUILTIN_PRICES).expect("the built-in price table is valid")
        });
        &BUILTIN
    }

    /// Reads a table from JSON text in the form of the built-in `prices.json`.
    ///
    /// # Errors
    /// Says where the text is not a price table, or has a price that is not an exact decimal.
    pub fn parse(text: &str) -> Result<Self, PriceTableError> {
        let file::File { version, models } = file::parse(text)?;
        let mut providers = HashMap::<String, Vec<Model>>::new();
        for model in models {
            providers
                .entry(model.provider.clone())
                .or_default()
                .push(model);
        }
        Ok(Self { version, providers })
    }

    /// When the prices were collected (a date).
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The rates of a call whose prompt has `prompt_tokens` (uncached, read and written together:
    /// many models cost more, for every token, beyond some length of the prompt).
    ///
    /// A provider that is not in the table gets the list price of the model's maker, marked as
    /// notional, if exactly one maker has that model.
    #[must_use]
    pub fn rates(&self, context: &Context<'_>, prompt_tokens: u64) -> Option<Rates> {
        let found = self.find(context.provider, context.model)?;
        let scope = Scope {
            at_unix: context.at_unix,
            batch: context.batch || context.service_tier == Some("batch"),
            service_tier: context.service_tier,
            speed: if found.fast {
                Some("fast")
            } else {
                context.speed
            },
        };
        let model = found.model;
        let base = model.base(context.at_unix)?;
        let rate = |pick: fn(&file::PerMtok) -> Option<&Rate>| {
            model
                .variant(&scope, pick)
                .or_else(|| pick(&base.per_mtok))
                .map(|rate| rate.at(prompt_tokens))
        };
        Some(Rates {
            input: rate(|rates| rates.input.as_ref())?,
            output: rate(|rates| rates.output.as_ref()),
            cache_read: rate(|rates| rates.cache_read.as_ref()),
            cache_write: rate(|rates| rates.cache_write.as_ref()),
            cache_write_long: rate(|rates| rates.cache_write_long.as_ref()),
            web_search: base
                .per_1k
                .web_searches
                .as_ref()
                .map_or(WEB_SEARCH_PICOS, |rate| rate.0),
            request: base.per_1k.requests.as_ref().map_or(0, |rate| rate.0),
            factor_ppm: match (context.inference_geo, &model.inference_geo_us) {
                (Some("us"), Some(factor)) => factor.0,
                _ => NO_SURCHARGE_PPM,
            },
            notional: found.notional,
        })
    }

    /// What a call cost; none where the model is not in the table.
    #[must_use]
    pub fn price(&self, context: &Context<'_>, usage: &Usage) -> Option<Cost> {
        self.rates(context, usage.prompt())?.cost(usage)
    }

    /// The most tokens that the model can answer with.
    #[must_use]
    pub fn max_output_tokens(&self, provider: &str, model: &str) -> Option<u64> {
        self.find(provider, model)?.model.max_output_tokens
    }

    /// The shortest prompt that the provider caches for the model, in tokens.
    #[must_use]
    pub fn min_cacheable_tokens(&self, provider: &str, model: &str) -> Option<u64> {
        self.find(provider, model)?.model.min_cacheable_tokens
    }

    /// The most tokens that prompt and answer can have together.
    #[must_use]
    pub fn context_window(&self, provider: &str, model: &str) -> Option<u64> {
        self.find(provider, model)?.model.context_window
    }

    fn find(&self, provider: &str, model: &str) -> Option<Found<'_>> {
        let spellings = model_name::spellings(model);
        if let Some(models) = self.providers.get(provider) {
            return find_spelled(models, &spellings);
        }
        let mut makers = self.providers.values().filter_map(|models| {
            find_spelled(models, &spellings).filter(|found| !found.model.resold)
        });
        let found = makers.next()?;
        let ambiguous = makers.next().is_some();
        (!ambiguous).then_some(Found {
            notional: true,
            ..found
        })
    }
}

struct Found<'a> {
    model: &'a Model,
    /// The name itself asked for the fast mode.
    fast: bool,
    notional: bool,
}

fn find_spelled<'a>(
    models: &'a [Model],
    spellings: &[model_name::Spelling<'_>],
) -> Option<Found<'a>> {
    spellings.iter().find_map(|spelling| {
        models
            .iter()
            .find(|model| model.rules.iter().any(|rule| rule.matches(spelling.name)))
            .map(|model| Found {
                model,
                fast: spelling.fast,
                notional: false,
            })
    })
}

impl Rates {
    /// What `usage` costs at these rates; none for output of a model that has no price for it.
    ///
    /// Where reads or writes of the cache have no price of their own, they cost what input costs
    /// (a long write then what a default one costs).
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Cost> {
        let output = match (self.output, usage.output) {
            (Some(rate), tokens) => picos(tokens, rate),
            (None, 0) => 0,
            (None, _) => return None,
        };
        let input = picos(usage.input, self.input);
        let read = picos(usage.cache_read, self.read_rate());
        let write = picos(usage.cache_write, self.write_rate())
            .saturating_add(picos(usage.cache_write_long, self.long_write_rate()));
        let extras =
            picos(usage.web_searches, self.web_search).saturating_add(u128::from(self.request));
        let uncached = picos(usage.prompt(), self.input);
        let whole = |prompt: u128| {
            Money::from_picos_rounded_up(
                self.surcharged(prompt.saturating_add(output))
                    .saturating_add(extras),
            )
        };
        let part = |amount| Money::from_picos_rounded_up(self.surcharged(amount));
        Some(Cost {
            total: whole(input.saturating_add(read).saturating_add(write)),
            input: part(input),
            cache_read: part(read),
            cache_write: part(write),
            output: part(output),
            extras: Money::from_picos_rounded_up(extras),
            without_cache: whole(uncached),
        })
    }

    /// Whether the provider charges something else than the input rate for a write.
    #[must_use]
    pub const fn charges_for_writes(&self) -> bool {
        self.cache_write.is_some()
    }

    fn read_rate(&self) -> u64 {
        self.cache_read.unwrap_or(self.input)
    }

    fn write_rate(&self) -> u64 {
        self.cache_write.unwrap_or(self.input)
    }

    fn long_write_rate(&self) -> u64 {
        self.cache_write_long.unwrap_or_else(|| self.write_rate())
    }

    fn surcharged(&self, picos: u128) -> u128 {
        picos
            .saturating_mul(u128::from(self.factor_ppm))
            .div_ceil(u128::from(NO_SURCHARGE_PPM))
    }
}

fn picos(count: u64, rate: u64) -> u128 {
    u128::from(count).saturating_mul(u128::from(rate))
}

const BUILTIN_PRICES: &str = include_str!("../../prices.json");

const NO_SURCHARGE_PPM: u64 = 1_000_000;

/// $10 for 1000 web searches, the list price of both Anthropic and `OpenAI`, for models whose row
/// does not say it: a search is not free.
const WEB_SEARCH_PICOS: u64 = 10_000_000_000;
