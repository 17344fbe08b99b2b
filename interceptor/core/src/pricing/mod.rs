//! What a call costs: the price lists, the rates of one call, and the cost of its usage.
//!
//! Rates are pico-dollars per token (USD per million tokens × 10⁶, exact for six decimals), sums
//! are `u128` pico-dollars, and a cost is rounded up once, to a nano-dollar. No float is involved:
//! decimals are read from their text.
//!
//! A table is made of layers: the list that is built in, lists that were imported over it, and
//! over all prices that were negotiated. A model is looked up in the topmost list that has it.
//!
//! What is not priced: storage of explicit caches, sessions that are billed by the second, plans
//! and subscriptions. A model that is in no list is unpriced, which is not the same as free.

mod decimal;
mod file;
mod import;
mod layer;
mod model_name;
mod negotiated;
mod per_mtok;
mod rates;
mod show;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use crate::usage::Usage;
use file::{Model, Scope};
use layer::Found;
use rates::NO_SURCHARGE_PPM;

pub use file::PriceTableError;
pub use import::{Change, Format, ImportError, Imported, import};
pub use layer::PriceList;
pub(crate) use model_name::spellings_of;
pub use negotiated::Negotiated;
pub use rates::{Cost, Kind, Rates};
pub use show::{Entry, Shown, Step};

/// What decides the price of a call, beside its usage.
///
/// Model, tier and speed are those of the **answer** where it tells them; the time is that of the
/// start of the request, as providers apply it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The provider's id in the lists (`anthropic`, `openai`, …). For any other, such as a
    /// host that was configured, see [`PriceTable::quote`].
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
    /// Whether the host binds the call to a region, for which some providers charge more.
    pub regional: bool,
    /// Whether the call was part of a batch.
    pub batch: bool,
}

/// Prices of the models of all providers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PriceTable {
    /// The topmost first, the built-in one last.
    lists: Vec<Arc<PriceList>>,
    negotiated: Arc<[Negotiated]>,
}

/// What the table says of the price of a call, before the length of its prompt is known.
#[derive(Debug)]
pub struct Quote<'a> {
    context: Context<'a>,
    listed: Option<(&'a PriceList, Found<'a>)>,
    negotiated: Option<&'a Negotiated>,
}

/// What a table has of a model, looked up once: see [`PriceTable::listing`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    place: Option<Place>,
    /// The most tokens that the model can answer with.
    pub max_output_tokens: Option<u64>,
    /// The shortest prompt that the provider caches for the model, in tokens.
    pub min_cacheable_tokens: Option<u64>,
}

