//! Which API a request is for, told by method and path; and what else the path says.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::catalog::Provider;

mod path;

pub use path::{SaidByPath, said_by_path};

/// An API whose calls Weir reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Anthropic Messages; also Claude on Vertex AI (`rawPredict`), where the path names the model.
    Messages,
    /// `OpenAI` Chat Completions, which most other providers speak too.
    ChatCompletions,
    /// `OpenAI` Responses, `responses/compact` included.
    Responses,
    /// The older completions of a bare prompt (`OpenAI`, `DeepSeek`, Mistral's `fim`).
    Completions,
    /// Embeddings of `OpenAI`, Cohere and those who speak like them.
    Embeddings,
    /// Images of `OpenAI`.
    Images,
    /// Transcriptions, translations and speech of `OpenAI`.
    Audio,
    /// `OpenAI` Realtime, which is a WebSocket.
    Realtime,
    /// Gemini `generateContent` and `streamGenerateContent`.
    GenerateContent,
    /// Gemini `embedContent` and `batchEmbedContents`.
    EmbedContent,
    /// The making of an explicit cache of Gemini, which is billed.
    CachedContents,
    /// Gemini Interactions.
    Interactions,
    /// Bedrock `InvokeModel`, plain and streamed: bodies in the shape of the model's maker.
    InvokeModel,
    /// Bedrock Converse, plain and streamed.
    Converse,
    /// Cohere Chat, versions 1 and 2.
    CohereChat,
}

/// Whose manners an API has: the shape of its errors, and where its fields come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Anthropic.
    Anthropic,
    /// `OpenAI`, and all who speak like it.
    OpenAi,
    /// Google's Gemini.
    Gemini,
    /// Amazon Bedrock's own APIs.
    Bedrock,
    /// Cohere's own APIs.
    Cohere,
}

impl Api {
    /// Every API, in the order of declaration.
    pub const ALL: [Self; 15] = [
        Self::Messages,
        Self::ChatCompletions,
        Self::Responses,
        Self::Completions,
        Self::Embeddings,
        Self::Images,
        Self::Audio,
        Self::Realtime,
        Self::GenerateContent,
        Self::EmbedContent,
        Self::CachedContents,
        Self::Interactions,
        Self::InvokeModel,
        Self::Converse,
        Self::CohereChat,
    ];

    /// The name in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Realtime => "realtime",
            Self::GenerateContent => "generate_content",
            Self::EmbedContent => "embed_content",
            Self::CachedContents => "cached_contents",
            Self::Interactions => "interactions",
            Self::InvokeModel => "invoke_model",
            Self::Converse => "converse",
            Self::CohereChat => "cohere_chat",
        }
    }

    /// Whose manners the API has.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::Messages => Family::Anthropic,
            Self::ChatCompletions
            | Self::Responses
            | Self::Completions
            | Self::Embeddings
            | Self::Images
            | Self::Audio
            | Self::Realtime => Family::OpenAi,
            Self::GenerateContent
            | Self::EmbedContent
            | Self::CachedContents
            | Self::Interactions => Family::Gemini,
            Self::InvokeModel | Self::Converse => Family::Bedrock,
            Self::CohereChat => Family::Cohere,
        }
    }
}

/// An answer that tells what calls used which were made before, by others than its own request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// The results of a batch of Anthropic Messages, a line each.
    MessageBatch,
    /// The content of a file of `OpenAI`, or of those who speak like it: the output of a batch
    /// has a line for each of its calls.
    File,
    /// A response of the Responses API, which may have been made in the background.
    Response,
    /// What `OpenRouter` charged for a call.
    Generation,
}

impl Later {
    const fn class(self) -> &'static str {
        match self {
            Self::MessageBatch => "batches",
            Self::File => "files",
            Self::Response => "responses",
            Self::Generation => "generation",
        }
    }
}

/// What a request to a provider is for. The names are few and fixed: they may be metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A call that Weir reads.
    Call(Api),
    /// A WebSocket in whose frames calls are made.
    Socket(Api),
    /// A request for what came of calls that were made before: it costs nothing by itself, and is
    /// never to be refused by a cap.
    Later(Later),
    /// A request that costs nothing, by the class of its path, unless it becomes a socket. Never to be
    /// refused by a cap.
    Free(&'static str),
    /// Anything else, by the class of its path: it may cost money that Weir does not see.
    Other(&'static str),
}

impl Endpoint {
    /// The class of the path in records and metrics.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::Call(api) => api.as_str(),
            Self::Socket(Api::Realtime) => "realtime",
            Self::Socket(_) => "responses_socket",
            Self::Later(later) => later.class(),
            Self::Free(class) | Self::Other(class) => class,
        }
    }
}

