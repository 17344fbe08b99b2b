//! What a call will probably cost, learned from the calls before it.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use weir_core::call::Call;
use weir_core::caps::{Amount, Amounts};
use weir_core::estimate::{Outputs, Ratios, Turn};
use weir_core::money::Money;
use weir_core::usage::Usage;

use super::priced::{Priced, Terms};

/// Conversations whose last turn is remembered, about 60 bytes each.
const CONVERSATIONS_MAX: usize = 8192;
/// Names of deployments and profiles whose model is remembered.
const ALIASES_MAX: usize = 1024;
/// The output of a model whose limit is not known, at worst.
const OUTPUT_TOKENS_MAX: u64 = 128_000;
/// In the state directory: what is kept over a restart.
const FILE: &str = "estimates.json";
/// Bytes of that file: more than the bounds of what is learned allow is no file of Weir's.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// The error of estimates moves by this share of a new one.
const ERROR_SHARE: i64 = 16;

/// What is learned of calls: sizes only, no text.
#[derive(Default)]
pub(crate) struct Memory {
    learned: Mutex<Learned>,
}

#[derive(Default)]
struct Learned {
    kept: Kept,
    /// The last turn, by conversation.
    turns: HashMap<u64, Turn>,
    error: Error,
    /// Whether `kept` is other than in the file.
    changed: bool,
}

/// What is worth to be kept over a restart.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    ratios: Ratios,
    outputs: Outputs,
    /// The model that answers, by host and the name that is asked for, where that is only a name:
    /// deployments of Azure, profiles of Bedrock.
    aliases: HashMap<String, String>,
}

/// How far estimates of prompts were off, from usage that came later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Error {
    /// Prompts that were compared.
    pub(crate) prompts: u64,
    /// The mean of the difference in thousandths of the prompt, the last ones counting most.
    pub(crate) mean_permille: i64,
    /// The same with signs: above zero, estimates are too high.
    pub(crate) bias_permille: i64,
}

