//! What a node does by itself: it decides on calls, ends them, and tells the book.

use weir_core::lease::{Ask, Charge, Take};

use super::world::{Call, Entry, LIMIT, Message, RESERVED_MAX, Truth, World};

impl World {
    pub(super) fn call(&mut self, at: usize) {
        let need = 1 + self.dice.below(RESERVED_MAX);
        self.decide(at, need, true);
    }

    pub(super) fn decide(&mut self, at: usize, need: i64, may_ask: bool) {
        let (now, (account, start)) = (self.local(at), self.account(at));
        let node = &mut self.nodes[at];
        let used = node.used.get(&account).copied().unwrap_or(0);
        let ask = Ask {
            account: &account,
            used,
            need,
            limit: LIMIT,
            from_ms: start,
            seed: 0,
            seed_ms: start,
        };
        if used + need <= node.slices.allowed(&account, now) {
            self.admit(at, need, &account, start);
            let used = used + need;
            let take = self.nodes[at].slices.refill(
                &Ask {
                    used,
                    need: 0,
                    ..ask
                },
                now,
            );
            self.ask(at, take);
        } else if may_ask && node.slices.short(&account, need, now).is_none() {
            let take = node.slices.ask(&ask, now);
            self.ask(at, take);
        } else {
            self.seen.refused += 1;
        }
    }

    pub(super) fn ask(&mut self, at: usize, take: Option<Take>) {
        if let Some(take) = take {
            let asked = (take.clone(), self.now);
            self.nodes[at].asked.insert(take.account.clone(), asked);
            self.send(at, Message::Take(take));
        }
    }

    pub(super) fn admit(&mut self, at: usize, need: i64, account: &str, at_ms: i64) {
        self.seen.admitted += 1;
        self.calls += 1;
        let ends_at = self.now + self.dice.below(20_000);
        let node = &mut self.nodes[at];
        let id = format!("{}-{}", node.holder, self.calls);
        let charge = Charge {
            account: account.to_owned(),
            at_ms,
            amount: need,
        };
        let journal = node.journals.entry(node.holder.clone()).or_default();
        journal
            .entries
            .push(Entry::Admitted(id.clone(), charge.clone()));
        *node.used.entry(account.to_owned()).or_default() += need;
        let truth = Truth {
            account: account.to_owned(),
            amount: need,
            is_burnt: false,
        };
        self.truth.insert(id.clone(), truth);
        *self
            .true_used
            .entry((account.to_owned(), node.holder.clone()))
            .or_default() += need;
        node.calls.push(Call {
            id,
            reserved: charge,
            ends_at,
        });
    }

    pub(super) fn end_calls(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.is_alive) {
            let (over, on): (Vec<_>, Vec<_>) = std::mem::take(&mut node.calls)
                .into_iter()
                .partition(|call| call.ends_at <= self.now);
            node.calls = on;
            for call in over {
                let amount = self.dice.below(call.reserved.amount + 1);
                let unused = call.reserved.amount - amount;
                let account = call.reserved.account.clone();
                *node.used.get_mut(&account).unwrap() -= unused;
                self.truth.get_mut(&call.id).unwrap().amount = amount;
                *self
                    .true_used
                    .get_mut(&(account, node.holder.clone()))
                    .unwrap() -= unused;
                let journal = node.journals.get_mut(&node.holder).unwrap();
                let charge = Charge {
                    amount,
                    ..call.reserved
                };
                journal.entries.push(Entry::Recorded(call.id, charge));
            }
        }
    }

    pub(super) fn keep_house(&mut self, at: usize) {
        let now = self.local(at);
        if !self.nodes[at].is_alive {
            if self.dice.hits(200) {
                self.restart(at);
            }
            return;
        }
        let given_up = self.now - 5_000;
        let node = &mut self.nodes[at];
        for (_, (take, _)) in node.asked.extract_if(.., |_, (_, asked)| *asked < given_up) {
            node.slices.answered(&take, None, now);
        }
        self.breathe(at, now);
        self.ship(at);
        let accounts: Vec<String> = self.nodes[at]
            .slices
            .accounts()
            .map(str::to_owned)
            .collect();
        for account in accounts {
            let start = account.strip_prefix("window ").unwrap().parse().unwrap();
            let node = &mut self.nodes[at];
            let used = node.used.get(&account).copied().unwrap_or(0);
            let ask = Ask {
                account: &account,
                used,
                need: 0,
                limit: LIMIT,
                from_ms: start,
                seed: 0,
                seed_ms: start,
            };
            let take = node.slices.give_back(&ask, now);
            self.ask(at, take);
        }
    }

    fn breathe(&mut self, at: usize, now: i64) {
        let holder = self.nodes[at].holder.clone();
        let sign = self.nodes[at].slices.sign();
        let message = Message::Sign {
            holder,
            sent_ms: now,
            sign,
        };
        self.send(at, message);
    }

    fn ship(&mut self, at: usize) {
        let node = &self.nodes[at];
        let mut messages = Vec::new();
        for (holder, journal) in &node.journals {
            let until = journal.entries.len().min(journal.shipped + 8);
            messages.push(if journal.shipped < journal.entries.len() {
                Message::Ship {
                    holder: holder.clone(),
                    from: journal.shipped,
                    entries: journal.entries[journal.shipped..until].to_vec(),
                }
            } else if *holder != node.holder {
                Message::End {
                    holder: holder.clone(),
                }
            } else {
                continue;
            });
        }
        messages
            .into_iter()
            .for_each(|message| self.send(at, message));
    }
}
