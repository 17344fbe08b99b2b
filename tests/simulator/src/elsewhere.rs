//! The same models at other hosts: Claude and Gemini on Vertex AI, and `OpenAI`'s on Azure. Each has paths, credentials and names of
//! its own around a body that is otherwise the maker's.

use std::io;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Response};

use crate::bill::Api;
use crate::body::Body;
use crate::exchange::{Call, Refusal};
use crate::json::Json;
use crate::models::Provider;
use crate::{anthropic, openai, others};

/// Whether `host` is one of these.
pub(crate) fn is_host(host: &str) -> bool {
    host.ends_with("aiplatform.googleapis.com") || host.ends_with(".openai.azure.com")
}

/// Answers a request.
pub(crate) async fn answer(mut call: Call<'_>, parts: &Parts) -> io::Result<Response<Body>> {
    let path = parts.uri.path();
    if let Some((_, target)) = path.split_once("/publishers/anthropic/models/") {
        return match as_messages(&mut call, target) {
            Ok(()) if target.starts_with("count-tokens:") => anthropic::count_tokens(&call),
            Ok(()) => anthropic::messages(&call).await,
            Err(refusal) => anthropic::refuse(&call, &refusal),
        };
    }
    if path.contains("/publishers/google/models/") {
        return others::answer(&call, Provider::Google, parts);
    }
    match as_chat_completions(&mut call, parts) {
        Ok(()) => openai::chat_completions(&call).await,
        Err(refusal) => openai::refuse(&call, Api::ChatCompletions, &refusal),
    }
}

/// Vertex AI: the model is in the path, the version in the body.
fn as_messages(call: &mut Call<'_>, target: &str) -> Result<(), Refusal> {
    let body = call.json()?;
    if body.text("anthropic_version").is_none() {
        return Err(Refusal::invalid("anthropic_version: Field required"));
    }
    let body = body.without("anthropic_version");
    let body = match target.split_once(':') {
        Some(("count-tokens", "rawPredict")) => body,
        Some((model, "rawPredict" | "streamRawPredict")) if body.get("model").is_none() => {
            with_model(body, model)
        }
        _ => return Err(Refusal::invalid("model: Extra inputs are not permitted")),
    };
    call.body = Bytes::from(body.to_string());
    let version = HeaderValue::from_static("2023-06-01");
    call.headers.insert("anthropic-version", version);
    Ok(())
}

/// Azure: the path names a deployment, the key has a header of its own.
fn as_chat_completions(call: &mut Call<'_>, parts: &Parts) -> Result<(), Refusal> {
    let deployment = parts.uri.path().strip_prefix("/openai/deployments/");
    let deployment = deployment.and_then(|path| path.strip_suffix("/chat/completions"));
    let query = parts.uri.query().unwrap_or_default();
    let (Some(DEPLOYMENT), true) = (deployment, query.contains("api-version=")) else {
        return Err(Refusal {
            code: Some("DeploymentNotFound"),
            ..Refusal::new(
                404,
                "404",
                "The API deployment for this resource does not exist.",
            )
        });
    };
    let body = call.json()?.without("model");
    call.body = Bytes::from(with_model(body, DEPLOYED_MODEL).to_string());
    call.deployment = Some(DEPLOYMENT);
    if let Some(key) = call.header("api-key") {
        let bearer = HeaderValue::from_str(&format!("Bearer {key}"));
        let bearer = bearer.map_err(|error| Refusal::invalid(error.to_string()))?;
        call.headers.insert(AUTHORIZATION, bearer);
    }
    Ok(())
}

fn with_model(body: Json, model: &str) -> Json {
    let mut members = vec![("model".to_owned(), model.into())];
    if let Json::Object(rest) = body {
        members.extend(rest);
    }
    Json::Object(members)
}

/// The one deployment there is: a name that its owner chose.
const DEPLOYMENT: &str = "weir-gauge";

/// What answers behind it.
const DEPLOYED_MODEL: &str = "gpt-5.5-2026-04-23";
