//! Reads answers the way an SDK does: plain bodies, or events put together again.

use crate::json::{Json, object};

/// What the model said, as it is to be sent back in the next turn.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// Content blocks.
    Messages(Vec<Json>),
    /// The message of the assistant.
    ChatCompletions(Json),
    /// Output items.
    Responses(Vec<Json>),
}

/// The reply in an answer's body, if it holds one.
pub(super) fn read(body: &[u8]) -> Option<Reply> {
    if let Ok(answer) = Json::parse(body) {
        return plain(&answer);
    }
    let text = std::str::from_utf8(body).ok()?;
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let events: Vec<Json> = data
        .filter_map(|event| Json::parse(event.trim().as_bytes()).ok())
        .collect();
    let first = events.first()?;
    match (first.text("type"), first.text("object")) {
        (Some("message_start"), _) => messages(&events),
        (Some("response.created"), _) => {
            let last = events
                .last()
                .filter(|e| e.text("type") == Some("response.completed"))?;
            plain(last.get("response")?)
        }
        (_, Some("chat.completion.chunk")) => chat_completions(&events),
        (_, _) => None,
    }
}

fn plain(answer: &Json) -> Option<Reply> {
    match (answer.text("type"), answer.text("object")) {
        (Some("message"), _) => Some(Reply::Messages(answer.get("content")?.items().to_vec())),
        (_, Some("response")) => Some(Reply::Responses(answer.get("output")?.items().to_vec())),
        (_, Some("chat.completion")) => {
            let message = answer.get("choices")?.items().first()?.get("message")?;
            Some(Reply::ChatCompletions(message.clone()))
        }
        (_, _) => None,
    }
}

fn messages(events: &[Json]) -> Option<Reply> {
    let mut blocks: Vec<(Json, String)> = Vec::new();
    let mut ended = false;
    for event in events {
        match event.text("type") {
            Some("content_block_start") => {
                blocks.push((event.get("content_block")?.clone(), String::new()));
            }
            Some("content_block_delta") => {
                let delta = event.get("delta")?;
                let piece = ["text", "partial_json", "thinking"]
                    .iter()
                    .find_map(|n| delta.text(n));
                if let (Some((_, text)), Some(piece)) = (blocks.last_mut(), piece) {
                    text.push_str(piece);
                }
            }
            Some("message_stop") => ended = true,
            _ => {}
        }
    }
    let content = blocks
        .into_iter()
        .map(|(block, text)| match block.text("type") {
            Some("tool_use") => object! {
                "type": "tool_use",
                "id": block.text("id"),
                "name": block.text("name"),
                "input": Json::parse(text.as_bytes()).unwrap_or(Json::Object(Vec::new())),
            },
            _ => object! { "type": "text", "text": text },
        });
    let content: Vec<Json> = content.collect();
    ended.then_some(Reply::Messages(content))
}

fn chat_completions(events: &[Json]) -> Option<Reply> {
    let deltas = events
        .iter()
        .filter_map(|event| event.get("choices")?.items().first());
    let text: String = deltas
        .clone()
        .filter_map(|choice| choice.at(&["delta", "content"])?.as_str())
        .collect();
    let ended = deltas
        .clone()
        .any(|choice| choice.text("finish_reason").is_some());
    ended.then(|| Reply::ChatCompletions(object! { "role": "assistant", "content": text }))
}
