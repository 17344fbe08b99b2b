//! Reads the body of a call, up to a bound.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::forward::RequestBody;
use crate::metrics::Bound;
use crate::process::limits;
use crate::sidecar::{BODY_PERMIT_BYTES, Context};

/// A request whose body was read.
pub(super) enum Read {
    Whole {
        head: http::request::Parts,
        body: Bytes,
        trailers: Option<Box<HeaderMap>>,
        /// The share of the memory for all bodies.
        memory: Option<OwnedSemaphorePermit>,
    },
    /// Longer than what is read, or than the memory that bodies may have in all.
    TooLong(Request<RequestBody>),
}

/// Reads the whole body, or as much of it as the bounds allow.
///
/// # Errors
/// The application went away in the middle of its request, or stalled.
pub(super) async fn read(context: &Context, request: Request<Incoming>) -> anyhow::Result<Read> {
    let (head, mut incoming) = request.into_parts();
    let announced = incoming.size_hint().lower();
    if announced > u64::try_from(limits::BODY_BYTES_MAX)? {
        context.metrics.bound_reached(Bound::RequestBody);
        return Ok(Read::TooLong(Request::from_parts(
            head,
            RequestBody::Streamed(incoming),
        )));
    }
    let mut body = Growing {
        announced: usize::try_from(announced)?,
        ..Growing::default()
    };
    let mut trailers = None;
    while let Some(frame) =
        tokio::time::timeout(limits::BODY_IDLE_TIMEOUT, incoming.frame()).await?
    {
        match frame?.into_data() {
            Ok(data) => body.push(data),
            Err(frame) => trailers = frame.into_trailers().ok().map(Box::new),
        }
        if let Err(bound) = body.account(context) {
            context.metrics.bound_reached(bound);
            let body = RequestBody::Resumed {
                head: body.into_bytes(),
                rest: incoming,
            };
            return Ok(Read::TooLong(Request::from_parts(head, body)));
        }
    }
    let memory = body.memory.take();
    Ok(Read::Whole {
        head,
        body: body.into_bytes(),
        trailers,
        memory,
    })
}

/// A body as it comes; one that comes in one piece is not copied.
#[derive(Default)]
struct Growing {
    announced: usize,
    first: Bytes,
    all: BytesMut,
    memory: Option<OwnedSemaphorePermit>,
}

impl Growing {
    fn push(&mut self, data: Bytes) {
        if self.first.is_empty() {
            self.first = data;
            return;
        }
        if self.all.is_empty() {
            let length = self.first.len().saturating_add(data.len());
            self.all.reserve(self.announced.max(length));
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&data);
    }

    /// Takes the share of the memory that the body has grown to.
    fn account(&mut self, context: &Context) -> Result<(), Bound> {
        let length = self.first.len().max(self.all.len());
        if length > limits::BODY_BYTES_MAX {
            return Err(Bound::RequestBody);
        }
        let held = self
            .memory
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = length.div_ceil(BODY_PERMIT_BYTES).saturating_sub(held);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = Arc::clone(&context.bodies).try_acquire_many_owned(missing);
        let more = more.map_err(|_full| Bound::RequestBodies)?;
        match &mut self.memory {
            Some(memory) => memory.merge(more),
            None => self.memory = Some(more),
        }
        Ok(())
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() {
            self.first
        } else {
            self.all.freeze()
        }
    }
}
