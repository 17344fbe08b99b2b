//! What nodes share of conversations: rows that only those can open who have the secret.
//!
//! Each question is a task of its own, so that a connection that takes long to make is made even if
//! nobody waits that long. Where the database does not answer in time, it counts as down for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::LedgerError;
use super::leases::now_ms;
use super::{CALL_WAIT, Target, failed, late};

/// The table of conversations.
#[derive(Debug)]
pub(crate) struct Conversations {
    target: Target,
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
    asking: Arc<Semaphore>,
    /// Until when it counts as down, because a request was not answered.
    down_until_ms: AtomicI64,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    /// Of one write and no other, as the table says; 0 is before the first.
    pub(crate) version: i64,
}

impl Conversations {
    pub(in crate::ledger) fn new(target: Target) -> Self {
        Self {
            target,
            client: tokio::sync::Mutex::default(),
            asking: Arc::new(Semaphore::new(ASKING_MAX)),
            down_until_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Whether a request was not answered within the last second.
    pub(crate) fn is_down(&self) -> bool {
        now_ms() < self.down_until_ms.load(Ordering::Relaxed)
    }

    /// The row of `key`, for a request that waits, for at most `wait`. None, if that is not known.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        key: Vec<u8>,
        wait: Duration,
    ) -> Option<Option<Sealed>> {
        let permit = Arc::clone(&self.asking).try_acquire_owned().ok()?;
        let asked = tokio::spawn({
            let table = Arc::clone(self);
            async move {
                let row = table.get(&key).await;
                drop(permit);
                row
            }
        });
        match tokio::time::timeout(wait, asked).await {
            Ok(Ok(Ok(row))) => return Some(row),
            Ok(Ok(Err(error))) => tracing::debug!(%error, "a conversation was not looked up"),
            Ok(Err(_)) | Err(_) => {}
        }
        let until = now_ms().saturating_add(DOWN_MS);
        self.down_until_ms.store(until, Ordering::Relaxed);
        None
    }

    /// The row of `key`, for who can wait for some seconds.
    ///
    /// # Errors
    /// The database does not answer, or refuses.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Sealed>, LedgerError> {
        let rows = self
            .query(
                "SELECT sealed, version FROM weir.conversation WHERE key = $1",
                &[(&key, Type::BYTEA)],
            )
            .await?;
        Ok(rows.first().map(|row| Sealed {
            bytes: row.get(0),
            version: row.get(1),
        }))
    }

    /// Writes the row of `key`, if what is there is of the version `before`, or nothing; gives its
    /// version then.
    ///
    /// # Errors
    /// The database does not answer, or refuses.
    pub(crate) async fn put(
        &self,
        key: &[u8],
        bytes: &[u8],
        before: i64,
    ) -> Result<Option<i64>, LedgerError> {
        let rows = self
            .query(
                "INSERT INTO weir.conversation AS c (key, sealed, version)
                 VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
                 ON CONFLICT (key) DO UPDATE
                 SET sealed = excluded.sealed, version = greatest(excluded.version, c.version + 1),
                     updated_at = now()
                 WHERE c.version = $3 RETURNING version",
                &[
                    (&key, Type::BYTEA),
                    (&bytes, Type::BYTEA),
                    (&before, Type::INT8),
                ],
            )
            .await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    async fn query(
        &self,
        sql: &str,
        parameters: &[super::Parameter<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, LedgerError> {
        let asked = async {
            let client = self.client().await?;
            let rows = client.query_typed(sql, parameters).await;
            rows.map_err(|error| failed(&self.target.name, &error))
        };
        let answer = tokio::time::timeout(CALL_WAIT, asked).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(late(&self.target.name)));
        if answer.is_err() {
            *self.client.lock().await = None;
        }
        answer
    }

    async fn client(&self) -> Result<Arc<Client>, LedgerError> {
        let mut client = self.client.lock().await;
        Ok(match client.as_ref().filter(|client| !client.is_closed()) {
            Some(client) => Arc::clone(client),
            None => Arc::clone(client.insert(Arc::new(self.target.connect().await?))),
        })
    }
}

/// Requests that ask at the same time; more go on without an answer.
const ASKING_MAX: usize = 64;
/// How long a database counts as down that did not answer, in milliseconds.
const DOWN_MS: i64 = 1_000;
