//! A Chat Completions or Responses request as the model sees it: tools and the answer's format, instructions, input.

use crate::hash::Prefix;
use crate::json::Json;
use crate::models::Model;
use crate::tokens;

/// A prompt: segments of text, each after something that is hashed but costs nothing (a role, a type, an id).
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompt {
    /// Fingerprint of what stands before the first token: the account, the model, the cache key and, for models with
    /// breakpoints, the settings that are part of a prompt there.
    pub(crate) start: Prefix,
    pub(crate) segments: Vec<Segment>,
}

/// A part of a prompt that stands or falls as a whole, unless the cache works by blocks of tokens.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) label: String,
    pub(crate) text: String,
    pub(crate) tokens: u64,
    pub(crate) breakpoint: Breakpoint,
}

/// Where a prefix may be written to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breakpoint {
    /// Within a message, or before the first.
    None,
    /// After a message of the assistant: older entries are found here, but no implicit one is written.
    MessageEnd,
    /// After a message that an implicit breakpoint may be written after.
    Eligible,
    /// `prompt_cache_breakpoint`.
    Explicit,
}

impl Prompt {
    /// Renders a Chat Completions request.
    pub(crate) fn chat(body: &Json, model: &Model, key: &str) -> Self {
        let format = body.get("response_format");
        let settings = [body.get("reasoning_effort"), body.get("verbosity"), format];
        let mut prompt = Self::begin(body, model, key, settings);
        prompt.tools(body, format);
        for message in body.get("messages").map_or(&[][..], Json::items) {
            prompt.item(message);
        }
        prompt
    }

    /// Renders a Responses request; `history` is what came before its input.
    pub(crate) fn responses(body: &Json, history: &[Json], model: &Model, key: &str) -> Self {
        let format = body.at(&["text", "format"]);
        let settings = [
            body.at(&["reasoning", "effort"]),
            body.at(&["text", "verbosity"]),
            format,
        ];
        let mut prompt = Self::begin(body, model, key, settings);
        prompt.tools(body, format);
        if let Some(instructions) = body.text("instructions") {
            prompt.push(
                "system",
                instructions.to_owned(),
                tokens::count(instructions),
            );
        }
        for item in history.iter().chain(&input_items(body)) {
            prompt.item(item);
        }
        prompt
    }

    /// Fingerprints of the prefixes that end with each segment.
    pub(crate) fn prefixes(&self) -> Vec<u64> {
        let extend = |prefix: &mut Prefix, segment: &Segment| {
            *prefix = prefix.then(&[&segment.label, &segment.text]);
            Some(prefix.value())
        };
        self.segments.iter().scan(self.start, extend).collect()
    }

    /// A prompt of another dialect: all texts in `parts`. `start` tells apart who has caches of their own.
    pub(crate) fn texts(parts: &[Json], start: &[&str]) -> Self {
        let mut prompt = Self {
            start: Prefix::default().then(start),
            segments: Vec::new(),
        };
        for part in parts {
            part.strings(&mut |text| prompt.push("text", text.to_owned(), tokens::count(text)));
        }
        prompt
    }

    /// Tokens of the whole prompt.
    pub(crate) fn tokens(&self) -> u64 {
        self.segments.iter().map(|segment| segment.tokens).sum()
    }

    fn begin(body: &Json, model: &Model, key: &str, settings: [Option<&Json>; 3]) -> Self {
        let text = |value: Option<&Json>| value.map(ToString::to_string).unwrap_or_default();
        let cache_key = body.text("prompt_cache_key").unwrap_or_default();
        let mut start = Prefix::default().then(&[key, model.id, cache_key]);
        if model.breakpoints {
            let [effort, verbosity, format] = settings.map(text);
            let tier = text(body.get("service_tier"));
            start = start.then(&[&effort, &verbosity, &format, &tier]);
        }
        Self {
            start,
            segments: Vec::new(),
        }
    }

    fn tools(&mut self, body: &Json, format: Option<&Json>) {
        for tool in body.get("tools").map_or(&[][..], Json::items) {
            let text = tool.to_string();
            let tokens = tokens::count(&text);
            self.push("tool", text, tokens);
        }
        let schema = format.filter(|format| format.text("type") == Some("json_schema"));
        if let Some(schema) = schema {
            let text = schema.to_string();
            let tokens = tokens::count(&text);
            self.push("format", text, tokens);
        }
    }

    /// A message, or an item that stands in its place.
    fn item(&mut self, item: &Json) {
        let role = item
            .text("role")
            .or_else(|| item.text("type"))
            .unwrap_or_default()
            .to_owned();
        let before = self.segments.len();
        let content = ["content", "output"]
            .iter()
            .find_map(|name| item.get(name))
            .unwrap_or(&Json::Null);
        match content {
            Json::String(text) => self.push(&role, text.clone(), tokens::count(text)),
            Json::Array(parts) => parts.iter().for_each(|part| self.part(&role, part)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => {}
        }
        for call in item.get("tool_calls").map_or(&[][..], Json::items) {
            self.function(call.get("function").unwrap_or(&Json::Null));
        }
        if matches!(
            item.text("type"),
            Some("function_call" | "custom_tool_call")
        ) {
            self.function(item);
        }
        let ends = match role.as_str() {
            "assistant" | "function_call" | "custom_tool_call" | "reasoning" => {
                Breakpoint::MessageEnd
            }
            _ => Breakpoint::Eligible,
        };
        let marked = item.get("prompt_cache_breakpoint").is_some_and(is_explicit);
        let empty = self.segments.len() == before;
        if let (Some(last), false) = (self.segments.last_mut(), empty) {
            if let Some(id) = ["tool_call_id", "call_id", "name"]
                .iter()
                .find_map(|n| item.text(n))
            {
                last.label.push_str(id);
            }
            if marked {
                last.breakpoint = Breakpoint::Explicit;
            } else if last.breakpoint == Breakpoint::None {
                last.breakpoint = ends;
            }
        }
    }

    fn part(&mut self, role: &str, part: &Json) {
        let text = ["text", "refusal"].iter().find_map(|name| part.text(name));
        match text {
            Some(text) => self.push(role, text.to_owned(), tokens::count(text)),
            None => {
                let text = part.without("prompt_cache_breakpoint").to_string();
                self.push(role, text, tokens::MEDIA);
            }
        }
        let marked = part.get("prompt_cache_breakpoint").is_some_and(is_explicit);
        if let (true, Some(last)) = (marked, self.segments.last_mut()) {
            last.breakpoint = Breakpoint::Explicit;
        }
    }

    fn function(&mut self, function: &Json) {
        let input = if function.get("input").is_some() {
            "input"
        } else {
            "arguments"
        };
        for name in ["name", input] {
            let text = function.text(name).unwrap_or_default();
            self.push("call", text.to_owned(), tokens::count(text));
        }
    }

    fn push(&mut self, label: &str, text: String, tokens: u64) {
        let breakpoint = Breakpoint::None;
        self.segments.push(Segment {
            label: label.to_owned(),
            text,
            tokens,
            breakpoint,
        });
    }
}

/// The input of a Responses request as items.
pub(crate) fn input_items(body: &Json) -> Vec<Json> {
    match body.get("input") {
        Some(Json::String(text)) => {
            vec![crate::json::object! { "role": "user", "content": text.as_str() }]
        }
        Some(input) => input.items().to_vec(),
        None => Vec::new(),
    }
}

fn is_explicit(breakpoint: &Json) -> bool {
    breakpoint.text("mode") == Some("explicit")
}
