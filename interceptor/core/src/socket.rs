//! Calls inside a WebSocket: which message asks for a response, and which response a message of the
//! provider belongs to (`OpenAI` Responses over WebSocket, and Realtime).
//!
//! A response is asked for by a message `response.create`; Realtime also begins some by itself, when
//! it hears that somebody has finished to speak. Several may be under way at once: those of the
//! Responses API in lanes of their own (`stream_id`), those of Realtime told apart by the id that
//! `response.created` gives them.

use crate::answer::Object;
use crate::api::Api;
use crate::call::{self, Call, Unreadable};
use crate::caps::Exceeded;
use crate::json::Kind;
use crate::refusal;

/// A message of the application that asks for a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// What is asked for. Its ranges are those of the message.
    pub call: Call,
    /// The lane that the response is to come in, if one is named.
    pub lane: Option<String>,
    /// What the application calls this message, if it does: an error may name it.
    pub event_id: Option<String>,
}

/// Reads a message of the application; nothing, if it asks for no response.
///
/// # Errors
///
/// If it is not a JSON object, or asks for a response in a shape that is none of the API's.
pub fn create(api: Api, message: &[u8]) -> Result<Option<Create>, Unreadable> {
    crate::json::document(message)?;
    let Some(object) = Object::read(message) else {
        return Err(Unreadable::Shape {
            expected: "an object as the message",
            found: Kind::Null,
            at: 0,
        });
    };
    if object.name("type").as_deref() != Some("response.create") {
        return Ok(None);
    }
    Ok(Some(Create {
        call: Call {
            stream: true,
            ..call::parse(api, message)?
        },
        lane: object.name("stream_id"),
        event_id: object.name("event_id"),
    }))
}

/// What a message of the provider does to a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins: its id is known from here on.
    Begins,
    /// It goes on.
    GoesOn,
    /// It is over, one way or the other.
    Ends,
    /// An error, which ends the response that it is about, if it is about one.
    Fails,
    /// It has nothing to do with a response.
    Unrelated,
}

/// A message of the provider, as far as it says which response it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What it does to the response.
    pub step: Step,
    /// The lane of the response.
    pub lane: Option<String>,
    /// The id of the response.
    pub response_id: Option<String>,
    /// Which message of the application an error is about.
    pub event_id: Option<String>,
    /// The model that answers: of this response, or of the session from here on.
    pub model: Option<String>,
}

/// Reads a message of the provider; nothing, if it is no event.
#[must_use]
pub fn said(message: &[u8]) -> Option<Said> {
    let object = Object::read(message)?;
    let kind = object.name("type")?;
    let step = match kind.as_str() {
        "response.created" => Step::Begins,
        "response.completed" | "response.incomplete" | "response.failed" | "response.done" => {
            Step::Ends
        }
        "error" => Step::Fails,
        kind if kind.starts_with("response.") => Step::GoesOn,
        _ => Step::Unrelated,
    };
    let response = object.object("response");
    let error = object.object("error");
    // `session.created` and `session.updated` of Realtime.
    let session = object.object("session");
    let speaks = response.as_ref().or(session.as_ref());
    let model = speaks.and_then(|who| who.name("model"));
    let model = model.filter(|model| !model.is_empty());
    Some(Said {
        step,
        lane: object.name("stream_id"),
        response_id: response
            .and_then(|response| response.name("id"))
            .or_else(|| object.name("response_id")),
        event_id: error.and_then(|error| error.name("event_id")),
        model,
    })
}

