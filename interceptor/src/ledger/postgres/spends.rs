//! What the caps and the reports read of a PostgreSQL ledger.

use std::collections::HashMap;

use rusqlite::Connection;
use tokio_postgres::types::Type;

use super::super::store::{self as sqlite};
use super::super::{LedgerError, Others, Spend};
use super::{Blocking, CALL_WAIT, Parameter, Target, block_on, changes, failed, late, stage};
use crate::sidecar::unix_ms;

/// A connection that only reads, and what it has read of other nodes.
#[derive(Debug)]
pub(in crate::ledger) struct Spends {
    pub(super) blocking: Blocking,
    pub(super) stage: Connection,
    own_instance: String,
    /// What was visible when it last looked.
    seen: String,
}

/// Rows of one snapshot, as JSON.
struct Look {
    /// What was visible in it.
    seen: String,
    spent: Vec<String>,
    /// By their ids, those that came after a reset: after which.
    after_change: HashMap<String, i64>,
    reserved: Vec<String>,
    changes: Vec<String>,
}

impl Spends {
    pub(in crate::ledger) fn open(target: Target, own_instance: &str) -> Result<Self, LedgerError> {
        let mut blocking = Blocking::new(target)?;
        let rows = blocking.query("SELECT pg_current_snapshot()::text", &[])?;
        Ok(Self {
            blocking,
            stage: stage::empty()?,
            own_instance: own_instance.to_owned(),
            seen: rows.first().map(|row| row.get(0)).unwrap_or_default(),
        })
    }

    /// Every amount spent since a time, by whomever, and up to where others' are read on.
    pub(in crate::ledger) fn since(
        &mut self,
        since_unix_ms: i64,
        each: &mut dyn FnMut(Spend),
    ) -> Result<(), LedgerError> {
        let spent = "SELECT to_jsonb(e)::text, e.id, e.after_change FROM weir.exchange AS e
             WHERE e.started_ms >= $1 ORDER BY e.started_ms";
        let look = self.look(spent, &[(&since_unix_ms, Type::INT8)], None)?;
        self.spends(&look.spent, |id| after(&look, id))
            .map_err(LedgerError::Commit)?
            .into_iter()
            .for_each(each);
        self.seen = look.seen;
        Ok(())
    }

