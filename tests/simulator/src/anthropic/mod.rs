//! Simulated `api.anthropic.com`: the Messages API.

mod prompt;

mod cache;

mod binding;

mod wire;

use std::io;
use std::time::Duration;

use http::Response;

pub(crate) use binding::sign;
pub(crate) use cache::Cache;
pub(crate) use prompt::{Prompt, Ttl};
pub(crate) use wire::Wire;

use crate::bill::Api;
use crate::body::Body;
use crate::desk::Served;
use crate::directive::Directive;
use crate::exchange::{Answer, Call, Refusal, reply_json};
use crate::json::{Json, object};
use crate::models::{self, Model, Provider, Tier};
use crate::script::Script;

/// `POST /v1/messages`.
pub(crate) async fn messages(call: &Call<'_>) -> io::Result<Response<Body>> {
    let key = key(call).unwrap_or_default().to_owned();
    let refuse = |refusal: &Refusal| refuse(call, refusal);
    let request = match Request::read(call) {
        Ok(request) => request,
        Err(refusal) => return refuse(&refusal),
    };
    let directive = directive(&request.body);
    if let Some(status) = directive.status {
        return refuse(&scripted(status, directive.retry_after));
    }
    let prompt = match request.prompt(call) {
        Ok(prompt) => prompt,
        Err(refusal) => return refuse(&refusal),
    };
    let plan = call
        .state
        .anthropic()
        .plan(&prompt, request.model.cacheable_min, call.started);
    if !directive.start.is_zero() {
        tokio::time::sleep(directive.start).await;
    }
    call.state.anthropic().commit(&plan, call.started);

    let script = request.script(&directive);
    let mut usage = plan.usage;
    usage.output = script.tokens();
    usage.reasoning = script.think;
    let wire = Wire {
        id: format!("msg_01Simulated{:011}", call.number),
        model: request.body.text("model").unwrap_or_default(),
        speed: (request.tier == Tier::Fast).then_some("fast"),
        geo: request
            .body
            .text("inference_geo")
            .unwrap_or("not_available"),
        script: &script,
        usage,
        signature: sign(&request.body),
    };
    let stream = request.body.is_true("stream");
    let answer = Answer {
        api: Api::Messages,
        id: wire.id.clone(),
        model: request.model,
        model_name: wire.model.to_owned(),
        tier: request.tier,
        us: wire.geo == "us" || call.regional,
        key: key.clone(),
        usage,
        events: if stream { wire.stream() } else { wire.plain() },
        stream,
        failure: wire::failure(),
        headers: headers(call),
    };
    call.send(answer, &directive)
}

/// A request without a connection: see [`crate::Desk`].
pub(crate) fn serve(
    cache: &mut Cache,
    key: &str,
    body: &[u8],
    now: Duration,
) -> Result<Served, Refusal> {
    let body = Json::parse(body).map_err(|error| Refusal::invalid(error.to_string()))?;
    let model = find_model(&body)?;
    if model.preserved_thinking {
        binding::check(&body)?;
    }
    let prompt = Prompt::render(&body, model, key)?;
    let plan = cache.plan(&prompt, model.cacheable_min, now);
    cache.commit(&plan, now);
    Ok(Served {
        usage: plan.usage,
        nanodollars: model.nanodollars(&plan.usage, Tier::Standard, false),
        signature: sign(&body),
        prefixes: prompt
            .blocks
            .iter()
            .map(|block| block.prefix.value())
            .collect(),
    })
}

/// `POST /v1/messages/count_tokens`.
pub(crate) fn count_tokens(call: &Call<'_>) -> io::Result<Response<Body>> {
    let counted = authenticate(call)
        .and_then(|key| Ok((key, call.json()?)))
        .and_then(|(key, body)| prompt(call, &body, find_model(&body)?, key));
    match counted {
        Ok(prompt) => reply_json(
            200,
            headers(call),
            &object! { "input_tokens": prompt.tokens() },
        ),
        Err(refusal) => refused(call, &refusal),
    }
}

