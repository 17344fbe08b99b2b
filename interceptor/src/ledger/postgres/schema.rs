//! The tables of the ledger in PostgreSQL, and the statements that change them, as functions.
//!
//! What is recorded has the columns of the SQLite ledger: they are added here as they appear
//! there, so that there is one list of them. Everything is in a schema of its own.
//!
//! Each function is one statement of one connection, whole or not at all: nothing is held between
//! two of them, so that a pool in transaction mode may stand between. The lease functions do what
//! `weir_core::lease::Book` does; a test holds them to it.

use rusqlite::Connection;
use tokio_postgres::{Client, Error};

use super::super::LedgerError;

/// Makes a database of any version, or none, one of this version.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Trouble> {
    let columns = columns()?;
    let transaction = client.transaction().await?;
    // One at a time, and for this transaction only: a pool may give the next one to another.
    transaction
        .batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})"))
        .await?;
    let exists = transaction
        .query_typed("SELECT to_regclass('weir.version') IS NOT NULL", &[])
        .await?;
    let exists: bool = exists.first().is_some_and(|row| row.get(0));
    let version = if exists {
        let rows = transaction
            .query_typed("SELECT max(version) FROM weir.version", &[])
            .await?;
        rows.first().and_then(|row| row.get::<_, Option<i64>>(0))
    } else {
        // Whoever may not make schemas has the administrator make an empty one of that name.
        transaction
            .batch_execute(
                "DO $$ BEGIN IF to_regnamespace('weir') IS NULL THEN CREATE SCHEMA weir; END IF;
                 END $$; CREATE TABLE weir.version (version bigint NOT NULL)",
            )
            .await?;
        None
    };
    let taken = usize::try_from(version.unwrap_or(0)).unwrap_or(usize::MAX);
    if taken > STEPS.len() {
        let reason = format!("its version is {taken}, expected at most {}", STEPS.len());
        return Err(Trouble::Version(reason));
    }
    for (index, step) in STEPS.iter().enumerate().skip(taken) {
        transaction.batch_execute(step).await?;
        let insert = format!("INSERT INTO weir.version VALUES ({})", index + 1);
        transaction.batch_execute(&insert).await?;
    }
    if taken == 0 || has_new(&transaction, &columns).await? {
        transaction.batch_execute(&columns.add).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn has_new(
    transaction: &tokio_postgres::Transaction<'_>,
    columns: &Columns,
) -> Result<bool, Error> {
    let rows = transaction
        .query_typed(
            "SELECT count(*) FROM information_schema.columns
             WHERE table_schema = 'weir' AND table_name = ANY ('{exchange,bypass}')",
            &[],
        )
        .await?;
    let known: i64 = rows.first().map_or(0, |row| row.get(0));
    Ok(known < columns.count)
}

/// Why a database cannot be brought to this version.
#[derive(Debug)]
pub(super) enum Trouble {
    Sqlite(LedgerError),
    Postgres(Error),
    Version(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        Self::Sqlite(error)
    }
}

struct Columns {
    /// Adds those that are missing.
    add: String,
    /// How many there are when none is missing.
    count: i64,
}

/// The columns of the SQLite ledger, which are all integers or texts.
fn columns() -> Result<Columns, LedgerError> {
    let sqlite = super::stage::empty()?;
    let mut add = String::new();
    let mut count = OWN_COLUMNS;
    for table in ["exchange", "bypass"] {
        for (name, kind) in columns_of(&sqlite, table).map_err(LedgerError::Commit)? {
            if name == "seq" {
                continue;
            }
            let kind = if kind == "INTEGER" { "bigint" } else { "text" };
            add.push_str(&format!(
                "ALTER TABLE weir.{table} ADD COLUMN IF NOT EXISTS \"{name}\" {kind};"
            ));
            count += 1;
        }
    }
    Ok(Columns { add, count })
}

fn columns_of(sqlite: &Connection, table: &str) -> rusqlite::Result<Vec<(String, String)>> {
    sqlite
        .prepare("SELECT name, type FROM pragma_table_info(?)")?
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// `weir` in ASCII: nobody else's lock.
const LOCK: i64 = 0x7765_6972;
/// Columns of `exchange` that only this ledger has: `tx`, `presumed`, `charges`, `after_change`.
const OWN_COLUMNS: i64 = 4;

/// In order; those that were ever released are never changed, only added to.
const STEPS: [&str; 6] = [
    include_str!("step_1.sql"),
    include_str!("step_2.sql"),
    include_str!("step_3.sql"),
    include_str!("step_4.sql"),
    include_str!("step_5.sql"),
    include_str!("step_6.sql"),
];
