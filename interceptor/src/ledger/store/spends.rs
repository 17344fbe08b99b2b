//! Spend out of the ledger's database, for the caps.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, params};
use weir_core::caps::Change;
use weir_core::identity::Caller;
use weir_core::money::Money;

use super::super::record::{Identity, Record};
use super::super::{LedgerError, Others, Spend};
use super::{admissions, changes, open_read_only, unsigned};
use crate::sidecar::unix_ms;

/// A connection that only reads, and what it has read of other processes.
#[derive(Debug)]
pub(in crate::ledger) struct Spends {
    connection: Connection,
    path: PathBuf,
    own_instance: String,
    /// Rows up to here have been handed over.
    seen: i64,
}

impl Spends {
    pub(in crate::ledger) fn open(path: &Path, own_instance: &str) -> Result<Self, LedgerError> {
        let connection = open_read_only(path)?;
        let mut spends = Self {
            connection,
            path: path.to_owned(),
            own_instance: own_instance.to_owned(),
            seen: 0,
        };
        spends.seen = spends
            .newest()
            .map_err(|source| spends.unreadable(source))?;
        Ok(spends)
    }

    /// Every amount spent since a time, by whomever, and up to where others' are read on.
    pub(in crate::ledger) fn since(
        &mut self,
        since_unix_ms: i64,
        each: &mut dyn FnMut(Spend),
    ) -> Result<(), LedgerError> {
        let seen = self.newest().map_err(|source| self.unreadable(source))?;
        self.connection
            .prepare_cached(&format!(
                "SELECT {SPEND_COLUMNS} FROM exchange
                 WHERE started_ms >= ? AND seq <= ? AND (cost_nanos > 0 OR counted_tokens > 0) ORDER BY started_ms"
            ))
            .and_then(|mut find| {
                let mut rows = find.query([since_unix_ms, seen])?;
                while let Some(row) = rows.next()? {
                    each(spend(row)?);
                }
                Ok(())
            })
            .map_err(|source| self.unreadable(source))?;
        self.seen = seen;
        Ok(())
    }

    /// What others spent since the last call, and have in flight: at one instant, so that a call
    /// is in one of the two.
    pub(in crate::ledger) fn others(&mut self) -> Result<Others, LedgerError> {
        let (others, seen) = self
            .read_others()
            .map_err(|source| self.unreadable(source))?;
        self.seen = seen;
        Ok(others)
    }

    fn read_others(&mut self) -> rusqlite::Result<(Others, i64)> {
        let snapshot = self.connection.transaction()?;
        let seen = newest(&snapshot)?;
        let spent = snapshot
            .prepare_cached(&format!(
                "SELECT {SPEND_COLUMNS} FROM exchange
                 WHERE seq > ? AND seq <= ? AND instance <> ? AND (cost_nanos > 0 OR counted_tokens > 0)
                 ORDER BY started_ms"
            ))?
            .query_map(params![self.seen, seen, self.own_instance], spend)?
            .collect::<rusqlite::Result<_>>()?;
        let reserved = admissions(&snapshot, "instance <> ?", &self.own_instance)?
            .into_iter()
            .map(|(record, amount)| reserved(record, amount))
            .collect();
        let others = Others {
            spent,
            reserved,
            changes: changes::in_force(&snapshot, unix_ms())?,
        };
        Ok((others, seen))
    }

    /// The latest changes of caps that people ever made, oldest first.
    pub(in crate::ledger) fn history(&self) -> Result<Vec<Change>, LedgerError> {
        changes::history(&self.connection).map_err(|source| self.unreadable(source))
    }

    /// Writes a change down; returns its number.
    pub(in crate::ledger) fn change(&self, change: &Change) -> Result<i64, LedgerError> {
        changes::add(&self.path, change)
    }

    fn newest(&self) -> rusqlite::Result<i64> {
        newest(&self.connection)
    }

    fn unreadable(&self, source: rusqlite::Error) -> LedgerError {
        LedgerError::Database {
            path: self.path.clone(),
            source,
        }
    }
}

/// All that was spent, oldest first.
pub(in crate::ledger) fn spends(connection: &Connection) -> rusqlite::Result<Vec<Spend>> {
    let sql = format!(
        "SELECT {SPEND_COLUMNS} FROM exchange
         WHERE cost_nanos > 0 OR counted_tokens > 0 ORDER BY started_ms"
    );
    connection
        .prepare_cached(&sql)?
        .query_map([], spend)?
        .collect()
}

fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM exchange")?
        .query_row([], |row| row.get(0))
}

fn spend(row: &Row<'_>) -> rusqlite::Result<Spend> {
    let identity = Identity {
        program: row.get("program")?,
        uid: row.get("uid")?,
        user: row.get("user")?,
        cgroup: row.get("cgroup")?,
        container: row.get("container")?,
        pod: row.get("pod")?,
        namespace: row.get("namespace")?,
        service_account: row.get("service_account")?,
        team: row.get("team")?,
        key_hash: row.get("key_hash")?,
        ..Identity::default()
    };
    let model: Option<String> = row.get("model_requested")?;
    Ok(Spend {
        id: row.get("id")?,
        at_unix_ms: row.get("started_ms")?,
        caller: Caller {
            session: row.get("session")?,
            ..identity.caller()
        },
        provider: row.get("provider")?,
        host: row.get("host")?,
        model: model.unwrap_or_default(),
        amount: Money::from_nanos(row.get::<_, Option<i64>>("cost_nanos")?.unwrap_or(0)),
        tokens: unsigned(row.get("counted_tokens")?),
        after_change: row.get("after_change")?,
    })
}

fn reserved(record: Record, amount: Money) -> Spend {
    Spend {
        caller: record.caller(),
        id: record.id,
        at_unix_ms: record.started_unix_ms,
        provider: record.provider,
        host: record.host,
        model: record.model_requested.unwrap_or_default(),
        amount,
        tokens: record.counted_tokens,
        after_change: i64::MAX,
    }
}

const SPEND_COLUMNS: &str = "id, started_ms, program, uid, user, cgroup, container, \
     pod, namespace, service_account, team, key_hash, provider, model_requested, host, session, \
     cost_nanos, counted_tokens, \
     coalesce((SELECT c.seq FROM cap_change AS c WHERE c.kind = 'reset' AND c.exchange_seq < exchange.seq \
     ORDER BY c.exchange_seq DESC, c.seq DESC LIMIT 1), 0) AS after_change";
