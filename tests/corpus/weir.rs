//! Weir between a client and its provider: the planner of the core, and what a shell would remember for it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use weir_core::api::Api;
use weir_core::catalog::Provider;
use weir_core::edit;
use weir_core::pricing::PriceTable;
use weir_core::prompt::{self, Fingerprint, HashKey, Section, Segment};
use weir_core::rewrite::{self, Markable, Request, RuleSet, Thread, Tree};
use weir_core::volatile::Rules;

use crate::replay::{Sent, Way};
use crate::session::Dialect;

/// What all nodes on one ledger share.
#[derive(Default)]
pub(crate) struct Shared {
    trees: HashMap<Fingerprint, Vec<u8>>,
}

/// A node that rewrites. It may be given other rules, be switched off and on, and be restarted.
pub(crate) struct Weir {
    pub(crate) shared: Shared,
    pub(crate) rules: RuleSet,
    /// When workloads were seen last, in milliseconds since the Unix epoch.
    families: HashMap<u128, i64>,
    /// Whether conversations that begin now are edited.
    pub(crate) on: bool,
}

impl Weir {
    pub(crate) fn new() -> Self {
        Self {
            shared: Shared::default(),
            rules: BUILTIN.clone(),
            families: HashMap::new(),
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

impl Way for Weir {
    fn pass(&mut self, sent: &Sent<'_>) -> String {
        let (api, provider, host) = match sent.session.api {
            Dialect::Messages => (Api::Messages, Provider::Anthropic, "api.anthropic.com"),
            Dialect::Chat => (Api::ChatCompletions, Provider::OpenAi, "api.openai.com"),
            Dialect::Responses => (Api::Responses, Provider::OpenAi, "api.openai.com"),
        };
        let (body, model) = (sent.body.as_bytes(), sent.session.model.as_str());
        let prompt = prompt::read(body).expect("a client's body is JSON");
        let scope: [&[u8]; 2] = [b"an account", host.as_bytes()];
        let Some(thread) = Thread::of(&prompt, body, &KEY, &scope) else {
            return sent.body.to_owned();
        };
        let minimum = PriceTable::builtin()
            .listing(provider.as_str(), model)
            .min_cacheable_tokens;
        let minimum_bytes = usize::try_from(minimum.unwrap_or(1024) * 4).expect("a length");
        let begin = self.on && body.len() >= minimum_bytes;
        let first_system = |segment: &Segment| segment.section == Section::System;
        let request = Request {
            api,
            body,
            prompt: &prompt,
            thread: &thread,
            key: &KEY,
            // The block by which Claude Code says who it is.
            untouchable: prompt
                .segments
                .iter()
                .position(first_system)
                .filter(|_| sent.body.contains("\"x-anthropic-billing-header:")),
            held_by_provider: false,
            begin,
        };
        let stored = self.shared.trees.get(&thread.first.at);
        let tree: Option<Tree> = stored.map(|bytes| serde_json::from_slice(bytes).expect("a tree"));
        let sets = [&*BUILTIN, &*STRIPPING].into_iter();
        let find = |id| {
            let set = sets.clone().find(|set| set.id == id);
            set.map(|set| Arc::clone(&set.rules))
        };
        let plan = rewrite::plan(&request, tree.as_ref(), &self.rules, find);
        if let Some(tree) = &plan.tree {
            let bytes = serde_json::to_vec(tree).expect("a tree is plain data");
            self.shared.trees.insert(thread.first.at, bytes);
        }
        let family = rewrite::family(body, &prompt, &plan.spans, &KEY);
        let seen = self.families.insert(family, sent.unix_ms);
        let markable = Markable {
            api,
            provider,
            model,
            body,
            prompt: &prompt,
            thread: &thread,
            minimum_bytes,
            prefix_is_shared: seen.is_some_and(|seen| sent.unix_ms - seen <= LIFETIME_MS),
            edits: &plan.edits,
        };
        let mut edits = if plan.applied {
            plan.edits.clone()
        } else {
            Vec::new()
        };
        if begin {
            edits.extend(rewrite::breakpoints(&markable));
        }
        if plan.began == Some(true) {
            edits.extend(rewrite::routing(&markable, host, &plan.spans, &KEY));
        }
        let edited = edit::apply(body, &mut edits).expect("edits fit the body");
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

/// How long a cache holds what nobody reads, at least.
const LIFETIME_MS: i64 = 300_000;
const KEY: HashKey = HashKey::new(*b"a key of a test.");
