//! What all holders share: what each is allowed, and what was spent. A database does these steps as
//! single statements; this is what they are held to.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Charge, FREE_SHARE, LEASE_MS, Take};

/// The shared book. Times are of its own clock, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Book {
    holders: BTreeMap<String, Holder>,
    accounts: BTreeMap<String, Account>,
    exchanges: BTreeMap<String, Exchange>,
}

#[derive(Clone, Debug)]
struct Exchange {
    holder: String,
    state: State,
    /// What is reserved for it, or what it was charged.
    charges: Vec<Charge>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    epoch: i64,
    /// Until when it is believed to live; none once it has ended or was given up. Its epoch is
    /// remembered, so that a registration that comes late does not bring it back.
    until_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    /// Charged with what was reserved, because its holder was given up.
    Presumed,
    Told,
}

#[derive(Clone, Debug, Default)]
struct Account {
    is_seeded: bool,
    leases: BTreeMap<String, Lease>,
    /// By holder and time. The holders that have ended share an empty name.
    spent: BTreeMap<(String, i64), i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    number: i64,
    allowed: i64,
}

impl Book {
    /// A holder begins, or begins anew with nothing. False where it has to take a higher epoch.
    pub fn register(&mut self, holder: &str, epoch: i64, now_ms: i64) -> bool {
        let known = self
            .holders
            .get(holder)
            .map_or(i64::MIN, |known| known.epoch);
        if epoch <= known {
            return self.renew(holder, epoch, now_ms);
        }
        let until_ms = Some(now_ms.saturating_add(LEASE_MS));
        let registered = Holder { epoch, until_ms };
        self.holders.insert(holder.to_owned(), registered);
        self.return_slices(holder);
        true
    }

    /// A holder gives a sign of life. False where it is not known as that: it has to register.
    pub fn renew(&mut self, holder: &str, epoch: i64, now_ms: i64) -> bool {
        match self.holders.get_mut(holder) {
            Some(known) if known.epoch == epoch && known.until_ms.is_some() => {
                known.until_ms = Some(now_ms.saturating_add(LEASE_MS));
                true
            }
            _ => false,
        }
    }

    /// A holder asks for more, or gives back.
    pub fn take(&mut self, take: &Take) -> Answer {
        let holder = self.holders.get(&take.holder);
        if holder.is_none_or(|known| known.epoch != take.epoch || known.until_ms.is_none()) {
            return Answer::Unknown;
        }
        let account = self.accounts.entry(take.account.clone()).or_default();
        account.seed(take);
        let others = account
            .totals(take.from_ms, Some(&take.holder))
            .fold(0_i64, i64::saturating_add);
        let free = take.limit.saturating_sub(others);
        let lease = account.leases.entry(take.holder.clone()).or_default();
        if take.number <= lease.number {
            return Answer::Stale;
        }
        lease.number = take.number;
        if free < take.least {
            lease.allowed = lease.allowed.min(take.most);
            let allowed = lease.allowed;
            let spent = account.spent_since(take.from_ms);
            let all = account
                .totals(take.from_ms, None)
                .fold(0_i64, i64::saturating_add);
            return Answer::Short {
                number: take.number,
                allowed,
                spent,
                held: all.saturating_sub(spent),
            };
        }
        let plenty = free.saturating_sub(take.least).div_euclid(FREE_SHARE);
        let wanted = take.least.saturating_add(plenty).max(lease.allowed);
        lease.allowed = wanted.min(take.most).max(take.least);
        Answer::Granted {
            number: take.number,
            allowed: lease.allowed,
        }
    }

    /// An exchange is in flight, and these amounts are reserved for it by now.
    pub fn admit(&mut self, exchange: &str, holder: &str, charges: &[Charge]) {
        let admitted = Exchange {
            holder: holder.to_owned(),
            state: State::InFlight,
            charges: charges.to_vec(),
        };
        let known = self.exchanges.get(exchange);
        if known.is_none_or(|known| known.state == State::InFlight) {
            self.exchanges.insert(exchange.to_owned(), admitted);
        }
    }

    /// An exchange is over, and cost this. Told again, it changes nothing; but what was only
    /// presumed gives way to what is told.
    pub fn charge(&mut self, exchange: &str, holder: &str, charges: &[Charge]) {
        let told = Exchange {
            holder: holder.to_owned(),
            state: State::Told,
            charges: charges.to_vec(),
        };
        match self.exchanges.get(exchange) {
            Some(known) if known.state == State::Told => return,
            Some(known) if known.state == State::Presumed => {
                for charge in &known.charges {
                    let account = self.accounts.entry(charge.account.clone()).or_default();
                    let amount = charge.amount.saturating_neg();
                    account.spend(&known.holder, charge.at_ms, amount);
                }
            }
            Some(_) | None => {}
        }
        for charge in charges {
            let account = self.accounts.entry(charge.account.clone()).or_default();
            account.spend(holder, charge.at_ms, charge.amount);
        }
        self.exchanges.insert(exchange.to_owned(), told);
    }

