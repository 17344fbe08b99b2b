//! Weir between a client and its provider: the planner of the core, and what a shell would remember for it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use weir_core::api::Api;
use weir_core::catalog::Provider;
use weir_core::edit;
use weir_core::pricing::PriceTable;
use weir_core::prompt::{self, Fingerprint, HashKey, Prompt, Section, Segment};
use weir_core::rewrite::{
    self, About, Called, Learning, Markable, Plan, Prefixes, Recent, Request, RuleSet, Thread,
    Tree, Valued, Warmth, Workloads,
};
use weir_core::volatile::learned::{Observed, Prompts, Units};
use weir_core::volatile::{Rules, Span};

use crate::replay::{Sent, Way};
use crate::session::Dialect;

/// What all nodes on one ledger share.
#[derive(Default)]
pub(crate) struct Shared {
    trees: HashMap<Fingerprint, Vec<u8>>,
    /// What was learned from prompts, as it is stored.
    learned: Option<Vec<u8>>,
}

/// A node that rewrites. It may be given other rules, be switched off and on, and be restarted.
pub(crate) struct Weir {
    pub(crate) shared: Shared,
    pub(crate) rules: RuleSet,
    workloads: Workloads,
    recent: Recent,
    /// Whether conversations that begin now are edited.
    pub(crate) on: bool,
}

impl Weir {
    pub(crate) fn new() -> Self {
        Self {
            shared: Shared::default(),
            rules: BUILTIN.clone(),
            workloads: Workloads::default(),
            recent: Recent::default(),
            on: true,
        }
    }

    /// Everything but what is shared is lost: as after a restart, or at another node.
    #[cfg(test)]
    pub(crate) fn restart(&mut self) {
        let shared = std::mem::take(&mut self.shared);
        *self = Self {
            shared,
            on: self.on,
            ..Self::new()
        };
    }

    /// Takes other rules into force.
    #[cfg(test)]
    pub(crate) fn strip_times(&mut self) {
        self.rules = STRIPPING.clone();
    }
}

/// A call, as far as its prompt goes.
struct Call<'a> {
    api: Api,
    provider: Provider,
    host: &'static str,
    model: &'a str,
    body: &'a [u8],
    prompt: Prompt,
    thread: Thread,
    minimum_bytes: usize,
    now_s: i64,
}

impl<'a> Call<'a> {
    /// None, where the client says nothing.
    fn of(sent: &Sent<'a>) -> Option<Self> {
        let (api, provider, host) = match sent.session.api {
            Dialect::Messages => (Api::Messages, Provider::Anthropic, "api.anthropic.com"),
            Dialect::Chat => (Api::ChatCompletions, Provider::OpenAi, "api.openai.com"),
            Dialect::Responses => (Api::Responses, Provider::OpenAi, "api.openai.com"),
        };
        let (body, model) = (sent.body.as_bytes(), sent.session.model.as_str());
        let prompt = prompt::read(body).expect("a client's body is JSON");
        let thread = Thread::of(&prompt, body, &KEY, &[b"an account", host.as_bytes()])?;
        let listing = PriceTable::builtin().listing(provider.as_str(), model);
        let minimum = listing.min_cacheable_tokens.unwrap_or(1024);
        Some(Self {
            api,
            provider,
            host,
            model,
            body,
            prompt,
            thread,
            minimum_bytes: usize::try_from(minimum * 4).expect("a length"),
            now_s: sent.unix_ms / 1000,
        })
    }

    /// What the workload is told of it.
    fn called<'b>(&self, spans: &[Span], about: &'b About, values: &'b [Valued]) -> Called<'b> {
        let family = rewrite::family(self.body, &self.prompt, spans, &KEY) >> 64;
        Called {
            workload: u64::try_from(family).expect("the half of it"),
            about,
            values,
            begins: self.thread.is_start,
            now_s: self.now_s,
        }
    }

    /// The block by which Claude Code says who it is.
    fn untouchable(&self) -> Option<usize> {
        let mut segments = self.prompt.segments.iter();
        let is_system = |segment: &Segment| segment.section == Section::System;
        let body = std::str::from_utf8(self.body).expect("a client's body is text");
        let first = segments.position(is_system);
        first.filter(|_| body.contains("\"x-anthropic-billing-header:"))
    }
}

