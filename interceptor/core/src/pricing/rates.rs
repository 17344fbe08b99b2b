//! The rates of one call, and what its usage costs at them.

use std::iter::Sum;

use serde::{Deserialize, Serialize};

use super::per_mtok::PerMtok;
use crate::money::Money;
use crate::usage::Usage;

/// What is priced by the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Input, neither read from nor written to a cache.
    Input,
    /// Output.
    Output,
    /// Input that was read from the cache.
    CacheRead,
    /// Input that was written to the cache for the default lifetime.
    CacheWrite,
    /// Input that was written for the long lifetime.
    CacheWriteLong,
    /// Audio in the input.
    InputAudio,
    /// Images in the input.
    InputImage,
    /// Video in the input.
    InputVideo,
    /// Audio that was read from the cache.
    CacheAudio,
    /// Images that were read from the cache.
    CacheImage,
    /// Audio in the output.
    OutputAudio,
    /// Images in the output.
    OutputImage,
    /// Output spent on reasoning.
    Reasoning,
    /// Text of sources that was cited (Perplexity).
    Citation,
}

impl Kind {
    /// Whether it is of tokens that are read from a cache or written to it.
    pub(super) const fn is_of_cache(self) -> bool {
        matches!(
            self,
            Self::CacheRead
                | Self::CacheWrite
                | Self::CacheWriteLong
                | Self::CacheAudio
                | Self::CacheImage
        )
    }

    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 14] = [
        Self::Input,
        Self::Output,
        Self::CacheRead,
        Self::CacheWrite,
        Self::CacheWriteLong,
        Self::InputAudio,
        Self::InputImage,
        Self::InputVideo,
        Self::CacheAudio,
        Self::CacheImage,
        Self::OutputAudio,
        Self::OutputImage,
        Self::Reasoning,
        Self::Citation,
    ];

    /// Where it stands in [`Self::ALL`].
    const fn index(self) -> usize {
        match self {
            Self::Input => 0,
            Self::Output => 1,
            Self::CacheRead => 2,
            Self::CacheWrite => 3,
            Self::CacheWriteLong => 4,
            Self::InputAudio => 5,
            Self::InputImage => 6,
            Self::InputVideo => 7,
            Self::CacheAudio => 8,
            Self::CacheImage => 9,
            Self::OutputAudio => 10,
            Self::OutputImage => 11,
            Self::Reasoning => 12,
            Self::Citation => 13,
        }
    }

    /// As in the price file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::CacheRead => "cache_read",
            Self::CacheWrite => "cache_write",
            Self::CacheWriteLong => "cache_write_long",
            Self::InputAudio => "input_audio",
            Self::InputImage => "input_image",
            Self::InputVideo => "input_video",
            Self::CacheAudio => "cache_audio",
            Self::CacheImage => "cache_image",
            Self::OutputAudio => "output_audio",
            Self::OutputImage => "output_image",
            Self::Reasoning => "reasoning",
            Self::Citation => "citation",
        }
    }

    /// Whose price holds where this kind has none of its own.
    const fn fallback(self) -> Option<Self> {
        match self {
            Self::Input | Self::Output => None,
            Self::OutputAudio | Self::OutputImage | Self::Reasoning => Some(Self::Output),
            Self::CacheWriteLong => Some(Self::CacheWrite),
            Self::CacheAudio | Self::CacheImage => Some(Self::CacheRead),
            Self::CacheRead
            | Self::CacheWrite
            | Self::InputAudio
            | Self::InputImage
            | Self::InputVideo
            | Self::Citation => Some(Self::Input),
        }
    }
}

/// The rates that apply to one call, all surcharges and discounts of the call known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Pico-dollars per token, in the order of [`Kind::ALL`]; none where a kind has no price of
    /// its own.
    pub(super) per_token: [Option<u64>; Kind::ALL.len()],
    /// Pico-dollars per server-side web search.
    pub(super) web_search: u64,
    /// Whether all searches for one prompt are charged as one.
    pub(super) searches_are_one: bool,
    /// Pico-dollars per search in files that the provider stores.
    pub(super) file_search: u64,
    /// Pico-dollars per request.
    pub(super) request: u64,
    /// A surcharge (or discount) on all tokens, in parts per million (1 000 000 is none).
    pub(super) factor_ppm: u64,
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
    /// Searches, citations and charges per request.
    pub extras: Money,
    /// Of these, web searches.
    pub web_searches: Money,
    /// Of these, searches in stored files.
    pub file_searches: Money,
    /// Of these, citations.
    pub citations: Money,
    /// Of these, what the request itself costs.
    pub request: Money,
    /// What the same call would have cost with no cache: every prompt token at the input rate.
    /// Less than `total` where more was paid for writes than reads saved.
    pub without_cache: Money,
}

impl Cost {
    /// The prompt, read from the cache or not. The other parts are rounded up one by one: what is
    /// too much in them is taken off this one.
    #[must_use]
    pub fn of_input(&self) -> Money {
        (self.total - self.output - self.extras).max(Money::ZERO)
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| Self {
            total: sum.total + cost.total,
            input: sum.input + cost.input,
            cache_read: sum.cache_read + cost.cache_read,
            cache_write: sum.cache_write + cost.cache_write,
            output: sum.output + cost.output,
            extras: sum.extras + cost.extras,
            web_searches: sum.web_searches + cost.web_searches,
            file_searches: sum.file_searches + cost.file_searches,
            citations: sum.citations + cost.citations,
            request: sum.request + cost.request,
            without_cache: sum.without_cache + cost.without_cache,
        })
    }
}

