//! models.dev (USD per million tokens) and `OpenRouter` (USD per token, in strings): the standard
//! price alone, without batches and lifetimes of the cache.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::decimal::{Piece, scaled};
use super::super::file::Model;
use super::{Circumstance, Kind, Row, lowest_of_each, provider_id};

/// The models, and how many rows there are.
pub(super) fn read_models_dev(text: &str) -> Result<(Vec<Model>, usize), serde_json::Error> {
    #[derive(Deserialize)]
    struct Provider {
        #[serde(default)]
        models: BTreeMap<String, Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        cost: Option<BTreeMap<String, Box<RawValue>>>,
        limit: Option<Limit>,
    }
    #[derive(Deserialize)]
    struct Limit {
        context: Option<u64>,
        output: Option<u64>,
    }
    let providers: BTreeMap<String, Provider> = serde_json::from_str(text)?;
    let mut ranked = Vec::new();
    let mut all = 0_usize;
    for (name, provider) in providers {
        // A provider's own list comes before that of the same one in another place.
        let rank = usize::from(provider_id(&name) != name);
        all = all.saturating_add(provider.models.len());
        for (id, listed) in provider.models {
            let Some(cost) = listed.cost else { continue };
            let mut row = Row::default();
            if let Some(limit) = listed.limit {
                row.context_window = limit.context.filter(|tokens| *tokens > 0);
                row.max_output_tokens = limit.output.filter(|tokens| *tokens > 0);
            }
            models_dev_rates(&mut row, &cost, 0);
            let model = row.model(provider_id(&name), &id);
            ranked.extend(model.map(|model| (rank, model)));
        }
    }
    Ok((lowest_of_each(ranked.into_iter()), all))
}

/// Notes the rates for prompts above that many tokens; those of longer ones are inside.
fn models_dev_rates(row: &mut Row, cost: &BTreeMap<String, Box<RawValue>>, above: u64) {
    #[derive(Deserialize)]
    struct TierOf {
        r#type: String,
        size: u64,
    }
    for (name, raw) in cost {
        let kind = match name.as_str() {
            "input" => Kind::Input,
            "output" => Kind::Output,
            "reasoning" => Kind::Reasoning,
            "cache_read" => Kind::CacheRead,
            "cache_write" => Kind::CacheWrite,
            "input_audio" => Kind::InputAudio,
            "output_audio" => Kind::OutputAudio,
            // Where there are tiers it repeats them, at a length that need not be theirs.
            "context_over_200k" if above == 0 && !cost.contains_key("tiers") => {
                if let Ok(over) = serde_json::from_str(raw.get()) {
                    models_dev_rates(row, &over, 200_000);
                }
                continue;
            }
            "tiers" if above == 0 => {
                let tiers: Vec<BTreeMap<String, Box<RawValue>>> =
                    serde_json::from_str(raw.get()).unwrap_or_default();
                for tier in tiers {
                    let of = tier.get("tier").map(|raw| serde_json::from_str(raw.get()));
                    if let Some(Ok(TierOf { r#type, size })) = of
                        && r#type == "context"
                    {
                        models_dev_rates(row, &tier, size);
                    }
                }
                continue;
            }
            _ => continue,
        };
        if let Some(picos) = scaled(raw.get(), MICRO_DIGITS) {
            row.note(Circumstance::Standard, kind, above, picos);
        }
    }
}

/// The models, and how many rows there are.
pub(super) fn read_openrouter(text: &str) -> Result<(Vec<Model>, usize), serde_json::Error> {
    #[derive(Deserialize)]
    struct Answer {
        data: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        id: String,
        context_length: Option<u64>,
        #[serde(default)]
        pricing: BTreeMap<String, Box<RawValue>>,
        top_provider: Option<TopProvider>,
    }
    #[derive(Deserialize)]
    struct TopProvider {
        max_completion_tokens: Option<u64>,
    }
    let answer: Answer = serde_json::from_str(text)?;
    let all = answer.data.len();
    let models = answer.data.into_iter().filter_map(|listed| {
        let mut row = Row {
            context_window: listed.context_length,
            max_output_tokens: listed
                .top_provider
                .and_then(|provider| provider.max_completion_tokens),
            ..Row::default()
        };
        let price = |name: &str| scaled(listed.pricing.get(name)?.get(), PICO_DIGITS);
        for (name, kind) in OPENROUTER_KINDS {
            if let Some(picos) = price(name) {
                row.note(Circumstance::Standard, kind, 0, picos);
            }
        }
        row.per_1k.web_searches = price("web_search").map(Piece);
        row.per_1k.requests = price("request").filter(|picos| *picos > 0).map(Piece);
        row.model("openrouter", &listed.id)
    });
    Ok((models.collect(), all))
}

const OPENROUTER_KINDS: [(&str, Kind); 5] = [
    ("prompt", Kind::Input),
    ("completion", Kind::Output),
    ("input_cache_read", Kind::CacheRead),
    ("input_cache_write", Kind::CacheWrite),
    ("internal_reasoning", Kind::Reasoning),
];

/// Decimals of a pico-dollar per token, in dollars per million and per token.
const MICRO_DIGITS: i32 = 6;
const PICO_DIGITS: i32 = 12;
