//! What holds of a rewritten prompt in every dialect: nothing but the listed values is another, each of
//! them is told, the prefix is the same for all of them, and twice is once.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use weir_core::api::Api;
use weir_core::catalog::Provider;
use weir_core::edit;
use weir_core::prompt::{self, Section};
use weir_core::rewrite::{Markable, Plan, Thread, Warmth, breakpoints};

use crate::{Engine, KEY, assert_continues, prints, prose};

/// Where prompts are rewritten at all.
const ALL: [Api; 7] = [
    Api::Messages,
    Api::ChatCompletions,
    Api::Responses,
    Api::GenerateContent,
    Api::Converse,
    Api::InvokeModel,
    Api::CohereChat,
];

/// What the client says in a turn, and in what form.
#[derive(Clone, Debug)]
struct Said {
    text: String,
    form: u8,
}

fn said() -> impl Strategy<Value = Said> {
    (prose(), 0_u8..3).prop_map(|(text, form)| Said { text, form })
}

/// The values of a turn.
#[derive(Clone, Debug, PartialEq)]
struct Values {
    date: String,
    directory: String,
    session: String,
}

fn values() -> impl Strategy<Value = Values> {
    let directory = select(vec![
        "/src/a",
        "/src/\u{e9}\u{1F600}",
        "C:\\\\src\\b",
        "/src/漢字",
    ]);
    (0_u8..3, directory, 0_u8..3).prop_map(|(day, directory, session)| Values {
        date: format!("2026-06-1{day} 10:0{day}"),
        directory: directory.to_owned(),
        session: format!("5e55104a-{session}"),
    })
}

fn system((a, b): &(String, String), values: &Values) -> String {
    let Values {
        date,
        directory,
        session,
    } = values;
    format!(
        "{a}\nToday's date: {date}\n{b}\nWorking directory: {directory}\nSession ID: {session}\nEnd {b}"
    )
}

fn block(api: Api, text: &str) -> Value {
    match api {
        Api::Responses => json!({ "type": "input_text", "text": text }),
        Api::GenerateContent | Api::Converse => json!({ "text": text }),
        _ => json!({ "type": "text", "text": text }),
    }
}

fn image(api: Api) -> Value {
    match api {
        Api::Responses => json!({ "type": "input_image", "image_url": "u" }),
        Api::ChatCompletions | Api::CohereChat => {
            json!({ "type": "image_url", "image_url": { "url": "u" } })
        }
        Api::GenerateContent => json!({ "inlineData": { "mimeType": "image/png", "data": "" } }),
        Api::Converse => json!({ "image": { "format": "png", "source": { "bytes": "" } } }),
        _ => json!({ "type": "image", "source": { "type": "base64", "data": "" } }),
    }
}

/// What a tool gave back, where that is a block of a message; elsewhere a text before an image.
fn result(api: Api, text: &str) -> Value {
    match api {
        Api::GenerateContent => {
            json!([{ "functionResponse": { "name": "n", "response": { "r": text } } }])
        }
        Api::Converse => {
            json!([{ "toolResult": { "toolUseId": "t", "content": [block(api, text)] } }])
        }
        Api::Messages | Api::InvokeModel => {
            json!([{ "type": "tool_result", "tool_use_id": "t", "content": [block(api, text)] }])
        }
        _ => json!([block(api, text), image(api)]),
    }
}

