//! What a conversation was given, so that it can be given again.
//!
//! A [`Tree`] holds all conversations that begin with the same message of the same caller: retries,
//! branches and sub-agents are branches of it. A node stands for a turn of the application at which
//! something was told, and is found by the hash of the client's own history up to that turn. A tree
//! is plain data: the shell encrypts it, keeps it, and lets it expire.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::prompt::Fingerprint;
use crate::volatile::learned::Learned;

use super::likeness::Likeness;

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
    /// What its prompt says beside its values. None was kept by earlier versions.
    #[serde(default)]
    pub(super) likeness: Option<Likeness>,
    /// In seconds since the Unix epoch.
    #[serde(default)]
    pub(super) began_s: i64,
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
        let nodes = self.nodes.iter().map(Node::bytes);
        nodes.fold(0, usize::saturating_add)
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

    /// Takes in what another node of a fleet knows of the same conversations. Of two values told at
    /// one turn, both stay, and the one goes on that was used last. What does not fit is left out.
    ///
    /// Clocks of two trees are comparable as far as they were merged before: each goes on from the
    /// later of the two.
    pub fn merge(&mut self, other: &Self) {
        let mut known: HashMap<Follows, Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            known.entry((node.parent, node.at)).or_default().push(index);
        }
        let mut bytes = self.bytes();
        let mut here: Vec<Option<usize>> = Vec::with_capacity(other.nodes.len());
        for node in &other.nodes {
            // A parent stands before those that follow it.
            let parent = node
                .parent
                .map(|parent| here.get(parent).copied().flatten());
            if parent == Some(None) {
                here.push(None);
                continue;
            }
            let parent = parent.flatten();
            let alike = known.entry((parent, node.at)).or_default();
            let same = alike.iter().copied().find(|index| {
                let mine = self.nodes.get(*index);
                mine.is_some_and(|mine| mine.says_as(node))
            });
            let has_room = self.nodes.len() < NODES_MAX
                && bytes.saturating_add(node.bytes()) <= TREE_BYTES_MAX;
            here.push(match same {
                Some(same) => {
                    if let Some(mine) = self.nodes.get_mut(same) {
                        mine.used = mine.used.max(node.used);
                    }
                    Some(same)
                }
                None if has_room => {
                    bytes = bytes.saturating_add(node.bytes());
                    let index = self.nodes.len();
                    alike.push(index);
                    self.nodes.push(Node {
                        parent,
                        ..node.clone()
                    });
                    Some(index)
                }
                None => None,
            });
        }
        self.clock = self.clock.max(other.clock);
    }

    pub(super) fn node(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index)
    }

    /// The starts of conversations at `at`, the most recently used first.
    pub(super) fn starts(&self, at: Fingerprint) -> Vec<usize> {
        self.index().at(None, at).to_vec()
    }

    /// Where its nodes are, for who looks for several.
    pub(super) fn index(&self) -> Index {
        let mut index = Index::default();
        for (number, node) in self.nodes.iter().enumerate() {
            let alike = index.nodes.entry((node.parent, node.at)).or_default();
            alike.push(number);
        }
        let used = |number: &usize| Reverse((self.node(*number).map(|node| node.used), *number));
        for alike in index.nodes.values_mut() {
            alike.sort_unstable_by_key(used);
        }
        index
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

    /// Whether conversations will soon have to go for others.
    pub(super) fn is_crowded(&self) -> bool {
        self.nodes.len() >= NODES_MAX / 2 || self.bytes() >= TREE_BYTES_MAX / 2
    }

    /// Adds a node. In a full tree the conversation goes that was not used for longest; nothing is
    /// added, if there is none but the one that the node belongs to.
    pub(super) fn add(
        &mut self,
        parent: Option<usize>,
        at: Fingerprint,
        told: Vec<Value>,
        start: Option<Start>,
    ) -> Option<usize> {
        let (kept, origin) = start.map(|start| (start.kept, start.origin)).unzip();
        let mut node = Node {
            at,
            parent,
            told,
            kept: kept.unwrap_or_default(),
            origin,
            used: 0,
        };
        let bytes = node.bytes();
        if bytes > TREE_BYTES_MAX {
            return None;
        }
        while self.nodes.len() >= NODES_MAX || self.bytes().saturating_add(bytes) > TREE_BYTES_MAX {
            node.parent = self.evict(node.parent)?;
        }
        let index = self.nodes.len();
        self.nodes.push(node);
        self.touch(index);
        Some(index)
    }

    /// Forgets the conversation that was not used for longest, but not that of `kept`; gives the new
    /// index of that. None, if there is no other.
    fn evict(&mut self, kept: Option<usize>) -> Option<Option<usize>> {
        // A parent stands before those that follow it.
        let mut starts: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut used: BTreeMap<usize, u64> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let before = node.parent.and_then(|parent| starts.get(parent).copied());
            let start = before.unwrap_or(index);
            starts.push(start);
            let last = used.entry(start).or_default();
            *last = node.used.max(*last);
        }
        if let Some(kept) = kept {
            used.remove(starts.get(kept)?);
        }
        let (oldest, _) = used.into_iter().min_by_key(|(_, used)| *used)?;
        let mut left = 0_usize;
        let places = starts.iter().map(|start| {
            let place = (*start != oldest).then_some(left);
            left = left.saturating_add(usize::from(place.is_some()));
            place
        });
        let places: Vec<Option<usize>> = places.collect();
        let place = |index: usize| places.get(index).copied().flatten();
        let nodes = std::mem::take(&mut self.nodes).into_iter().enumerate();
        let nodes = nodes.filter(|(index, _)| place(*index).is_some());
        self.nodes = nodes
            .map(|(_, node)| Node {
                parent: node.parent.and_then(place),
                ..node
            })
            .collect();
        Some(kept.and_then(place))
    }
}

