//! The ledger: one record per exchange, kept through `kill -9`.
//!
//! In reading order: what is written (`record`), as bytes (`frame`), into the journal that the
//! request path appends to (`journal`); and the thread (`writer`) that moves the journal into the
//! database (`backend`): SQLite (`store`, `schema`), or PostgreSQL, shared by nodes (`postgres`). What is in the journal when a process is killed is taken over by the
//! next one that opens the ledger, or by one that runs.
//!
//! The trade-off: an append is a write into the page cache, not a disk flush. It outlives
//! `kill -9`; a power cut or a kernel crash can lose what the kernel had not yet written back,
//! usually the last 30 seconds.

mod record;

mod frame;
mod journal;
mod schema;
mod store;

mod postgres;

mod backend;
mod books;
mod told;
mod writer;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use backend::{Spends, Store};
pub use books::Books;
use frame::{Entry, EntryRef, encode};
use journal::{Handed, Journal};
pub use postgres::put_to;
pub(crate) use postgres::{Conversations, Sealed};
pub(crate) use postgres::{LEASE_WAIT, LeaseCounts, Leases, Outcome as LeaseOutcome};
pub use record::{Bypass, Cost, Edit, Explained, Identity, Outcome, Record, Timings};
use tokio::sync::broadcast;
pub use told::Journaled;
use uuid::Uuid;
use weir_core::caps;
use weir_core::identity::{Caller, Subject};
use weir_core::lease::Slices;
use weir_core::money::Money;
use writer::{Shared, Writer};

/// Where the ledger is kept.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// State directory; made, readable by its owner alone, where it does not exist.
    pub state_dir: PathBuf,
    /// `sqlite:PATH`, relative to the state directory, or `postgres://…`: `[ledger] url` of the
    /// configuration.
    pub url: String,
    /// Where the password for PostgreSQL is, if not in the URL or in `PGPASSWORD`.
    pub password_file: Option<PathBuf>,
}

impl LedgerOptions {
    /// The default database in `state_dir`.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            url: "sqlite:weir.db".to_owned(),
            password_file: None,
        }
    }

    /// Whether the URL can be understood, and what it refers to be read.
    ///
    /// # Errors
    /// It can not: as [`Ledger::open`] would say.
    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        match self.postgres()? {
            Some(_) => Ok(()),
            None => self.database().map(drop),
        }
    }

    /// The database of a server, where the URL is that of one.
    fn postgres(&self) -> Result<Option<postgres::Target>, LedgerError> {
        is_postgres(&self.url)
            .then(|| postgres::Target::parse(&self.url, self.password_file.as_deref()))
            .transpose()
    }

    /// Where nodes share what conversations were given; none, if the database is not shared.
    ///
    /// # Errors
    /// Where the URL, or what it refers to, can't be understood.
    pub(crate) fn conversations(&self) -> Result<Option<Arc<Conversations>>, LedgerError> {
        let target = self.postgres()?;
        Ok(target.map(|target| Arc::new(Conversations::new(target))))
    }

    /// The database's file.
    ///
    /// # Errors
    /// Where the URL is not that of a file.
    pub fn database(&self) -> Result<PathBuf, LedgerError> {
        match self.url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(self.state_dir.join(path)),
            // What follows the scheme may hold a password.
            _ => Err(LedgerError::Url {
                found: self.url.split(':').next().unwrap_or_default().to_owned(),
            }),
        }
    }
}

/// Whether a URL is that of a ledger, whatever the files that it refers to.
///
/// # Errors
/// It is not: as [`Ledger::open`] would say.
pub(crate) fn check_url(url: &str) -> Result<(), LedgerError> {
    if is_postgres(url) {
        return postgres::Target::check_url(url);
    }
    let options = LedgerOptions {
        url: url.to_owned(),
        ..LedgerOptions::new("")
    };
    options.database().map(drop)
}

fn is_postgres(url: &str) -> bool {
    let schemes = ["postgres://", "postgresql://"];
    schemes.iter().any(|scheme| url.starts_with(scheme))
}

