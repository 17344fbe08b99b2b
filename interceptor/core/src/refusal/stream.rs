//! The end of an answer that has begun: an event that the SDKs of the API raise as an error.
//!
//! It has to stand between two events. An SDK of Anthropic, `OpenAI` or Google raises any event
//! whose data has an `error`; of Responses the one that clients of their own look for,
//! `response.failed`, comes after it: before it, helpers of the Python SDK take offence at a response
//! whose id is not that of the stream, which is not known here. Amazon's stream ends in an exception frame.

use serde::Serialize;

use super::{Reason, Shape, json, json_body, message};
use crate::api::{Api, Family};
use crate::caps::Exceeded;

/// The bytes that end a stream of events, whose last event is complete.
#[must_use]
pub fn end_of_stream(api: Api, exceeded: &Exceeded, request_id: &str) -> Vec<u8> {
    let reason = Reason::CapExceeded(exceeded);
    let message = message::ended(exceeded, request_id);
    match (api, api.family()) {
        (Api::Responses, _) => end_of_responses(&reason, &message, request_id),
        (_, Family::Anthropic) => event("error", &json_body(api, &reason, message, request_id)),
        (_, Family::OpenAi | Family::Gemini) => {
            event("", &json_body(api, &reason, message, request_id))
        }
        (_, Family::Cohere) => event("error", &json_body(api, &reason, message, request_id)),
        (_, Family::Bedrock) => {
            let kind = if Shape::of(&reason).may_be_retried {
                "throttlingException"
            } else {
                "validationException"
            };
            exception_frame(kind, &json_body(api, &reason, message, request_id))
        }
    }
}

/// What ends a response inside a socket: the event that is its end, and the status and body of the
/// error. `response_id` is the provider's, if it has told one; `lane` that of the response.
pub(crate) fn end_in_socket(
    api: Api,
    exceeded: &Exceeded,
    request_id: &str,
    response_id: Option<&str>,
    lane: Option<&str>,
) -> (Vec<u8>, u16, Vec<u8>) {
    let reason = Reason::CapExceeded(exceeded);
    let message = message::ended(exceeded, request_id);
    let shape = Shape::of(&reason);
    let id = response_id.unwrap_or(request_id);
    let failed = Failed {
        r#type: match api {
            Api::Realtime => "response.done",
            _ => "response.failed",
        },
        stream_id: lane,
        response: FailedResponse::of(api, id, shape.openai_code, &message),
    };
    let failed = json(&failed);
    let body = json_body(api, &reason, message, request_id);
    (failed, shape.status_at(api), body)
}

fn end_of_responses(reason: &Reason<'_>, message: &str, request_id: &str) -> Vec<u8> {
    let code = Shape::of(reason).openai_code;
    let failed = json(&Failed {
        r#type: "response.failed",
        stream_id: None,
        response: FailedResponse::of(Api::Responses, request_id, code, message),
    });
    let body = json_body(Api::Responses, reason, message.to_owned(), request_id);
    // The members of the plain error, and those of the event beside them.
    let mut error =
        format!("{{\"type\":\"error\",\"code\":\"{code}\",\"param\":null,").into_bytes();
    error.extend_from_slice(body.strip_prefix(b"{").unwrap_or(&body));
    let mut bytes = event("error", &error);
    bytes.extend_from_slice(&event("response.failed", &failed));
    bytes
}

#[derive(Serialize)]
struct Failed<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_id: Option<&'a str>,
    response: FailedResponse<'a>,
}

#[derive(Serialize)]
struct FailedResponse<'a> {
    id: &'a str,
    object: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailedError<'a>>,
    /// Where Realtime has the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_details: Option<FailedDetails<'a>>,
    output: [(); 0],
}

impl<'a> FailedResponse<'a> {
    fn of(api: Api, id: &'a str, code: &'static str, message: &'a str) -> Self {
        let error = FailedError { code, message };
        let is_realtime = api == Api::Realtime;
        Self {
            id,
            object: if is_realtime {
                "realtime.response"
            } else {
                "response"
            },
            status: "failed",
            error: (!is_realtime).then_some(error),
            status_details: is_realtime.then_some(FailedDetails {
                r#type: "failed",
                error,
            }),
            output: [],
        }
    }
}

#[derive(Serialize)]
struct FailedDetails<'a> {
    r#type: &'static str,
    error: FailedError<'a>,
}

#[derive(Clone, Copy, Serialize)]
struct FailedError<'a> {
    code: &'static str,
    message: &'a str,
}

/// JSON has no line feeds of its own, so it is one line of data.
fn event(name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len().saturating_add(32));
    if !name.is_empty() {
        bytes.extend_from_slice(format!("event: {name}\n").as_bytes());
    }
    bytes.extend_from_slice(b"data: ");
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\n\n");
    bytes
}

/// A message of `application/vnd.amazon.eventstream`: lengths, their checksum, headers, payload,
/// the checksum of all before; big-endian.
fn exception_frame(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":exception-type", kind),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ] {
        headers.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(name.as_bytes());
        headers.push(TYPE_STRING);
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        headers.extend_from_slice(&length.to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let total = FRAME_BYTES
        .saturating_add(headers.len())
        .saturating_add(payload.len());
    let mut frame = Vec::with_capacity(total);
    frame.extend_from_slice(&length(total));
    frame.extend_from_slice(&length(headers.len()));
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

/// The type of a header whose value is a string.
const TYPE_STRING: u8 = 7;
/// Two lengths and two checksums.
const FRAME_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_frame_has_its_lengths_and_headers_in_place() {
        let frame = exception_frame("validationException", b"{}");
        let length = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!(usize::try_from(length(0)).unwrap(), frame.len());
        let headers = usize::try_from(length(4)).unwrap();
        assert_eq!(&frame[12 + headers..frame.len() - 4], b"{}");
        assert_eq!(&frame[12..29], b"\x0f:exception-type\x07");
        assert_eq!(length(8), crc32fast::hash(&frame[..8]));
        assert_eq!(
            length(frame.len() - 4),
            crc32fast::hash(&frame[..frame.len() - 4])
        );
    }
}
