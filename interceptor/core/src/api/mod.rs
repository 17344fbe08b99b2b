//! Which API a request is for, told by method and path.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::catalog::Provider;

/// An API whose calls Weir reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Anthropic Messages.
    Messages,
    /// `OpenAI` Chat Completions, which most other providers speak too.
    ChatCompletions,
    /// `OpenAI` Responses.
    Responses,
}

impl Api {
    /// The name in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
        }
    }
}

/// What a request to a provider is for. The names are few and fixed: they may be metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A call that Weir reads.
    Call(Api),
    /// A request that costs nothing, by the class of its path. Never to be refused by a cap.
    Free(&'static str),
    /// Anything else, by the class of its path: it may cost money that Weir does not see.
    Other(&'static str),
}

/// What a request to `provider` is for.
///
/// Only the path counts, never the query (`/v1/messages?beta=true`), and of the path its end: a
/// base such as `/api`, `/anthropic` or `/openai/deployments/gpt` may come before. Empty segments
/// (`//`, a final `/`) are skipped and percent escapes decoded, as servers do: a call shall not get
/// around its cap by the spelling of its path.
#[must_use]
pub fn recognize(provider: Provider, method: &str, path_and_query: &str) -> Endpoint {
    let path = path_and_query.split(['?', '#']).next().unwrap_or_default();
    let path = &*decoded(path);
    let mut from_end = path.rsplit('/').filter(|segment| !segment.is_empty());
    let last = from_end.next().unwrap_or_default();
    let before = from_end.next().unwrap_or_default();
    let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
    match (last, before) {
        ("completions", "chat") if method == "POST" => Endpoint::Call(Api::ChatCompletions),
        ("responses", _) if method == "POST" => Endpoint::Call(Api::Responses),
        // A socket: responses are created by frames inside it.
        ("responses", _) if method == "GET" => Endpoint::Other("responses_socket"),
        ("messages", "v1") if method == "POST" && speaks_messages(provider) => {
            Endpoint::Call(Api::Messages)
        }
        ("count_tokens", "messages") => Endpoint::Free("count_tokens"),
        ("input_tokens", "responses") => Endpoint::Free("input_tokens"),
        ("models", _) | (_, "models") if reads => Endpoint::Free("models"),
        ("moderations", _) => Endpoint::Free("moderations"),
        ("hello", "api") => Endpoint::Free("hello"),
        _ => Endpoint::Other(class(path)),
    }
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
fn class(path: &str) -> &'static str {
    path.rsplit(['/', ':'])
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
    ("embeddings", "embeddings"),
    ("embed", "embeddings"),
    ("completions", "completions"),
    ("compact", "compact"),
    ("responses", "responses"),
    ("images", "images"),
    ("audio", "audio"),
    ("realtime", "realtime"),
    ("files", "files"),
    ("organizations", "organizations"),
    ("invoke", "invoke"),
    ("invoke-with-response-stream", "invoke"),
    ("converse", "converse"),
    ("converse-stream", "converse"),
    ("generateContent", "generate_content"),
    ("streamGenerateContent", "generate_content"),
    ("rawPredict", "raw_predict"),
    ("streamRawPredict", "raw_predict"),
    ("countTokens", "count_tokens"),
    ("chat", "chat"),
    ("rerank", "rerank"),
    ("search", "search"),
];

#[cfg(test)]
mod tests;