impl Rates {
    /// Pico-dollars per token of `kind`, before [`Self::factor_ppm`]; that of another kind where it
    /// has no price of its own. None for output of a model that sells none.
    #[must_use]
    pub fn per_token(&self, kind: Kind) -> Option<u64> {
        self.own(kind)
            .or_else(|| kind.fallback().and_then(|other| self.per_token(other)))
    }

    /// The factor on all tokens, in parts per million: surcharges of regions, negotiated discounts.
    #[must_use]
    pub const fn factor_ppm(&self) -> u64 {
        self.factor_ppm
    }

    /// Takes over the rates for a prompt of that many tokens, in the place of those before.
    pub(super) fn take(&mut self, rates: &PerMtok, prompt_tokens: u64) {
        for (kind, rate) in rates.iter() {
            if let Some(own) = self.per_token.get_mut(kind.index()) {
                *own = Some(rate.at(prompt_tokens));
            }
        }
    }

    fn own(&self, kind: Kind) -> Option<u64> {
        self.per_token.get(kind.index()).copied().flatten()
    }

    /// What `usage` costs at these rates; none for output of a model that has no price for it.
    ///
    /// Where a kind of token has no price of its own, it costs what the kind does that it is a
    /// part of: reads, writes and media of the input what input costs, a long write what a default
    /// one costs, reasoning and media of the output what output costs.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Cost> {
        let picos = |tokens: u64, kind: Kind| match tokens {
            0 => Some(0),
            _ => Some(u128::from(tokens).saturating_mul(u128::from(self.per_token(kind)?))),
        };
        // Each share costs its own; what is left of the whole costs the whole's.
        let shared = |whole: u64, kind: Kind, shares: &[(u64, Kind)]| {
            let mut left = whole;
            let mut sum = 0_u128;
            for (tokens, kind) in shares {
                let tokens = left.min(*tokens);
                left = left.saturating_sub(tokens);
                sum = sum.saturating_add(picos(tokens, *kind)?);
            }
            Some(sum.saturating_add(picos(left, kind)?))
        };
        let media = [
            (usage.input_audio, Kind::InputAudio),
            (usage.input_image, Kind::InputImage),
            (usage.input_video, Kind::InputVideo),
        ];
        let output = shared(
            usage.output,
            Kind::Output,
            &[
                (usage.output_audio, Kind::OutputAudio),
                (usage.output_image, Kind::OutputImage),
                (usage.reasoning, Kind::Reasoning),
            ],
        )?;
        let input = shared(usage.input, Kind::Input, &media)?;
        let read_as = |whole, audio, image| {
            let shares = [(usage.cache_audio, audio), (usage.cache_image, image)];
            shared(usage.cache_read, whole, &shares)
        };
        let read = read_as(Kind::CacheRead, Kind::CacheAudio, Kind::CacheImage)?;
        let read_as_input = read_as(Kind::Input, Kind::InputAudio, Kind::InputImage)?;
        let write = picos(usage.cache_write, Kind::CacheWrite)?
            .saturating_add(picos(usage.cache_write_long, Kind::CacheWriteLong)?);
        let write_as_input = picos(
            usage.cache_write.saturating_add(usage.cache_write_long),
            Kind::Input,
        )?;
        let citations = self.surcharged(picos(usage.citation, Kind::Citation)?);
        let [web_searches, file_searches] = self.searches(usage);
        let request = u128::from(self.request);
        let extras = [web_searches, file_searches, citations, request]
            .into_iter()
            .fold(0_u128, u128::saturating_add);
        let whole = |parts: [u128; 4]| {
            let tokens = parts.into_iter().fold(0_u128, u128::saturating_add);
            Money::from_picos_rounded_up(self.surcharged(tokens).saturating_add(extras))
        };
        let part = |amount| Money::from_picos_rounded_up(self.surcharged(amount));
        Some(Cost {
            total: whole([input, read, write, output]),
            input: part(input),
            cache_read: part(read),
            cache_write: part(write),
            output: part(output),
            extras: Money::from_picos_rounded_up(extras),
            web_searches: Money::from_picos_rounded_up(web_searches),
            file_searches: Money::from_picos_rounded_up(file_searches),
            citations: Money::from_picos_rounded_up(citations),
            request: Money::from_picos_rounded_up(request),
            without_cache: whole([input, read_as_input, write_as_input, output]),
        })
    }

    /// Whether the provider charges something else than the input rate for a write.
    #[must_use]
    pub fn charges_for_writes(&self) -> bool {
        self.own(Kind::CacheWrite).is_some()
    }

    /// What searches in the web and in files cost. They are paid by the piece: no surcharge is on them.
    fn searches(&self, usage: &Usage) -> [u128; 2] {
        let pieces = |count: u64, rate: u64| u128::from(count).saturating_mul(u128::from(rate));
        let web = if self.searches_are_one {
            usage.web_searches.min(1)
        } else {
            usage.web_searches
        };
        [
            pieces(web, self.web_search),
            pieces(usage.file_searches, self.file_search),
        ]
    }

    fn surcharged(&self, picos: u128) -> u128 {
        picos
            .saturating_mul(u128::from(self.factor_ppm))
            .div_ceil(u128::from(NO_SURCHARGE_PPM))
    }
}

pub(super) const NO_SURCHARGE_PPM: u64 = 1_000_000;
