//! Reads the body of a call, up to a bound.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::forward::RequestBody;
use crate::metrics::Bound;
use crate::process::limits;
use crate::sidecar::Context;

/// A request whose body was read.
pub(super) enum Read {
    Whole {
        head: http::request::Parts,
        body: Bytes,
        trailers: Option<HeaderMap>,
    },
    /// Longer than what is read, or than the memory that bodies may have in all.
    TooLong(Request<RequestBody>),
}

/// Reads the whole body, or as much of it as the bound allows.
///
/// # Errors
/// The application went away in the middle of its request.
pub(super) async fn read(context: &Context, request: Request<Incoming>) -> hyper::Result<Read> {
    let (head, mut incoming) = request.into_parts();
    let announced = incoming.size_hint().lower();
    let bytes_max = u64::try_from(limits::BODY_BYTES_MAX).unwrap_or(u64::MAX);
    if announced > bytes_max {
        context.metrics.bound_reached(Bound::RequestBody);
        return Ok(Read::TooLong(Request::from_parts(
            head,
            RequestBody::Streamed(incoming),
        )));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = incoming.frame().await {
        match frame?.into_data() {
            Ok(data) if first.is_empty() => first = data,
            Ok(data) => {
                if all.is_empty() {
                    let capacity = usize::try_from(announced).unwrap_or_default();
                    all.reserve(capacity.max(first.len().saturating_add(data.len())));
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if first.len().max(all.len()) > limits::BODY_BYTES_MAX {
            context.metrics.bound_reached(Bound::RequestBody);
            let read = if all.is_empty() { first } else { all.freeze() };
            let body = RequestBody::Resumed {
                head: read,
                rest: incoming,
            };
            return Ok(Read::TooLong(Request::from_parts(head, body)));
        }
    }
    let body = if all.is_empty() { first } else { all.freeze() };
    Ok(Read::Whole {
        head,
        body,
        trailers,
    })
}
