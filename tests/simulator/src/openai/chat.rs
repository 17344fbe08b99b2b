//! `POST /v1/chat/completions`: the call, and the bytes of its answer.

use std::io;

use bytes::Bytes;
use http::Response;

use super::prompt::Prompt;
use super::{Request, directive, headers, refuse, scripted};
use crate::bill::{Api, Usage};
use crate::body::{Body, Event};
use crate::exchange::{Answer, Call, Refusal};
use crate::json::{Json, object};
use crate::script::Script;

/// Answers the call.
pub(crate) async fn chat_completions(call: &Call<'_>) -> io::Result<Response<Body>> {
    let api = Api::ChatCompletions;
    let request = match Request::read(call, false) {
        Ok(request) => request,
        Err(refusal) => return refuse(call, api, &refusal),
    };
    let messages = request.body.get("messages").map_or(&[][..], Json::items);
    if messages.is_empty() {
        return refuse(
            call,
            api,
            &Refusal::invalid("missing required parameter: 'messages'"),
        );
    }
    let directive = directive(messages);
    if let Some(status) = directive.status {
        return refuse(call, api, &scripted(status, directive.retry_after));
    }
    let prompt = Prompt::chat(&request.body, request.model, &request.key);
    let plan = call
        .state
        .openai()
        .cache
        .plan(&prompt, request.model, request.wish, call.started);
    if !directive.start.is_zero() {
        tokio::time::sleep(directive.start).await;
    }
    call.state.openai().cache.commit(&plan, call.started);

    let limit = ["max_completion_tokens", "max_tokens"]
        .iter()
        .find_map(|n| request.body.get(n));
    let script = Script::new(&directive, limit.and_then(Json::as_u64));
    let usage = Usage {
        output: script.tokens(),
        reasoning: script.think,
        ..plan.usage
    };
    let options = request.body.get("stream_options").unwrap_or(&Json::Null);
    let wire = Wire {
        id: format!("chatcmpl-Simulated{:018}", call.number),
        created: call.started.as_secs(),
        model: request.model_name(),
        tier: request.tier_name(),
        script: &script,
        usage,
        azure: call.deployment.is_some(),
        include_usage: options.is_true("include_usage"),
        obfuscate: options.get("include_obfuscation") != Some(&Json::Bool(false)),
    };
    let stream = request.body.is_true("stream");
    let answer = Answer {
        api,
        id: wire.id.clone(),
        model: request.model,
        model_name: call.deployment.unwrap_or(wire.model).to_owned(),
        tier: request.tier,
        us: false,
        key: request.key.clone(),
        usage,
        events: if stream { wire.stream() } else { wire.plain() },
        stream,
        failure: failure(),
        headers: headers(call),
    };
    call.send(answer, &directive)
}

/// An answer about to be written down.
struct Wire<'a> {
    id: String,
    created: u64,
    model: &'a str,
    tier: &'static str,
    script: &'a Script,
    usage: Usage,
    include_usage: bool,
    obfuscate: bool,
    azure: bool,
}

