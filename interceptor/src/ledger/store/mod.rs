//! The ledger's database: entries in, in whole batches; spend out, for the caps.

mod changes;
mod spends;

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{
    CachedStatement, Connection, OpenFlags, Transaction, TransactionBehavior, params,
    params_from_iter,
};
use weir_core::money::Money;

use super::frame::Entry;
use super::journal::{Position, create_private};
use super::record::{Bypass, Cost, Explained, Outcome, Record};
use super::{LedgerError, schema};

pub(super) use changes::{
    HISTORY_MAX, history, in_force, kind as change_kind, parts as change_parts,
};
pub(super) use spends::{Spends, spends};

/// The connection that writes.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
}

impl Store {
    /// Opens the database, and makes its tables where there are none.
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let at = |source| LedgerError::Database {
            path: path.to_owned(),
            source,
        };
        create_private(path).map_err(|source| LedgerError::Unwritable {
            path: path.to_owned(),
            source,
        })?;
        let mut connection = Connection::open(path).map_err(at)?;
        connection.busy_timeout(WRITE_WAIT).map_err(at)?;
        connection
            .pragma_update(None, "journal_mode", "wal")
            .map_err(at)?;
        connection
            .pragma_update(None, "synchronous", "normal")
            .map_err(at)?;
        connection.set_prepared_statement_cache_capacity(32);
        schema::migrations()
            .to_latest(&mut connection)
            .map_err(|source| LedgerError::Schema {
                path: path.to_owned(),
                reason: source.to_string(),
            })?;
        Ok(Self { connection })
    }

    /// Commits entries of `instance`; with `end`, notes that its journal is committed up to there.
    pub(super) fn commit(
        &mut self,
        instance: &str,
        end: Option<Position>,
        entries: &[Entry],
    ) -> rusqlite::Result<()> {
        let ended: HashSet<&str> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Recorded(record) => Some(record.id.as_str()),
                Entry::Opened { .. }
                | Entry::Admitted { .. }
                | Entry::Bypassed(_)
                | Entry::Explained { .. } => None,
            })
            .collect();
        let transaction = self.begin()?;
        let mut records = Records::new(&transaction)?;
        let is_unhurried = entries.len() <= UNHURRIED_ENTRIES_MAX;
        for (number, entry) in entries.iter().enumerate() {
            // A call that waits for this core is not to wait for all of them.
            if is_unhurried && number.is_multiple_of(ENTRIES_AT_A_STRETCH) {
                thread::yield_now();
            }
            match entry {
                Entry::Opened { .. } => {}
                Entry::Admitted { record, .. } if ended.contains(record.id.as_str()) => {}
                Entry::Admitted { reserved, record } => {
                    insert_admission(&transaction, instance, *reserved, record)?;
                }
                Entry::Recorded(record) => records.insert(instance, record)?,
                Entry::Bypassed(bypass) => add_bypass(&transaction, bypass)?,
                Entry::Explained { id, explained } => explain(&transaction, id, explained)?,
            }
        }
        drop(records);
        if let Some(end) = end {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO journal VALUES (?, ?, ?)")?
                .execute(params![instance, integer(end.segment), integer(end.offset)])?;
        }
        transaction.commit()
    }

    /// How far the journal of `instance` is committed.
    pub(super) fn committed(&self, instance: &str) -> rusqlite::Result<Position> {
        let mut find = self
            .connection
            .prepare_cached("SELECT segment, end FROM journal WHERE instance = ?")?;
        let mut rows = find.query([instance])?;
        let Some(row) = rows.next()? else {
            return Ok(Position::default());
        };
        Ok(Position {
            segment: unsigned(row.get(0)?),
            offset: unsigned(row.get(1)?),
        })
    }

    /// Makes records of what `instance`, all of whose journal is committed and which writes no
    /// more, had in flight: what was reserved counts as spent. Returns how many there were.
    pub(super) fn settle_lost(&mut self, instance: &str) -> rusqlite::Result<usize> {
        let transaction = self.begin()?;
        let of_lost = admissions(&transaction, "instance = ?", instance)?;
        let count = of_lost.len();
        let mut records = Records::new(&transaction)?;
        for (record, reserved) in of_lost {
            records.insert(instance, &lost(record, reserved))?;
        }
        drop(records);
        transaction.commit()?;
        Ok(count)
    }

    /// Drops the note of how far the journal of `instance` is committed: only after the journal
    /// itself is removed, or what it holds would be taken in twice.
    pub(super) fn forget(&self, instance: &str) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM journal WHERE instance = ?")?
            .execute([instance])?;
        Ok(())
    }

    /// Instances that have calls in flight or a journal begun.
    pub(super) fn instances(&self) -> rusqlite::Result<Vec<String>> {
        self.connection
            .prepare_cached("SELECT instance FROM admission UNION SELECT instance FROM journal")?
            .query_map([], |row| row.get(0))?
            .collect()
    }

    fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
    }
}

