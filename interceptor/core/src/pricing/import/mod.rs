//! Reads the public price files of others into a list of Weir's own form.
//!
//! Which of the formats a text is in shows in its shape. A row that has no price by the token for
//! input is passed over: it is sold by the second, the picture or the page. Prices that are finer
//! than a pico-dollar per token are rounded up.

mod genai_prices;
mod litellm;
mod news;
mod others;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::value::RawValue;

use super::decimal::Rate;
use super::file::{self, File, Model, PerThousand, Price, Processing, Variant, When};
use super::layer::PriceList;
use super::model_name::{self, Rule};
use super::per_mtok::PerMtok;
use super::{Kind, PriceTable};

/// Whose price file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `model_prices_and_context_window.json` of litellm.
    Litellm,
    /// `data.json`, version 2, of genai-prices.
    GenaiPrices,
    /// `api.json` of models.dev.
    ModelsDev,
    /// The answer of `OpenRouter` to `GET /api/v1/models`.
    OpenRouter,
    /// Weir's own form, as of the built-in list.
    Weir,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [
        Self::Litellm,
        Self::GenaiPrices,
        Self::ModelsDev,
        Self::OpenRouter,
        Self::Weir,
    ];

    /// Its name, also that of the list that is made of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Litellm => "litellm",
            Self::GenaiPrices => "genai-prices",
            Self::ModelsDev => "models.dev",
            Self::OpenRouter => "openrouter",
            Self::Weir => "weir",
        }
    }

    /// The format whose shape a text has: by what its outermost members hold.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Keys<'a> {
            #[serde(borrow)]
            models: Option<&'a RawValue>,
            version: Option<&'a RawValue>,
            cost: Option<&'a RawValue>,
            litellm_provider: Option<&'a RawValue>,
            input_cost_per_token: Option<&'a RawValue>,
        }
        if let Ok(providers) = serde_json::from_str::<Vec<&RawValue>>(text) {
            let has_models = |raw: &&RawValue| {
                serde_json::from_str::<Keys<'_>>(raw.get()).is_ok_and(|keys| keys.models.is_some())
            };
            return providers
                .first()
                .is_some_and(has_models)
                .then_some(Self::GenaiPrices);
        }
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        let is_array = |name: &str| {
            members
                .get(name)
                .is_some_and(|raw| raw.get().starts_with('['))
        };
        if is_array("data") {
            return Some(Self::OpenRouter);
        }
        if is_array("models") && members.contains_key("version") {
            return Some(Self::Weir);
        }
        members.values().find_map(|raw| {
            let keys: Keys<'_> = serde_json::from_str(raw.get()).ok()?;
            if keys.litellm_provider.is_some() || keys.input_cost_per_token.is_some() {
                Some(Self::Litellm)
            } else if keys.models.is_some() && keys.version.is_none() && keys.cost.is_none() {
                Some(Self::ModelsDev)
            } else {
                None
            }
        })
    }
}

/// Why a file can't be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Its shape is none of those that are known.
    #[error(
        "expected a price file of litellm, genai-prices (version 2), models.dev, OpenRouter or \
         Weir, found JSON of another shape, or no JSON"
    )]
    Unknown,
    /// It has the shape of a format, and then something else.
    #[error("expected a price file of {format}: {source}")]
    Form {
        /// The format.
        format: &'static str,
        /// What the reader says.
        source: serde_json::Error,
    },
    /// A list of Weir's own form with something that can't be.
    #[error(transparent)]
    Weir(#[from] super::PriceTableError),
    /// Nothing in it has a price.
    #[error("expected models with a price by the token, found none in a price file of {format}")]
    Empty {
        /// The format.
        format: &'static str,
    },
}

/// What was read of a file.
#[derive(Debug)]
pub struct Imported {
    /// Whose format it was in.
    pub format: Format,
    file: File,
    /// Rows that have no price by the token.
    pub passed_over: usize,
}

