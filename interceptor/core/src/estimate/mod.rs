//! How many tokens a call will have, before the provider counts them.
//!
//! Nothing is tokenised: a running ratio of tokens to bytes, learned from the usage of answers,
//! is closer for what one program sends than a general tokeniser, and costs a multiplication. In
//! a conversation only what is new since the last turn is estimated.

mod outputs;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::usage::Usage;

pub use outputs::Outputs;

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

    const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeNew => "claude_new",
            Self::ClaudeOld => "claude_old",
            Self::Other => "other",
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

/// The ratios of tokens to bytes, learned per host and model, and per host and family of models
/// for models that are new there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ratios {
    /// Tokens per million bytes, by host and model or family.
    learned: HashMap<String, Ratio>,
}

/// Tokens per million bytes; none is never stored.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Ratio(u64);

/// The last turn of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// All tokens of its prompt.
    pub prompt: u64,
    /// The tokens of its answer.
    pub output: u64,
    /// Bytes of its prompt, as [`Call::text_bytes`].
    pub text_bytes: u64,
    /// Pieces of media in its prompt.
    pub media: u64,
}

impl Turn {
    /// The turn of a call and its usage.
    #[must_use]
    pub fn of(call: &Call, usage: &Usage) -> Self {
        Self {
            prompt: usage.prompt(),
            output: usage.output,
            text_bytes: call.text_bytes,
            media: call.media,
        }
    }
}

/// What is estimated of a prompt, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// The most likely.
    pub expected: u64,
    /// What it will hardly exceed.
    pub reserved: u64,
}

impl Ratios {
    /// Estimates the prompt of `call`: bytes × ratio, a fixed number per piece of media, and on
    /// what is reserved a margin of a fifth.
    ///
    /// After a turn of the same conversation only what is new is estimated so. What the provider
    /// holds of a conversation is in the estimate only then: it is not in the call.
    #[must_use]
    pub fn estimate(&self, host: &str, model: &str, call: &Call, last: Option<Turn>) -> Estimate {
        let ratio = self.ratio(host, model);
        let (known, bytes, media) = match last {
            // The body holds what is new alone.
            Some(last) if call.previous_response => (
                last.prompt.saturating_add(last.output),
                call.text_bytes,
                call.media,
            ),
            Some(last) if call.text_bytes >= last.text_bytes && call.media >= last.media => (
                last.prompt,
                call.text_bytes.saturating_sub(last.text_bytes),
                call.media.saturating_sub(last.media),
            ),
            // It was shortened, or is another one.
            _ => (0, call.text_bytes, call.media),
        };
        let known = known.saturating_add(media.saturating_mul(MEDIA_TOKENS));
        let new = |margin_percent: u128| {
            let tokens = u128::from(bytes)
                .saturating_mul(u128::from(ratio))
                .saturating_mul(margin_percent)
                .div_ceil(PER_MILLION.saturating_mul(100));
            known.saturating_add(u64::try_from(tokens).unwrap_or(u64::MAX))
        };
        Estimate {
            expected: new(100),
            reserved: new(MARGIN_PERCENT),
        }
    }

    /// Learns from an answer: `prompt_tokens` is all of the prompt, cached or not.
    ///
    /// Calls that do not tell the ratio are passed over: with media, with a part of the
    /// conversation that is not in the body, or too short for its fixed parts to vanish.
    pub fn learn(&mut self, host: &str, model: &str, call: &Call, prompt_tokens: u64) {
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
        let sample = sample.clamp(RATIO_MIN, RATIO_MAX);
        let old = self.ratio(host, model);
        let new = old.saturating_mul(KEPT_SHARES).saturating_add(sample) >> SHARES_BITS;
        for key in [of_model(host, model), of_family(host, model)] {
            if let Some(ratio) = outputs::entry(&mut self.learned, key, RATIOS_MAX) {
                *ratio = Ratio(new);
            }
        }
    }

    /// Tokens per million bytes.
    fn ratio(&self, host: &str, model: &str) -> u64 {
        let learned = |key: String| self.learned.get(&key);
        learned(of_model(host, model))
            .or_else(|| learned(of_family(host, model)))
            .map_or_else(
                || Family::of(model).start(),
                |Ratio(ratio)| (*ratio).clamp(RATIO_MIN, RATIO_MAX),
            )
    }
}

