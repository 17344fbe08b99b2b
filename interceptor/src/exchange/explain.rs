//! Sketches what is sent while the provider thinks, and explains from it what the cache did.
//!
//! Only hashes and lengths are kept, in memory, and of a bounded number of calls.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use weir_core::cache::{CacheRules, Explanation, Made, Seen, Sketch};
use weir_core::prompt::{self, HashKey};
use weir_core::usage::Usage;
use weir_core::volatile::Rules;

use super::entry::Entry;
use crate::ledger::Record;
use crate::process::config::CacheMode;
use crate::sidecar::unix_ms;

/// The latest calls in hashes, and the key of the hashes, which no other process has.
pub(crate) struct CacheMemory {
    key: HashKey,
    names: RandomState,
    seen: Mutex<Seen>,
}

impl Default for CacheMemory {
    fn default() -> Self {
        let names = RandomState::new();
        let halves = [names.hash_one(1), names.hash_one(2)].map(u64::to_le_bytes);
        let mut secret = [0; 16];
        secret
            .iter_mut()
            .zip(halves.concat())
            .for_each(|(to, from)| *to = from);
        Self {
            key: HashKey::new(secret),
            names,
            seen: Mutex::default(),
        }
    }
}

/// A call that was sent, in hashes.
pub(super) struct Sketched {
    sketch: Sketch,
    /// Whose latest calls it is compared with: of the same program, user and API.
    family: u64,
    sent_ms: i64,
    /// What rules know to change.
    spans: Vec<Known>,
}

/// A value that a rule knows to change.
struct Known {
    segment: usize,
    /// From the start of the segment.
    bytes: Range<usize>,
    rule: String,
}

/// What the cache did, and the rule that knows what changed.
#[derive(Default)]
pub(super) struct Explained {
    explanation: Explanation,
    rule: Option<String>,
}

impl Entry {
    /// Keeps the body that is sent until it is sketched.
    pub(super) fn keep_for_sketch(&mut self, body: &Bytes) {
        let is_wanted = self.rules.config.cache.mode != CacheMode::Off;
        let is_whole = self
            .call
            .as_ref()
            .is_some_and(|call| !call.previous_response);
        let is_plain = !self
            .record
            .reasons
            .iter()
            .any(|reason| reason == "request_encoded");
        if is_wanted && is_whole && is_plain {
            self.to_sketch = Some(body.clone());
        }
    }

    /// Sketches the body that was sent, and lets go of it.
    pub(super) fn sketch(&mut self) {
        let Some(body) = self.to_sketch.take() else {
            return;
        };
        // What the scanner of calls has read, this one can; if not, there is nothing to explain.
        let Ok(prompt) = prompt::read(&body) else {
            return;
        };
        let memory = &self.context.cache;
        let identity = &self.record.identity;
        let mut sketch = Sketch::new(&body, &prompt, &memory.key);
        sketch.account = memory.name(&identity.key_hash);
        sketch.route = memory.name(&self.record.host);
        sketch.model = memory.name(&self.record.model_requested);
        let spans = BUILTIN.as_ref().map(|rules| {
            let found = rules.find(&body, &prompt, None).into_iter();
            let relative = found.filter_map(|span| {
                let start = prompt.segments.get(span.segment)?.range.start;
                let start_of = |at: usize| at.checked_sub(start);
                Some(Known {
                    segment: span.segment,
                    bytes: start_of(span.range.start)?..start_of(span.range.end)?,
                    rule: rules.rule(span.rule)?.name.clone(),
                })
            });
            relative.collect()
        });
        let since_sent = self.sent.map_or(0, |sent| sent.elapsed().as_millis());
        let since_sent = i64::try_from(since_sent).unwrap_or(0);
        self.sketched = Some(Sketched {
            sketch,
            family: memory.name(&(&identity.program, identity.uid, &self.record.api)),
            sent_ms: unix_ms().saturating_sub(since_sent),
            spans: spans.unwrap_or_default(),
        });
    }

    /// Why the call did not read more from the cache.
    pub(super) fn explain(
        &self,
        sketched: Option<Sketched>,
        usage: &Usage,
        rules: CacheRules,
    ) -> Explained {
        let Some(sketched) = sketched else {
            return Explained::default();
        };
        let first_byte_us = self.record.timings.upstream_first_byte_us.unwrap_or(0);
        let first_byte_ms = i64::try_from(first_byte_us / 1000).unwrap_or(0);
        let made = Made {
            sketch: sketched.sketch,
            usage: *usage,
            sent_ms: sketched.sent_ms,
            answered_ms: sketched.sent_ms.saturating_add(first_byte_ms),
        };
        let seen = &self.context.cache.seen;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let explanation = seen.explain(sketched.family, made, rules);
        drop(seen);
        let rule = explanation.parting.as_ref().and_then(|parting| {
            let covers = |known: &&Known| {
                known.segment == parting.segment
                    && known.bytes.end > parting.bytes.start
                    && known.bytes.start < parting.bytes.end
            };
            let covering = sketched.spans.iter().find(covers);
            covering.map(|known| known.rule.clone())
        });
        Explained { explanation, rule }
    }
}

impl Explained {
    /// Tokens that the call could have read, as far as the call before it is known.
    pub(super) const fn expected_tokens(&self) -> Option<u64> {
        self.explanation.expected_tokens
    }

    /// Writes it into the record, but for what it cost.
    pub(super) fn note(self, record: &mut Record) {
        let reason = self.explanation.reason;
        record.cache_reason = reason.map(|reason| reason.as_str().to_owned());
        record.cache_where = self.explanation.place;
        record.cache_rule = self.rule;
    }
}

impl CacheMemory {
    fn name(&self, of: &impl Hash) -> u64 {
        self.names.hash_one(of)
    }
}

static BUILTIN: LazyLock<Option<Rules>> = LazyLock::new(|| Rules::builtin().ok());