/// What a request to `provider` is for.
///
/// Only the path counts, never the query (`/v1/messages?beta=true`), and of the path its end: a
/// base such as `/api`, `/anthropic` or `/openai/deployments/gpt` may come before. Empty segments
/// (`//`, a final `/`) are skipped, percent escapes decoded and dot segments removed, as servers do:
/// a call shall not get around its cap by the spelling of its path.
#[must_use]
pub fn recognize(provider: Provider, method: &str, path_and_query: &str) -> Endpoint {
    let path = path_and_query.split(['?', '#']).next().unwrap_or_default();
    let path = decoded(path);
    let endpoint = told_by(provider, method, &segments(path.split('/')));
    let is_call = |endpoint| matches!(endpoint, Endpoint::Call(_) | Endpoint::Socket(_));
    if is_call(endpoint) || !path.contains("//") {
        return endpoint;
    }
    // To RFC 3986 `..` after `//` goes back to before the empty segment; to a server that merges
    // slashes, one further. What is a call to either is one.
    let merged = segments(path.split('/').filter(|segment| !segment.is_empty()));
    let merged = told_by(provider, method, &merged);
    if is_call(merged) { merged } else { endpoint }
}

/// What remains when dot segments are removed (RFC 3986 section 5.2.4).
fn segments<'a>(path: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut segments = Vec::new();
    for segment in path {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments
}

fn told_by(provider: Provider, method: &str, path: &[&str]) -> Endpoint {
    let mut from_end = path
        .iter()
        .rev()
        .copied()
        .filter(|segment| !segment.is_empty());
    let last = from_end.next().unwrap_or_default();
    let before = from_end.next().unwrap_or_default();
    let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
    match (last, before) {
        // Sockets: calls are made by frames inside them.
        ("responses", _) if method == "GET" => return Endpoint::Socket(Api::Responses),
        ("realtime", _) if method == "GET" => return Endpoint::Socket(Api::Realtime),
        ("count_tokens", "messages") => return Endpoint::Free("count_tokens"),
        ("count-tokens", _) => return Endpoint::Free("count_tokens"),
        ("input_tokens", "responses") => return Endpoint::Free("input_tokens"),
        ("tokenize", _) | ("tokenize-text", _) => return Endpoint::Free("tokenize"),
        ("models", _) | (_, "models") if reads => return Endpoint::Free("models"),
        ("moderations", _) => return Endpoint::Free("moderations"),
        ("hello", "api") => return Endpoint::Free("hello"),
        _ => {}
    }
    if let Some(later) = asked_for_later(
        provider,
        method,
        last,
        before,
        from_end.next().unwrap_or_default(),
    ) {
        return Endpoint::Later(later);
    }
    let api = if method == "POST" {
        let model_is_in_path = path.contains(&"model");
        match last.rsplit_once(':') {
            Some((model, verb)) => match path::gemini_verb(path, model, verb) {
                Ok(api) => api,
                Err(free) => return Endpoint::Free(free),
            },
            None => posted(provider, last, before, model_is_in_path),
        }
    } else {
        None
    };
    match api {
        Some(api) => Endpoint::Call(api),
        // No provider has a model answer what only reads, or removes what was stored.
        None if reads || method == "DELETE" => Endpoint::Free(class(path)),
        None if is_telemetry(provider, path) => Endpoint::Free("telemetry"),
        None => Endpoint::Other(class(path)),
    }
}

/// What Claude Code tells Anthropic of itself.
fn is_telemetry(provider: Provider, path: &[&str]) -> bool {
    let told = path.iter().filter(|segment| !segment.is_empty());
    let mut told = told.copied();
    provider == Provider::Anthropic
        && told.next() == Some("api")
        && matches!(
            told.next(),
            Some("event_logging" | "claude_code" | "claude_cli_feedback" | "oauth")
        )
}

/// What a path with this end tells of calls that were made before.
fn asked_for_later(
    provider: Provider,
    method: &str,
    last: &str,
    before: &str,
    before_that: &str,
) -> Option<Later> {
    Some(match (method, last, before, before_that) {
        ("GET", "results", _, "batches") if speaks_messages(provider) => Later::MessageBatch,
        ("GET", "content", _, "files") => Later::File,
        ("GET", _, "responses", _) | ("POST", "cancel", _, "responses") => Later::Response,
        ("GET", "generation", "v1", _) if provider == Provider::OpenRouter => Later::Generation,
        _ => return None,
    })
}

