//! A call, as far as its price goes: on terms that are looked up once, when it has been read.

use weir_core::call::Call;
use weir_core::catalog::Provider;
use weir_core::estimate::Estimate;
use weir_core::money::Money;
use weir_core::pricing::{Context, Listing, PriceTable, Quote};
use weir_core::usage::Usage;

/// A call, as far as its price goes.
#[derive(Clone, Copy)]
pub(crate) struct Priced<'a> {
    pub(super) provider: Provider,
    pub(super) host: &'a str,
    pub(super) model: &'a str,
    pub(super) call: &'a Call,
    pub(super) at_unix: i64,
    /// The host binds the call to a region.
    pub(super) regional: bool,
    /// Whose answers are alike: the hash of a key, or a program.
    pub(super) workload: &'a str,
    pub(super) conversation: u64,
    /// A plan pays for the call.
    pub(super) is_free: bool,
    /// What a token of a model without a price counts, in pico-dollars.
    pub(super) flat_picos: Option<u64>,
    pub(super) prices: &'a PriceTable,
    pub(super) terms: &'a Terms,
}

/// What is known of a call when it has been read. Looked up once, by [`Memory::terms`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    /// What the price lists have of the model.
    pub(super) listing: Listing,
    /// The model behind a name without a price, where an answer told it, and what the lists have of
    /// that.
    pub(super) alias: Option<(String, Listing)>,
    /// About how many tokens the prompt has.
    pub(super) estimate: Estimate,
}

/// How the tokens of a call are priced.
pub(super) enum Price<'a> {
    Listed(Quote<'a>),
    /// Pico-dollars for each token, where nothing else is known.
    Flat(u64),
}

impl Price<'_> {
    /// What `usage` costs; none where it has a part without a price.
    pub(super) fn of(&self, usage: &Usage) -> Option<Money> {
        match self {
            Self::Listed(quote) => Some(quote.price(usage)?.total),
            Self::Flat(picos) => Some(at_flat_price(usage.tokens(), *picos)),
        }
    }
}

impl<'a> Priced<'a> {
    pub(super) fn context(&self) -> Context<'a> {
        Context {
            provider: self.provider.priced_as(self.call.api).as_str(),
            model: self.model,
            at_unix: self.at_unix,
            service_tier: self.call.service_tier.as_deref(),
            speed: self.call.speed.as_deref(),
            inference_geo: self.call.inference_geo.as_deref(),
            regional: self.regional,
            batch: false,
        }
    }

    /// What counts under caps for the call: the price of its model or of the one behind its name,
    /// else the flat one. None where nothing is known, and for what a plan pays for.
    pub(super) fn price(&self) -> Option<Price<'a>> {
        if self.is_free {
            return None;
        }
        let listed = self.quote().map(Price::Listed);
        listed.or_else(|| self.flat_picos.map(Price::Flat))
    }

    /// What the lists say, whoever pays: of the model, or of the one behind its name.
    fn quote(&self) -> Option<Quote<'a>> {
        let (model, listing) = self.listed();
        let context = Context {
            model,
            ..self.context()
        };
        self.prices.quote_of(listing, &context)
    }

    /// The model that has a price, with what the lists have of it: that behind the name, if any.
    pub(super) fn listed(&self) -> (&'a str, &'a Listing) {
        match &self.terms.alias {
            Some((model, listing)) => (model, listing),
            None => (self.model, &self.terms.listing),
        }
    }

    /// The shortest prompt that is cached, in tokens.
    pub(super) fn minimum_tokens(&self) -> u64 {
        minimum_tokens(self.listed().1)
    }

    /// As the model behind the name is remembered.
    pub(super) fn alias(&self) -> String {
        format!("{} {}", self.host, self.model)
    }
}

/// The shortest prompt that is cached, in tokens; where the table does not say, that of most models.
pub(super) fn minimum_tokens(listing: &Listing) -> u64 {
    listing.min_cacheable_tokens.unwrap_or(MINIMUM_TOKENS)
}

/// What tokens cost that all cost the same.
pub(super) fn at_flat_price(tokens: u64, picos_per_token: u64) -> Money {
    let picos = u128::from(tokens).saturating_mul(u128::from(picos_per_token));
    Money::from_picos_rounded_up(picos)
}

/// The shortest prompt that is cached, where the table does not say, in tokens.
pub(crate) const MINIMUM_TOKENS: u64 = 1024;
