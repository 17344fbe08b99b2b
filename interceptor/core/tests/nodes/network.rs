//! The way to the book and back: lossy, late, doubled, in any order.

use weir_core::lease::{LEASE_MS, Sign};

use super::world::{Entry, Message, RESERVED_MAX, World};

impl World {
    /// To or from a node: perhaps lost, perhaps twice, after some time.
    pub(super) fn send(&mut self, at: usize, message: Message) {
        let times = if self.dice.hits(self.trouble) {
            self.dice.below(3)
        } else {
            1
        };
        for _ in 0..times {
            let late = self.dice.hits(self.trouble / 4);
            let delay = self.dice.below(if late { 3 * LEASE_MS } else { 300 });
            self.sent += 1;
            let when = (self.now + delay, self.sent);
            self.network.insert(when, (at, message.clone()));
        }
    }

    pub(super) fn deliver(&mut self) {
        while let Some(entry) = self.network.first_entry()
            && entry.key().0 <= self.now
        {
            let (at, message) = entry.remove();
            if !self.nodes[at].is_cut_off {
                self.receive(at, message);
            }
        }
    }

    fn receive(&mut self, at: usize, message: Message) {
        match message {
            Message::Sign {
                holder,
                sent_ms,
                sign,
            } => {
                let accepted = match sign {
                    Sign::Register { epoch } => self.book.register(&holder, epoch, self.now),
                    Sign::Renew { epoch } => self.book.renew(&holder, epoch, self.now),
                };
                let signed = Message::Signed {
                    holder,
                    sent_ms,
                    sign,
                    accepted,
                };
                self.send(at, signed);
            }
            Message::Take(take) => {
                let answer = self.book.take(&take);
                self.send(at, Message::Answered(take, answer));
            }
            Message::Ship {
                holder,
                from,
                entries,
            } => {
                let until = from + entries.len();
                for entry in entries {
                    match entry {
                        Entry::Admitted(id, charge) => self.book.admit(&id, &holder, &[charge]),
                        Entry::Recorded(id, charge) => self.book.charge(&id, &holder, &[charge]),
                    }
                }
                self.send(at, Message::Shipped { holder, until });
            }
            Message::End { holder } => {
                self.book.end(&holder);
                self.send(at, Message::Ended { holder });
            }
            reply if self.nodes[at].is_alive => self.hear(at, reply),
            _ => {}
        }
    }

    fn hear(&mut self, at: usize, reply: Message) {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        match reply {
            Message::Signed {
                holder,
                sent_ms,
                sign,
                accepted,
            } if holder == node.holder => node.slices.signed(sent_ms, sign, accepted),
            Message::Answered(take, answer) => {
                let is_late = node.asked.get(&take.account).map(|(asked, _)| asked) != Some(&take);
                self.seen.late_answers += u64::from(is_late);
                if take.holder == node.holder {
                    if !is_late {
                        node.asked.remove(&take.account);
                    }
                    node.slices.answered(&take, Some(answer), now);
                    self.decide(at, take.least.min(RESERVED_MAX), false);
                }
            }
            Message::Shipped { holder, until } => {
                if let Some(journal) = node.journals.get_mut(&holder) {
                    journal.shipped = journal.shipped.max(until);
                }
            }
            Message::Ended { holder } if holder != node.holder => {
                node.journals.remove(&holder);
            }
            _ => {}
        }
    }
}
