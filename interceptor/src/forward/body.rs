//! The bodies that go up and come down.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http1::Http1Body;

/// What is sent upstream.
pub(crate) enum RequestBody {
    /// Read, and perhaps edited, in full.
    Full {
        bytes: Bytes,
        /// Boxed, because they are rare, and hyper keeps room for 32 requests per connection.
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
