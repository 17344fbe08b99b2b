//! `POST /v1/embeddings`.

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Response;

use super::{Prompt, Request, headers, refuse};
use crate::bill::{Api, Usage};
use crate::body::{Body, Event};
use crate::directive::Directive;
use crate::exchange::{Answer, Call, Refusal};
use crate::json::{Json, object};

/// Answers the call: the same two numbers for each text.
pub(crate) fn embeddings(call: &Call<'_>) -> io::Result<Response<Body>> {
    let api = Api::Embeddings;
    let request = match Request::read(call, false) {
        Ok(request) => request,
        Err(refusal) => return refuse(call, api, &refusal),
    };
    let texts = match request.body.get("input") {
        Some(text @ Json::String(_)) => vec![text.clone()],
        Some(texts) => texts.items().to_vec(),
        None => return refuse(call, api, &Refusal::invalid("input: expected a text")),
    };
    let usage = Usage {
        input_uncached: Prompt::texts(&texts, &[]).tokens(),
        ..Usage::default()
    };
    let embedding = if request.body.text("encoding_format") == Some("base64") {
        let bytes = [1_f32, 0.0].map(f32::to_le_bytes).concat();
        Json::from(BASE64_STANDARD.encode(bytes))
    } else {
        vec![Json::from(1_u64), Json::from(0_u64)].into()
    };
    let data: Vec<Json> = (0..texts.len() as u64)
        .map(|index| {
            object! { "object": "embedding", "index": index, "embedding": embedding.clone() }
        })
        .collect();
    let tokens = usage.input_uncached;
    let body = object! {
        "object": "list",
        "data": data,
        "model": request.model_name(),
        "usage": object! { "prompt_tokens": tokens, "total_tokens": tokens },
    };
    let answer = Answer {
        api,
        id: format!("embd-Simulated{:018}", call.number),
        model: request.model,
        model_name: request.model_name().to_owned(),
        tier: request.tier,
        us: false,
        key: request.key.clone(),
        usage,
        events: vec![Event {
            bytes: body.to_string().into(),
            output: 0,
        }],
        stream: false,
        failure: bytes::Bytes::new(),
        headers: headers(call),
    };
    call.send(answer, &Directive::default())
}
