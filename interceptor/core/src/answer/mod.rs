//! What came back: usage, model and outcome, read from the bytes of an answer as they pass.
//!
//! A plain body is kept up to a bound and looked through when it is complete. Of a stream only the
//! few events are read that carry usage, the model or the end; the others cost the search for
//! their end and a glance. Nothing here can fail: what is not understood is absent, and the bytes
//! are on their way to the client in any case.

use crate::api::Api;
use crate::json::{self, Kind, Member};
use crate::sse::{Event, EventParser};
use crate::usage::Usage;

mod messages;
mod openai;

/// How an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON text.
    Plain,
    /// An event stream, `text/event-stream`.
    EventStream,
}

impl Form {
    /// The form that a `content-type` announces; nothing if it is one that Weir does not read.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let media_type = media_type.to_ascii_lowercase();
        match media_type.as_str() {
            "text/event-stream" => Some(Self::EventStream),
            "application/json" => Some(Self::Plain),
            other => other.ends_with("+json").then_some(Self::Plain),
        }
    }
}

/// What is known of an answer once it has ended, one way or the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The model that answered, which prices go by.
    pub model: Option<String>,
    /// All that was used, as far as the provider told: of a stream that was cut, what was told up
    /// to there. If there are `parts`, their sum.
    pub usage: Option<Usage>,
    /// What was used by each pass, where the provider tells passes apart (`usage.iterations` of
    /// Anthropic): to be priced one by one.
    pub parts: Vec<Part>,
    /// Whether the answer ran to its end, so that `usage` is final: the last event of a stream was
    /// seen, or a whole JSON text.
    pub complete: bool,
    /// The type of the provider's error (or its code, where it has no type), if it is one; also
    /// inside a stream that began well.
    pub error: Option<String>,
    /// The id of the answer.
    pub response_id: Option<String>,
    /// The service tier that was used, which prices go by.
    pub service_tier: Option<String>,
    /// `speed` (Anthropic), which prices go by.
    pub speed: Option<String>,
    /// `inference_geo` (Anthropic), which prices go by.
    pub inference_geo: Option<String>,
    /// Why the model stopped, in the provider's words.
    pub stop_reason: Option<String>,
    /// How many events brought a piece of the answer. Each has about a token or more: for a stream
    /// that was cut, the best that is known of its output.
    pub delta_events: u64,
    /// Bodies and events that were too long to be read.
    pub unread: u64,
}

/// One pass of a model within a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The model, if it is another than the answer's.
    pub model: Option<String>,
    /// What this pass used.
    pub usage: Usage,
}

/// Reads an answer as its decoded bytes pass.
#[derive(Debug)]
pub struct AnswerReader {
    api: Api,
    bytes: Bytes,
    found: Found,
}

#[derive(Debug)]
enum Bytes {
    Plain(Vec<u8>),
    /// A plain body beyond the bound.
    TooLong,
    Stream(EventParser),
}

impl AnswerReader {
    /// Before the first byte of an answer.
    #[must_use]
    pub fn new(api: Api, form: Form) -> Self {
        let bytes = match form {
            Form::Plain => Bytes::Plain(Vec::new()),
            Form::EventStream => Bytes::Stream(EventParser::new(ANSWER_BYTES_MAX)),
        };
        Self {
            api,
            bytes,
            found: Found::default(),
        }
    }

    /// Takes the next bytes, content encoding undone.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.bytes {
            Bytes::Stream(parser) => {
                let found = &mut self.found;
                let api = self.api;
                parser.push(bytes, |event| read_event(api, found, &event));
            }
            Bytes::Plain(body) if body.len().saturating_add(bytes.len()) <= ANSWER_BYTES_MAX => {
                body.extend_from_slice(bytes);
            }
            Bytes::Plain(_) => self.bytes = Bytes::TooLong,
            Bytes::TooLong => {}
        }
    }

    /// What was found, at the end of the answer, whatever ended it.
    #[must_use]
    pub fn finish(mut self) -> Answer {
        match self.bytes {
            Bytes::Plain(body) => read_body(self.api, &mut self.found, &body),
            Bytes::TooLong => self.found.answer.unread = 1,
            Bytes::Stream(parser) => self.found.answer.unread = parser.skipped(),
        }
        self.found.settle()
    }
}

fn read_event(api: Api, found: &mut Found, event: &Event<'_>) {
    match api {
        Api::Messages => messages::read_event(found, event),
        Api::Responses => openai::read_event(found, event),
        _ => openai::read_chunk(found, event),
    }
}

fn read_body(api: Api, found: &mut Found, body: &[u8]) {
    let Some(object) = Object::read(body) else {
        return;
    };
    if json::document(body).is_err() {
        return;
    }
    found.answer.complete = true;
    match api {
        Api::Messages => messages::read_body(found, &object),
        Api::Responses => openai::read_response(found, &object),
        _ => openai::read_completion(found, &object),
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    answer: Answer,
    /// The counts of Anthropic, which come in instalments.
    counts: Option<messages::Counts>,
}

impl Found {
    fn settle(self) -> Answer {
        let mut answer = self.answer;
        if let Some(counts) = self.counts {
            counts.settle(&mut answer);
        }
        answer
    }

    fn delta(&mut self) {
        self.answer.delta_events = self.answer.delta_events.saturating_add(1);
    }

    /// Notes the error of `object`, if it has one.
    fn error(&mut self, object: &Object<'_>) {
        let Some(member) = object.get("error") else {
            return;
        };
        let error = match member.value.kind {
            Kind::Null => return,
            Kind::Object => object.object("error"),
            _ => None,
        };
        let name = error
            .as_ref()
            .and_then(|error| error.name("type").or_else(|| error.name("code")))
            .or_else(|| object.name("code"));
        // Never the message: it may quote the prompt.
        self.answer.error = Some(name.unwrap_or_else(|| "error".to_owned()));
    }
}

/// The members of an object, looked up by name. Of several with one key the last counts.
struct Object<'a> {
    bytes: &'a [u8],
    members: Vec<Member>,
}

impl<'a> Object<'a> {
    /// The object that `bytes` begin with.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let members = json::members(bytes, 0..bytes.len()).ok()?;
        Some(Self { bytes, members })
    }

    fn get(&self, name: &str) -> Option<&Member> {
        self.members
            .iter()
            .rev()
            .find(|member| member.is(self.bytes, name))
    }

    fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.bytes.get(self.get(name)?.value.range.clone())?)
    }

    /// The objects in an array.
    fn objects(&self, name: &str) -> impl Iterator<Item = Self> + use<'a> {
        let bytes = self.bytes;
        self.get(name)
            .and_then(|member| json::elements(bytes, member.value.range.clone()).ok())
            .unwrap_or_default()
            .into_iter()
            .filter_map(move |element| Self::read(bytes.get(element.range)?))
    }

    /// A short string, or a number as one: a name, an id, a code.
    fn name(&self, name: &str) -> Option<String> {
        let value = &self.get(name)?.value;
        match value.kind {
            Kind::String => json::name(self.bytes, value),
            Kind::Number => {
                json::whole(self.bytes, value.range.clone()).map(|code| code.to_string())
            }
            Kind::Object | Kind::Array | Kind::True | Kind::False | Kind::Null => None,
        }
    }

    fn whole(&self, name: &str) -> Option<u64> {
        json::whole(self.bytes, self.get(name)?.value.range.clone())
    }
}

/// The most that is kept of a plain body, or of one event, in bytes. Beyond it usage is unknown.
/// Answers are texts of some hundred kilobytes at most; only images in base64 come near.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
