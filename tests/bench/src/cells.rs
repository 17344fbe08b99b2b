//! What is measured: the cells, the figures that each gives, and what is aimed at.

use crate::job::{Job, Outcome};

/// One line of work: the same job for each contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) name: &'static str,
    pub(crate) job: Job,
    pub(crate) aims: &'static [Aim],
}

/// What is aimed at for Weir.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    pub(crate) figure: &'static str,
    pub(crate) at_most: Bound,
}

/// A bound and what it is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// What the floor adds, this many times.
    TimesFloor(f64),
    /// The figure itself, in its unit.
    Figure(f64),
}

/// A number that a cell gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) shown: Shown,
    pub(crate) value: Option<f64>,
}

/// How the figure of an interceptor is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Less that of the direct run.
    Added,
    /// As it is.
    Itself,
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) repetitions: usize,
    /// Turns that each contender gets in one repetition.
    pub(crate) turns: usize,
    pub(crate) turn_millis: u64,
}

impl Effort {
    /// About ten minutes.
    pub(crate) const FULL: Self = Self {
        repetitions: 3,
        turns: 6,
        turn_millis: 250,
    };
    /// Under a minute: enough to see that everything runs.
    pub(crate) const QUICK: Self = Self {
        repetitions: 1,
        turns: 1,
        turn_millis: 150,
    };
}

const ADDED_2K: &[Aim] = &[times_floor("p50", 1.5), figure("p99 / p50", 3.0)];
const ADDED_1M: &[Aim] = &[times_floor("p50", 2.0), figure("p99 / p50", 3.0)];
const CONNECTIONS: &[Aim] = &[times_floor("p50", 1.3)];
const EVENTS: &[Aim] = &[times_floor("event p50", 1.3), figure("event p99", 0.5)];
const MEMORY: &[Aim] = &[figure("idle", 20.0), figure("per stream", 64.0)];

const fn times_floor(figure: &'static str, times: f64) -> Aim {
    let at_most = Bound::TimesFloor(times);
    Aim { figure, at_most }
}

const fn figure(figure: &'static str, value: f64) -> Aim {
    let at_most = Bound::Figure(value);
    Aim { figure, at_most }
}

const KB: usize = 1 << 10;

/// Every cell, in the order in which they are measured.
pub(crate) fn all(millis: u64) -> Vec<Cell> {
    let cell = |name, job, aims| Cell { name, job, aims };
    let calls = |callers, body_bytes| Job::Calls {
        callers,
        body_bytes,
        millis,
    };
    let http2 = |callers, body_bytes| Job::CallsHttp2 {
        callers,
        body_bytes,
        millis,
    };
    let connections = |callers| Job::Connections {
        callers,
        body_bytes: 2 * KB,
        millis,
    };
    // Paced events are few, and their tails matter.
    let streams = |callers, events, interval_micros| Job::Streams {
        callers,
        events,
        interval_micros,
        millis: 2 * millis,
    };
    let hold = |body_bytes| Job::Hold {
        streams: HELD_STREAMS,
        body_bytes,
    };
    vec![
        cell("memory-2k", hold(2 * KB), MEMORY),
        cell("memory-100k", hold(100 * KB), &[]),
        cell("2k-c1", calls(1, 2 * KB), ADDED_2K),
        cell("2k-c16", calls(16, 2 * KB), &[]),
        cell("2k-c64", calls(64, 2 * KB), &[]),
        cell("100k-c1", calls(1, 100 * KB), ADDED_2K),
        cell("100k-c16", calls(16, 100 * KB), &[]),
        cell("100k-c64", calls(64, 100 * KB), &[]),
        cell("1m-c1", calls(1, KB * KB), ADDED_1M),
        cell("1m-c16", calls(16, KB * KB), &[]),
        cell("1m-c64", calls(64, KB * KB), &[]),
        cell("h2-2k-c1", http2(1, 2 * KB), &[]),
        cell("h2-2k-c16", http2(16, 2 * KB), &[]),
        cell("h2-100k-c16", http2(16, 100 * KB), &[]),
        cell("connections-c1", connections(1), CONNECTIONS),
        cell("connections-c16", connections(16), &[]),
        cell("first-byte", streams(1, 4, 1_000), &[]),
        cell("stream-c1", streams(1, 40, 3_000), EVENTS),
        cell("stream-c16", streams(16, 40, 3_000), &[]),
        cell("burst", streams(1, 5_000, 0), &[]),
        cell(
            "pass-through",
            Job::Downloads {
                bytes: 32 << 20,
                millis,
            },
            &[],
        ),
    ]
}

