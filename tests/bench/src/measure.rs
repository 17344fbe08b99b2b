//! Lets the contenders take turns at every cell, and collects what came of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cells::{self, Cell, Effort, Figure, HELD_STREAMS};
use crate::contenders::{Contender, Ground, Way};
use crate::job::{Job, Outcome};
use crate::report::{Machine, Report};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Under a minute: shows that everything runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Only these cells, or those whose name begins so; may be repeated.
    #[arg(long, value_name = "CELL")]
    only: Vec<String>,
    /// Only these ways; direct and floor are what the others are compared with.
    #[arg(long, value_delimiter = ',', default_values_t = Way::USUAL)]
    ways: Vec<Way>,
    /// The binary to measure; by default the one beside this.
    #[arg(long, value_name = "FILE")]
    weir: Option<PathBuf>,
    /// Repetitions of each cell, instead of 3 (or 1 with --quick).
    #[arg(long)]
    repetitions: Option<usize>,
    /// Length of a turn in milliseconds: longer ones suit a profiler.
    #[arg(long)]
    turn_millis: Option<u64>,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Measures and prints.
///
/// # Errors
/// Something did not run, or a call failed: then the figures are not to be trusted.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut effort = if options.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    effort.repetitions = options
        .repetitions
        .unwrap_or(effort.repetitions)
        .clamp(1, 100);
    effort.turn_millis = options
        .turn_millis
        .unwrap_or(effort.turn_millis)
        .clamp(1, 10_000);
    let cells = chosen(cells::all(effort.turn_millis), &options.only)?;
    let weir = weir(options)?;
    let machine = Machine::describe(options.ways.contains(&Way::Weir).then_some(&*weir))?;
    let dir = tempfile::tempdir()?;
    let ground = Ground::prepare(dir.path(), &weir)?;
    let bench = Bench {
        ground,
        effort,
        ways: Way::ALL
            .into_iter()
            .filter(|way| options.ways.contains(way))
            .collect(),
        began: Instant::now(),
    };
    let results = bench.measure(&cells)?;
    let report = Report::new(machine, effort, &bench.ways, &cells, &results);
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    report.verdict()
}

fn chosen(all: Vec<Cell>, only: &[String]) -> anyhow::Result<Vec<Cell>> {
    for wanted in only {
        let known = || {
            all.iter()
                .map(|cell| cell.name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let found = all.iter().any(|cell| cell.name.starts_with(wanted));
        anyhow::ensure!(found, "expected one of: {}; found {wanted}", known());
    }
    let wanted =
        |cell: &Cell| only.is_empty() || only.iter().any(|name| cell.name.starts_with(name));
    Ok(all.into_iter().filter(wanted).collect())
}

fn weir(options: &Options) -> anyhow::Result<PathBuf> {
    let path = match &options.weir {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("weir"),
    };
    let needed = options.ways.contains(&Way::Weir);
    anyhow::ensure!(
        !needed || path.is_file(),
        "expected the binary of weir as {}: build it with the same profile, or give --weir",
        path.display()
    );
    Ok(path)
}

/// What one contender did in one repetition of one cell.
#[derive(Debug, Default)]
pub(crate) struct Repetition {
    pub(crate) figures: Vec<Figure>,
    pub(crate) failed: u64,
    pub(crate) failure: Option<String>,
}

/// By cell and way: a value for each repetition.
pub(crate) type Results = BTreeMap<(&'static str, Way), Vec<Repetition>>;

struct Bench {
    ground: Ground,
    effort: Effort,
    ways: Vec<Way>,
    began: Instant,
}

impl Bench {
    fn measure(&self, cells: &[Cell]) -> anyhow::Result<Results> {
        let mut results = Results::new();
        let memory = |cell: &&Cell| matches!(cell.job, Job::Hold { .. });
        for cell in cells.iter().filter(memory) {
            self.memory(cell, &mut results)?;
        }
        if cells.iter().any(|cell| !memory(&cell)) {
            let started = self.ways.iter().map(|way| self.ground.start(*way));
            let mut contenders = started.collect::<anyhow::Result<Vec<_>>>()?;
            for cell in cells.iter().filter(|cell| !memory(cell)) {
                self.turns(cell, &mut contenders, &mut results)?;
            }
            contenders.into_iter().try_for_each(Contender::end)?;
        }
        Ok(results)
    }

    /// Each contender in turn, a quarter of a second each time, so that all meet the same noise.
    fn turns(
        &self,
        cell: &Cell,
        contenders: &mut [Contender],
        results: &mut Results,
    ) -> anyhow::Result<()> {
        for repetition in 0..self.effort.repetitions {
            self.say(cell, repetition)?;
            let mut totals: BTreeMap<Way, (Outcome, Option<u64>)> = BTreeMap::new();
            for turn in 0..self.effort.turns {
                for place in 0..contenders.len() {
                    // Nobody always comes after the same one.
                    let at = (place + turn) % contenders.len();
                    let contender = contenders.get_mut(at).context("index of a contender")?;
                    if cell.needs_http2() && !contender.way.speaks_http2() {
                        continue;
                    }
                    let (outcome, cpu_ns) = contender.perform(cell.job)?;
                    let total = totals.entry(contender.way).or_default();
                    total.0.add(outcome);
                    total.1 = cpu_ns.map(|ns| ns + total.1.unwrap_or_default());
                }
            }
            for (way, (outcome, cpu_ns)) in totals {
                results
                    .entry((cell.name, way))
                    .or_default()
                    .push(Repetition {
                        figures: cell.figures(&outcome, cpu_ns),
                        failed: outcome.failed,
                        failure: outcome.failure,
                    });
            }
        }
        Ok(())
    }

    /// Memory is read of processes that have done nothing else, then behind one stream: what the first
    /// call of all needs is no stream's own.
    fn memory(&self, cell: &Cell, results: &mut Results) -> anyhow::Result<()> {
        for repetition in 0..self.effort.repetitions {
            self.say(cell, repetition)?;
            for way in self.ways.iter().copied().filter(|way| *way != Way::Direct) {
                let mut contender = self.ground.start(way)?;
                std::thread::sleep(SETTLE);
                let idle = contender.resident_kib()?;
                contender.perform(cell.job.of_one_stream())?;
                std::thread::sleep(SETTLE);
                let used = contender.resident_kib()?;
                contender.prepare(cell.job)?;
                std::thread::sleep(SETTLE);
                let held = contender.resident_kib()?;
                let outcome = contender.go()?;
                contender.end()?;
                let per_stream = held.saturating_sub(used) as f64 / HELD_STREAMS as f64;
                let first_call = used.saturating_sub(idle) as f64 / 1024.0;
                results
                    .entry((cell.name, way))
                    .or_default()
                    .push(Repetition {
                        figures: vec![
                            cells::shown("idle", "MiB", Some(idle as f64 / 1024.0)),
                            cells::shown("first call", "MiB", Some(first_call)),
                            cells::shown("per stream", "KiB", Some(per_stream)),
                        ],
                        failed: outcome.failed,
                        failure: outcome.failure,
                    });
            }
        }
        Ok(())
    }

    fn say(&self, cell: &Cell, repetition: usize) -> anyhow::Result<()> {
        let seconds = self.began.elapsed().as_secs();
        let (name, of) = (cell.name, self.effort.repetitions);
        let mut err = std::io::stderr().lock();
        writeln!(err, "{seconds:4} s  {name} {}/{of}", repetition + 1)?;
        Ok(())
    }
}

/// How long memory is given to come to rest.
const SETTLE: Duration = Duration::from_millis(500);