impl Node {
    /// Whether the same was told as at `other`, which stands at the same place.
    fn says_as(&self, other: &Self) -> bool {
        self.told == other.told && self.kept == other.kept && self.origin == other.origin
    }

    /// Bytes that it holds, about.
    fn bytes(&self) -> usize {
        let values = self.told.iter().chain(&self.kept);
        let values = values.map(|value| value.name.len().saturating_add(value.raw.len()));
        let origin = self.origin.as_ref().map_or(0, |origin| {
            let off = origin.off.iter().map(String::len);
            let tools = origin.tools.iter().map(super::tools::Shape::bytes);
            let learned = origin.learned.len().saturating_mul(LEARNED_BYTES);
            let likeness = origin.likeness.as_ref().map_or(0, Likeness::bytes);
            let fixed = learned.saturating_add(likeness);
            tools.chain(off).fold(fixed, usize::saturating_add)
        });
        values.fold(NODE_BYTES.saturating_add(origin), usize::saturating_add)
    }
}

/// Where the nodes of a tree are.
#[derive(Debug, Default)]
pub(super) struct Index {
    nodes: HashMap<Follows, Vec<usize>>,
}

/// The node before, and the client's history.
type Follows = (Option<usize>, Fingerprint);

impl Index {
    /// The nodes at `at` that follow `parent`, the most recently used first.
    pub(super) fn at(&self, parent: Option<usize>, at: Fingerprint) -> &[usize] {
        self.nodes.get(&(parent, at)).map_or(&[], Vec::as_slice)
    }
}

/// Nodes of a tree: turns at which something changed, over all conversations that begin alike.
pub const NODES_MAX: usize = 4096;
/// What a tree may hold, in bytes, before conversations go for others.
pub const TREE_BYTES_MAX: usize = 512 << 10;
/// What a learned value takes, in bytes.
const LEARNED_BYTES: usize = size_of::<Learned>();
/// What a node takes beside its values, in bytes.
const NODE_BYTES: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn value(raw: &str) -> Vec<Value> {
        vec![Value {
            name: "current-date".to_owned(),
            raw: raw.to_owned(),
        }]
    }

    /// A conversation that began with `1`.
    fn begun() -> (Tree, Option<usize>) {
        let mut tree = Tree::default();
        let start = tree.add(None, 1, value("1"), None);
        (tree, start)
    }

    #[test]
    fn two_nodes_that_went_on_apart_know_both_turns_and_the_later_one_goes_on() {
        let (mut here, start) = begun();
        let mut there = here.clone();
        here.add(start, 2, value("2"), None);
        there.add(start, 2, value("2"), None);
        there.add(start, 3, value("3"), None);
        let mut both = here.clone();
        both.merge(&there);
        assert_eq!(both.nodes.len(), 3, "{both:?}");
        let again = both.clone();
        both.merge(&there);
        both.merge(&here);
        assert_eq!(both, again, "what is known is not taken in twice");
        // Another attempt at a turn, at another node and later, is the one that counts.
        there.add(start, 2, value("2 again"), None);
        both.merge(&there);
        let index = both.index();
        let latest = index
            .at(start, 2)
            .first()
            .and_then(|index| both.node(*index));
        assert_eq!(latest.map(|node| &node.told), Some(&value("2 again")));
    }

    #[test]
    fn what_is_damaged_or_does_not_fit_is_left_out() {
        let (mut here, _) = begun();
        let mut damaged = here.clone();
        damaged.add(Some(7), 2, value("2"), None);
        here.merge(&damaged);
        assert_eq!(here.nodes.len(), 1);
        let (mut full, start) = begun();
        for at in 2..5000 {
            full.add(start, at, Vec::new(), None);
        }
        let (mut other, start) = begun();
        other.add(start, 9000, value("9"), None);
        full.merge(&other);
        assert_eq!(full.nodes.len(), NODES_MAX);
        other.merge(&full);
        assert_eq!(other.nodes.len(), NODES_MAX);
    }
}
