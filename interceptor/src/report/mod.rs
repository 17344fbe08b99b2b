//! What `weir report` answers, from the ledger: what the prompt cache did, what was spent, and
//! what was not inspected.
//!
//! In reading order: the question (`query`), the rows of the ledger (`reader`), the answers
//! (`cache`, `spend`, `bypass`), and how they are shown (`show`). Everything is added up here and
//! not in SQL: days are those of a time zone, and amounts must not become floats.

mod query;
mod reader;

mod bypass;
mod cache;
mod spend;

mod show;

use std::io::Write;

use anyhow::Context as _;
pub use bypass::{BypassReport, BypassTotals};
pub use cache::{CacheReport, CacheTotals};
use jiff::tz::TimeZone;
pub use query::{GroupKey, Query, Since};
pub use reader::Reader;
pub(crate) use show::dollars;
pub use show::{Cell, Format, Report, Row, Totals, render_csv, render_json, render_table};
pub use spend::{SpendReport, SpendTotals};

use crate::ledger::LedgerOptions;

/// `weir report …`
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to report.
    #[command(subcommand)]
    pub what: What,
}

/// The reports.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// What the prompt cache did: tokens read and written, and what it saved.
    Cache(GroupedArguments),
    /// What was spent, and what was refused.
    Spend(GroupedArguments),
    /// What was not inspected, and why.
    Bypass(ShownArguments),
}

/// Options of a report whose calls can be grouped.
#[derive(Clone, Debug, clap::Args)]
pub struct GroupedArguments {
    /// What to group calls by.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "provider,model"
    )]
    pub by: Vec<GroupKey>,
    /// From when on, and how to show it.
    #[command(flatten)]
    pub shown: ShownArguments,
}

/// Options of all reports.
#[derive(Clone, Debug, clap::Args)]
pub struct ShownArguments {
    /// From when on: 90m, 24h, 7d, 4w, or a day such as 2026-11-01.
    #[arg(long, default_value = "24h")]
    pub since: Since,
    /// How to show it.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// Answers `weir report`, in the time zone of this machine.
///
/// # Errors
/// Where there is no ledger, or it cannot be read, or `out` not be written.
pub fn run(
    arguments: &Arguments,
    ledger: &LedgerOptions,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let reader = Reader::open(ledger)?;
    let now = jiff::Timestamp::now();
    let time_zone = TimeZone::system();
    let (What::Cache(GroupedArguments { shown, .. })
    | What::Spend(GroupedArguments { shown, .. })
    | What::Bypass(shown)) = &arguments.what;
    let by = match &arguments.what {
        What::Cache(grouped) | What::Spend(grouped) => grouped.by.clone(),
        What::Bypass(_) => Vec::new(),
    };
    let since_unix_ms = shown.since.unix_ms(now, &time_zone)?;
    let query = Query {
        since_unix_ms,
        by,
        time_zone,
    };
    let format = if shown.json {
        Format::Json
    } else {
        shown.format
    };
    let text = match &arguments.what {
        What::Cache(_) => show::render(&cache::report(&reader, &query)?, format),
        What::Spend(_) => show::render(&spend::report(&reader, &query)?, format),
        What::Bypass(_) => show::render(&bypass::report(&reader, &query)?, format),
    }?;
    out.write_all(text.as_bytes())
        .context("the report cannot be written")
}

/// What the prompt cache did.
///
/// # Errors
/// Where the ledger cannot be read.
pub fn cache(reader: &Reader, query: &Query) -> anyhow::Result<CacheReport> {
    Ok(cache::report(reader, query)?)
}

/// What was spent, and what was refused.
///
/// # Errors
/// Where the ledger cannot be read.
pub fn spend(reader: &Reader, query: &Query) -> anyhow::Result<SpendReport> {
    Ok(spend::report(reader, query)?)
}

/// What was not inspected, and why.
///
/// # Errors
/// Where the ledger cannot be read.
pub fn bypass(reader: &Reader, query: &Query) -> anyhow::Result<BypassReport> {
    Ok(bypass::report(reader, query)?)
}

#[cfg(test)]
mod tests;
