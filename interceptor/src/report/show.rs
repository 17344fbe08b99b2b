//! Shows a report: as a table that fits its terminal for a person, as JSON or CSV for a program.

use std::collections::{BTreeMap, HashMap};

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
        Report {
            since: query.since(),
            by: by.to_vec(),
            rows: groups.into_iter().map(row).collect(),
            total,
        }
    }
}

pub(super) fn render<T: Totals>(
    report: &Report<T>,
    format: Format,
    columns: usize,
) -> anyhow::Result<String> {
    match format {
        Format::Table => Ok(render_table(report, columns)),
        Format::Json => render_json(report),
        Format::Csv | Format::Focus => Ok(render_csv(report)),
    }
}

/// For a person: aligned, so many columns wide at most, with a line of totals.
pub fn render_table<T: Totals>(report: &Report<T>, columns: usize) -> String {
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
    align(&lines, labels, columns, &mut text);
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
            "+ {} of a model without a price, not in the cost: see weir prices check",
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
            "{amount} of the cost is estimated, for calls of unknown usage or price"
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

/// Labels to the left, numbers to the right. Where a line would be longer than `columns`, all labels
/// have a line of their own above their numbers: none is cut.
pub(super) fn align(lines: &[Vec<String>], labels: usize, columns: usize, text: &mut String) {
    let widths = widths(lines);
    let (names, numbers) = widths.split_at(labels.min(widths.len()));
    let names_width = names.iter().sum::<usize>() + GAP.len() * names.len();
    let numbers_width = numbers.iter().map(|width| width + 1).sum::<usize>();
    let is_narrow = (names_width + numbers_width).saturating_sub(1) > columns;
    for line in lines {
        let (labels, cells) = line.split_at(labels.min(line.len()));
        let mut shown = String::new();
        for (label, width) in labels.iter().zip(names) {
            shown.push_str(&format!("{label:<width$}{GAP}"));
        }
        if is_narrow {
            shown.truncate(shown.trim_end().len());
            shown.push_str(&format!("\n{GAP}"));
        }
        // A blank before each but the first, whose place the gap behind the labels has.
        for (at, (cell, width)) in cells.iter().zip(numbers).enumerate() {
            let gap = usize::from(at > 0);
            shown.push_str(&format!("{:gap$}{cell:>width$}", ""));
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
}

/// Of each column, that of its longest cell.
pub(super) fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let mut widths = Vec::new();
    for line in lines {
        widths.resize(line.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
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
    counted(count, "call")
}

pub(super) fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Between labels, and before numbers.
const GAP: &str = "  ";
const LARGE: Money = Money::from_nanos(100_000_000_000);
