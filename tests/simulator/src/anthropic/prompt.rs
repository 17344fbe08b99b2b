//! A Messages request as the model sees it: blocks in the order tools, system, messages, each with the fingerprint and
//! the length of the prefix that ends with it.

use crate::exchange::Refusal;
use crate::hash::Prefix;
use crate::json::Json;
use crate::models::Model;
use crate::tokens;

/// How long a cache entry lives after it was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    /// `5m`.
    Short,
    /// `1h`.
    Long,
}

/// A prompt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompt {
    pub(crate) blocks: Vec<Block>,
    /// Positions in `blocks` with a cache breakpoint, in order.
    pub(crate) breakpoints: Vec<(usize, Ttl)>,
}

/// A block of a prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Fingerprint of the prefix that ends with this block.
    pub(crate) prefix: Prefix,
    /// Tokens of that prefix.
    pub(crate) tokens: u64,
    pub(crate) run: Run,
}

/// Neighbours in a run count as one position in the look-back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    ToolUse,
    ToolResult,
    Alone,
}

impl Prompt {
    /// Renders the request `body` of the account `key` for `model`.
    pub(crate) fn render(body: &Json, model: &Model, key: &str) -> Result<Self, Refusal> {
        let mut page = Page::default();
        let thinking = thinking_configuration(body);
        page.prefix = page.prefix.then(&[key, model.id]);
        if model.preserved_thinking {
            page.prefix = page.prefix.then(&[&thinking]);
        }
        for tool in body.get("tools").map_or(&[][..], Json::items) {
            page.tool(tool)?;
        }
        let speed = body.text("speed").unwrap_or("standard");
        page.prefix = page.prefix.then(&["system", speed, citations(body)]);
        page.system(body.get("system"))?;
        page.prefix = page
            .prefix
            .then(&["messages", &message_configuration(body)]);
        if !model.preserved_thinking {
            page.prefix = page.prefix.then(&[&thinking]);
        }
        let messages = body.get("messages").map_or(&[][..], Json::items);
        if model.drops_thinking() {
            page.without_thinking = messages.iter().rposition(is_plain).unwrap_or(0);
        }
        for (index, message) in messages.iter().enumerate() {
            page.message(index, message, model)?;
        }
        page.automatic(body.get("cache_control"))?;
        page.finish()
    }

    /// Tokens of the whole prompt.
    pub(crate) fn tokens(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.tokens)
    }
}

/// A prompt being rendered.
#[derive(Default)]
struct Page {
    prompt: Prompt,
    prefix: Prefix,
    tokens: u64,
    /// Messages, from the first, whose thinking the model is not shown any more.
    without_thinking: usize,
    /// Last block that a breakpoint may stand on.
    cacheable: Option<usize>,
}

impl Page {
    fn tool(&mut self, tool: &Json) -> Result<(), Refusal> {
        if tool.is_true("defer_loading") {
            if ttl(tool.get("cache_control"))?.is_some() {
                let name = tool.text("name").unwrap_or_default();
                return Err(Refusal::invalid(format!(
                    "Tool '{name}' cannot have both defer_loading=true and cache_control set. \
                     Tools with defer_loading cannot use prompt caching."
                )));
            }
            return Ok(());
        }
        let text = tool.without("cache_control").to_string();
        self.push(&["tool", &text], tokens::count(&text), Run::Alone);
        self.mark("tools", tool, true)
    }

    fn system(&mut self, system: Option<&Json>) -> Result<(), Refusal> {
        match system {
            None | Some(Json::Null) => Ok(()),
            Some(Json::String(text)) if text.starts_with(ATTRIBUTION) => Ok(()),
            Some(Json::String(text)) => {
                self.push(&["system", "text", text], tokens::count(text), Run::Alone);
                Ok(())
            }
            Some(blocks) => {
                let attributed = |block: &&Json| {
                    block
                        .text("text")
                        .is_some_and(|text| text.starts_with(ATTRIBUTION))
                };
                // The first block only, and the whole of it: wherever else it stands it is part of the prompt.
                let skip = usize::from(blocks.items().first().as_ref().is_some_and(attributed));
                blocks
                    .items()
                    .iter()
                    .skip(skip)
                    .try_for_each(|block| self.block("system", block))
            }
        }
    }