/// What is left of a call whose process died: what was reserved counts as spent.
pub(super) fn lost(record: Record, reserved: Money) -> Record {
    let mut record = Record {
        outcome: Outcome::Lost,
        cost: Cost::Estimated {
            total: reserved,
            version: String::new(),
        },
        ..record
    };
    record.reasons.push(REASON_LOST.to_owned());
    record
}

/// Opens a database that exists, for reading.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    let owned = || path.to_owned();
    match path.try_exists() {
        Ok(true) => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(LedgerError::Closed { path: owned() });
        }
        Ok(false) | Err(_) => return Err(LedgerError::Absent { path: owned() }),
    }
    let at = |source| LedgerError::Database {
        path: path.to_owned(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection.busy_timeout(READ_WAIT).map_err(at)?;
    refuse_other_version(&connection, path)?;
    Ok(connection)
}

fn refuse_other_version(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| LedgerError::Database {
            path: path.to_owned(),
            source,
        })?;
    if version == schema::VERSION {
        return Ok(());
    }
    Err(LedgerError::Schema {
        path: path.to_owned(),
        reason: format!("its version is {version}, expected {}", schema::VERSION),
    })
}

fn admissions(
    connection: &Connection,
    of: &str,
    instance: &str,
) -> rusqlite::Result<Vec<(Record, Money)>> {
    let sql = format!("SELECT record, reserved_nanos, id FROM admission WHERE {of}");
    connection
        .prepare_cached(&sql)?
        .query_map([instance], |row| {
            let record: String = row.get(0)?;
            // Unreadable only if a newer version wrote it; that it was spent counts all the same.
            let record: Record = serde_json::from_str(&record).unwrap_or_default();
            let record = Record {
                id: row.get(2)?,
                ..record
            };
            Ok((record, Money::from_nanos(row.get(1)?)))
        })?
        .collect()
}

/// Entries may come twice, and a record before its admission: both change nothing.
fn insert_admission(
    transaction: &Transaction<'_>,
    instance: &str,
    reserved: Money,
    record: &Record,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO admission SELECT ?1, ?2, ?3, ?4
             WHERE NOT EXISTS (SELECT 1 FROM exchange WHERE id = ?1)",
        )?
        .execute(params![record.id, instance, reserved.nanos(), json(record)])?;
    Ok(())
}

/// What takes records in: statements that are looked up once for a batch, since their texts are long.
pub(super) struct Records<'a> {
    end_admission: CachedStatement<'a>,
    insert: CachedStatement<'a>,
}

impl<'a> Records<'a> {
    pub(super) fn new(transaction: &'a Transaction<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            end_admission: transaction.prepare_cached("DELETE FROM admission WHERE id = ?")?,
            insert: transaction.prepare_cached(INSERT_EXCHANGE)?,
        })
    }

    pub(super) fn insert(&mut self, instance: &str, record: &Record) -> rusqlite::Result<()> {
        self.end_admission.execute([&record.id])?;
        insert_exchange(&mut self.insert, instance, record)
    }
}

fn insert_exchange(
    insert: &mut CachedStatement<'_>,
    instance: &str,
    record: &Record,
) -> rusqlite::Result<()> {
    let identity = &record.identity;
    let usage = record.usage.as_ref();
    let (cost, version) = amount_and_version(&record.cost);
    insert.execute(params![
        record.id,
        instance,
        record.started_unix_ms,
        identity.pid,
        identity.program,
        identity.uid,
        identity.user,
        identity.cgroup,
        identity.container,
        identity.key_hash,
        identity.key_tail,
        identity.key_kind,
        record.destination,
        record.host,
        record.provider,
        record.api,
        record.method,
        record.path_class,
        record.session,
        record.model_requested,
        record.model_answered,
        record.status,
        record.outcome.as_str(),
        record.outcome.cap(),
        record.stream,
        usage.map(|usage| integer(usage.input)),
        usage.map(|usage| integer(usage.cache_read)),
        usage.map(|usage| integer(usage.cache_write)),
        usage.map(|usage| integer(usage.cache_write_long)),
        usage.map(|usage| integer(usage.output)),
        usage.map(|usage| integer(usage.reasoning)),
        usage.map(|usage| integer(usage.web_searches)),
        record.cost.as_str(),
        cost,
        version,
        record.cost_without_cache.map(Money::nanos),
        record.cost_perfect_cache.map(Money::nanos),
        record.cache_outcome,
        json(&record.edits),
        json(&record.reasons),
        integer(record.request_bytes),
        integer(record.response_bytes),
        integer(record.timings.added_us),
        record.timings.upstream_first_byte_us.map(integer),
        integer(record.timings.total_us),
        identity.pod,
        identity.namespace,
        identity.service_account,
        identity.team,
        record.cost_of_input.map(Money::nanos),
        record.cache_reason,
        record.cache_where,
        record.cache_rule,
        record.missed.map(Money::nanos),
        record.rewrite_saving.map(Money::nanos),
        integer(record.counted_tokens),
        record.cost.notional().map(Money::nanos),
        usage.filter(|usage| usage.has_details()).map(json),
        record.cost_by_list.map(Money::nanos),
    ])?;
    Ok(())
}

