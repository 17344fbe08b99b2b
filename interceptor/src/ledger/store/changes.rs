//! What people changed of caps, in and out of the ledger's database.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior, params};
use weir_core::caps::{Amount, Change, ChangeKind};
use weir_core::money::Money;

use super::super::LedgerError;
use super::{WRITE_WAIT, integer, refuse_other_version, unsigned};

/// Raises that have not ended at a moment, and of the resets of each account the latest, those before
/// one of all accounts left out: in the order in which they were made.
pub(in crate::ledger) fn in_force(
    connection: &Connection,
    now_ms: i64,
) -> rusqlite::Result<Vec<Change>> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE {IN_FORCE} ORDER BY seq"))?
        .query_map([now_ms], change)?
        .collect()
}

/// The latest that were ever made, as many as are told, the oldest first.
pub(in crate::ledger) fn history(connection: &Connection) -> rusqlite::Result<Vec<Change>> {
    connection
        .prepare_cached(&format!(
            "SELECT * FROM ({SELECT} ORDER BY seq DESC LIMIT ?) ORDER BY seq"
        ))?
        .query_map([HISTORY_MAX], change)?
        .collect()
}

/// Writes a change down, after all that is recorded; returns its number.
pub(in crate::ledger) fn add(path: &Path, change: &Change) -> Result<i64, LedgerError> {
    let at = |source| LedgerError::Database {
        path: path.to_owned(),
        source,
    };
    if !path.exists() {
        return Err(LedgerError::Absent {
            path: path.to_owned(),
        });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection.busy_timeout(WRITE_WAIT).map_err(at)?;
    refuse_other_version(&connection, path)?;
    let mut written = || {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (by, until_ms) = parts(change.kind);
        transaction.execute(
            "INSERT INTO cap_change (at_ms, cap, scope, kind, nanos, tokens, calls, until_ms, author,
             reason, exchange_seq)
             SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, coalesce(max(seq), 0) FROM exchange",
            params![
                change.at_ms,
                change.cap,
                change.scope,
                kind(change.kind),
                by.money.nanos(),
                integer(by.tokens),
                integer(by.calls),
                until_ms,
                change.author,
                change.reason,
            ],
        )?;
        let number = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(number)
    };
    written().map_err(at)
}

/// As it is written down: `raise` or `reset`.
pub(in crate::ledger) fn kind(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Raise { .. } => RAISE,
        ChangeKind::Reset => "reset",
    }
}

/// By how much, and until when.
pub(in crate::ledger) fn parts(kind: ChangeKind) -> (Amount, Option<i64>) {
    match kind {
        ChangeKind::Raise { by, until_ms } => (by, Some(until_ms)),
        ChangeKind::Reset => (Amount::ZERO, None),
    }
}

fn change(row: &Row<'_>) -> rusqlite::Result<Change> {
    let kind: String = row.get("kind")?;
    let by = Amount {
        money: Money::from_nanos(row.get("nanos")?),
        tokens: unsigned(row.get("tokens")?),
        calls: unsigned(row.get("calls")?),
    };
    let until_ms: Option<i64> = row.get("until_ms")?;
    Ok(Change {
        number: row.get("seq")?,
        at_ms: row.get("at_ms")?,
        cap: row.get("cap")?,
        scope: row.get("scope")?,
        kind: match kind.as_str() {
            RAISE => ChangeKind::Raise {
                by,
                until_ms: until_ms.unwrap_or(i64::MIN),
            },
            _ => ChangeKind::Reset,
        },
        author: row.get("author")?,
        reason: row.get("reason")?,
    })
}

const RAISE: &str = "raise";
const SELECT: &str =
    "SELECT seq, at_ms, cap, scope, kind, nanos, tokens, calls, until_ms, author, reason
     FROM cap_change";
const IN_FORCE: &str = "until_ms > ? OR seq IN
     (SELECT max(one.seq) FROM cap_change AS one LEFT JOIN
         (SELECT cap, max(seq) AS seq FROM cap_change WHERE kind = 'reset' AND scope IS NULL
          GROUP BY cap) AS of_all ON of_all.cap = one.cap
      WHERE one.kind = 'reset' AND one.seq >= coalesce(of_all.seq, 0)
      GROUP BY one.cap, one.scope)";
/// Changes that are told of those that were ever made.
pub(in crate::ledger) const HISTORY_MAX: i64 = 1_000;
