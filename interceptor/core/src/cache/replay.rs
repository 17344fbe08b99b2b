//! Replays the rules of a provider on hashes: what a prompt that was not sent would have read.

use std::collections::HashMap;

use super::CacheRules;
use super::explain::{BREAKPOINTS_MS, HOUR_MS, LOOK_BACK_POSITIONS, MARKED_MS, positions, share};
use super::sketch::Sketch;
use crate::prompt::Lifetime;
use crate::usage::Usage;

/// A cache that no provider has: of the prompts that would have been sent. Bounded: [`ENTRIES_MAX`].
#[derive(Debug, Default)]
pub struct Replayed {
    entries: HashMap<u64, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    lifetime_ms: i64,
    /// Since the Unix epoch.
    expires_ms: i64,
}

impl Replayed {
    /// What `sketch` would have used at `now_ms`, where its prompt has about `prompt_tokens`; and
    /// does to this cache what it would have done. `used` is what the call used that was made
    /// instead; output and the like are the same.
    pub fn send(
        &mut self,
        sketch: &Sketch,
        prompt_tokens: u64,
        used: &Usage,
        rules: CacheRules,
        now_ms: i64,
    ) -> Usage {
        let prefixes: Vec<u64> = sketch.prefixes().collect();
        let tokens = tokens_up_to(sketch, prompt_tokens);
        let hit = self.longest(sketch, &prefixes, rules, now_ms);
        let tokens_of = |index: Option<usize>| {
            let at = index.and_then(|index| tokens.get(index).copied());
            at.filter(|tokens| *tokens >= rules.minimum_tokens)
                .unwrap_or(0)
        };
        let read = rules.readable(prompt_tokens, tokens_of(hit));
        let mut written = read;
        let mut long = 0_u64;
        let mut short = 0_u64;
        for (index, lifetime) in breakpoints(sketch, rules) {
            let (Some(prefix), end) = (prefixes.get(index), tokens_of(Some(index))) else {
                continue;
            };
            if end == 0 {
                continue;
            }
            let lifetime_ms = lifetime_ms(lifetime, rules);
            let expires_ms = now_ms.saturating_add(lifetime_ms);
            self.entries.insert(
                *prefix,
                Entry {
                    lifetime_ms,
                    expires_ms,
                },
            );
            let more = end.saturating_sub(written);
            written = written.max(end);
            match lifetime {
                Lifetime::Short => short = short.saturating_add(more),
                Lifetime::Long => long = long.saturating_add(more),
            }
        }
        self.refresh(hit.and_then(|hit| prefixes.get(hit)), now_ms);
        self.forget(now_ms);
        // Where writes are free, what was written is billed as any other input.
        let billed = rules.by_markers || rules.block_tokens == 1;
        let (short, long) = if billed { (short, long) } else { (0, 0) };
        let rest = prompt_tokens
            .saturating_sub(read)
            .saturating_sub(short)
            .saturating_sub(long);
        Usage {
            input: rest,
            cache_read: read,
            cache_write: short,
            cache_write_long: long,
            ..*used
        }
    }

    /// The last block of the longest prefix that is found.
    fn longest(
        &self,
        sketch: &Sketch,
        prefixes: &[u64],
        rules: CacheRules,
        now_ms: i64,
    ) -> Option<usize> {
        let is_alive = |index: &usize| {
            let entry = prefixes
                .get(*index)
                .and_then(|prefix| self.entries.get(prefix));
            entry.is_some_and(|entry| entry.expires_ms > now_ms)
        };
        let alive = (0..prefixes.len()).rev().filter(is_alive);
        if !rules.by_markers {
            return alive.max();
        }
        let marked: Vec<usize> = breakpoints(sketch, rules).map(|(index, _)| index).collect();
        let in_reach = |at: &usize| {
            let mut behind = marked.iter().filter(|marked| *marked >= at);
            behind.any(|marked| positions(sketch, *at, *marked) <= LOOK_BACK_POSITIONS)
        };
        alive.into_iter().find(in_reach)
    }

    fn refresh(&mut self, prefix: Option<&u64>, now_ms: i64) {
        if let Some(entry) = prefix.and_then(|prefix| self.entries.get_mut(prefix)) {
            entry.expires_ms = entry
                .expires_ms
                .max(now_ms.saturating_add(entry.lifetime_ms));
        }
    }

    fn forget(&mut self, now_ms: i64) {
        if self.entries.len() > ENTRIES_MAX {
            self.entries.retain(|_, entry| entry.expires_ms > now_ms);
        }
        if self.entries.len() > ENTRIES_MAX {
            // All are alive: reports say then that less would have been saved.
            self.entries.clear();
        }
    }
}

/// Where something is written: at the markers or, without, after every block.
fn breakpoints(sketch: &Sketch, rules: CacheRules) -> impl Iterator<Item = (usize, Lifetime)> {
    let blocks = sketch.blocks.iter().enumerate();
    blocks.filter_map(move |(index, block)| match block.breakpoint {
        None if rules.by_markers => None,
        marker => Some((index, marker.unwrap_or(Lifetime::Short))),
    })
}

fn lifetime_ms(lifetime: Lifetime, rules: CacheRules) -> i64 {
    match (rules.by_markers, lifetime) {
        (true, Lifetime::Short) => MARKED_MS,
        (false, _) if rules.block_tokens == 1 => BREAKPOINTS_MS,
        (true, Lifetime::Long) | (false, _) => HOUR_MS,
    }
}

/// About how many tokens the prompt has up to the end of each block, by its share of the bytes.
fn tokens_up_to(sketch: &Sketch, prompt_tokens: u64) -> Vec<u64> {
    let (all, _) = sketch.bytes();
    let mut bytes = 0_u64;
    let each = sketch.blocks.iter().map(|block| {
        bytes = bytes.saturating_add(u64::from(block.bytes));
        share(prompt_tokens, bytes, all)
    });
    each.collect()
}

/// Entries that are kept: 2 MiB.
pub const ENTRIES_MAX: usize = 65_536;
