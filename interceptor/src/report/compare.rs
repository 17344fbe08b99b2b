//! `weir compare`: the same workload on two routes, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::ShownArguments;
use super::cell::{Cell, DECIMALS, percent};
use super::query::{GroupKey, Query};
use super::reader::Reader;
use super::routes::{RouteTotals, fee_note};
use super::show::{Format, Totals as _, align, calls, printable, quoted, widths};
use crate::ledger::{LedgerError, LedgerOptions};

/// `weir compare HOST_A HOST_B`
#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("format", super::without_focus), after_help = EXAMPLES)]
pub struct CompareArguments {
    /// A host, such as api.anthropic.com.
    #[arg(value_name = "HOST_A", value_parser = host)]
    host_a: String,
    /// Another, such as openrouter.ai.
    #[arg(value_name = "HOST_B", value_parser = host)]
    host_b: String,
    /// What makes calls comparable.
    #[arg(long, value_enum, value_name = "KEY", default_value = "model")]
    by: Comparable,
    /// From when on, and how to show it.
    #[command(flatten)]
    shown: ShownArguments,
}

/// What makes calls to two hosts comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Comparable {
    /// The model, by its name without the spelling of each host.
    Model,
    /// Who calls: the user and the program.
    Identity,
}

/// Two routes, side by side.
#[derive(Debug, Serialize)]
struct Comparison {
    /// What began before is left out: RFC 3339, in the time zone of the query.
    since: String,
    by: Comparable,
    hosts: [String; 2],
    /// Of each model or identity, what each host made of its calls; the busiest first.
    rows: Vec<Pair>,
    /// Only what has calls on both hosts, together.
    on_both: [RouteTotals; 2],
    /// Hosts that were called, these two or others.
    #[serde(skip)]
    called: BTreeSet<String>,
    #[serde(skip)]
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Pair {
    name: String,
    routes: [Option<RouteTotals>; 2],
}

/// Answers `weir compare`. `fees` are what hosts charge on top of their prices, in basis points; a
/// table is at most `columns` wide, where the names of what is compared are no longer.
///
/// # Errors
/// Where there is no ledger, or it cannot be read, or `out` not be written.
pub fn compare(
    arguments: &CompareArguments,
    ledger: &LedgerOptions,
    fees: &BTreeMap<String, u32>,
    columns: usize,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    ensure!(
        arguments.host_a != arguments.host_b,
        "expected two hosts to compare, found {} twice",
        arguments.host_a
    );
    let by = match arguments.by {
        Comparable::Model => &[][..],
        Comparable::Identity => &[GroupKey::User, GroupKey::Process],
    };
    let query = arguments.shown.query(by, fees)?;
    let reader = Reader::open_since(ledger, query.since_unix_ms)?;
    let comparison = gather(&reader, &query, arguments)?;
    let text = match arguments.shown.format() {
        Format::Table => comparison.table(&query, columns),
        Format::Json => serde_json::to_string_pretty(&comparison)? + "\n",
        Format::Csv | Format::Focus => comparison.csv(),
    };
    out.write_all(text.as_bytes())
        .context("the comparison cannot be written")
}

fn gather(
    reader: &Reader,
    query: &Query,
    arguments: &CompareArguments,
) -> Result<Comparison, LedgerError> {
    let hosts = [arguments.host_a.clone(), arguments.host_b.clone()];
    let mut rows = BTreeMap::<String, [Option<RouteTotals>; 2]>::new();
    let mut called = BTreeSet::new();
    reader.each_exchange(query, |exchange| {
        if !called.contains(&exchange.host) {
            called.insert(exchange.host.clone());
        }
        let Some(side) = hosts.iter().position(|host| *host == exchange.host) else {
            return;
        };
        if exchange.is_refused() || !exchange.is_call {
            return;
        }
        let name = match arguments.by {
            Comparable::Model => plain_model(&exchange.model),
            Comparable::Identity => exchange.group.join(" "),
        };
        let routes = rows.entry(name).or_default();
        if let Some(totals) = routes.get_mut(side) {
            totals.get_or_insert_default().add(&exchange, query);
        }
    })?;
    let mut on_both = [RouteTotals::default(), RouteTotals::default()];
    for routes in rows.values_mut() {
        if let [Some(a), Some(b)] = routes {
            on_both[0].merge(a);
            on_both[1].merge(b);
        }
        routes.iter_mut().flatten().for_each(RouteTotals::finish);
    }
    on_both.iter_mut().for_each(RouteTotals::finish);
    let mut rows: Vec<Pair> = rows
        .into_iter()
        .map(|(name, routes)| Pair { name, routes })
        .collect();
    let calls = |pair: &Pair| pair.routes.iter().flatten().map(|route| route.calls).sum();
    rows.sort_by_key(|pair| std::cmp::Reverse::<u64>(calls(pair)));
    let fee = hosts.iter().filter_map(|host| query.fees.get(host)).max();
    Ok(Comparison {
        since: query.since(),
        by: arguments.by,
        hosts,
        rows,
        on_both,
        called,
        notes: fee.map(|fee| fee_note(*fee)).into_iter().collect(),
    })
}

impl Comparison {
    fn table(&self, query: &Query, columns: usize) -> String {
        let [a, b] = &self.hosts;
        let since = query.since_shown();
        if self.rows.is_empty() {
            return format!("{a} and {b}: nothing since {since}\n{}", self.uncalled());
        }
        let (both, one): (Vec<&Pair>, Vec<&Pair>) = self
            .rows
            .iter()
            .partition(|pair| pair.routes.iter().all(Option::is_some));
        let mut text = format!("{a} and {b} since {since}\n");
        for pair in &both {
            if let [Some(left), Some(right)] = &pair.routes {
                text.push_str(&block(&pair.name, &self.hosts, [left, right], columns));
            }
        }
        if both.len() > 1 {
            let [left, right] = &self.on_both;
            let all = "all of these";
            text.push_str(&block(all, &self.hosts, [left, right], columns));
        }
        text.push('\n');
        let are_called = self.hosts.iter().all(|host| self.called.contains(host));
        if both.is_empty() && are_called {
            let what = match self.by {
                Comparable::Model => {
                    "no model was called at both: --by identity compares by caller"
                }
                Comparable::Identity => "nobody called both",
            };
            text.push_str(&format!("{what}\n"));
        }
        for (side, host) in self.hosts.iter().enumerate() {
            text.push_str(&only_at(host, side, &one));
        }
        text.push_str(&self.uncalled());
        for note in &self.notes {
            text.push_str(&format!("{note}\n"));
        }
        text
    }

