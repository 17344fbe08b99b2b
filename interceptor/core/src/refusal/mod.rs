//! Answers that Weir gives itself, in the error shape of the API that was called.
//!
//! A cap is refused with **402**. Both providers' SDKs (and every other that shares their base)
//! retry 408, 409, 429 and from 500 on unless the answer says `x-should-retry: false`; programs
//! with a client of their own retry 429 whatever it says, and some wait for its `retry-after`,
//! which for a monthly cap is weeks. 402 is retried by none, is Anthropic's own status for
//! `billing_error`, and is as true for `OpenAI`, whose `insufficient_quota` normally comes as a 429.
//! The header is sent all the same, and no `retry-after`. What passes is refused with **429** and
//! `retry-after`: what calls in flight have reserved, and SDKs may try that again; and a velocity
//! breaker, which they may not, since a program that runs away is to hear of it. Where trying again
//! can help (the provider could not be reached) the status is 502, which SDKs retry.
//!
//! An error before the first event of a stream is an ordinary JSON answer at both providers, so
//! that it is no matter whether the call asked for one.

mod details;
mod message;
mod stream;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::api::{Api, Family};
use crate::caps::{Cause, Exceeded};
use details::Details;
use message::message;

pub(crate) use stream::end_in_socket;
pub use stream::end_of_stream;

/// Why Weir answers in the provider's place.
#[derive(Clone, Copy, Debug)]
pub enum Reason<'a> {
    /// A cap is reached.
    CapExceeded(&'a Exceeded),
    /// The request is longer than Weir holds, and a policy wants all calls read.
    TooLarge {
        /// The most that is held, in bytes.
        limit_bytes: u64,
    },
    /// The request cannot be read, and a policy wants all calls read.
    Unreadable {
        /// What was expected, and found.
        detail: &'a str,
    },
    /// The model has no price, and a policy wants all calls priced.
    Unpriced {
        /// The model that was asked for.
        model: &'a str,
    },
    /// The provider could not be reached, or broke off before it answered.
    UpstreamFailed {
        /// What happened.
        detail: &'a str,
    },
}

impl Reason<'_> {
    /// The name in records and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::CapExceeded(exceeded) => match exceeded.cause {
                Cause::Exhausted => "cap_exceeded",
                Cause::PerCall => "call_too_expensive",
                Cause::Velocity => "too_fast",
                Cause::InFlight | Cause::Grant => "cap_in_use",
            },
            Self::TooLarge { .. } => "too_large",
            Self::Unreadable { .. } => "unreadable",
            Self::Unpriced { .. } => "unpriced",
            Self::UpstreamFailed { .. } => "upstream_failed",
        }
    }
}

/// An answer to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The HTTP status.
    pub status: u16,
    /// Header fields, in lower case, without `content-length`.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// The answer for a reason. `request_id` is Weir's own for the exchange, which its record has too.
#[must_use]
pub fn render(api: Api, reason: &Reason<'_>, request_id: &str) -> Rendered {
    let shape = Shape::of(reason);
    let body = json_body(api, reason, message(reason, request_id), request_id);
    let id_header = match api.family() {
        Family::Anthropic => "request-id",
        Family::OpenAi | Family::Gemini | Family::Cohere => "x-request-id",
        Family::Bedrock => "x-amzn-requestid",
    };
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        (id_header, request_id.to_owned()),
    ];
    if api.family() == Family::Bedrock {
        headers.push(("x-amzn-errortype", shape.bedrock_type.to_owned()));
    }
    if let Reason::CapExceeded(Exceeded {
        retry_after_s: Some(seconds),
        ..
    }) = reason
    {
        headers.push(("retry-after", seconds.to_string()));
    }
    if !shape.may_be_retried {
        headers.push(("x-should-retry", "false".to_owned()));
    }
    Rendered {
        status: shape.status_at(api),
        headers,
        body,
    }
}

/// The error of an API, as JSON.
fn json_body(api: Api, reason: &Reason<'_>, message: String, request_id: &str) -> Vec<u8> {
    let shape = Shape::of(reason);
    let details = Details::of(reason);
    match api.family() {
        Family::Anthropic => json(&Anthropic {
            r#type: "error",
            error: AnthropicError {
                r#type: shape.anthropic_type,
                message,
                details,
            },
            request_id,
        }),
        Family::OpenAi => json(&OpenAi {
            error: OpenAiError {
                message,
                r#type: shape.openai_type,
                param: None,
                code: shape.openai_code,
                details,
            },
            request_id,
        }),
        Family::Gemini => json(&Gemini {
            error: GeminiError {
                code: shape.status_at(api),
                message,
                status: shape.gemini_status,
                details: [details],
            },
        }),
        Family::Bedrock | Family::Cohere => json(&Bare { message, details }),
    }
}

