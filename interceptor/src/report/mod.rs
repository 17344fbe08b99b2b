//! What `weir report` and `weir compare` answer, from the ledger: what the prompt cache did, what
//! was spent, how each route does, and what was not inspected.
//!
//! In reading order: the question (`query`), the rows of the ledger (`reader`), the answers
//! (`cache`, `spend`, `routes`, `compare`, `bypass`), and how they are shown (`cell`, `show`,
//! `focus`). Everything is added up here and not in SQL: days are those of a time zone, and amounts
//! must not become floats.

mod query;
mod reader;

mod bypass;
mod cache;
mod latency;
mod routes;
mod spend;

mod compare;

mod cell;
mod focus;
mod show;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context as _;
pub use bypass::{BypassReport, BypassTotals};
pub use cache::{CacheReport, CacheTotals};
pub use cell::Cell;
pub(crate) use cell::{dollars, short_dollars};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
pub use compare::{CompareArguments, compare};
use jiff::tz::TimeZone;
pub use query::{GroupKey, Query, Since};
pub use reader::Reader;
pub use routes::{RouteTotals, RoutesReport};
pub use show::{Format, Report, Row, Totals, render_csv, render_json, render_table};
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
    /// What the prompt cache did: what it read and saved, and what it missed and why.
    #[command(mut_arg("by", |by| by.default_value("model")), after_help = CACHE_EXAMPLES)]
    Cache(GroupedArguments),
    /// What was spent, and what was refused.
    #[command(mut_arg("by", |by| by.default_value("provider,model")), after_help = SPEND_EXAMPLES)]
    Spend(GroupedArguments),
    /// How each route does: completed calls, latency, the effective price of input.
    #[command(mut_arg("by", |by| by.default_value("host,model")), after_help = ROUTES_EXAMPLES)]
    Routes(GroupedArguments),
    /// What was not inspected, and why.
    #[command(mut_arg("format", without_focus), after_help = BYPASS_EXAMPLES)]
    Bypass(ShownArguments),
}

const CACHE_EXAMPLES: &str = "\
Examples:
  weir report cache                     each model, the last 24 hours
  weir report cache --by reason,rule    what was missed, and what is to blame
  weir report cache --by user --since 7d";
const SPEND_EXAMPLES: &str = "\
Examples:
  weir report spend --by user,model --since 2026-11-01
  weir report spend --by day,team --format csv > spend.csv
  weir report spend --by key --format focus > focus.csv";
const ROUTES_EXAMPLES: &str = "\
Examples:
  weir report routes --since 7d
  weir report routes --by host --json";
const BYPASS_EXAMPLES: &str = "\
Example:
  weir report bypass --since 24h";

/// Options of a report whose calls can be grouped.
#[derive(Clone, Debug, clap::Args)]
pub struct GroupedArguments {
    /// What to group calls by: one or more of these, with commas between them.
    #[arg(long, value_enum, value_name = "KEY,…", value_delimiter = ',')]
    pub by: Vec<GroupKey>,
    /// From when on, and how to show it.
    #[command(flatten)]
    pub shown: ShownArguments,
}

/// Options of all reports.
#[derive(Clone, Debug, clap::Args)]
pub struct ShownArguments {
    /// From when on: 90m, 24h, 7d, 4w, or a day such as 2026-11-01.
    #[arg(long, value_name = "WHEN", default_value = "24h")]
    pub since: Since,
    /// How to show it.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

impl ShownArguments {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    fn query(&self, by: &[GroupKey], fees: &BTreeMap<String, u32>) -> anyhow::Result<Query> {
        let time_zone = TimeZone::system();
        Ok(Query {
            since_unix_ms: self.since.unix_ms(jiff::Timestamp::now(), &time_zone)?,
            by: by.to_vec(),
            time_zone,
            fees: fees.clone(),
        })
    }
}

/// `--format` of what has no cost, or compares, and so has no rows of the FinOps format.
fn without_focus(format: clap::Arg) -> clap::Arg {
    let parser = PossibleValuesParser::new(["table", "json", "csv"]);
    format.value_parser(parser.map(|name| match name.as_str() {
        "json" => Format::Json,
        "csv" => Format::Csv,
        _ => Format::Table,
    }))
}

/// Answers `weir report`, in the time zone of this machine. `fees` are what hosts charge on top of
/// their prices, in basis points; a table is at most `columns` wide.
///
/// # Errors
/// Where there is no ledger, or it cannot be read, or `out` not be written.
pub fn run(
    arguments: &Arguments,
    ledger: &LedgerOptions,
    fees: &BTreeMap<String, u32>,
    columns: usize,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (shown, by) = match &arguments.what {
        What::Cache(grouped) | What::Spend(grouped) | What::Routes(grouped) => {
            (&grouped.shown, grouped.by.as_slice())
        }
        What::Bypass(shown) => (shown, &[][..]),
    };
    let query = shown.query(by, fees)?;
    let reader = Reader::open_since(ledger, query.since_unix_ms)?;
    let format = shown.format();
    let text = match &arguments.what {
        What::Bypass(_) => show::render(&bypass::report(&reader, &query)?, format, columns)?,
        _ if format == Format::Focus => focus::export(&reader, &query)?,
        What::Cache(_) => show::render(&cache::report(&reader, &query)?, format, columns)?,
        What::Spend(_) => show::render(&spend::report(&reader, &query)?, format, columns)?,
        What::Routes(_) => show::render(&routes::report(&reader, &query)?, format, columns)?,
    };
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

/// How each route does.
///
/// # Errors
/// Where the ledger cannot be read.
pub fn routes(reader: &Reader, query: &Query) -> anyhow::Result<RoutesReport> {
    Ok(routes::report(reader, query)?)
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