    fn message(&mut self, index: usize, message: &Json, model: &Model) -> Result<(), Refusal> {
        let role = message.text("role").unwrap_or_default();
        match role {
            "user" | "assistant" => {}
            "system" if index == 0 => {
                return Err(Refusal::invalid(
                    "messages.0: role 'system' cannot come first",
                ));
            }
            "system" if model.preserved_thinking => {}
            "system" => {
                return Err(Refusal::invalid(
                    "role 'system' is not supported on this model",
                ));
            }
            other => {
                let message =
                    format!("messages.{index}.role: expected user or assistant, found {other:?}");
                return Err(Refusal::invalid(message));
            }
        }
        match message.get("content") {
            Some(Json::String(text)) => {
                self.push(&[role, "text", text], tokens::count(text), Run::Alone);
                Ok(())
            }
            Some(Json::Array(blocks)) => {
                let is_dropped = index < self.without_thinking;
                let shown = blocks.iter().filter(|b| !(is_dropped && is_thinking(b)));
                shown
                    .into_iter()
                    .try_for_each(|block| self.block(role, block))
            }
            _ => Err(Refusal::invalid(format!(
                "messages.{index}.content: Field required"
            ))),
        }
    }

    fn block(&mut self, role: &str, block: &Json) -> Result<(), Refusal> {
        let kind = block.text("type").unwrap_or_default();
        let run = match kind {
            "tool_use" => Run::ToolUse,
            "tool_result" => Run::ToolResult,
            _ => Run::Alone,
        };
        if kind == "text" {
            let text = block.text("text").unwrap_or_default();
            self.push(&[role, "text", text], tokens::count(text), run);
            return self.mark(role, block, !text.is_empty());
        }
        let text = unmarked(block).to_string();
        self.push(&[role, kind, &text], block_tokens(block), run);
        self.mark_inside(block)?;
        self.mark(role, block, !is_thinking(block))
    }

    fn push(&mut self, content: &[&str], tokens: u64, run: Run) {
        self.prefix = self.prefix.then(content);
        self.tokens += tokens;
        self.prompt.blocks.push(Block {
            prefix: self.prefix,
            tokens: self.tokens,
            run,
        });
        if content.get(1) != Some(&"thinking") && tokens > 0 {
            self.cacheable = Some(self.prompt.blocks.len() - 1);
        }
    }

    /// Notes the breakpoint on the block that was just pushed, if it has one.
    fn mark(&mut self, place: &str, block: &Json, allowed: bool) -> Result<(), Refusal> {
        let Some(ttl) = ttl(block.get("cache_control"))? else {
            return Ok(());
        };
        if !allowed {
            let message =
                format!("{place}: cache_control cannot be set on empty text or thinking blocks");
            return Err(Refusal::invalid(message));
        }
        self.prompt
            .breakpoints
            .push((self.prompt.blocks.len() - 1, ttl));
        Ok(())
    }

    /// Notes the breakpoints inside of the content of the block that was just pushed: each is one on all of it.
    fn mark_inside(&mut self, block: &Json) -> Result<(), Refusal> {
        for name in CONTENTS {
            for inner in block.get(name).map_or(&[][..], parts) {
                self.mark_inside(inner)?;
                self.mark(name, inner, inner.text("text") != Some(""))?;
            }
        }
        Ok(())
    }

