//! OpenAI's two prompt caches: by blocks of 128 tokens (to gpt-5.5), and at breakpoints that are paid for (from gpt-5.6).

use std::collections::HashMap;
use std::time::Duration;

use super::prompt::{Breakpoint, Prompt};
use crate::bill::Usage;
use crate::hash::Prefix;
use crate::models::Model;
use crate::tokens;

/// The cache entries of all accounts: account, model and cache key are part of each fingerprint.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Prefix, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    lifetime: Duration,
    /// Since the Unix epoch.
    expires: Duration,
}

/// How a request wants its breakpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// `prompt_cache_options.mode`: whether there are explicit breakpoints only.
    pub(crate) explicit_only: bool,
    /// `prompt_cache_options.ttl`: 12 hours instead of 30 minutes.
    pub(crate) long: bool,
}

/// What a prompt does to the cache. Nothing of it can be read by others before it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The input side of the usage.
    pub(crate) usage: Usage,
    writes: Vec<Prefix>,
    used: Vec<Prefix>,
    lifetime: Duration,
}

/// A prefix that may be in the cache.
#[derive(Clone, Copy)]
struct Candidate {
    prefix: Prefix,
    tokens: u64,
    breakpoint: Breakpoint,
}

impl Cache {
    /// What `prompt` would read and write at the time `now`.
    pub(crate) fn plan(&self, prompt: &Prompt, model: &Model, wish: Wish, now: Duration) -> Plan {
        if model.breakpoints {
            self.plan_breakpoints(prompt, model, wish, now)
        } else {
            self.plan_blocks(prompt, model, now)
        }
    }

    /// Does what `plan` says, for a request that arrived at `started`.
    pub(crate) fn commit(&mut self, plan: &Plan, started: Duration) {
        for prefix in &plan.used {
            if let Some(entry) = self.entries.get_mut(prefix) {
                entry.expires = entry.expires.max(started + entry.lifetime);
            }
        }
        let entry = Entry {
            lifetime: plan.lifetime,
            expires: started + plan.lifetime,
        };
        self.entries
            .extend(plan.writes.iter().map(|prefix| (*prefix, entry)));
        if self.entries.len() > ENTRIES_MAX {
            self.entries.retain(|_, entry| entry.expires > started);
        }
    }

    fn plan_breakpoints(&self, prompt: &Prompt, model: &Model, wish: Wish, now: Duration) -> Plan {
        let candidates = ends(prompt, wish);
        let hit = candidates
            .iter()
            .rev()
            .take(MATCHED_MAX)
            .find(|c| self.is_alive(c.prefix, now));
        let read = hit.map_or(0, |candidate| candidate.tokens);
        let mut writes = written(&candidates, wish);
        writes
            .retain(|candidate| candidate.tokens > read && candidate.tokens >= model.cacheable_min);
        let write = writes
            .iter()
            .map(|candidate| candidate.tokens)
            .max()
            .unwrap_or(read)
            - read;
        let total = prompt.tokens();
        let usage = Usage {
            input_uncached: total - read - write,
            cache_read: read,
            cache_write_short: if wish.long { 0 } else { write },
            cache_write_long: if wish.long { write } else { 0 },
            ..Usage::default()
        };
        Plan {
            usage,
            writes: writes.iter().map(|candidate| candidate.prefix).collect(),
            used: hit.iter().map(|candidate| candidate.prefix).collect(),
            lifetime: if wish.long {
                LIFETIME_LONG
            } else {
                LIFETIME_SHORT
            },
        }
    }

