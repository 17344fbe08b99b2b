//! Polls a future again as long as it wakes itself.
//!
//! hyper's parts tell each other of progress by waking the task that they are in. One exchange does
//! so several times, from within its own task, and a runtime of several threads answers each by
//! waking a second thread to take the task over: the most expensive thing that happens to a small
//! call. Here such a wake is a flag, and the future is polled again at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::bell::{Bell, ROUNDS_MAX};

/// A future that is polled until it waits for something outside of its task.
pub(super) struct Settled<F> {
    future: F,
    bell: Arc<Bell>,
    /// Of `bell`.
    waker: Waker,
}

impl<F: Future + Unpin> Settled<F> {
    pub(super) fn new(future: F) -> Self {
        let bell = Bell::new();
        Self {
            future,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for Settled<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.bell.is_of(cx.waker());
        let mut inner = Context::from_waker(&this.waker);
        for _ in 0..ROUNDS_MAX {
            this.bell.hush();
            if let Poll::Ready(output) = Pin::new(&mut this.future).poll(&mut inner) {
                return Poll::Ready(output);
            }
            if this.bell.rest() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once; tells whether it was ready, and how often the task was woken.
    fn poll<F: Future + Unpin>(future: &mut F) -> (bool, usize) {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let ready = Pin::new(future).poll(&mut Context::from_waker(&waker));
        (ready.is_ready(), count.0.load(Ordering::Relaxed))
    }

    /// Wakes itself `times` times and is then ready.
    fn waking(times: usize) -> Settled<impl Future + Unpin> {
        let mut left = times;
        Settled::new(std::future::poll_fn(move |cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_again_without_waking_the_task() {
        assert_eq!(poll(&mut waking(3)), (true, 0));
    }

    #[test]
    fn one_that_never_stops_to_lets_others_have_their_turn() {
        assert_eq!(poll(&mut waking(ROUNDS_MAX)), (false, 1));
    }

    #[test]
    fn a_wake_from_outside_wakes_the_task_that_polled_last() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let mut settled = Settled::new(receiver);
        assert_eq!(poll(&mut settled), (false, 0));
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let pending = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
        assert!(pending.is_pending());
        sender.send(()).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut settled), (true, 0));
    }

    #[test]
    fn a_wake_from_another_thread_during_a_poll_is_not_lost() {
        let mut asked = false;
        let mut settled = Settled::new(std::future::poll_fn(move |cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            std::thread::spawn(move || waker.wake()).join().unwrap();
            Poll::Pending
        }));
        assert_eq!(poll(&mut settled), (true, 0));
    }
}
