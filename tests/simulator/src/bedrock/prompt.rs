//! A Converse body as a Messages body, which is what the prompt, the cache and the stage directions are read from.
//! Nova's own bodies for `InvokeModel` have the shape of Converse too, with the tools' schemas in it.
//!
//! A cache point is a block of its own behind what it marks; in a Messages body it is a member of that.

use crate::exchange::Refusal;
use crate::json::{Json, object};

/// `body` in the shape of the Messages API.
///
/// # Errors
/// If a cache point is where there is nothing to cache, or is not one.
pub(super) fn as_messages(body: &Json) -> Result<Json, Refusal> {
    let mut messages = Vec::new();
    for message in body.get("messages").map_or(&[][..], Json::items) {
        messages.push(object! {
            "role": message.text("role").unwrap_or_default(),
            "content": blocks(message.get("content"))?,
        });
    }
    let mut members = vec![
        (
            "tools".to_owned(),
            blocks(body.at(&["toolConfig", "tools"]))?.into(),
        ),
        ("system".to_owned(), blocks(body.get("system"))?.into()),
        ("messages".to_owned(), messages.into()),
    ];
    let choice = body.at(&["toolConfig", "toolChoice"]);
    members.extend(choice.map(|choice| ("tool_choice".to_owned(), choice.clone())));
    if let Some(Json::Object(more)) = body.get("additionalModelRequestFields") {
        members.extend_from_slice(more);
    }
    Ok(Json::Object(members))
}

fn blocks(blocks: Option<&Json>) -> Result<Vec<Json>, Refusal> {
    let mut read: Vec<Json> = Vec::new();
    for found in blocks.map_or(&[][..], Json::items) {
        let Some(point) = found.get("cachePoint") else {
            read.push(block(found)?);
            continue;
        };
        let Some(Json::Object(members)) = read.last_mut() else {
            return Err(invalid(
                "a cachePoint must come after the content that it caches",
            ));
        };
        if point.text("type") != Some("default") {
            return Err(invalid("cachePoint.type: expected 'default'"));
        }
        let ttl = point.text("ttl").unwrap_or("5m");
        let control = object! { "type": "ephemeral", "ttl": ttl };
        members.push(("cache_control".to_owned(), control));
    }
    Ok(read)
}

fn block(block: &Json) -> Result<Json, Refusal> {
    let Json::Object(members) = block else {
        return Ok(block.clone());
    };
    let Some((kind, value)) = members.first() else {
        return Ok(block.clone());
    };
    let part = |name: &str| value.get(name).cloned().unwrap_or(Json::Null);
    Ok(match kind.as_str() {
        "text" => object! { "type": "text", "text": value.clone() },
        "toolSpec" => {
            let schema = value.at(&["inputSchema", "json"]).cloned();
            object! {
                "name": part("name"),
                "description": part("description"),
                "input_schema": schema,
            }
        }
        "toolUse" => object! {
            "type": "tool_use", "id": part("toolUseId"), "name": part("name"), "input": part("input"),
        },
        "toolResult" => {
            let content = blocks(value.get("content"))?;
            object! { "type": "tool_result", "tool_use_id": part("toolUseId"), "content": content }
        }
        "reasoningContent" => {
            let text = value.get("reasoningText").unwrap_or(&Json::Null);
            object! {
                "type": "thinking",
                "thinking": text.text("text").unwrap_or_default(),
                "signature": text.text("signature").unwrap_or_default(),
            }
        }
        "image" | "document" => object! { "type": kind.as_str(), "source": value.clone() },
        _ => block.clone(),
    })
}

/// A request that is not as the service describes it.
pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(400, "ValidationException", message)
}

#[cfg(test)]
mod tests {
    use super::as_messages;
    use crate::json::Json;

    fn read(body: &str) -> Result<String, String> {
        let body = Json::parse(body.as_bytes()).unwrap();
        let read = as_messages(&body).map_err(|refusal| refusal.message)?;
        Ok(read.to_string())
    }

    #[test]
    fn a_cache_point_marks_the_block_before_it() {
        let body = r#"{
            "system": [{"text": "a"}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
            "messages": [{"role": "user", "content": [
                {"toolResult": {"toolUseId": "t", "content": [{"text": "2 m"}]}}, {"cachePoint": {"type": "default"}}, {"text": "b"}
            ]}],
            "toolConfig": {"tools": [{"toolSpec": {"name": "n", "description": "d", "inputSchema": {"json": {"type": "object"}}}}]}
        }"#;
        let expected = concat!(
            r#"{"tools":[{"name":"n","description":"d","input_schema":{"type":"object"}}],"#,
            r#""system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}}],"#,
            r#""messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","#,
            r#""content":[{"type":"text","text":"2 m"}],"cache_control":{"type":"ephemeral","ttl":"5m"}},"#,
            r#"{"type":"text","text":"b"}]}]}"#,
        );
        assert_eq!(read(body).as_deref(), Ok(expected));
    }

    #[test]
    fn a_cache_point_behind_nothing_is_refused() {
        for system in [
            r#"[{"cachePoint": {"type": "default"}}]"#,
            r#"[{"text": "a"}, {"cachePoint": {"type": "ephemeral"}}]"#,
        ] {
            read(&format!(r#"{{"system": {system}, "messages": []}}"#)).unwrap_err();
        }
    }
}
