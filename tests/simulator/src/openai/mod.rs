//! Simulated `api.openai.com`: Chat Completions, Responses and Embeddings.

mod prompt;

mod cache;

mod chat;
mod embeddings;
mod realtime;
mod responses;

pub(crate) mod socket;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use http::{Method, Response};

pub(crate) use chat::chat_completions;
pub(crate) use embeddings::embeddings;
pub(crate) use responses::responses;

pub(crate) use self::cache::Wish;
pub(crate) use self::prompt::Prompt;

use self::cache::Cache;
use crate::bill::{Api, Usage};
use crate::body::Body;
use crate::desk::Served;
use crate::directive::Directive;
use crate::exchange::{Call, Refusal, reply_json};
use crate::json::{Json, object};
use crate::models::{self, Model, Provider, Tier};

/// What the provider remembers between calls.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    cache: Cache,
    /// Stored responses: the input and output items up to and including each, by its identifier.
    stored: HashMap<String, Vec<Json>>,
}

impl Memory {
    /// What `prompt` reads from the cache and writes to it, from now on.
    pub(crate) fn plan(
        &mut self,
        prompt: &Prompt,
        model: &Model,
        wish: Wish,
        now: Duration,
    ) -> Usage {
        let plan = self.cache.plan(prompt, model, wish, now);
        self.cache.commit(&plan, now);
        plan.usage
    }
}

/// `GET /v1/models`.
pub(crate) fn models(call: &Call<'_>) -> io::Result<Response<Body>> {
    if let Err(refusal) = authenticate(call) {
        return refused(call, &refusal);
    }
    let offered = models::MODELS
        .iter()
        .filter(|model| model.provider == Provider::OpenAi);
    let data: Vec<Json> = offered
        .map(|model| {
            object! {
                "id": model.id,
                "object": "model",
                "created": MODELS_CREATED,
                "owned_by": "openai",
            }
        })
        .collect();
    reply_json(
        200,
        headers(call),
        &object! { "object": "list", "data": data },
    )
}

/// What Codex asks `chatgpt.com` for besides calls: which models there are, beside those that it knows, and what is to
/// be installed. There is nothing.
pub(crate) fn housekeeping(call: &Call<'_>) -> io::Result<Response<Body>> {
    reply_json(
        200,
        headers(call),
        &object! { "models": Vec::<Json>::new() },
    )
}

/// Any other path.
pub(crate) fn not_found(
    call: &Call<'_>,
    method: &Method,
    path: &str,
) -> io::Result<Response<Body>> {
    refused(call, &Refusal::invalid_url(method, path))
}

/// A request without a connection: see [`crate::Desk`].
pub(crate) fn serve(
    memory: &mut Memory,
    api: Api,
    key: &str,
    body: &[u8],
    now: Duration,
) -> Result<Served, Refusal> {
    let body = Json::parse(body).map_err(|error| Refusal::invalid(error.to_string()))?;
    let model = find_model(&body)?;
    let wish = wish(&body, model, api == Api::Responses)?;
    let prompt = match api {
        Api::Responses => Prompt::responses(&body, &[], model, key),
        _ => Prompt::chat(&body, model, key),
    };
    let plan = memory.cache.plan(&prompt, model, wish, now);
    memory.cache.commit(&plan, now);
    Ok(Served {
        usage: plan.usage,
        nanodollars: model.nanodollars(&plan.usage, Tier::Standard, false),
        signature: String::new(),
        prefixes: prompt.prefixes(),
    })
}

fn find_model(body: &Json) -> Result<&'static Model, Refusal> {
    let id = body
        .text("model")
        .ok_or_else(|| Refusal::invalid("you must provide a model parameter"))?;
    models::find(Provider::OpenAi, id).ok_or_else(|| Refusal {
        code: Some("model_not_found"),
        ..Refusal::new(
            404,
            "invalid_request_error",
            format!("The model `{id}` does not exist"),
        )
    })
}

/// A request whose shape is right, as far as the two APIs have it in common.
struct Request {
    body: Json,
    key: String,
    model: &'static Model,
    tier: Tier,
    wish: Wish,
}

