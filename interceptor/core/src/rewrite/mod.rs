//! Rewrites a prompt so that its prefix stays the same while what it says changes.
//!
//! A value in the system prompt that changes is replaced by a reference, and told at the end of the
//! first message of the application. As long as the client's prompt does not change, that is a pure
//! function of the request. A value that has changed since is told at the end of the turn in which it
//! changed, and from then on the same is told at the same place: that is what a [`Tree`] remembers.
//! So what the provider saw for a turn stands byte-equal inside what it sees for the next one, which
//! its cache needs, and signatures that are bound to the history.
//!
//! Nothing here reads a clock or a store: the shell finds the tree by [`Thread::first`], and keeps
//! the one that [`Plan`] gives back.

mod again;
mod breakpoints;
mod choose;
mod current;
mod effect;
mod head;
mod label;
mod likeness;
mod memory;
mod merge;
mod planner;
mod render;
#[cfg(test)]
mod tests;
mod thinking;
mod thread;
mod tools;
mod warm;

use std::sync::Arc;

use crate::api::Api;
use crate::edit::Edit;
use crate::prompt::{HashKey, Prompt};
use crate::volatile::learned::Prompts;
use crate::volatile::{Rules, Span};

pub use again::{Form, may_be_bound, refuses_history};
pub use breakpoints::{BREAKPOINT, Markable, breakpoints, routing};
pub use effect::{
    About, Called, JUDGED_CALLS, Measured, RECONSIDERED_SECONDS, Shown, Standing, Standings,
    Switched, VALUES_MAX, Valued, WORKLOADS_MAX, Workloads, values,
};
pub use head::{HEADS_BYTES_MAX, Head, Heads};
pub use memory::{NODES_MAX, RulesId, TREE_BYTES_MAX, Tree, Value};
pub use thinking::binds_history;
pub use thread::{Thread, Turn};
pub use warm::{Prefixes, Recent, Warmth};

/// What is to be rewritten, and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The API, for the shape of what is inserted.
    pub api: Api,
    /// The model that is asked for, for whether it binds signatures to the history; empty where unknown.
    pub model: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Its prompt.
    pub prompt: &'a Prompt,
    /// Its place in the conversation.
    pub thread: &'a Thread,
    /// The key of all hashes.
    pub key: &'a HashKey,
    /// A segment that must stay as it is.
    pub untouchable: Option<usize>,
    /// What is remembered of its tools and system prompt, if it is.
    pub head: Option<&'a Head>,
    /// Whether the provider holds the conversation so far: then the new turn is the place.
    pub held_by_provider: bool,
    /// Whether a conversation that begins with this request is edited, or only watched.
    pub begin: bool,
    /// In seconds since the Unix epoch.
    pub now_s: i64,
}

/// A set of rules and its name.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// The name, under which trees remember it.
    pub id: RulesId,
    /// The rules.
    pub rules: Arc<Rules>,
    /// What was learned from prompts of the same workload, for conversations that begin now.
    pub learned: Option<Learning>,
}

/// What was learned, and when it is asked for.
#[derive(Clone, Debug)]
pub struct Learning {
    /// From prompts of the same workload.
    pub prompts: Arc<Prompts>,
    /// In seconds since the Unix epoch.
    pub now_s: i64,
}

impl RuleSet {
    /// Names a set by the hash of its text.
    #[must_use]
    pub fn new(rules: Rules, key: &HashKey) -> Self {
        let hash = key.hash(&[b"rules", FORMAT.as_bytes(), rules.source().as_bytes()]);
        Self {
            id: RulesId::try_from(hash >> 64).unwrap_or_default(),
            rules: Arc::new(rules),
            learned: None,
        }
    }
}

/// What is to be done with a request.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The edits, in no order.
    pub edits: Vec<Edit>,
    /// The values that were found, whatever is done about them.
    pub spans: Vec<Span>,
    /// The rules that found them.
    pub rules: Option<Arc<Rules>>,
    /// What the conversation does about them. All are moved where its start was not seen: only by having
    /// moved them can edits have hurt it.
    pub standings: Standings,
    /// Whether the edits are to be made. Where not, they are what would have been done.
    pub applied: bool,
    /// Whether the conversation began edited or only watched; none, if its start was not seen.
    pub began: Option<bool>,
    /// Why nothing is done.
    pub withheld: Option<Withheld>,
    /// What is to be remembered, if it differs from what was known.
    pub tree: Option<Tree>,
}

/// Why a request is not edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// There was nothing to edit.
    NothingFound,
    /// The values stand where they stood when the conversation began, and did not change.
    Kept,
    /// What was done about the values of this workload saved nothing.
    SwitchedOff,
    /// The conversation was not seen from its start.
    NotFromStart,
    /// The conversation began unedited.
    BeganUnedited,
    /// The provider took the conversation only as it came.
    TakenAsItCame,
    /// There is no place where a value could be told.
    NoPlace,
    /// What would have to be remembered is longer than [`TREE_BYTES_MAX`].
    TooLong,
}

impl Withheld {
    /// The name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NothingFound => "nothing_found",
            Self::Kept => "kept",
            Self::SwitchedOff => "switched_off",
            Self::NotFromStart => "not_from_start",
            Self::BeganUnedited => "began_unedited",
            Self::TakenAsItCame => "taken_as_it_came",
            Self::NoPlace => "no_place",
            Self::TooLong => "too_long",
        }
    }
}

/// Plans the edits of a request, were all values moved that rules say to move. `tree` is what is
/// known under [`Thread::first`]; `rule_set` finds the rules that an older conversation goes by.
#[must_use]
pub fn plan(
    request: &Request<'_>,
    tree: Option<&Tree>,
    current: &RuleSet,
    rule_set: impl Fn(RulesId) -> Option<Arc<Rules>>,
) -> Plan {
    planner::plan(request, tree, current, &rule_set, &Standings::all_moved)
}

/// Plans the edits of a request as [`plan`] does; `standings` tells what is done about the values of
/// its workload, if a conversation begins with it.
#[must_use]
pub fn plan_measured(
    request: &Request<'_>,
    tree: Option<&Tree>,
    current: &RuleSet,
    rule_set: impl Fn(RulesId) -> Option<Arc<Rules>>,
    standings: impl Fn(&[Span]) -> Standings,
) -> Plan {
    planner::plan(request, tree, current, &rule_set, &standings)
}

/// Plans a request in another form than that in which its provider refused it, since the signatures in
/// it are bound to another history. The plan's tree notes that the conversation goes by that form from
/// then on: it is to be remembered once the provider took it. None, where there is no such form.
#[must_use]
pub fn plan_again(
    request: &Request<'_>,
    tree: Option<&Tree>,
    by: (&RuleSet, Form),
    rule_set: impl Fn(RulesId) -> Option<Arc<Rules>>,
    standings: impl Fn(&[Span]) -> Standings,
) -> Option<Plan> {
    again::plan(request, tree, by, &rule_set, &standings)
}

/// Whether prompts of this API, and in a body of this shape, are rewritten at all.
#[must_use]
pub fn covers(api: Api, body: &[u8]) -> bool {
    render::covers(api, body)
}

/// The version of what models read: part of the name of a rule set.
const FORMAT: &str = "1";
/// The rule of what is told, in the record of an exchange.
const CONTEXT_VALUES: &str = "context-values";
/// The rule that puts tools back in order.
const CANONICAL_TOOLS: &str = "canonical-tools";
