//! What a call will probably cost, learned from the calls before it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_core::call::Call;
use weir_core::caps::{Amount, Amounts};
use weir_core::catalog::Provider;
use weir_core::estimate::Ratios;
use weir_core::money::Money;
use weir_core::pricing::{Context, PriceTable};
use weir_core::usage::Usage;

/// Models whose usual answer is remembered, and conversations whose last prompt is.
const MODELS_MAX: usize = 1024;
const CONVERSATIONS_MAX: usize = 8192;
/// The answer of a model that is not known yet, in tokens: agents mostly answer with less.
const OUTPUT_TOKENS_AT_FIRST: u64 = 1024;
/// Twice the usual answer is reserved: outputs vary more than prompts.
const OUTPUT_MARGIN: u64 = 2;
/// The usual answer moves by an eighth of the difference with each call.
const OUTPUT_LEARNING_SHARE: u64 = 8;
/// The output of a model whose limit is not known, at worst.
const OUTPUT_TOKENS_MAX: u64 = 128_000;

/// What is learned of calls: sizes only, no text.
#[derive(Default)]
pub(crate) struct Memory {
    learned: Mutex<Learned>,
}

#[derive(Default)]
struct Learned {
    ratios: Ratios,
    outputs: HashMap<String, u64>,
    /// Tokens of the last prompt, by conversation.
    prompts: HashMap<u64, u64>,
}

/// A call, as far as its price goes.
#[derive(Clone, Copy)]
pub(crate) struct Priced<'a> {
    pub(crate) provider: Provider,
    pub(crate) model: &'a str,
    pub(crate) call: &'a Call,
    pub(crate) at_unix: i64,
    /// The host binds the call to a region.
    pub(crate) regional: bool,
}

impl<'a> Priced<'a> {
    pub(crate) fn context(&self) -> Context<'a> {
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
}

impl Memory {
    /// What to reserve. No money, for a model without a price: nothing can be known of it.
    ///
    /// At worst a token is one byte, all of the prompt is written to the cache for long, and the
    /// answer is as long as it may be, as often as it was asked for.
    pub(crate) fn amounts(&self, prices: &PriceTable, priced: &Priced<'_>) -> Amounts {
        let (call, model) = (priced.call, priced.model);
        let limit = call
            .max_output_tokens
            .or_else(|| prices.max_output_tokens(priced.context().provider, model))
            .unwrap_or(OUTPUT_TOKENS_MAX);
        let learned = self.lock();
        let input = learned.ratios.estimate(priced.provider, model, call);
        let usual = learned
            .outputs
            .get(model)
            .copied()
            .unwrap_or(OUTPUT_TOKENS_AT_FIRST);
        drop(learned);
        let output = usual
            .saturating_mul(OUTPUT_MARGIN)
            .min(limit)
            .saturating_mul(call.choices);
        let expected = Usage {
            input,
            output,
            ..Usage::default()
        };
        let worst = Usage {
            cache_write_long: input.max(call.text_bytes),
            output: limit.saturating_mul(call.choices),
            ..Usage::default()
        };
        let amount = |usage: Usage| {
            let price = prices.price(&priced.context(), &usage);
            let tokens = usage.prompt().saturating_add(usage.output);
            Amount::of_call(price.map_or(Money::ZERO, |cost| cost.total), tokens)
        };
        Amounts {
            expected: amount(expected),
            worst: amount(worst),
        }
    }

    /// About how many tokens the prompt has.
    pub(crate) fn prompt_tokens(&self, priced: &Priced<'_>) -> u64 {
        self.lock()
            .ratios
            .estimate(priced.provider, priced.model, priced.call)
    }

    /// Learns from an answer; tells the previous prompt of the conversation, in tokens.
    pub(crate) fn learn(
        &self,
        priced: &Priced<'_>,
        conversation: u64,
        usage: &Usage,
    ) -> Option<u64> {
        let mut learned = self.lock();
        let learned = &mut *learned;
        learned
            .ratios
            .learn(priced.provider, priced.model, priced.call, usage.prompt());
        if learned.outputs.len() < MODELS_MAX || learned.outputs.contains_key(priced.model) {
            let usual = learned
                .outputs
                .entry(priced.model.to_owned())
                .or_insert(usage.output);
            *usual = usual
                .saturating_mul(OUTPUT_LEARNING_SHARE.saturating_sub(1))
                .saturating_add(usage.output)
                .div_ceil(OUTPUT_LEARNING_SHARE);
        }
        if learned.prompts.len() >= CONVERSATIONS_MAX
            && !learned.prompts.contains_key(&conversation)
        {
            // Which one goes does not matter much: it costs one report a smaller `perfect`.
            let any = learned.prompts.keys().next().copied();
            any.and_then(|any| learned.prompts.remove(&any));
        }
        learned.prompts.insert(conversation, usage.prompt())
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tells a conversation from others: who has it, with which model, and how it begins. Its
/// first message stays as it is from turn to turn, whatever the system prompt does.
pub(crate) fn conversation(key: Option<&str>, call: &Call, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, call.api.as_str(), &call.model).hash(&mut hasher);
    match call.messages.first() {
        Some(first) => body.get(first.clone()).hash(&mut hasher),
        None => call.session.hash(&mut hasher),
    }
    hasher.finish()
}
