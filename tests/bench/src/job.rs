//! What a client is told to do, and what it answers: one line of JSON each.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What the measuring process says to a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Connect, warm up, say [`Answer::Ready`].
    Prepare(Job),
    /// Do it, and say [`Answer::Done`].
    Go,
}

/// What a client says to the measuring process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The first line: the client runs.
    Started { pid: i32 },
    /// Prepared: every connection is open.
    Ready,
    /// The job is over.
    Done(Box<Outcome>),
}

/// One measurement. Durations are of the measured part; a call that has begun is finished.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Calls on connections that stay open, one for each caller.
    Calls {
        callers: usize,
        body_bytes: usize,
        millis: u64,
    },
    /// Calls on one HTTP/2 connection, one stream for each caller.
    CallsHttp2 {
        callers: usize,
        body_bytes: usize,
        millis: u64,
    },
    /// Calls on a new connection each.
    Connections {
        callers: usize,
        body_bytes: usize,
        millis: u64,
    },
    /// Streamed answers of `events` events, `interval_micros` apart, or all at once where that is 0.
    Streams {
        callers: usize,
        events: usize,
        interval_micros: u64,
        millis: u64,
    },
    /// Downloads from a host that is no LLM host.
    Downloads { bytes: u64, millis: u64 },
    /// Streams that are opened, held until told to go, and closed.
    Hold { streams: usize, body_bytes: usize },
}

impl Job {
    /// The same with one stream, where it holds many.
    pub(crate) fn of_one_stream(self) -> Self {
        match self {
            Self::Hold { body_bytes, .. } => Self::Hold {
                streams: 1,
                body_bytes,
            },
            other => other,
        }
    }
}

/// What came of a [`Job`]; of several, after [`Outcome::add`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// From the start of a call (of its connection, where that is new) to the end of its answer, ns.
    pub(crate) latency: Durations,
    /// From the start of a call to the first byte of its answer's body, ns.
    pub(crate) first_byte: Durations,
    /// From the moment the server made an event to the moment the client had it, ns.
    pub(crate) event_delay: Durations,
    /// Calls that were answered as they should be.
    pub(crate) calls: u64,
    /// Those of them that went to the LLM host, each of which Weir must have recorded.
    pub(crate) api_calls: u64,
    /// Events received.
    pub(crate) events: u64,
    /// Bytes of bodies received.
    pub(crate) bytes: u64,
    /// Calls that failed or were answered wrongly.
    pub(crate) failed: u64,
    /// The first failure.
    pub(crate) failure: Option<String>,
    /// Length of the measured part, ns.
    pub(crate) elapsed_ns: u64,
}

impl Outcome {
    /// Adds what another caller counted in the same time.
    pub(crate) fn join(&mut self, other: Self) {
        self.latency.add(&other.latency);
        self.first_byte.add(&other.first_byte);
        self.event_delay.add(&other.event_delay);
        self.calls += other.calls;
        self.api_calls += other.api_calls;
        self.events += other.events;
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
    }

    /// Adds what was counted at another time.
    pub(crate) fn add(&mut self, other: Self) {
        self.elapsed_ns += other.elapsed_ns;
        self.join(other);
    }

    /// Counts a failed call.
    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.failure.get_or_insert_with(|| format!("{error:#}"));
    }
}

/// A histogram of nanoseconds that travels as pairs of value and count.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Vec<(u64, u64)>", from = "Vec<(u64, u64)>")]
pub(crate) struct Durations(Histogram<u64>);

impl Durations {
    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// In milliseconds; `None` where too few values lie beyond it, and one outlier would decide.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let beyond = self.0.len() as f64 * (1.0 - quantile);
        (beyond >= SAMPLES_BEYOND_MIN).then(|| self.0.value_at_quantile(quantile) as f64 / 1e6)
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds, so that nothing can be out of range.
        self.0 += &other.0;
    }
}

/// Fewer than this many samples beyond a quantile make it a matter of chance.
const SAMPLES_BEYOND_MIN: f64 = 5.0;
/// Shortest duration told from zero.
const NS_MIN: u64 = 1_000;
/// Longer ones are recorded as this: more than any call may take.
const NS_MAX: u64 = 60_000_000_000;

impl Default for Durations {
    #[expect(clippy::expect_used, reason = "1 <= min, 2 * min <= max, digits <= 5")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(NS_MIN, NS_MAX, 3).expect("bounds are constants in order"))
    }
}

impl From<Durations> for Vec<(u64, u64)> {
    fn from(durations: Durations) -> Self {
        let recorded = durations.0.iter_recorded();
        recorded
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }
}

impl From<Vec<(u64, u64)>> for Durations {
    fn from(pairs: Vec<(u64, u64)>) -> Self {
        let mut durations = Self::default();
        for (value, count) in pairs {
            durations.0.saturating_record_n(value, count);
        }
        durations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_its_way_through_json() {
        let mut outcome = Outcome::default();
        for ns in [1_500, 90_000, 90_100, 7_000_000_000, u64::MAX] {
            outcome.latency.record(ns);
        }
        outcome.fail(&anyhow::anyhow!("refused"));
        let line = serde_json::to_string(&outcome).unwrap();
        let back: Outcome = serde_json::from_str(&line).unwrap();
        assert_eq!(back.latency.0, outcome.latency.0);
        assert_eq!(back.failed, 1);
        assert_eq!(back.failure.as_deref(), Some("refused"));
    }

    #[test]
    fn a_quantile_that_chance_would_decide_is_not_given() {
        let mut durations = Durations::default();
        for ns in 1..=600_u64 {
            durations.record(ns * 1_000_000);
        }
        let p50 = durations.quantile_ms(0.5).unwrap();
        assert!((299.0..302.0).contains(&p50), "{p50}");
        assert!(durations.quantile_ms(0.99).is_some());
        assert_eq!(durations.quantile_ms(0.999), None);
    }
}