/// Streams held open while memory is read.
pub(crate) const HELD_STREAMS: usize = 200;

impl Cell {
    /// Whether only a way that speaks HTTP/2 can do it.
    pub(crate) fn needs_http2(&self) -> bool {
        matches!(self.job, Job::CallsHttp2 { .. })
    }

    /// The figures of one repetition; `cpu_ns` is what the interceptor used in it.
    pub(crate) fn figures(&self, outcome: &Outcome, cpu_ns: Option<u64>) -> Vec<Figure> {
        let cpu = |unit, per: f64| {
            let micros = cpu_ns.map(|ns| ns as f64 / 1e3 / per).filter(|_| per > 0.0);
            shown("CPU", unit, micros)
        };
        let quantiles = |durations: &crate::job::Durations, names: [&'static str; 3]| {
            let [p50, p99, p999] = names;
            [(p50, 0.5), (p99, 0.99), (p999, 0.999)]
                .map(|(name, quantile)| added(name, durations.quantile_ms(quantile)))
        };
        let latency = quantiles(&outcome.latency, ["p50", "p99", "p99.9"]);
        let seconds = outcome.elapsed_ns as f64 / 1e9;
        let rate = |count: f64| Some(count / seconds).filter(|_| seconds > 0.0);
        let calls = outcome.calls as f64;
        let events = outcome.events as f64;
        let mut figures = Vec::new();
        match self.job {
            Job::Calls { .. } | Job::CallsHttp2 { .. } => {
                figures.extend(latency);
                figures.push(shown("p99 / p50", "", tail(&outcome.latency)));
                figures.push(shown("calls", "1/s", rate(calls)));
                figures.push(cpu("µs/call", calls));
            }
            Job::Connections { .. } => {
                figures.extend(latency);
                figures.push(shown("connections", "1/s", rate(calls)));
                figures.push(cpu("µs/conn", calls));
            }
            Job::Streams {
                interval_micros: 0, ..
            } => {
                figures.push(shown("events", "1/s", rate(events)));
                figures.push(cpu("µs/event", events));
            }
            Job::Streams {
                events: FIRST_BYTE_EVENTS,
                ..
            } => {
                let names = ["first byte p50", "first byte p99", "first byte p99.9"];
                figures.extend(quantiles(&outcome.first_byte, names));
            }
            Job::Streams { .. } => {
                let names = ["event p50", "event p99", "event p99.9"];
                figures.extend(quantiles(&outcome.event_delay, names));
                figures.push(cpu("µs/event", events));
            }
            Job::Downloads { .. } => {
                let megabytes = outcome.bytes as f64 / 1e6;
                figures.push(shown("throughput", "MB/s", rate(megabytes)));
                figures.push(cpu("µs/MB", megabytes));
            }
            Job::Hold { .. } => {}
        }
        figures
    }
}

const FIRST_BYTE_EVENTS: usize = 4;

fn tail(latency: &crate::job::Durations) -> Option<f64> {
    Some(latency.quantile_ms(0.99)? / latency.quantile_ms(0.5)?)
}

fn added(name: &'static str, value: Option<f64>) -> Figure {
    let shown = Shown::Added;
    Figure {
        name,
        unit: "ms",
        shown,
        value,
    }
}

/// A figure that is not compared with the direct run.
pub(crate) fn shown(name: &'static str, unit: &'static str, value: Option<f64>) -> Figure {
    let shown = Shown::Itself;
    Figure {
        name,
        unit,
        shown,
        value,
    }
}
