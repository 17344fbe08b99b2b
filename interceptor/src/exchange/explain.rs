//! Finds out what the prompt cache did for a call, and what rewriting did or would do, behind its
//! answer.
//!
//! When a call is sent, what that takes is handed over to the analyst, who plans, learns and sketches
//! in the order in which calls were sent. When the call is over, its record is written with what its
//! usage tells, and the analyst adds what that and the prompt tell together: an entry in the journal,
//! which mostly is in the batch of the record. No answer waits for any of it.
//!
//! Only hashes and lengths are kept, in memory, and of a bounded number of calls.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use weir_core::cache::{Parting, Replayed, Seen, Sketch};
use weir_core::catalog::Provider;
use weir_core::edit;
use weir_core::prompt::{self, HashKey, Prompt};
use weir_core::rewrite::Measured;
use weir_core::volatile::{Rules, Span};

use super::analyst::{Full, Work};
use super::entry::Entry;
use super::judged::Judged;
use super::rewrite::{Asking, Considered, untouchable};
use crate::ledger::Journaled;
use crate::metrics::Bound;
use crate::process::config::CacheMode;
use crate::sidecar::{Context, Rules as InForce};

/// The latest calls in hashes, and the key of the hashes, which no other process has.
pub(crate) struct CacheMemory {
    key: HashKey,
    names: RandomState,
    pub(super) seen: Mutex<Seen>,
    /// What the cache would hold had prompts been rewritten that were not, or the other way round.
    pub(super) replayed: Mutex<Replayed>,
    /// When calls were sent that there was no room to look at: the latest of a family, until the next.
    gaps: Mutex<HashMap<u64, i64>>,
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
            gaps: Mutex::default(),
        }
    }
}

/// A body that was sent, and how it came.
pub(super) struct Bodies {
    came: Bytes,
    sent: Bytes,
}

/// A call that was sent, with all that is needed to look at it when its record may be gone.
struct Looked {
    context: Arc<Context>,
    /// Those that it was sent under.
    rules: Arc<InForce>,
    /// A prompt of which nothing was done: the plan is still to be made.
    watched: Option<(Asking, Bytes)>,
    /// The plan, where it was made before the call was sent.
    considered: Option<Considered>,
    /// Whether anything of it was done.
    is_rewritten: bool,
    bodies: Option<Bodies>,
    provider: Provider,
    account: u64,
    route: u64,
    model: u64,
    family: u64,
    sent_ms: i64,
}

/// What is being found out about the prompt of a call.
#[derive(Clone, Default)]
pub(super) struct Explaining(Arc<Mutex<Option<Box<Analysis>>>>);

/// What was found out.
pub(super) struct Analysis {
    pub(super) sketched: Sketched,
    /// The workload that the effect of rewriting is counted for.
    pub(super) measured: Option<Measured>,
    /// Whether the call may have been hurt by edits of others.
    pub(super) may_be_hurt: bool,
}

/// A call that was sent, in hashes.
pub(super) struct Sketched {
    pub(super) sketch: Sketch,
    /// What was not sent: the prompt as it came, where it was rewritten; else as it would have been.
    pub(super) other: Option<Sketch>,
    pub(super) sent: Sent,
    /// Whose latest calls it is compared with: of the same program, user and API.
    pub(super) family: u64,
    pub(super) sent_ms: i64,
    /// What rules know to change.
    pub(super) spans: Vec<Known>,
}

/// What was sent, of the prompt as it came and as it would be rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sent {
    /// The prompt as it came.
    #[default]
    AsItCame,
    /// The rewritten one.
    Rewritten,
    /// Both are the same.
    Either,
}

/// A value that a rule knows to change.
pub(super) struct Known {
    segment: usize,
    /// From the start of the segment.
    bytes: Range<usize>,
    pub(super) rule: String,
}

/// A record that is written before all is known of its call.
pub(super) struct Unexplained {
    judged: Judged,
    explaining: Explaining,
    provider: String,
}

impl Entry {
    /// Keeps the body as it came and as it is sent, both without an encoding, until they are handed over.
    pub(super) fn keep_for_sketch(&mut self, came: Bytes, sent: Bytes) {
        if self.is_explained() {
            self.to_sketch = Some(Bodies { came, sent });
        }
    }

    /// Whether its prompt is to be looked at, and is all there.
    pub(super) fn is_explained(&self) -> bool {
        let call = self.call.as_ref();
        let is_whole = call.is_some_and(|call| !call.previous_response);
        is_whole && self.rules.config.cache.mode != CacheMode::Off
    }

