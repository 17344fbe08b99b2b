//! The two databases that a ledger may be kept in, as the writer and the caps see them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use weir_core::caps::Change;
use weir_core::lease::Slices;

use super::frame::{Entry, merge};
use super::journal::{Position, instances};
use super::{LedgerError, LedgerOptions, Others, Spend, postgres, store};

/// The connection that writes.
#[derive(Debug)]
pub(super) enum Store {
    Sqlite(store::Store),
    Postgres(Box<postgres::Store>),
}

impl Store {
    /// Opens the database, and makes its tables where there are none.
    pub(super) fn open(
        options: &LedgerOptions,
        slices: &Arc<Mutex<Slices>>,
        watched: &Arc<postgres::Watched>,
    ) -> Result<Self, LedgerError> {
        Ok(match options.postgres()? {
            Some(target) => {
                let store = postgres::Store::open(target, Arc::clone(slices), Arc::clone(watched))?;
                Self::Postgres(Box::new(store))
            }
            None => Self::Sqlite(store::Store::open(&options.database()?)?),
        })
    }

    /// Commits entries of `instance`. With a span of its journal, notes that it is committed up to
    /// its end; returns up to where it is committed now.
    pub(super) fn commit(
        &mut self,
        instance: &str,
        span: Option<(Position, Position)>,
        mut entries: Vec<Entry>,
    ) -> Result<Position, LedgerError> {
        merge(&mut entries);
        match self {
            Self::Sqlite(store) => {
                let end = span.map(|(_, end)| end);
                store
                    .commit(instance, end, &entries)
                    .map_err(LedgerError::Commit)?;
                Ok(end.unwrap_or_default())
            }
            Self::Postgres(store) => store.commit(instance, span, &entries),
        }
    }

    /// How far the journal of `instance` is committed.
    pub(super) fn committed(&mut self, instance: &str) -> Result<Position, LedgerError> {
        match self {
            Self::Sqlite(store) => store.committed(instance).map_err(LedgerError::Commit),
            Self::Postgres(store) => store.committed(instance),
        }
    }

    /// Makes records of what `instance`, all of whose journal is committed and which writes no
    /// more, had in flight. Returns how many there were.
    pub(super) fn settle_lost(&mut self, instance: &str) -> Result<usize, LedgerError> {
        match self {
            Self::Sqlite(store) => store.settle_lost(instance).map_err(LedgerError::Commit),
            Self::Postgres(store) => store.settle_lost(instance),
        }
    }

    /// Drops the note of how far the journal of `instance` is committed: only after the journal
    /// itself is removed, or what it holds would be taken in twice.
    pub(super) fn forget(&mut self, instance: &str) -> Result<(), LedgerError> {
        match self {
            Self::Sqlite(store) => store.forget(instance).map_err(LedgerError::Commit),
            Self::Postgres(store) => store.forget(instance),
        }
    }

    /// Settles what processes left in flight whose journal is not there: in SQLite those of this
    /// state directory, in PostgreSQL those that were silent for too long, wherever they were.
    pub(super) fn settle_vanished(&mut self, journals: &Path) -> Result<(), LedgerError> {
        let store = match self {
            Self::Sqlite(store) => store,
            Self::Postgres(store) => return store.give_up_silent(),
        };
        // First who is in the database, then who lives: one who starts in between is not in the
        // first.
        let known = store.instances().map_err(LedgerError::Commit)?;
        let present = instances(journals).map_err(LedgerError::Journal)?;
        for instance in known.iter().filter(|known| !present.contains(known)) {
            let lost = store.settle_lost(instance).map_err(LedgerError::Commit)?;
            store.forget(instance).map_err(LedgerError::Commit)?;
            tracing::warn!(instance, lost, "a dead weir's journal is missing");
        }
        Ok(())
    }
}

/// The connection that reads what others spend.
#[derive(Debug)]
pub(super) enum Spends {
    Sqlite(store::Spends),
    Postgres(Box<postgres::Spends>),
}

impl Spends {
    pub(super) fn open(options: &LedgerOptions, own_instance: &str) -> Result<Self, LedgerError> {
        Ok(match options.postgres()? {
            Some(target) => {
                let spends = postgres::Spends::open(target, own_instance)?;
                Self::Postgres(Box::new(spends))
            }
            None => Self::Sqlite(store::Spends::open(&options.database()?, own_instance)?),
        })
    }

    /// Every amount spent since a time, by whomever, and up to where others' are read on.
    pub(super) fn since(
        &mut self,
        since_unix_ms: i64,
        each: &mut dyn FnMut(Spend),
    ) -> Result<(), LedgerError> {
        match self {
            Self::Sqlite(spends) => spends.since(since_unix_ms, each),
            Self::Postgres(spends) => spends.since(since_unix_ms, each),
        }
    }

    /// What others spent since the last call, and have in flight: at one instant, so that a call
    /// is in one of the two.
    pub(super) fn others(&mut self) -> Result<Others, LedgerError> {
        match self {
            Self::Sqlite(spends) => spends.others(),
            Self::Postgres(spends) => spends.others(),
        }
    }

    /// The latest changes of caps that people ever made, oldest first.
    pub(super) fn history(&mut self) -> Result<Vec<Change>, LedgerError> {
        match self {
            Self::Sqlite(spends) => spends.history(),
            Self::Postgres(spends) => spends.history(),
        }
    }

    /// Writes a change down; returns its number. A reset forgets what the books of leases have as
    /// spent, in the accounts that match one of `accounts`.
    pub(super) fn change(
        &mut self,
        change: &Change,
        accounts: &[String],
    ) -> Result<i64, LedgerError> {
        match self {
            Self::Sqlite(spends) => spends.change(change),
            Self::Postgres(spends) => spends.change(change, accounts),
        }
    }

    /// What processes may spend of accounts beyond what is spent; of none where they do not lease.
    pub(super) fn held(
        &mut self,
        accounts: &[(String, i64)],
    ) -> Result<HashMap<String, i64>, LedgerError> {
        match self {
            Self::Sqlite(_) => Ok(HashMap::new()),
            Self::Postgres(spends) => spends.held(accounts),
        }
    }
}
