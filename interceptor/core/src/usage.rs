//! What a call used, in disjoint buckets, whatever the provider includes in what.

use serde::{Deserialize, Serialize};

/// Tokens of one call, normalised: no token is counted in two of the buckets `input`, `cache_read`,
/// `cache_write`, `cache_write_long` and `output`. What is called a share below is a part of one
/// of them, told apart because it may have a price of its own.
///
/// The rules of what each provider's fields include are applied where answers are read (`answer`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Input tokens neither read from nor written to a cache.
    pub input: u64,
    /// Input tokens read from the prompt cache.
    pub cache_read: u64,
    /// Input tokens written with the provider's default lifetime (Anthropic 5 m, OpenAI 30 m).
    pub cache_write: u64,
    /// Input tokens written with the long lifetime (Anthropic 1 h, OpenAI 12 h).
    pub cache_write_long: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// The share of `output` spent on reasoning, where the provider tells.
    pub reasoning: u64,
    /// Server-side web searches, billed by the piece.
    pub web_searches: u64,
    /// Searches in files that the provider stores, billed by the piece.
    #[serde(skip_serializing_if = "is_zero")]
    pub file_searches: u64,
    /// Text of sources that was cited, in tokens, which is billed apart and in no bucket
    /// (Perplexity).
    #[serde(skip_serializing_if = "is_zero")]
    pub citation: u64,
    /// The share of `input` that is audio.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_audio: u64,
    /// The share of `input` that is images.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_image: u64,
    /// The share of `input` that is video.
    #[serde(skip_serializing_if = "is_zero")]
    pub input_video: u64,
    /// The share of `cache_read` that is audio.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_audio: u64,
    /// The share of `cache_read` that is images.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_image: u64,
    /// The share of `output` that is audio.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_audio: u64,
    /// The share of `output` that is images.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_image: u64,
}

impl Usage {
    /// All tokens of the prompt: uncached, read and written.
    #[must_use]
    pub fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
            .saturating_add(self.cache_write_long)
    }

    /// All tokens, of prompt and answer, as limits on them count.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.prompt().saturating_add(self.output)
    }

    /// Whether there is anything beside the buckets, reasoning and web searches.
    #[must_use]
    pub fn has_details(&self) -> bool {
        let buckets = Self {
            input: self.input,
            cache_read: self.cache_read,
            cache_write: self.cache_write,
            cache_write_long: self.cache_write_long,
            output: self.output,
            reasoning: self.reasoning,
            web_searches: self.web_searches,
            ..Self::default()
        };
        *self != buckets
    }

    /// Two calls, or two passes of one, as if they were one.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |pick: fn(&Self) -> u64| pick(self).saturating_add(pick(other));
        Self {
            input: sum(|usage| usage.input),
            cache_read: sum(|usage| usage.cache_read),
            cache_write: sum(|usage| usage.cache_write),
            cache_write_long: sum(|usage| usage.cache_write_long),
            output: sum(|usage| usage.output),
            reasoning: sum(|usage| usage.reasoning),
            web_searches: sum(|usage| usage.web_searches),
            file_searches: sum(|usage| usage.file_searches),
            citation: sum(|usage| usage.citation),
            input_audio: sum(|usage| usage.input_audio),
            input_image: sum(|usage| usage.input_image),
            input_video: sum(|usage| usage.input_video),
            cache_audio: sum(|usage| usage.cache_audio),
            cache_image: sum(|usage| usage.cache_image),
            output_audio: sum(|usage| usage.output_audio),
            output_image: sum(|usage| usage.output_image),
        }
    }
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}
