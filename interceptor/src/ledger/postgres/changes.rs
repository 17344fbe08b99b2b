//! What people change of caps, in a PostgreSQL ledger.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use weir_core::caps::Change;

use super::super::LedgerError;
use super::super::store::{self as sqlite};
use super::spends::Spends;
use super::stage;

impl Spends {
    /// The latest changes that were ever made, oldest first.
    pub(in crate::ledger) fn history(&mut self) -> Result<Vec<Change>, LedgerError> {
        let rows = self.blocking.query(
            "SELECT row FROM (
                SELECT (to_jsonb(c) - 'seen')::text AS row, seq FROM weir.cap_change AS c
                ORDER BY seq DESC LIMIT $1
             ) AS latest ORDER BY seq",
            &[(&sqlite::HISTORY_MAX, Type::INT8)],
        )?;
        let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let transaction = self.stage.transaction().map_err(LedgerError::Commit)?;
        staged(&transaction, &rows)
            .and_then(|()| sqlite::history(&transaction))
            .map_err(LedgerError::Commit)
    }

    /// Writes a change down; returns its number.
    pub(in crate::ledger) fn change(
        &mut self,
        change: &Change,
        accounts: &[String],
    ) -> Result<i64, LedgerError> {
        let (by, until_ms) = sqlite::change_parts(change.kind);
        let row = serde_json::json!({
            "at_ms": change.at_ms,
            "cap": change.cap,
            "scope": change.scope,
            "kind": sqlite::change_kind(change.kind),
            "nanos": by.money.nanos(),
            "tokens": sqlite::integer(by.tokens),
            "calls": sqlite::integer(by.calls),
            "until_ms": until_ms,
            "author": change.author,
            "reason": change.reason,
        });
        let rows = self.blocking.query(
            "SELECT number FROM weir.change_cap($1::text::jsonb, $2)",
            &[
                (&row.to_string(), Type::TEXT),
                (&accounts, Type::TEXT_ARRAY),
            ],
        )?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    /// What nodes may spend of accounts beyond what is spent.
    pub(in crate::ledger) fn held(
        &mut self,
        accounts: &[(String, i64)],
    ) -> Result<HashMap<String, i64>, LedgerError> {
        let (names, since): (Vec<&str>, Vec<i64>) = accounts
            .iter()
            .map(|(name, from)| (name.as_str(), *from))
            .unzip();
        let rows = self.blocking.query(
            "WITH asked AS (SELECT * FROM unnest($1, $2) AS a (account, from_ms))
             SELECT account, sum(greatest(allowed - spent, 0))::bigint FROM (
                SELECT account, holder, sum(allowed) AS allowed, sum(spent) AS spent FROM (
                    SELECT account, holder, allowed, 0 AS spent
                    FROM weir.lease JOIN asked USING (account)
                    UNION ALL
                    SELECT account, holder, 0, amount
                    FROM weir.spent JOIN asked USING (account) WHERE at_ms >= from_ms
                ) AS rights GROUP BY account, holder
             ) AS totals GROUP BY account",
            &[(&names, Type::TEXT_ARRAY), (&since, Type::INT8_ARRAY)],
        )?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

/// Puts changes that the server gave as objects into the stage.
pub(super) fn staged(stage: &rusqlite::Connection, rows: &[String]) -> rusqlite::Result<()> {
    let mut rows = rows.iter();
    rows.try_for_each(|row| stage::insert(stage, "cap_change", row))
}
