//! The world of the simulation: nodes, a network, the shared book, and what is true.

use std::collections::BTreeMap;

use weir_core::lease::{Answer, Book, Charge, LEASE_MS, Sign, Slices, Take};

use super::dice::Dice;

/// What happened, to see that something did.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) crashed: u64,
    pub(crate) disks_lost: u64,
    pub(crate) given_up: u64,
    pub(crate) given_up_alive: u64,
    pub(crate) over_limit: u64,
    pub(crate) late_answers: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.admitted += other.admitted;
        self.refused += other.refused;
        self.crashed += other.crashed;
        self.disks_lost += other.disks_lost;
        self.given_up += other.given_up;
        self.given_up_alive += other.given_up_alive;
        self.over_limit += other.over_limit;
        self.late_answers += other.late_answers;
    }
}

#[derive(Clone, Debug)]
pub(super) enum Entry {
    Admitted(String, Charge),
    Recorded(String, Charge),
}

#[derive(Clone, Debug)]
pub(super) enum Message {
    Sign {
        holder: String,
        sent_ms: i64,
        sign: Sign,
    },
    Signed {
        holder: String,
        sent_ms: i64,
        sign: Sign,
        accepted: bool,
    },
    Take(Take),
    Answered(Take, Answer),
    Ship {
        holder: String,
        from: usize,
        entries: Vec<Entry>,
    },
    Shipped {
        holder: String,
        until: usize,
    },
    End {
        holder: String,
    },
    Ended {
        holder: String,
    },
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) reserved: Charge,
    pub(super) ends_at: i64,
}

#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) entries: Vec<Entry>,
    pub(super) shipped: usize,
}

pub(super) struct Node {
    pub(super) holder: String,
    pub(super) slices: Slices,
    /// Its clock: an offset, and thousandths of the true speed.
    pub(super) clock: (i64, i64),
    pub(super) is_alive: bool,
    pub(super) is_cut_off: bool,
    /// Its own journal, and those that it takes over, by holder.
    pub(super) journals: BTreeMap<String, Journal>,
    /// Spent and reserved by its present process, by account.
    pub(super) used: BTreeMap<String, i64>,
    pub(super) calls: Vec<Call>,
    /// Questions that are not answered yet, by account, and when they were asked.
    pub(super) asked: BTreeMap<String, (Take, i64)>,
}

/// From or to which node, and what.
pub(super) type Sent = (usize, Message);

/// A call that was sent.
pub(super) struct Truth {
    pub(super) account: String,
    /// Reserved, or spent once it is over.
    pub(super) amount: i64,
    /// The journal that knew of it is gone.
    pub(super) is_burnt: bool,
}

pub(crate) struct World {
    pub(super) dice: Dice,
    pub(super) now: i64,
    pub(super) book: Book,
    pub(super) nodes: Vec<Node>,
    pub(super) network: BTreeMap<(i64, u64), Sent>,
    pub(super) sent: u64,
    pub(super) calls: u64,
    pub(super) trouble: i64,
    /// What is true of each call, whoever knows of it.
    pub(super) truth: BTreeMap<String, Truth>,
    /// The sum of it, by account and holder.
    pub(super) true_used: BTreeMap<(String, String), i64>,
    /// What holders that were given up had used and not told, by account.
    pub(super) excused: BTreeMap<String, i64>,
    pub(super) seen: Seen,
}

