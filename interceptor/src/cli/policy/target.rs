//! Where a request goes: as it is told or, since a file says neither host nor path, as its shape tells.

use anyhow::{Context as _, bail};
use serde_json::Value;
use weir_core::api::{self, Api, Endpoint};
use weir_core::call::{self, Call};
use weir_core::catalog::{Catalog, Listing, Provider};

/// Where a request goes, and what it asks for.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) provider: Provider,
    pub(super) api: Api,
    pub(super) call: Call,
    /// Empty where only the path would tell it, and none was given.
    pub(super) model: String,
}

/// What a body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Messages,
    Chat,
    Responses,
    Gemini,
    Converse,
}

impl Target {
    /// Reads a body for a host and a path, as far as they are given.
    pub(super) fn of(body: &[u8], host: Option<&str>, path: Option<&str>) -> anyhow::Result<Self> {
        let json: Value = serde_json::from_slice(body)
            .context("expected the body of a request, a JSON object")?;
        let shape = Shape::of(&json);
        let model = json.get("model").and_then(Value::as_str);
        let guessed = shape.map(|shape| shape.host(model.unwrap_or_default()));
        let Some(host) = host.or(guessed) else {
            bail!(
                "expected a prompt (messages, input or contents), found {}; if it is one, say whose \
                 with --host and --path",
                names(&json)
            );
        };
        let provider = match Catalog::builtin().lookup(host) {
            Listing::Provider(provider) => provider,
            Listing::Ignored | Listing::Unknown => Provider::Configured,
        };
        let path = path.unwrap_or_else(|| shape.unwrap_or(Shape::Chat).path(provider));
        let Endpoint::Call(api) = api::recognize(provider, "POST", path) else {
            bail!("expected the path of a call, found {path} of {host}; say which with --path");
        };
        let mut call = call::parse(api, body)
            .map_err(|error| anyhow::anyhow!("expected a call of {}: {error}", api.as_str()))?;
        call.complete(api::said_by_path(api, path));
        let model = call.model.clone().filter(|model| model != UNKNOWN);
        Ok(Self {
            host: host.to_owned(),
            provider,
            api,
            call,
            model: model.unwrap_or_default(),
        })
    }
}

impl Shape {
    fn of(json: &Value) -> Option<Self> {
        let has = |name| json.get(name).is_some();
        let first = json.pointer("/messages/0/content/0");
        let is_converse = |block: &Value| block.is_object() && block.get("type").is_none();
        if has("contents") {
            Some(Self::Gemini)
        } else if has("input") || has("instructions") {
            Some(Self::Responses)
        } else if !has("messages") {
            None
        } else if first.is_some_and(is_converse) || has("toolConfig") {
            Some(Self::Converse)
        } else {
            let model = json.get("model").and_then(Value::as_str);
            let is_claude = model.is_some_and(|model| model.starts_with("claude"));
            let is_theirs = has("system") || has("anthropic_version");
            Some(if is_claude || is_theirs {
                Self::Messages
            } else {
                Self::Chat
            })
        }
    }

    /// The host that most requests of this shape go to.
    fn host(self, model: &str) -> &'static str {
        match self {
            Self::Messages => "api.anthropic.com",
            Self::Chat if model.contains('/') => "openrouter.ai",
            Self::Chat | Self::Responses => "api.openai.com",
            Self::Gemini => "generativelanguage.googleapis.com",
            Self::Converse => "bedrock-runtime.us-east-1.amazonaws.com",
        }
    }

    /// The path that requests of this shape go to at a provider.
    const fn path(self, provider: Provider) -> &'static str {
        match (self, provider) {
            (Self::Messages, Provider::Bedrock) => "/model/unknown/invoke",
            (Self::Messages, Provider::OpenRouter) => "/api/v1/messages",
            (Self::Messages, _) => "/v1/messages",
            (Self::Chat, Provider::OpenRouter) => "/api/v1/chat/completions",
            (Self::Chat, _) => "/v1/chat/completions",
            (Self::Responses, _) => "/v1/responses",
            (Self::Gemini, _) => "/v1beta/models/unknown:generateContent",
            (Self::Converse, _) => "/model/unknown/converse",
        }
    }
}

/// What a body has, for whoever gave another file than he meant to.
fn names(json: &Value) -> String {
    match json {
        Value::Object(members) if members.is_empty() => "an empty object".to_owned(),
        Value::Object(members) => {
            let names: Vec<&str> = members.keys().take(NAMES_MAX).map(String::as_str).collect();
            format!("the members {}", names.join(", "))
        }
        Value::Array(_) => "an array".to_owned(),
        _ => "a single value".to_owned(),
    }
}

/// The model in a path that was not given.
const UNKNOWN: &str = "unknown";
/// Names of members that an error tells.
const NAMES_MAX: usize = 8;
