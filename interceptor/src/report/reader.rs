//! Reads the ledger row by row, beside whoever writes it.

use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::{Connection, Row};
use weir_core::money::Money;
use weir_core::usage::Usage;

use super::query::{GroupKey, Query};
use crate::ledger::{Bypass, LedgerError, LedgerOptions, open_read_only};

/// The ledger, opened for reading.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// What reports want of an exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The value of each key of the query.
    pub(super) group: Vec<String>,
    pub(super) started_ms: i64,
    pub(super) provider: String,
    pub(super) host: String,
    /// The model that answered or, where that is not known, the one that was asked for.
    pub(super) model: String,
    pub(super) outcome: String,
    /// Not so of a request whose API Weir does not know: whether it cost money isn't known either.
    pub(super) is_call: bool,
    pub(super) usage: Option<Usage>,
    /// As `Cost::as_str`.
    pub(super) cost_state: String,
    pub(super) cost: Option<Money>,
    /// What it would have cost, where a plan pays for it.
    pub(super) notional: Option<Money>,
    /// What it costs by list, where something else is charged.
    pub(super) cost_by_list: Option<Money>,
    pub(super) cost_of_input: Option<Money>,
    pub(super) cost_without_cache: Option<Money>,
    pub(super) cost_perfect_cache: Option<Money>,
    pub(super) cache_outcome: Option<String>,
    pub(super) cache_reason: Option<String>,
    pub(super) missed: Option<Money>,
    pub(super) rewrite_saving: Option<Money>,
    /// Whether its prompt was left as it is because edits of it saved nothing.
    pub(super) switched_off: bool,
    pub(super) first_byte_us: Option<u64>,
    pub(super) total_us: u64,
}

impl Exchange {
    /// Whether nothing was sent to the provider.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.outcome.as_str(), "refused" | "denied")
    }
}

impl Reader {
    /// Opens the ledger. Writers are not disturbed.
    ///
    /// # Errors
    /// Where there is none, or it is another version's, or it cannot be read.
    pub fn open(options: &LedgerOptions) -> Result<Self, LedgerError> {
        Self::open_since(options, i64::MIN)
    }

    /// Opens the ledger for queries that begin at a time or later: that much is copied of one that
    /// is on a server.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_since(options: &LedgerOptions, since_unix_ms: i64) -> Result<Self, LedgerError> {
        let since = since_unix_ms.saturating_sub(MINUTE_MS);
        let (connection, path) = open_read_only(options, since)?;
        Ok(Self { connection, path })
    }

    /// Hands over every exchange that the query wants.
    pub(super) fn each_exchange(
        &self,
        query: &Query,
        mut each: impl FnMut(Exchange),
    ) -> Result<(), LedgerError> {
        self.each_row(EXCHANGES, query.since_unix_ms, |row| {
            each(exchange(row, query)?);
            Ok(())
        })
    }

    /// Hands over every count of what was not inspected.
    pub(super) fn each_bypass(
        &self,
        query: &Query,
        mut each: impl FnMut(Bypass),
    ) -> Result<(), LedgerError> {
        // A minute counts where any of it does.
        let since = query.since_unix_ms.saturating_sub(MINUTE_MS - 1);
        self.each_row(BYPASSES, since, |row| {
            each(Bypass {
                at_unix_ms: row.get("minute_ms")?,
                program: row.get("program")?,
                host: row.get("host")?,
                destination: row.get("destination")?,
                reason: row.get("reason")?,
                count: unsigned(row.get("count")?),
            });
            Ok(())
        })
    }

    fn each_row(
        &self,
        sql: &str,
        since: i64,
        mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), LedgerError> {
        let mut read = || {
            let mut select = self.connection.prepare(sql)?;
            let mut rows = select.query([since])?;
            while let Some(row) = rows.next()? {
                each(row)?;
            }
            Ok(())
        };
        read().map_err(|source| LedgerError::Database {
            path: self.path.clone(),
            source,
        })
    }
}

