//! Decides whether the prompt of a call is rewritten, remembers what its conversation was given, and
//! hands over the edits. Whatever goes wrong here, the call goes as it came, and that is counted.

mod again;
mod considered;
mod effect;
mod learn;
mod marks;
mod nodes;
mod prefix;
mod refusals;
mod sets;
mod store;
mod turn;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::IntCounter;
use weir_core::edit::Edit;
use weir_core::json::Malformed;
use weir_core::prompt::{self, Fingerprint, HashKey, Prompt};
use weir_core::rewrite::{
    self, BREAKPOINT, Heads, Learning, Measured, Plan, Recent, Request, RuleSet, Thread,
};
use weir_core::volatile::Span;
use weir_core::volatile::learned::Observed;

use super::secret::Secret;
use crate::ledger::Conversations;
use crate::metrics::Metrics;
use crate::process::config::{self, CacheMode};
pub(super) use again::Forms;
pub(super) use considered::{Asking, Considered};
use effect::Effects;
use learn::Learner;
use nodes::Nodes;
pub(crate) use prefix::untouchable;
use refusals::Refusals;
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
    heads: Mutex<Heads>,
    refusals: Refusals,
}

impl Rewriter {
    /// Opens the memory of conversations in `state_dir`. With the nodes' secret and `shared`, they are
    /// told to other nodes, which takes a tokio runtime; `untold` counts those that are not, for now.
    ///
    /// # Errors
    /// Its secret can't be read or made.
    pub(crate) fn open(
        state_dir: &Path,
        secret: Option<&Secret>,
        shared: Option<Arc<Conversations>>,
        untold: IntCounter,
    ) -> io::Result<Self> {
        let (store, key) = Store::open(state_dir, secret)?;
        let store = Arc::new(store);
        let turns = Arc::<Turns>::default();
        let shared = shared.filter(|_| secret.is_some());
        Ok(Self {
            nodes: shared
                .map(|table| Nodes::new(table, Arc::clone(&store), Arc::clone(&turns), untold)),
            store,
            learner: Learner::new(state_dir),
            key,
            sets: Mutex::default(),
            effects: Effects::open(state_dir),
            turns,
            recent: Mutex::default(),
            heads: Mutex::default(),
            refusals: Refusals::default(),
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
    pub(crate) fn save(&self, state_dir: &Path, last: bool) -> io::Result<()> {
        self.effects.save(state_dir, last)
    }

    /// Tells other nodes what they have not heard yet, for at most `timeout`.
    pub(crate) async fn close(&self, timeout: Duration) {
        if let Some(nodes) = &self.nodes {
            nodes.close(timeout).await;
        }
    }

    /// Whether other nodes can read all that was told here.
    pub(crate) fn has_told(&self) -> bool {
        self.nodes.as_ref().is_none_or(Nodes::has_told)
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
            None => self.read(asked.body, &asked.call.scope())?,
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
        let (name, head) = self.head(&request, &current);
        let request = Request {
            head: Some(&head),
            ..request
        };
        let mut plan = self.plan_turn(&request, &current, asked)?;
        let mut edits = Vec::new();
        if plan.applied {
            edits.clone_from(&plan.edits);
        }
        let mut measured = self.measure(asked, &request, &plan);
        let marks = self.marks(asked, &request, &plan, measured.shown.unmarked);
        edits.extend(marks.set(asked, &plan));
        if !marks.breakpoints.is_empty() {
            measured.names.push(BREAKPOINT.to_owned());
        }
        plan.edits.extend(marks.breakpoints);
        plan.edits.extend(marks.routes);
        if learns {
            let more = self.learn(&request, &plan, &current, asked);
            plan.spans.extend(more);
        }
        self.heads().keep(name, head);
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
            model: &asked.call.about.model,
            body: asked.body,
            prompt,
            thread,
            key: &self.key,
            untouchable: untouchable(asked.call.provider, asked.body, prompt),
            head: None,
            held_by_provider: asked.call.previous_response,
            begin: asked.call.only.is_none(),
            now_s: asked.call.now_s,
        }
    }

    /// What was learned of prompts like that of a call.
    fn learning(&self, asked: &Asked<'_>) -> Learning {
        let prompts = self.prompts_of(asked);
        Learning {
            prompts: self.learner.prompts(&self.store, prompts, asked.call.now_s),
            now_s: asked.call.now_s,
        }
    }

    /// What prompts are compared with each other.
    fn prompts_of(&self, asked: &Asked<'_>) -> Fingerprint {
        let model = asked.call.about.model.as_str();
        let [caller, host] = asked.call.scope();
        let parts = [
            caller,
            host,
            asked.call.api.as_str().as_bytes(),
            model.as_bytes(),
        ];
        self.key.hash(&parts)
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
        let known: Vec<Span> = known.into_iter().cloned().collect();
        let units = request.units(&known);
        let observed = Observed {
            conversation: request.thread.first.at,
            is_start: request.thread.is_start,
            now_s: asked.call.now_s,
        };
        let workload = self.prompts_of(asked);
        let prompts = self
            .learner
            .observe(&self.store, workload, &units, &observed);
        if plan.applied || !mine.is_empty() || prompts.is_empty(asked.call.now_s) {
            return Vec::new();
        }
        units.find(&prompts.learned(&units, asked.call.now_s), rule)
    }

    /// The name of a workload: of a caller's calls to a model with the same tools and system prompt,
    /// values apart.
    fn workload(&self, asked: &Asked<'_>, request: &Request<'_>, spans: &[Span]) -> u64 {
        let family = request.family(spans).to_be_bytes();
        let scope = asked.call.scope();
        let parts = [&scope[..], &[asked.call.about.model.as_bytes(), &family]].concat();
        u64::try_from(self.key.hash(&parts) >> 64).unwrap_or(0)
    }

    /// Notes a call of a workload.
    fn measure(&self, asked: &Asked<'_>, request: &Request<'_>, plan: &Plan) -> Measured {
        let rules = plan.rules.as_deref();
        let values = rules.map_or_else(Vec::new, |rules| {
            rewrite::values(asked.body, &plan.spans, rules, &self.key)
        });
        let workload = self.workload(asked, request, &plan.spans);
        let begins = request.thread.is_start || asked.call.previous_response;
        let called = asked.call.called(workload, &values, begins);
        let shown = self.effects.note(&called, asked.metrics);
        let names = plan.spans.iter().map(|span| span.name.clone()).collect();
        Measured {
            workload,
            names,
            standings: plan.standings.clone(),
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

/// A call, with its body as it reads.
struct Asked<'a> {
    call: &'a Asking,
    body: &'a [u8],
    metrics: &'a Metrics,
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
