//! Decides whether the prompt of a call is rewritten, remembers what its conversation was given, and
//! hands over the edits. Whatever goes wrong here, the call goes as it came, and that is counted.

mod again;
mod effect;
mod learn;
mod nodes;
mod prefix;
mod sets;
mod store;
mod turn;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir_core::call::Call;
use weir_core::catalog::Provider;
use weir_core::edit::Edit;
use weir_core::json::Malformed;
use weir_core::prompt::{self, Fingerprint, HashKey, Prompt};
use weir_core::rewrite::{
    self, About, BREAKPOINT, Called, Learning, Markable, Plan, Recent, Request, RuleSet, Thread,
    Valued, Warmth, Withheld,
};
use weir_core::volatile::Span;
use weir_core::volatile::learned::{Observed, Units};

use super::credential::Kind;
use super::entry::Entry;
use super::secret::Secret;
use crate::ledger::Conversations;
use crate::metrics::Metrics;
use crate::process::config::{self, CacheMode};
use effect::Effects;
pub(super) use effect::Measured;
use learn::Learner;
use nodes::Nodes;
pub(crate) use prefix::untouchable;
use sets::Sets;
use store::Store;
use turn::Turns;

/// What all calls share: the memory of conversations, and the rules in force.
#[derive(Debug)]
pub(crate) struct Rewriter {
    store: Arc<Store>,
    /// Where conversations are shared.
    nodes: Option<Nodes>,
    learner: Learner,
    key: HashKey,
    sets: Mutex<Sets>,
    effects: Effects,
    turns: Arc<Turns>,
    recent: Mutex<Recent>,
}

/// Why a conversation that begins now is only watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    /// `mode` is not `rewrite`.
    Observed,
    /// A plan with a flat price: nothing is saved, and its provider may look at the bytes.
    Subscription,
    /// The body is signed.
    Signed,
    /// The provider caches nothing as short as this.
    BelowMinimum,
}

impl Only {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Subscription => "subscription",
            Self::Signed => "signed",
            Self::BelowMinimum => "below_minimum",
        }
    }
}

impl Rewriter {
    /// Opens the memory of conversations in `state_dir`. With the nodes' secret and `shared`, they are
    /// told to other nodes, which takes a tokio runtime.
    ///
    /// # Errors
    /// Its secret can't be read or made.
    pub(crate) fn open(
        state_dir: &Path,
        secret: Option<&Secret>,
        shared: Option<Arc<Conversations>>,
    ) -> io::Result<Self> {
        let (store, key) = Store::open(state_dir, secret)?;
        let store = Arc::new(store);
        let turns = Arc::<Turns>::default();
        let shared = shared.filter(|_| secret.is_some());
        Ok(Self {
            nodes: shared.map(|table| Nodes::new(table, Arc::clone(&store), Arc::clone(&turns))),
            store,
            learner: Learner::new(state_dir),
            key,
            sets: Mutex::default(),
            effects: Effects::open(state_dir),
            turns,
            recent: Mutex::default(),
        })
    }

    /// Makes the rules ready that the configuration asks for: that takes tens of milliseconds, which
    /// no call shall wait for. Where prompts are only watched, none does: the first one makes them
    /// ready while its provider is at it, and until then they take no memory.
    pub(crate) fn prepare(&self, config: &config::Cache) {
        if config.mode != CacheMode::Rewrite {
            return;
        }
        match self.configured(config) {
            Some(set) => set.rules.make_ready(),
            None => {
                tracing::error!("expected rules that were checked before, found invalid ones");
            }
        }
    }

