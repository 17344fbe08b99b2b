//! What the writer does to a PostgreSQL ledger.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;
use tokio_postgres::types::Type;
use weir_core::lease::{LEASE_MS, Sign, Slices};

use super::super::LedgerError;
use super::super::frame::Entry;
use super::super::journal::Position;
use super::super::store::{self as sqlite, lost};
use super::{Blocking, Parameter, Target, Watched, leases, stage};
use crate::sidecar::unix_ms;

/// The connection that writes.
#[derive(Debug)]
pub(in crate::ledger) struct Store {
    blocking: Blocking,
    stage: Connection,
    /// What this process has leased: its signs of life are given here.
    slices: Arc<Mutex<Slices>>,
    signed_at: Option<Instant>,
    watched: Arc<Watched>,
    purged_at: Option<Instant>,
}

impl Store {
    /// Connects, makes the tables where there are none, and registers this process.
    pub(in crate::ledger) fn open(
        target: Target,
        slices: Arc<Mutex<Slices>>,
        watched: Arc<Watched>,
    ) -> Result<Self, LedgerError> {
        let mut store = Self {
            blocking: Blocking::new(target)?,
            stage: stage::empty()?,
            slices,
            signed_at: None,
            watched,
            purged_at: None,
        };
        store.sign()?;
        Ok(store)
    }