/// `GET /v1/models`.
pub(crate) fn models(call: &Call<'_>) -> io::Result<Response<Body>> {
    if let Err(refusal) = authenticate(call) {
        return refused(call, &refusal);
    }
    let offered = models::MODELS
        .iter()
        .filter(|model| model.provider == Provider::Anthropic);
    let data: Vec<Json> = offered
        .map(|model| {
            object! {
                "type": "model",
                "id": model.id,
                "display_name": model.id,
                "created_at": "2026-09-01T00:00:00Z",
                "max_input_tokens": 1_000_000_u64,
                "max_tokens": 64_000_u64,
            }
        })
        .collect();
    let first = data
        .first()
        .and_then(|model| model.text("id"))
        .map(str::to_owned);
    let last = data
        .last()
        .and_then(|model| model.text("id"))
        .map(str::to_owned);
    let list = object! { "data": data, "has_more": false, "first_id": first, "last_id": last };
    reply_json(200, headers(call), &list)
}

/// What Claude Code asks for besides calls (settings, features, where to report what): nothing is set, and what is
/// reported is taken.
pub(crate) fn housekeeping(call: &Call<'_>) -> io::Result<Response<Body>> {
    reply_json(200, headers(call), &Json::Object(Vec::new()))
}

/// Any other path.
pub(crate) fn not_found(call: &Call<'_>) -> io::Result<Response<Body>> {
    refused(call, &Refusal::new(404, "not_found_error", "Not found"))
}

/// A request whose shape is right.
struct Request {
    body: Json,
    model: &'static Model,
    tier: Tier,
    max_tokens: u64,
}

impl Request {
    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        authenticate(call)?;
        if call.header("anthropic-version").is_none() {
            return Err(Refusal::invalid("anthropic-version: header is required"));
        }
        let body = call.json()?;
        let model = find_model(&body)?;
        let max_tokens = body
            .get("max_tokens")
            .and_then(Json::as_u64)
            .ok_or_else(|| Refusal::invalid("max_tokens: Field required"))?;
        if body
            .get("messages")
            .is_none_or(|messages| messages.items().is_empty())
        {
            return Err(Refusal::invalid(
                "messages: at least one message is required",
            ));
        }
        let tier = if body.text("speed") == Some("fast") {
            Tier::Fast
        } else {
            Tier::Standard
        };
        if !model.offers(tier) {
            return Err(Refusal::invalid(
                "speed: 'fast' is not supported on this model",
            ));
        }
        let sampling = ["temperature", "top_p", "top_k"];
        if let (Some(STRICT_VERSION), Some(name)) = (
            call.header("anthropic-version"),
            sampling.iter().find(|name| body.get(name).is_some()),
        ) {
            return Err(Refusal::invalid(format!(
                "{name}: Extra inputs are not permitted"
            )));
        }
        Ok(Self {
            body,
            model,
            tier,
            max_tokens,
        })
    }

    fn prompt(&self, call: &Call<'_>) -> Result<Prompt, Refusal> {
        self.check()?;
        prompt(call, &self.body, self.model, authenticate(call)?)
    }

    /// A request for no tokens only fills the cache, and may not ask for what needs an answer.
    fn check(&self) -> Result<(), Refusal> {
        let forced = self
            .body
            .at(&["tool_choice", "type"])
            .and_then(Json::as_str);
        let needs_answer = self.body.is_true("stream")
            || thinks(&self.body)
            || self.body.at(&["output_config", "format"]).is_some()
            || matches!(forced, Some("any" | "tool"));
        if self.max_tokens == 0 && needs_answer {
            return Err(Refusal::invalid(
                "max_tokens: 0 is not allowed with stream, thinking, a format or a forced tool_choice",
            ));
        }
        Ok(())
    }

    fn script(&self, directive: &Directive) -> Script {
        let mut directive = directive.clone();
        directive.think =
            thinks(&self.body).then(|| directive.think.unwrap_or(DEFAULT_THINKING_TOKENS));
        Script::new(&directive, Some(self.max_tokens))
    }
}

