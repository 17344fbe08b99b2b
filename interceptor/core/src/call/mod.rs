//! A call as it was asked for: what matters of a request body, and where its parts are.

use std::ops::Range;

use crate::api::{Api, SaidByPath};
use crate::json::{Kind, Malformed, Scanner, name, whole};

mod fields;
mod multipart;
mod prompt;
mod session;

use fields::Fields;
pub use session::session_of_headers;

/// A request for an answer of a model. Ranges are byte ranges of the body.
///
/// Unknown fields are ignored; a field of an unexpected type is as good as absent, except that
/// messages, tools and the like must be of the documented shape to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The API.
    pub api: Api,
    /// The model asked for. Where the path names it, see [`Call::complete`].
    pub model: Option<String>,
    /// Whether the answer shall be a stream.
    pub stream: bool,
    /// The limit on output tokens, per choice.
    pub max_output_tokens: Option<u64>,
    /// How many answers are asked for (`n` of Chat Completions, `candidateCount` of Gemini), at
    /// least 1.
    pub choices: u64,
    /// The system prompt: a string, the blocks of an array, or for `OpenAI` `instructions` and
    /// the messages of roles `system` and `developer` that come before any other. Later ones
    /// stay in `messages`, where they stand in the prompt.
    pub system: Vec<Range<usize>>,
    /// The tools, each on its own.
    pub tools: Vec<Range<usize>>,
    /// The messages or items, each on its own; the input itself where it is a string. What is
    /// uploaded as a form has no ranges, because its parts are no JSON.
    pub messages: Vec<Range<usize>>,
    /// Bytes of the prompt as JSON: system, tools and messages, without embedded media.
    pub text_bytes: u64,
    /// Images, documents and recordings, embedded or by reference.
    pub media: u64,
    /// `service_tier`
    pub service_tier: Option<String>,
    /// `speed` (Anthropic).
    pub speed: Option<String>,
    /// `inference_geo` (Anthropic).
    pub inference_geo: Option<String>,
    /// Whether the client asked for usage in a stream of Chat Completions.
    pub include_usage: bool,
    /// Where the value of `stream_options` is, if there is one.
    pub stream_options: Option<Range<usize>>,
    /// Explicit cache breakpoints: `cache_control`, `prompt_cache_breakpoint`, `cachePoint`.
    pub cache_breakpoints: u64,
    /// `prompt_cache_key` (`OpenAI`).
    pub prompt_cache_key: Option<String>,
    /// The session that the body names, if it does: the id of a conversation (`conversation`,
    /// `session_id`, `conversation_id`), or what `metadata.user_id` says (Anthropic).
    pub session: Option<String>,
    /// The id of the answer that this call continues: `previous_response_id` (`OpenAI`),
    /// `previous_interaction_id` (Gemini), `thread.previous_message_id` (Anthropic). It belongs to
    /// the session of the call that was answered with it.
    pub continues: Option<String>,
    /// Whether part of the conversation is held by the provider, so that the body is a delta:
    /// earlier turns, or an explicit cache (Gemini).
    pub previous_response: bool,
}

/// Why a body could not be read as a call. Whether it is forwarded then is not decided here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The body is not JSON.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The body is JSON, but not of the shape of the API.
    #[error("expected {expected}, found {found:?} at byte {at}")]
    Shape {
        /// What should have been there.
        expected: &'static str,
        /// What is there.
        found: Kind,
        /// Where, in bytes from the start of the body.
        at: usize,
    },
}

/// Reads the body of a call.
///
/// # Errors
///
/// If it is not JSON, or an array of the prompt is something else.
pub fn parse(api: Api, body: &[u8]) -> Result<Call, Unreadable> {
    let mut call = Call::new(api);
    if matches!(api, Api::Images | Api::Audio) && body.starts_with(multipart::DASHES) {
        multipart::read(&mut call, body);
        return Ok(call);
    }
    let mut fields = Fields::default();
    let mut scanner = Scanner::new(body);
    shape(&mut scanner, &[Kind::Object], "an object as the body")?;
    scanner.members(|scanner, _, key| fields.read(&mut call, scanner, body, key))?;
    scanner.end()?;
    fields.settle(&mut call);
    Ok(call)
}

impl Call {
    const fn new(api: Api) -> Self {
        Self {
            api,
            model: None,
            stream: false,
            max_output_tokens: None,
            choices: 1,
            system: Vec::new(),
            tools: Vec::new(),
            messages: Vec::new(),
            text_bytes: 0,
            media: 0,
            service_tier: None,
            speed: None,
            inference_geo: None,
            include_usage: false,
            stream_options: None,
            cache_breakpoints: 0,
            prompt_cache_key: None,
            session: None,
            continues: None,
            previous_response: false,
        }
    }

    /// Adds what the path says. A model in the body wins: it is what Azure goes by where it has
    /// both.
    pub fn complete(&mut self, said: SaidByPath) {
        self.model = self.model.take().or(said.model);
        self.stream |= said.stream;
    }
}

/// Checks the kind of the next value.
fn shape(
    scanner: &mut Scanner<'_>,
    kinds: &[Kind],
    expected: &'static str,
) -> Result<Kind, Unreadable> {
    let found = scanner.kind()?;
    if kinds.contains(&found) {
        return Ok(found);
    }
    Err(Unreadable::Shape {
        expected,
        found,
        at: scanner.at(),
    })
}

/// Reads a string; nothing if it is something else, or longer than any name has reason to be.
fn string(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Option<String>, Unreadable> {
    Ok(name(body, &scanner.value()?))
}

/// Reads a whole number; nothing if it is something else.
fn number(scanner: &mut Scanner<'_>, body: &[u8]) -> Result<Option<u64>, Unreadable> {
    Ok(whole(body, scanner.value()?.range))
}

/// Reads the string member `wanted` of an object.
fn member_string(
    scanner: &mut Scanner<'_>,
    body: &[u8],
    wanted: &[u8],
) -> Result<Option<String>, Unreadable> {
    let mut found = None;
    object(scanner, |scanner, key| {
        if key == wanted {
            found = string(scanner, body)?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Walks into an object, or passes what is none.
fn object(
    scanner: &mut Scanner<'_>,
    mut each: impl FnMut(&mut Scanner<'_>, &[u8]) -> Result<(), Unreadable>,
) -> Result<Range<usize>, Unreadable> {
    match scanner.kind()? {
        Kind::Object => scanner.members(|scanner, _, key| each(scanner, key)),
        _ => Ok(scanner.value()?.range),
    }
}
