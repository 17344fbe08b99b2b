//! How many tokens a prompt will have, before the provider counts them.
//!
//! Nothing is tokenised: a running ratio of tokens to bytes, learned from the usage of answers,
//! is closer for what one program sends than a general tokeniser, and costs a multiplication.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::catalog::Provider;

/// Models that share a tokeniser, near enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// Claude of the new tokeniser: Opus from 4.7, Sonnet and Haiku from 5, Fable, Mythos.
    ClaudeNew,
    /// Claude before that.
    ClaudeOld,
    /// Everything else.
    Other,
}

impl Family {
    /// The family of a model, by its name in any provider's spelling.
    #[must_use]
    pub fn of(model: &str) -> Self {
        let model = model.to_ascii_lowercase();
        if model.contains("fable") || model.contains("mythos") {
            return Self::ClaudeNew;
        }
        for (name, new_from) in [("opus", (4, 7)), ("sonnet", (5, 0)), ("haiku", (5, 0))] {
            if let Some((_, rest)) = model.split_once(name) {
                let is_new = version(rest) >= new_from;
                return if is_new {
                    Self::ClaudeNew
                } else {
                    Self::ClaudeOld
                };
            }
        }
        if model.contains("claude") {
            Self::ClaudeOld
        } else {
            Self::Other
        }
    }

    /// Tokens per million bytes to begin with.
    const fn start(self) -> u64 {
        match self {
            Self::ClaudeNew => 312_500, // a token is 3.2 bytes
            Self::ClaudeOld => 277_778, // 3.6 bytes
            Self::Other => 250_000,     // 4 bytes
        }
    }
}