    /// Hands over to the analyst what is left to find out about the prompt, and lets go of the bodies.
    /// Where there is no room for it, the record says so.
    pub(super) fn hand_over(&mut self) {
        let watched = self.to_watch.take();
        let watched = watched.and_then(|plain| Some((self.asking_to_watch(&plain)?, plain)));
        let bodies = self.to_sketch.take();
        if watched.is_none() && bodies.is_none() {
            return;
        }
        let considered = self.considered.take();
        let is_rewritten = considered.as_ref().is_some_and(|considered| {
            let planned = &considered.plan.edits;
            self.edits.iter().any(|made| planned.contains(made))
        });
        let (memory, identity) = (&self.context.cache, &self.record.identity);
        let looked = Looked {
            context: Arc::clone(&self.context),
            rules: Arc::clone(&self.rules),
            considered,
            is_rewritten,
            provider: self.session.provider,
            account: memory.name(&identity.key_hash),
            route: memory.name(&self.record.host),
            model: memory.name(&self.record.model_requested),
            family: memory.name(&(&identity.program, identity.uid, &self.record.api)),
            sent_ms: self.sent_unix_ms(),
            watched,
            bodies,
        };
        let (family, sent_ms) = (looked.family, looked.sent_ms);
        let explaining = looked.bodies.is_some().then(Explaining::default);
        let given = explaining.clone();
        let work = Work {
            bytes: looked.bytes(),
            plans: looked.watched.is_some(),
            act: Box::new(move || looked.look(given)),
        };
        match self.context.analyst.hand_over(work) {
            Ok(()) => self.explaining = explaining,
            Err(Full) => {
                self.explaining = None;
                self.context.cache.miss(family, sent_ms);
                self.context.metrics.bound_reached(Bound::Explanations);
                self.record.reasons.push("not_explained".to_owned());
            }
        }
    }

    /// When it was sent, in milliseconds since the Unix epoch.
    fn sent_unix_ms(&self) -> i64 {
        let sent = self.sent.unwrap_or(self.opened);
        let until_sent = sent.duration_since(self.opened).as_millis();
        let until_sent = i64::try_from(until_sent).unwrap_or(0);
        self.record.started_unix_ms.saturating_add(until_sent)
    }

    /// Notes what is known by now of what the prompt cache did. Where its prompt is being looked at, the
    /// rest is added to the record behind that.
    pub(super) fn explain(&mut self, judged: Judged, explaining: Option<Explaining>) {
        let provider = &self.record.provider;
        let by_usage = judged.by_usage();
        match explaining {
            None => self.context.metrics.explained(provider, &by_usage),
            Some(explaining) => {
                self.unexplained = Some(Box::new(Unexplained {
                    judged,
                    explaining,
                    provider: provider.clone(),
                }));
            }
        }
        self.record.explain(by_usage);
    }

    /// Has a record published in its turn, and completed before if that is still to be done.
    pub(super) fn complete(&mut self, mut journaled: Journaled) {
        let unexplained = self.unexplained.take();
        if unexplained.is_none() && !journaled.is_followed() {
            return;
        }
        let context = Arc::clone(&self.context);
        let act = move || {
            if let Some(unexplained) = unexplained {
                unexplained.complete(&mut journaled, &context);
            }
            context.ledger.publish(journaled);
        };
        if let Err(Full) = self.context.analyst.follow(act) {
            self.context.metrics.bound_reached(Bound::Explanations);
        }
    }
}

impl Unexplained {
    /// Adds to the record what its prompt showed, if it did.
    fn complete(self, journaled: &mut Journaled, context: &Context) {
        let explained = match self.explaining.found() {
            Some(analysis) => {
                let explained = self.judged.explain(*analysis, context);
                context.ledger.explain(journaled, explained.clone());
                explained
            }
            None => self.judged.by_usage(),
        };
        context.metrics.explained(&self.provider, &explained);
    }
}

