//! What came back: usage, model and outcome, read from the bytes of an answer as they pass.
//!
//! A plain body is kept up to a bound and looked through when it is complete. Of a stream only the
//! few events are read that carry usage, the model or the end; the others cost the search for
//! their end and a glance. Nothing here can fail: what is not understood is absent, and the bytes
//! are on their way to the client in any case.

use crate::api::{Api, Later};
use crate::frames::{Frame, FrameParser};
use crate::json::Kind;
use crate::lines::LineParser;
use crate::money::Money;
use crate::sse::{Event, EventParser};
use crate::usage::Usage;

mod bedrock;
mod cohere;
mod cost;
mod count;
mod delta;
mod gemini;
mod later;
mod messages;
mod object;
mod openai;

use count::NotACount;
pub(crate) use object::Object;

/// How an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON text; also one that is sent in pieces, as an array (Gemini without `alt=sse`).
    Plain,
    /// An event stream, `text/event-stream`.
    EventStream,
    /// A binary event stream, `application/vnd.amazon.eventstream`.
    Frames,
    /// JSON texts, one by line.
    Lines,
}

impl Form {
    /// The form that a `content-type` announces; nothing if it is one that Weir does not read.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let media_type = media_type.to_ascii_lowercase();
        match media_type.as_str() {
            "text/event-stream" => Some(Self::EventStream),
            "application/vnd.amazon.eventstream" => Some(Self::Frames),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonl"
            | "application/x-jsonlines"
            | "application/stream+json" => Some(Self::Lines),
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
    /// Whether the provider told usage that can be none: a count that is a text, a fraction, negative
    /// or beyond all reason. There is no `usage` then.
    pub usage_unreadable: bool,
    /// What was used by each pass, where the provider tells passes apart (`usage.iterations` of
    /// Anthropic), or by each call of a batch: to be priced one by one.
    pub parts: Vec<Part>,
    /// What the provider itself says that the call costs, rounded up.
    pub reported_cost: Option<Money>,
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
    /// Whether it is made in the background (`OpenAI` Responses), so that it may be had later.
    pub background: bool,
    /// Why the model stopped, in the provider's words.
    pub stop_reason: Option<String>,
    /// Why the cache did not do more, in the provider's words, where the call asked for that:
    /// `diagnostics` (Anthropic), `prompt_cache_diagnostics` (`OpenAI`).
    pub cache_diagnosis: Option<String>,
    /// How many events brought a piece of the answer. Each has about a token or more: for a stream
    /// that was cut, the best that is known of its output.
    pub delta_events: u64,
    /// Bytes of text in those events: of what can be seen of the output, a better measure.
    pub delta_bytes: u64,
    /// Bytes of speech in those events, base64 undone.
    pub delta_speech_bytes: u64,
    /// Bodies and events that were too long to be read; results of a batch that were too many, or
    /// whose usage can't be read.
    pub unread: u64,
}

impl Answer {
    /// About how many tokens of output were seen in a stream: each event brought one at least, text
    /// has one for each [`BYTES_PER_TOKEN`], and speech those that it is billed as.
    #[must_use]
    pub const fn output_tokens_seen(&self) -> u64 {
        let by_text = self.delta_bytes.div_ceil(BYTES_PER_TOKEN);
        let by_bytes = by_text.saturating_add(self.speech_tokens_seen());
        if by_bytes > self.delta_events {
            by_bytes
        } else {
            self.delta_events
        }
    }

    /// How many of those tokens are speech: one for each [`SPEECH_BYTES_PER_TOKEN`].
    #[must_use]
    pub const fn speech_tokens_seen(&self) -> u64 {
        self.delta_speech_bytes.div_ceil(SPEECH_BYTES_PER_TOKEN)
    }
}

/// Bytes of a token of output, about: of English text with the tokenisers of 2026 it is between
/// three and five.
pub const BYTES_PER_TOKEN: u64 = 4;

/// Bytes of a token of speech, about: `OpenAI` bills one for 50 ms, of 16 bits at 24 kHz. Where
/// telephony's formats were asked for, there are a sixth of the bytes, and the events are the floor.
pub const SPEECH_BYTES_PER_TOKEN: u64 = 2400;

/// One pass of a model within a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What the application calls it, if it is a call of a batch.
    pub id: Option<String>,
    /// The model, if it is another than the answer's.
    pub model: Option<String>,
    /// Where it was inferred, if it is a call of a batch: see [`Answer::inference_geo`].
    pub inference_geo: Option<String>,
    /// What this pass used.
    pub usage: Usage,
}

/// Reads an answer as its decoded bytes pass.
#[derive(Debug)]
pub struct AnswerReader {
    reads: Reads,
    bytes: Bytes,
    found: Found,
}

/// What an answer is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Call(Api),
    /// Results of a batch by line.
    Results,
    Generation,
}

#[derive(Debug)]
enum Bytes {
    Plain(Vec<u8>),
    /// A plain body beyond the bound.
    TooLong,
    Stream(EventParser),
    Frames(FrameParser),
    Lines(LineParser),
}