    /// What others spent since the last call, and have in flight: at one instant.
    pub(in crate::ledger) fn others(&mut self) -> Result<Others, LedgerError> {
        // What is visible now and was not then. An xid that is yet to come is of another cluster,
        // from which this one was restored.
        let spent = "SELECT to_jsonb(e)::text, e.id, e.after_change FROM weir.exchange AS e
             WHERE e.tx >= pg_snapshot_xmin($1::text::pg_snapshot)
             AND e.tx < pg_snapshot_xmax(pg_current_snapshot())
             AND NOT pg_visible_in_snapshot(e.tx, $1::text::pg_snapshot)
             AND e.instance <> $2 ORDER BY e.started_ms";
        let (since, own) = (self.seen.clone(), self.own_instance.clone());
        let parameters: [Parameter<'_>; 2] = [(&since, Type::TEXT), (&own, Type::TEXT)];
        let in_flight = "SELECT exchange::text FROM weir.admission WHERE instance <> $1";
        let look = self.look(spent, &parameters, Some((in_flight, &[(&own, Type::TEXT)])))?;
        let others = self.told(&look).map_err(LedgerError::Commit)?;
        self.seen = look.seen;
        Ok(others)
    }

    fn told(&mut self, look: &Look) -> rusqlite::Result<Others> {
        Ok(Others {
            spent: self.spends(&look.spent, |id| after(look, id))?,
            reserved: self.spends(&look.reserved, |_| i64::MAX)?,
            changes: {
                let transaction = self.stage.transaction()?;
                changes::staged(&transaction, &look.changes)?;
                sqlite::in_force(&transaction, unix_ms())?
            },
        })
    }

    /// Answers of one or two questions, all of one snapshot, which is told.
    fn look(
        &mut self,
        spent: &str,
        parameters: &[Parameter<'_>],
        reserved: Option<(&str, &[Parameter<'_>])>,
    ) -> Result<Look, LedgerError> {
        let Blocking { runtime, link } = &mut self.blocking;
        let name = link.target.name.clone();
        let asked = async {
            let client = link.client().await?;
            let answers = async {
                let snapshot = client
                    .build_transaction()
                    .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
                    .read_only(true)
                    .start()
                    .await?;
                let seen = "SELECT pg_current_snapshot()::text";
                let seen = texts(&snapshot.query_typed(seen, &[]).await?);
                let spent = snapshot.query_typed(spent, parameters).await?;
                let (reserved, changes) = match reserved {
                    Some((sql, parameters)) => (
                        texts(&snapshot.query_typed(sql, parameters).await?),
                        texts(&snapshot.query_typed(CHANGES, &[]).await?),
                    ),
                    None => Default::default(),
                };
                snapshot.commit().await?;
                let after = |row: &tokio_postgres::Row| (row.get(1), row.get(2));
                Ok(Look {
                    seen: seen.concat(),
                    after_change: spent
                        .iter()
                        .map(after)
                        .filter(|(_, after)| *after > 0)
                        .collect(),
                    spent: texts(&spent),
                    reserved,
                    changes,
                })
            };
            answers.await.map_err(|error| failed(&name, &error))
        };
        let answers = block_on(runtime.as_ref(), async {
            // Everything since the start of a month may be much.
            let asked = tokio::time::timeout(CALL_WAIT * 20, asked).await;
            asked.unwrap_or_else(|_| Err(late(&name)))
        });
        if answers.is_err() {
            link.client = None;
        }
        answers
    }

    fn spends(
        &mut self,
        rows: &[String],
        after_change: impl Fn(&str) -> i64,
    ) -> rusqlite::Result<Vec<Spend>> {
        let transaction = self.stage.transaction()?;
        for row in rows {
            stage::insert(&transaction, "exchange", row)?;
        }
        let mut spends = sqlite::spends(&transaction)?;
        for spend in &mut spends {
            spend.after_change = after_change(&spend.id);
        }
        Ok(spends)
    }
}

/// Everything since a time, copied into a SQLite ledger for whoever reports of it.
pub(in crate::ledger) fn copy(
    target: Target,
    since_unix_ms: i64,
) -> Result<Connection, LedgerError> {
    let mut blocking = Blocking::new(target)?;
    let stage = stage::empty()?;
    let fill = |table: &str, rows: &[tokio_postgres::Row]| {
        stage.execute_batch("BEGIN")?;
        for row in rows {
            stage::insert(&stage, table, row.get(0))?;
        }
        stage.execute_batch("COMMIT")
    };
    let mut after = String::new();
    loop {
        let sql = "SELECT to_jsonb(e)::text, id FROM weir.exchange AS e
            WHERE started_ms >= $1 AND id > $2 ORDER BY id LIMIT $3";
        let parameters: [Parameter<'_>; 3] = [
            (&since_unix_ms, Type::INT8),
            (&after, Type::TEXT),
            (&PAGE_ROWS, Type::INT8),
        ];
        let rows = blocking.query(sql, &parameters)?;
        fill("exchange", &rows).map_err(LedgerError::Commit)?;
        match rows.last() {
            Some(last) => after = last.get(1),
            None => break,
        }
    }
    let sql = "SELECT to_jsonb(b)::text FROM weir.bypass AS b WHERE minute_ms >= $1";
    let rows = blocking.query(sql, &[(&since_unix_ms, Type::INT8)])?;
    fill("bypass", &rows).map_err(LedgerError::Commit)?;
    Ok(stage)
}

fn after(look: &Look, id: &str) -> i64 {
    look.after_change.get(id).copied().unwrap_or(0)
}

fn texts(rows: &[tokio_postgres::Row]) -> Vec<String> {
    rows.iter().map(|row| row.get(0)).collect()
}

/// Raises, and of the resets of each account the latest. Which have ended is for each node's clock.
const CHANGES: &str = "SELECT (to_jsonb(c) - 'seen')::text FROM weir.cap_change AS c
    WHERE until_ms > (extract(epoch FROM now()) * 1000)::bigint - 86400000 OR seq IN
    (SELECT max(one.seq) FROM weir.cap_change AS one LEFT JOIN
        (SELECT cap, max(seq) AS seq FROM weir.cap_change WHERE kind = 'reset' AND scope IS NULL
         GROUP BY cap) AS of_all ON of_all.cap = one.cap
     WHERE one.kind = 'reset' AND one.seq >= coalesce(of_all.seq, 0)
     GROUP BY one.cap, one.scope)";
/// Rows copied at once.
const PAGE_ROWS: i64 = 5_000;
