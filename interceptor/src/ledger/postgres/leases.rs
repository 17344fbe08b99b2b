//! Slices of caps, leased from the database: what the request path asks for.
//!
//! A question is a task of its own, so that its answer is heard whatever becomes of the request.
//! Where the database does not answer in time, nobody asks it for a moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use weir_core::lease::{Answer, Ask, FREE_SHARE, Slices, Take};

use super::super::{LedgerError, Spend};
use super::{Target, failed};

/// What this process has leased, and the connection to lease more.
#[derive(Debug)]
pub(crate) struct Leases {
    slices: Arc<Mutex<Slices>>,
    watched: Arc<Watched>,
    target: Target,
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
    answered: Notify,
    /// Who last used each account of which something may be held.
    users: Mutex<HashMap<String, Spend>>,
    /// Until when nobody asks, because nobody answered.
    down_until_ms: AtomicI64,
}

/// What this process has seen of leases that did not end as they should.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Watched {
    /// Nodes that this one gave up.
    pub(super) given_up: AtomicU64,
    /// Calls that those had in flight, and that are presumed to have cost what was reserved.
    pub(super) presumed: AtomicU64,
    /// Slices that nobody holds any more, as of the last look.
    pub(super) ownerless: AtomicU64,
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseCounts {
    /// Accounts of which this process holds or held a slice.
    pub(crate) slices: u64,
    /// As in [`Watched`].
    pub(crate) given_up: u64,
    /// As in [`Watched`].
    pub(crate) presumed: u64,
    /// As in [`Watched`].
    pub(crate) ownerless: u64,
}

/// What came of asking for more of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// More is allowed, or somebody else's question was answered: look again.
    Again,
    /// There is not as much left.
    Short {
        /// What all nodes have spent.
        spent: i64,
        /// What all nodes are allowed beyond that.
        held: i64,
    },
    /// The database did not answer in time.
    Unreachable,
}

impl Leases {
    pub(in crate::ledger) fn new(
        target: Target,
        slices: Arc<Mutex<Slices>>,
        watched: Arc<Watched>,
    ) -> Self {
        Self {
            slices,
            watched,
            target,
            client: tokio::sync::Mutex::default(),
            answered: Notify::new(),
            users: Mutex::default(),
            down_until_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// For the metrics.
    pub(crate) fn counts(&self) -> LeaseCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LeaseCounts {
            slices: u64::try_from(self.slices().accounts().count()).unwrap_or(u64::MAX),
            given_up: of(&self.watched.given_up),
            presumed: of(&self.watched.presumed),
            ownerless: of(&self.watched.ownerless),
        }
    }

    /// The most that this process may have spent and reserved of an account.
    pub(crate) fn allowed(&self, account: &str) -> i64 {
        self.slices().allowed(account, now_ms())
    }

    /// Asks for more, and waits for the answer for at most [`LEASE_WAIT`].
    pub(crate) async fn ask(self: &Arc<Self>, ask: &Ask<'_>) -> Outcome {
        let answered = self.answered.notified();
        match self.question(ask) {
            Err(known) => known,
            Ok(None) => {
                let waited = tokio::time::timeout(LEASE_WAIT, answered).await;
                waited.map_or(Outcome::Unreachable, |()| Outcome::Again)
            }
            Ok(Some(take)) => {
                let asked = tokio::spawn(Arc::clone(self).put(take));
                outcome(asked.await.unwrap_or(None))
            }
        }
    }

    /// Asks for more without waiting for the answer, which `short` tells later if there is none.
    pub(crate) fn ask_aside(self: &Arc<Self>, ask: &Ask<'_>) -> Outcome {
        match self.question(ask) {
            Err(known) => return known,
            Ok(Some(take)) => drop(tokio::spawn(Arc::clone(self).put(take))),
            Ok(None) => {}
        }
        Outcome::Again
    }

    /// What is to be put to the database; nothing where that was asked already.
    ///
    /// # Errors
    /// What came of it, where that is known without asking.
    fn question(&self, ask: &Ask<'_>) -> Result<Option<Take>, Outcome> {
        let now = now_ms();
        let mut slices = self.slices();
        if let Some(answer) = slices.short(ask.account, ask.need, now) {
            return Err(outcome(Some(answer)));
        }
        if now < self.down_until_ms.load(Ordering::Relaxed) {
            return Err(Outcome::Unreachable);
        }
        Ok(slices.ask(ask, now))
    }

    /// Asks in advance where half of a slice is used.
    pub(crate) fn refill(self: &Arc<Self>, ask: &Ask<'_>) {
        let now = now_ms();
        if now < self.down_until_ms.load(Ordering::Relaxed) {
            return;
        }
        let take = self.slices().refill(ask, now);
        if let Some(take) = take {
            drop(tokio::spawn(Arc::clone(self).put(take)));
        }
    }

    /// Gives back what was not used for a while.
    pub(crate) fn give_back(self: &Arc<Self>, ask: &Ask<'_>) {
        let take = self.slices().give_back(ask, now_ms());
        if let Some(take) = take {
            drop(tokio::spawn(Arc::clone(self).put(take)));
        }
    }

    /// Notes who uses an account, so that it can be looked at again when nobody does.
    pub(crate) fn remember(&self, account: &str, who: impl FnOnce() -> Spend) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        // What does not fit is kept until this process ends.
        if users.len() < USERS_MAX && !users.contains_key(account) {
            users.insert(account.to_owned(), who());
        }
    }