/// Why the ledger cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The URL names no database that this version can use.
    #[error(
        "ledger.url begins with {found:?}: expected sqlite:PATH, such as sqlite:weir.db, or \
         postgres://USER@HOST/DATABASE"
    )]
    Url {
        /// Up to its first colon.
        found: String,
    },
    /// The state directory, or a file in it, cannot be made or written.
    #[error(
        "{path} cannot be made or written: {source}; make room or give it to user id {}, \
         or name another state directory with --state-dir or WEIR_STATE_DIR",
        nix::unistd::geteuid()
    )]
    Unwritable {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// SQLite cannot open or read the database.
    #[error(
        "the ledger {path} cannot be used: {source}; check that the disk has room and that user \
         id {} may read and write it, or name another state directory with --state-dir or \
         WEIR_STATE_DIR",
        nix::unistd::geteuid()
    )]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The database is not as this version knows it.
    #[error(
        "the ledger {path} was written by another version of weir: {reason}; \
         use that version, or start this one on it once if it is the newer"
    )]
    Schema {
        /// The database's file.
        path: PathBuf,
        /// What is different.
        reason: String,
    },
    /// The URL of a server cannot be understood, or what it refers to not be read.
    #[error(
        "ledger.url is not that of a PostgreSQL database: {reason}; expected \
         postgres://USER@HOST:PORT/DATABASE?sslmode=…"
    )]
    PostgresUrl {
        /// What is wrong with it, without any password.
        reason: String,
    },
    /// The server cannot be reached, or refuses.
    #[error(
        "the ledger {at} cannot be used: {reason}; check that the server runs, that this user may \
         log in, and that it may use the schema `weir`"
    )]
    Postgres {
        /// The database, without the password.
        at: String,
        /// What the server or the connection says.
        reason: String,
    },
    /// There is nothing to read yet.
    #[error(
        "there is no ledger at {path}: expected one that weir has written, as `weir run` does; where that ran as root, \
         ask as root, else name its state directory with --state-dir or WEIR_STATE_DIR"
    )]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It may not be read by whoever asks.
    #[error("the ledger {path} is another user's: ask as its owner (sudo)")]
    Closed {
        /// Where it is.
        path: PathBuf,
    },
    /// The journal cannot be read, continued or removed.
    #[error("journal: {0}")]
    Journal(io::Error),
    /// A batch cannot be committed.
    #[error("database: {0}")]
    Commit(rusqlite::Error),
    /// The writer's thread cannot be started.
    #[error("the ledger's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// One amount spent or reserved, with everything that a cap may be kept by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// Id of the exchange.
    pub id: String,
    /// When the exchange began, in milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// Who asked.
    pub caller: Caller,
    /// Provider.
    pub provider: String,
    /// Host of the destination.
    pub host: String,
    /// Model that was asked for.
    pub model: String,
    /// How much.
    pub amount: Money,
    /// How many tokens.
    pub tokens: u64,
    /// The last change of caps that it came after, as [`caps::Spend::after_change`].
    pub after_change: i64,
}

impl Spend {
    /// As the caps want it.
    #[must_use]
    pub fn for_caps(&self) -> caps::Spend<'_> {
        caps::Spend {
            at_ms: self.at_unix_ms,
            subject: Subject {
                caller: &self.caller,
                provider: &self.provider,
                host: &self.host,
                model: &self.model,
            },
            amount: caps::Amount::of_call(self.amount, self.tokens),
            after_change: self.after_change,
        }
    }
}

/// What other Weir processes on this state directory did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Spent and committed since the last look, oldest first.
    pub spent: Vec<Spend>,
    /// Everything that is in flight at this moment, with the amount reserved: replaces what the
    /// last look returned.
    pub reserved: Vec<Spend>,
    /// The changes of caps in force: of resets the latest of each account.
    pub changes: Vec<caps::Change>,
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

/// The ledger of one Weir process. Share it in an `Arc`.
///
/// Dropping it writes everything, for up to five seconds if the database does not take it.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    /// Taken when dropped.
    writer: Option<thread::JoinHandle<()>>,
    spends: Mutex<Spends>,
    leases: Option<Arc<Leases>>,
    subscribers: broadcast::Sender<Arc<Record>>,
}