fn exchange(row: &Row<'_>, query: &Query) -> rusqlite::Result<Exchange> {
    let group = query
        .by
        .iter()
        .map(|key| value_of(row, *key, query))
        .collect::<Result<_, _>>()?;
    let input: Option<i64> = row.get("input")?;
    let tokens = |column: &str| {
        row.get(column)
            .map(|tokens: Option<i64>| unsigned(tokens.unwrap_or(0)))
    };
    let usage = match input {
        None => None,
        Some(input) => Some(Usage {
            input: unsigned(input),
            cache_read: tokens("cache_read")?,
            cache_write: tokens("cache_write")?,
            cache_write_long: tokens("cache_write_long")?,
            output: tokens("output")?,
            reasoning: tokens("reasoning")?,
            web_searches: tokens("web_searches")?,
            ..Usage::default()
        }),
    };
    // Where there is more than columns have, all of it is told there.
    let details: Option<String> = row.get("usage_details")?;
    let details = details.and_then(|details| serde_json::from_str(&details).ok());
    let amount = |column: &str| {
        row.get(column)
            .map(|nanos: Option<i64>| nanos.map(Money::from_nanos))
    };
    let cost_state: String = row.get("cost_state")?;
    Ok(Exchange {
        is_call: cost_state != "unknown" || !row.get::<_, String>("api")?.is_empty(),
        group,
        started_ms: row.get("started_ms")?,
        provider: row.get("provider")?,
        host: row.get("host")?,
        model: match row.get::<_, Option<String>>("model_answered")? {
            None => row.get("model_requested")?,
            answered => answered,
        }
        .unwrap_or_default(),
        outcome: row.get("outcome")?,
        usage: details.or(usage),
        cost_state,
        cost: amount("cost_nanos")?,
        notional: amount("notional_nanos")?,
        cost_by_list: amount("cost_by_list_nanos")?,
        cost_of_input: amount("cost_input_nanos")?,
        cost_without_cache: amount("cost_without_cache_nanos")?,
        cost_perfect_cache: amount("cost_perfect_cache_nanos")?,
        cache_outcome: row.get("cache_outcome")?,
        cache_reason: row.get("cache_reason")?,
        missed: amount("missed_nanos")?,
        rewrite_saving: amount("rewrite_saving_nanos")?,
        switched_off: row.get::<_, String>("reasons")?.contains(SWITCHED_OFF),
        first_byte_us: row
            .get::<_, Option<i64>>("upstream_first_byte_us")?
            .map(unsigned),
        total_us: unsigned(row.get("total_us")?),
    })
}

fn value_of(row: &Row<'_>, key: GroupKey, query: &Query) -> rusqlite::Result<String> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let value = match key {
        GroupKey::Day => Some(day_of(row.get("started_ms")?, query)),
        GroupKey::Provider => text("provider")?,
        GroupKey::Model => text("model_requested")?,
        GroupKey::Host => text("host")?,
        GroupKey::Api => text("api")?,
        GroupKey::Key => text("key_hash")?.map(|hash| {
            let start: String = hash.chars().take(8).collect();
            text("key_tail")
                .ok()
                .flatten()
                .map_or_else(|| start.clone(), |tail| format!("{start}…{tail}"))
        }),
        GroupKey::User => match text("user")? {
            None => row.get::<_, Option<u32>>("uid")?.map(|uid| uid.to_string()),
            named => named,
        },
        GroupKey::Process => text("program")?,
        GroupKey::Cgroup => text("cgroup")?,
        GroupKey::Container => text("container")?,
        GroupKey::Pod => text("pod")?,
        GroupKey::Namespace => text("namespace")?,
        GroupKey::ServiceAccount => text("service_account")?,
        GroupKey::Team => text("team")?,
        GroupKey::Session => text("session")?,
        GroupKey::Outcome => text("cache_outcome")?,
        // Where there was nothing to explain there is no reason, and that is known.
        GroupKey::Reason => return Ok(text("cache_reason")?.unwrap_or_else(|| NONE.to_owned())),
        GroupKey::Rule => return Ok(text("cache_rule")?.unwrap_or_else(|| NONE.to_owned())),
        GroupKey::Program => None,
    };
    Ok(value
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| UNKNOWN.to_owned()))
}

fn day_of(unix_ms: i64, query: &Query) -> String {
    // The calendar reaches to the year 9999; a clock beyond it is as good as none.
    Timestamp::from_millisecond(unix_ms).map_or_else(
        |_| UNKNOWN.to_owned(),
        |at| at.to_zoned(query.time_zone.clone()).date().to_string(),
    )
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

const MINUTE_MS: i64 = 60_000;
const UNKNOWN: &str = "unknown";
const NONE: &str = "-";
/// Among the reasons of a record, which are JSON.
const SWITCHED_OFF: &str = "\"not_rewritten_switched_off\"";
/// What is no call and costs nothing, such as a list of models, is in the ledger and in no report.
const EXCHANGES: &str = "SELECT * FROM exchange WHERE started_ms >= ? \
    AND NOT (api = '' AND cost_state = 'priced' AND cost_nanos = 0)";
const BYPASSES: &str = "SELECT * FROM bypass WHERE minute_ms >= ?";
