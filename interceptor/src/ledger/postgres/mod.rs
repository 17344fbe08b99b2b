//! The ledger in PostgreSQL: shared by many nodes.
//!
//! In reading order: where it is and how to get there (`target`), its tables (`schema`), rows as the
//! SQLite ledger has them (`stage`), what the writer does (`store`), what the caps read (`spends`),
//! how slices of caps are leased (`leases`), and what nodes share of conversations (`conversations`).
//!
//! No state of a connection is relied on, so that any pool may stand between: no prepared
//! statements, no settings, no locks beyond a transaction. Each call waits for a bounded time.

mod target;

mod schema;
mod stage;

mod changes;
mod conversations;
mod leases;
mod spends;
mod store;

use std::time::Duration;

pub(crate) use conversations::{Conversations, Sealed};
pub(super) use leases::Watched;
pub use leases::put_to;
pub(crate) use leases::{LEASE_WAIT, LeaseCounts, Leases, Outcome};
pub(super) use spends::{Spends, copy};
pub(super) use store::Store;
pub(super) use target::Target;
use tokio::runtime::Runtime;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::LedgerError;

/// A parameter of a statement, with its type: nothing is prepared.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection that is made when it is needed, and made again when it broke.
#[derive(Debug)]
struct Link {
    target: Target,
    client: Option<Client>,
}

impl Link {
    fn new(target: Target) -> Self {
        Self {
            target,
            client: None,
        }
    }

    /// The connection, with the tables of this version behind it.
    async fn client(&mut self) -> Result<&mut Client, LedgerError> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.target.connect().await?,
        };
        Ok(self.client.insert(client))
    }

    async fn query(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, LedgerError> {
        let name = self.target.name.clone();
        let asked = async {
            let client = self.client().await?;
            client
                .query_typed(sql, parameters)
                .await
                .map_err(|error| failed(&name, &error))
        };
        match tokio::time::timeout(CALL_WAIT, asked).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                self.client = None;
                Err(error)
            }
            Err(_) => {
                self.client = None;
                Err(late(&name))
            }
        }
    }
}

/// A connection for who may block.
#[derive(Debug)]
struct Blocking {
    /// Taken when dropped.
    runtime: Option<Runtime>,
    link: Link,
}

impl Blocking {
    fn new(target: Target) -> Result<Self, LedgerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(LedgerError::Thread)?;
        Ok(Self {
            runtime: Some(runtime),
            link: Link::new(target),
        })
    }

    fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, LedgerError> {
        let link = &mut self.link;
        block_on(self.runtime.as_ref(), link.query(sql, parameters))
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // One that waits for its end must not be dropped where others run.
            runtime.shutdown_background();
        }
    }
}

/// Waits for an answer, on a thread of its own where this one drives other tasks: at the start of
/// Weir, which nobody waits behind.
fn block_on<T: Send>(
    runtime: Option<&Runtime>,
    asked: impl Future<Output = Result<T, LedgerError>> + Send,
) -> Result<T, LedgerError> {
    let Some(runtime) = runtime else {
        return Err(LedgerError::Thread(std::io::ErrorKind::NotConnected.into()));
    };
    if tokio::runtime::Handle::try_current().is_err() {
        return runtime.block_on(asked);
    }
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(asked)).join())
        .unwrap_or_else(|_| Err(LedgerError::Thread(std::io::ErrorKind::Other.into())))
}

fn failed(name: &str, error: &tokio_postgres::Error) -> LedgerError {
    let reason = match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    };
    LedgerError::Postgres {
        at: name.to_owned(),
        reason,
    }
}

fn late(name: &str) -> LedgerError {
    LedgerError::Postgres {
        at: name.to_owned(),
        reason: format!("it did not answer within {} s", CALL_WAIT.as_secs()),
    }
}

/// How long a statement that nobody's request waits for may take, its connection included.
const CALL_WAIT: Duration = Duration::from_secs(3);