    fn plan_blocks(&self, prompt: &Prompt, model: &Model, now: Duration) -> Plan {
        let blocks = blocks(prompt);
        let first = usize::try_from(model.cacheable_min / BLOCK).unwrap_or(1) - 1;
        let cacheable = blocks.get(first..).unwrap_or_default();
        let hits = cacheable
            .iter()
            .take_while(|prefix| self.is_alive(**prefix, now))
            .count();
        let (used, writes) = cacheable.split_at_checked(hits).unwrap_or_default();
        let read = if hits == 0 {
            0
        } else {
            (first + hits) as u64 * BLOCK
        };
        let usage = Usage {
            input_uncached: prompt.tokens() - read,
            cache_read: read,
            ..Usage::default()
        };
        Plan {
            usage,
            writes: writes.to_vec(),
            used: used.to_vec(),
            lifetime: LIFETIME_BLOCKS,
        }
    }

    fn is_alive(&self, prefix: Prefix, now: Duration) -> bool {
        self.entries
            .get(&prefix)
            .is_some_and(|entry| entry.expires > now)
    }
}

/// The prefixes that end where `wish` has breakpoints, or had them in earlier requests of the conversation.
fn ends(prompt: &Prompt, wish: Wish) -> Vec<Candidate> {
    let mut prefix = prompt.start;
    let mut tokens = 0;
    let mut ends = Vec::new();
    for segment in &prompt.segments {
        prefix = prefix.then(&[&segment.label, &segment.text]);
        tokens += segment.tokens;
        let breakpoint = segment.breakpoint;
        let counts = match breakpoint {
            Breakpoint::None => false,
            Breakpoint::MessageEnd | Breakpoint::Eligible => !wish.explicit_only,
            Breakpoint::Explicit => true,
        };
        if counts {
            ends.push(Candidate {
                prefix,
                tokens,
                breakpoint,
            });
        }
    }
    ends
}

/// The breakpoints that are written: the latest explicit ones, and the implicit one.
fn written(candidates: &[Candidate], wish: Wish) -> Vec<Candidate> {
    let explicit = candidates
        .iter()
        .rev()
        .filter(|c| c.breakpoint == Breakpoint::Explicit);
    let implicit = candidates
        .iter()
        .rev()
        .find(|c| matches!(c.breakpoint, Breakpoint::Eligible | Breakpoint::Explicit));
    let explicit_max = if wish.explicit_only {
        WRITTEN_MAX
    } else {
        WRITTEN_MAX - 1
    };
    let implicit = implicit.filter(|_| !wish.explicit_only);
    explicit
        .take(explicit_max)
        .chain(implicit)
        .copied()
        .collect()
}

/// The fingerprints of the prefixes of 128, 256, 384… tokens. A token is hashed with the label of its segment.
fn blocks(prompt: &Prompt) -> Vec<Prefix> {
    let mut prefix = prompt.start;
    let mut blocks = Vec::new();
    let mut filled = 0;
    for segment in &prompt.segments {
        prefix = prefix.then(&[&segment.label]);
        let mut bytes = segment.text.as_bytes();
        let mut left = segment.tokens;
        while left > 0 {
            let tokens = left.min(BLOCK - filled);
            let wanted = usize::try_from(tokens).unwrap_or(0) * tokens::BYTES_PER_TOKEN;
            let (now, later) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            prefix = prefix.then_bytes(now);
            bytes = later;
            left -= tokens;
            filled += tokens;
            if filled == BLOCK {
                blocks.push(prefix);
                filled = 0;
            }
        }
    }
    blocks
}

/// Tokens of a block.
pub(crate) const BLOCK: u64 = 128;

/// Breakpoints that one request writes.
const WRITTEN_MAX: usize = 4;

/// Breakpoints, the latest, at which a prompt is looked for.
const MATCHED_MAX: usize = 80;

const LIFETIME_SHORT: Duration = Duration::from_mins(30);

const LIFETIME_LONG: Duration = Duration::from_hours(12);

/// `prompt_cache_retention: 24h`, the only value there is for gpt-5.5.
const LIFETIME_BLOCKS: Duration = Duration::from_hours(24);

/// Entries beyond which expired ones are removed.
const ENTRIES_MAX: usize = 1_000_000;
