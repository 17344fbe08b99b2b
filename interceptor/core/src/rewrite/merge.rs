//! Puts together what several nodes of a fleet, or processes of one, know of the same conversations.
//!
//! All that is known stands in the result once, what was used last first; what does not fit then goes
//! from the end. So the result depends on what is known and on nothing else: which of two trees took
//! in the other makes no difference, nor does taking in again what is known. Both may thus be done at
//! any time, by anyone.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use super::memory::{Follows, NODES_MAX, Node, TREE_BYTES_MAX, Tree};

impl Tree {
    /// Takes in what others know of the same conversations. Of two values told at one turn both stay,
    /// and the one goes on that was used last. The bounds hold as in [`Tree`]: what was not used for
    /// longest goes for them, from the ends of conversations.
    pub fn merge(&mut self, other: &Self) {
        let mut known = Known::default();
        known.take_in(&std::mem::take(&mut self.nodes));
        known.take_in(&other.nodes);
        known.use_ways();
        self.nodes = known.kept();
        self.clock = self.clock.max(other.clock);
    }
}

/// All that several trees know, each node behind that which it follows.
#[derive(Default)]
struct Known {
    nodes: Vec<Node>,
    /// How many come before a node.
    depths: Vec<usize>,
    places: HashMap<Follows, Vec<usize>>,
}

impl Known {
    fn take_in(&mut self, nodes: &[Node]) {
        let mut here: Vec<Option<usize>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            // A parent stands before those that follow it; what is damaged is left out.
            let parent = node.parent.map(|at| here.get(at).copied().flatten());
            let place = match parent {
                Some(None) => None,
                Some(Some(parent)) => Some(self.place(Some(parent), node)),
                None => Some(self.place(None, node)),
            };
            here.push(place);
        }
    }

    /// What was used is all that leads there.
    fn use_ways(&mut self) {
        for index in (0..self.nodes.len()).rev() {
            let Some((parent, used)) = self.nodes.get(index).map(|node| (node.parent, node.used))
            else {
                continue;
            };
            if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
                parent.used = parent.used.max(used);
            }
        }
    }

    fn place(&mut self, parent: Option<usize>, node: &Node) -> usize {
        let alike = self.places.entry((parent, node.at)).or_default();
        for index in alike.iter().copied() {
            if let Some(mine) = self.nodes.get_mut(index)
                && mine.says() == node.says()
            {
                // What is told the same may be worded otherwise: as it was told last.
                if wording(mine) < wording(node) {
                    mine.told.clone_from(&node.told);
                    mine.kept.clone_from(&node.kept);
                }
                mine.used = mine.used.max(node.used);
                if let (Some(mine), Some(other)) = (&mut mine.origin, &node.origin) {
                    mine.began_s = mine.began_s.min(other.began_s);
                }
                return index;
            }
        }
        let index = self.nodes.len();
        alike.push(index);
        let depth = parent.and_then(|parent| self.depths.get(parent));
        let depth = depth.map_or(0, |depth| depth.saturating_add(1));
        self.depths.push(depth);
        self.nodes.push(Node {
            parent,
            ..node.clone()
        });
        index
    }

    /// What fits of it, in an order of its own.
    fn kept(self) -> Vec<Node> {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_unstable_by(|one, other| self.compare(*one, *other));
        let mut places: Vec<Option<usize>> = vec![None; self.nodes.len()];
        let (mut kept, mut bytes) = (Vec::new(), 0_usize);
        for index in order {
            let Some(node) = self.nodes.get(index) else {
                continue;
            };
            let parent = node.parent.map(|at| places.get(at).copied().flatten());
            let with_it = bytes.saturating_add(node.bytes());
            if parent == Some(None) || kept.len() >= NODES_MAX || with_it > TREE_BYTES_MAX {
                continue;
            }
            bytes = with_it;
            if let Some(place) = places.get_mut(index) {
                *place = Some(kept.len());
            }
            kept.push(Node {
                parent: parent.flatten(),
                ..node.clone()
            });
        }
        kept
    }

    /// What was used last comes first, a parent before those that follow it; between others the order
    /// is any, as long as it is always the same.
    fn compare(&self, mut one: usize, mut other: usize) -> Ordering {
        let rank = |at: usize| (Reverse(self.used(at)), self.depths.get(at));
        let by_rank = rank(one).cmp(&rank(other));
        if by_rank.is_ne() {
            return by_rank;
        }
        loop {
            let (Some(mine), Some(its)) = (self.nodes.get(one), self.nodes.get(other)) else {
                return Ordering::Equal;
            };
            let by_what_is_said = mine.says().cmp(&its.says());
            match (mine.parent, its.parent) {
                _ if by_what_is_said.is_ne() => return by_what_is_said,
                (Some(mine), Some(its)) if mine != its => (one, other) = (mine, its),
                _ => return Ordering::Equal,
            }
        }
    }

    fn used(&self, index: usize) -> Option<u64> {
        self.nodes.get(index).map(|node| node.used)
    }
}

