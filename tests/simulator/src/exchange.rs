//! One request and its answer: kept, recognised by its path, answered, and put on the bill.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::anthropic;
use crate::bedrock;
use crate::bill::{Api, Billed, Books, Received, Terms, Usage};
use crate::body::{Body, Event, Meter};
use crate::clock::Clock;
use crate::connection::Wire;
use crate::directive::{Directive, Encoding};
use crate::elsewhere;
use crate::json::Json;
use crate::models::{Model, Tier};
use crate::openai::{self, socket};
use crate::others;

/// What the simulated providers know.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) books: Arc<Books>,
    pub(crate) preserved_thinking: bool,
    anthropic: Mutex<anthropic::Cache>,
    openai: Mutex<openai::Memory>,
    answers: AtomicU64,
}

impl State {
    pub(crate) fn new(clock: Clock, preserved_thinking: bool) -> Self {
        Self {
            clock,
            books: Arc::default(),
            preserved_thinking,
            anthropic: Mutex::default(),
            openai: Mutex::default(),
            answers: AtomicU64::new(0),
        }
    }

    /// The number of the next call.
    pub(crate) fn number(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn anthropic(&self) -> MutexGuard<'_, anthropic::Cache> {
        self.anthropic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn openai(&self) -> MutexGuard<'_, openai::Memory> {
        self.openai.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has been read.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a State,
    pub(crate) wire: &'a Arc<Wire>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Number of the call, from which its identifiers are made.
    pub(crate) number: u64,
    /// When it arrived, since the Unix epoch.
    pub(crate) started: Duration,
    /// What it is billed as, if it came as a message of a WebSocket.
    pub(crate) in_socket: Option<Api>,
    /// Whether the host answers from one region, for a tenth more.
    pub(crate) regional: bool,
    /// The name that the caller's own resource has for the model.
    pub(crate) deployment: Option<&'static str>,
}

/// A call that is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// Kind of the error in the provider's vocabulary.
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    pub(crate) message: String,
    pub(crate) retry_after: Option<u64>,
}

/// An answer before it is sent.
pub(crate) struct Answer {
    pub(crate) api: Api,
    pub(crate) id: String,
    pub(crate) model: &'static Model,
    /// The model as the caller called it.
    pub(crate) model_name: String,
    pub(crate) tier: Tier,
    pub(crate) us: bool,
    pub(crate) key: String,
    pub(crate) usage: Usage,
    pub(crate) events: Vec<Event>,
    /// Whether it is sent as server-sent events.
    pub(crate) stream: bool,
    /// The event for `error_after`.
    pub(crate) failure: Bytes,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Reads, keeps and answers a request.
pub(crate) async fn answer(
    state: &Arc<State>,
    wire: &Arc<Wire>,
    mut request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let started = state.clock.now();
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let headers = wire.headers().unwrap_or_else(|| as_parsed(&parts.headers));
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(io::Error::other)?;
    let body = body.to_bytes();
    wire.expect_head();
    state.books.receive(Received {
        method: parts.method.to_string(),
        path: parts
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        version: parts.version,
        server_name: wire.server_name.clone(),
        authority: parts.uri.authority().map(ToString::to_string),
        headers,
        body: body.clone(),
    });
    let openai = is_openai(&parts, wire);
    let host = host(&parts, wire);
    let call = Call {
        state,
        wire,
        headers: parts.headers.clone(),
        body,
        number: state.number(),
        started,
        in_socket: None,
        regional: host.is_some_and(|host| host.ends_with("-aiplatform.googleapis.com")),
        deployment: None,
    };
    if host.is_some_and(bedrock::is_host) {
        return bedrock::answer(&call, &parts);
    }
    if host.is_some_and(elsewhere::is_host) {
        return elsewhere::answer(call, &parts).await;
    }
    if let Some(provider) = host.and_then(others::provider) {
        return others::answer(&call, provider, &parts);
    }
    match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/v1/messages") => anthropic::messages(&call).await,
        (&Method::POST, "/v1/messages/count_tokens") => anthropic::count_tokens(&call),
        (&Method::POST, "/v1/chat/completions") => openai::chat_completions(&call).await,
        (&Method::POST, "/v1/embeddings") => openai::embeddings(&call),
        (&Method::POST, "/v1/responses") => openai::responses(&call).await,
        (&Method::GET, "/v1/responses") if openai && socket::is_asked_for(&parts) => {
            socket::upgrade(state, wire, &parts, upgrade)
        }
        (&Method::GET, "/v1/realtime") if openai && socket::is_asked_for(&parts) => {
            socket::upgrade(state, wire, &parts, upgrade)
        }
        (&Method::GET, "/v1/models") if openai => openai::models(&call),
        (&Method::GET, "/v1/models") => anthropic::models(&call),
        (&Method::HEAD, "/api/hello") => reply(200, &[], Body::free(Bytes::new())),
        (_, path) if path.starts_with("/backend-api/") => openai::housekeeping(&call),
        (_, path) if path.starts_with("/api/") && !openai => anthropic::housekeeping(&call),
        (method, path) if openai => openai::not_found(&call, method, path),
        (_, _) => anthropic::not_found(&call),
    }
}

