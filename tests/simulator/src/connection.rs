//! One connection: TLS, HTTP/1.1 or HTTP/2, and what hyper does not keep of the wire.
//!
//! hyper normalises header names, and its map does not keep the order of different names. To show what an interceptor
//! really sent, the bytes of each HTTP/1.1 head are recorded as they are read. That works because a client sends its
//! next request only after the answer to the one before; pipelined requests fall back to hyper's view.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::exchange::{self, State};

/// Serves `socket` until the client closes it, or `stop` says so and no answer is being sent.
pub(crate) async fn serve(
    state: Arc<State>,
    acceptor: TlsAcceptor,
    socket: TcpStream,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let tls = acceptor.accept(socket).await?;
    let (_, session) = tls.get_ref();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let server_name = session.server_name().map(str::to_owned);
    let wire = Arc::new(Wire {
        server_name,
        ..Wire::default()
    });
    let io = TokioIo::new(Recorded {
        tls,
        wire: Arc::clone(&wire),
        recording: !http2,
    });
    let service = service_fn(move |request| {
        let (state, wire) = (Arc::clone(&state), Arc::clone(&wire));
        async move { exchange::answer(&state, &wire, request).await }
    });
    let stopped = async move {
        // An error means that the simulator is gone, which is a reason to stop as well.
        drop(stop.wait_for(|stop| *stop).await);
    };
    if http2 {
        let mut connection = std::pin::pin!(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .serve_connection(io, service)
        );
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            () = stopped => connection.as_mut().graceful_shutdown(),
        }
        connection.await.map_err(io::Error::other)
    } else {
        let mut connection = std::pin::pin!(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(io, service)
                .with_upgrades()
        );
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            () = stopped => connection.as_mut().graceful_shutdown(),
        }
        connection.await.map_err(io::Error::other)
    }
}

/// What is known of a connection beside its requests.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) server_name: Option<String>,
    head: Mutex<Head>,
    reset: AtomicBool,
}

#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    complete: bool,
}

impl Wire {
    /// Makes the end of this connection a TCP reset.
    pub(crate) fn reset_on_close(&self) {
        self.reset.store(true, Ordering::SeqCst);
    }

    /// The headers of the request that was just read, as they stood on the wire; `None` if they were not recorded.
    pub(crate) fn headers(&self) -> Option<Vec<(String, Bytes)>> {
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if !head.complete {
            return None;
        }
        let lines = head.bytes.split(|byte| *byte == b'\n').skip(1);
        Some(lines.filter_map(header).collect())
    }

    /// The request has been read: what comes next is a head.
    pub(crate) fn expect_head(&self) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Head::default();
    }

    fn record(&self, bytes: &[u8]) {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if head.complete || head.bytes.len() > HEAD_BYTES_MAX {
            return;
        }
        let seen = head.bytes.len().saturating_sub(3);
        head.bytes.extend_from_slice(bytes);
        let end = head.bytes.get(seen..).and_then(|new| {
            new.windows(4)
                .position(|window| window == b"\r\n\r\n")
                .map(|at| seen + at + 2)
        });
        if let Some(end) = end {
            head.bytes.truncate(end);
            head.complete = true;
        }
    }
}

fn header(line: &[u8]) -> Option<(String, Bytes)> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.strip_prefix(b":")?.trim_ascii();
    Some((
        String::from_utf8_lossy(name).into_owned(),
        Bytes::copy_from_slice(value),
    ))
}

/// A TLS connection that records heads and can end in a reset.
struct Recorded {
    tls: TlsStream<TcpStream>,
    wire: Arc<Wire>,
    recording: bool,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.tls).poll_read(cx, buffer);
        if let (true, Some(read)) = (self.recording, buffer.filled().get(before..)) {
            self.wire.record(read);
        }
        polled
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.recording && self.wire.reset.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // Over HTTP/2 only the stream is reset: the connection carries others.
        if self.recording && self.wire.reset.load(Ordering::SeqCst) {
            // If the socket is gone already, there is nothing left to reset.
            drop(self.tls.get_ref().0.set_zero_linger());
        }
    }
}

/// Bytes of a request head that are recorded; hyper refuses larger ones anyway.
const HEAD_BYTES_MAX: usize = 512 << 10;

const STREAM_WINDOW_BYTES: u32 = 2 << 20;

const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
