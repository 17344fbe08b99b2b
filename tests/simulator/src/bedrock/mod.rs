//! Simulated Amazon Bedrock: `InvokeModel` and Converse, plain and as binary event streams, for Claude and Nova.
//!
//! Requests are signed, or carry an API key. Prompts are cached as at Anthropic, where they are marked; what Nova writes
//! to its cache costs as much as what it reads anew.

mod frames;
mod prompt;
mod signature;
mod wire;

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::request::Parts;
use http::{Method, Response};

pub use signature::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

use crate::anthropic::{self, Prompt};
use crate::bill::{Api, Usage};
use crate::body::{Body, Event};
use crate::directive::Directive;
use crate::exchange::{Answer, Call, Refusal, reply_json};
use crate::json::{Json, object};
use crate::models::{self, Model, Provider, Tier};
use crate::script::Script;

use self::prompt::invalid;

/// Whether `host` is the service's.
pub(crate) fn is_host(host: &str) -> bool {
    host.starts_with("bedrock-runtime.")
}

/// Answers a request.
pub(crate) fn answer(call: &Call<'_>, parts: &Parts) -> io::Result<Response<Body>> {
    let operation = parts.uri.path().strip_prefix("/model/");
    let operation = operation.and_then(|path| path.rsplit_once('/'));
    let (Some((model, operation)), &Method::POST) = (operation, &parts.method) else {
        return refused(call, &Refusal::new(404, "UnknownOperationException", ""));
    };
    if operation == "count-tokens" {
        let counted = authenticate(call, parts).and_then(|key| count(call, &decoded(model), &key));
        return match counted {
            Ok(counted) => reply_json(200, headers(call), &counted),
            Err(refusal) => refused(call, &refusal),
        };
    }
    let api = if operation.starts_with("converse") {
        Api::Converse
    } else {
        Api::InvokeModel
    };
    let answered = authenticate(call, parts).and_then(|key| {
        let stream = match operation {
            "invoke" | "converse" => false,
            "invoke-with-response-stream" | "converse-stream" => true,
            _ => return Err(Refusal::new(404, "UnknownOperationException", "")),
        };
        let asked = Asked::read(call, api, &decoded(model), key)?;
        Ok(asked.answer(call, api, stream))
    });
    match answered {
        Ok((answer, directive)) => call.send(answer, &directive),
        Err(refusal) => {
            call.refused(api, &request_id(call), "", refusal.status);
            refused(call, &refusal)
        }
    }
}

/// The API key, or the id of the key that signed the request as it arrived.
fn authenticate(call: &Call<'_>, parts: &Parts) -> Result<String, Refusal> {
    match call.bearer() {
        Some(key) => Ok(key.to_owned()),
        None => signature::verify(parts, &call.body, "bedrock"),
    }
}

/// The tokens of a body of Converse or, in base64, of one of `InvokeModel` for Claude.
fn count(call: &Call<'_>, name: &str, key: &str) -> Result<Json, Refusal> {
    let body = call.json().map_err(of_messages)?;
    let inner = body.at(&["input", "invokeModel", "body"]);
    let read = match (
        body.at(&["input", "converse"]),
        inner.and_then(Json::as_str),
    ) {
        (Some(converse), _) => prompt::as_messages(converse)?,
        (None, Some(encoded)) => {
            let decoded = BASE64_STANDARD.decode(encoded);
            let decoded = decoded.map_err(|error| invalid(error.to_string()))?;
            Json::parse(&decoded).map_err(|error| invalid(error.to_string()))?
        }
        (None, None) => return Err(invalid("input: expected converse or invokeModel")),
    };
    let prompt = Prompt::render(&read, find_model(name)?, key).map_err(of_messages)?;
    Ok(object! { "inputTokens": prompt.tokens() })
}

fn find_model(name: &str) -> Result<&'static Model, Refusal> {
    models::find(Provider::Bedrock, name)
        .ok_or_else(|| invalid("The provided model identifier is invalid."))
}

/// A request whose shape is right.
struct Asked {
    model: &'static Model,
    model_name: String,
    key: String,
    /// The body in the shape of the Messages API.
    body: Json,
    directive: Directive,
    script: Script,
    usage: Usage,
}

impl Asked {
    fn read(call: &Call<'_>, api: Api, name: &str, key: String) -> Result<Self, Refusal> {
        let model = find_model(name)?;
        let body = call.json().map_err(of_messages)?;
        let is_claude = is_claude(model);
        let (body, limit) = if api == Api::InvokeModel && is_claude {
            let limit = check_claude(&body)?;
            (body, Some(limit))
        } else {
            let config = body.get("inferenceConfig").unwrap_or(&Json::Null);
            let limit = config.get("maxTokens").and_then(Json::as_u64);
            (prompt::as_messages(&body)?, limit)
        };
        if body
            .get("messages")
            .is_none_or(|messages| messages.items().is_empty())
        {
            return Err(invalid("messages: at least one message is required"));
        }
        let prompt = Prompt::render(&body, model, &key).map_err(of_messages)?;
        if !is_claude {
            check_nova(&body, &prompt)?;
        }
        let mut directive = anthropic::directive(&body);
        if let Some(status) = directive.status {
            return Err(scripted(status));
        }
        directive.think = directive.think.filter(|_| anthropic::thinks(&body));
        let script = Script::new(&directive, limit);
        let mut cache = call.state.anthropic();
        let plan = cache.plan(&prompt, model.cacheable_min, call.started);
        cache.commit(&plan, call.started);
        Ok(Self {
            model,
            model_name: name.to_owned(),
            key,
            usage: Usage {
                output: script.tokens(),
                reasoning: script.think,
                ..plan.usage
            },
            body,
            directive,
            script,
        })
    }

