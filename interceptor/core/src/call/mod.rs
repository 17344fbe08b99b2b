//! A call as it was asked for: what matters of a request body, and where its parts are.

use std::ops::Range;

use crate::api::Api;
use crate::json::{Kind, Malformed, Scanner, name, whole};

mod prompt;

/// A request for an answer of a model. Ranges are byte ranges of the body.
///
/// Unknown fields are ignored; a field of an unexpected type is as good as absent, except that
/// messages, tools and the like must be of the documented shape to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The API.
    pub api: Api,
    /// The model asked for. Absent where the path names it (Azure).
    pub model: Option<String>,
    /// Whether the answer shall be an event stream.
    pub stream: bool,
    /// The limit on output tokens, per choice.
    pub max_output_tokens: Option<u64>,
    /// How many answers are asked for (`n` of Chat Completions), at least 1.
    pub choices: u64,
    /// The system prompt: a string, the blocks of an array, or for `OpenAI` `instructions` and
    /// the messages of roles `system` and `developer` that come before any other. Later ones
    /// stay in `messages`, where they stand in the prompt.
    pub system: Vec<Range<usize>>,
    /// The tools, each on its own.
    pub tools: Vec<Range<usize>>,
    /// The messages or items, each on its own; the input itself where it is a string.
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
    /// Explicit cache breakpoints: `cache_control`, `prompt_cache_breakpoint`.
    pub cache_breakpoints: u64,
    /// `prompt_cache_key` (`OpenAI`).
    pub prompt_cache_key: Option<String>,
    /// What tells conversations apart, if the client says: `metadata.user_id` (Anthropic),
    /// `prompt_cache_key`, the id of the conversation or `previous_response_id` (`OpenAI`).
    pub session: Option<String>,
    /// Whether part of the conversation is held by the provider, so that the body is a delta.
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
            previous_response: false,
        }
    }
}

/// What is gathered from the members of a body, and put together when all are known: the order of
/// members is free, and of two with the same key the last counts.
#[derive(Default)]
struct Fields {
    system: prompt::Section,
    tools: prompt::Section,
    functions: prompt::Section,
    messages: prompt::Section,
    automatic_breakpoint: bool,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    user: Option<String>,
    conversation: Option<String>,
    previous_response_id: Option<String>,
    continues_thread: bool,
}

impl Fields {
    /// Reads one member of the body, whatever API it belongs to.
    fn read(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match (key, call.api) {
            (b"model", _) => call.model = string(scanner, body)?,
            (b"stream", _) => call.stream = scanner.value()?.kind == Kind::True,
            (b"service_tier", _) => call.service_tier = string(scanner, body)?,
            (b"messages", Api::Messages | Api::ChatCompletions) | (b"input", Api::Responses) => {
                self.messages = prompt::messages(scanner, body, call.api)?;
            }
            (b"system", Api::Messages) => self.system = prompt::system(scanner, body)?,
            (b"instructions", Api::Responses) => self.system = prompt::system(scanner, body)?,
            (b"tools", _) => self.tools = prompt::tools(scanner, body)?,
            (b"functions", Api::ChatCompletions) => {
                self.functions = prompt::tools(scanner, body)?;
            }
            (b"max_tokens", Api::Messages | Api::ChatCompletions)
            | (b"max_output_tokens", Api::Responses) => self.max_tokens = number(scanner, body)?,
            (b"max_completion_tokens", Api::ChatCompletions) => {
                self.max_completion_tokens = number(scanner, body)?;
            }
            (_, Api::Messages) => self.read_messages(call, scanner, body, key)?,
            (_, Api::ChatCompletions | Api::Responses) => {
                self.read_openai(call, scanner, body, key)?;
            }
        }
        Ok(())
    }

    fn read_messages(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match key {
            b"speed" => call.speed = string(scanner, body)?,
            b"inference_geo" => call.inference_geo = string(scanner, body)?,
            b"cache_control" => self.automatic_breakpoint = scanner.value()?.kind == Kind::Object,
            b"metadata" => self.user = member_string(scanner, body, b"user_id")?,
            b"thread" => {
                let kind = member_string(scanner, body, b"type")?;
                self.continues_thread = kind.as_deref() == Some("continue");
            }
            _ => {}
        }
        Ok(())
    }

    fn read_openai(
        &mut self,
        call: &mut Call,
        scanner: &mut Scanner<'_>,
        body: &[u8],
        key: &[u8],
    ) -> Result<(), Unreadable> {
        match (key, call.api) {
            (b"n", Api::ChatCompletions) => {
                call.choices = number(scanner, body)?.unwrap_or(1).max(1);
            }
            (b"stream_options", _) => {
                let mut asked = false;
                call.stream_options = Some(object(scanner, |scanner, key| {
                    if key == b"include_usage" {
                        asked = scanner.value()?.kind == Kind::True;
                    }
                    Ok(())
                })?);
                call.include_usage = asked;
            }
            (b"prompt_cache_key", _) => call.prompt_cache_key = string(scanner, body)?,
            (b"previous_response_id", Api::Responses) => {
                self.previous_response_id = string(scanner, body)?;
            }
            (b"conversation", Api::Responses) => {
                self.conversation = match scanner.kind()? {
                    Kind::Object => member_string(scanner, body, b"id")?,
                    _ => string(scanner, body)?,
                };
            }
            _ => {}
        }
        Ok(())
    }

    fn settle(self, call: &mut Call) {
        let sections = [&self.system, &self.tools, &self.functions, &self.messages];
        let sum = |count: fn(&prompt::Section) -> u64| {
            sections
                .iter()
                .fold(0_u64, |sum, section| sum.saturating_add(count(section)))
        };
        call.text_bytes = sum(|section| section.text_bytes);
        call.media = sum(|section| section.media);
        call.cache_breakpoints = sum(|section| section.cache_breakpoints)
            .saturating_add(u64::from(self.automatic_breakpoint));
        call.max_output_tokens = self.max_completion_tokens.or(self.max_tokens);
        call.previous_response = self.continues_thread
            || self.previous_response_id.is_some()
            || self.conversation.is_some();
        call.session = self
            .user
            .or_else(|| call.prompt_cache_key.clone())
            .or(self.conversation)
            .or(self.previous_response_id);
        let mut messages = self.messages.parts;
        call.system = self.system.parts;
        call.system
            .extend(messages.drain(..self.messages.leading_system));
        call.tools = self.tools.parts;
        call.tools.extend(self.functions.parts);
        call.messages = messages;
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
