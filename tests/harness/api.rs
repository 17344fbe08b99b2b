//! The three APIs whose calls are read: where each is, and what a call of it looks like.

use serde_json::{Value, json};

/// An API that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Anthropic Messages.
    Messages,
    /// OpenAI Chat Completions.
    Chat,
    /// OpenAI Responses.
    Responses,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Messages, Self::Chat, Self::Responses];

    /// The provider's host.
    pub const fn host(self) -> &'static str {
        match self {
            Self::Messages => "api.anthropic.com",
            Self::Chat | Self::Responses => "api.openai.com",
        }
    }

    /// Where calls go.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
        }
    }

    /// A model with a price.
    pub const fn model(self) -> &'static str {
        match self {
            Self::Messages => "claude-opus-5-5",
            Self::Chat | Self::Responses => "gpt-6-sol",
        }
    }

    /// A call with `text` as its last message. A stream of Chat Completions asks for its usage.
    pub fn call(self, text: &str, stream: bool) -> Value {
        let model = self.model();
        let messages = json!([{ "role": "user", "content": text }]);
        match self {
            Self::Messages => {
                json!({ "model": model, "max_tokens": 2000, "stream": stream, "messages": messages })
            }
            Self::Chat if stream => json!({
                "model": model, "max_completion_tokens": 2000, "stream": true,
                "stream_options": { "include_usage": true }, "messages": messages
            }),
            Self::Chat => {
                json!({ "model": model, "max_completion_tokens": 2000, "messages": messages })
            }
            Self::Responses => {
                json!({ "model": model, "max_output_tokens": 2000, "stream": stream, "input": text })
            }
        }
    }
}