    /// Writes down what is done about the values of workloads, for the next start.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn save(&self, state_dir: &Path) -> io::Result<()> {
        self.effects.save(state_dir)
    }

    /// Tells other nodes what they have not heard yet, for at most `timeout`.
    pub(crate) async fn close(&self, timeout: Duration) {
        if let Some(nodes) = &self.nodes {
            nodes.close(timeout).await;
        }
    }

    /// For `weir status`: what was switched for workloads, by what it saves.
    pub(crate) fn status(&self, now_s: i64) -> Vec<serde_json::Value> {
        self.effects.status(now_s)
    }

    /// Reads a prompt; none, if the application says nothing in it. `scope` is what callers and APIs
    /// are told apart by that share no cache.
    fn read(&self, body: &[u8], scope: &[&[u8]]) -> Result<Option<Read>, Failed> {
        let prompt = prompt::read(body).map_err(Failed::Unreadable)?;
        let thread = Thread::of(&prompt, body, &self.key, scope);
        Ok(thread.map(|thread| Read { prompt, thread }))
    }

    /// Plans the edits of a call and remembers what has to be; gives the edits that are to be made.
    /// None, if nothing is to be said of the call. `read` is its prompt, if that was read before.
    fn plan(
        &self,
        asked: &Asked<'_>,
        config: &config::Cache,
        read: Option<Read>,
    ) -> Result<Option<Planned>, Failed> {
        let read = match read {
            Some(read) => Some(read),
            None => self.read(asked.body, &asked.scope())?,
        };
        let Some(Read { prompt, thread }) = read else {
            return Ok(None);
        };
        let mut current = self.configured(config).ok_or(Failed::Rules)?;
        let learns = config.learn && config.mode != CacheMode::Off;
        if learns && thread.is_start {
            current.learned = Some(self.learning(asked));
        }
        let request = self.request(asked, &prompt, &thread);
        let mut plan = self.plan_turn(&request, &current, asked)?;
        let mut edits = Vec::new();
        if plan.applied {
            edits.clone_from(&plan.edits);
        }
        let mut measured = self.measure(asked, &prompt, &thread, &plan);
        let sent = self.warmth(&request, &plan, asked);
        let warm = if measured.shown.unmarked {
            Warmth::default()
        } else {
            sent
        };
        let markable = Markable {
            api: asked.call.api,
            provider: asked.provider,
            model: asked.call.model.as_deref().unwrap_or_default(),
            body: asked.body,
            prompt: &prompt,
            thread: &thread,
            minimum_bytes: asked.minimum_bytes,
            warm,
            edits: &plan.edits,
        };
        let marks = rewrite::breakpoints(&markable);
        let routes = rewrite::routing(&markable, asked.host, &plan.spans, &self.key);
        if asked.only.is_none() {
            edits.extend_from_slice(&marks);
        }
        if !marks.is_empty() {
            measured.names.push(BREAKPOINT.to_owned());
        }
        // A key that goes away in the middle of a conversation is a cache that is not found.
        if plan.began == Some(true) {
            edits.extend_from_slice(&routes);
        }
        plan.edits.extend(marks);
        plan.edits.extend(routes);
        if learns {
            let more = self.learn(&request, &plan, &current, asked);
            plan.spans.extend(more);
        }
        Ok(Some(Planned {
            plan,
            edits,
            measured,
            prompt,
        }))
    }

    fn request<'a>(
        &'a self,
        asked: &Asked<'a>,
        prompt: &'a Prompt,
        thread: &'a Thread,
    ) -> Request<'a> {
        Request {
            api: asked.call.api,
            model: asked.call.model.as_deref().unwrap_or_default(),
            body: asked.body,
            prompt,
            thread,
            key: &self.key,
            untouchable: untouchable(asked.provider, asked.body, prompt),
            held_by_provider: asked.call.previous_response,
            begin: asked.only.is_none(),
            now_s: asked.now_s,
        }
    }

    /// What was learned of prompts like that of a call.
    fn learning(&self, asked: &Asked<'_>) -> Learning {
        let prompts = self.prompts_of(asked);
        Learning {
            prompts: self.learner.prompts(&self.store, prompts, asked.now_s),
            now_s: asked.now_s,
        }
    }

    /// What prompts are compared with each other.
    fn prompts_of(&self, asked: &Asked<'_>) -> Fingerprint {
        let model = asked.call.model.as_deref().unwrap_or_default();
        let parts = [asked.caller, asked.host, asked.call.api.as_str(), model];
        self.key.hash(&parts.map(str::as_bytes))
    }

    /// Learns from a prompt. Gives the learned values in it that its conversation does not go by, so
    /// that what they cost can be told.
    fn learn(
        &self,
        request: &Request<'_>,
        plan: &Plan,
        current: &RuleSet,
        asked: &Asked<'_>,
    ) -> Vec<Span> {
        let learned = current.rules.learned();
        let by_current = |rules| Arc::ptr_eq(rules, &current.rules);
        let Some(rule) = learned.filter(|_| plan.rules.as_ref().is_some_and(by_current)) else {
            return Vec::new();
        };
        let (mine, known): (Vec<&Span>, Vec<&Span>) =
            plan.spans.iter().partition(|span| span.rule == rule);
        let Request {
            body,
            prompt,
            thread,
            untouchable,
            key,
            ..
        } = *request;
        let known: Vec<Span> = known.into_iter().cloned().collect();
        let units = Units::of(body, prompt, untouchable, &known, key);
        let observed = Observed {
            conversation: thread.first.at,
            is_start: thread.is_start,
            now_s: asked.now_s,
        };
        let workload = self.prompts_of(asked);
        let prompts = self
            .learner
            .observe(&self.store, workload, &units, &observed);
        if plan.applied || !mine.is_empty() || prompts.is_empty(asked.now_s) {
            return Vec::new();
        }
        units.find(&prompts.learned(&units, asked.now_s), rule)
    }

    /// The name of a workload: of a caller's calls to a model with the same tools and system prompt,
    /// values apart.
    fn workload(&self, asked: &Asked<'_>, prompt: &Prompt, spans: &[Span]) -> u64 {
        let family = rewrite::family(asked.body, prompt, spans, &self.key).to_be_bytes();
        let scope = asked.scope();
        let parts = [&scope[..], &[asked.about.model.as_bytes(), &family]].concat();
        u64::try_from(self.key.hash(&parts) >> 64).unwrap_or(0)
    }

    /// Notes a call of a workload.
    fn measure(
        &self,
        asked: &Asked<'_>,
        prompt: &Prompt,
        thread: &Thread,
        plan: &Plan,
    ) -> Measured {
        let rules = plan.rules.as_deref();
        let values = rules.map_or_else(Vec::new, |rules| {
            rewrite::values(asked.body, &plan.spans, rules, &self.key)
        });
        let workload = self.workload(asked, prompt, &plan.spans);
        let begins = thread.is_start || asked.call.previous_response;
        let called = asked.called(workload, &values, begins);
        let shown = self.effects.note(&called, asked.metrics);
        let names = plan.spans.iter().map(|span| span.name.clone()).collect();
        Measured {
            workload,
            names,
            shown,
        }
    }
}

