//! Sketches what is sent while the provider thinks, and explains from it what the cache did.
//!
//! Only hashes and lengths are kept, in memory, and of a bounded number of calls.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use weir_core::answer::Answer;
use weir_core::cache::{self, CacheRules, Explanation, Made, Reason, Replayed, Seen, Sketch};
use weir_core::edit;
use weir_core::money::Money;
use weir_core::prompt::{self, HashKey, Prompt};
use weir_core::usage::Usage;
use weir_core::volatile::{Rules, Span};

use super::entry::Entry;
use crate::ledger::Record;
use crate::process::config::CacheMode;

/// The latest calls in hashes, and the key of the hashes, which no other process has.
pub(crate) struct CacheMemory {
    key: HashKey,
    names: RandomState,
    seen: Mutex<Seen>,
    /// What the cache would hold had prompts been rewritten that were not, or the other way round.
    replayed: Mutex<Replayed>,
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
            replayed: Mutex::default(),
        }
    }
}

/// A body that was sent, and how it came.
pub(super) struct Bodies {
    came: Bytes,
    sent: Bytes,
}

/// A call that was sent, in hashes.
pub(super) struct Sketched {
    sketch: Sketch,
    /// What was not sent: the prompt as it came, where it was rewritten; else as it would have been.
    other: Option<Sketch>,
    sent: Sent,
    /// Whose latest calls it is compared with: of the same program, user and API.
    family: u64,
    sent_ms: i64,
    /// What rules know to change.
    spans: Vec<Known>,
}

/// What was sent, of the prompt as it came and as it would be rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sent {
    /// The prompt as it came.
    #[default]
    AsItCame,
    /// The rewritten one.
    Rewritten,
    /// Both are the same.
    Either,
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
    /// What the prompt that was not sent would have used.
    other: Option<Usage>,
    sent: Sent,
}

impl Entry {
    /// Keeps the body as it came and as it is sent, until they are sketched.
    pub(super) fn keep_for_sketch(&mut self, came: Bytes, sent: &Bytes) {
        let is_wanted = self.rules.config.cache.mode != CacheMode::Off;
        let call = self.call.as_ref();
        let is_whole = call.is_some_and(|call| !call.previous_response);
        let mut reasons = self.record.reasons.iter();
        let is_plain = !reasons.any(|reason| reason == "request_encoded");
        if is_wanted && is_whole && is_plain {
            let sent = sent.clone();
            self.to_sketch = Some(Bodies { came, sent });
        }
    }

    /// Plans what would have been done to the prompt, sketches what was sent and what was not, and
    /// lets go of the bodies.
    pub(super) fn sketch(&mut self) {
        if let Some(plain) = self.to_watch.take() {
            // Nothing of it is done, so that the plan is all that is of interest.
            let _none = self.rewrite(&plain);
        }
        let read = self.prompt.take();
        let Some(Bodies { came, sent }) = self.to_sketch.take() else {
            return;
        };
        let read = read.filter(|_| came == sent);
        let Some(prompt) = read.or_else(|| prompt::read(&sent).ok()) else {
            return;
        };
        let sketch = self.sketch_of(&sent, &prompt);
        let planned = self.plan.as_ref().map_or(&[][..], |plan| &plan.edits);
        let is_rewritten = self.edits.iter().any(|made| planned.contains(made));
        let has_values = self
            .plan
            .as_ref()
            .is_some_and(|plan| !plan.spans.is_empty());
        let (sent_as, other) = if planned.is_empty() {
            // What later calls are compared with has to know of this one.
            (Sent::Either, has_values.then(|| sketch.clone()))
        } else if is_rewritten {
            (Sent::Rewritten, self.outline_of(&came))
        } else {
            let would_be = edit::apply(&came, &mut planned.to_vec()).ok();
            let outline = would_be.and_then(|body| self.outline_of(&body));
            (Sent::AsItCame, outline)
        };
        let plan = self.plan.as_ref().filter(|_| !is_rewritten);
        let spans = match plan.and_then(|plan| Some((plan, plan.rules.as_deref()?))) {
            // Learned values are among these, which no pattern finds again.
            Some((plan, rules)) if came == sent => known(&plan.spans, rules, &prompt),
            Some((plan, rules)) => prompt::read(&came)
                .map(|prompt| known(&plan.spans, rules, &prompt))
                .unwrap_or_default(),
            None => {
                let rules = self.plan.as_ref().and_then(|plan| plan.rules.as_deref());
                let rules = rules.or_else(|| BUILTIN.as_ref());
                let found =
                    |rules: &Rules| known(&rules.find(&sent, &prompt, None), rules, &prompt);
                rules.map(found).unwrap_or_default()
            }
        };
        let was_sent = self.sent.unwrap_or(self.opened);
        let until_sent = was_sent.duration_since(self.opened).as_millis();
        let until_sent = i64::try_from(until_sent).unwrap_or(0);
        let identity = &self.record.identity;
        let family = (&identity.program, identity.uid, &self.record.api);
        self.sketched = Some(Sketched {
            sketch,
            other,
            sent: sent_as,
            family: self.context.cache.name(&family),
            sent_ms: self.record.started_unix_ms.saturating_add(until_sent),
            spans,
        });
    }

