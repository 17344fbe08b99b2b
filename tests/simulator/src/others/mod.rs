//! Simulated providers of other dialects: Gemini, Cohere, and two that speak Chat Completions in their own way, Mistral and
//! Groq. Prompts are cached by blocks of tokens, as far as a provider has that, and nobody charges for writes.

mod chat;
mod cohere;
mod gemini;

use std::io;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};

use crate::bill::{Api, Usage};
use crate::body::{Body, Event};
use crate::directive::Directive;
use crate::exchange::{Answer, Call, Refusal, reply_json};
use crate::json::{Json, object};
use crate::models::{self, Model, Provider, Tier};
use crate::openai::{Prompt, Wish};
use crate::script::Script;

/// The provider of a host.
pub(crate) fn provider(host: &str) -> Option<Provider> {
    Some(match host {
        "generativelanguage.googleapis.com" => Provider::Google,
        "api.mistral.ai" => Provider::Mistral,
        "api.groq.com" => Provider::Groq,
        "api.cohere.com" => Provider::Cohere,
        _ => return None,
    })
}

/// Answers a request to `provider`.
pub(crate) fn answer(
    call: &Call<'_>,
    provider: Provider,
    parts: &Parts,
) -> io::Result<Response<Body>> {
    let path = parts.uri.path();
    if provider == Provider::Google && gemini::is_count(path) {
        return match gemini::count_tokens(call) {
            Ok(counted) => reply_json(200, Vec::new(), &counted),
            Err(refusal) => refused(provider, &refusal),
        };
    }
    let answered = match (&parts.method, provider) {
        (&Method::POST, Provider::Google) => gemini::answer(call, path, parts.uri.query()),
        (&Method::POST, Provider::Mistral) if path == "/v1/chat/completions" => {
            chat::answer(call, provider)
        }
        (&Method::POST, Provider::Groq) if path == "/openai/v1/chat/completions" => {
            chat::answer(call, provider)
        }
        (&Method::POST, Provider::Cohere) if path == "/v2/chat" => cohere::answer(call),
        _ => Err(Refusal::new(404, "not_found", "no such path")),
    };
    match answered {
        Ok((answer, directive)) => call.send(answer, &directive),
        Err(refusal) => refused(provider, &refusal),
    }
}

fn refused(provider: Provider, refusal: &Refusal) -> io::Result<Response<Body>> {
    let message = refusal.message.as_str();
    let error = match provider {
        Provider::Google => object! { "error": object! {
            "code": u64::from(refusal.status), "status": refusal.kind, "message": message,
        } },
        Provider::Mistral => object! {
            "object": "error", "type": refusal.kind, "message": message, "code": Json::Null,
        },
        Provider::Cohere => object! { "message": message },
        _ => object! { "error": object! { "type": refusal.kind, "message": message } },
    };
    reply_json(refusal.status, Vec::new(), &error)
}

type Answered = Result<(Answer, Directive), Refusal>;

/// What the dialects have in common of a call.
struct Asked {
    model: &'static Model,
    model_name: String,
    key: String,
    directive: Directive,
    script: Script,
    usage: Usage,
}

impl Asked {
    /// Reads `prompt`, the parts of a body that the model sees, the last of which is the user's.
    fn read(
        call: &Call<'_>,
        provider: Provider,
        name: &str,
        prompt: &[Json],
        limit: Option<u64>,
    ) -> Result<Self, Refusal> {
        let key = call.header("x-goog-api-key").or_else(|| call.bearer());
        let key = key.ok_or_else(|| Refusal::new(401, "UNAUTHENTICATED", "no API key"))?;
        let model = models::find(provider, name)
            .ok_or_else(|| Refusal::new(404, "NOT_FOUND", format!("no model {name}")))?;
        let mut directive = None;
        if let Some(last) = prompt.last() {
            last.strings(&mut |text| {
                directive = Directive::find(text).or_else(|| directive.take());
            });
        }
        let directive = directive.unwrap_or_default();
        let script = Script::new(&directive, limit);
        let prompt = Prompt::texts(prompt, &[key, model.id]);
        let wish = Wish {
            explicit_only: false,
            long: false,
        };
        let plan = call.state.openai().plan(&prompt, model, wish, call.started);
        Ok(Self {
            model,
            model_name: name.to_owned(),
            key: key.to_owned(),
            directive,
            usage: Usage {
                output: script.tokens(),
                reasoning: script.think,
                ..plan
            },
            script,
        })
    }

    /// The answer of these events.
    fn answer(self, api: Api, id: String, events: Vec<Event>, stream: bool) -> (Answer, Directive) {
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
            failure: Bytes::new(),
            headers: Vec::new(),
        };
        (answer, self.directive)
    }

    /// One event that is the whole answer.
    fn whole(&self, body: &Json) -> Vec<Event> {
        vec![Event {
            bytes: body.to_string().into(),
            output: self.usage.output,
        }]
    }

    /// An event for each piece of the text, with the tokens so far.
    fn pieces(&self) -> Vec<(&str, u64)> {
        let mut output = self.script.think;
        let pieces = self.script.pieces.iter();
        pieces
            .map(|(text, tokens)| {
                output += tokens;
                (text.as_str(), output)
            })
            .collect()
    }
}