impl Wire<'_> {
    fn plain(&self) -> Vec<Event> {
        let content = (!self.script.pieces.is_empty()).then(|| self.script.text());
        let mut message = vec![
            ("role".to_owned(), "assistant".into()),
            ("content".to_owned(), content.into()),
        ];
        if let Some((name, arguments)) = &self.script.tool {
            let function = object! { "name": name.as_str(), "arguments": arguments.as_str() };
            let call = object! { "id": self.call_id(), "type": "function", "function": function };
            message.push(("tool_calls".to_owned(), vec![call].into()));
        }
        message.push(("refusal".to_owned(), Json::Null));
        message.push(("annotations".to_owned(), Json::Array(Vec::new())));
        let choice = object! {
            "index": 0_u64,
            "message": Json::Object(message),
            "logprobs": Json::Null,
            "finish_reason": self.finish_reason(),
        };
        let completion = object! {
            "id": self.id.as_str(),
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": vec![choice],
            "usage": self.usage(),
            "service_tier": self.tier,
            "system_fingerprint": FINGERPRINT,
        };
        vec![Event {
            bytes: completion.to_string().into(),
            output: self.usage.output,
        }]
    }

    fn stream(&self) -> Vec<Event> {
        let mut output = self.script.think;
        let first = object! { "role": "assistant", "content": "", "refusal": Json::Null };
        let mut events = vec![Event {
            bytes: self.delta(first, None),
            output,
        }];
        for (piece, tokens) in &self.script.pieces {
            output += tokens;
            let delta = object! { "content": piece.as_str() };
            events.push(Event {
                bytes: self.delta(delta, None),
                output,
            });
        }
        if let Some((name, arguments)) = &self.script.tool {
            let function = object! { "name": name.as_str(), "arguments": "" };
            let start = object! {
                "index": 0_u64, "id": self.call_id(), "type": "function", "function": function,
            };
            let rest = object! {
                "index": 0_u64, "function": object! { "arguments": arguments.as_str() },
            };
            for (call, tokens) in [(start, 0), (rest, self.script.tool_tokens)] {
                output += tokens;
                let delta = object! { "tool_calls": vec![call] };
                events.push(Event {
                    bytes: self.delta(delta, None),
                    output,
                });
            }
        }
        let last = self.delta(Json::Object(Vec::new()), Some(self.finish_reason()));
        events.push(Event {
            bytes: last,
            output,
        });
        if self.include_usage {
            events.push(Event {
                bytes: self.chunk(Vec::new(), Some(self.usage())),
                output,
            });
        }
        events.push(Event {
            bytes: Bytes::from_static(b"data: [DONE]\n\n"),
            output,
        });
        if self.azure {
            let bytes = Bytes::from_static(PROMPT_FILTER);
            events.insert(0, Event { bytes, output: 0 });
        }
        events
    }

    fn delta(&self, delta: Json, finish_reason: Option<&str>) -> Bytes {
        let choice = object! {
            "index": 0_u64,
            "delta": delta,
            "logprobs": Json::Null,
            "finish_reason": finish_reason,
        };
        self.chunk(vec![choice], None)
    }

    /// A chunk. Its `usage` is there only if it was asked for, and null in all chunks but the last.
    fn chunk(&self, choices: Vec<Json>, usage: Option<Json>) -> Bytes {
        let mut chunk = vec![
            ("id".to_owned(), self.id.as_str().into()),
            ("object".to_owned(), "chat.completion.chunk".into()),
            ("created".to_owned(), self.created.into()),
            ("model".to_owned(), self.model.into()),
            ("service_tier".to_owned(), self.tier.into()),
            ("system_fingerprint".to_owned(), FINGERPRINT.into()),
            ("choices".to_owned(), choices.into()),
        ];
        if self.include_usage {
            chunk.push(("usage".to_owned(), usage.into()));
        }
        if self.obfuscate {
            chunk.push(("obfuscation".to_owned(), OBFUSCATION.into()));
        }
        format!("data: {}\n\n", Json::Object(chunk)).into()
    }

    fn usage(&self) -> Json {
        let Usage {
            cache_read,
            output,
            reasoning,
            ..
        } = self.usage;
        let written = self.usage.cache_write_short + self.usage.cache_write_long;
        object! {
            "prompt_tokens": self.usage.prompt(),
            "completion_tokens": output,
            "total_tokens": self.usage.prompt() + output,
            "prompt_tokens_details": object! {
                "cached_tokens": cache_read,
                "cache_write_tokens": written,
                "audio_tokens": 0_u64,
            },
            "completion_tokens_details": object! {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0_u64,
                "accepted_prediction_tokens": 0_u64,
                "rejected_prediction_tokens": 0_u64,
            },
        }
    }

    fn call_id(&self) -> String {
        format!("call_{}", self.id.trim_start_matches("chatcmpl-"))
    }

    const fn finish_reason(&self) -> &'static str {
        match (&self.script.tool, self.script.cut) {
            (_, true) => "length",
            (Some(_), false) => "tool_calls",
            (None, false) => "stop",
        }
    }
}

/// The event of a failure in the middle of a stream.
fn failure() -> Bytes {
    let error = object! {
        "message": "The server had an error while processing your request",
        "type": "server_error",
        "param": Json::Null,
        "code": Json::Null,
    };
    format!("data: {}\n\n", object! { "error": error }).into()
}

/// What Azure found in the prompt, before there is an answer.
const PROMPT_FILTER: &[u8] = br#"data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}

"#;

const FINGERPRINT: &str = "fp_simulated0";

/// Padding against guessing from lengths; the provider's is random.
pub(super) const OBFUSCATION: &str = "q7Zk2";
