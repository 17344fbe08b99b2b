//! What a call used, in disjoint buckets, whatever the provider includes in what.

use serde::{Deserialize, Serialize};

/// Tokens of one call, normalised: no token is counted in two buckets, except that
/// `reasoning` is the part of `output` that the reader did not see.
///
/// The rules of what each provider's fields include are applied where answers are read (`answer`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}
