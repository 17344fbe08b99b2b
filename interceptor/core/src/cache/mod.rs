//! What the prompt cache did for a call, and what it could have done.
//!
//! Two counterfactuals frame the cost of a call. **Without cache**, every token of the prompt
//! costs the input rate. With a **perfect cache**, whatever the previous call of the same
//! conversation had in its prompt is read, as far as the provider's rules allow (minimum length,
//! block size), and only the rest is paid for, at the write rate where the provider charges for
//! writes, so that the next call can read it. A call that beat that (another conversation had the
//! prefix in the cache, or a last turn that nothing was written for) counts with what it cost.

mod explain;
mod replay;
mod sketch;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::money::Money;
use crate::pricing::{Cost, Rates};
use crate::usage::Usage;

pub use explain::{CALLS_MAX, Explanation, FAMILIES_MAX, Made, Reason, Seen, share};
pub use replay::{ENTRIES_MAX, Replayed};
pub use sketch::{BLOCKS_MAX, PIECES_MAX, Parting, Sketch};

/// What the prompt cache did for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheOutcome {
    /// All that the previous call of the conversation had cached was read; where that call is
    /// not known, at least half of the prompt was.
    Hit,
    /// Something was read, but less.
    Partial,
    /// Nothing was read; the prompt was written, for the next call.
    Write,
    /// Nothing was read nor, as far as the provider tells, written.
    Miss,
    /// Too short a prompt for the provider to cache.
    BelowMinimum,
    /// The call asked for no caching, of a provider that wants to be asked.
    NotAsked,
    /// The answer told no usage.
    NotReported,
}

impl CacheOutcome {
    /// The name in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Partial => "partial",
            Self::Write => "write",
            Self::Miss => "miss",
            Self::BelowMinimum => "below_minimum",
            Self::NotAsked => "not_asked",
            Self::NotReported => "not_reported",
        }
    }
}

/// What a provider caches of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRules {
    /// Whether the call is cached at all: it has a marker, or the provider needs none.
    pub asked: bool,
    /// The shortest prompt that is cached, in tokens.
    pub minimum_tokens: u64,
    /// Reads come in multiples of so many tokens.
    pub block_tokens: u64,
    /// Whether only markers are written and read.
    pub by_markers: bool,
}

impl CacheRules {
    /// Of Anthropic and others that cache up to markers in the request.
    #[must_use]
    pub const fn by_markers(has_markers: bool, minimum_tokens: u64) -> Self {
        Self {
            asked: has_markers,
            minimum_tokens,
            block_tokens: 1,
            by_markers: true,
        }
    }

    /// Of `OpenAI` and others that cache without being asked. Models that charge for writes read
    /// up to where something was written, the others in blocks of 128 tokens.
    #[must_use]
    pub const fn automatic(charges_for_writes: bool, minimum_tokens: u64) -> Self {
        let block_tokens = if charges_for_writes {
            1
        } else {
            AUTOMATIC_BLOCK_TOKENS
        };
        Self {
            asked: true,
            minimum_tokens,
            block_tokens,
            by_markers: false,
        }
    }

    /// How many tokens a call could have read, of a prompt that starts with that of the previous
    /// call of its conversation.
    fn readable(self, prompt: u64, previous_prompt: u64) -> u64 {
        let shared = prompt.min(previous_prompt);
        if shared < self.minimum_tokens {
            return 0;
        }
        shared.saturating_sub(shared.checked_rem(self.block_tokens).unwrap_or(0))
    }
}

/// What the cache did for a call whose usage is known.
///
/// `previous_prompt_tokens` is the whole prompt of the previous call of the same conversation.
#[must_use]
pub fn judge(
    usage: &Usage,
    rules: CacheRules,
    previous_prompt_tokens: Option<u64>,
) -> CacheOutcome {
    let prompt = usage.prompt();
    if usage.cache_read > 0 {
        let expected = match previous_prompt_tokens {
            Some(previous) => rules
                .readable(prompt, previous)
                .saturating_sub(TAIL_TOLERANCE_TOKENS),
            None => prompt.div_ceil(2),
        };
        return if usage.cache_read >= expected {
            CacheOutcome::Hit
        } else {
            CacheOutcome::Partial
        };
    }
    if usage.cache_write > 0 || usage.cache_write_long > 0 {
        CacheOutcome::Write
    } else if !rules.asked {
        CacheOutcome::NotAsked
    } else if prompt < rules.minimum_tokens {
        CacheOutcome::BelowMinimum
    } else {
        CacheOutcome::Miss
    }
}

/// What the call would have cost with a perfect cache (see the top of this file).
///
/// Never more than `cost.total`, which must be the cost of `usage` at `rates`.
#[must_use]
pub fn perfect(
    usage: &Usage,
    rates: &Rates,
    cost: &Cost,
    rules: CacheRules,
    previous_prompt_tokens: Option<u64>,
) -> Money {
    let prompt = usage.prompt();
    let could_read = rules.readable(prompt, previous_prompt_tokens.unwrap_or(0));
    let read = usage.cache_read.max(could_read).min(prompt);
    let rest = prompt.saturating_sub(read);
    let is_long = usage.cache_write_long > 0;
    let is_written = rates.charges_for_writes() && prompt >= rules.minimum_tokens;
    let (input, cache_write, cache_write_long) = match (is_written, is_long) {
        (false, _) => (rest, 0, 0),
        (true, false) => (0, rest, 0),
        (true, true) => (0, 0, rest),
    };
    let ideal = Usage {
        input,
        cache_read: read,
        cache_write,
        cache_write_long,
        ..*usage
    };
    rates
        .cost(&ideal)
        .map_or(cost.total, |ideal| ideal.total.min(cost.total))
}

/// The block size of caches that work without markers, before `OpenAI` charged for writes.
const AUTOMATIC_BLOCK_TOKENS: u64 = 128;

/// The last block before the end of a prompt may lie behind its last marker, and a role's frame
/// is rendered differently once an answer follows: a read that lacks so few tokens is a hit.
const TAIL_TOLERANCE_TOKENS: u64 = 256;