/// The message that tells an application why its call was refused: the error of the API, as events
/// have it. `body` is what the API would be answered with over HTTP, an object.
#[must_use]
pub fn refusal(status: u16, body: &[u8], lane: Option<&str>) -> Vec<u8> {
    let mut head = format!(r#"{{"type":"error","status":{status},"#);
    if let Some(lane) = lane.and_then(|lane| serde_json::to_string(lane).ok()) {
        head.push_str(&format!(r#""stream_id":{lane},"#));
    }
    let members = body.strip_prefix(b"{").unwrap_or(b"}");
    [head.as_bytes(), members].concat()
}

/// The messages that tell an application that a response ends here, by the cap that is in its way:
/// the one that ends responses of the API, then the error. `request_id` is Weir's own for the call.
#[must_use]
pub fn end(
    api: Api,
    exceeded: &Exceeded,
    request_id: &str,
    response_id: Option<&str>,
    lane: Option<&str>,
) -> Vec<Vec<u8>> {
    let (failed, status, body) =
        refusal::end_in_socket(api, exceeded, request_id, response_id, lane);
    vec![failed, refusal(status, &body, lane)]
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = (Step, Option<String>, Option<String>, Option<String>);

    fn told(message: &str) -> Told {
        let said = said(message.as_bytes()).unwrap();
        (said.step, said.lane, said.response_id, said.event_id)
    }

    #[test]
    fn only_response_create_asks_for_a_response() {
        let message = br#"{"type":"response.create","model":"gpt-6-sol","stream_id":"a","event_id":"e1","input":"How high?","max_output_tokens":20}"#;
        let create = create(Api::Responses, message).unwrap().unwrap();
        assert_eq!(create.lane.as_deref(), Some("a"));
        assert_eq!(create.event_id.as_deref(), Some("e1"));
        assert_eq!(create.call.model.as_deref(), Some("gpt-6-sol"));
        assert_eq!(create.call.max_output_tokens, Some(20));
        assert!(create.call.stream);
        for other in [
            r#"{"type":"response.cancel"}"#,
            r#"{"type":"session.update","session":{"type":"response.create"}}"#,
            r#"{"input_audio_buffer":"response.create"}"#,
            "{}",
        ] {
            assert_eq!(super::create(Api::Realtime, other.as_bytes()), Ok(None));
        }
        assert!(
            super::create(Api::Responses, br#"{"\u0074ype":"response\u002ecreate"}"#)
                .is_ok_and(|create| create.is_some())
        );
    }

    #[test]
    fn what_is_no_json_object_is_unreadable() {
        for message in ["", "null", "[]", "{\"type\":\"response.create\"", "\u{0}"] {
            assert!(
                create(Api::Responses, message.as_bytes()).is_err(),
                "{message}"
            );
            assert_eq!(
                said(message.as_bytes()).filter(|_| message != "{\"type\":\"response.create\""),
                None,
                "{message}"
            );
        }
    }

    #[test]
    fn a_message_says_which_response_it_is_about() {
        let id = || Some("resp_1".to_owned());
        for (message, expected) in [
            (
                r#"{"type":"response.created","response":{"id":"resp_1"},"stream_id":"b"}"#,
                (Step::Begins, Some("b".to_owned()), id(), None),
            ),
            (
                r#"{"type":"response.output_text.delta","delta":"a","response_id":"resp_1"}"#,
                (Step::GoesOn, None, id(), None),
            ),
            (
                r#"{"type":"response.done","response":{"id":"resp_1","usage":{}}}"#,
                (Step::Ends, None, id(), None),
            ),
            (
                r#"{"type":"error","error":{"type":"invalid_request_error","event_id":"e1"}}"#,
                (Step::Fails, None, None, Some("e1".to_owned())),
            ),
            (
                r#"{"type":"rate_limits.updated"}"#,
                (Step::Unrelated, None, None, None),
            ),
        ] {
            assert_eq!(told(message), expected, "{message}");
        }
    }

    #[test]
    fn a_response_or_a_session_names_its_model() {
        for (message, model) in [
            (
                r#"{"type":"response.created","response":{"id":"resp_1","model":"gpt-6-sol"}}"#,
                Some("gpt-6-sol"),
            ),
            (
                r#"{"type":"session.updated","session":{"model":"gpt-realtime"}}"#,
                Some("gpt-realtime"),
            ),
            (r#"{"type":"session.created","session":{"model":""}}"#, None),
            (r#"{"type":"rate_limits.updated"}"#, None),
        ] {
            let said = said(message.as_bytes()).unwrap();
            assert_eq!(said.model.as_deref(), model, "{message}");
        }
    }

    #[test]
    fn a_refusal_is_an_error_event_in_the_lane_of_the_call() {
        let create = create(
            Api::Responses,
            br#"{"type":"response.create","stream_id":"a\"b"}"#,
        );
        let create = create.unwrap();
        let event = refusal(
            402,
            br#"{"error":{"type":"insufficient_quota"}}"#,
            create.as_ref().and_then(|create| create.lane.as_deref()),
        );
        let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(event["type"], "error");
        assert_eq!(event["status"], 402);
        assert_eq!(event["stream_id"], "a\"b");
        assert_eq!(event["error"]["type"], "insufficient_quota");
    }
}