/// Where in a table a model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    list: usize,
    at: usize,
    fast: bool,
    notional: bool,
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

    /// A table of one list: see [`PriceList::parse`].
    ///
    /// # Errors
    /// As [`PriceList::parse`].
    pub fn parse(text: &str) -> Result<Self, PriceTableError> {
        Ok(Self {
            lists: vec![Arc::new(PriceList::parse(text)?)],
            negotiated: Arc::default(),
        })
    }

    /// The table with another list over all that it has.
    #[must_use]
    pub fn under(mut self, list: PriceList) -> Self {
        self.lists.insert(0, Arc::new(list));
        self
    }

    /// The table with negotiated prices, in the order in which they are tried.
    #[must_use]
    pub fn with_negotiated(mut self, negotiated: Vec<Negotiated>) -> Self {
        self.negotiated = negotiated.into();
        self
    }

    /// The version of the list that is built in: the date when its prices were collected.
    #[must_use]
    pub fn version(&self) -> &str {
        self.lists.last().map_or("", |list| list.version())
    }

    /// The negotiated prices, in the order in which they are tried.
    pub fn negotiated(&self) -> impl Iterator<Item = &Negotiated> {
        self.negotiated.iter()
    }

    /// The model with a price whose name is nearest to one that has none, with its provider: of the
    /// provider itself if it has a near one.
    #[must_use]
    pub fn nearest(&self, provider: &str, model: &str) -> Option<(String, String)> {
        let spellings = model_name::spellings(model);
        let name = spellings.last()?.name.as_str();
        let alike = |other: &str| {
            let pairs = name.bytes().zip(other.bytes());
            pairs
                .take_while(|(one, other)| one.eq_ignore_ascii_case(other))
                .count()
        };
        let models = self.lists().flat_map(PriceList::models);
        let near = models.filter(|model| alike(&model.id) >= NEAR_FROM);
        near.max_by_key(|model| (model.provider == listed_as(provider), alike(&model.id)))
            .map(|model| (model.provider.clone(), model.id.clone()))
    }

    /// All lists, the topmost first.
    pub fn lists(&self) -> impl Iterator<Item = &PriceList> {
        self.lists.iter().map(AsRef::as_ref)
    }

    /// What the table says of a call; none where nothing in it is about that model.
    ///
    /// A provider that resells at list prices, or that is in no list, gets the list price of the
    /// model's maker, marked as notional, if exactly one maker has that model.
    #[must_use]
    pub fn quote<'a>(&'a self, context: &Context<'a>) -> Option<Quote<'a>> {
        let spellings = model_name::spellings(context.model);
        let listed = self.find(context.provider, &spellings);
        self.quoted(context, listed, &spellings)
    }

    /// The same, where [`PriceTable::listing`] has looked up this provider and model before.
    #[must_use]
    pub fn quote_of<'a>(&'a self, listing: &Listing, context: &Context<'a>) -> Option<Quote<'a>> {
        let listed = listing.place.and_then(|place| {
            let list = self.lists.get(place.list)?.as_ref();
            Some((list, list.at(place.at, place.fast, place.notional)?))
        });
        // Only prices of one's own go by the name once more.
        let spellings = if self.negotiated.is_empty() {
            Vec::new()
        } else {
            model_name::spellings(context.model)
        };
        self.quoted(context, listed, &spellings)
    }

    fn quoted<'a>(
        &'a self,
        context: &Context<'a>,
        listed: Option<(&'a PriceList, Found<'a>)>,
        spellings: &[model_name::Spelling],
    ) -> Option<Quote<'a>> {
        let id = listed.map(|(_, found)| found.model.id.as_str());
        let negotiated = self
            .negotiated
            .iter()
            .find(|price| price.applies(context, spellings, id));
        if listed.is_none() && !negotiated.is_some_and(Negotiated::stands_alone) {
            return None;
        }
        Some(Quote {
            context: *context,
            listed,
            negotiated,
        })
    }

    /// Looks a model up: what its price and its limits are read from, as often as they are asked for.
    #[must_use]
    pub fn listing(&self, provider: &str, model: &str) -> Listing {
        let spellings = model_name::spellings(model);
        let found = self.find_at(provider, &spellings);
        let limit = |pick: fn(&Model) -> Option<u64>| {
            let own = found.and_then(|(_, found)| pick(found.model));
            own.or_else(|| self.limit(provider, &spellings, pick))
        };
        Listing {
            place: found.map(|(list, found)| Place {
                list,
                at: found.at,
                fast: found.fast,
                notional: found.notional,
            }),
            max_output_tokens: limit(|model| model.max_output_tokens),
            min_cacheable_tokens: limit(|model| model.min_cacheable_tokens),
        }
    }

    /// The rates of a call whose prompt has `prompt_tokens` (uncached, read and written together:
    /// many models cost more, for every token, beyond some length of the prompt).
    #[must_use]
    pub fn rates(&self, context: &Context<'_>, prompt_tokens: u64) -> Option<Rates> {
        self.quote(context)?.rates(prompt_tokens)
    }

    /// What a call cost; none where the model is not in the table.
    #[must_use]
    pub fn price(&self, context: &Context<'_>, usage: &Usage) -> Option<Cost> {
        self.quote(context)?.price(usage)
    }

    /// The most tokens that prompt and answer can have together.
    #[must_use]
    pub fn context_window(&self, provider: &str, model: &str) -> Option<u64> {
        let spellings = model_name::spellings(model);
        self.limit(provider, &spellings, |model| model.context_window)
    }

    /// Not every list tells every limit: the topmost that does.
    fn limit(
        &self,
        provider: &str,
        spellings: &[model_name::Spelling],
        pick: fn(&Model) -> Option<u64>,
    ) -> Option<u64> {
        self.lists
            .iter()
            .find_map(|list| pick(find_in(list, provider, spellings)?.model))
    }

    fn find(
        &self,
        provider: &str,
        spellings: &[model_name::Spelling],
    ) -> Option<(&PriceList, Found<'_>)> {
        let (at, found) = self.find_at(provider, spellings)?;
        Some((self.lists.get(at)?.as_ref(), found))
    }

    /// The model, and in which of the lists it is.
    fn find_at(
        &self,
        provider: &str,
        spellings: &[model_name::Spelling],
    ) -> Option<(usize, Found<'_>)> {
        let mut lists = self.lists.iter().enumerate();
        let own = lists
            .find_map(|(at, list)| Some((at, list.of_provider(listed_as(provider), spellings)?)));
        own.or_else(|| {
            let mut lists = self.lists.iter().enumerate();
            lists.find_map(|(at, list)| Some((at, self.of_maker(list, provider, spellings)?)))
        })
    }

    fn of_maker<'a>(
        &self,
        list: &'a PriceList,
        provider: &str,
        spellings: &[model_name::Spelling],
    ) -> Option<Found<'a>> {
        let provider = listed_as(provider);
        let resells = AT_LIST_PRICE.contains(&provider)
            || !self.lists.iter().any(|list| list.knows(provider));
        resells.then(|| list.of_maker(spellings)).flatten()
    }
}

fn find_in<'a>(
    list: &'a PriceList,
    provider: &str,
    spellings: &[model_name::Spelling],
) -> Option<Found<'a>> {
    list.of_provider(listed_as(provider), spellings)
        .or_else(|| list.of_maker(spellings))
}

impl<'a> Quote<'a> {
    /// The rates for a prompt of that many tokens.
    #[must_use]
    pub fn rates(&self, prompt_tokens: u64) -> Option<Rates> {
        let listed = self
            .listed
            .and_then(|(_, found)| rates_of(&found, &self.context, prompt_tokens));
        match self.negotiated {
            Some(negotiated) => negotiated.over(listed),
            None => listed,
        }
    }