    /// The holders that were silent for too long, or are gone and have something in flight that was
    /// told late.
    #[must_use]
    pub fn silent(&self, now_ms: i64) -> BTreeSet<String> {
        let is_silent = |holder: &Holder| holder.until_ms.is_some_and(|until| until < now_ms);
        let silent = self.holders.iter().filter(|(_, holder)| is_silent(holder));
        let in_flight = self.exchanges.values();
        let in_flight = in_flight.filter(|exchange| exchange.state == State::InFlight);
        let is_gone = |holder: &&String| {
            let known = self.holders.get(*holder);
            known.is_none_or(|known| known.until_ms.is_none())
        };
        let late = in_flight.map(|exchange| &exchange.holder).filter(is_gone);
        silent.map(|(name, _)| name).chain(late).cloned().collect()
    }

    /// Ends a holder, or gives it up: what it has in flight counts as spent, its slices return.
    pub fn end(&mut self, holder: &str) {
        let exchanges = self.exchanges.values_mut();
        for exchange in exchanges.filter(|exchange| exchange.holder == holder) {
            if exchange.state == State::InFlight {
                exchange.state = State::Presumed;
                for charge in &exchange.charges {
                    let account = self.accounts.entry(charge.account.clone()).or_default();
                    account.spend(holder, charge.at_ms, charge.amount);
                }
            }
        }
        if let Some(known) = self.holders.get_mut(holder) {
            known.until_ms = None;
        }
        self.return_slices(holder);
    }

    fn return_slices(&mut self, holder: &str) {
        for account in self.accounts.values_mut() {
            account.leases.remove(holder);
        }
    }

    /// What an exchange was charged, or what is reserved for it; none where it was not told.
    #[must_use]
    pub fn charges_of(&self, exchange: &str) -> Option<&[Charge]> {
        self.exchanges
            .get(exchange)
            .map(|exchange| exchange.charges.as_slice())
    }

    /// What was spent of an account since a time.
    #[must_use]
    pub fn spent(&self, account: &str, from_ms: i64) -> i64 {
        self.accounts
            .get(account)
            .map_or(0, |account| account.spent_since(from_ms))
    }

    /// What is allowed of an account beyond what was spent.
    #[must_use]
    pub fn held(&self, account: &str, from_ms: i64) -> i64 {
        self.accounts.get(account).map_or(0, |account| {
            let all = account.totals(from_ms, None);
            all.fold(0_i64, i64::saturating_add)
                .saturating_sub(account.spent_since(from_ms))
        })
    }
}

impl Account {
    fn seed(&mut self, take: &Take) {
        if self.is_seeded {
            return;
        }
        self.is_seeded = true;
        let missing = take.seed.saturating_sub(self.spent_since(take.from_ms));
        if missing > 0 {
            self.spend("", take.seed_ms, missing);
        }
    }

    fn spend(&mut self, holder: &str, at_ms: i64, amount: i64) {
        let spent = self.spent.entry((holder.to_owned(), at_ms)).or_default();
        *spent = spent.saturating_add(amount);
    }

    fn spent_since(&self, from_ms: i64) -> i64 {
        self.spent
            .iter()
            .filter(|((_, at_ms), _)| *at_ms >= from_ms)
            .fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    /// What each holder is allowed or has spent, whichever is more; without one of them.
    fn totals<'a>(
        &'a self,
        from_ms: i64,
        without: Option<&'a str>,
    ) -> impl Iterator<Item = i64> + 'a {
        let spenders = self.spent.keys().map(|(holder, _)| holder);
        let holders: BTreeSet<&String> = self.leases.keys().chain(spenders).collect();
        holders
            .into_iter()
            .filter(move |holder| Some(holder.as_str()) != without)
            .map(move |holder| {
                let allowed = self.leases.get(holder).map_or(0, |lease| lease.allowed);
                let from = (holder.clone(), from_ms);
                let until = (holder.clone(), i64::MAX);
                let spent = self.spent.range(from..=until);
                spent
                    .fold(0_i64, |sum, (_, amount)| sum.saturating_add(*amount))
                    .max(allowed)
            })
    }
}