    /// Which of the hosts was not called at all: it may be another's name.
    fn uncalled(&self) -> String {
        let uncalled = self
            .hosts
            .iter()
            .filter(|host| !self.called.contains(*host));
        let called: Vec<String> = self
            .called
            .iter()
            .map(|host| printable(Some(host)))
            .collect();
        let others = match called.as_slice() {
            [] => "nor to any other host".to_owned(),
            called => format!("there are some to {}", called.join(", ")),
        };
        uncalled
            .map(|host| format!("no call to {host}: {others}\n"))
            .collect()
    }

    fn csv(&self) -> String {
        let head = ["name", "host"].into_iter();
        let mut text = head
            .chain(RouteTotals::CSV_COLUMNS.iter().copied())
            .collect::<Vec<_>>()
            .join(",");
        text.push_str("\r\n");
        for pair in &self.rows {
            for (host, totals) in self.hosts.iter().zip(&pair.routes) {
                let Some(totals) = totals else { continue };
                let names = [quoted(Some(&pair.name)), quoted(Some(host))].into_iter();
                let numbers = totals.csv_cells().into_iter().map(Cell::exact);
                text.push_str(&names.chain(numbers).collect::<Vec<_>>().join(","));
                text.push_str("\r\n");
            }
        }
        text
    }
}

/// What was called at one of the hosts only, in a line: there is nothing to compare it with.
fn only_at(host: &str, side: usize, pairs: &[&Pair]) -> String {
    let here = pairs.iter().filter_map(|pair| {
        let route = pair.routes.get(side)?.as_ref()?;
        let name = match pair.name.as_str() {
            "" => "unknown".to_owned(),
            _ => printable(Some(&pair.name)),
        };
        Some(format!("{name} ({})", calls(route.calls)))
    });
    let here: Vec<String> = here.collect();
    match here.as_slice() {
        [] => String::new(),
        here => format!("only at {host}: {}\n", here.join(", ")),
    }
}

/// One model or identity: a line for each measure that either side has.
fn block(
    name: &str,
    [host_a, host_b]: &[String; 2],
    [left, right]: [&RouteTotals; 2],
    columns: usize,
) -> String {
    let name = printable(Some(&name.to_owned()));
    let head = |a: &str, b: &str| vec![name.clone(), a.into(), b.into(), "difference".into()];
    let mut lines = vec![head(host_a, host_b)];
    for (measure, cell) in MEASURES {
        let cells = [cell(left), cell(right)];
        let shown = cells.map(|cell| cell.shown(DECIMALS));
        if shown.iter().all(|shown| shown == "-") {
            continue;
        }
        let [left, right] = cells;
        let difference = difference(left, right).unwrap_or_default();
        let line = [format!("  {measure}")].into_iter().chain(shown);
        lines.push(line.chain([difference]).collect());
    }
    let is_wide = widths(&lines).iter().sum::<usize>() + COLUMN_GAPS > columns;
    if let Some(first) = lines.first_mut().filter(|_| is_wide) {
        *first = head("first", "second");
    }
    let mut text = "\n".to_owned();
    align(&lines, 1, usize::MAX, &mut text);
    text
}

type Measure = fn(&RouteTotals) -> Cell;

const MEASURES: [(&str, Measure); 10] = [
    ("calls", |route| Cell::Count(route.calls)),
    ("hits, of calls", |route| {
        Cell::Share(route.hit_calls_permille)
    }),
    ("read from cache, of tokens", |route| {
        Cell::Share(route.read_permille)
    }),
    ("$ per million input tokens", |route| {
        Cell::Rate(route.input_nano_usd_per_million)
    }),
    ("cache discount", |route| {
        Cell::Discount(route.cache_discount_permille)
    }),
    ("completed", |route| Cell::Share(route.completed_permille)),
    ("broke off", |route| Cell::Share(route.truncated_permille)),
    ("first byte, median", |route| {
        Cell::Micros(route.first_byte_p50_us)
    }),
    ("whole answer, median", |route| {
        Cell::Micros(route.total_p50_us)
    }),
    ("whole answer, 95 in 100", |route| {
        Cell::Micros(route.total_p95_us)
    }),
];

/// Shares differ by points; prices and times in proportion. Counts say nothing by differing.
fn difference(left: Cell, right: Cell) -> Option<String> {
    let points = |from: i64, to: i64| {
        let shown = percent(to.saturating_sub(from), 10);
        Some(format!(
            "{}{}",
            sign(from, to),
            shown.replace('%', " points")
        ))
    };
    let signed = |share| i64::try_from(share).unwrap_or(i64::MAX);
    match (left, right) {
        (Cell::Share(Some(from)), Cell::Share(Some(to))) => points(signed(from), signed(to)),
        (Cell::Discount(Some(from)), Cell::Discount(Some(to))) => points(from, to),
        (Cell::Rate(Some(from)), Cell::Rate(Some(to))) => in_proportion(from.nanos(), to.nanos()),
        (Cell::Micros(Some(from)), Cell::Micros(Some(to))) => {
            in_proportion(signed(from), signed(to))
        }
        _ => None,
    }
}

fn in_proportion(from: i64, to: i64) -> Option<String> {
    let more = i128::from(to.saturating_sub(from)) * 1000;
    let share = i64::try_from(more.checked_div(i128::from(from))?).ok()?;
    Some(format!("{}{}", sign(from, to), percent(share, 10)))
}

const fn sign(from: i64, to: i64) -> &'static str {
    if to > from { "+" } else { "" }
}

