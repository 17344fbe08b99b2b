//! Answers whose last bytes went out before what they used was read: no answer waits for that.
//!
//! It is done as soon as they were flushed, some microseconds later. Who has a whole answer may count on
//! finding it settled all the same: whoever admits a call, or looks at records, metrics or caps, has
//! everything settled before. Only if Weir is killed in between, the call counts as what was reserved
//! for it, as one does that is killed a little earlier.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, TryLockError};

use super::answer::Observed;
use crate::process::block;

/// Answers that are still to be settled: at most one for each connection of an application.
#[derive(Default)]
pub(crate) struct Behind {
    waiting: Mutex<VecDeque<Box<Observed>>>,
    /// Whether anything was put there since it was last found empty.
    any: AtomicBool,
    /// Shared by those that settle.
    settling: RwLock<()>,
    /// Whether nothing is to be settled for now.
    held: AtomicBool,
}

/// Has nothing settled until it is dropped.
pub(crate) struct Unsettled<'a>(&'a Behind);

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::Release);
        self.0.settle();
    }
}

impl Behind {
    /// Has an answer settled as soon as it has gone out.
    pub(super) fn push(&self, over: Box<Observed>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(over);
        self.any.store(true, Ordering::Release);
    }

    /// Settles what waits, whoever it is of.
    pub(crate) fn settle(&self) {
        if !self.any.load(Ordering::Acquire) || self.held.load(Ordering::Acquire) {
            return;
        }
        let _settling = self.settling.read().unwrap_or_else(PoisonError::into_inner);
        while let Some(over) = self.next() {
            over.settle();
        }
    }

    /// Settles what waits, and waits for what others are settling.
    pub(crate) fn finish(&self) {
        self.settle();
        let Err(TryLockError::WouldBlock) = self.settling.try_write() else {
            return;
        };
        // Mostly for microseconds; where a database is to be asked, the runtime's other tasks go on.
        block(|| drop(self.settling.write()));
    }

    /// Has nothing settled until what is returned is dropped.
    pub(crate) fn hold(&self) -> Unsettled<'_> {
        self.held.store(true, Ordering::Release);
        Unsettled(self)
    }

    fn next(&self) -> Option<Box<Observed>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let next = waiting.pop_front();
        self.any.store(!waiting.is_empty(), Ordering::Release);
        next
    }
}