/// A model of which the file tells something else than the table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The provider's id.
    pub provider: String,
    /// The model's id.
    pub model: String,
    /// Input, output, cache read and write in the table today, in dollars per million tokens.
    pub before: String,
    /// The same in the file.
    pub after: String,
    /// What differs, such as `output`, `batch input`, `input from 2027-01-01`, `max_output_tokens`.
    pub differs: Vec<String>,
    /// Prices that the table has for the model and the file has not, such as `batch` or
    /// `cache_write_long`: they are the standard ones then.
    pub lost: Vec<String>,
}

/// Reads a price file. `date` is told in the version of the list that is made of it.
///
/// # Errors
/// Its format is not known, or is not kept to.
pub fn import(text: &str, format: Option<Format>, date: &str) -> Result<Imported, ImportError> {
    let format = format
        .or_else(|| Format::of(text))
        .ok_or(ImportError::Unknown)?;
    let form = |source| ImportError::Form {
        format: format.as_str(),
        source,
    };
    let (models, all) = match format {
        Format::Litellm => litellm::read(text).map_err(form)?,
        Format::GenaiPrices => genai_prices::read(text).map_err(form)?,
        Format::ModelsDev => others::read_models_dev(text).map_err(form)?,
        Format::OpenRouter => others::read_openrouter(text).map_err(form)?,
        Format::Weir => {
            let models = file::parse(text)?.models;
            let all = models.len();
            (models, all)
        }
    };
    if models.is_empty() {
        return Err(ImportError::Empty {
            format: format.as_str(),
        });
    }
    Ok(Imported {
        format,
        passed_over: all.saturating_sub(models.len()),
        file: File {
            version: format!("{} {date}", format.as_str()),
            models,
        },
    })
}

impl Imported {
    /// How many models have a price.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.file.models.len()
    }

    /// Whether none has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.file.models.is_empty()
    }

    /// Leaves out the models of which `table` has all that the file tells, now and for later: it may
    /// know more of them. Tells which models are new, and of which something differs (these are left
    /// out too, where `only_new`). Where the standard price of such a one is the same, what the file
    /// does not tell of it stays as it is.
    pub fn keep_news(
        &mut self,
        table: &PriceTable,
        at_unix: i64,
        only_new: bool,
    ) -> (Vec<String>, Vec<Change>) {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        self.file.models.retain_mut(|model| {
            let spellings = model_name::spellings(&model.id);
            let known = table
                .lists()
                .find_map(|list| list.of_provider(&model.provider, &spellings));
            let Some(known) = known else {
                new.push(format!("{}/{}", model.provider, model.id));
                return true;
            };
            match news::change(known.model, model, at_unix) {
                None => false,
                Some(change) => {
                    changed.push(change);
                    !only_new
                }
            }
        });
        (new, changed)
    }

    /// The list, to be put over others.
    #[must_use]
    pub fn list(self) -> PriceList {
        PriceList::of(self.file)
    }

    /// The text of the list, in the form of the built-in one: a line for each model.
    ///
    /// # Errors
    /// Never for a list that was read; the writer of JSON could say no.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        self.file.text()
    }
}

/// One model for each id of a provider: of several rows the one of the lowest rank, of those the
/// first.
fn lowest_of_each(rows: impl Iterator<Item = (usize, Model)>) -> Vec<Model> {
    let mut lowest = BTreeMap::new();
    for (rank, model) in rows {
        let id = (model.provider.clone(), model.id.clone());
        match lowest.entry(id) {
            Entry::Vacant(free) => drop(free.insert((rank, model))),
            Entry::Occupied(mut taken) => {
                let (lowest, _): &(usize, Model) = taken.get();
                if rank < *lowest {
                    taken.insert((rank, model));
                }
            }
        }
    }
    lowest.into_values().map(|(_, model)| model).collect()
}

/// What is gathered of one model, in any order.
#[derive(Default)]
struct Row {
    /// Steps of each rate, by the circumstance.
    rates: BTreeMap<Circumstance, BTreeMap<Kind, Steps>>,
    per_1k: PerThousand,
    context_window: Option<u64>,
    max_output_tokens: Option<u64>,
    min_cacheable_tokens: Option<u64>,
}