/// A model's name without what only one host writes: the vendor before a slash or a dot, a variant
/// behind a colon, the date of a revision; dots of versions are dashes.
fn plain_model(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default();
    let name = name.split([':', '@', '[']).next().unwrap_or_default();
    let name = VENDORS
        .iter()
        .find_map(|vendor| name.split_once(vendor).map(|(_, name)| name))
        .unwrap_or(name);
    let plain = name.to_ascii_lowercase().replace('.', "-");
    let is_revision = |part: &&str| {
        part.len() == 8 && part.starts_with("20") && part.bytes().all(|b| b.is_ascii_digit())
            || *part == "v1"
    };
    let words: Vec<&str> = plain.split('-').filter(|part| !is_revision(part)).collect();
    let dated = words.windows(3).position(|at| {
        matches!(at, [year, month, day]
            if year.len() == 4 && year.starts_with("20") && month.len() == 2 && day.len() == 2)
    });
    let kept = words
        .get(..dated.unwrap_or(words.len()))
        .unwrap_or_default();
    kept.join("-")
}

fn host(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if text.is_empty() || text.contains(['/', ':', ' ']) {
        return Err(
            "expected a host name such as api.anthropic.com, without scheme or port".to_owned(),
        );
    }
    Ok(text)
}

/// Blanks between the four columns of a block.
const COLUMN_GAPS: usize = 4;
const EXAMPLES: &str = "\
Examples:
  weir compare api.anthropic.com openrouter.ai --since 7d
  weir compare api.openai.com my.openai.azure.com --by identity";
/// What a name of Amazon Bedrock has before the name of the model.
const VENDORS: [&str; 3] = ["anthropic.", "openai.", "amazon."];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_one_name_on_all_hosts() {
        for (name, expected) in [
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
            ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
            ("anthropic/claude-sonnet-4.5:nitro", "claude-sonnet-4-5"),
            (
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "claude-sonnet-4-5",
            ),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
            ("claude-opus-5-5[1m]", "claude-opus-5-5"),
            ("gpt-5.5-2026-04-23", "gpt-5-5"),
            ("openai/gpt-5.5", "gpt-5-5"),
            ("gpt-4o-mini", "gpt-4o-mini"),
            ("", ""),
        ] {
            assert_eq!(plain_model(name), expected, "{name}");
        }
    }

    #[test]
    fn a_host_is_a_name() {
        assert_eq!(host("OpenRouter.ai").unwrap(), "openrouter.ai");
        assert!(host("https://openrouter.ai").is_err());
        assert!(host("").is_err());
    }
}