/// The body of a turn in the form of `api`. All that the client says before it is part of it.
fn body(api: Api, system: &str, tool: &str, turns: &[Said]) -> Value {
    let (key, model) = if api == Api::GenerateContent {
        ("parts", "model")
    } else {
        ("content", "assistant")
    };
    let may_be_string = !matches!(api, Api::GenerateContent | Api::Converse);
    let mut messages = Vec::new();
    for (number, Said { text, form }) in turns.iter().enumerate() {
        if number > 0 {
            let answer = if may_be_string {
                json!("answer")
            } else {
                json!([block(api, "answer")])
            };
            messages.push(json!({ "role": model, key: answer }));
        }
        let content = match form {
            0 if may_be_string => json!(text),
            0 | 1 => json!([image(api), block(api, text)]),
            _ => result(api, text),
        };
        messages.push(json!({ "role": "user", key: content }));
    }
    match api {
        Api::Messages => {
            json!({ "model": "claude-opus-5-5", "system": system, "tools": [{ "name": "n", "description": tool, "input_schema": {} }], "messages": messages })
        }
        Api::InvokeModel => {
            json!({ "anthropic_version": "bedrock-2023-05-31", "system": [block(api, system)], "tools": [{ "name": "n", "description": tool, "input_schema": {} }], "messages": messages })
        }
        Api::Responses => {
            json!({ "instructions": system, "tools": [{ "type": "function", "name": "n", "description": tool }], "input": messages })
        }
        Api::GenerateContent => {
            json!({ "systemInstruction": { "parts": [{ "text": system }] }, "contents": messages })
        }
        Api::Converse => {
            json!({ "system": [{ "text": system }], "toolConfig": { "tools": [{ "toolSpec": { "name": "n", "description": tool, "inputSchema": { "json": {} } } }] }, "messages": messages })
        }
        _ => {
            messages.insert(0, json!({ "role": "system", "content": system }));
            json!({ "messages": messages, "tools": [{ "type": "function", "function": { "name": "n", "description": tool } }] })
        }
    }
}

/// The same JSON with other escapes: what is not ASCII as `\u`, and each slash as `\/`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '/' => out.push_str("\\/"),
            character if character.is_ascii() => out.push(character),
            character => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

/// What a value reads whose bytes are `raw` inside of a JSON string.
fn read(raw: &str) -> String {
    serde_json::from_str(&format!("\"{raw}\"")).unwrap()
}

const TOLD: &str = "<context_values>\n";

/// Takes out of `sent` what was told, and puts the values back for their references; fails if there is
/// anything else that `body` did not say.
fn undone(sent: &Value, body: &Value, values: &[(String, String)]) -> Result<(), String> {
    match (sent, body) {
        (Value::String(sent), Value::String(body)) => {
            let mut text = sent.clone();
            for (name, value) in values {
                text = text.replacen(&format!("[see <{name}> in <context_values>]"), value, 1);
            }
            let rest = text.strip_prefix(body.as_str()).or_else(|| {
                // A scrap of the client's may read like a reference.
                sent.strip_prefix(body.as_str())
            });
            let is_told = |rest: &str| {
                rest.starts_with(&format!("\n\n{TOLD}")) && rest.ends_with("</context_values>")
            };
            match rest {
                Some(rest) if rest.is_empty() || is_told(rest) => Ok(()),
                _ => Err(format!("expected {body:?}, found {text:?}")),
            }
        }
        (Value::Array(sent), Value::Array(body)) => {
            for (sent, body) in sent.iter().zip(body) {
                undone(sent, body, values)?;
            }
            let more = sent.get(body.len()..).unwrap_or_default();
            let is_told = |block: &Value| {
                let text = block["text"].as_str().unwrap_or_default();
                text.starts_with(TOLD) && text.ends_with("</context_values>")
            };
            let is_short = sent.len() < body.len();
            if is_short || more.len() > 1 || !more.iter().all(is_told) {
                return Err(format!("expected at most one block more, found {more:?}"));
            }
            Ok(())
        }
        (Value::Object(sent), Value::Object(body)) => {
            if !sent.keys().eq(body.keys()) {
                return Err(format!("expected {body:?}, found {sent:?}"));
            }
            sent.iter()
                .zip(body)
                .try_for_each(|((_, sent), (_, body))| undone(sent, body, values))
        }
        (sent, body) if sent == body => Ok(()),
        (sent, body) => Err(format!("expected {body}, found {sent}")),
    }
}