impl Explaining {
    /// What was found, if it was already.
    fn found(&self) -> Option<Box<Analysis>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether nobody wants to know: the call is over, without usage.
    fn is_in_vain(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Known {
    /// Whether it stands where two prompts part.
    pub(super) fn covers(&self, parting: &Parting) -> bool {
        self.segment == parting.segment
            && self.bytes.end > parting.bytes.start
            && self.bytes.start < parting.bytes.end
    }
}

impl Looked {
    /// Bytes of bodies that are held: what was read, came and was sent is mostly one.
    fn bytes(&self) -> usize {
        let watched = self.watched.iter().map(|(_, plain)| plain);
        let bodies = self.bodies.iter();
        let bodies = bodies.flat_map(|bodies| [&bodies.came, &bodies.sent]);
        let mut held: Vec<&Bytes> = watched.chain(bodies).collect();
        held.dedup_by_key(|bytes| bytes.as_ptr());
        let lengths = held.into_iter().map(Bytes::len);
        lengths.fold(0, usize::saturating_add)
    }

    /// Plans what would have been done to the prompt, if that was not planned before, and sketches
    /// what was sent and what was not.
    fn look(mut self, explaining: Option<Explaining>) {
        if let Some((asking, plain)) = self.watched.take() {
            let Context {
                rewriter, metrics, ..
            } = &*self.context;
            let cache = &self.rules.config.cache;
            self.considered = rewriter.consider(&asking, &plain, cache, metrics, None);
        }
        let Some((explaining, bodies)) = explaining.zip(self.bodies.take()) else {
            return;
        };
        if explaining.is_in_vain() {
            return;
        }
        let Some(sketched) = self.sketched(&bodies) else {
            return;
        };
        let considered = self.considered;
        let analysis = Analysis {
            sketched,
            may_be_hurt: considered.as_ref().is_some_and(Considered::may_be_hurt),
            measured: considered.map(|considered| considered.measured),
        };
        let mut found = explaining.0.lock().unwrap_or_else(PoisonError::into_inner);
        *found = Some(Box::new(analysis));
    }

    /// None where the body can't be read: what the scanner of calls has read, this one can.
    fn sketched(&self, Bodies { came, sent }: &Bodies) -> Option<Sketched> {
        let considered = self.considered.as_ref();
        let is_as_it_came = came.as_ptr() == sent.as_ptr() && came.len() == sent.len();
        let read = considered.filter(|_| is_as_it_came);
        let anew;
        let prompt = match read {
            Some(considered) => &considered.prompt,
            None => {
                anew = prompt::read(sent).ok()?;
                &anew
            }
        };
        let plan = considered.map(|considered| &considered.plan);
        let planned = plan.map_or(&[][..], |plan| &plan.edits);
        let sketch = Sketch::new(sent, prompt, &self.context.cache.key);
        let sketch = self.addressed(sketch, sent, prompt);
        let (sent_as, other) = if planned.is_empty() {
            // What later calls are compared with has to know of this one.
            let has_values = plan.is_some_and(|plan| !plan.spans.is_empty());
            (Sent::Either, has_values.then(|| sketch.clone()))
        } else if self.is_rewritten {
            let prompt = considered.map(|considered| &considered.prompt);
            (
                Sent::Rewritten,
                prompt.map(|prompt| self.outline(came, prompt)),
            )
        } else {
            let marked = read.and_then(|_| sketch.marked(came, prompt, planned));
            let would_be = || {
                let body = edit::apply(came, &mut planned.to_vec()).ok()?;
                let prompt = prompt::read(&body).ok()?;
                Some(self.outline(&body, &prompt))
            };
            (Sent::AsItCame, marked.or_else(would_be))
        };
        Some(Sketched {
            sketch,
            other,
            sent: sent_as,
            family: self.family,
            sent_ms: self.sent_ms,
            spans: self.spans(sent, prompt),
        })
    }

    /// Of what was not sent only the hits are of interest.
    fn outline(&self, body: &[u8], prompt: &Prompt) -> Sketch {
        let outline = Sketch::outline(body, prompt, &self.context.cache.key);
        self.addressed(outline, body, prompt)
    }

    /// With what it is addressed to, and without what its provider takes out by its place.
    fn addressed(&self, mut sketch: Sketch, body: &[u8], prompt: &Prompt) -> Sketch {
        if let Some(segment) = untouchable(self.provider, body, prompt) {
            sketch.take_out(segment);
        }
        sketch.account = self.account;
        sketch.route = self.route;
        sketch.model = self.model;
        sketch
    }

    /// What rules know to change in what was sent.
    fn spans(&self, sent: &[u8], prompt: &Prompt) -> Vec<Known> {
        let considered = self.considered.as_ref();
        let rules = considered.and_then(|considered| considered.plan.rules.as_deref());
        match considered.zip(rules).filter(|_| !self.is_rewritten) {
            // Learned values are among these, which no pattern finds again.
            Some((considered, rules)) => known(&considered.plan.spans, rules, &considered.prompt),
            None => {
                let rules = rules.or_else(|| BUILTIN.as_ref());
                let found = |rules: &Rules| known(&rules.find(sent, prompt, None), rules, prompt);
                rules.map(found).unwrap_or_default()
            }
        }
    }
}

impl CacheMemory {
    /// Notes that a call of a family is not known here.
    fn miss(&self, family: u64, sent_ms: i64) {
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        if gaps.len() < GAPS_MAX || gaps.contains_key(&family) {
            gaps.insert(family, sent_ms);
        }
    }

    /// Whether a call that was sent then is the first one known after one of its family that is not:
    /// what it would have read from the cache in another form is not known either.
    pub(super) fn follows_gap(&self, family: u64, sent_ms: i64) -> bool {
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let is_behind = gaps.get(&family).is_some_and(|gap| *gap <= sent_ms);
        is_behind && gaps.remove(&family).is_some()
    }

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

/// Families of which it is known that calls are missing.
const GAPS_MAX: usize = 256;

static BUILTIN: LazyLock<Option<Rules>> = LazyLock::new(|| Rules::builtin().ok());
