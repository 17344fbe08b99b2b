//! A scripted coding agent for the demo: some twenty calls, each made from the answers to those before.
//!
//! It behaves as real ones do. A long system prompt and its tools come first, the conversation grows by tool calls, and
//! cache markers stand on the system prompt and on the last two user messages. It also does what breaks caches in real
//! life: its system prompt tells the time, and half way a tool is added. It has no network of its own: whoever runs it
//! sends [`Agent::next_request`], and hands the body of the answer to [`Agent::absorb`].

mod turns;

mod prompt;

mod transcript;

use self::transcript::Reply;
use self::turns::{Dialect, Input, TURNS, Turn};
use crate::json::{Json, object};

/// The agent, between two calls.
#[derive(Debug, Default)]
pub struct Agent {
    next: usize,
    /// Messages of the main conversation, without cache markers.
    messages: Vec<Json>,
    /// Messages with the reviewer (Chat Completions).
    review: Vec<Json>,
    /// Items with the release writer (Responses).
    release: Vec<Json>,
}

/// A call the agent wants to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRequest {
    /// Host name, to be called on port 443.
    pub host: &'static str,
    /// Path of the `POST`.
    pub path: &'static str,
    /// Headers, `host` and `content-length` left out.
    pub headers: Vec<(&'static str, String)>,
    /// JSON body.
    pub body: Vec<u8>,
    /// What this call is for, in a few words.
    pub what: &'static str,
}

impl Agent {
    /// An agent that has not called anybody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls it makes, if all are answered.
    #[must_use]
    pub const fn turns() -> usize {
        TURNS.len()
    }

    /// What each call is for, in a few words, in their order.
    pub fn labels() -> impl Iterator<Item = &'static str> {
        TURNS.iter().map(|turn| turn.what)
    }

    /// The next call; `None` when the work is done.
    pub fn next_request(&mut self) -> Option<AgentRequest> {
        let turn = TURNS.get(self.next)?;
        self.next += 1;
        let body = match turn.dialect {
            Dialect::Title => title(turn),
            Dialect::Messages => self.messages(turn),
            Dialect::ChatCompletions { stream } => self.chat_completions(turn, stream),
            Dialect::Responses => self.responses(turn),
        };
        let (host, path, headers) = match turn.dialect {
            Dialect::Title | Dialect::Messages => {
                ("api.anthropic.com", "/v1/messages", anthropic_headers())
            }
            Dialect::ChatCompletions { .. } => {
                ("api.openai.com", "/v1/chat/completions", openai_headers())
            }
            Dialect::Responses => ("api.openai.com", "/v1/responses", openai_headers()),
        };
        let body = body.to_string().into_bytes();
        Some(AgentRequest {
            host,
            path,
            headers,
            body,
            what: turn.what,
        })
    }

    /// Takes the body of the answer to the last request, plain or as server-sent events, without content encoding. A
    /// body that is not an answer (a refusal, or one cut off) leaves the conversation without one, and the agent goes on.
    pub fn absorb(&mut self, answer_body: &[u8]) {
        let Some(turn) = self.next.checked_sub(1).and_then(|last| TURNS.get(last)) else {
            return;
        };
        match (turn.dialect, transcript::read(answer_body)) {
            (Dialect::Messages, Some(Reply::Messages(content))) => {
                self.messages
                    .push(object! { "role": "assistant", "content": content });
            }
            (Dialect::ChatCompletions { .. }, Some(Reply::ChatCompletions(message))) => {
                self.review.push(message);
            }
            (Dialect::Responses, Some(Reply::Responses(items))) => self.release.extend(items),
            (_, _) => {}
        }
    }

    fn messages(&mut self, turn: &Turn) -> Json {
        let content = match turn.input {
            Input::Says(text) => object! { "type": "text", "text": said(turn, text) },
            Input::Returns { file, lines } => {
                let output = said(turn, &prompt::listing(file, lines));
                match self.messages.last().and_then(called) {
                    Some(id) => {
                        object! { "type": "tool_result", "tool_use_id": id, "content": output }
                    }
                    None => object! { "type": "text", "text": output },
                }
            }
        };
        self.messages
            .push(object! { "role": "user", "content": vec![content] });
        object! {
            "model": "claude-sonnet-5-5",
            "max_tokens": 8192_u64,
            "system": vec![
                object! { "type": "text", "text": prompt::IDENTITY },
                object! {
                    "type": "text",
                    "text": prompt::system(turn.minute),
                    "cache_control": ephemeral(),
                },
            ],
            "tools": prompt::tools(turn.extra_tool),
            "messages": marked(&self.messages),
            "metadata": object! { "user_id": "demo-agent" },
            "stream": true,
        }
    }

    fn chat_completions(&mut self, turn: &Turn, stream: bool) -> Json {
        if self.review.is_empty() {
            let system = prompt::reviewer();
            self.review
                .push(object! { "role": "developer", "content": system });
        }
        let text = match turn.input {
            Input::Says(text) => text.to_owned(),
            Input::Returns { file, lines } => prompt::listing(file, lines),
        };
        self.review
            .push(object! { "role": "user", "content": said(turn, &text) });
        object! {
            "model": "gpt-6-sol",
            "messages": self.review.clone(),
            "max_completion_tokens": 4096_u64,
            "prompt_cache_key": "demo-review",
            "stream": stream,
        }
    }

    fn responses(&mut self, turn: &Turn) -> Json {
        let text = match turn.input {
            Input::Says(text) => text.to_owned(),
            Input::Returns { file, lines } => prompt::listing(file, lines),
        };
        self.release
            .push(object! { "role": "user", "content": said(turn, &text) });
        object! {
            "model": "gpt-5.5",
            "instructions": prompt::release_writer(),
            "input": self.release.clone(),
            "max_output_tokens": 4096_u64,
            "prompt_cache_key": "demo-release",
            "store": false,
            "stream": true,
        }
    }
}