/// What the results that a path leads to belong to: a batch, or a file.
#[must_use]
pub fn holder_of_results(path_and_query: &str) -> &str {
    let path = path_and_query.split(['?', '#']).next().unwrap_or_default();
    let mut from_end = path.rsplit('/').filter(|segment| !segment.is_empty());
    from_end.nth(1).unwrap_or_default()
}

/// The API that a POST to a path with this end is a call of.
fn posted(provider: Provider, last: &str, before: &str, model_is_in_path: bool) -> Option<Api> {
    Some(match (last, before) {
        // Mistral's agents speak as its chat does; MiniMax has an older name for the same.
        ("completions", "chat" | "agents") | ("chatcompletion_v2", _) => Api::ChatCompletions,
        ("sonar", "v1") if provider == Provider::Perplexity => Api::ChatCompletions,
        ("completions", _) => Api::Completions,
        ("responses", _) | ("compact", "responses") => Api::Responses,
        ("messages", "v1") if speaks_messages(provider) => Api::Messages,
        ("embeddings", _) | ("embed", "v1" | "v2") => Api::Embeddings,
        ("generations" | "edits" | "variations", "images") => Api::Images,
        ("transcriptions" | "translations" | "speech", "audio") => Api::Audio,
        ("cachedContents", _) => Api::CachedContents,
        ("interactions", _) => Api::Interactions,
        ("invoke" | "invoke-with-response-stream", _) if model_is_in_path => Api::InvokeModel,
        ("converse" | "converse-stream", _) if model_is_in_path => Api::Converse,
        ("chat", "v1" | "v2") => Api::CohereChat,
        _ => return None,
    })
}

/// The path without percent escapes (RFC 3986 section 2.1); one that is broken stays.
fn decoded(path: &str) -> Cow<'_, str> {
    let mut parts = path.split('%');
    let first = parts.next().unwrap_or_default();
    if first.len() == path.len() {
        return Cow::Borrowed(path);
    }
    let mut decoded = first.as_bytes().to_vec();
    for part in parts {
        let byte = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let rest = byte.map_or(part, |_| part.get(2..).unwrap_or_default());
        decoded.push(byte.unwrap_or(b'%'));
        decoded.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8_lossy(&decoded).into_owned().into()
}

/// Whether a provider has the Messages API: the others answer 404, or mean something else by it.
fn speaks_messages(provider: Provider) -> bool {
    !matches!(
        provider,
        Provider::OpenAi | Provider::Mistral | Provider::Cohere | Provider::Perplexity
    )
}

/// The class of a path that Weir does not read: the first known word from its end.
fn class(path: &[&str]) -> &'static str {
    path.iter()
        .rev()
        .flat_map(|segment| segment.rsplit(':'))
        .find_map(|segment| {
            CLASSES
                .iter()
                .find(|(word, _)| *word == segment)
                .map(|(_, class)| *class)
        })
        .unwrap_or("other")
}

/// Words of a path and the class that each tells.
const CLASSES: &[(&str, &str)] = &[
    ("batches", "batches"),
    ("batchGenerateContent", "batches"),
    ("asyncBatchEmbedContent", "batches"),
    ("model-invocation-job", "batches"),
    ("embeddings", "embeddings"),
    ("embed", "embeddings"),
    ("completions", "completions"),
    ("compact", "compact"),
    ("responses", "responses"),
    ("images", "images"),
    ("audio", "audio"),
    ("videos", "videos"),
    ("predictLongRunning", "videos"),
    ("realtime", "realtime"),
    ("live", "live"),
    ("files", "files"),
    ("organizations", "organizations"),
    ("conversations", "conversations"),
    ("agents", "agents"),
    ("sessions", "sessions"),
    ("threads", "threads"),
    ("assistants", "assistants"),
    ("invoke", "invoke"),
    ("invoke-with-response-stream", "invoke"),
    ("invoke-with-bidirectional-stream", "invoke"),
    ("async-invoke", "invoke"),
    ("guardrail", "guardrail"),
    ("converse", "converse"),
    ("converse-stream", "converse"),
    ("generateContent", "generate_content"),
    ("streamGenerateContent", "generate_content"),
    ("rawPredict", "raw_predict"),
    ("streamRawPredict", "raw_predict"),
    ("predict", "predict"),
    ("countTokens", "count_tokens"),
    ("cachedContents", "cached_contents"),
    ("interactions", "interactions"),
    ("generation", "generation"),
    ("chat", "chat"),
    ("rerank", "rerank"),
    ("ocr", "ocr"),
    ("search", "search"),
];

#[cfg(test)]
mod tests;