    /// Commits entries of `instance`. With a span of its journal, notes that it is committed up to
    /// its end; returns up to where it is, which is elsewhere where an earlier answer was lost.
    pub(in crate::ledger) fn commit(
        &mut self,
        instance: &str,
        span: Option<(Position, Position)>,
        entries: &[Entry],
    ) -> Result<Position, LedgerError> {
        self.sign()?;
        let [exchanges, admissions, bypasses] =
            self.rows(instance, entries).map_err(LedgerError::Commit)?;
        self.explain(entries)?;
        let (from, to) = span.unzip();
        let segment = |at: Option<Position>| at.map(|at| sqlite::integer(at.segment));
        let offset = |at: Option<Position>| at.map(|at| sqlite::integer(at.offset));
        let rows = self.blocking.query(
            "SELECT at_segment, at_end FROM weir.ship($1, $2, $3, $4, $5,
             $6::text::jsonb, $7::text::jsonb, $8::text::jsonb)",
            &[
                (&instance, Type::TEXT),
                (&segment(from), Type::INT8),
                (&offset(from), Type::INT8),
                (&segment(to), Type::INT8),
                (&offset(to), Type::INT8),
                (&Value::from(exchanges).to_string(), Type::TEXT),
                (&Value::from(admissions).to_string(), Type::TEXT),
                (&Value::from(bypasses).to_string(), Type::TEXT),
            ],
        )?;
        Ok(rows.first().map(position).unwrap_or_default())
    }

    /// Completes rows that were committed before: they keep the transaction that they came in, so
    /// that nobody counts them again. Done twice, it changes nothing.
    fn explain(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        let explained = entries.iter().filter_map(|entry| match entry {
            Entry::Explained { id, explained } => Some(stage::explained(id, explained)),
            Entry::Opened { .. }
            | Entry::Admitted { .. }
            | Entry::Recorded(_)
            | Entry::Bypassed(_) => None,
        });
        let explained: Vec<Value> = explained.collect();
        if explained.is_empty() {
            return Ok(());
        }
        self.blocking
            .query(
                &EXPLAIN,
                &[(&Value::from(explained).to_string(), Type::TEXT)],
            )
            .map(drop)
    }

    fn rows(&mut self, instance: &str, entries: &[Entry]) -> rusqlite::Result<[Vec<Value>; 3]> {
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
        let recorded = entries.iter().filter_map(|entry| match entry {
            Entry::Recorded(record) => Some(record.as_ref()),
            Entry::Opened { .. }
            | Entry::Admitted { .. }
            | Entry::Bypassed(_)
            | Entry::Explained { .. } => None,
        });
        let exchanges = stage::rows(&mut self.stage, instance, recorded)?;
        let in_flight: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Admitted { reserved, record } if !ended.contains(record.id.as_str()) => {
                    Some(lost(record.as_ref().clone(), *reserved))
                }
                Entry::Opened { .. }
                | Entry::Admitted { .. }
                | Entry::Recorded(_)
                | Entry::Bypassed(_)
                | Entry::Explained { .. } => None,
            })
            .collect();
        let admissions = stage::rows(&mut self.stage, instance, in_flight.iter())?;
        let bypassed = entries.iter().filter_map(|entry| match entry {
            Entry::Bypassed(bypass) => Some(bypass),
            Entry::Opened { .. }
            | Entry::Admitted { .. }
            | Entry::Recorded(_)
            | Entry::Explained { .. } => None,
        });
        let bypasses = stage::bypasses(&mut self.stage, bypassed)?;
        Ok([exchanges, admissions, bypasses])
    }

    /// How far the journal of `instance` is committed.
    pub(in crate::ledger) fn committed(&mut self, instance: &str) -> Result<Position, LedgerError> {
        let rows = self.blocking.query(
            "SELECT segment, \"end\" FROM weir.journal WHERE instance = $1",
            &[(&instance, Type::TEXT)],
        )?;
        Ok(rows.first().map(position).unwrap_or_default())
    }

    /// Ends `instance`, all of whose journal is committed and which writes no more: what it had in
    /// flight counts as spent, what it had leased returns.
    pub(in crate::ledger) fn settle_lost(&mut self, instance: &str) -> Result<usize, LedgerError> {
        self.end(instance, false)
    }

    /// Drops the note of how far the journal of `instance` is committed.
    pub(in crate::ledger) fn forget(&mut self, instance: &str) -> Result<(), LedgerError> {
        self.blocking
            .query(
                "DELETE FROM weir.journal WHERE instance = $1",
                &[(&instance, Type::TEXT)],
            )
            .map(drop)
    }

    /// Gives up nodes that were silent for too long. What they tell later replaces what is presumed
    /// of them now.
    pub(in crate::ledger) fn give_up_silent(&mut self) -> Result<(), LedgerError> {
        self.sign()?;
        for row in self.blocking.query("SELECT weir.silent()", &[])? {
            let node: String = row.get(0);
            let lost = self.end(&node, true)?;
            tracing::warn!(node, lost, "gave up a weir that was silent for too long");
            let lost = u64::try_from(lost).unwrap_or(u64::MAX);
            self.watched.given_up.fetch_add(1, Ordering::Relaxed);
            self.watched.presumed.fetch_add(lost, Ordering::Relaxed);
        }
        let ownerless = self.number("SELECT weir.ownerless()", &[])?;
        let ownerless = u64::try_from(ownerless).unwrap_or(0);
        self.watched.ownerless.store(ownerless, Ordering::Relaxed);
        self.purge()
    }

    /// Drops what the books have of windows that are long over, if that is due.
    fn purge(&mut self) -> Result<(), LedgerError> {
        if self.purged_at.is_some_and(|at| at.elapsed() < PURGE_EVERY) {
            return Ok(());
        }
        let before_ms = unix_ms().saturating_sub(CLOCKS_MS);
        let gone = self.number(
            "SELECT weir.purge($1, $2)",
            &[(&before_ms, Type::INT8), (&PURGE_ROWS, Type::INT8)],
        )?;
        let idle = self.number(
            "SELECT weir.purge_rolling($1)",
            &[(&PURGE_ROWS, Type::INT8)],
        )?;
        let forgotten = self.number(
            "SELECT weir.purge_conversations($1, $2, $3, $4)",
            &[
                (&CONVERSATION_DAYS, Type::INT8),
                (&CONVERSATIONS_MAX, Type::INT8),
                (&CONVERSATION_BYTES_MAX, Type::INT8),
                (&PURGE_ROWS, Type::INT8),
            ],
        )?;
        // Where there is more, it goes with the next looks.
        if gone.max(idle).max(forgotten) < PURGE_ROWS {
            self.purged_at = Some(Instant::now());
        }
        Ok(())
    }

    fn number(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<i64, LedgerError> {
        let rows = self.blocking.query(sql, parameters)?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    fn end(&mut self, instance: &str, only_if_silent: bool) -> Result<usize, LedgerError> {
        let lost = self.number(
            "SELECT weir.end_holder($1, $2)",
            &[(&instance, Type::TEXT), (&only_if_silent, Type::BOOL)],
        )?;
        Ok(usize::try_from(lost).unwrap_or(0))
    }

    /// Tells that this process lives, if that is due.
    fn sign(&mut self) -> Result<(), LedgerError> {
        if self.signed_at.is_some_and(|at| at.elapsed() < SIGN_EVERY) {
            return Ok(());
        }
        // Twice, where the first answer is that it has to register anew.
        for _ in 0..2 {
            let (sign, holder) = {
                let slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
                (slices.sign(), slices.holder().to_owned())
            };
            let (sql, epoch) = match sign {
                Sign::Register { epoch } => ("SELECT weir.register($1, $2, $3)", epoch),
                Sign::Renew { epoch } => ("SELECT weir.renew($1, $2, $3)", epoch),
            };
            let sent_ms = leases::now_ms();
            let rows = self.blocking.query(
                sql,
                &[
                    (&holder, Type::TEXT),
                    (&epoch, Type::INT8),
                    (&LEASE_MS, Type::INT8),
                ],
            )?;
            let accepted = rows.first().is_some_and(|row| row.get(0));
            let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
            slices.signed(sent_ms, sign, accepted);
            if accepted {
                break;
            }
        }
        self.signed_at = Some(Instant::now());
        Ok(())
    }
}

fn position(row: &tokio_postgres::Row) -> Position {
    let number = |at: usize| {
        let number: Option<i64> = row.get(at);
        u64::try_from(number.unwrap_or(0)).unwrap_or(0)
    };
    Position {
        segment: number(0),
        offset: number(1),
    }
}

static EXPLAIN: LazyLock<String> = LazyLock::new(|| {
    let columns = sqlite::set_explained(|name| format!("x.{name}"));
    format!(
        "UPDATE weir.exchange AS e SET {columns}
         FROM jsonb_populate_recordset(NULL::weir.exchange, $1::text::jsonb) AS x
         WHERE e.id = x.id"
    )
});
/// How often a sign of life is given: some times within what a lease lasts.
const SIGN_EVERY: Duration = Duration::from_secs(5);
/// How often what the books have of windows that are over is dropped.
const PURGE_EVERY: Duration = Duration::from_secs(3_600);
/// Rows of a table that are dropped at once.
const PURGE_ROWS: i64 = 5_000;
/// For so long after a window its spend is kept, in milliseconds: two days, for clocks that are wrong.
const CLOCKS_MS: i64 = 2 * 86_400_000;
/// How long a conversation is kept after something was told in it last.
const CONVERSATION_DAYS: i64 = 30;
/// Conversations that are kept; a usual one takes a few kilobytes.
const CONVERSATIONS_MAX: i64 = 500_000;
/// What they may take together, in bytes.
const CONVERSATION_BYTES_MAX: i64 = 8 << 30;
