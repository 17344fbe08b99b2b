//! What came of it: medians, ratios to the floor, aims, and on what machine.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde::Serialize;

use crate::cells::{Aim, Bound, Cell, Effort, Figure, Shown};
use crate::contenders::Way;
use crate::measure::{Repetition, Results};

/// Where and with what it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    kernel: String,
    processor: String,
    cores: usize,
    /// Runnable tasks over the last minute before the run: above 1 others used the machine.
    load_before: String,
    optimised: bool,
    weir: Option<String>,
    hudsucker: Option<&'static str>,
    rustls: Option<&'static str>,
    hyper: Option<&'static str>,
}

impl Machine {
    pub(crate) fn describe(weir: Option<&Path>) -> anyhow::Result<Self> {
        let read = |path| std::fs::read_to_string(path).with_context(|| format!("expected {path}"));
        let processors = read("/proc/cpuinfo")?;
        let processor = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let weir = match weir {
            None => None,
            Some(weir) => {
                let output = Command::new(weir).arg("--version").output()?;
                Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
            }
        };
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor: processor.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            load_before: read("/proc/loadavg")?
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            optimised: !cfg!(debug_assertions),
            weir,
            hudsucker: locked_version("hudsucker"),
            rustls: locked_version("rustls"),
            hyper: locked_version("hyper"),
        })
    }
}

/// The version of a crate that this binary was built with.
fn locked_version(name: &str) -> Option<&'static str> {
    let lock = include_str!("../../../Cargo.lock");
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    after.split('"').next()
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    repetitions: usize,
    seconds_per_repetition: f64,
    ways: Vec<Way>,
    rows: Vec<Row>,
    failures: Vec<String>,
}

/// One figure of one cell.
#[derive(Debug, Serialize)]
struct Row {
    cell: &'static str,
    figure: &'static str,
    unit: &'static str,
    /// Whether interceptors are shown less the direct run.
    added: bool,
    /// Medians, in the order of [`Report::ways`].
    medians: Vec<Option<f64>>,
    /// Medians of the ratios to the floor within each repetition, in the same order.
    ratios: Vec<Option<f64>>,
    aim: Option<String>,
    met: Option<bool>,
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        effort: Effort,
        ways: &[Way],
        cells: &[Cell],
        results: &Results,
    ) -> Self {
        let mut rows = Vec::new();
        for cell in cells {
            let of_way = |way| {
                results
                    .get(&(cell.name, way))
                    .map_or(&[][..], Vec::as_slice)
            };
            let sample = ways.iter().find_map(|way| of_way(*way).first());
            let figures = sample.map_or(&[][..], |repetition| repetition.figures.as_slice());
            rows.extend(figures.iter().map(|figure| row(cell, figure, ways, of_way)));
        }
        let failures = results.iter().flat_map(|((cell, way), repetitions)| {
            repetitions
                .iter()
                .filter(|repetition| repetition.failed > 0)
                .map(move |repetition| {
                    let first = repetition.failure.as_deref().unwrap_or_default();
                    format!(
                        "{cell}, {}: {} failed, the first: {first}",
                        way.name(),
                        repetition.failed
                    )
                })
        });
        Self {
            machine,
            repetitions: effort.repetitions,
            seconds_per_repetition: (effort.turns as u64 * effort.turn_millis) as f64 / 1e3,
            ways: ways.to_vec(),
            rows,
            failures: failures.collect(),
        }
    }

    /// An error where a call failed. An aim that was missed is none: machines differ.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.failures.is_empty(),
            "expected every call to succeed, found:\n{}",
            self.failures.join("\n")
        );
        Ok(())
    }
}