impl Request {
    fn read(call: &Call<'_>, long_allowed: bool) -> Result<Self, Refusal> {
        let key = authenticate(call)?.to_owned();
        let body = call.json()?;
        let Json::Object(_) = body else {
            return Err(Refusal::invalid(
                "expected a JSON object as the request body",
            ));
        };
        let model = find_model(&body)?;
        let tier = match body.text("service_tier") {
            Some("priority" | "fast") => Tier::Fast,
            Some("flex") => Tier::Flex,
            _ => Tier::Standard,
        };
        let tier = if model.offers(tier) {
            tier
        } else {
            Tier::Standard
        };
        let wish = wish(&body, model, long_allowed)?;
        Ok(Self {
            body,
            key,
            model,
            tier,
            wish,
        })
    }

    fn model_name(&self) -> &str {
        self.body.text("model").unwrap_or_default()
    }

    /// The tier as the answer reports it.
    const fn tier_name(&self) -> &'static str {
        match self.tier {
            Tier::Standard => "default",
            Tier::Fast => "priority",
            Tier::Flex => "flex",
        }
    }
}

fn wish(body: &Json, model: &Model, long_allowed: bool) -> Result<Wish, Refusal> {
    let options = body.get("prompt_cache_options").unwrap_or(&Json::Null);
    if !model.breakpoints && matches!(options, Json::Object(_)) {
        return Err(Refusal {
            code: Some("unsupported_parameter"),
            ..Refusal::invalid("prompt_cache_options is not supported with this model")
        });
    }
    let long = match options.text("ttl") {
        None | Some("30m") => false,
        Some("12h") if long_allowed => true,
        Some(other) => {
            let message = format!("prompt_cache_options.ttl: unsupported value {other:?}");
            return Err(Refusal::invalid(message));
        }
    };
    Ok(Wish {
        explicit_only: options.text("mode") == Some("explicit"),
        long,
    })
}

impl Refusal {
    fn invalid_url(method: &Method, path: &str) -> Self {
        Self::new(
            404,
            "invalid_request_error",
            format!("Invalid URL ({method} {path})"),
        )
    }
}

fn authenticate<'a>(call: &'a Call<'_>) -> Result<&'a str, Refusal> {
    call.bearer().ok_or_else(|| Refusal {
        code: Some("invalid_api_key"),
        ..Refusal::new(
            401,
            "invalid_request_error",
            "You didn't provide an API key",
        )
    })
}

/// The stage directions in the last of `items` that is not the model's own.
fn directive(items: &[Json]) -> Directive {
    let is_input = |item: &&Json| {
        matches!(item.text("role"), Some("user" | "tool"))
            || item.text("type") == Some("function_call_output")
    };
    let mut found = None;
    if let Some(last) = items.iter().rev().find(is_input) {
        last.strings(&mut |text| found = Directive::find(text).or_else(|| found.take()));
    }
    found.unwrap_or_default()
}

/// The error that goes with a status that was asked for.
fn scripted(status: u16, retry_after: Option<u64>) -> Refusal {
    let (kind, code) = match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        429 => ("requests", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    Refusal {
        code,
        retry_after,
        ..Refusal::new(status, kind, "answered as directed")
    }
}

fn request_id(call: &Call<'_>) -> String {
    format!("req_{:032x}", call.number)
}

fn headers(call: &Call<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("x-request-id", request_id(call)),
        ("openai-processing-ms", "1".to_owned()),
        ("openai-version", "2020-10-01".to_owned()),
        ("openai-organization", "simulated".to_owned()),
        ("x-ratelimit-limit-requests", "10000".to_owned()),
        ("x-ratelimit-remaining-requests", "9999".to_owned()),
        ("x-ratelimit-reset-requests", "6ms".to_owned()),
    ]
}

fn refused(call: &Call<'_>, refusal: &Refusal) -> io::Result<Response<Body>> {
    let mut headers = headers(call);
    if let Some(seconds) = refusal.retry_after {
        headers.push(("retry-after", seconds.to_string()));
    }
    let error = object! {
        "message": refusal.message.as_str(),
        "type": refusal.kind,
        "param": Json::Null,
        "code": refusal.code,
    };
    reply_json(refusal.status, headers, &object! { "error": error })
}

/// Refuses a call of a billed API.
pub(crate) fn refuse(call: &Call<'_>, api: Api, refusal: &Refusal) -> io::Result<Response<Body>> {
    let key = call.bearer().unwrap_or_default();
    call.refused(api, &request_id(call), key, refusal.status);
    refused(call, refusal)
}

const MODELS_CREATED: u64 = 1_790_000_000;

#[cfg(test)]
mod tests;