impl Ledger {
    /// Opens the ledger, and takes over what killed processes left in their journals.
    ///
    /// # Errors
    /// Where the state directory or the database cannot be made, written or understood.
    pub fn open(options: &LedgerOptions) -> Result<Self, LedgerError> {
        let journals = options.state_dir.join(JOURNALS);
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            |source| LedgerError::Unwritable { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&journals)
            .map_err(unwritable(&journals))?;
        // One at a time, or two processes make the same tables.
        let opening = journal::create_private(&journals.join(OPENING))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(unwritable(&journals))?;
        let instance = Uuid::now_v7().to_string();
        let slices = Arc::new(Mutex::new(Slices::new(instance.as_str())));
        let watched = Arc::default();
        let mut store = Store::open(options, &slices, &watched)?;
        drop(opening);
        writer::recover(&journals, &mut store)?;
        let journal = Journal::create(&journals, &instance).map_err(unwritable(&journals))?;
        let spends = Mutex::new(Spends::open(options, &instance)?);
        let leases = options.postgres()?;
        let leases = leases.map(|target| Arc::new(Leases::new(target, slices, watched)));
        let shared = Arc::new(Shared::new(journal));
        let writer = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || Writer::new(&shared, store, &journals).run()
            })
            .map_err(LedgerError::Thread)?;
        let subscribers = broadcast::channel(SUBSCRIPTION_RECORDS).0;
        Ok(Self {
            shared,
            writer: Some(writer),
            spends,
            leases,
            subscribers,
        })
    }

    /// Id of this process in the ledger.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.shared.journal.instance()
    }

    /// Notes, before a call is sent, what its record would be if Weir died now.
    ///
    /// The draft's outcome and cost do not matter: what is kept is `Outcome::Lost`, with `reserved`
    /// as the estimated cost. One `write(2)`; never fails, see `health`.
    pub fn admit(&self, draft: &Record, reserved: Money) {
        let frame = encode(EntryRef::Admitted {
            reserved,
            record: draft,
        });
        let id = draft.id.clone();
        self.write(frame, Handed::Admitted { id });
    }

    /// Counts what was not inspected. One `write(2)`; never fails, see `health`.
    pub fn bypass(&self, bypass: Bypass) {
        let frame = encode(EntryRef::Bypassed(&bypass));
        self.write(frame, Handed::Entry(Entry::Bypassed(bypass)));
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
        let mut spends = self.spends.lock().unwrap_or_else(PoisonError::into_inner);
        spends.since(since_unix_ms, &mut each)
    }

    /// What other processes spent since the last call, and what they have in flight.
    ///
    /// What a process that was killed had in flight is among it within some two seconds. Blocks:
    /// not for a runtime's worker thread.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn poll_others(&self) -> Result<Others, LedgerError> {
        self.spends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .others()
    }

    /// Waits until everything written so far is in the database; false where that took longer.
    ///
    /// Blocks: not for a runtime's worker thread.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        self.writer
            .as_ref()
            .is_some_and(|writer| self.shared.flush(writer.thread(), timeout))
    }

    /// Slices of caps, where other nodes share them.
    pub(crate) fn leases(&self) -> Option<&Arc<Leases>> {
        self.leases.as_ref()
    }

    /// Whether the ledger keeps up.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        self.shared.health()
    }

    fn write(&self, frame: Vec<u8>, handed: Handed) {
        if self.shared.write(frame, handed)
            && let Some(writer) = &self.writer
        {
            writer.thread().unpark();
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.shared.stop(writer.thread());
            if writer.join().is_err() {
                tracing::error!(
                    "the ledger's thread panicked; its journal stays for the next start"
                );
            }
        }
    }
}

/// Opens a ledger for reading: what is recorded since a time, or more.
pub(crate) fn open_read_only(
    options: &LedgerOptions,
    since_unix_ms: i64,
) -> Result<(rusqlite::Connection, PathBuf), LedgerError> {
    if let Some(target) = options.postgres()? {
        let connection = postgres::copy(target, since_unix_ms)?;
        return Ok((connection, PathBuf::from("PostgreSQL")));
    }
    let path = options.database()?;
    Ok((store::open_read_only(&path)?, path))
}

/// A new id for an exchange that began then: a UUID of version 7.
///
/// Its random bits are drawn once per process and counted up from there, as RFC 9562 (6.2, method 2)
/// has it: no two ids of a process are alike, and none costs a system call.
pub(crate) fn new_id(started_unix_ms: i64) -> String {
    static RANDOM: LazyLock<u128> = LazyLock::new(|| Uuid::new_v4().as_u128());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = u128::from(COUNT.fetch_add(1, Ordering::Relaxed));
    let bytes = RANDOM.wrapping_add(count).to_be_bytes();
    let random = bytes.last_chunk::<10>().copied().unwrap_or_default();
    let started = u64::try_from(started_unix_ms).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(started, &random)
        .into_uuid()
        .to_string()
}

/// In the state directory: the journals.
const JOURNALS: &str = "journal";
/// Among the journals: held while a database is opened.
const OPENING: &str = "opening";
/// Records that a subscriber may fall behind.
const SUBSCRIPTION_RECORDS: usize = 1024;