/// A prompt, and its place in its conversation.
pub(super) struct Read {
    prompt: Prompt,
    thread: Thread,
}

/// A plan, and what of it is done.
struct Planned {
    plan: Plan,
    edits: Vec<Edit>,
    measured: Measured,
    prompt: Prompt,
}

/// A call, as far as its prompt goes.
struct Asked<'a> {
    call: &'a Call,
    body: &'a [u8],
    provider: Provider,
    host: &'a str,
    caller: &'a str,
    about: &'a About,
    metrics: &'a Metrics,
    only: Option<Only>,
    /// The shortest prefix that is cached, about.
    minimum_bytes: usize,
    now_s: i64,
}

impl Asked<'_> {
    /// What callers and APIs are told apart by that share no cache.
    const fn scope(&self) -> [&[u8]; 2] {
        [self.caller.as_bytes(), self.host.as_bytes()]
    }

    fn called<'a>(&'a self, workload: u64, values: &'a [Valued], begins: bool) -> Called<'a> {
        Called {
            workload,
            about: self.about,
            values,
            begins,
            now_s: self.now_s,
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("expected a prompt in the body: {0}")]
    Unreadable(Malformed),
    #[error("expected rules that were checked before, found invalid ones")]
    Rules,
    #[error("expected the memory of conversations to work: {0}")]
    Memory(rusqlite::Error),
    #[error("expected a plan, found a panic")]
    Panicked,
}