/// The small call that agents make on the side, to name the session.
fn title(turn: &Turn) -> Json {
    let text = match turn.input {
        Input::Says(text) => text,
        Input::Returns { .. } => "",
    };
    object! {
        "model": "claude-haiku-5-5",
        "max_tokens": 64_u64,
        "system": "Name this session in at most six words. Answer with the name only.",
        "messages": vec![object! { "role": "user", "content": said(turn, text) }],
    }
}

/// `text` with the stage directions for the simulated provider.
fn said(turn: &Turn, text: &str) -> String {
    format!("{text}\n\n[[sim: {}]]", turn.answer)
}

/// The identifier of the tool call that ends an answer.
fn called(message: &Json) -> Option<&str> {
    let last = message.get("content")?.items().last()?;
    last.text("id")
        .filter(|_| last.text("type") == Some("tool_use"))
}

/// `messages` with cache markers on the last two of the user.
fn marked(messages: &[Json]) -> Vec<Json> {
    let mut left = 2;
    let mut marked: Vec<Json> = messages
        .iter()
        .rev()
        .map(|message| {
            if left == 0 || message.text("role") != Some("user") {
                return message.clone();
            }
            left -= 1;
            let mut content = message.get("content").map_or(&[][..], Json::items).to_vec();
            if let Some(Json::Object(members)) = content.last_mut() {
                members.push(("cache_control".to_owned(), ephemeral()));
            }
            object! { "role": "user", "content": content }
        })
        .collect();
    marked.reverse();
    marked
}

fn ephemeral() -> Json {
    object! { "type": "ephemeral" }
}

fn anthropic_headers() -> Vec<(&'static str, String)> {
    vec![
        ("accept", "application/json".to_owned()),
        ("content-type", "application/json".to_owned()),
        ("user-agent", USER_AGENT.to_owned()),
        ("x-api-key", "demo-anthropic-key".to_owned()),
        ("anthropic-version", "2023-06-01".to_owned()),
    ]
}

fn openai_headers() -> Vec<(&'static str, String)> {
    vec![
        ("accept", "application/json".to_owned()),
        ("content-type", "application/json".to_owned()),
        ("user-agent", USER_AGENT.to_owned()),
        ("authorization", "Bearer demo-openai-key".to_owned()),
    ]
}

const USER_AGENT: &str = "demo-agent/1.0";
