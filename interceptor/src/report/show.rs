//! Shows a report: as a table of 100 columns for a person, as JSON or CSV for a program.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;
use weir_core::money::Money;

use super::cell::{Cell, DECIMALS, dollars};
use super::query::{GroupKey, Query};

/// How a report is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a person.
    #[default]
    Table,
    /// One object.
    Json,
    /// A line of headings, and one for each group.
    Csv,
    /// The FinOps Foundation's cost and usage format: a row for each hour, group, model and kind of
    /// token.
    Focus,
}

/// Calls in groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report<T> {
    /// What began before is left out: RFC 3339, in the time zone of the query.
    pub since: String,
    /// What calls are grouped by.
    pub by: Vec<GroupKey>,
    /// One for each group: by day, or else the most expensive first.
    pub rows: Vec<Row<T>>,
    /// Of all groups.
    pub total: T,
}

/// One group of calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row<T> {
    /// What its calls have in common.
    pub group: BTreeMap<GroupKey, String>,
    /// What they come to.
    #[serde(flatten)]
    pub totals: T,
}

/// What the calls of a group come to.
pub trait Totals: Clone + Default + Serialize {
    /// Heading of the table.
    const TITLE: &'static str;
    /// Headings of `cells`.
    const COLUMNS: &'static [&'static str];
    /// Headings of `csv_cells`.
    const CSV_COLUMNS: &'static [&'static str];

    /// Adds those of other calls.
    fn merge(&mut self, other: &Self);

    /// Works out what follows from the sums.
    fn finish(&mut self) {}

    /// Groups are shown in falling order of this.
    fn weight(&self) -> (i64, u64);

    /// What the table shows.
    fn cells(&self) -> Vec<Cell>;

    /// What CSV shows.
    fn csv_cells(&self) -> Vec<Cell> {
        self.cells()
    }

    /// What a reader of the total must know to not be misled.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Totals as they add up, by the values of their group.
#[derive(Debug)]
pub(super) struct Groups<T>(HashMap<Vec<String>, T>);

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Totals> Groups<T> {
    /// The totals of a group.
    pub(super) fn of(&mut self, values: &[String]) -> &mut T {
        self.0.entry(values.to_vec()).or_default()
    }

    pub(super) fn into_report(self, query: &Query, by: &[GroupKey]) -> Report<T> {
        let mut total = T::default();
        let mut groups: Vec<(Vec<String>, T)> = self.0.into_iter().collect();
        for (_, totals) in &mut groups {
            total.merge(totals);
            totals.finish();
        }
        total.finish();
        let by_day = by.first() == Some(&GroupKey::Day);
        groups.sort_by(|(values, totals), (other_values, other)| {
            let heaviest_first = || other.weight().cmp(&totals.weight());
            let order = values.cmp(other_values);
            if by_day {
                order
            } else {
                heaviest_first().then(order)
            }
        });
        let row = |(values, totals): (Vec<String>, T)| Row {
            group: by.iter().copied().zip(values).collect(),
            totals,
        };
        let since = Timestamp::from_millisecond(query.since_unix_ms).map_or_else(
            |_| String::new(),
            |at| {
                at.to_zoned(query.time_zone.clone())
                    .strftime("%Y-%m-%dT%H:%M:%S%:z")
                    .to_string()
            },
        );
        Report {
            since,
            by: by.to_vec(),
            rows: groups.into_iter().map(row).collect(),
            total,
        }
    }
}

pub(super) fn render<T: Totals>(report: &Report<T>, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Table => Ok(render_table(report)),
        Format::Json => render_json(report),
        Format::Csv | Format::Focus => Ok(render_csv(report)),
    }
}

