//! `POST /v1/responses`: the call, and the bytes of its answer.

use std::io;

use bytes::Bytes;
use http::Response;

use super::chat::OBFUSCATION;
use super::prompt::{Prompt, input_items};
use super::{Memory, Request, directive, headers, refuse, scripted};
use crate::bill::{Api, Usage};
use crate::body::{Body, Event};
use crate::directive::Directive;
use crate::exchange::{Answer, Call, Refusal};
use crate::json::{Json, object};
use crate::script::Script;

/// Answers the call.
pub(crate) async fn responses(call: &Call<'_>) -> io::Result<Response<Body>> {
    let api = call.in_socket.unwrap_or(Api::Responses);
    let request = match Request::read(call, true) {
        Ok(request) => request,
        Err(refusal) => return refuse(call, api, &refusal),
    };
    let input = input_items(&request.body);
    let history = match call.state.openai().history(&request.body) {
        Ok(history) => history,
        Err(refusal) => return refuse(call, api, &refusal),
    };
    let conversation: Vec<Json> = history.iter().chain(&input).cloned().collect();
    let tools = request.body.get("tools").map_or(&[][..], Json::items);
    let directive = directive(&input).play(&conversation, tools);
    if let Some(status) = directive.status {
        return refuse(call, api, &scripted(status, directive.retry_after));
    }
    let prompt = Prompt::responses(&request.body, &history, request.model, &request.key);
    let plan = call
        .state
        .openai()
        .cache
        .plan(&prompt, request.model, request.wish, call.started);
    if !directive.start.is_zero() {
        tokio::time::sleep(directive.start).await;
    }
    call.state.openai().cache.commit(&plan, call.started);

    let script = script(&request.body, &directive);
    let usage = Usage {
        output: script.tokens(),
        reasoning: script.think,
        ..plan.usage
    };
    let obfuscation = request.body.at(&["stream_options", "include_obfuscation"]);
    let wire = Wire {
        number: call.number,
        created: call.started.as_secs(),
        request: &request,
        script: &script,
        usage,
        obfuscate: obfuscation != Some(&Json::Bool(false)),
    };
    // What is not stored is known for as long as the socket it came through.
    if call.in_socket.is_some() || request.body.get("store") != Some(&Json::Bool(false)) {
        let items = history
            .into_iter()
            .chain(input)
            .chain(wire.output("completed"))
            .collect();
        call.state.openai().store(wire.id(), items);
    }
    let stream = call.in_socket.is_some() || request.body.is_true("stream");
    let answer = Answer {
        api,
        id: wire.id(),
        model: request.model,
        model_name: request.model_name().to_owned(),
        tier: request.tier,
        us: false,
        key: request.key.clone(),
        usage,
        events: if stream { wire.stream() } else { wire.plain() },
        stream,
        failure: failure(directive.error_after),
        headers: headers(call),
    };
    call.send(answer, &directive)
}

/// What is answered: nothing, where the call only prepares for the next.
fn script(body: &Json, directive: &Directive) -> Script {
    if body.get("generate") == Some(&Json::Bool(false)) {
        return Script::default();
    }
    let limit = body.get("max_output_tokens").and_then(Json::as_u64);
    Script::new(directive, limit)
}

impl Memory {
    /// The conversation that `previous_response_id` continues.
    fn history(&self, body: &Json) -> Result<Vec<Json>, Refusal> {
        let Some(id) = body.text("previous_response_id") else {
            return Ok(Vec::new());
        };
        self.stored.get(id).cloned().ok_or_else(|| Refusal {
            code: Some("previous_response_not_found"),
            ..Refusal::invalid(format!("Previous response with id '{id}' not found."))
        })
    }

    fn store(&mut self, id: String, items: Vec<Json>) {
        if self.stored.len() >= STORED_MAX {
            self.stored.clear();
        }
        self.stored.insert(id, items);
    }
}

/// An answer about to be written down.
struct Wire<'a> {
    number: u64,
    created: u64,
    request: &'a Request,
    script: &'a Script,
    usage: Usage,
    obfuscate: bool,
}