/// What a model that reads the prompt in order knows of `name` at its end, as JSON.
fn known<'a>(sent: &'a str, name: &str) -> Option<&'a str> {
    let end = sent.rfind(&format!("</{name}>"))?;
    let before = sent.get(..end)?;
    let start = before.rfind(&format!("<{name}"))?;
    let (_, raw) = before.get(start..)?.split_once('>')?;
    Some(
        raw.strip_prefix("\\n")
            .and_then(|raw| raw.strip_suffix("\\n"))
            .unwrap_or(raw),
    )
}

/// The values that a plan found, by name, as they read.
fn found(plan: &Plan, body: &str) -> Vec<(String, String)> {
    let each = plan.spans.iter().map(|span| {
        let raw = body.get(span.range.clone()).unwrap();
        (span.name.clone(), read(raw))
    });
    each.collect()
}

fn markers_with_breakpoints(api: Api, body: &str, plan: &Plan) -> usize {
    let prompt = prompt::read(body.as_bytes()).unwrap();
    let thread = Thread::of(&prompt, body.as_bytes(), &KEY, &[]).unwrap();
    let call = Markable {
        api,
        provider: if api == Api::Messages {
            Provider::Anthropic
        } else {
            Provider::Bedrock
        },
        model: "anthropic.claude-opus-5-5",
        body: body.as_bytes(),
        prompt: &prompt,
        thread: &thread,
        minimum_bytes: 0,
        warm: Warmth {
            tools: true,
            system: true,
            turn: true,
        },
        edits: &plan.edits,
    };
    let mut edits = breakpoints(&call);
    edits.extend(plan.edits.iter().cloned());
    let sent = edit::apply(body.as_bytes(), &mut edits).unwrap();
    serde_json::from_slice::<Value>(&sent).unwrap();
    prompt::read(&sent).unwrap().markers()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_every_dialect_nothing_but_the_values_is_another_and_each_is_told(
        around in (prose(), prose()), tool in prose(), with_escapes in any::<bool>(), other in values(),
        turns in vec((said(), values()), 1..5),
    ) {
        for api in ALL {
            let form = |value: &Value| {
                let text = value.to_string();
                if with_escapes { escaped(&text) } else { text }
            };
            let mut engine = Engine::new("");
            let (mut says, mut before): (Vec<Said>, Option<String>) = (Vec::new(), None);
            for (said, values) in &turns {
                says.push(said.clone());
                let body = body(api, &system(&around, values), &tool, &says);
                let text = form(&body);
                let mut plan = engine.plan(api, &text);
                let spans = found(&plan, &text);
                prop_assert!(spans.len() >= 3, "{:?}: {}", api, text);
                let markers = markers_with_breakpoints(api, &text, &plan);
                prop_assert!(markers <= 4, "{:?}: {} markers", api, markers);
                let sent = edit::apply(text.as_bytes(), &mut plan.edits).unwrap();
                let sent = String::from_utf8(sent).unwrap();
                let parsed: Value = serde_json::from_str(&sent).unwrap();
                let undone = undone(&parsed, &body, &spans);
                prop_assert!(undone.is_ok(), "{:?}: {:?}\n{}", api, undone, sent);
                for (name, value) in &spans {
                    let known = known(&sent, name).map(read);
                    prop_assert_eq!(known.as_ref(), Some(value), "{:?} {}: {}", api, name, sent);
                }
                if let Some(before) = &before {
                    assert_continues(before, &sent);
                } else {
                    prop_assert_eq!(&Engine::new("").send(api, &sent), &sent);
                }
                before = Some(sent);
            }
            // Another conversation with other values has the same prefix.
            let first: Vec<Said> = says.iter().take(1).cloned().collect();
            let text = form(&body(api, &system(&around, &other), &tool, &first));
            let sent = Engine::new("").send(api, &text);
            let prompt = prompt::read(sent.as_bytes()).unwrap();
            let prefix = prompt.segments.iter().filter(|s| s.section != Section::Messages).count();
            let before = before.unwrap();
            prop_assert_eq!(&prints(&sent)[..prefix], &prints(&before)[..prefix], "{:?}", api);
        }
    }
}
