//! What a conversation was given, so that it can be given again.
//!
//! A [`Tree`] holds all conversations that begin with the same message of the same caller: retries,
//! branches and sub-agents are branches of it. A node stands for a turn of the application at which
//! something was told, and is found by the hash of the client's own history up to that turn. A tree
//! is plain data: the shell encrypts it, keeps it, and lets it expire.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::prompt::Fingerprint;
use crate::volatile::learned::Learned;

/// The conversations that begin with one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    nodes: Vec<Node>,
    /// Goes up with each use of a node.
    clock: u64,
}

/// What was told at the end of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    /// The client's history up to there.
    at: Fingerprint,
    /// The node before, by its index; none for the start of a conversation.
    parent: Option<usize>,
    /// What was told there.
    pub(super) told: Vec<Value>,
    /// What stood in the prefix at the start, and stays there.
    pub(super) kept: Vec<Value>,
    /// Of the start of a conversation.
    pub(super) origin: Option<Origin>,
    used: u64,
}

/// What there is to know of the start of a conversation, beside what is told.
pub(super) struct Start {
    pub(super) kept: Vec<Value>,
    pub(super) origin: Origin,
}

/// How a conversation began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The rules that it goes by for as long as it lasts.
    pub(super) rules: RulesId,
    /// The learned values that it goes by as well: they are kept here, so that they last as long as
    /// it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) learned: Vec<Learned>,
    /// Whether its requests are edited, or only watched.
    pub(super) applied: bool,
    /// The order of its tools, and of their keys.
    pub(super) tools: Vec<super::tools::Shape>,
    /// The values that nothing is done about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) off: Vec<String>,
}

/// A name for a set of rules: the hash of its text.
pub type RulesId = u64;

/// A value and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// As in the reference.
    pub name: String,
    /// As it stands in JSON, escapes included.
    pub raw: String,
}

impl Tree {
    /// Whether nothing is known.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Bytes that it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.nodes.iter().fold(0_usize, |sum, node| {
            let values = node
                .told
                .iter()
                .chain(&node.kept)
                .fold(0_usize, |sum, value| {
                    sum.saturating_add(value.name.len())
                        .saturating_add(value.raw.len())
                });
            let tools = node.origin.as_ref().map_or(0, |origin| {
                let off = origin.off.iter().map(String::len);
                let tools = origin.tools.iter().map(super::tools::Shape::bytes);
                let learned = origin.learned.len().saturating_mul(LEARNED_BYTES);
                tools.chain(off).fold(learned, usize::saturating_add)
            });
            sum.saturating_add(NODE_BYTES)
                .saturating_add(values)
                .saturating_add(tools)
        })
    }

    /// Whether any of its conversations is edited, so that it has to be remembered.
    #[must_use]
    pub fn has_edited(&self) -> bool {
        let mut origins = self.nodes.iter().filter_map(|node| node.origin.as_ref());
        origins.any(|origin| origin.applied)
    }

    /// The sets of rules that its conversations go by.
    pub fn rules(&self) -> impl Iterator<Item = RulesId> {
        self.nodes
            .iter()
            .filter_map(|node| node.origin.as_ref().map(|origin| origin.rules))
    }

    pub(super) fn node(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index)
    }

    /// The starts of conversations at `at`, the most recently used first.
    pub(super) fn starts(&self, at: Fingerprint) -> Vec<usize> {
        self.children(None, at)
    }

    /// The nodes at `at` that follow `parent`, the most recently used first.
    pub(super) fn children(&self, parent: Option<usize>, at: Fingerprint) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        let mut found: Vec<(u64, usize)> = nodes
            .filter(|(_, node)| node.at == at && node.parent == parent)
            .map(|(index, node)| (node.used, index))
            .collect();
        found.sort_unstable_by(|left, right| right.cmp(left));
        found.into_iter().map(|(_, index)| index).collect()
    }

    /// The nodes that others follow.
    pub(super) fn followed(&self) -> HashSet<usize> {
        self.nodes.iter().filter_map(|node| node.parent).collect()
    }

    /// Notes that a node is the one that the next turn will follow.
    pub(super) fn touch(&mut self, index: usize) {
        self.clock = self.clock.saturating_add(1);
        if let Some(node) = self.nodes.get_mut(index) {
            node.used = self.clock;
        }
    }

    /// Whether a node is the one that was used last.
    pub(super) fn is_latest(&self, index: usize) -> bool {
        self.node(index).is_some_and(|node| node.used == self.clock)
    }

    /// Adds a node; nothing, if the tree is full.
    pub(super) fn add(
        &mut self,
        parent: Option<usize>,
        at: Fingerprint,
        told: Vec<Value>,
        start: Option<Start>,
    ) -> Option<usize> {
        if self.nodes.len() >= NODES_MAX || self.bytes() >= TREE_BYTES_MAX {
            return None;
        }
        let index = self.nodes.len();
        let (kept, origin) = start.map(|start| (start.kept, start.origin)).unzip();
        self.nodes.push(Node {
            at,
            parent,
            told,
            kept: kept.unwrap_or_default(),
            origin,
            used: 0,
        });
        self.touch(index);
        Some(index)
    }
}

/// Nodes of a tree: turns at which something changed, over all conversations that begin alike.
pub const NODES_MAX: usize = 4096;
/// What a tree may hold, in bytes, before nothing is added.
pub const TREE_BYTES_MAX: usize = 512 << 10;
/// What a learned value takes, in bytes.
const LEARNED_BYTES: usize = size_of::<Learned>();
/// What a node takes beside its values, in bytes.
const NODE_BYTES: usize = 96;