    /// Looks at each account that was used: whether its window is still in force. Those of which
    /// nothing is held are forgotten.
    pub(crate) fn keep(&self, mut look: impl FnMut(&str, &Spend) -> bool) {
        let mut users =
            std::mem::take(&mut *self.users.lock().unwrap_or_else(PoisonError::into_inner));
        users.retain(|account, who| {
            let is_in_force = look(account, who);
            let mut slices = self.slices();
            if !is_in_force {
                slices.forget(account);
            }
            !slices.forget_if_unheld(account)
        });
        let mut new = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.extend(new.drain());
        *new = users;
    }

    async fn put(self: Arc<Self>, take: Take) -> Option<Answer> {
        let answer = match tokio::time::timeout(LEASE_WAIT, self.send(&take)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a slice of a cap was not leased");
                None
            }
            Err(_elapsed) => None,
        };
        if answer.is_none() {
            *self.client.lock().await = None;
            let until = now_ms().saturating_add(DOWN_MS);
            if self.down_until_ms.swap(until, Ordering::Relaxed) < now_ms() - DOWN_SAID_MS {
                tracing::warn!("the ledger does not answer; caps go on with the slices they have");
            }
        }
        self.slices().answered(&take, answer, now_ms());
        self.answered.notify_waiters();
        answer
    }

    async fn send(&self, take: &Take) -> Result<Answer, LedgerError> {
        let client = {
            let mut client = self.client.lock().await;
            match client.as_ref().filter(|client| !client.is_closed()) {
                Some(client) => Arc::clone(client),
                None => Arc::clone(client.insert(Arc::new(self.target.connect().await?))),
            }
        };
        put_to(&client, take)
            .await
            .map_err(|error| failed(&self.target.name, &error))
    }

    fn slices(&self) -> MutexGuard<'_, Slices> {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a question to the database of a ledger: what a node does, and what holds the database to
/// [`weir_core::lease::Book`] in the tests.
///
/// # Errors
/// What the database says, or the connection to it.
pub async fn put_to(client: &Client, take: &Take) -> Result<Answer, tokio_postgres::Error> {
    let rows = client
        .query_typed(
            "SELECT state, now_allowed, now_spent, now_held
             FROM weir.take($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            &[
                (&take.account, Type::TEXT),
                (&take.holder, Type::TEXT),
                (&take.epoch, Type::INT8),
                (&take.number, Type::INT8),
                (&take.least, Type::INT8),
                (&take.most, Type::INT8),
                (&take.limit, Type::INT8),
                (&take.from_ms, Type::INT8),
                (&take.seed, Type::INT8),
                (&take.seed_ms, Type::INT8),
                (&FREE_SHARE, Type::INT8),
            ],
        )
        .await?;
    Ok(rows.first().map_or(Answer::Stale, |row| answer(row, take)))
}

fn answer(row: &tokio_postgres::Row, take: &Take) -> Answer {
    let number = |at: usize| row.get::<_, Option<i64>>(at).unwrap_or(0);
    match row.get::<_, &str>(0) {
        "granted" => Answer::Granted {
            number: take.number,
            allowed: number(1),
        },
        "short" => Answer::Short {
            number: take.number,
            allowed: number(1),
            spent: number(2),
            held: number(3),
        },
        "unknown" => Answer::Unknown,
        _ => Answer::Stale,
    }
}

fn outcome(answer: Option<Answer>) -> Outcome {
    match answer {
        Some(Answer::Granted { .. } | Answer::Stale) => Outcome::Again,
        Some(Answer::Short { spent, held, .. }) => Outcome::Short { spent, held },
        Some(Answer::Unknown) | None => Outcome::Unreachable,
    }
}

/// A clock that goes on while the machine sleeps, in milliseconds: leases end meanwhile.
pub(super) fn now_ms() -> i64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(i64::MAX, |now| {
        now.tv_sec()
            .saturating_mul(1000)
            .saturating_add(now.tv_nsec() / 1_000_000)
    })
}

/// The longest that a call waits for a slice.
pub(crate) const LEASE_WAIT: Duration = Duration::from_millis(500);
/// How long nobody asks a database that did not answer.
const DOWN_MS: i64 = 1_000;
/// How long it must have answered before it is said again that it does not.
const DOWN_SAID_MS: i64 = 60_000;
/// Accounts that are looked at again.
const USERS_MAX: usize = 100_000;
