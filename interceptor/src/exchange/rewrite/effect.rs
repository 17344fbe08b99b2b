//! Measures what rewriting brings each workload, and keeps that over restarts: numbers and keyed
//! hashes, no text of prompts.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use weir_core::money::Money;
use weir_core::rewrite::{
    Called, Measured, Shown, Standing, Standings, Switched, Withheld, Workloads,
};

use super::{Considered, Rewriter};
use crate::metrics::Metrics;

/// What is known of all workloads.
#[derive(Debug, Default)]
pub(super) struct Effects {
    workloads: Mutex<Workloads>,
    /// Whether something is done otherwise than the file says.
    switched: AtomicBool,
    /// Whether more is known than the file says. A value that changes from one run of Weir to the next is
    /// known to change only if the last one is: so every call is news.
    changed: AtomicBool,
    /// When it was written last.
    saved: Mutex<Option<Instant>>,
}

impl Effects {
    /// What was learned before the last restart. A file that can't be read is begun anew.
    pub(super) fn open(state_dir: &Path) -> Self {
        let workloads = read(&state_dir.join(FILE)).unwrap_or_else(|error| {
            tracing::warn!(%error, "expected to read {FILE}; effects are measured anew");
            Workloads::default()
        });
        Self {
            workloads: Mutex::new(workloads),
            switched: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            saved: Mutex::new(None),
        }
    }

    /// Writes down what is known of workloads, if that is news: at once what is done otherwise, and the
    /// rest now and then, or where this is the `last` time.
    pub(super) fn save(&self, state_dir: &Path, last: bool) -> io::Result<()> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last || saved.is_none_or(|saved| saved.elapsed() >= SAVE_INTERVAL);
        let switched = self.switched.swap(false, Ordering::Relaxed);
        if !(switched || is_due && self.changed.load(Ordering::Relaxed)) {
            return Ok(());
        }
        self.changed.store(false, Ordering::Relaxed);
        *saved = Some(Instant::now());
        let written = self.write(state_dir);
        if written.is_err() {
            self.switched.store(true, Ordering::Relaxed);
        }
        written
    }

    fn write(&self, state_dir: &Path) -> io::Result<()> {
        let path = state_dir.join(FILE);
        // Other processes write it, too.
        let theirs = read(&path).unwrap_or_default();
        let workloads = {
            let mut workloads = self.lock();
            workloads.merge(theirs);
            workloads.clone()
        };
        let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
        file.write_all(&serde_json::to_vec(&workloads)?)?;
        file.persist(path)?;
        Ok(())
    }

    pub(super) fn standings(&self, call: &Called<'_>) -> Standings {
        self.lock().standings(call)
    }

    pub(super) fn note(&self, call: &Called<'_>, metrics: &Metrics) -> Shown {
        let shown = self.lock().note(call);
        self.changed.store(true, Ordering::Relaxed);
        self.tell(&shown.switched, metrics);
        shown
    }

    fn learn(&self, measured: &Measured, saved: Money, now_s: i64, metrics: &Metrics) {
        let switched = self.lock().learn(measured, saved, now_s);
        self.changed.store(true, Ordering::Relaxed);
        self.tell(&switched, metrics);
    }

    /// For `weir status`: what is done about values otherwise than to keep them where they stand.
    pub(super) fn status(&self, now_s: i64) -> Vec<serde_json::Value> {
        let out = self.lock().standing_out(now_s);
        let each = out.into_iter().take(STATUS_MAX).map(|one| {
            serde_json::json!({
                "value": one.value,
                "program": one.about.program,
                "host": one.about.host,
                "model": one.about.model,
                "standing": one.standing.as_str(),
                "until_unix": one.standing.until_s(),
            })
        });
        each.collect()
    }

    fn tell(&self, switched: &[Switched], metrics: &Metrics) {
        if !switched.is_empty() {
            self.switched.store(true, Ordering::Relaxed);
        }
        say(switched, metrics);
    }

    fn lock(&self) -> MutexGuard<'_, Workloads> {
        self.workloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn say(switched: &[Switched], metrics: &Metrics) {
    for one in switched {
        let label = one.standing.as_str();
        metrics.switched.with_label_values(&[label]).inc();
        let until = one.standing.until_s();
        let until = until.and_then(|second| Timestamp::from_second(second).ok());
        let until = until.map(|until| until.to_string());
        let why = match one.standing {
            Standing::Moved => "moves a value from now on: conversations share the prompt",
            Standing::Kept { until_s: 0 } => "tries again to repair for a value",
            Standing::Kept { .. } => "moves a value no more: that saved nothing",
            Standing::Off { .. } => {
                "tells changes of a value no more: that cost more than it saved"
            }
        };
        tracing::info!(
            value = one.value, program = one.about.program, host = one.about.host,
            model = one.about.model, saved = %one.saved, until, "{why}"
        );
    }
}

impl Considered {
    /// Whether a call that was not edited may have been hurt by edits: its conversation is not known
    /// by its start, and such of its workload are edited.
    pub(in crate::exchange) fn may_be_hurt(&self) -> bool {
        self.measured.shown.moves && self.plan.withheld == Some(Withheld::NotFromStart)
    }
}

impl Rewriter {
    /// Adds what rewriting saved of a call, or would have, to what is known of its workload.
    pub(in crate::exchange) fn learn_effect(
        &self,
        measured: &Measured,
        saved: Money,
        now_s: i64,
        metrics: &Metrics,
    ) {
        self.effects.learn(measured, saved, now_s, metrics);
    }
}

/// Reads the file; one that is not there yet knows nothing.
fn read(path: &Path) -> io::Result<Workloads> {
    let _length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Workloads::default()),
        Ok(file) if file.len() > FILE_BYTES_MAX => {
            let (found, path) = (file.len(), path.display());
            let message =
                format!("expected at most {FILE_BYTES_MAX} bytes in {path}, found {found}");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        found => found?,
    };
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// How often what was merely seen is written down.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);
/// In the state directory.
const FILE: &str = "workloads.json";
/// Bytes of that file: more than the bounds of what is known allow is no file of Weir's.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Values that `weir status` tells of.
const STATUS_MAX: usize = 32;
