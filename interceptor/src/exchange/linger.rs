//! Closes a connection without losing the answer that was just written to it.
//!
//! A provider may refuse an upload in its middle (413, 401). hyper then closes the connection with
//! bytes of the upload unread, and the kernel answers those with a reset that throws away what the
//! application had not read yet. So after the last byte went out, what still comes in is read and
//! dropped for a while (RFC 9112, section 9.6).
//!
//! What is still to be done about an exchange when its answer has gone out is done here too.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::decrypt::Decrypted;
use crate::sidecar;

const WAIT_MAX: Duration = Duration::from_secs(2);
const DROPPED_BYTES_MAX: usize = 8 << 20;
const READ_BYTES: usize = 8 << 10;

/// A server's connection that lingers when it is shut down.
pub(super) struct Lingering {
    stream: Decrypted,
    context: Arc<sidecar::Context>,
    lingering: Option<Linger>,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    dropped_bytes: usize,
}

impl Lingering {
    pub(super) fn new(stream: Decrypted, context: Arc<sidecar::Context>) -> Self {
        Self {
            stream,
            context,
            lingering: None,
        }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.context.behind.settle();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let Poll::Ready(shut) = Pin::new(&mut this.stream).poll_shutdown(cx) else {
                return Poll::Pending;
            };
            shut?;
        }
        let linger = this.lingering.get_or_insert_with(|| Linger {
            until: Box::pin(tokio::time::sleep(WAIT_MAX)),
            dropped_bytes: 0,
        });
        let mut bytes = [0; READ_BYTES];
        while linger.dropped_bytes < DROPPED_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let read = buffer.filled().len();
                    linger.dropped_bytes = linger.dropped_bytes.saturating_add(read);
                }
                Poll::Ready(_closed) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.until.as_mut().poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.context.behind.settle();
    }
}