/// Whether `body` asks the model to think.
pub(crate) fn thinks(body: &Json) -> bool {
    matches!(
        body.at(&["thinking", "type"]).and_then(Json::as_str),
        Some("enabled" | "adaptive")
    )
}

/// The prompt of `body`, if the thinking blocks in it are where they belong.
fn prompt(
    call: &Call<'_>,
    body: &Json,
    model: &'static Model,
    key: &str,
) -> Result<Prompt, Refusal> {
    let asked = body
        .at(&["thinking", "block_binding", "prefix_mismatch_behavior"])
        .is_some();
    if model.preserved_thinking && (call.state.preserved_thinking || asked) {
        binding::check(body)?;
    }
    Prompt::render(body, model, key)
}

fn key<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    call.header("x-api-key")
        .filter(|key| !key.is_empty())
        .or_else(|| call.bearer())
}

fn authenticate<'a>(call: &'a Call<'_>) -> Result<&'a str, Refusal> {
    key(call)
        .ok_or_else(|| Refusal::new(401, "authentication_error", "x-api-key header is required"))
}

fn find_model(body: &Json) -> Result<&'static Model, Refusal> {
    let id = body
        .text("model")
        .ok_or_else(|| Refusal::invalid("model: Field required"))?;
    models::find(Provider::Anthropic, id)
        .ok_or_else(|| Refusal::new(404, "not_found_error", format!("model: {id}")))
}

/// The stage directions in the last user message.
pub(crate) fn directive(body: &Json) -> Directive {
    let messages = body.get("messages").map_or(&[][..], Json::items);
    let last = messages
        .iter()
        .rev()
        .find(|message| message.text("role") == Some("user"));
    let mut found = None;
    if let Some(content) = last.and_then(|message| message.get("content")) {
        content.strings(&mut |text| found = Directive::find(text).or_else(|| found.take()));
    }
    let tools = body.get("tools").map_or(&[][..], Json::items);
    found.unwrap_or_default().play(messages, tools)
}

/// The error that goes with a status that was asked for.
fn scripted(status: u16, retry_after: Option<u64>) -> Refusal {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let message = if status == 529 {
        "Overloaded"
    } else {
        "answered as directed"
    };
    Refusal {
        retry_after,
        ..Refusal::new(status, kind, message)
    }
}

fn request_id(call: &Call<'_>) -> String {
    format!("req_011Simulated{:08}", call.number)
}

fn headers(call: &Call<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("request-id", request_id(call)),
        ("anthropic-organization-id", ORGANIZATION.to_owned()),
        ("anthropic-ratelimit-requests-limit", "4000".to_owned()),
        ("anthropic-ratelimit-requests-remaining", "3999".to_owned()),
        (
            "anthropic-ratelimit-requests-reset",
            "2026-12-01T00:00:00Z".to_owned(),
        ),
    ]
}

/// Refuses a call of the Messages API.
pub(crate) fn refuse(call: &Call<'_>, refusal: &Refusal) -> io::Result<Response<Body>> {
    let key = key(call).unwrap_or_default();
    call.refused(Api::Messages, &request_id(call), key, refusal.status);
    refused(call, refusal)
}

fn refused(call: &Call<'_>, refusal: &Refusal) -> io::Result<Response<Body>> {
    let mut headers = headers(call);
    if let Some(seconds) = refusal.retry_after {
        headers.push(("retry-after", seconds.to_string()));
    }
    let body = object! {
        "type": "error",
        "error": object! { "type": refusal.kind, "message": refusal.message.as_str() },
        "request_id": request_id(call),
    };
    reply_json(refusal.status, headers, &body)
}

const ORGANIZATION: &str = "5e1f0000-0000-4000-8000-0000000051a0";

/// Since this API version, sampling parameters are refused.
const STRICT_VERSION: &str = "2026-10-21";

const DEFAULT_THINKING_TOKENS: u64 = 16;

#[cfg(test)]
mod tests;