/// What a reason is called at each provider.
struct Shape {
    status: u16,
    anthropic_type: &'static str,
    openai_type: &'static str,
    openai_code: &'static str,
    gemini_status: &'static str,
    bedrock_type: &'static str,
    may_be_retried: bool,
}

impl Shape {
    const fn of(reason: &Reason<'_>) -> Self {
        match reason {
            Reason::CapExceeded(Exceeded {
                cause: cause @ (Cause::Velocity | Cause::InFlight | Cause::Grant),
                ..
            }) => Self {
                status: 429,
                anthropic_type: "rate_limit_error",
                openai_type: "rate_limit_exceeded",
                openai_code: "rate_limit_exceeded",
                gemini_status: "RESOURCE_EXHAUSTED",
                bedrock_type: match cause {
                    Cause::Velocity => "ServiceQuotaExceededException",
                    _ => "ThrottlingException",
                },
                may_be_retried: !matches!(cause, Cause::Velocity),
            },
            Reason::CapExceeded(_) => Self {
                status: 402,
                anthropic_type: "billing_error",
                openai_type: "insufficient_quota",
                openai_code: "insufficient_quota",
                gemini_status: "PERMISSION_DENIED",
                bedrock_type: "ServiceQuotaExceededException",
                may_be_retried: false,
            },
            Reason::TooLarge { .. } => Self {
                status: 413,
                anthropic_type: "request_too_large",
                openai_type: "invalid_request_error",
                openai_code: "request_too_large",
                gemini_status: "INVALID_ARGUMENT",
                bedrock_type: "ValidationException",
                may_be_retried: false,
            },
            Reason::Unreadable { .. } => Self {
                status: 400,
                anthropic_type: "invalid_request_error",
                openai_type: "invalid_request_error",
                openai_code: "unreadable_request",
                gemini_status: "INVALID_ARGUMENT",
                bedrock_type: "ValidationException",
                may_be_retried: false,
            },
            Reason::Unpriced { .. } => Self {
                status: 402,
                anthropic_type: "billing_error",
                openai_type: "invalid_request_error",
                openai_code: "unpriced_model",
                gemini_status: "PERMISSION_DENIED",
                bedrock_type: "ValidationException",
                may_be_retried: false,
            },
            Reason::UpstreamFailed { .. } => Self {
                status: 502,
                anthropic_type: "api_error",
                openai_type: "server_error",
                openai_code: "upstream_failed",
                gemini_status: "UNAVAILABLE",
                bedrock_type: "ServiceUnavailableException",
                may_be_retried: true,
            },
        }
    }
}

impl Shape {
    /// The status by which SDKs of the API do not retry: those of Google and Amazon know no 402.
    const fn status_at(&self, api: Api) -> u16 {
        match (api.family(), self.status) {
            (Family::Gemini, 402) => 403,
            (Family::Bedrock, 402 | 413) => 400,
            // Amazon's SDKs retry each 429, whatever else the answer says.
            (Family::Bedrock, 429) if !self.may_be_retried => 400,
            (Family::Bedrock, 502) => 503,
            (_, status) => status,
        }
    }
}

#[derive(Serialize)]
struct Anthropic<'a> {
    r#type: &'static str,
    error: AnthropicError<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'static str,
    message: String,
    details: Details<'a>,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    error: OpenAiError<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: String,
    r#type: &'static str,
    param: Option<&'static str>,
    code: &'static str,
    details: Details<'a>,
}

#[derive(Serialize)]
struct Gemini<'a> {
    error: GeminiError<'a>,
}

#[derive(Serialize)]
struct GeminiError<'a> {
    code: u16,
    message: String,
    status: &'static str,
    details: [Details<'a>; 1],
}

/// Amazon's error, whose type is in a header, and Cohere's.
#[derive(Serialize)]
struct Bare<'a> {
    message: String,
    details: Details<'a>,
}

#[expect(clippy::expect_used, reason = "structs of strings have no way to fail")]
fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings are serialisable")
}
