//! One upstream HTTP/1.1 connection, driven by whoever waits for its answer.
//!
//! hyper gives a sender and a connection future, and the usual way is to spawn the latter. Here
//! the task that serves the client drives it too: an exchange then needs no hand-over between
//! tasks, which on a busy machine costs more than all of parsing. When the body is at its end the
//! connection goes back to the pool by itself; when the client leaves, it is dropped, and the
//! provider sees the stream cancelled.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio_rustls::client::TlsStream;

use super::driven::Driven;
use super::pool::WayBack;
use super::{HEADERS_MAX, Outgoing, Protocol, RequestBody, TrySendError, UpstreamBody};
use crate::read_ahead::ReadAhead;

/// Frames that are ready together are sent on together, up to this many bytes.
const COALESCED_BYTES_MAX: usize = 64 << 10;

/// An HTTP/1.1 connection to a provider.
pub(super) struct Http1 {
    sender: SendRequest<Box<RequestBody>>,
    connection: Driven,
    protocol: Protocol,
}

impl Http1 {
    pub(super) async fn handshake(
        stream: TlsStream<ReadAhead>,
        protocol: Protocol,
    ) -> hyper::Result<Self> {
        let (sender, connection) = Builder::new()
            .preserve_header_case(true)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let mut http1 = Self {
            sender,
            connection: Driven::new(Box::pin(connection.with_upgrades())),
            protocol,
        };
        // The first poll makes the connection ready to take a request.
        http1.is_ready();
        Ok(http1)
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether a request can be sent now: drives the connection once to notice that it was closed.
    pub(super) fn is_ready(&mut self) -> bool {
        self.connection.stays_open() && self.sender.is_ready()
    }

    pub(super) async fn send(
        mut self: Box<Self>,
        request: Outgoing,
        way_back: WayBack,
    ) -> Result<Response<UpstreamBody>, TrySendError> {
        // Polled without a waker, it must not be put off by a budget that the task has used up.
        let answer = tokio::task::unconstrained(self.sender.try_send_request(request));
        let mut answer = Box::pin(answer);
        let connection = &mut self.connection;
        let response =
            std::future::poll_fn(|cx| connection.poll(cx, |cx| answer.as_mut().poll(cx))).await?;
        drop(answer);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // It ends with the answer, mostly in the poll that brought it, and must not be polled after that.
            if let Some(connection) = self.connection.open() {
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "an upgraded connection ended");
                    }
                });
            }
            return Ok(response.map(UpstreamBody::Http2));
        }
        Ok(response.map(|incoming| {
            let mut body = Http1Body {
                incoming,
                upstream: Some((self, way_back)),
                held: None,
            };
            body.return_if_ended();
            UpstreamBody::Http1(Box::new(body))
        }))
    }
}

/// What a body yields: a frame, an error, or its end.
type Yield = Option<Result<Frame<Bytes>, hyper::Error>>;

/// The body of an answer, with the connection that it comes from.
pub(crate) struct Http1Body {
    incoming: Incoming,
    upstream: Option<(Box<Http1>, WayBack)>,
    /// Came together with the data before it, and can't be coalesced with it.
    held: Option<Yield>,
}

impl Http1Body {
    /// The next frame, driving the connection when there is none yet.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Yield> {
        if let Some(held) = self.held.take() {
            return Poll::Ready(held);
        }
        let mut incoming = Pin::new(&mut self.incoming);
        match &mut self.upstream {
            Some((upstream, _)) => {
                let connection = &mut upstream.connection;
                connection.poll(cx, |cx| incoming.as_mut().poll_frame(cx))
            }
            None => incoming.poll_frame(cx),
        }
    }

    /// Adds what is ready now to `first`.
    fn coalesce(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        let mut all = BytesMut::new();
        while first.len().max(all.len()) < COALESCED_BYTES_MAX && !self.incoming.is_end_stream() {
            let Poll::Ready(next) = self.next(cx) else {
                break;
            };
            match next.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    if all.is_empty() {
                        all.reserve(first.len().saturating_add(data.len()).saturating_mul(2));
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&data);
                }
                Some(Ok(Err(trailers))) => self.held = Some(Some(Ok(trailers))),
                Some(Err(error)) => self.held = Some(Some(Err(error))),
                None => self.held = Some(None),
            }
            if self.held.is_some() {
                break;
            }
        }
        if all.is_empty() { first } else { all.freeze() }
    }

    /// Hands the connection back once nothing more of the body can come.
    fn return_if_ended(&mut self) {
        if self.is_end_stream()
            && let Some((upstream, way_back)) = self.upstream.take()
        {
            way_back.give(upstream);
        }
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Yield> {
        let Poll::Ready(next) = self.next(cx) else {
            return Poll::Pending;
        };
        let next = match next.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => Some(Ok(Frame::data(self.coalesce(data, cx)))),
            Some(Ok(Err(trailers))) => Some(Ok(trailers)),
            Some(Err(error)) => Some(Err(error)),
            None => {
                self.held = Some(None);
                None
            }
        };
        self.return_if_ended();
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.held {
            Some(held) => held.is_none(),
            None => self.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