/// Pico-dollars per token, by the length of the prompt above which it holds.
type Steps = BTreeMap<u64, u64>;

/// When a rate applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Circumstance {
    Standard,
    Batch,
    Tier(&'static str),
    Fast,
}

impl Circumstance {
    fn when(self) -> When {
        match self {
            Self::Standard => When::default(),
            Self::Batch => When {
                processing: Some(Processing::Batch),
                ..When::default()
            },
            Self::Tier(tier) => When {
                service_tier: Some(tier.to_owned()),
                ..When::default()
            },
            Self::Fast => When {
                speed: Some("fast".to_owned()),
                ..When::default()
            },
        }
    }
}

impl Row {
    /// Notes a rate for prompts above that many tokens.
    fn note(&mut self, when: Circumstance, kind: Kind, above: u64, picos: u64) {
        let rates = self.rates.entry(when).or_default();
        rates.entry(kind).or_default().insert(above, picos);
    }

    /// The model, if it has a price for input and is not listed at nothing. Reads and writes of the
    /// cache that are listed at nothing are not told: they cost what input does.
    fn model(self, provider: &str, id: &str) -> Option<Model> {
        let is_something = |rate: &Rate| rate.steps().iter().any(|(_, picos)| *picos > 0);
        let mut rates: BTreeMap<Circumstance, PerMtok> = BTreeMap::new();
        for (when, kinds) in self.rates {
            let rated = kinds.into_iter().filter_map(|(kind, steps)| {
                let rate = Rate::of_steps(steps.into_iter().collect())?;
                (!kind.is_of_cache() || is_something(&rate)).then_some((kind, rate))
            });
            rates.insert(when, rated.collect());
        }
        let standard = rates.remove(&Circumstance::Standard)?;
        if standard.get(Kind::Input).is_none()
            || !standard.iter().any(|(_, rate)| is_something(rate))
        {
            return None;
        }
        let variants = rates.into_iter().map(|(when, per_mtok)| Variant {
            when: when.when(),
            effective_from: None,
            per_mtok,
        });
        Some(Model {
            provider: provider.to_owned(),
            id: id.to_owned(),
            rules: vec![Rule::equals(id)],
            resold: !is_maker(provider, id),
            context_window: self.context_window,
            max_output_tokens: self.max_output_tokens,
            min_cacheable_tokens: self.min_cacheable_tokens,
            inference_geo_us: None,
            regional: None,
            prices: vec![Price {
                effective_from: None,
                utc_time_window: None,
                per_mtok: standard,
                per_1k: self.per_1k,
            }],
            variants: variants.collect(),
        })
    }
}

/// Whether a provider lists its own models: others may take its price as the list price then.
fn is_maker(provider: &str, id: &str) -> bool {
    let makers = [
        "anthropic",
        "openai",
        "deepseek",
        "mistral",
        "x-ai",
        "moonshotai",
        "minimax",
        "zai",
        "cohere",
        "perplexity",
    ];
    makers.contains(&provider) || (provider == "google" && id.starts_with("gemini"))
}

/// Provider names of others, and Weir's id for them. Names that are not here stay.
fn provider_id(name: &str) -> &str {
    match name {
        "azure_ai" | "azure-cognitive-services" => "azure",
        "amazon-bedrock" | "bedrock" | "bedrock_converse" | "bedrock_mantle" => "aws",
        "cohere_chat" => "cohere",
        "fireworks_ai" | "fireworks-ai" | "fireworks_ai-embedding-models" => "fireworks",
        "gemini" | "google-vertex" | "google-vertex-anthropic" => "google",
        "github_copilot" => "github-copilot",
        "minimax-cn" => "minimax",
        "moonshot" | "moonshotai-cn" => "moonshotai",
        "text-completion-openai" => "openai",
        "together_ai" | "togetherai" => "together",
        "xai" => "x-ai",
        "zhipuai" => "zai",
        other if other.starts_with("vertex_ai") => "google",
        other => other,
    }
}