impl AnswerReader {
    /// Before the first byte of an answer.
    #[must_use]
    pub fn new(api: Api, form: Form) -> Self {
        Self::of(Reads::Call(api), form)
    }

    /// The same of an answer that tells of calls made before. Results come by line, whatever form
    /// they are announced in.
    #[must_use]
    pub fn later(later: Later, form: Option<Form>) -> Self {
        match later {
            Later::MessageBatch | Later::File => Self::of(Reads::Results, Form::Lines),
            Later::Response => Self::new(Api::Responses, form.unwrap_or(Form::Plain)),
            Later::Generation => Self::of(Reads::Generation, Form::Plain),
        }
    }

    fn of(reads: Reads, form: Form) -> Self {
        let bytes = match form {
            Form::Plain => Bytes::Plain(Vec::new()),
            Form::EventStream => Bytes::Stream(EventParser::new(ANSWER_BYTES_MAX)),
            Form::Frames => Bytes::Frames(FrameParser::new(ANSWER_BYTES_MAX)),
            Form::Lines => Bytes::Lines(LineParser::new(ANSWER_BYTES_MAX)),
        };
        Self {
            reads,
            bytes,
            found: Found::default(),
        }
    }

    /// Takes a field of the answer's head, in lower case: Bedrock counts tokens there, where the
    /// body may tell nothing.
    pub fn header(&mut self, name: &str, value: &str) {
        self.found.headers.read(name, value);
    }

    /// Takes the next bytes, content encoding undone.
    pub fn push(&mut self, bytes: &[u8]) {
        let found = &mut self.found;
        let reads = self.reads;
        match &mut self.bytes {
            Bytes::Stream(parser) => parser.push(bytes, |event| {
                found.with_text(event.data, |found| reads.event(found, &event));
            }),
            Bytes::Frames(parser) => parser.push(bytes, |frame| {
                found.with_text(frame.payload, |found| reads.frame(found, &frame));
            }),
            Bytes::Lines(parser) => parser.push(bytes, |line| {
                found.with_text(line, |found| reads.line(found, line));
            }),
            Bytes::Plain(body) if body.len().saturating_add(bytes.len()) <= ANSWER_BYTES_MAX => {
                body.extend_from_slice(bytes);
            }
            Bytes::Plain(_) => self.bytes = Bytes::TooLong,
            Bytes::TooLong => {}
        }
    }

    /// Takes the data of one event that did not come in a stream of bytes: a frame of a WebSocket.
    pub fn push_event(&mut self, data: &[u8]) {
        let reads = self.reads;
        self.found.with_text(data, |found| reads.line(found, data));
    }

    /// About how many tokens of output were seen so far; nothing of a plain body.
    #[must_use]
    pub const fn output_tokens_seen(&self) -> u64 {
        self.found.answer.output_tokens_seen()
    }

    /// The id of the answer, if it was told by now; nothing of a plain body.
    #[must_use]
    pub fn response_id(&self) -> Option<&str> {
        self.found.answer.response_id.as_deref()
    }

    /// How many of the bytes pushed last belong to an event that is not complete; none where the
    /// answer is of a form to which no event can be added.
    #[must_use]
    pub fn open_bytes(&self) -> Option<u64> {
        match &self.bytes {
            Bytes::Stream(parser) => Some(parser.open_bytes()),
            Bytes::Frames(parser) => parser.open_bytes(),
            Bytes::Plain(_) | Bytes::TooLong | Bytes::Lines(_) => None,
        }
    }

    /// What was found, at the end of the answer, whatever ended it.
    #[must_use]
    pub fn finish(mut self) -> Answer {
        let (reads, found) = (self.reads, &mut self.found);
        let unread = match self.bytes {
            Bytes::Plain(body) => {
                reads.body(found, &body);
                0
            }
            Bytes::TooLong => 1,
            Bytes::Stream(parser) => parser.skipped(),
            Bytes::Frames(parser) => parser.skipped(),
            Bytes::Lines(mut parser) => {
                parser.finish(|line| reads.line(found, line));
                parser.skipped()
            }
        };
        // Beside the results of a batch that are too many.
        found.answer.unread = found.answer.unread.saturating_add(unread);
        self.found.settle()
    }
}

impl Reads {
    fn event(self, found: &mut Found, event: &Event<'_>) {
        if let Self::Call(api) = self {
            read_event(api, found, event);
        }
    }

    fn frame(self, found: &mut Found, frame: &Frame<'_>) {
        if let Self::Call(api) = self {
            read_frame(api, found, frame);
        }
    }

    /// Reads a line, or another text that is an event by itself.
    fn line(self, found: &mut Found, data: &[u8]) {
        let event = Event {
            name: &[],
            data,
            range: 0..0,
        };
        match self {
            Self::Call(api) => read_event(api, found, &event),
            Self::Results => later::read_result(found, data),
            Self::Generation => {}
        }
    }

    fn body(self, found: &mut Found, body: &[u8]) {
        match self {
            Self::Call(api) => read_body(api, found, body),
            Self::Generation => later::read_generation(found, body),
            Self::Results => {}
        }
    }
}