impl Wire<'_> {
    fn id(&self) -> String {
        format!("resp_{:048x}", self.number)
    }

    fn plain(&self) -> Vec<Event> {
        let response = self.response(Some(self.output(self.status())));
        vec![Event {
            bytes: response.to_string().into(),
            output: self.usage.output,
        }]
    }

    fn stream(&self) -> Vec<Event> {
        let mut stream = Stream {
            output: self.script.think,
            ..Stream::default()
        };
        for name in ["response.created", "response.in_progress"] {
            stream.event(name, vec![("response".to_owned(), self.response(None))]);
        }
        for (index, item) in self.output(self.status()).into_iter().enumerate() {
            let index = index as u64;
            let started = match item.text("type") {
                Some("message") => item
                    .with("status", "in_progress")
                    .with("content", Vec::new()),
                Some("function_call") => item.with("status", "in_progress").with("arguments", ""),
                Some("custom_tool_call") => item.with("status", "in_progress").with("input", ""),
                _ => item.clone(),
            };
            stream.item("response.output_item.added", index, started);
            let id = item.text("id").unwrap_or_default();
            match item.text("type") {
                Some("message") => self.stream_text(&mut stream, index, id),
                Some("function_call" | "custom_tool_call") => {
                    self.stream_arguments(&mut stream, index, id);
                }
                _ => {}
            }
            stream.item("response.output_item.done", index, item);
        }
        let last = if self.script.cut {
            "response.incomplete"
        } else {
            "response.completed"
        };
        stream.output = self.usage.output;
        let response = self.response(Some(self.output(self.status())));
        stream.event(last, vec![("response".to_owned(), response)]);
        stream.events
    }

    fn stream_text(&self, stream: &mut Stream, index: u64, id: &str) {
        let place = |rest: Vec<(&str, Json)>| {
            let mut fields = vec![
                ("item_id".to_owned(), id.into()),
                ("output_index".to_owned(), index.into()),
                ("content_index".to_owned(), 0_u64.into()),
            ];
            fields.extend(
                rest.into_iter()
                    .map(|(name, value)| (name.to_owned(), value)),
            );
            fields
        };
        stream.event(
            "response.content_part.added",
            place(vec![("part", part(""))]),
        );
        for (piece, tokens) in &self.script.pieces {
            stream.output += tokens;
            let mut rest: Vec<(&str, Json)> = vec![
                ("delta", piece.as_str().into()),
                ("logprobs", Vec::new().into()),
            ];
            if self.obfuscate {
                rest.push(("obfuscation", OBFUSCATION.into()));
            }
            stream.event("response.output_text.delta", place(rest));
        }
        let text = self.script.text();
        let done = vec![
            ("text", text.as_str().into()),
            ("logprobs", Vec::new().into()),
        ];
        stream.event("response.output_text.done", place(done));
        stream.event(
            "response.content_part.done",
            place(vec![("part", part(&text))]),
        );
    }

    fn stream_arguments(&self, stream: &mut Stream, index: u64, id: &str) {
        let Some((_, arguments)) = &self.script.tool else {
            return;
        };
        stream.output += self.script.tool_tokens;
        let (kind, whole) = if self.script.freeform {
            ("custom_tool_call_input", "input")
        } else {
            ("function_call_arguments", "arguments")
        };
        for (name, field) in [("delta", "delta"), ("done", whole)] {
            let fields = vec![
                ("item_id".to_owned(), id.into()),
                ("output_index".to_owned(), index.into()),
                (field.to_owned(), arguments.as_str().into()),
            ];
            stream.event(&format!("response.{kind}.{name}"), fields);
        }
    }

    /// The output items, the message having `status`.
    fn output(&self, status: &str) -> Vec<Json> {
        let id = |kind: &str| format!("{kind}_{:048x}", self.number);
        let mut items = Vec::new();
        if self.script.think > 0 {
            let summary = Json::Array(Vec::new());
            items.push(object! { "id": id("rs"), "type": "reasoning", "summary": summary });
        }
        if !self.script.pieces.is_empty() {
            items.push(object! {
                "id": id("msg"),
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": vec![part(&self.script.text())],
            });
        }
        if let Some((name, arguments)) = &self.script.tool {
            let (prefix, kind, field) = if self.script.freeform {
                ("ctc", "custom_tool_call", "input")
            } else {
                ("fc", "function_call", "arguments")
            };
            let mut call = object! {
                "id": id(prefix),
                "type": kind,
                "status": "completed",
                "call_id": format!("call_{:024x}", self.number),
                "name": name.as_str(),
            };
            if let Json::Object(members) = &mut call {
                members.push((field.to_owned(), arguments.as_str().into()));
            }
            items.push(call);
        }
        items
    }

    /// The response object; without `output` it is still in progress.
    fn response(&self, output: Option<Vec<Json>>) -> Json {
        let body = &self.request.body;
        let done = output.is_some();
        let cut = done && self.script.cut;
        let echo = |name: &str| body.get(name).cloned().unwrap_or(Json::Null);
        object! {
            "id": self.id(),
            "object": "response",
            "created_at": self.created,
            "status": if done { self.status() } else { "in_progress" },
            "background": false,
            "error": Json::Null,
            "incomplete_details": cut.then(|| object! { "reason": "max_output_tokens" }),
            "instructions": echo("instructions"),
            "max_output_tokens": echo("max_output_tokens"),
            "model": self.request.model_name(),
            "output": output.unwrap_or_default(),
            "parallel_tool_calls": true,
            "previous_response_id": echo("previous_response_id"),
            "prompt_cache_key": echo("prompt_cache_key"),
            "reasoning": object! { "effort": Json::Null, "summary": Json::Null },
            "service_tier": if done { self.request.tier_name() } else { "auto" },
            "store": body.get("store") != Some(&Json::Bool(false)),
            "temperature": Json::Null,
            "text": object! { "format": object! { "type": "text" }, "verbosity": "medium" },
            "tool_choice": body.get("tool_choice").cloned().unwrap_or_else(|| "auto".into()),
            "tools": body.get("tools").cloned().unwrap_or(Json::Array(Vec::new())),
            "top_p": Json::Null,
            "truncation": "disabled",
            "usage": done.then(|| self.usage()),
            "user": Json::Null,
            "metadata": body.get("metadata").cloned().unwrap_or(Json::Object(Vec::new())),
        }
    }

    fn usage(&self) -> Json {
        let Usage {
            cache_write_short,
            cache_write_long,
            output,
            ..
        } = self.usage;
        object! {
            "input_tokens": self.usage.prompt(),
            "input_tokens_details": object! {
                "cached_tokens": self.usage.cache_read,
                "cache_write_tokens": cache_write_short + cache_write_long,
                "cache_write_tokens_details": object! {
                    "ttl_30m_tokens": cache_write_short,
                    "ttl_12h_tokens": cache_write_long,
                },
            },
            "output_tokens": output,
            "output_tokens_details": object! { "reasoning_tokens": self.usage.reasoning },
            "total_tokens": self.usage.prompt() + output,
        }
    }

    const fn status(&self) -> &'static str {
        if self.script.cut {
            "incomplete"
        } else {
            "completed"
        }
    }
}

