//! A connection that is driven by whoever waits for what it brings.
//!
//! hyper asks a body several times for each event that it passes on, and asks in vain but once. The
//! connection is polled only where something woke it since it was polled last, which its own bell
//! tells: an event takes two polls, one that brings it and one that finds nothing behind it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::bell::{Bell, ROUNDS_MAX};

/// hyper does not name the type of a connection that can be upgraded.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection, and what wakes it.
pub(super) struct Driven {
    /// None, once it is over: what was queued in it then comes back to its sender.
    connection: Option<Connection>,
    bell: Arc<Bell>,
    /// Of `bell`.
    waker: Waker,
}

impl Driven {
    pub(super) fn new(connection: Connection) -> Self {
        let bell = Bell::new();
        Self {
            connection: Some(connection),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    /// Drives it once while nobody waits for it; whether it is still open.
    pub(super) fn stays_open(&mut self) -> bool {
        self.bell.is_of(Waker::noop());
        self.bell.hush();
        self.drive();
        self.connection.is_some()
    }

    /// Polls what only the connection makes ready, and drives that wherever it was woken. What is
    /// ready leaves the bell hushed: whoever gets it asks again before it waits.
    pub(super) fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        mut brought: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.bell.is_of(cx.waker());
        for _ in 0..ROUNDS_MAX {
            if self.bell.hush() {
                self.drive();
            }
            // The connection is driven here, so that what waits for it needs no waking.
            let polled = brought(&mut Context::from_waker(Waker::noop()));
            if polled.is_ready() || self.bell.rest() {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The connection, unless it is over: then it must not be polled any more.
    pub(super) fn open(self) -> Option<Connection> {
        self.connection
    }

    /// Errors of the connection reach the request or the body that waits on it.
    fn drive(&mut self) {
        if let Some(connection) = &mut self.connection {
            let mut woken = Context::from_waker(&self.waker);
            if connection.as_mut().poll(&mut woken).is_ready() {
                self.connection = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::sync::mpsc;

    use super::*;

    /// What goes into a connection, and what it brings.
    type Ends = (mpsc::Sender<u8>, mpsc::Receiver<u8>);

    /// A connection that passes bytes on, and how often it was polled.
    fn connection() -> (Driven, Arc<AtomicUsize>, Ends) {
        let (provider, mut incoming) = mpsc::channel(8);
        let (outgoing, body) = mpsc::channel(8);
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let driven = Driven::new(Box::pin(std::future::poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            while let Poll::Ready(byte) = incoming.poll_recv(cx) {
                let Some(byte) = byte else {
                    return Poll::Ready(Ok(()));
                };
                outgoing.try_send(byte).unwrap();
            }
            Poll::Pending
        })));
        (driven, polls, (provider, body))
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_queued_in_a_connection_that_ends_comes_back_to_its_sender() {
        let (queued, answer) = tokio::sync::oneshot::channel::<u8>();
        let mut driven = Driven::new(Box::pin(async move {
            let _queued = queued;
            std::future::ready(Ok(())).await
        }));
        let mut answer = std::pin::pin!(answer);
        let cx = Context::from_waker(Waker::noop());
        let polled = driven.poll(&cx, |cx| answer.as_mut().poll(cx));
        assert!(matches!(polled, Poll::Ready(Err(_))), "{polled:?}");
    }

    #[test]
    fn it_is_polled_once_for_each_wake_however_often_it_is_asked() {
        let (mut driven, polls, (provider, mut body)) = connection();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut ask = || driven.poll(&Context::from_waker(&waker), |cx| body.poll_recv(cx));
        for _ in 0..5 {
            assert_eq!(ask(), Poll::Pending);
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        provider.try_send(7).unwrap();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "whoever waits is woken");
        assert_eq!(ask(), Poll::Ready(Some(7)));
        for _ in 0..5 {
            assert_eq!(ask(), Poll::Pending);
        }
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_comes_while_nobody_waits_is_found_when_somebody_asks() {
        let (mut driven, _polls, (provider, mut body)) = connection();
        assert!(driven.stays_open());
        provider.try_send(7).unwrap();
        let cx = Context::from_waker(Waker::noop());
        let asked = driven.poll(&cx, |cx| body.poll_recv(cx));
        assert_eq!(asked, Poll::Ready(Some(7)));
        drop(provider);
        assert!(!driven.stays_open());
        assert!(driven.open().is_none());
    }
}