/// Major and minor version at the start of `-4-7-20260101`; a date is no version.
fn version(rest: &str) -> (u64, u64) {
    let mut numbers = rest
        .split(['-', '.', '@', ':', '_', '['])
        .skip(1)
        .map_while(|part| part.parse::<u64>().ok().filter(|number| *number < 1000));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The ratios of tokens to bytes, learned per provider and family of models.
#[derive(Clone, Debug, Default)]
pub struct Ratios {
    /// Tokens per million bytes. As many entries at most as providers times families.
    learned: HashMap<(Provider, Family), u64>,
}

impl Ratios {
    /// Tokens that the prompt of `call` will hardly exceed: bytes × ratio × 1.2, and a fixed number
    /// per piece of media.
    ///
    /// What the provider holds of the conversation (`previous_response`) is not in the call, and
    /// not in the estimate.
    #[must_use]
    pub fn estimate(&self, provider: Provider, model: &str, call: &Call) -> u64 {
        let ratio = self.ratio(provider, Family::of(model));
        let tokens = u128::from(call.text_bytes)
            .saturating_mul(u128::from(ratio))
            .saturating_mul(MARGIN_PERCENT)
            .div_ceil(PER_MILLION.saturating_mul(100));
        u64::try_from(tokens)
            .unwrap_or(u64::MAX)
            .saturating_add(call.media.saturating_mul(MEDIA_TOKENS))
    }

    /// Learns from an answer: `prompt_tokens` is all of the prompt, cached or not.
    ///
    /// Calls that do not tell the ratio are passed over: with media, with a part of the
    /// conversation that is not in the body, or too short for its fixed parts to vanish.
    pub fn learn(&mut self, provider: Provider, model: &str, call: &Call, prompt_tokens: u64) {
        if call.media > 0 || call.previous_response || call.text_bytes < LEARN_BYTES_MIN {
            return;
        }
        let Some(sample) = u128::from(prompt_tokens)
            .saturating_mul(PER_MILLION)
            .checked_div(u128::from(call.text_bytes))
            .and_then(|sample| u64::try_from(sample).ok())
        else {
            return;
        };
        let family = Family::of(model);
        let sample = sample.clamp(RATIO_MIN, RATIO_MAX);
        let old = self.ratio(provider, family);
        let new = old.saturating_mul(KEPT_SHARES).saturating_add(sample) >> SHARES_BITS;
        self.learned.insert((provider, family), new);
    }

    /// Tokens per million bytes.
    fn ratio(&self, provider: Provider, family: Family) -> u64 {
        self.learned
            .get(&(provider, family))
            .copied()
            .unwrap_or_else(|| family.start())
    }
}

const PER_MILLION: u128 = 1_000_000;

/// What is reserved, in percent of what is expected.
const MARGIN_PERCENT: u128 = 120;

/// Tokens of one image: the limit of most models for one that is scaled down.
const MEDIA_TOKENS: u64 = 1_600;

/// The shortest prompt that a ratio is learned from, in bytes.
const LEARN_BYTES_MIN: u64 = 2_000;

/// One sample is an eighth of the new average.
const SHARES_BITS: u32 = 3;
const KEPT_SHARES: u64 = 7;

/// No text has fewer tokens per million bytes (20 bytes a token), and none has more (a token a
/// byte, and the provider's own additions): a sample beyond is not one of the tokeniser.
const RATIO_MIN: u64 = 50_000;
const RATIO_MAX: u64 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Api;
    use crate::call;

    fn call_of(text_bytes: u64, media: u64) -> Call {
        let mut call = call::parse(Api::Messages, b"{}").unwrap();
        call.text_bytes = text_bytes;
        call.media = media;
        call
    }

    #[test]
    fn a_model_is_of_the_family_of_its_tokeniser() {
        for (model, family) in [
            ("claude-opus-4-6", Family::ClaudeOld),
            ("claude-opus-4-7", Family::ClaudeNew),
            (
                "us.anthropic.claude-opus-4-8-20260401-v1:0",
                Family::ClaudeNew,
            ),
            ("claude-opus-4-20250514", Family::ClaudeOld),
            ("claude-3-5-sonnet-20241022", Family::ClaudeOld),
            ("anthropic/claude-sonnet-4.6", Family::ClaudeOld),
            ("claude-sonnet-5", Family::ClaudeNew),
            ("claude-haiku-5-5@20261001", Family::ClaudeNew),
            ("claude-haiku-4-5", Family::ClaudeOld),
            ("claude-fable-5-2", Family::ClaudeNew),
            ("claude-2.1", Family::ClaudeOld),
            ("gpt-6.1-sol", Family::Other),
            ("", Family::Other),
        ] {
            assert_eq!(Family::of(model), family, "{model}");
        }
    }

    #[test]
    fn an_unseen_model_is_estimated_from_its_family_with_a_margin() {
        let ratios = Ratios::default();
        let estimate = |model, call: &Call| ratios.estimate(Provider::OpenAi, model, call);
        assert_eq!(estimate("gpt-6-sol", &call_of(4_000, 0)), 1_200);
        assert_eq!(estimate("claude-sonnet-5", &call_of(3_200, 0)), 1_200);
        assert_eq!(estimate("gpt-6-sol", &call_of(4_000, 2)), 4_400);
        assert_eq!(
            estimate("gpt-6-sol", &call_of(u64::MAX, u64::MAX)),
            u64::MAX
        );
    }

    #[test]
    fn the_ratio_follows_what_answers_say_and_no_other_model_is_touched() {
        let mut ratios = Ratios::default();
        let call = call_of(10_000, 0);
        for _ in 0..100 {
            ratios.learn(Provider::OpenAi, "gpt-6-sol", &call, 5_000);
        }
        let learned = ratios.estimate(Provider::OpenAi, "gpt-6-luna", &call);
        assert!((5_990..=6_000).contains(&learned), "{learned}");
        assert_eq!(
            ratios.estimate(Provider::OpenAi, "claude-opus-4-6", &call),
            3_334
        );
        assert_eq!(
            ratios.estimate(Provider::Mistral, "mistral-large-4", &call),
            3_000
        );
    }

    #[test]
    fn calls_that_do_not_tell_the_ratio_teach_nothing() {
        let mut ratios = Ratios::default();
        let mut delta = call_of(10_000, 0);
        delta.previous_response = true;
        for call in [delta, call_of(10_000, 1), call_of(100, 0), call_of(0, 0)] {
            ratios.learn(Provider::OpenAi, "gpt-6-sol", &call, 1_000_000);
        }
        assert_eq!(
            ratios.estimate(Provider::OpenAi, "gpt-6-sol", &call_of(4_000, 0)),
            1_200
        );
    }
}