/// Completes a row that was committed before: it keeps its place, so that nobody counts it again.
fn explain(transaction: &Transaction<'_>, id: &str, explained: &Explained) -> rusqlite::Result<()> {
    let values = explained_columns(explained).map(|(_, value)| value);
    let id = Value::from(id.to_owned());
    transaction
        .prepare_cached(&EXPLAIN)?
        .execute(params_from_iter(values.into_iter().chain([id])))?;
    Ok(())
}

/// What is found out about a call, by the columns of `exchange` that it completes.
pub(super) fn explained_columns(explained: &Explained) -> [(&'static str, Value); 7] {
    let text = |text: &Option<String>| Value::from(text.clone());
    let nanos = |money: Option<Money>| Value::from(money.map(Money::nanos));
    [
        ("cache_outcome", text(&explained.cache_outcome)),
        (
            "cost_perfect_cache_nanos",
            nanos(explained.cost_perfect_cache),
        ),
        ("cache_reason", text(&explained.cache_reason)),
        ("cache_where", text(&explained.cache_where)),
        ("cache_rule", text(&explained.cache_rule)),
        ("missed_nanos", nanos(explained.missed)),
        ("rewrite_saving_nanos", nanos(explained.rewrite_saving)),
    ]
}

/// What an update sets those columns to: each to the `value` for its name.
pub(super) fn set_explained(value: impl Fn(&str) -> String) -> String {
    explained_columns(&Explained::default())
        .map(|(name, _)| format!("{name} = {}", value(name)))
        .join(", ")
}

fn amount_and_version(cost: &Cost) -> (Option<i64>, Option<&str>) {
    match cost {
        Cost::Priced { total, version } | Cost::Estimated { total, version } => {
            (Some(total.nanos()), Some(version))
        }
        Cost::Reported { total } => (Some(total.nanos()), None),
        // Nothing was spent; what it would have been has a column of its own.
        Cost::Notional { version, .. } => (None, Some(version)),
        Cost::Unpriced | Cost::Unknown => (None, None),
    }
}

pub(super) fn add_bypass(transaction: &Transaction<'_>, bypass: &Bypass) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO bypass VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET count = count + excluded.count",
        )?
        .execute(params![
            bypass.at_unix_ms - bypass.at_unix_ms.rem_euclid(MINUTE_MS),
            bypass.program,
            bypass.host,
            bypass.reason,
            bypass.destination,
            integer(bypass.count),
        ])?;
    Ok(())
}

/// Plain structs of texts and numbers: that they become JSON cannot fail.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// SQLite's integers are signed; no count reaches their end.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Columns by name and in the order of the values: steps of the schema add to them at its end.
const INSERT_EXCHANGE: &str = "INSERT OR IGNORE INTO exchange (
    id, instance, started_ms, pid, program, uid, user, cgroup, container,
    key_hash, key_tail, key_kind, destination, host, provider, api, method, path_class,
    session, model_requested, model_answered, status, outcome, refused_by, stream,
    input, cache_read, cache_write, cache_write_long, output, reasoning, web_searches,
    cost_state, cost_nanos, price_version, cost_without_cache_nanos, cost_perfect_cache_nanos,
    cache_outcome, edits, reasons, request_bytes, response_bytes,
    added_us, upstream_first_byte_us, total_us,
    pod, namespace, service_account, team,
    cost_input_nanos, cache_reason, cache_where, cache_rule, missed_nanos, rewrite_saving_nanos,
    counted_tokens, notional_nanos, usage_details, cost_by_list_nanos
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
static EXPLAIN: LazyLock<String> = LazyLock::new(|| {
    let columns = set_explained(|_| "?".to_owned());
    format!("UPDATE exchange SET {columns} WHERE id = ?")
});
/// Entries of a transaction that is no sign of being behind: other threads come between them. Where
/// every core is busy, that takes up to some 10 ms each time, within the half second that other
/// processes count on.
const UNHURRIED_ENTRIES_MAX: usize = 512;
/// Entries that are written at a stretch, in a quarter of a millisecond.
const ENTRIES_AT_A_STRETCH: usize = 16;

const REASON_LOST: &str = "weir_died_in_flight";
const MINUTE_MS: i64 = 60_000;
/// How long a batch waits for another process's transaction before it is tried again.
const WRITE_WAIT: Duration = Duration::from_secs(5);
/// How long a reader waits where it must, which is only while the database is recovered.
const READ_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