impl Entry {
    /// Plans how the prompt is rewritten; gives the edits that are to be made now.
    pub(super) fn rewrite(&mut self, body: &[u8]) -> Vec<Edit> {
        let read = self.recalled.take();
        let cache = &self.rules.config.cache;
        let rewriter = &self.context.rewriter;
        let Some(call) = &self.call else {
            return Vec::new();
        };
        let is_idle =
            cache.mode == CacheMode::Off && rewriter.nodes.is_none() && rewriter.store.is_empty();
        if is_idle || !rewrite::covers(call.api, body) {
            return Vec::new();
        }
        let about = self.about(call);
        let asked = self.asked(call, body, &about);
        let only = asked.only;
        let planned = catch_unwind(AssertUnwindSafe(|| rewriter.plan(&asked, cache, read)));
        let Planned {
            plan,
            edits,
            measured,
            prompt,
        } = match planned.unwrap_or(Err(Failed::Panicked)) {
            Ok(Some(planned)) => planned,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, id = self.record.id, "a prompt goes as it came");
                self.count_rewritten("failed");
                return Vec::new();
            }
        };
        // A signed body can't be changed, whatever its conversation was given before.
        let is_fixed = only == Some(Only::Signed) || self.rules.config.observe;
        let edits = if is_fixed { Vec::new() } else { edits };
        let why = match (plan.withheld, only) {
            // What a workload shows counts only where it would have been edited.
            (Some(Withheld::Kept | Withheld::SwitchedOff) | None, Some(only)) => only.as_str(),
            (Some(withheld), _) => withheld.as_str(),
            (None, None) => "observed",
        };
        self.count_rewritten(if edits.is_empty() { why } else { "edited" });
        let is_left = !plan.spans.is_empty() && (!plan.applied || is_fixed);
        // That a value stands where it stood is no news.
        let is_news = is_left && why != Withheld::Kept.as_str();
        if is_news && cache.mode == CacheMode::Rewrite {
            self.record.reasons.push(format!("not_rewritten_{why}"));
        }
        self.plan = Some(plan);
        self.measured = Some(measured);
        self.prompt = Some(prompt);
        edits
    }

    /// Whether no prompt can be edited: none that begins now, and of none it is remembered that it
    /// was. Then a plan may be made while the provider is at the call.
    pub(super) fn only_watches(&self) -> bool {
        self.rules.config.cache.mode != CacheMode::Rewrite
            && self.context.rewriter.nodes.is_none()
            && self.context.rewriter.store.has_only_watched()
    }

    fn count_rewritten(&self, result: &'static str) {
        let rewritten = &self.context.metrics.rewritten;
        rewritten.with_label_values(&[result]).inc();
    }

    /// Why a conversation that begins with this call is only watched.
    fn only_watched(&self, minimum_tokens: u64) -> Option<Only> {
        match self.credential {
            _ if self.signed => return Some(Only::Signed),
            // An unknown login may be one of a plan, at a provider that is no cloud.
            Some(Kind::Subscription | Kind::OAuth) => return Some(Only::Subscription),
            Some(Kind::ApiKey | Kind::CloudIam) | None => {}
        }
        if self.rules.config.cache.mode != CacheMode::Rewrite || self.rules.config.observe {
            return Some(Only::Observed);
        }
        let tokens = self.priced()?.terms.estimate.reserved;
        (tokens < minimum_tokens).then_some(Only::BelowMinimum)
    }
}

/// Of prompts, about.
const BYTES_PER_TOKEN: u64 = 4;