fn row<'a>(
    cell: &Cell,
    figure: &Figure,
    ways: &[Way],
    of_way: impl Fn(Way) -> &'a [Repetition],
) -> Row {
    // Missing where the repetition or the figure is.
    let value = |way: Way, repetition: usize| {
        let figures = &of_way(way).get(repetition)?.figures;
        figures
            .iter()
            .find(|found| found.name == figure.name)?
            .value
    };
    let shown = |way: Way, repetition: usize| match figure.shown {
        Shown::Added if way != Way::Direct => {
            Some(value(way, repetition)? - value(Way::Direct, repetition)?)
        }
        Shown::Added | Shown::Itself => value(way, repetition),
    };
    let ratio = |way: Way, repetition: usize| {
        let comparable = !figure.unit.is_empty();
        let floor = shown(Way::Floor, repetition).filter(|floor| comparable && *floor > 0.0)?;
        Some(shown(way, repetition)? / floor)
    };
    let each = |way: Way| 0..of_way(way).len();
    let medians = ways
        .iter()
        .map(|way| median(each(*way).filter_map(|at| shown(*way, at))));
    let ratios = ways.iter().map(|way| match way {
        Way::Direct => None,
        _ => median(each(*way).filter_map(|at| ratio(*way, at))),
    });
    let (medians, ratios): (Vec<_>, Vec<_>) = (medians.collect(), ratios.collect());
    let aim = cell.aims.iter().find(|aim| aim.figure == figure.name);
    let of_weir = |values: &[Option<f64>]| {
        let at = ways.iter().position(|way| *way == Way::Weir)?;
        *values.get(at)?
    };
    Row {
        cell: cell.name,
        figure: figure.name,
        unit: figure.unit,
        added: figure.shown == Shown::Added,
        aim: aim.map(ToString::to_string),
        met: aim.and_then(|aim| match aim.at_most {
            Bound::TimesFloor(times) => Some(of_weir(&ratios)? <= times),
            Bound::Figure(most) => Some(of_weir(&medians)? <= most),
        }),
        medians,
        ratios,
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at_most {
            Bound::TimesFloor(times) => write!(f, "≤ {times} × floor"),
            Bound::Figure(most) => write!(f, "≤ {most}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        let version = |version: Option<&str>| version.unwrap_or("unknown").to_owned();
        writeln!(
            f,
            "kernel {}, {} × {}, load {} before; {}, hudsucker {}, rustls {}, hyper {}",
            machine.kernel,
            machine.cores,
            machine.processor,
            machine.load_before,
            machine.weir.as_deref().unwrap_or("without weir"),
            version(machine.hudsucker),
            version(machine.rustls),
            version(machine.hyper),
        )?;
        writeln!(
            f,
            "medians of {} interleaved repetitions of {} s; +: added to the direct run; ×: ratio to the floor",
            self.repetitions, self.seconds_per_repetition,
        )?;
        if !machine.optimised {
            writeln!(
                f,
                "NOT OPTIMISED: the figures of a debug build mean nothing"
            )?;
        }
        write!(f, "\n{:<16}{:<17}{:<9}", "cell", "figure", "unit")?;
        for way in &self.ways {
            write!(f, "{:>11}", way.name())?;
        }
        for way in self.ways.iter().filter(|way| compared(**way)) {
            write!(f, "{:>13}", format!("×{}", way.name()))?;
        }
        writeln!(f, "  aim for weir")?;
        let mut last = "";
        for row in &self.rows {
            if row.cell != last {
                writeln!(f)?;
                last = row.cell;
            }
            self.line(f, row)?;
        }
        for failure in &self.failures {
            writeln!(f, "\nFAILED {failure}")?;
        }
        Ok(())
    }
}

impl Report {
    fn line(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        write!(f, "{:<16}{:<17}{:<9}", row.cell, row.figure, row.unit)?;
        for (way, median) in self.ways.iter().zip(&row.medians) {
            let sign = row.added && *way != Way::Direct;
            write!(f, "{:>11}", number(*median, sign))?;
        }
        for (_, ratio) in self
            .ways
            .iter()
            .zip(&row.ratios)
            .filter(|(way, _)| compared(**way))
        {
            let ratio = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            write!(f, "{ratio:>13}")?;
        }
        let met = match row.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        match &row.aim {
            Some(aim) => writeln!(f, "  {aim}: {met}"),
            None => writeln!(f),
        }
    }
}

fn compared(way: Way) -> bool {
    !matches!(way, Way::Direct | Way::Floor)
}

/// Three significant digits or whole numbers.
fn number(value: Option<f64>, sign: bool) -> String {
    let Some(value) = value else {
        return "–".to_owned();
    };
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    if sign {
        format!("{value:+.digits$}")
    } else {
        format!("{value:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells;

    fn repetition(p50: f64) -> Repetition {
        let figure = Figure {
            name: "p50",
            unit: "ms",
            shown: Shown::Added,
            value: Some(p50),
        };
        Repetition {
            figures: vec![figure],
            ..Repetition::default()
        }
    }

    #[test]
    fn added_amounts_are_compared_within_a_repetition() {
        let cells = cells::all(1);
        let cell = *cells.iter().find(|cell| cell.name == "2k-c1").unwrap();
        let mut results = Results::new();
        // The machine is three times as slow in the second repetition.
        for (way, values) in [
            (Way::Direct, [0.1, 0.3, 0.1]),
            (Way::Floor, [0.2, 0.6, 0.2]),
            (Way::Weir, [0.24, 0.72, 0.3]),
        ] {
            let repetitions = values.into_iter().map(repetition).collect();
            results.insert((cell.name, way), repetitions);
        }
        let of_way = |way| {
            results
                .get(&(cell.name, way))
                .map_or(&[][..], Vec::as_slice)
        };
        let ways = [Way::Direct, Way::Floor, Way::Weir];
        let row = row(&cell, &repetition(0.0).figures[0], &ways, of_way);
        assert!((row.medians[2].unwrap() - 0.2).abs() < 1e-9, "{row:?}");
        assert!((row.ratios[2].unwrap() - 1.4).abs() < 1e-9, "{row:?}");
        assert_eq!(row.met, Some(true));
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        for name in ["hudsucker", "rustls", "hyper"] {
            let version = locked_version(name).unwrap();
            assert!(
                version.starts_with(|digit: char| digit.is_ascii_digit()),
                "{version}"
            );
        }
    }
}
