//! Anthropic's prompt cache: what a prompt reads of it, what it writes to it, and until when that lives.

use std::collections::HashMap;
use std::time::Duration;

use super::prompt::{Prompt, Run, Ttl};
use crate::bill::Usage;
use crate::hash::Prefix;

/// The cache entries of all accounts: the account is part of each fingerprint.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Prefix, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    ttl: Ttl,
    /// Since the Unix epoch.
    expires: Duration,
}

/// What a prompt does to the cache. Nothing of it can be read by others before it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The input side of the usage.
    pub(crate) usage: Usage,
    writes: Vec<(Prefix, Ttl)>,
    used: Vec<Prefix>,
}

impl Cache {
    /// What `prompt` would read and write at the time `now`, if prefixes of less than `cacheable_min` tokens are not
    /// cached.
    pub(crate) fn plan(&self, prompt: &Prompt, cacheable_min: u64, now: Duration) -> Plan {
        let hit = prompt
            .breakpoints
            .iter()
            .filter_map(|(position, _)| self.look_back(prompt, *position, now))
            .max();
        let prefix_tokens = |position: usize| prompt.blocks.get(position).map_or(0, |b| b.tokens);
        let read = hit.map_or(0, prefix_tokens);
        let mut plan = Plan::default();
        plan.usage.cache_read = read;
        let mut done = read;
        for (position, ttl) in &prompt.breakpoints {
            let Some(block) = prompt.blocks.get(*position) else {
                continue;
            };
            if hit.is_some_and(|hit| *position <= hit) {
                plan.used.push(block.prefix);
            } else if block.tokens >= cacheable_min {
                let bucket = match ttl {
                    Ttl::Short => &mut plan.usage.cache_write_short,
                    Ttl::Long => &mut plan.usage.cache_write_long,
                };
                *bucket += block.tokens - done;
                done = block.tokens;
                plan.writes.push((block.prefix, *ttl));
            }
        }
        plan.used.extend(
            hit.and_then(|hit| prompt.blocks.get(hit))
                .map(|block| block.prefix),
        );
        plan.usage.input_uncached = prompt.tokens() - done;
        plan
    }

    /// Does what `plan` says. This happens when the answer starts, but lifetimes are counted from `started`, when the
    /// request arrived.
    pub(crate) fn commit(&mut self, plan: &Plan, started: Duration) {
        for prefix in &plan.used {
            if let Some(entry) = self.entries.get_mut(prefix) {
                entry.expires = entry.expires.max(started + lifetime(entry.ttl));
            }
        }
        for (prefix, ttl) in &plan.writes {
            self.entries.insert(
                *prefix,
                Entry {
                    ttl: *ttl,
                    expires: started + lifetime(*ttl),
                },
            );
        }
        if self.entries.len() > ENTRIES_MAX {
            self.entries.retain(|_, entry| entry.expires > started);
        }
    }

    /// The position of the longest cached prefix within reach of the breakpoint at `position`.
    fn look_back(&self, prompt: &Prompt, position: usize, now: Duration) -> Option<usize> {
        let mut positions = 0;
        let mut last_run = Run::Alone;
        for (index, block) in prompt.blocks.iter().enumerate().take(position + 1).rev() {
            if block.run == Run::Alone || block.run != last_run {
                positions += 1;
            }
            last_run = block.run;
            if positions > LOOK_BACK {
                return None;
            }
            if self
                .entries
                .get(&block.prefix)
                .is_some_and(|entry| entry.expires > now)
            {
                return Some(index);
            }
        }
        None
    }
}

const fn lifetime(ttl: Ttl) -> Duration {
    match ttl {
        Ttl::Short => Duration::from_mins(5),
        Ttl::Long => Duration::from_hours(1),
    }
}

/// Positions that a breakpoint searches, its own included.
pub(crate) const LOOK_BACK: usize = 20;

/// Entries beyond which expired ones are removed.
const ENTRIES_MAX: usize = 100_000;
