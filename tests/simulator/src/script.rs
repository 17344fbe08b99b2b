//! What an answer says: thinking, text and a tool call, cut into pieces of whole tokens.

use crate::directive::Directive;
use crate::json::Json;
use crate::tokens;

/// The content of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// Thinking or reasoning tokens.
    pub(crate) think: u64,
    /// Pieces of the text, with the tokens of each.
    pub(crate) pieces: Vec<(String, u64)>,
    /// Tool that is called at the end, with its input as JSON text.
    pub(crate) tool: Option<(String, String)>,
    /// Whether that input is a text of no format instead.
    pub(crate) freeform: bool,
    /// Tokens of the tool call.
    pub(crate) tool_tokens: u64,
    /// Whether the answer was cut off by the caller's limit.
    pub(crate) cut: bool,
}

impl Script {
    /// The answer that `directive` asks for, in at most `max` tokens.
    pub(crate) fn new(directive: &Directive, max: Option<u64>) -> Self {
        let max = max.unwrap_or(u64::MAX);
        let think = directive.think.unwrap_or(0).min(max);
        let wanted = directive.tokens.unwrap_or(DEFAULT_TOKENS);
        let tokens = wanted.min(max - think);
        let input = match &directive.input {
            None => TOOL_INPUT.to_owned(),
            Some(Json::String(text)) => text.clone(),
            Some(input) => input.to_string(),
        };
        let tool = directive.tool.clone().map(|name| (name, input));
        let tool_tokens = tool.as_ref().map_or(0, |(name, input)| {
            tokens::count(name) + tokens::count(input)
        });
        let fits = tokens == wanted && think + tokens + tool_tokens <= max;
        Self {
            think,
            pieces: pieces(tokens, directive.events.unwrap_or(DEFAULT_EVENTS)),
            tool: tool.filter(|_| fits),
            freeform: matches!(directive.input, Some(Json::String(_))),
            tool_tokens: if fits { tool_tokens } else { 0 },
            cut: !fits,
        }
    }

    pub(crate) fn text(&self) -> String {
        self.pieces.iter().map(|(text, _)| text.as_str()).collect()
    }

    pub(crate) fn thinking(&self) -> String {
        tokens::prose(self.think, THINKING_OFFSET)
    }

    /// Tokens of the whole answer.
    pub(crate) fn tokens(&self) -> u64 {
        self.think + self.pieces.iter().map(|(_, tokens)| tokens).sum::<u64>() + self.tool_tokens
    }
}

/// A text of `tokens` tokens in `events` pieces, or in as many as there are tokens.
fn pieces(tokens: u64, events: u64) -> Vec<(String, u64)> {
    let events = events.clamp(1, tokens.max(1)).min(tokens);
    (0..events)
        .map(|index| {
            let (from, to) = (tokens * index / events, tokens * (index + 1) / events);
            (tokens::prose(to - from, from), to - from)
        })
        .collect()
}

const DEFAULT_TOKENS: u64 = 24;

const DEFAULT_EVENTS: u64 = 6;

/// Thinking starts elsewhere in the word list, so that it is not the text.
const THINKING_OFFSET: u64 = 7;

const TOOL_INPUT: &str = r#"{"path":"src/lib.rs","first_line":1,"lines":120}"#;