/// For a person: aligned, 100 columns wide at most, with a line of totals.
pub fn render_table<T: Totals>(report: &Report<T>) -> String {
    let since = report.since.get(..16).unwrap_or_default().replace('T', " ");
    if report.rows.is_empty() {
        return format!("{}: nothing since {since}\n", T::TITLE);
    }
    let decimals = amount_decimals(&report.total.cells());
    let numbers = |totals: &T| totals.cells().into_iter().map(|cell| cell.shown(decimals));
    let labels = report.by.len().max(1);
    let mut head: Vec<String> = report
        .by
        .iter()
        .map(|key| key.as_str().to_owned())
        .collect();
    head.resize(labels, String::new());
    head.extend(T::COLUMNS.iter().map(|column| (*column).to_owned()));
    let mut lines = vec![head];
    if !report.by.is_empty() {
        for row in &report.rows {
            let values = report.by.iter().map(|key| printable(row.group.get(key)));
            lines.push(values.chain(numbers(&row.totals)).collect());
        }
    }
    let mut last = vec!["total".to_owned()];
    last.resize(labels, String::new());
    last.extend(numbers(&report.total));
    lines.push(last);
    let mut text = format!("{} since {since}\n\n", T::TITLE);
    align(&lines, labels, &mut text);
    for note in report.total.notes() {
        text.push_str(&format!("\n{note}"));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// For a program: everything, amounts as integers in nano-dollars.
///
/// # Errors
/// Never, for the reports there are.
pub fn render_json<T: Totals>(report: &Report<T>) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

/// For a spreadsheet: RFC 4180, amounts exact in dollars; without the line of totals.
pub fn render_csv<T: Totals>(report: &Report<T>) -> String {
    let keys = report.by.iter().map(|key| key.as_str());
    let mut text = keys
        .chain(T::CSV_COLUMNS.iter().copied())
        .collect::<Vec<_>>()
        .join(",");
    text.push_str("\r\n");
    for row in &report.rows {
        let values = report.by.iter().map(|key| quoted(row.group.get(key)));
        let numbers = row.totals.csv_cells().into_iter().map(Cell::exact);
        text.push_str(&values.chain(numbers).collect::<Vec<_>>().join(","));
        text.push_str("\r\n");
    }
    text
}

/// What a reader of a cost must know to not be misled.
pub(super) fn cost_notes(
    unpriced: u64,
    unknown: u64,
    estimated: Money,
    notional: Money,
) -> Vec<String> {
    let mut notes = Vec::new();
    if unpriced > 0 {
        notes.push(format!(
            "+ {} of a model without a price, not in the cost",
            calls(unpriced)
        ));
    }
    if unknown > 0 {
        notes.push(format!(
            "+ {} without any usage told, not in tokens and cost",
            calls(unknown)
        ));
    }
    if estimated > Money::ZERO {
        let amount = dollars(estimated, DECIMALS);
        notes.push(format!(
            "{amount} of the cost is estimated, for calls that broke off"
        ));
    }
    if notional > Money::ZERO {
        let amount = dollars(notional, DECIMALS);
        notes.push(format!(
            "+ {amount} by list prices for calls that a plan pays for, not in the cost"
        ));
    }
    notes
}

/// Labels to the left, numbers to the right; where a line is too long, the longest label is cut.
pub(super) fn align(lines: &[Vec<String>], labels: usize, text: &mut String) {
    let columns = lines.first().map_or(0, Vec::len);
    let mut widths: Vec<usize> = (0..columns)
        .map(|at| {
            lines
                .iter()
                .filter_map(|line| line.get(at))
                .map(|cell| width(cell))
                .max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let gap_before = |at: usize| {
        if at == 0 {
            0
        } else if at <= labels {
            2
        } else {
            1
        }
    };
    let gaps: usize = (0..columns).map(gap_before).sum();
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        match widths.iter_mut().take(labels).max() {
            Some(widest) if *widest > LABEL_WIDTH_MIN => *widest -= 1,
            _ => break,
        }
    }
    for line in lines {
        let mut shown = String::new();
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let gap = gap_before(at);
            shown.push_str(&if at < labels {
                format!("{:gap$}{:<width$}", "", cut(cell, *width))
            } else {
                format!("{:gap$}{cell:>width$}", "")
            });
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
}

/// Without its middle: names differ at their ends.
fn cut(text: &str, most: usize) -> String {
    let length = width(text);
    if length <= most {
        return text.to_owned();
    }
    let end = most / 3;
    let start = most.saturating_sub(end).saturating_sub(1);
    text.chars()
        .take(start)
        .chain(['…'])
        .chain(text.chars().skip(length - end))
        .collect()
}

/// Names come from clients: what could steer a terminal is not printed.
pub(super) fn printable(value: Option<&String>) -> String {
    let shown = |character: char| {
        if character.is_control() {
            '?'
        } else {
            character
        }
    };
    value
        .map(String::as_str)
        .unwrap_or_default()
        .chars()
        .map(shown)
        .collect()
}

pub(super) fn quoted(value: Option<&String>) -> String {
    let value = printable(value);
    if value.contains([',', '"']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value
    }
}

/// Small amounts need their decimals, large ones do not.
fn amount_decimals(total: &[Cell]) -> u32 {
    let is_large = |cell: &Cell| match cell {
        Cell::Amount(amount) | Cell::AtLeast(amount) => *amount >= LARGE,
        Cell::Count(_)
        | Cell::Permille(_)
        | Cell::Share(_)
        | Cell::Discount(_)
        | Cell::Micros(_)
        | Cell::Rate(_) => false,
    };
    if total.iter().any(is_large) {
        2
    } else {
        DECIMALS
    }
}

pub(super) fn calls(count: u64) -> String {
    if count == 1 {
        "1 call".to_owned()
    } else {
        format!("{count} calls")
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

const WIDTH: usize = 100;
const LABEL_WIDTH_MIN: usize = 10;
const LARGE: Money = Money::from_nanos(100_000_000_000);
