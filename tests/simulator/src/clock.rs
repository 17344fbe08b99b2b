//! The time of the simulated providers: the system's, or one that a test moves by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock; clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds since the Unix epoch, if the clock is moved by hand.
    manual: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// A clock that shows the system's time.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that shows `since_epoch` (since 1970-01-01 UTC) until it is advanced.
    #[must_use]
    pub fn manual(since_epoch: Duration) -> Self {
        Self {
            manual: Some(Arc::new(AtomicU64::new(millis(since_epoch)))),
        }
    }

    /// Moves a manual clock forward; a system clock goes its own way.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.manual {
            manual.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Sets a manual clock, also back; a system clock goes its own way.
    pub fn set(&self, since_epoch: Duration) {
        if let Some(manual) = &self.manual {
            manual.store(millis(since_epoch), Ordering::SeqCst);
        }
    }

    /// The time since 1970-01-01 UTC, to the millisecond if the clock is manual.
    #[must_use]
    pub fn now(&self) -> Duration {
        match &self.manual {
            Some(manual) => Duration::from_millis(manual.load(Ordering::SeqCst)),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