impl Memory {
    /// What was learned before the last restart. A file that can't be read is begun anew.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let kept = match read(&state_dir.join(FILE)) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                tracing::warn!(%error, "expected to read {FILE}; estimates are learned anew");
                Kept::default()
            }
        };
        Self {
            learned: Mutex::new(Learned {
                kept,
                ..Learned::default()
            }),
        }
    }

    /// Writes down what is to be kept, if there is anything new.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn save(&self, state_dir: &Path) -> io::Result<()> {
        let text = {
            let mut learned = self.lock();
            if !std::mem::take(&mut learned.changed) {
                return Ok(());
            }
            serde_json::to_vec(&learned.kept)?
        };
        let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
        file.write_all(&text)?;
        file.persist(state_dir.join(FILE))?;
        Ok(())
    }

    /// Looks up what is known of a call, whatever its terms are so far.
    pub(crate) fn terms(&self, priced: &Priced<'_>) -> Terms {
        let (prices, context) = (priced.prices, priced.context());
        let listing = prices.listing(context.provider, context.model);
        let has_price = prices.quote_of(&listing, &context).is_some();
        let learned = self.lock();
        let model = || learned.kept.aliases.get(&priced.alias());
        let alias = if has_price { None } else { model() };
        let last = learned.turns.get(&priced.conversation).copied();
        let ratios = &learned.kept.ratios;
        let estimate = ratios.estimate(priced.host, priced.model, priced.call, last);
        Terms {
            listing,
            alias: alias.map(|model| (model.clone(), prices.listing(context.provider, model))),
            estimate,
        }
    }

    /// What to reserve. No money where nothing counts under caps.
    ///
    /// At worst a token is one byte, all of the prompt is written to the cache for long, and the
    /// answer is as long as it may be, as often as it was asked for.
    pub(crate) fn amounts(&self, priced: &Priced<'_>) -> Amounts {
        let call = priced.call;
        let (model, listing) = priced.listed();
        let limit = call
            .max_output_tokens
            .or(listing.max_output_tokens)
            .unwrap_or(OUTPUT_TOKENS_MAX);
        let input = priced.terms.estimate.reserved;
        let usual = self.lock().kept.outputs.expected(priced.workload, model);
        let expected = Usage {
            input,
            output: usual.min(limit).saturating_mul(call.choices),
            ..Usage::default()
        };
        let worst = Usage {
            cache_write_long: input.max(call.text_bytes),
            output: limit.saturating_mul(call.choices),
            ..Usage::default()
        };
        let price = priced.price();
        let amount = |usage: Usage| {
            let money = price.as_ref().and_then(|price| price.of(&usage));
            Amount::of_call(money.unwrap_or(Money::ZERO), usage.tokens())
        };
        Amounts {
            expected: amount(expected),
            worst: amount(worst),
        }
    }

    /// Learns from an answer, which names its model; tells the previous prompt of the
    /// conversation, in tokens.
    pub(crate) fn learn(
        &self,
        priced: &Priced<'_>,
        answered: Option<&str>,
        usage: &Usage,
    ) -> Option<u64> {
        let estimate = &priced.terms.estimate;
        let mut learned = self.lock();
        let learned = &mut *learned;
        learned.changed = true;
        if priced.call.media == 0 {
            learned.error.add(estimate.expected, usage.prompt());
        }
        let kept = &mut learned.kept;
        let (host, model) = (priced.host, priced.model);
        kept.ratios.learn(host, model, priced.call, usage.prompt());
        let each = usage.output.div_ceil(priced.call.choices.max(1));
        kept.outputs.learn(priced.workload, model, each);
        if let Some(answered) = answered.filter(|answered| *answered != model) {
            make_room(&mut kept.aliases, &priced.alias(), ALIASES_MAX);
            kept.aliases.insert(priced.alias(), answered.to_owned());
            kept.outputs.learn(priced.workload, answered, each);
        }
        make_room(&mut learned.turns, &priced.conversation, CONVERSATIONS_MAX);
        let turn = Turn::of(priced.call, usage);
        let previous = learned.turns.insert(priced.conversation, turn);
        previous.map(|turn| turn.prompt)
    }

    /// How far estimates were off.
    pub(crate) fn error(&self) -> Error {
        self.lock().error
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Error {
    fn add(&mut self, expected: u64, told: u64) {
        let (expected, told) = (i128::from(expected), i128::from(told));
        let Some(off) = (expected.saturating_sub(told).saturating_mul(1000)).checked_div(told)
        else {
            return;
        };
        let off = i64::try_from(off.clamp(-1000, 1_000_000)).unwrap_or(0);
        let share = if self.prompts == 0 { 1 } else { ERROR_SHARE };
        let towards = |mean: i64, new: i64| mean.saturating_add(new.saturating_sub(mean) / share);
        self.mean_permille = towards(self.mean_permille, off.abs());
        self.bias_permille = towards(self.bias_permille, off);
        self.prompts = self.prompts.saturating_add(1);
    }
}

/// Takes out any entry where a new one would be one too many: which does not matter much.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, key: &K, most: usize) {
    if map.len() >= most && !map.contains_key(key) {
        let any = map.keys().next().cloned();
        any.and_then(|any| map.remove(&any));
    }
}