/// The host that was called.
fn host<'a>(parts: &'a http::request::Parts, wire: &'a Wire) -> Option<&'a str> {
    let named = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = parts.uri.host().or(named).or(wire.server_name.as_deref())?;
    host.split(':').next()
}

/// Whether `OpenAI`'s host was called.
fn is_openai(parts: &http::request::Parts, wire: &Wire) -> bool {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let named = [parts.uri.host(), host, wire.server_name.as_deref()];
    named
        .into_iter()
        .flatten()
        .any(|name| name.starts_with("api.openai.com"))
        || parts.uri.path().starts_with("/v1/chat/")
        || parts.uri.path().starts_with("/v1/responses")
}

fn as_parsed(headers: &HeaderMap) -> Vec<(String, Bytes)> {
    let bytes = |value: &http::HeaderValue| Bytes::copy_from_slice(value.as_bytes());
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), bytes(value)))
        .collect()
}

impl Call<'_> {
    /// The body, decoded and parsed.
    pub(crate) fn json(&self) -> Result<Json, Refusal> {
        let invalid = |message: String| Refusal::new(400, "invalid_request_error", message);
        let encoding = self
            .headers
            .get(CONTENT_ENCODING)
            .map(|value| value.to_str());
        let decoded = match encoding.transpose() {
            Ok(None | Some("identity")) => self.body.clone(),
            Ok(Some(token)) => match Encoding::named(token) {
                Some(encoding) => encoding
                    .decode(&self.body, BODY_BYTES_MAX)
                    .map_err(|error| {
                        invalid(format!("request body is not valid {token}: {error}"))
                    })?,
                None => return Err(invalid(format!("unsupported content-encoding {token:?}"))),
            },
            Err(error) => return Err(invalid(format!("unreadable content-encoding: {error}"))),
        };
        Json::parse(&decoded).map_err(|error| {
            invalid(format!(
                "could not parse the JSON body of your request: {error}"
            ))
        })
    }

    /// The value of a header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The key of an `authorization: Bearer` header.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let value = self.header("authorization")?;
        value
            .strip_prefix("Bearer ")
            .map(str::trim)
            .filter(|key| !key.is_empty())
    }

    /// Puts the answer on the bill and starts to send it.
    pub(crate) fn send(&self, answer: Answer, directive: &Directive) -> io::Result<Response<Body>> {
        let Answer {
            model,
            tier,
            us,
            usage,
            stream,
            ..
        } = answer;
        let terms = Terms { model, tier, us };
        // A plain answer is there as a whole before its first byte is sent.
        let so_far = if stream {
            Usage {
                output: 0,
                reasoning: 0,
                ..usage
            }
        } else {
            usage
        };
        let line = self.state.books.enter(Billed {
            id: answer.id,
            api: answer.api,
            model: answer.model_name,
            key: answer.key,
            usage: so_far,
            nanodollars: model.nanodollars(&so_far, tier, us),
            status: 200,
        });
        let meter = Meter {
            books: Arc::clone(&self.state.books),
            line,
            terms,
            usage,
        };
        let events = if stream {
            spoil_stream(answer.events, directive)
        } else {
            spoil_plain(answer.events, directive, usage.output)
        };
        let failure = stream.then_some(answer.failure);
        let wire = Arc::clone(self.wire);
        let body = Body::script(events, !stream, directive, failure, (meter, wire))?;
        let mut headers = answer.headers;
        let content_type = if stream {
            "text/event-stream; charset=utf-8"
        } else {
            "application/json"
        };
        if !headers
            .iter()
            .any(|(name, _)| *name == CONTENT_TYPE.as_str())
        {
            headers.push((CONTENT_TYPE.as_str(), content_type.to_owned()));
        }
        if stream {
            headers.push(("cache-control", "no-cache".to_owned()));
        }
        if let Some(encoding) = directive.encoding {
            headers.push((CONTENT_ENCODING.as_str(), encoding.token().to_owned()));
        }
        if directive.lie_content_length {
            headers.push((
                CONTENT_LENGTH.as_str(),
                (body.bytes_total() + 1).to_string(),
            ));
        }
        reply(200, &headers, body)
    }

    /// Puts a call that is not served on the bill, with nothing to pay.
    pub(crate) fn refused(&self, api: Api, id: &str, key: &str, status: u16) {
        self.state.books.enter(Billed {
            id: id.to_owned(),
            api,
            model: String::new(),
            key: key.to_owned(),
            usage: Usage::default(),
            nanodollars: 0,
            status,
        });
    }
}