    /// What `usage` costs.
    #[must_use]
    pub fn price(&self, usage: &Usage) -> Option<Cost> {
        self.rates(usage.prompt())?.cost(usage)
    }

    /// What `usage`, which costs `cost`, costs by list, whatever was negotiated; none where no list has
    /// the model.
    #[must_use]
    pub fn by_list(&self, usage: &Usage, cost: Cost) -> Option<Cost> {
        if self.negotiated.is_none() {
            return Some(cost);
        }
        let (_, found) = self.listed.as_ref()?;
        rates_of(found, &self.context, usage.prompt())?.cost(usage)
    }

    /// Where the price comes from: the version of the list, `+negotiated` where one was applied.
    #[must_use]
    pub fn version(&self) -> Cow<'a, str> {
        match (self.listed, self.negotiated) {
            (Some((list, _)), None) => list.version().into(),
            (Some((list, _)), Some(_)) => format!("{}+negotiated", list.version()).into(),
            (None, _) => "negotiated".into(),
        }
    }

    /// The negotiated price that is applied.
    #[must_use]
    pub const fn negotiated(&self) -> Option<&'a Negotiated> {
        self.negotiated
    }

    /// The model's id in the list.
    #[must_use]
    pub fn id(&self) -> Option<&'a str> {
        self.listed.map(|(_, found)| found.model.id.as_str())
    }
}

/// The rates of a list for one call.
fn rates_of(found: &Found<'_>, context: &Context<'_>, prompt_tokens: u64) -> Option<Rates> {
    let is_batch = |tier: &str| tier.eq_ignore_ascii_case("batch");
    let scope = Scope {
        at_unix: context.at_unix,
        batch: context.batch || context.service_tier.is_some_and(is_batch),
        service_tier: context.service_tier,
        speed: if found.fast {
            Some("fast")
        } else {
            context.speed
        },
    };
    let model = found.model;
    let base = model.base(context.at_unix)?;
    let in_us = context.inference_geo == Some("us");
    let factors = [
        model.inference_geo_us.filter(|_| in_us),
        model.regional.filter(|_| context.regional),
    ];
    let factor_ppm = factors
        .into_iter()
        .flatten()
        .fold(NO_SURCHARGE_PPM, |all, factor| {
            all.saturating_mul(factor.0).div_ceil(NO_SURCHARGE_PPM)
        });
    let piece =
        |piece: &Option<decimal::Piece>, otherwise| piece.map_or(otherwise, |piece| piece.0);
    let mut rates = Rates {
        per_token: [None; Kind::ALL.len()],
        web_search: piece(&base.per_1k.web_searches, WEB_SEARCH_PICOS),
        searches_are_one: GROUNDED_BY_PROMPT
            .iter()
            .any(|start| model.id.starts_with(start)),
        file_search: piece(&base.per_1k.file_searches, FILE_SEARCH_PICOS),
        request: piece(&base.per_1k.requests, 0),
        factor_ppm,
        notional: found.notional,
    };
    rates.take(&base.per_mtok, prompt_tokens);
    // Of two that have a rate, the first one's counts.
    for variant in model.variants_of(&scope).rev() {
        rates.take(variant, prompt_tokens);
    }
    rates.per_token(Kind::Input).map(|_| rates)
}

/// Whether a host binds its calls to a region, for which the provider charges more: Vertex AI but
/// for its global endpoint, and the data residency hosts of `OpenAI`. Bedrock says it by the id of
/// the model.
#[must_use]
pub fn is_regional(provider: &str, host: &str) -> bool {
    match provider {
        "vertex" | "google" => {
            host.ends_with("aiplatform.googleapis.com") && host != "aiplatform.googleapis.com"
                || host.ends_with(".rep.googleapis.com")
        }
        "openai" => {
            host.ends_with(".api.openai.com") && !host.starts_with("mtls.")
                || host.starts_with("mtls-") && host.ends_with(".openai.com")
        }
        _ => false,
    }
}

/// Under which id a provider's prices are listed.
fn listed_as(provider: &str) -> &str {
    match provider {
        "vertex" => "google",
        other => other,
    }
}

/// So many letters two names must begin with to be near.
const NEAR_FROM: usize = 5;

/// Listed providers that sell what others made, at their price, where no price of their own is
/// listed.
const AT_LIST_PRICE: [&str; 3] = ["aws", "azure", "google"];

const BUILTIN_PRICES: &str = include_str!("../../prices.json");

/// $10 for 1000 web searches, the list price of both Anthropic and `OpenAI`, for models whose row
/// does not say it: a search is not free.
const WEB_SEARCH_PICOS: u64 = 10_000_000_000;
/// How the ids of models begin for which Google charges a prompt that was grounded with its search,
/// however many queries that took. Later ones are charged by the query.
const GROUNDED_BY_PROMPT: [&str; 2] = ["gemini-1.", "gemini-2."];
/// $2.50 for 1000 searches in stored files, the list price of `OpenAI`.
const FILE_SEARCH_PICOS: u64 = 2_500_000_000;