    fn sketch_of(&self, body: &[u8], prompt: &Prompt) -> Sketch {
        let mut sketch = Sketch::new(body, prompt, &self.context.cache.key);
        self.address(&mut sketch);
        sketch
    }

    /// None where the body can't be read: what the scanner of calls has read, this one can.
    /// Of what was not sent only the hits are of interest.
    fn outline_of(&self, body: &[u8]) -> Option<Sketch> {
        let prompt = prompt::read(body).ok()?;
        let mut sketch = Sketch::outline(body, &prompt, &self.context.cache.key);
        self.address(&mut sketch);
        Some(sketch)
    }

    fn address(&self, sketch: &mut Sketch) {
        let memory = &self.context.cache;
        sketch.account = memory.name(&self.record.identity.key_hash);
        sketch.route = memory.name(&self.record.host);
        sketch.model = memory.name(&self.record.model_requested);
    }

    /// Why the call did not read more from the cache.
    pub(super) fn explain(
        &self,
        sketched: Option<Sketched>,
        answer: &Answer,
        usage: &Usage,
        rules: CacheRules,
    ) -> Explained {
        let Some(sketched) = sketched else {
            return Explained::default();
        };
        // Rewriting may have asked where the client did not.
        let rules = CacheRules {
            asked: rules.asked || sketched.sketch.has_breakpoints(),
            ..rules
        };
        let prompt_of = |other: &Sketch| {
            let (sent, _) = sketched.sketch.bytes();
            let (other, _) = other.bytes();
            cache::share(usage.prompt(), other, sent)
        };
        let others_prompt = sketched.other.as_ref().map_or(0, prompt_of);
        let first_byte_us = self.record.timings.upstream_first_byte_us.unwrap_or(0);
        let first_byte_ms = i64::try_from(first_byte_us / 1000).unwrap_or(0);
        let made = Made {
            sketch: sketched.sketch,
            usage: *usage,
            sent_ms: sketched.sent_ms,
            answered_ms: sketched.sent_ms.saturating_add(first_byte_ms),
        };
        let replayed = &self.context.cache.replayed;
        let mut replayed = replayed.lock().unwrap_or_else(PoisonError::into_inner);
        let other = sketched
            .other
            .as_ref()
            .map(|other| replayed.send(other, others_prompt, usage, rules, sketched.sent_ms));
        drop(replayed);
        let seen = &self.context.cache.seen;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut explanation = seen.explain(sketched.family, made, rules);
        drop(seen);
        let diagnosis = answer.cache_diagnosis.as_deref();
        if let Some(reason) = diagnosis.and_then(Reason::of_provider) {
            explanation.believe(reason);
        }
        let rule = explanation.parting.as_ref().and_then(|parting| {
            let covers = |known: &&Known| {
                known.segment == parting.segment
                    && known.bytes.end > parting.bytes.start
                    && known.bytes.start < parting.bytes.end
            };
            let covering = sketched.spans.iter().find(covers);
            covering.map(|known| known.rule.clone())
        });
        Explained {
            explanation,
            rule,
            other,
            sent: sketched.sent,
        }
    }
}

impl Explained {
    /// Tokens that the call could have read, as far as the call before it is known.
    pub(super) const fn expected_tokens(&self) -> Option<u64> {
        self.explanation.expected_tokens
    }

    /// What rewriting saves: did, of a call that cost `total`, or would have. `price` tells what
    /// some usage costs. A call that is the same either way counts where it `may_be_hurt` by edits
    /// before it, with what they cost it.
    pub(super) fn saving(
        &self,
        total: Money,
        may_be_hurt: bool,
        price: impl Fn(&Usage) -> Option<Money>,
    ) -> Option<Money> {
        let other = price(self.other.as_ref()?)?;
        match self.sent {
            Sent::Rewritten => Some(other - total),
            Sent::AsItCame => Some(total - other),
            Sent::Either => may_be_hurt.then(|| (other - total).min(Money::ZERO)),
        }
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

/// What rules know to change in a prompt, by the places of its segments.
fn known(spans: &[Span], rules: &Rules, prompt: &Prompt) -> Vec<Known> {
    let relative = spans.iter().filter_map(|span| {
        let start = prompt.segments.get(span.segment)?.range.start;
        let start_of = |at: usize| at.checked_sub(start);
        Some(Known {
            segment: span.segment,
            bytes: start_of(span.range.start)?..start_of(span.range.end)?,
            rule: rules.rule(span.rule)?.name.clone(),
        })
    });
    relative.collect()
}

static BUILTIN: LazyLock<Option<Rules>> = LazyLock::new(|| Rules::builtin().ok());
