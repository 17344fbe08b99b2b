//! One price list: the built-in one, or one that was imported, with an index of its names.

use std::collections::HashMap;
use std::ops::Range;

use super::PriceTableError;
use super::file::{self, File, Model};
use super::model_name::{Names, Spelling};

/// A price list with a version of its own.
#[derive(Debug)]
pub struct PriceList {
    pub(super) version: String,
    models: Vec<Model>,
    providers: HashMap<String, Provider>,
}

/// The models of one provider, which stand together.
#[derive(Debug)]
struct Provider {
    range: Range<usize>,
    names: Names,
}

/// A model of a list, as a name meant it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) model: &'a Model,
    /// Where the model stands in the list.
    pub(super) at: usize,
    /// The name itself asked for the fast mode.
    pub(super) fast: bool,
    /// Found with the model's maker, not with the provider that was asked for.
    pub(super) notional: bool,
}

impl PriceList {
    /// Reads a list from JSON text in the form of the built-in `prices.json`.
    ///
    /// # Errors
    /// Says where the text is not a price list, or has a price that is not an exact decimal.
    pub fn parse(text: &str) -> Result<Self, PriceTableError> {
        Ok(Self::of(file::parse(text)?))
    }

    pub(super) fn of(file: File) -> Self {
        let File { version, models } = file;
        let mut models = models;
        // Stable: of two models with one name, the one that stands first has it.
        models.sort_by(|one, other| one.provider.cmp(&other.provider));
        let mut providers = HashMap::new();
        let mut start = 0_usize;
        for group in models.chunk_by(|one, other| one.provider == other.provider) {
            let range = start..start.saturating_add(group.len());
            start = range.end;
            if let Some(first) = group.first() {
                let names = Names::of(group);
                providers.insert(first.provider.clone(), Provider { range, names });
            }
        }
        Self {
            version,
            models,
            providers,
        }
    }

    /// What the list calls itself: a date, or the name of its source and a date.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How many models it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    pub(super) fn models(&self) -> &[Model] {
        &self.models
    }

    /// The model in the list of `provider` itself.
    pub(super) fn of_provider(&self, provider: &str, spellings: &[Spelling]) -> Option<Found<'_>> {
        let provider = self.providers.get(provider)?;
        let models = self.models.get(provider.range.clone())?;
        let (at, fast) = provider.names.find(models, spellings)?;
        let at = provider.range.start.saturating_add(at);
        self.at(at, fast, false)
    }

    /// The model that was found there before.
    pub(super) fn at(&self, at: usize, fast: bool, notional: bool) -> Option<Found<'_>> {
        let model = self.models.get(at)?;
        Some(Found {
            model,
            at,
            fast,
            notional,
        })
    }

    /// The model in the list of its maker, if just one makes it.
    pub(super) fn of_maker(&self, spellings: &[Spelling]) -> Option<Found<'_>> {
        let mut makers = self.providers.keys().filter_map(|provider| {
            self.of_provider(provider, spellings)
                .filter(|found| !found.model.resold)
        });
        let found = makers.next()?;
        let ambiguous = makers.next().is_some();
        (!ambiguous).then_some(Found {
            notional: true,
            ..found
        })
    }

    /// The providers that it has models of, in no order.
    pub(super) fn providers(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }

    /// Whether the list has models of `provider`.
    pub(super) fn knows(&self, provider: &str) -> bool {
        self.providers.contains_key(provider)
    }
}
