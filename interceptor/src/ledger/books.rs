//! The ledger for whoever looks at caps, or changes them, from outside of the processes that keep them.

use std::collections::HashMap;

use weir_core::caps::Change;

use super::backend::Spends;
use super::{LedgerError, LedgerOptions, Others, Spend};

/// A ledger that has been opened by a Weir process before. Everything blocks.
#[derive(Debug)]
pub struct Books {
    spends: Spends,
}

impl Books {
    /// Opens the ledger; makes nothing where there is none.
    ///
    /// # Errors
    /// There is none, it can't be reached, or another version wrote it.
    pub fn open(options: &LedgerOptions) -> Result<Self, LedgerError> {
        // Nobody's id: all others are others.
        let spends = Spends::open(options, "")?;
        Ok(Self { spends })
    }

    /// Hands what was spent since a time to `each`, oldest first; returns what was spent meanwhile,
    /// what is in flight, and the changes of caps in force.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn read(
        &mut self,
        since_unix_ms: i64,
        mut each: impl FnMut(Spend),
    ) -> Result<Others, LedgerError> {
        self.spends.since(since_unix_ms, &mut each)?;
        self.spends.others()
    }

    /// What nodes may spend of accounts, as leases name them, beyond what is spent since a time.
    /// Empty where nobody leases.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn held(
        &mut self,
        accounts: &[(String, i64)],
    ) -> Result<HashMap<String, i64>, LedgerError> {
        self.spends.held(accounts)
    }

    /// The changes of caps that were ever made, the latest 1,000 of them, oldest first.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn history(&mut self) -> Result<Vec<Change>, LedgerError> {
        self.spends.history()
    }

    /// Writes a change down, with a number of its own, which is returned. With a reset, what leases
    /// have as spent is forgotten in the accounts whose names match one of `accounts` (as in SQL,
    /// `%` is any text).
    ///
    /// # Errors
    /// The database can't be written: nothing is changed then.
    pub fn change(&mut self, change: &Change, accounts: &[String]) -> Result<i64, LedgerError> {
        self.spends.change(change, accounts)
    }
}