fn read(path: &Path) -> io::Result<Kept> {
    let bytes = fs::metadata(path)?.len();
    if bytes > FILE_BYTES_MAX {
        let message = format!("expected at most {FILE_BYTES_MAX} bytes, found {bytes}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use weir_core::api::Api;
    use weir_core::call;
    use weir_core::catalog::Provider;
    use weir_core::pricing::PriceTable;

    use super::super::priced::at_flat_price;
    use super::*;

    fn call_of(text_bytes: u64) -> Call {
        let mut call = call::parse(Api::ChatCompletions, br#"{"model":"m"}"#).unwrap();
        call.text_bytes = text_bytes;
        call
    }

    fn priced<'a>(provider: Provider, model: &'a str, call: &'a Call) -> Priced<'a> {
        Priced {
            provider,
            host: "llm.example",
            model,
            call,
            at_unix: 1_798_761_600,
            regional: false,
            workload: "agent",
            conversation: 7,
            is_free: false,
            flat_picos: None,
            prices: PriceTable::builtin(),
            terms: &UNKNOWN,
        }
    }

    static UNKNOWN: LazyLock<Terms> = LazyLock::new(Terms::default);

    /// With what is known of the call by now.
    fn amounts(memory: &Memory, priced: &Priced<'_>) -> Amounts {
        let terms = &memory.terms(priced);
        memory.amounts(&Priced { terms, ..*priced })
    }

    fn learn(memory: &Memory, priced: &Priced<'_>, answered: Option<&str>, usage: &Usage) {
        let terms = &memory.terms(priced);
        memory.learn(&Priced { terms, ..*priced }, answered, usage);
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage {
            input,
            output,
            ..Usage::default()
        }
    }

    #[test]
    fn the_model_of_a_deployment_is_known_after_its_first_answer() {
        let memory = Memory::default();
        let call = call_of(10_000);
        let deployment = priced(Provider::Azure, "my-deployment", &call);
        assert_eq!(amounts(&memory, &deployment).expected.money, Money::ZERO);
        learn(
            &memory,
            &deployment,
            Some("gpt-6.1-sol"),
            &usage(2_500, 100),
        );
        assert!(amounts(&memory, &deployment).expected.money > Money::ZERO);
        let other = Priced {
            host: "other.example",
            ..deployment
        };
        assert_eq!(amounts(&memory, &other).expected.money, Money::ZERO);
    }

    #[test]
    fn a_call_that_a_plan_pays_for_reserves_tokens_and_no_money() {
        let memory = Memory::default();
        let call = call_of(10_000);
        let free = Priced {
            is_free: true,
            ..priced(Provider::OpenAi, "gpt-6.1-sol", &call)
        };
        let amounts = amounts(&memory, &free);
        assert_eq!(amounts.worst.money, Money::ZERO);
        assert!(amounts.expected.tokens > 0);
    }

    #[test]
    fn the_flat_price_is_for_what_has_no_other_and_no_plan() {
        let memory = Memory::default();
        let call = call_of(10_000);
        let flat = Priced {
            flat_picos: Some(1_000_000),
            ..priced(Provider::Azure, "my-deployment", &call)
        };
        let at_worst = |priced: &Priced<'_>| amounts(&memory, priced).worst;
        let by_tokens = at_flat_price(at_worst(&flat).tokens, 1_000_000);
        assert_eq!(at_worst(&flat).money, by_tokens);
        let free = Priced {
            is_free: true,
            ..flat
        };
        assert_eq!(at_worst(&free).money, Money::ZERO);
        learn(&memory, &flat, Some("gpt-6.1-sol"), &usage(2_500, 100));
        assert_ne!(at_worst(&flat).money, by_tokens);
        assert_ne!(at_worst(&flat).money, Money::ZERO);
    }

    #[test]
    fn what_was_learned_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::open(dir.path());
        let call = call_of(100_000);
        let of = priced(Provider::OpenAi, "gpt-6.1-sol", &call);
        for _ in 0..50 {
            learn(&memory, &of, None, &usage(50_000, 9_000));
        }
        memory.save(dir.path()).unwrap();
        let again = Memory::open(dir.path());
        let new = Priced {
            conversation: 8,
            ..of
        };
        assert_eq!(again.terms(&new).estimate, memory.terms(&new).estimate);
        assert_eq!(
            amounts(&again, &new).expected.money,
            amounts(&memory, &new).expected.money
        );
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(
            Memory::open(dir.path()).terms(&new).estimate.expected,
            25_000
        );
    }

    #[test]
    fn the_error_of_estimates_falls_as_they_are_learned() {
        let memory = Memory::default();
        let call = call_of(100_000);
        let of = priced(Provider::OpenAi, "gpt-6.1-sol", &call);
        learn(&memory, &of, None, &usage(50_000, 100));
        assert_eq!(
            memory.error(),
            Error {
                prompts: 1,
                mean_permille: 500,
                bias_permille: -500
            }
        );
        for _ in 0..100 {
            learn(&memory, &of, None, &usage(50_000, 100));
        }
        assert!(memory.error().mean_permille < 20, "{:?}", memory.error());
    }

    #[test]
    fn no_more_conversations_are_kept_than_the_bound() {
        let memory = Memory::default();
        let call = call_of(10_000);
        for conversation in 0..10_000 {
            let of = Priced {
                conversation,
                ..priced(Provider::OpenAi, "m", &call)
            };
            learn(&memory, &of, None, &usage(1, 1));
        }
        assert_eq!(memory.lock().turns.len(), CONVERSATIONS_MAX);
    }
}
