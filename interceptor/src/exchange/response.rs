//! What goes back to the application: the provider's answer, or a refusal.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use weir_core::refusal::Rendered;

use super::answer::Passing;

/// Why a body breaks off.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response to the application.
pub(crate) type Response = http::Response<ClientBody>;

/// The body of a response.
pub(crate) enum ClientBody {
    /// Made by Weir.
    Refusal(Bytes),
    /// The provider's, read on the side.
    Answer(Passing),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Refusal(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Refusal(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Answer(answer) => Pin::new(answer).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Refusal(bytes) => bytes.is_empty(),
            Self::Answer(answer) => answer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Refusal(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Answer(answer) => answer.size_hint(),
        }
    }
}

/// A refusal as a response.
pub(super) fn refusal(rendered: Rendered) -> Response {
    let mut response = http::Response::new(ClientBody::Refusal(Bytes::from(rendered.body)));
    *response.status_mut() =
        http::StatusCode::from_u16(rendered.status).unwrap_or(http::StatusCode::FORBIDDEN);
    for (name, value) in rendered.headers {
        if let Ok(value) = http::HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
