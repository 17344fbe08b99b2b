//! The time of day by which calls are dated.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::sidecar::unix_ms;

/// Where the time of a call comes from, and with it what follows from the time between calls:
/// whether a prompt is still cached, what is remembered, what is learned.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system.
    #[default]
    System,
    /// A test, which sets it: milliseconds since the Unix epoch.
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// Now, in milliseconds since the Unix epoch.
    pub(crate) fn unix_ms(&self) -> i64 {
        match self {
            Self::System => unix_ms(),
            Self::Set(time) => time.load(Ordering::SeqCst),
        }
    }
}