fn read_event(api: Api, found: &mut Found, event: &Event<'_>) {
    match api {
        Api::Messages => messages::read_event(found, event),
        Api::ChatCompletions | Api::Completions => openai::read_chunk(found, event),
        Api::Responses | Api::Realtime => openai::read_event(found, event),
        Api::Images | Api::Audio => openai::read_media_event(found, event),
        Api::GenerateContent => gemini::read_chunk(found, event.data),
        Api::Interactions => gemini::read_event(found, event),
        Api::CohereChat => cohere::read_event(found, event),
        Api::InvokeModel => bedrock::read_event(found, event.data),
        // These have no streams.
        Api::Embeddings | Api::EmbedContent | Api::CachedContents | Api::Converse => {}
    }
}

fn read_frame(api: Api, found: &mut Found, frame: &Frame<'_>) {
    match api {
        _ if frame.is_exception => found.answer.error = Some(bedrock::exception(frame)),
        Api::Converse => bedrock::read_converse_event(found, frame),
        Api::InvokeModel => bedrock::read_chunk(found, frame),
        // Nobody else sends such a stream.
        _ => {}
    }
}

fn read_body(api: Api, found: &mut Found, body: &[u8]) {
    if api == Api::GenerateContent && body.trim_ascii_start().starts_with(b"[") {
        gemini::read_array(found, body);
        return;
    }
    if let Some(object) = Object::all_of(body) {
        read_object(api, found, &object);
    }
}

fn read_object(api: Api, found: &mut Found, object: &Object<'_>) {
    found.answer.complete = true;
    match api {
        Api::Messages => messages::read_body(found, object),
        Api::ChatCompletions | Api::Completions => openai::read_completion(found, object),
        Api::Responses | Api::Realtime => openai::read_response(found, object),
        Api::Embeddings => openai::read_embeddings(found, object),
        Api::Images | Api::Audio => openai::read_media(found, object),
        Api::GenerateContent | Api::EmbedContent => gemini::read_content(found, object),
        Api::CachedContents => gemini::read_cache(found, object),
        Api::Interactions => gemini::read_interaction(found, object),
        Api::InvokeModel => bedrock::read_body(found, object),
        Api::Converse => bedrock::read_converse(found, object),
        Api::CohereChat => cohere::read_body(found, object),
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    answer: Answer,
    /// The counts of Anthropic, which come in instalments.
    counts: Option<messages::Counts>,
    headers: bedrock::Headers,
    searches: gemini::Searches,
}

impl Found {
    fn settle(self) -> Answer {
        let mut answer = self.answer;
        if let Some(counts) = self.counts {
            counts.settle(&mut answer);
        }
        self.headers.settle(&mut answer);
        self.searches.settle(&mut answer);
        if answer.usage_unreadable {
            answer.usage = None;
            answer.parts.clear();
        }
        answer
    }

    /// Takes over usage that was told, over what was told before; whether there was any.
    fn told(&mut self, usage: Result<Option<Usage>, NotACount>) -> bool {
        match usage {
            Ok(None) => return false,
            Ok(told) => {
                self.answer.usage = told;
                self.answer.usage_unreadable = false;
            }
            Err(NotACount) => {
                self.answer.usage = None;
                self.answer.usage_unreadable = true;
            }
        }
        true
    }

    /// Reads an event, and counts its text if it brought a piece of the answer that is no speech.
    fn with_text(&mut self, data: &[u8], read: impl FnOnce(&mut Self)) {
        let before = (self.answer.delta_events, self.answer.delta_speech_bytes);
        read(self);
        let (events, speech) = (self.answer.delta_events, self.answer.delta_speech_bytes);
        if events != before.0 && speech == before.1 {
            let bytes = delta::text_bytes(data);
            self.answer.delta_bytes = self.answer.delta_bytes.saturating_add(bytes);
        }
    }

    fn delta(&mut self) {
        self.answer.delta_events = self.answer.delta_events.saturating_add(1);
    }

    /// Counts a piece of speech, all of whose output is base64: four bytes stand for three.
    fn speech(&mut self, data: &[u8]) {
        self.delta();
        let bytes = delta::text_bytes(data).div_ceil(4).saturating_mul(3);
        let sum = &mut self.answer.delta_speech_bytes;
        *sum = sum.saturating_add(bytes);
    }

    /// Notes a model and an id where they say something.
    fn is_from(&mut self, object: &Object<'_>, model: &str, id: &str) {
        let answer = &mut self.answer;
        for (name, field) in [(model, &mut answer.model), (id, &mut answer.response_id)] {
            if let Some(value) = object.filled(name) {
                *field = Some(value);
            }
        }
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
            .and_then(|error| {
                // Google calls its type `status`.
                let names = ["type", "status", "code"].into_iter();
                names.filter_map(|name| error.filled(name)).next()
            })
            .or_else(|| object.name("code"));
        // Never the message: it may quote the prompt.
        self.answer.error = Some(name.unwrap_or_else(|| "error".to_owned()));
    }
}

/// The most that is kept of a plain body, or of one event, in bytes. Beyond it usage is unknown.
/// Answers are texts of some hundred kilobytes at most; only images in base64 come near.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