pub(super) const LIMIT: i64 = 10_000;
pub(super) const RESERVED_MAX: i64 = 400;
/// Windows of the simulated cap, by each node's own clock.
const WINDOW_MS: i64 = 90_000;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed + 1);
        let count = 1 + dice.below(5);
        let trouble = [0, 20, 100, 300][usize::try_from(dice.below(4)).unwrap()];
        let nodes = (0..count)
            .map(|number| Node {
                holder: format!("{number}"),
                slices: Slices::new(format!("{number}")),
                clock: (dice.below(40_000) - 20_000, 750 + dice.below(600)),
                is_alive: true,
                is_cut_off: false,
                journals: BTreeMap::new(),
                used: BTreeMap::new(),
                calls: Vec::new(),
                asked: BTreeMap::new(),
            })
            .collect();
        Self {
            dice,
            now: 1_000_000,
            book: Book::default(),
            nodes,
            network: BTreeMap::new(),
            sent: 0,
            calls: 0,
            trouble,
            truth: BTreeMap::new(),
            true_used: BTreeMap::new(),
            excused: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    pub(crate) fn run(mut self) -> Seen {
        for step in 0..700 {
            self.step(step % 10 == 0);
            self.check_bound();
        }
        self.come_to_rest();
        self.check_rest();
        self.seen
    }

    fn step(&mut self, is_tick: bool) {
        self.now += self.dice.below(400);
        self.deliver();
        let at = self.any_node();
        if self.dice.hits(self.trouble) {
            self.disturb(at);
        }
        self.end_calls();
        if self.nodes[at].is_alive {
            let burst = 1 + self.dice.below(3);
            (0..burst).for_each(|_| self.call(at));
        }
        if is_tick {
            (0..self.nodes.len()).for_each(|at| self.keep_house(at));
            self.give_up_silent();
        }
    }

    fn any_node(&mut self) -> usize {
        let count = i64::try_from(self.nodes.len()).unwrap();
        usize::try_from(self.dice.below(count)).unwrap()
    }

    pub(super) fn local(&self, at: usize) -> i64 {
        let (offset, permille) = self.nodes[at].clock;
        offset + self.now * permille / 1000
    }

    /// The wall clock is off, but runs true.
    pub(super) fn account(&self, at: usize) -> (String, i64) {
        let start = (self.now + self.nodes[at].clock.0).div_euclid(WINDOW_MS) * WINDOW_MS;
        (format!("window {start}"), start)
    }

    fn disturb(&mut self, at: usize) {
        match self.dice.below(10) {
            0..3 => self.nodes[at].is_cut_off = true,
            3..7 => self.nodes[at].is_cut_off = false,
            7 => self.now += self.dice.below(2 * LEASE_MS),
            8 => self.crash(at),
            _ => {
                if self.nodes[at].is_alive && self.dice.hits(300) {
                    self.crash(at);
                    self.burn(at);
                }
            }
        }
    }

    /// The process is killed. Its journal stays, and the next one takes it over.
    fn crash(&mut self, at: usize) {
        self.seen.crashed += 1;
        let node = &mut self.nodes[at];
        node.is_alive = false;
        node.asked.clear();
        // What was sent is billed: at most with what was reserved.
        node.calls.clear();
        node.used.clear();
    }

    /// The disk is gone as well: with it, what was not shipped.
    fn burn(&mut self, at: usize) {
        self.seen.disks_lost += 1;
        for journal in std::mem::take(&mut self.nodes[at].journals).into_values() {
            for entry in journal.entries {
                let (Entry::Admitted(id, _) | Entry::Recorded(id, _)) = entry;
                self.truth.get_mut(&id).unwrap().is_burnt = true;
            }
        }
    }

    pub(super) fn restart(&mut self, at: usize) {
        self.calls += 1;
        let node = &mut self.nodes[at];
        node.holder = format!("{at}.{}", self.calls);
        node.slices = Slices::new(node.holder.clone());
        node.is_alive = true;
    }

    fn give_up_silent(&mut self) {
        for holder in self.book.silent(self.now) {
            self.seen.given_up += 1;
            let lives = |node: &Node| node.is_alive && node.holder == holder;
            self.seen.given_up_alive += u64::from(self.nodes.iter().any(lives));
            self.excuse(&holder);
            self.book.end(&holder);
        }
    }

    /// Notes what a holder has used that the book does not know, which is all that it can use.
    fn excuse(&mut self, holder: &str) {
        let of_holder = |id: &str| id.rsplit_once('-').map(|(by, _)| by) == Some(holder);
        for (id, truth) in self.truth.iter().filter(|(id, _)| of_holder(id)) {
            if self.book.charges_of(id).is_none() {
                *self.excused.entry(truth.account.clone()).or_default() += truth.amount;
            }
        }
    }

    fn check_bound(&mut self) {
        let mut by_account: BTreeMap<&String, i64> = BTreeMap::new();
        for ((account, _), used) in &self.true_used {
            *by_account.entry(account).or_default() += used;
        }
        for (account, used) in by_account {
            let excused = self.excused.get(account).copied().unwrap_or(0);
            self.seen.over_limit += u64::from(used > LIMIT);
            assert!(
                used <= LIMIT + excused,
                "{account} at {}: {used} is more than {LIMIT} and {excused} untold",
                self.now
            );
        }
    }

    fn come_to_rest(&mut self) {
        self.trouble = 0;
        for node in &mut self.nodes {
            node.is_cut_off = false;
        }
        for _ in 0..400 {
            self.now += 500;
            self.deliver();
            self.end_calls();
            (0..self.nodes.len()).for_each(|at| self.keep_house(at));
            self.give_up_silent();
            self.check_bound();
        }
    }

    fn check_rest(&self) {
        let mut known: BTreeMap<&str, i64> = BTreeMap::new();
        for (id, truth) in &self.truth {
            let charged = self.book.charges_of(id).map(|charges| charges[0].amount);
            assert!(
                truth.is_burnt || charged == Some(truth.amount),
                "{id}: {charged:?}, {}",
                truth.amount
            );
            *known.entry(&truth.account).or_default() += charged.unwrap_or(0);
        }
        for (account, known) in known {
            assert_eq!(
                self.book.spent(account, 0),
                known,
                "{account}: counted twice"
            );
            assert_eq!(self.book.held(account, 0), 0, "{account}: a slice is kept");
        }
    }
}