    /// The top-level `cache_control`: a breakpoint on the last block that can have one.
    fn automatic(&mut self, control: Option<&Json>) -> Result<(), Refusal> {
        let (Some(ttl), Some(at)) = (ttl(control)?, self.cacheable) else {
            return Ok(());
        };
        if self.prompt.breakpoints.len() >= BREAKPOINTS_MAX {
            return Err(too_many(self.prompt.breakpoints.len() + 1));
        }
        match self
            .prompt
            .breakpoints
            .iter()
            .find(|(explicit, _)| *explicit == at)
        {
            Some((_, explicit)) if *explicit != ttl => Err(Refusal::invalid(
                "the last block has a cache_control with another ttl than the top-level cache_control",
            )),
            Some(_) => Ok(()),
            None => {
                self.prompt.breakpoints.push((at, ttl));
                self.prompt
                    .breakpoints
                    .sort_by_key(|(position, _)| *position);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<Prompt, Refusal> {
        let breakpoints = &self.prompt.breakpoints;
        if breakpoints.len() > BREAKPOINTS_MAX {
            return Err(too_many(breakpoints.len()));
        }
        let short_first = breakpoints.iter().skip_while(|(_, ttl)| *ttl == Ttl::Long);
        if short_first.clone().any(|(_, ttl)| *ttl == Ttl::Long) {
            return Err(Refusal::invalid(
                "a cache_control with ttl 1h must not come after a cache_control with ttl 5m",
            ));
        }
        Ok(self.prompt)
    }
}

/// The parts of a content, or the only one.
fn parts(content: &Json) -> &[Json] {
    match content {
        Json::Array(parts) => parts,
        one => std::slice::from_ref(one),
    }
}

/// A block without its breakpoints, and those inside of its content.
fn unmarked(block: &Json) -> Json {
    match block {
        Json::Array(parts) => Json::Array(parts.iter().map(unmarked).collect()),
        Json::Object(members) => {
            let kept = members.iter().filter(|(name, _)| name != "cache_control");
            let kept = kept.map(|(name, value)| {
                let is_content = CONTENTS.contains(&name.as_str());
                let value = if is_content {
                    unmarked(value)
                } else {
                    value.clone()
                };
                (name.clone(), value)
            });
            Json::Object(kept.collect())
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => block.clone(),
    }
}

fn too_many(found: usize) -> Refusal {
    Refusal::invalid(format!(
        "A maximum of {BREAKPOINTS_MAX} blocks with cache_control may be provided. Found {found}."
    ))
}

/// The lifetime a `cache_control` asks for.
fn ttl(control: Option<&Json>) -> Result<Option<Ttl>, Refusal> {
    let Some(control @ Json::Object(_)) = control else {
        return Ok(None);
    };
    if control.text("type") != Some("ephemeral") {
        return Err(Refusal::invalid("cache_control.type: expected 'ephemeral'"));
    }
    match control.get("ttl").map(Json::as_str) {
        None | Some(Some("5m")) => Ok(Some(Ttl::Short)),
        Some(Some("1h")) => Ok(Some(Ttl::Long)),
        Some(_) => Err(Refusal::invalid("cache_control.ttl: expected '5m' or '1h'")),
    }
}

/// Whether it is a message of the user's own: with more than the results of tools.
fn is_plain(message: &Json) -> bool {
    let is_result = |block: &Json| block.text("type") == Some("tool_result");
    let content = message.get("content").map_or(&[][..], Json::items);
    message.text("role") == Some("user") && (content.is_empty() || !content.iter().all(is_result))
}

fn is_thinking(block: &Json) -> bool {
    matches!(block.text("type"), Some("thinking" | "redacted_thinking"))
}

/// Tokens of a block of a message.
fn block_tokens(block: &Json) -> u64 {
    match block.text("type") {
        Some("text") => block.text("text").map_or(0, tokens::count),
        Some("thinking") => block.text("thinking").map_or(0, tokens::count),
        Some("image" | "document") => tokens::MEDIA,
        Some("tool_use") => {
            let input = block
                .get("input")
                .map(ToString::to_string)
                .unwrap_or_default();
            block.text("name").map_or(0, tokens::count) + tokens::count(&input)
        }
        Some("tool_result") => match block.get("content") {
            Some(Json::String(text)) => tokens::count(text),
            Some(content) => content.items().iter().map(block_tokens).sum(),
            None => 0,
        },
        Some(_) | None => tokens::count(&block.without("cache_control").to_string()),
    }
}

/// What the model is told about thinking and effort.
fn thinking_configuration(body: &Json) -> String {
    let part = |value: Option<&Json>| value.map(ToString::to_string).unwrap_or_default();
    let thinking = body
        .get("thinking")
        .map(|thinking| thinking.without("block_binding"));
    format!(
        "{}\n{}",
        part(thinking.as_ref()),
        part(body.at(&["output_config", "effort"]))
    )
}

/// What changes how messages are rendered, but not tools and system.
fn message_configuration(body: &Json) -> String {
    let part = |value: Option<&Json>| value.map(ToString::to_string).unwrap_or_default();
    let images = if has_block(body, "image") {
        "images"
    } else {
        ""
    };
    [
        &part(body.get("tool_choice")),
        images,
        &part(body.at(&["output_config", "format"])),
        &part(body.at(&["output_config", "task_budget"])),
        &part(body.get("context_management")),
    ]
    .join("\n")
}

/// Whether a message has a block of this type, at the top or in a tool result.
fn has_block(body: &Json, kind: &str) -> bool {
    let is = |block: &Json| {
        block.text("type") == Some(kind)
            || block.get("content").is_some_and(|content| {
                content
                    .items()
                    .iter()
                    .any(|inner| inner.text("type") == Some(kind))
            })
    };
    let messages = body.get("messages").map_or(&[][..], Json::items);
    messages
        .iter()
        .filter_map(|message| message.get("content"))
        .any(|c| c.items().iter().any(is))
}

/// Whether citations are switched on for any document.
fn citations(body: &Json) -> &'static str {
    let messages = body.get("messages").map_or(&[][..], Json::items);
    let on = messages
        .iter()
        .filter_map(|message| message.get("content"))
        .any(|content| {
            let blocks = content.items().iter();
            blocks
                .filter_map(|block| block.get("citations"))
                .any(|citations| citations.is_true("enabled"))
        });
    if on { "citations" } else { "" }
}

/// Members of a block whose parts may have breakpoints of their own.
const CONTENTS: [&str; 2] = ["source", "content"];

/// Breakpoints in one request.
const BREAKPOINTS_MAX: usize = 4;

/// How the system block begins that Claude Code identifies itself with. The provider takes it out before hashing.
pub(crate) const ATTRIBUTION: &str = "x-anthropic-billing-header:";