/// When something was told, and in which words beside what [`Node::says`].
fn wording(node: &Node) -> (u64, Vec<&str>) {
    let values = node.told.iter().chain(&node.kept);
    (
        node.used,
        values.map(|value| value.place.as_str()).collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::memory::{Origin, Start, Value};
    use super::*;

    fn value(raw: &str) -> Vec<Value> {
        vec![Value {
            name: "current-date".to_owned(),
            raw: raw.to_owned(),
            place: String::new(),
        }]
    }

    fn start(began_s: i64) -> Start {
        Start {
            kept: Vec::new(),
            origin: Origin {
                rules: 1,
                learned: Vec::new(),
                applied: true,
                tools: Vec::new(),
                off: Vec::new(),
                likeness: None,
                began_s,
            },
        }
    }

    /// A conversation that began with `1`.
    fn begun() -> (Tree, Option<usize>) {
        let mut tree = Tree::default();
        let first = tree.add(None, 1, value("1"), Some(start(0)), 0);
        (tree, first)
    }

    fn told_at(tree: &Tree, parent: Option<usize>, at: u128) -> Option<Vec<Value>> {
        let index = tree.index();
        let latest = index.at(parent, at).first()?;
        Some(tree.node(*latest)?.told.clone())
    }

    #[test]
    fn two_nodes_that_went_on_apart_know_both_turns_and_the_later_one_goes_on() {
        let (mut here, first) = begun();
        let mut there = here.clone();
        here.add(first, 2, value("2"), None, 5);
        there.add(first, 2, value("2"), None, 5);
        there.add(first, 3, value("3"), None, 5);
        let mut both = here.clone();
        both.merge(&there);
        assert_eq!(both.nodes.len(), 3, "{both:?}");
        assert_eq!(told_at(&both, Some(0), 2), Some(value("2")));
        // Another attempt at a turn, later at a node that was used less, is the one that counts.
        for _ in 0..9 {
            both.touch(1, 6);
        }
        there.add(first, 2, value("2 again"), None, 7);
        both.merge(&there);
        assert_eq!(told_at(&both, Some(0), 2), Some(value("2 again")));
    }

    #[test]
    fn a_conversation_that_began_alike_at_two_nodes_is_one() {
        let mut here = Tree::default();
        here.add(None, 1, value("1"), Some(start(20)), 20);
        let mut there = Tree::default();
        there.add(None, 1, value("1"), Some(start(10)), 10);
        here.merge(&there);
        assert_eq!(here.nodes.len(), 1);
        let origin = here.nodes[0].origin.as_ref().unwrap();
        assert_eq!(origin.began_s, 10);
    }

    #[test]
    fn what_is_damaged_is_left_out() {
        let (mut here, _) = begun();
        let mut damaged = here.clone();
        damaged.add(Some(7), 2, value("2"), None, 0);
        here.merge(&damaged);
        assert_eq!(here.nodes.len(), 1);
    }

    #[test]
    fn of_more_than_fits_the_latest_is_kept() {
        let (mut full, first) = begun();
        for at in 2..5000 {
            full.add(first, at, Vec::new(), None, 1);
        }
        let (mut other, first) = begun();
        other.add(first, 9000, value("9"), None, 2);
        let mut both = full.clone();
        both.merge(&other);
        assert_eq!(both.nodes.len(), NODES_MAX);
        assert_eq!(told_at(&both, Some(0), 9000), Some(value("9")));
        other.merge(&full);
        assert_eq!(other, both);
    }

    /// Of a node: what it follows, where it stands, what it says, when.
    type Step = (usize, u8, u8, u8);
    /// The turns from a start to a node.
    type Way = Vec<(u128, Vec<Value>)>;

    fn grown(steps: &[Step]) -> Tree {
        let mut tree = Tree::default();
        for (parent, at, said, now_s) in steps {
            let parent = parent.checked_sub(1).filter(|at| *at < tree.nodes.len());
            // Some that are so long that five do not fit into one tree.
            let raw =
                "x".repeat(usize::from(*said).saturating_mul(if *said < 4 { 1 } else { 20_000 }));
            let start = parent.is_none().then(|| start(i64::from(*now_s)));
            let mut told = value(&raw);
            told[0].place = now_s.to_string();
            tree.add(parent, u128::from(*at), told, start, i64::from(*now_s));
        }
        tree
    }

    fn trees() -> impl Strategy<Value = Tree> {
        prop::collection::vec((0..6_usize, 0..3_u8, 0..6_u8, 0..8_u8), 0..14)
            .prop_map(|steps| grown(&steps))
    }

    proptest! {
        #[test]
        fn who_takes_in_whom_makes_no_difference_nor_how_often(one in trees(), other in trees()) {
            let merged = |mut into: Tree, what: &Tree| {
                into.merge(what);
                into
            };
            // The words before a value included, which do not make it another one.
            let all = |tree: Tree| {
                let values = tree.nodes.iter().flat_map(|node| &node.told);
                let places: Vec<String> = values.map(|value| value.place.clone()).collect();
                (tree, places)
            };
            let both = merged(one.clone(), &other);
            prop_assert_eq!(all(both.clone()), all(merged(other.clone(), &one)));
            for known in [&one, &other, &both] {
                prop_assert_eq!(all(both.clone()), all(merged(both.clone(), known)));
                prop_assert_eq!(all(both.clone()), all(merged(known.clone(), &both)));
            }
            prop_assert!(both.bytes() <= TREE_BYTES_MAX && both.nodes.len() <= NODES_MAX);
        }

        #[test]
        fn nothing_that_fits_is_lost(one in trees(), other in trees()) {
            let mut both = one.clone();
            both.merge(&other);
            prop_assume!(one.bytes().saturating_add(other.bytes()) <= TREE_BYTES_MAX);
            // Each way from a start, by what is said on it.
            let ways = |tree: &Tree| {
                let mut ways: Vec<Way> = Vec::new();
                for node in &tree.nodes {
                    let mut way = node.parent.map_or_else(Vec::new, |at| ways[at].clone());
                    way.push((node.at, node.told.clone()));
                    ways.push(way);
                }
                ways
            };
            let known = ways(&both);
            for way in ways(&one).into_iter().chain(ways(&other)) {
                prop_assert!(known.contains(&way), "{way:?}");
            }
        }
    }
}
