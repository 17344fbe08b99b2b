//! litellm: a map from a model's name to its fields, USD per token, the circumstance in the name
//! of the field.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::super::decimal::{Micros, Piece, scaled};
use super::super::file::Model;
use super::{Circumstance, Kind, Row, lowest_of_each, provider_id};

/// The models, and how many rows there are.
pub(super) fn read(text: &str) -> Result<(Vec<Model>, usize), serde_json::Error> {
    let rows: BTreeMap<String, BTreeMap<String, Box<RawValue>>> = serde_json::from_str(text)?;
    let rows = rows.iter().filter(|(name, _)| *name != EXAMPLE);
    let all = rows.clone().count();
    // `azure/eu/gpt-4.1` and `bedrock/us-gov-west-1/…` cost more than `azure/gpt-4.1`, which holds
    // unless a region is known.
    let ranked = rows.filter_map(|(name, fields)| {
        let parts = name.split('/').count();
        Some((parts, model(name, fields)?))
    });
    Ok((lowest_of_each(ranked), all))
}

fn model(name: &str, fields: &BTreeMap<String, Box<RawValue>>) -> Option<Model> {
    let text = |field: &str| fields.get(field).map(|raw| raw.get());
    let string = |field: &str| serde_json::from_str::<String>(text(field)?).ok();
    let listed = string("litellm_provider")?;
    let provider = provider_id(&listed);
    // `azure/gpt-4.1`, `bedrock/us-east-1/…`: the name as the provider knows it is the last part,
    // but for ids that are paths themselves (`accounts/fireworks/models/…`).
    let id = name.strip_prefix(&format!("{listed}/")).unwrap_or(name);
    let id = match provider {
        "aws" | "azure" | "google" => id.rsplit('/').next().unwrap_or(id),
        _ => id,
    };
    let mut row = Row {
        context_window: number(text("max_input_tokens")),
        max_output_tokens: number(text("max_output_tokens")),
        min_cacheable_tokens: number(text("prompt_cache_min_tokens")),
        ..Row::default()
    };
    // Of xAI the longer prompt's price holds from that many tokens on, not above.
    let inclusive = u64::from(provider == "x-ai");
    for (field, raw) in fields {
        let (Some(cost), Some(picos)) = (Cost::of(field), scaled(raw.get(), PICO_DIGITS)) else {
            continue;
        };
        let above = cost.above.saturating_sub(inclusive);
        for when in cost.when {
            row.note(*when, cost.kind, above, picos);
        }
    }
    row.per_1k.web_searches = per_search(text("search_context_cost_per_query"));
    row.per_1k.file_searches = text("file_search_cost_per_1k_calls")
        .and_then(|usd| scaled(usd, PICO_DIGITS - THOUSAND_DIGITS))
        .map(Piece);
    row.per_1k.requests = text("input_cost_per_request")
        .and_then(|usd| scaled(usd, PICO_DIGITS))
        .map(Piece);
    let factor = |name: &str| {
        let factors: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(text("provider_specific_entry")?).ok()?;
        scaled(factors.get(name)?.get(), MICRO_DIGITS)
    };
    let mut model = {
        if let Some(fast) = factor("fast") {
            speed_up(&mut row, fast);
        }
        row.model(provider, id)?
    };
    model.inference_geo_us = factor("us").filter(|_| provider == "anthropic").map(Micros);
    Some(model)
}

/// The fast mode costs so many millionths of the standard price.
fn speed_up(row: &mut Row, factor: u64) {
    let standard = row.rates.get(&Circumstance::Standard).cloned();
    for (kind, steps) in standard.unwrap_or_default() {
        for (above, picos) in steps {
            let fast = u128::from(picos)
                .saturating_mul(u128::from(factor))
                .div_ceil(1_000_000);
            let fast = u64::try_from(fast).unwrap_or(u64::MAX);
            row.note(Circumstance::Fast, kind, above, fast);
        }
    }
}

/// What a field's name says.
struct Cost {
    kind: Kind,
    above: u64,
    when: &'static [Circumstance],
}

impl Cost {
    /// `cache_creation_input_token_cost_above_1hr_above_200k_tokens_batches`: the parts after the
    /// kind come in any order.
    fn of(field: &str) -> Option<Self> {
        let (mut kind, mut rest) = KINDS
            .iter()
            .find_map(|(name, kind)| Some((*kind, field.strip_prefix(name)?)))?;
        let mut above = 0;
        let mut when: &[Circumstance] = &[Circumstance::Standard];
        while !rest.is_empty() {
            let length = ["_above_1hr", "_above_12hr"];
            if let Some(after) = length.iter().find_map(|part| rest.strip_prefix(part)) {
                kind = (kind == Kind::CacheWrite).then_some(Kind::CacheWriteLong)?;
                rest = after;
            } else if let Some((name, circumstances)) =
                WHEN.iter().find(|(name, _)| rest.starts_with(name))
            {
                when = circumstances;
                rest = rest.strip_prefix(name)?;
            } else {
                let (thousands, after) = rest.strip_prefix("_above_")?.split_once("k_tokens")?;
                above = thousands.parse::<u64>().ok()?.checked_mul(1000)?;
                rest = after;
            }
        }
        Some(Self { kind, above, when })
    }
}

fn number(text: Option<&str>) -> Option<u64> {
    scaled(text?, 0).filter(|number| *number > 0)
}

/// The price of a search with the usual amount of context.
fn per_search(text: Option<&str>) -> Option<Piece> {
    let by_size: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text?).ok()?;
    let usd = by_size.get("search_context_size_medium")?;
    scaled(usd.get(), PICO_DIGITS).map(Piece)
}

const KINDS: [(&str, Kind); 12] = [
    ("input_cost_per_token", Kind::Input),
    ("output_cost_per_token", Kind::Output),
    ("cache_read_input_token_cost", Kind::CacheRead),
    ("cache_creation_input_token_cost", Kind::CacheWrite),
    ("input_cost_per_audio_token", Kind::InputAudio),
    ("input_cost_per_image_token", Kind::InputImage),
    ("input_cost_per_video_token", Kind::InputVideo),
    ("output_cost_per_audio_token", Kind::OutputAudio),
    ("output_cost_per_image_token", Kind::OutputImage),
    ("output_cost_per_reasoning_token", Kind::Reasoning),
    ("cache_read_input_audio_token_cost", Kind::CacheAudio),
    ("cache_read_input_image_token_cost", Kind::CacheImage),
];

const WHEN: [(&str, &[Circumstance]); 4] = [
    ("_batches", &[Circumstance::Batch]),
    ("_flex", &[Circumstance::Tier("flex")]),
    // OpenAI has both names for one tier.
    (
        "_priority",
        &[Circumstance::Tier("priority"), Circumstance::Tier("fast")],
    ),
    ("_ultrafast", &[Circumstance::Tier("ultrafast")]),
];

/// A row that explains the fields.
const EXAMPLE: &str = "sample_spec";
/// Decimals of a pico-dollar, of a millionth, and of a thousandth.
const PICO_DIGITS: i32 = 12;
const MICRO_DIGITS: i32 = 6;
const THOUSAND_DIGITS: i32 = 3;