fn of_model(host: &str, model: &str) -> String {
    [host, " ", model].concat()
}

/// No model's name has a star in front.
fn of_family(host: &str, model: &str) -> String {
    [host, " *", Family::of(model).as_str()].concat()
}

/// Hosts times models and families whose ratio is kept; about 100 bytes each.
const RATIOS_MAX: usize = 2048;

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

    fn reserved(ratios: &Ratios, host: &str, model: &str, call: &Call) -> u64 {
        ratios.estimate(host, model, call, None).reserved
    }

    #[test]
    fn an_unseen_model_is_estimated_from_its_family_with_a_margin() {
        let ratios = Ratios::default();
        let estimate = |model, call: &Call| reserved(&ratios, "h", model, call);
        assert_eq!(estimate("gpt-6-sol", &call_of(4_000, 0)), 1_200);
        assert_eq!(estimate("claude-sonnet-5", &call_of(3_200, 0)), 1_200);
        assert_eq!(estimate("gpt-6-sol", &call_of(4_000, 2)), 4_400);
        let most = ratios.estimate("h", "gpt-6-sol", &call_of(u64::MAX, u64::MAX), None);
        assert_eq!((most.expected, most.reserved), (u64::MAX, u64::MAX));
        let plain = ratios.estimate("h", "gpt-6-sol", &call_of(4_000, 0), None);
        assert_eq!((plain.expected, plain.reserved), (1_000, 1_200));
    }

    #[test]
    fn the_ratio_follows_what_answers_say_of_a_model_and_its_family_at_that_host() {
        let mut ratios = Ratios::default();
        let call = call_of(10_000, 0);
        for _ in 0..100 {
            ratios.learn("h", "gpt-6-sol", &call, 5_000);
        }
        let learned = reserved(&ratios, "h", "gpt-6-sol", &call);
        assert!((5_990..=6_000).contains(&learned), "{learned}");
        assert_eq!(
            reserved(&ratios, "h", "gpt-6-luna", &call),
            learned,
            "of its family"
        );
        assert_eq!(reserved(&ratios, "h", "claude-opus-4-6", &call), 3_334);
        assert_eq!(reserved(&ratios, "i", "gpt-6-sol", &call), 3_000);
        let text = serde_json::to_string(&ratios).unwrap();
        let again: Ratios = serde_json::from_str(&text).unwrap();
        assert_eq!(
            reserved(&again, "h", "gpt-6-sol", &call),
            learned,
            "over a restart"
        );
    }

    #[test]
    fn in_a_conversation_only_what_is_new_is_estimated() {
        let ratios = Ratios::default();
        let last = Turn {
            prompt: 50_000,
            output: 700,
            text_bytes: 100_000,
            media: 1,
        };
        let of = |call: &Call| {
            let estimate = ratios.estimate("h", "gpt-6-sol", call, Some(last));
            (estimate.expected, estimate.reserved)
        };
        assert_eq!(of(&call_of(104_000, 1)), (51_000, 51_200));
        assert_eq!(of(&call_of(100_000, 2)), (51_600, 51_600));
        assert_eq!(of(&call_of(4_000, 1)), (2_600, 2_800), "compacted");
        let mut delta = call_of(4_000, 0);
        delta.previous_response = true;
        assert_eq!(of(&delta), (51_700, 51_900));
    }

    #[test]
    fn calls_that_do_not_tell_the_ratio_teach_nothing() {
        let mut ratios = Ratios::default();
        let mut delta = call_of(10_000, 0);
        delta.previous_response = true;
        for call in [delta, call_of(10_000, 1), call_of(100, 0), call_of(0, 0)] {
            ratios.learn("h", "gpt-6-sol", &call, 1_000_000);
        }
        assert_eq!(
            reserved(&ratios, "h", "gpt-6-sol", &call_of(4_000, 0)),
            1_200
        );
    }

    #[test]
    fn a_ratio_that_was_stored_damaged_is_kept_within_reason() {
        let ratios: Ratios = serde_json::from_str(&format!(r#"{{"h m":{}}}"#, u64::MAX)).unwrap();
        assert_eq!(reserved(&ratios, "h", "m", &call_of(1_000, 0)), 2_400);
    }
}