impl Json {
    /// This object with its member `key` set.
    fn with(&self, key: &str, value: impl Into<Self>) -> Self {
        let mut value = Some(value.into());
        match self {
            Self::Object(members) => {
                let replaced = members.iter().map(|(name, old)| {
                    let new = if name == key { value.take() } else { None };
                    (name.clone(), new.unwrap_or_else(|| old.clone()))
                });
                Self::Object(replaced.collect())
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => {
                self.clone()
            }
        }
    }
}

fn part(text: &str) -> Json {
    object! {
        "type": "output_text",
        "annotations": Vec::new(),
        "logprobs": Vec::new(),
        "text": text,
    }
}

/// The event of a failure after `after` events.
fn failure(after: Option<usize>) -> Bytes {
    let data = object! {
        "type": "error",
        "code": "server_error",
        "message": "The server had an error while processing your request",
        "param": Json::Null,
        "sequence_number": after.unwrap_or_default() as u64,
    };
    format!("event: error\ndata: {data}\n\n").into()
}

/// Events as they are written, numbered.
#[derive(Default)]
struct Stream {
    events: Vec<Event>,
    output: u64,
}

impl Stream {
    fn event(&mut self, name: &str, fields: Vec<(String, Json)>) {
        let mut data = vec![
            ("type".to_owned(), name.into()),
            (
                "sequence_number".to_owned(),
                (self.events.len() as u64).into(),
            ),
        ];
        data.extend(fields);
        let text = format!("event: {name}\ndata: {}\n\n", Json::Object(data));
        self.events.push(Event {
            bytes: text.into(),
            output: self.output,
        });
    }

    fn item(&mut self, name: &str, index: u64, item: Json) {
        let fields = vec![
            ("output_index".to_owned(), index.into()),
            ("item".to_owned(), item),
        ];
        self.event(name, fields);
    }
}

/// Responses that are stored; one more, and all are forgotten.
const STORED_MAX: usize = 10_000;
