//! What a future is woken by while it is polled from within another: word is left, and the task is
//! woken only where it sleeps.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Polls in a row of a future that rings its own bell; then the others of the thread get their turn.
pub(crate) const ROUNDS_MAX: usize = 32;

/// Wakes a task, unless its future is being polled: then it only leaves word.
#[derive(Debug)]
pub(crate) struct Bell {
    state: AtomicU8,
    task: Mutex<Waker>,
}

/// The future waits; a wake is for the task.
const WAITING: u8 = 0;
/// The future is being polled.
const POLLED: u8 = 1;
/// It was woken since it was polled last, or since that began.
const RUNG: u8 = 2;

impl Bell {
    /// One that was rung: a future that was never polled has to be.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(RUNG),
            task: Mutex::new(Waker::noop().clone()),
        })
    }

    /// Says whom to wake.
    pub(crate) fn is_of(&self, task: &Waker) {
        let mut known = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone_from(task);
    }

    /// Before the future is polled: from now on a wake is only word. Tells whether there was one.
    pub(crate) fn hush(&self) -> bool {
        self.state.swap(POLLED, Ordering::AcqRel) == RUNG
    }

    /// The future has nothing more to do: from now on a wake is for the task. Fails where word was
    /// left since [`Self::hush`]: it is to be polled again.
    pub(crate) fn rest(&self) -> bool {
        self.state
            .compare_exchange(POLLED, WAITING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == WAITING {
            let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            task.wake_by_ref();
        }
    }
}
