//! Preserved thinking: the signature of a thinking block records the system prompt, the set of tools and every message
//! before the block, and the block is refused after any other history.
//!
//! What the check does not see: cache markers, key order, the order of tools, deferred tools, whether a content is a
//! string or one text block, white space around a text, texts of white space only, and what a compaction has replaced.

use crate::exchange::Refusal;
use crate::hash::Prefix;
use crate::json::Json;

use super::prompt::ATTRIBUTION;

/// The signature of a thinking block that follows all messages of `body`.
pub(crate) fn sign(body: &Json) -> String {
    signature(History::new(body).bound(messages(body)))
}

/// Refuses `body` if a thinking block in it does not follow the history it was signed for.
pub(crate) fn check(body: &Json) -> Result<(), Refusal> {
    let messages = messages(body);
    let mut history: Option<History> = None;
    for (index, message) in messages.iter().enumerate() {
        for (position, block) in message
            .get("content")
            .map_or(&[][..], Json::items)
            .iter()
            .enumerate()
        {
            let Some(found) = block.text("signature") else {
                continue;
            };
            if block.text("type") != Some("thinking") {
                continue;
            }
            let history = history.get_or_insert_with(|| History::new(body));
            let before = messages.get(..index).unwrap_or_default();
            if found != signature(history.bound(before)) {
                return Err(Refusal::invalid(format!(
                    "messages.{index}.content.{position}: Invalid `signature` in `thinking` block. The block is \
                     bound to a different conversation: the system prompt, the set of tools and every message before \
                     it must be sent as they were"
                )));
            }
        }
    }
    Ok(())
}

fn messages(body: &Json) -> &[Json] {
    body.get("messages").map_or(&[], Json::items)
}

/// As long as real ones are at least, so that a record that keeps them has to be able to.
fn signature(bound: Prefix) -> String {
    let parts = ["0", "1", "2", "3", "4", "5"].map(|part| bound.then(&[part]).to_string());
    format!("Sim{}==", parts.concat())
}

/// What all messages of a request are bound to.
struct History(Prefix);

impl History {
    fn new(body: &Json) -> Self {
        let tools = body.get("tools").map_or(&[][..], Json::items).iter();
        let mut tools: Vec<String> = tools
            .filter(|tool| !tool.is_true("defer_loading"))
            .map(|tool| {
                let part = |name| {
                    tool.get(name)
                        .map(|v| canonical(v).to_string())
                        .unwrap_or_default()
                };
                [part("name"), part("description"), part("input_schema")].join("\n")
            })
            .collect();
        tools.sort_unstable();
        let mut bound = Prefix::default();
        for tool in &tools {
            bound = bound.then(&["tool", tool]);
        }
        for block in blocks(body.get("system")) {
            if !block
                .text("text")
                .is_some_and(|text| text.starts_with(ATTRIBUTION))
            {
                bound = bound.then(&["system", &block.to_string()]);
            }
        }
        Self(bound)
    }

    /// The fingerprint of this and `messages`, from the last compaction on.
    fn bound(&self, messages: &[Json]) -> Prefix {
        let compacted = messages.iter().rposition(|message| {
            let content = message.get("content").map_or(&[][..], Json::items);
            content
                .iter()
                .any(|block| block.text("type") == Some("compaction"))
        });
        let mut bound = self.0;
        for message in messages.get(compacted.unwrap_or(0)..).unwrap_or_default() {
            let role = message.text("role").unwrap_or_default();
            for block in blocks(message.get("content")) {
                bound = bound.then(&[role, &block.to_string()]);
            }
        }
        bound
    }
}

/// The blocks of a content as the check sees them.
fn blocks(content: Option<&Json>) -> Vec<Json> {
    match content {
        Some(Json::String(text)) => text_block(text).into_iter().collect(),
        Some(content) => content.items().iter().filter_map(block).collect(),
        None => Vec::new(),
    }
}

fn block(block: &Json) -> Option<Json> {
    match (block.text("type"), block.get("content")) {
        (Some("text"), _) => text_block(block.text("text").unwrap_or_default()),
        (Some("tool_result"), content @ Some(_)) => {
            let content = Json::Array(blocks(content));
            let Json::Object(mut members) = canonical(&block.without("content")) else {
                return None;
            };
            members.push(("content".to_owned(), content));
            Some(Json::Object(members))
        }
        (_, _) => Some(canonical(block)),
    }
}

fn text_block(text: &str) -> Option<Json> {
    let text = text.trim();
    (!text.is_empty()).then(|| crate::json::object! { "type": "text", "text": text })
}

/// `value` without cache markers, members in the order of their names.
fn canonical(value: &Json) -> Json {
    match value {
        Json::Array(items) => Json::Array(items.iter().map(canonical).collect()),
        Json::Object(members) => {
            let kept = members.iter().filter(|(name, _)| name != "cache_control");
            let mut members: Vec<_> = kept
                .map(|(name, value)| (name.clone(), canonical(value)))
                .collect();
            members.sort_by(|(left, _), (right, _)| left.cmp(right));
            Json::Object(members)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value.clone(),
    }
}
