//! The bodies that go up and come down.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::http1::Http1Body;

/// What is sent upstream.
pub(crate) enum RequestBody {
    /// Read, and perhaps edited, in full.
    Full {
        bytes: Bytes,
        /// Boxed, because they are rare.
        trailers: Option<Box<HeaderMap>>,
        /// Whether the head says the length. Where it does not, HTTP/2 ends the body with a flag,
        /// and hyper shall not add a `content-length` that the application did not send.
        announced: bool,
    },
    /// Passed on as it arrives.
    Streamed(Incoming),
    /// Begun to be read, found too long, and passed on.
    Resumed {
        /// What had been read.
        head: Bytes,
        /// What had not.
        rest: Incoming,
    },
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Full { bytes, .. } | Self::Resumed { head: bytes, .. } if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Full { trailers, .. } => Poll::Ready(
                trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(*trailers))),
            ),
            Self::Streamed(rest) | Self::Resumed { rest, .. } => Pin::new(rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full {
                bytes, trailers, ..
            } => bytes.is_empty() && trailers.is_none(),
            Self::Streamed(rest) => rest.is_end_stream(),
            Self::Resumed { head, rest } => head.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = |bytes: &Bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match self {
            Self::Full {
                bytes,
                announced: true,
                ..
            } => SizeHint::with_exact(length(bytes)),
            Self::Full { .. } => SizeHint::new(),
            Self::Streamed(rest) => rest.size_hint(),
            Self::Resumed { head, rest } => match rest.size_hint().exact() {
                Some(left) => SizeHint::with_exact(left.saturating_add(length(head))),
                None => SizeHint::new(),
            },
        }
    }
}

/// What a provider answers.
pub(crate) enum UpstreamBody {
    /// Drives its own connection.
    Http1(Box<Http1Body>),
    /// Its connection is driven by a task of its own.
    Http2(Incoming),
    /// Begun to be read.
    Begun(Box<Begun>),
}

/// The body of an answer whose beginning was read, to be passed on all the same.
pub(crate) struct Begun {
    read: BytesMut,
    /// What came behind it: trailers, or why it broke off.
    last: Option<Result<Frame<Bytes>, hyper::Error>>,
    rest: UpstreamBody,
    /// Whether the length was known from the start.
    is_announced: bool,
    is_over: bool,
}

impl Begun {
    /// Reads a body until it has more than `bytes_max` or has taken longer than `wait_max`.
    pub(crate) async fn read(body: UpstreamBody, bytes_max: usize, wait_max: Duration) -> Self {
        let hint = body.size_hint();
        let mut begun = Self {
            read: BytesMut::new(),
            last: None,
            rest: body,
            is_announced: hint.exact().is_some(),
            is_over: false,
        };
        if usize::try_from(hint.lower()).is_ok_and(|announced| announced <= bytes_max) {
            // One that takes longer is passed on as it comes.
            let _elapsed = tokio::time::timeout(wait_max, begun.go_on(bytes_max)).await;
        }
        begun
    }

    async fn go_on(&mut self, bytes_max: usize) {
        while !self.is_over && self.read.len() <= bytes_max {
            match self
                .rest
                .frame()
                .await
                .map(|frame| frame.map(Frame::into_data))
            {
                Some(Ok(Ok(data))) => {
                    self.read.extend_from_slice(&data);
                    self.is_over = self.rest.is_end_stream();
                }
                Some(Ok(Err(trailers))) => {
                    self.last = Some(Ok(trailers));
                    self.is_over = true;
                }
                Some(Err(error)) => {
                    self.last = Some(Err(error));
                    self.is_over = true;
                }
                None => self.is_over = true,
            }
        }
    }

    /// All of it, if it is over and did not break off.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        let is_whole = self.is_over && !matches!(self.last, Some(Err(_)));
        is_whole.then_some(&self.read[..])
    }
}

impl Body for Begun {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.read.is_empty() {
            let read = self.read.split().freeze();
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if self.is_over {
            return Poll::Ready(self.last.take());
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let is_passed_on = self.read.is_empty() && self.last.is_none();
        is_passed_on && (self.is_over || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.rest.size_hint().exact().filter(|_| self.is_announced);
        match left.zip(u64::try_from(self.read.len()).ok()) {
            Some((left, read)) => SizeHint::with_exact(left.saturating_add(read)),
            None => SizeHint::new(),
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Http1(body) => Pin::new(body.as_mut()).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
            Self::Begun(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Begun(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Begun(body) => body.size_hint(),
        }
    }
}
