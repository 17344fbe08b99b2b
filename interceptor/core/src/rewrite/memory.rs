//! What a conversation was given, so that it can be given again.
//!
//! A [`Tree`] holds all conversations that begin with the same message of the same caller: retries,
//! branches and sub-agents are branches of it. A node stands for a turn of the application at which
//! something was told, and is found by the hash of the client's own history up to that turn. A tree
//! is plain data: the shell encrypts it, keeps it, and lets it expire.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::prompt::Fingerprint;
use crate::volatile::learned::Learned;

use super::likeness::Likeness;

/// The conversations that begin with one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    /// Goes up with each use of a node, and with time, so that it says of the uses of two trees which
    /// was later.
    pub(super) clock: u64,
}

/// What was told at the end of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    /// The client's history up to there.
    pub(super) at: Fingerprint,
    /// The node before, by its index; none for the start of a conversation.
    pub(super) parent: Option<usize>,
    /// What was told there.
    pub(super) told: Vec<Value>,
    /// What stood in the prefix at the start, and stays there.
    pub(super) kept: Vec<Value>,
    /// Of the start of a conversation.
    pub(super) origin: Option<Origin>,
    /// Whether the conversation goes edited from there on, where its provider refused it otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) edited: Option<bool>,
    pub(super) used: u64,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Value {
    /// As in the reference.
    pub name: String,
    /// As it stands in JSON, escapes included.
    pub raw: String,
    /// Of one that is told in the stead of one that stays in the prefix: the words before that, and
    /// its beginning, as JSON. Empty where a reference names it, and in what earlier versions told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
}

/// Values are the same if they are told the same, wherever they stand.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.raw == other.raw
    }
}

impl Eq for Value {}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.name, &self.raw).cmp(&(&other.name, &other.raw))
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
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
        let is_applied = |node: &Node| node.origin.as_ref().is_some_and(|origin| origin.applied);
        let mut nodes = self.nodes.iter();
        nodes.any(|node| node.edited == Some(true) || is_applied(node))
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

    /// Notes that a conversation goes edited, or as it came, from a node on.
    pub(super) fn go_by(&mut self, index: usize, edited: bool) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.edited = Some(edited);
        }
    }

    /// Notes that a node is the one that the next turn will follow. `now_s` is in seconds since the
    /// Unix epoch.
    pub(super) fn touch(&mut self, index: usize, now_s: i64) {
        let now = u64::try_from(now_s).unwrap_or(0);
        let now = now.saturating_mul(USES_PER_SECOND);
        self.clock = self.clock.saturating_add(1).max(now);
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
        now_s: i64,
    ) -> Option<usize> {
        let (kept, origin) = start.map(|start| (start.kept, start.origin)).unzip();
        let mut node = Node {
            at,
            parent,
            told,
            kept: kept.unwrap_or_default(),
            origin,
            edited: None,
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
        self.touch(index, now_s);
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
    /// What it says where it stands: two that follow the same and say the same are one.
    pub(super) fn says(&self) -> impl Ord {
        let origin = self.origin.as_ref().map(|origin| {
            let Origin {
                rules,
                learned,
                applied,
                tools,
                off,
                likeness,
                // One that begins alike is taken for the one before.
                began_s: _,
            } = origin;
            (rules, learned, applied, tools, off, likeness)
        });
        (self.at, &self.told, &self.kept, self.edited, origin)
    }

    /// Bytes that it holds, about.
    pub(super) fn bytes(&self) -> usize {
        let values = self.told.iter().chain(&self.kept);
        let values = values.map(|value| {
            let told = value.name.len().saturating_add(value.raw.len());
            told.saturating_add(value.place.len())
        });
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
pub(super) type Follows = (Option<usize>, Fingerprint);

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
/// How finely uses of different trees are told apart.
const USES_PER_SECOND: u64 = 1 << 20;
/// What a learned value takes, in bytes.
const LEARNED_BYTES: usize = size_of::<Learned>();
/// What a node takes beside its values, in bytes.
const NODE_BYTES: usize = 96;
