//! One thread that looks at calls behind their answers, in the order in which they were sent.
//!
//! A queue in memory, bounded by what waits and by the bytes of bodies that it holds. Where it is full,
//! a call is not looked at; nobody ever waits for room in it.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::process::give_way;

/// The thread's queue. With it the thread ends.
pub(crate) struct Analyst {
    shared: Arc<Shared>,
}

/// Something to do.
pub(super) struct Work {
    /// Of bodies that it holds.
    pub(super) bytes: usize,
    /// Whether it plans what would be done to a prompt that was sent as it came.
    pub(super) plans: bool,
    pub(super) act: Box<dyn FnOnce() + Send>,
}

/// There is no room for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Has the thread do nothing until it is dropped.
pub(crate) struct Held {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// How much of what waits and what is being done plans.
    plans: AtomicUsize,
    /// There is something to do, or somebody waits for it to be done.
    wake: Condvar,
    /// Nothing is left to do.
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    /// Of what waits and what is being done.
    bytes: usize,
    is_busy: bool,
    /// The thread sleeps, so that it has to be woken.
    sleeps: bool,
    /// How many wait until all is done.
    awaited: usize,
    /// How many have the thread do nothing.
    held: usize,
    ends: bool,
}

impl Analyst {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has none.
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        thread::Builder::new()
            .name("analyst".to_owned())
            .spawn(move || own.run())?;
        Ok(Self { shared })
    }

    /// Has something done about a call that is under way.
    ///
    /// # Errors
    /// There is no room for it: it is not done.
    pub(super) fn hand_over(&self, work: Work) -> Result<(), Full> {
        let queue = self.shared.lock();
        let bytes = queue.bytes.saturating_add(work.bytes);
        let is_long = queue.waiting.len() >= CALLS_WAITING_MAX;
        if is_long || bytes > BYTES_WAITING_MAX && queue.bytes > 0 {
            return Err(Full);
        }
        self.shared.add(queue, work);
        Ok(())
    }

    /// Has something done about a call that is over, behind all that was handed over before.
    ///
    /// # Errors
    /// There is no room for it: it is not done.
    pub(super) fn follow(&self, act: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        let queue = self.shared.lock();
        if queue.waiting.len() >= ALL_WAITING_MAX {
            return Err(Full);
        }
        let work = Work {
            bytes: 0,
            plans: false,
            act: Box::new(act),
        };
        self.shared.add(queue, work);
        Ok(())
    }

    /// Whether plans are still to be made of prompts that were sent as they came.
    pub(super) fn has_plans(&self) -> bool {
        self.shared.plans.load(Ordering::Acquire) > 0
    }

    /// Waits until all is done that was handed over; false, where that took longer.
    ///
    /// Blocks: not for a runtime's worker thread.
    pub(crate) fn finish(&self, timeout: Duration) -> bool {
        let mut queue = self.shared.lock();
        queue.awaited = queue.awaited.saturating_add(1);
        self.shared.wake.notify_one();
        let is_left = |queue: &mut Queue| queue.is_busy || !queue.waiting.is_empty();
        let waited = self.shared.done.wait_timeout_while(queue, timeout, is_left);
        let (mut queue, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.awaited = queue.awaited.saturating_sub(1);
        !waited.timed_out()
    }

    /// Whether somebody waits until all is done.
    pub(crate) fn is_awaited(&self) -> bool {
        self.shared.lock().awaited > 0
    }

    /// Has nothing done until what is returned is dropped.
    pub(crate) fn hold(&self) -> Held {
        let mut queue = self.shared.lock();
        queue.held = queue.held.saturating_add(1);
        Held {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Analyst {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.held = queue.held.saturating_sub(1);
        drop(queue);
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        give_way(NICENESS);
        while let Some(Work { bytes, plans, act }) = self.next() {
            // What it was about goes on without it.
            if catch_unwind(AssertUnwindSafe(act)).is_err() {
                tracing::error!("expected to look at a call, found a panic");
            }
            self.plans.fetch_sub(usize::from(plans), Ordering::AcqRel);
            let mut queue = self.lock();
            queue.bytes = queue.bytes.saturating_sub(bytes);
            queue.is_busy = false;
            let is_behind = queue.waiting.len() > UNHURRIED_MAX;
            if queue.waiting.is_empty() {
                self.done.notify_all();
            }
            drop(queue);
            // A call that waits for this core is not to wait for all that waits here.
            if !is_behind {
                thread::yield_now();
            }
        }
    }

    /// The oldest of what waits; none, once the thread is to end.
    fn next(&self) -> Option<Work> {
        let mut queue = self.lock();
        loop {
            if queue.held == 0
                && let Some(work) = queue.waiting.pop_front()
            {
                queue.is_busy = true;
                return Some(work);
            }
            if queue.ends {
                return None;
            }
            queue.sleeps = true;
            queue = wait(self.wake.wait(queue));
            queue.sleeps = false;
            // Calls are to have the processor first, and what comes in the meantime wakes nobody.
            let is_early = |queue: &mut Queue| queue.awaited == 0 && !queue.ends;
            let collected = self.wake.wait_timeout_while(queue, COLLECT_FOR, is_early);
            queue = wait(collected).0;
        }
    }

    fn add(&self, mut queue: MutexGuard<'_, Queue>, work: Work) {
        queue.bytes = queue.bytes.saturating_add(work.bytes);
        let plans = usize::from(work.plans);
        self.plans.fetch_add(plans, Ordering::AcqRel);
        queue.waiting.push_back(work);
        let sleeps = queue.sleeps;
        drop(queue);
        if sleeps {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<T>(waited: Result<T, PoisonError<T>>) -> T {
    waited.unwrap_or_else(PoisonError::into_inner)
}

/// Calls that wait to be looked at: half a second of what two cores can serve.
const CALLS_WAITING_MAX: usize = 4096;
/// All that waits: what is to be added to records comes on top, at most once for each call that was
/// waiting when it ended and for each that has been looked at since.
const ALL_WAITING_MAX: usize = 3 * CALLS_WAITING_MAX;
/// Bytes of the bodies of the calls that wait; one call alone may have more.
const BYTES_WAITING_MAX: usize = 64 << 20;
/// Waiting work that is no sign of being behind: other threads come between.
const UNHURRIED_MAX: usize = 64;
/// How long work is collected before it is begun: a provider thinks for longer.
const COLLECT_FOR: Duration = Duration::from_millis(2);
/// How much the thread gives way to those that serve calls: a tenth of a contended core is left to it.
const NICENESS: i32 = 10;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn work(bytes: usize, act: impl FnOnce() + Send + 'static) -> Work {
        Work {
            bytes,
            plans: true,
            act: Box::new(act),
        }
    }

    #[test]
    fn what_is_handed_over_is_done_in_order_and_behind_a_panic() {
        let analyst = Analyst::start().unwrap();
        let (said, heard) = mpsc::channel();
        let held = analyst.hold();
        for number in 0..100 {
            let said = said.clone();
            let act = move || {
                assert_ne!(number, 50, "one of them panics");
                said.send(number).unwrap();
            };
            match number % 2 {
                0 => analyst.hand_over(work(1, act)).unwrap(),
                _ => analyst.follow(act).unwrap(),
            }
        }
        assert!(
            heard.try_recv().is_err(),
            "nothing is done while it is held"
        );
        assert!(analyst.has_plans());
        assert!(!analyst.finish(Duration::ZERO));
        drop(held);
        assert!(analyst.finish(PATIENCE));
        assert!(!analyst.has_plans());
        let found: Vec<i32> = heard.try_iter().collect();
        let expected: Vec<i32> = (0..100).filter(|number| *number != 50).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_full_queue_takes_no_more_and_has_room_again_when_it_was_worked_off() {
        let analyst = Analyst::start().unwrap();
        let held = analyst.hold();
        let huge = BYTES_WAITING_MAX + 1;
        assert_eq!(analyst.hand_over(work(huge, || {})), Ok(()), "one alone");
        assert_eq!(analyst.hand_over(work(0, || {})), Err(Full), "by bytes");
        drop(held);
        assert!(analyst.finish(PATIENCE));
        let held = analyst.hold();
        for _ in 0..CALLS_WAITING_MAX {
            assert_eq!(analyst.hand_over(work(1, || {})), Ok(()));
        }
        assert_eq!(analyst.hand_over(work(1, || {})), Err(Full), "by calls");
        for _ in CALLS_WAITING_MAX..ALL_WAITING_MAX {
            assert_eq!(analyst.follow(|| {}), Ok(()));
        }
        assert_eq!(analyst.follow(|| {}), Err(Full));
        drop(held);
        assert!(analyst.finish(PATIENCE));
        assert_eq!(analyst.hand_over(work(1, || {})), Ok(()));
    }

    #[test]
    fn the_thread_ends_with_what_hands_work_over_to_it() {
        let analyst = Analyst::start().unwrap();
        let shared = Arc::downgrade(&analyst.shared);
        let (said, heard) = mpsc::channel();
        analyst.follow(move || said.send(()).unwrap()).unwrap();
        drop(analyst);
        assert_eq!(
            heard.recv_timeout(PATIENCE),
            Ok(()),
            "nothing is left behind"
        );
        let until = std::time::Instant::now() + PATIENCE;
        while shared.strong_count() > 0 {
            assert!(std::time::Instant::now() < until, "the thread goes on");
            thread::yield_now();
        }
    }
}