    fn answer(self, call: &Call<'_>, api: Api, stream: bool) -> (Answer, Directive) {
        let id = format!("{:022}", call.number);
        let mut headers = headers(call);
        let events = match (api, is_claude(self.model)) {
            (Api::InvokeModel, true) => self.claude(&id, stream),
            (_, is_claude) => self.converse(&id, stream, !is_claude && api == Api::InvokeModel),
        };
        if stream {
            headers.push((
                "content-type",
                "application/vnd.amazon.eventstream".to_owned(),
            ));
        } else if api == Api::InvokeModel {
            headers.extend(wire::count_headers(&self.usage));
        }
        let answer = Answer {
            api,
            id,
            model: self.model,
            model_name: self.model_name,
            tier: Tier::Standard,
            us: false,
            key: self.key,
            usage: self.usage,
            events,
            stream,
            failure: wire::failure(),
            headers,
        };
        (answer, self.directive)
    }

    /// An answer of `InvokeModel` for Claude.
    fn claude(&self, id: &str, stream: bool) -> Vec<Event> {
        let wire = anthropic::Wire {
            id: format!("msg_bdrk_{id}"),
            // Without the profile that was called.
            model: self.model.id.rsplit('.').next().unwrap_or_default(),
            speed: None,
            geo: "not_available",
            script: &self.script,
            usage: self.usage,
            signature: anthropic::sign(&self.body),
        };
        if stream {
            wire::claude_stream(&wire)
        } else {
            wire.plain()
        }
    }

    /// An answer of Converse, or of `InvokeModel` for Nova.
    fn converse(&self, id: &str, stream: bool, nova: bool) -> Vec<Event> {
        let answer = wire::Converse {
            id,
            script: &self.script,
            usage: self.usage,
            signature: anthropic::sign(&self.body),
            nova,
        };
        match (stream, nova) {
            (true, false) => wire::converse_stream(&answer),
            (true, true) => wire::nova_stream(&answer),
            (false, _) => vec![Event {
                bytes: answer.plain().to_string().into(),
                output: self.usage.output,
            }],
        }
    }
}

fn is_claude(model: &Model) -> bool {
    model.id.contains("anthropic.")
}

/// What the body of `InvokeModel` for Claude must and must not have; returns its limit of tokens.
fn check_claude(body: &Json) -> Result<u64, Refusal> {
    if body.text("anthropic_version").is_none() {
        return Err(invalid("anthropic_version: Field required"));
    }
    // The older integration of Claude, to which the models here belong, knows no marker at the top.
    let unknown = ["model", "stream", "cache_control"];
    if let Some(name) = unknown.iter().find(|name| body.get(name).is_some()) {
        return Err(invalid(format!("{name}: Extra inputs are not permitted")));
    }
    let limit = body.get("max_tokens").and_then(Json::as_u64);
    limit.ok_or_else(|| invalid("max_tokens: Field required"))
}

/// Nova caches its system prompt and the messages, for five minutes.
fn check_nova(body: &Json, prompt: &Prompt) -> Result<(), Refusal> {
    let tools = body.get("tools").map_or(&[][..], Json::items);
    let in_tools = tools.iter().any(|tool| tool.get("cache_control").is_some());
    if in_tools
        || prompt
            .breakpoints
            .iter()
            .any(|(_, ttl)| *ttl == anthropic::Ttl::Long)
    {
        return Err(invalid(
            "cachePoint is not supported there, or with that ttl, by this model",
        ));
    }
    Ok(())
}

/// A refusal of what Bedrock has in common with the Messages API.
fn of_messages(refusal: Refusal) -> Refusal {
    invalid(refusal.message)
}

/// The error that goes with a status that was asked for.
fn scripted(status: u16) -> Refusal {
    let kind = match status {
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        500 => "InternalServerException",
        503 => "ServiceUnavailableException",
        _ => "ValidationException",
    };
    Refusal::new(status, kind, "answered as directed")
}

fn request_id(call: &Call<'_>) -> String {
    format!("00000000-0000-4000-8000-{:012x}", call.number)
}

fn headers(call: &Call<'_>) -> Vec<(&'static str, String)> {
    vec![("x-amzn-requestid", request_id(call))]
}

fn refused(call: &Call<'_>, refusal: &Refusal) -> io::Result<Response<Body>> {
    let mut headers = headers(call);
    headers.push(("x-amzn-errortype", refusal.kind.to_owned()));
    let body = object! { "message": refusal.message.as_str() };
    reply_json(refusal.status, headers, &body)
}

/// A segment of a path without its escapes.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(digits.unwrap_or(b'%'));
        rest = after.get(2..).filter(|_| digits.is_some()).unwrap_or(after);
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}