impl Refusal {
    pub(crate) fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }
}

/// A response. Header values come from this crate, so that they are always valid.
pub(crate) fn reply(
    status: u16,
    headers: &[(&'static str, String)],
    body: Body,
) -> io::Result<Response<Body>> {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(body).map_err(io::Error::other)
}

/// A reply of one JSON value.
pub(crate) fn reply_json(
    status: u16,
    mut headers: Vec<(&'static str, String)>,
    value: &Json,
) -> io::Result<Response<Body>> {
    headers.push((CONTENT_TYPE.as_str(), "application/json".to_owned()));
    reply(status, &headers, Body::free(Bytes::from(value.to_string())))
}

/// The events of a stream, without the last or with a broken one if so directed.
fn spoil_stream(mut events: Vec<Event>, directive: &Directive) -> Vec<Event> {
    if directive.truncate {
        events.pop();
    }
    if let (true, Some(event)) = (directive.malformed, events.get_mut(MALFORMED_EVENT)) {
        event.bytes = Bytes::from_static(b"data: {\"type\": \"content_block_de\n\n");
    }
    events
}

/// A plain body in as many pieces as directed, cut short or broken if so directed.
fn spoil_plain(events: Vec<Event>, directive: &Directive, output: u64) -> Vec<Event> {
    let mut bytes: Bytes = events
        .iter()
        .flat_map(|event| event.bytes.iter().copied())
        .collect::<Vec<u8>>()
        .into();
    if directive.truncate {
        bytes.truncate(bytes.len() / 2);
    }
    if directive.malformed {
        bytes = Bytes::from([b"{\"oops\": ".as_ref(), &bytes].concat());
    }
    let faults = [directive.stall_after, directive.reset_after]
        .iter()
        .any(Option::is_some);
    let pieces = directive
        .events
        .filter(|_| faults || !directive.delay.is_zero());
    let size = usize::try_from(pieces.unwrap_or(1)).map_or(1, |n| bytes.len().div_ceil(n.max(1)));
    bytes
        .chunks(size.max(1))
        .map(|chunk| Event {
            bytes: bytes.slice_ref(chunk),
            output,
        })
        .collect()
}

/// Which event `malformed` breaks, counted from 0.
const MALFORMED_EVENT: usize = 3;

/// Bytes of a request body, before and after decoding.
const BODY_BYTES_MAX: usize = 64 << 20;