impl Weir {
    fn plan(&mut self, call: &Call<'_>, begin: bool) -> Plan {
        let first = call.thread.first.at;
        let learned = self.shared.learned.as_deref();
        let learned = learned.map(|bytes| serde_json::from_slice(bytes).expect("prompts"));
        let mut prompts: Prompts = learned.unwrap_or_default();
        let rules = RuleSet {
            learned: Some(Learning {
                prompts: Arc::new(prompts.clone()),
                now_s: call.now_s,
            }),
            ..self.rules.clone()
        };
        let request = Request {
            api: call.api,
            model: call.model,
            body: call.body,
            prompt: &call.prompt,
            thread: &call.thread,
            key: &KEY,
            untouchable: call.untouchable(),
            held_by_provider: false,
            begin,
            now_s: call.now_s,
        };
        let stored = self.shared.trees.get(&first);
        let tree: Option<Tree> = stored.map(|bytes| serde_json::from_slice(bytes).expect("a tree"));
        let sets = [&*BUILTIN, &*STRIPPING].into_iter();
        let find = |id| {
            let set = sets.clone().find(|set| set.id == id);
            set.map(|set| Arc::clone(&set.rules))
        };
        let about = About::default();
        let standings = |spans: &[Span]| {
            let values = rewrite::values(call.body, spans, &self.rules.rules, &KEY);
            self.workloads
                .standings(&call.called(spans, &about, &values))
        };
        let plan = rewrite::plan_measured(&request, tree.as_ref(), &rules, find, standings);
        if let Some(tree) = &plan.tree {
            let bytes = serde_json::to_vec(tree).expect("a tree is plain data");
            self.shared.trees.insert(first, bytes);
        }
        let by_current = |used: &Arc<Rules>| Arc::ptr_eq(used, &rules.rules);
        if plan.rules.as_ref().is_some_and(by_current) {
            let observed = Observed {
                conversation: first,
                is_start: call.thread.is_start,
                now_s: call.now_s,
            };
            let is_known = |span: &&Span| Some(span.rule) != rules.rules.learned();
            let known: Vec<Span> = plan.spans.iter().filter(is_known).cloned().collect();
            let units = Units::of(call.body, &call.prompt, request.untouchable, &known, &KEY);
            prompts.observe(&units, &observed);
            let bytes = serde_json::to_vec(&prompts).expect("hashes are plain data");
            self.shared.learned = Some(bytes);
        }
        plan
    }
}

impl Way for Weir {
    fn pass(&mut self, sent: &Sent<'_>) -> String {
        let Some(call) = Call::of(sent) else {
            return sent.body.to_owned();
        };
        let begin = self.on && call.body.len() >= call.minimum_bytes;
        let plan = self.plan(&call, begin);
        let rules = plan.rules.as_deref().expect("a plan has its rules");
        let values = rewrite::values(call.body, &plan.spans, rules, &KEY);
        let about = About::default();
        let shown = self
            .workloads
            .note(&call.called(&plan.spans, &about, &values));
        let mut edits = if plan.applied {
            plan.edits.clone()
        } else {
            Vec::new()
        };
        let prefixes = Prefixes::of(
            (call.body, &call.prompt, &call.thread),
            &edits,
            call.untouchable(),
            &[call.model.as_bytes()],
            &KEY,
        );
        let sent = self.recent.note(&prefixes, call.now_s);
        let warm = if shown.unmarked {
            Warmth::default()
        } else {
            sent
        };
        let markable = Markable {
            api: call.api,
            provider: call.provider,
            model: call.model,
            body: call.body,
            prompt: &call.prompt,
            thread: &call.thread,
            minimum_bytes: call.minimum_bytes,
            warm,
            edits: &plan.edits,
        };
        if begin {
            edits.extend(rewrite::breakpoints(&markable));
        }
        if plan.began == Some(true) {
            edits.extend(rewrite::routing(&markable, call.host, &plan.spans, &KEY));
        }
        let edited = edit::apply(call.body, &mut edits).expect("edits fit the body");
        String::from_utf8(edited).expect("an edited body is text")
    }
}

/// Rule sets are told apart by their text, and found again by it.
static BUILTIN: LazyLock<RuleSet> = LazyLock::new(|| rule_set(""));
static STRIPPING: LazyLock<RuleSet> =
    LazyLock::new(|| rule_set("[[rule]]\nname = \"timestamp\"\ntransform = \"strip\"\n"));

fn rule_set(more: &str) -> RuleSet {
    RuleSet::new(Rules::parse(more).expect("the rules are valid"), &KEY)
}

const KEY: HashKey = HashKey::new(*b"a key of a test.");
