//! Rows between the two databases: an empty SQLite ledger in memory makes rows of records, and
//! reads rows back, with the statements of the SQLite ledger. So there is one list of columns.

use rusqlite::Connection;
use rusqlite::types::{Value as Cell, ValueRef};
use serde_json::{Map, Value};

use super::super::record::{Bypass, Explained, Record};
use super::super::{LedgerError, schema, store};

/// An empty ledger, in memory, or where it grows large in a file that is removed with it.
pub(super) fn empty() -> Result<Connection, LedgerError> {
    let mut connection = Connection::open("").map_err(LedgerError::Commit)?;
    connection
        .pragma_update(None, "synchronous", "off")
        .map_err(LedgerError::Commit)?;
    schema::migrations()
        .to_latest(&mut connection)
        .map_err(|error| LedgerError::Postgres {
            at: "the columns of the ledger".to_owned(),
            reason: error.to_string(),
        })?;
    Ok(connection)
}

/// Records as objects with the columns of `exchange`.
pub(super) fn rows<'a>(
    stage: &mut Connection,
    instance: &str,
    records: impl Iterator<Item = &'a Record>,
) -> rusqlite::Result<Vec<Value>> {
    // Rolled back when dropped: the stage stays empty.
    let transaction = stage.transaction()?;
    let mut rows = Vec::new();
    let mut insert = store::Records::new(&transaction)?;
    for record in records {
        insert.insert(instance, record)?;
        let mut row = last_row(&transaction)?;
        row.insert("charges".to_owned(), serde_json::json!(record.charges));
        rows.push(Value::Object(row));
        transaction
            .prepare_cached("DELETE FROM exchange")?
            .execute([])?;
    }
    Ok(rows)
}

fn last_row(stage: &Connection) -> rusqlite::Result<Map<String, Value>> {
    let mut select = stage.prepare_cached("SELECT * FROM exchange")?;
    let names: Vec<String> = select
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    select.query_row([], |row| {
        let mut object = Map::new();
        for (index, name) in names.into_iter().enumerate() {
            if let Some(value) = json(row.get_ref(index)?).filter(|_| name != "seq") {
                object.insert(name, value);
            }
        }
        Ok(object)
    })
}

/// What was found out about a call, as an object with columns of `exchange`.
pub(super) fn explained(id: &str, explained: &Explained) -> Value {
    let columns = store::explained_columns(explained).into_iter();
    let columns = columns.filter_map(|(name, cell)| Some((name, json(ValueRef::from(&cell))?)));
    columns.chain([("id", Value::from(id))]).collect()
}

/// None where there is nothing.
fn json(cell: ValueRef<'_>) -> Option<Value> {
    match cell {
        ValueRef::Integer(number) => Some(Value::from(number)),
        ValueRef::Text(text) => Some(Value::from(without_nul(text))),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// PostgreSQL has no text with a zero in it, and clients choose some of these.
fn without_nul(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace('\0', NO_NUL)
}

/// Adds a row that PostgreSQL gave as an object to a table of the stage, as far as it has its
/// columns.
pub(super) fn insert(stage: &Connection, table: &str, row: &str) -> rusqlite::Result<()> {
    let row: Map<String, Value> = serde_json::from_str(row).unwrap_or_default();
    let mut known = stage.prepare_cached("SELECT name FROM pragma_table_info(?)")?;
    let known: Vec<String> = known
        .query_map([table], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let cells: Vec<(&String, Cell)> = known
        .iter()
        .filter_map(|name| Some((name, cell(row.get(name)?)?)))
        .collect();
    let names: Vec<String> = cells
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    let marks = vec!["?"; cells.len()];
    let sql = format!(
        "INSERT INTO {table} ({}) VALUES ({})",
        names.join(", "),
        marks.join(", ")
    );
    let cells = cells.into_iter().map(|(_, cell)| cell);
    stage
        .prepare_cached(&sql)?
        .execute(rusqlite::params_from_iter(cells))?;
    Ok(())
}

fn cell(value: &Value) -> Option<Cell> {
    match value {
        Value::Number(number) => number.as_i64().map(Cell::Integer),
        Value::String(text) => Some(Cell::Text(text.clone())),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What was not inspected, added up by minute, as objects with the columns of `bypass`.
pub(super) fn bypasses<'a>(
    stage: &mut Connection,
    bypasses: impl Iterator<Item = &'a Bypass>,
) -> rusqlite::Result<Vec<Value>> {
    let transaction = stage.transaction()?;
    for bypass in bypasses {
        store::add_bypass(&transaction, bypass)?;
    }
    transaction
        .prepare_cached("SELECT minute_ms, program, host, reason, destination, count FROM bypass")?
        .query_map([], |row| {
            let text = |at: usize| {
                row.get::<_, String>(at)
                    .map(|text| text.replace('\0', NO_NUL))
            };
            Ok(serde_json::json!({
                "minute_ms": row.get::<_, i64>(0)?,
                "program": text(1)?,
                "host": text(2)?,
                "reason": text(3)?,
                "destination": text(4)?,
                "count": row.get::<_, i64>(5)?,
            }))
        })?
        .collect()
}

const NO_NUL: &str = "\u{fffd}";
