//! The simulated provider: as little work as an answer takes, so that what is measured is the way to it.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use crate::process;
use crate::tls::{HTTP1, HTTP2, Identity};
use crate::traffic::{self, BODY_BYTES, DOWNLOAD, EVENTS, INTERVAL_MICROS};

/// How the server is started.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    identity: Identity,
}

/// Serves until standard input is closed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(options.identity.server_config(&[HTTP2, HTTP1])?);
    let canned = Bytes::from(serde_json::to_vec(&traffic::answer())?);
    process::serve(move |socket| connection(acceptor.clone(), canned.clone(), socket))
}

async fn connection(acceptor: TlsAcceptor, canned: Bytes, socket: TcpStream) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let tls = acceptor.accept(socket).await?;
    let http2 = tls.get_ref().1.alpn_protocol() == Some(HTTP2);
    let service = service_fn(move |request| {
        let canned = canned.clone();
        async move { Ok::<_, Infallible>(answer(canned, request).await) }
    });
    if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .serve_connection(TokioIo::new(tls), service)
            .await?;
    } else {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tls), service)
            .await?;
    }
    Ok(())
}

async fn answer(canned: Bytes, request: Request<Incoming>) -> Response<Answer> {
    let (parts, body) = request.into_parts();
    let Ok(received) = count(body).await else {
        return refusal(StatusCode::BAD_REQUEST);
    };
    if let Some(bytes) = parts.uri.path().strip_prefix(DOWNLOAD) {
        return match bytes.parse() {
            Ok(bytes) => respond("application/octet-stream", Answer::Filler(bytes)),
            Err(_) => refusal(StatusCode::BAD_REQUEST),
        };
    }
    if number(&parts.headers, BODY_BYTES) != Some(received) {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY);
    }
    match number(&parts.headers, EVENTS) {
        None => respond("application/json", Answer::Whole(Some(canned))),
        Some(texts) => {
            let micros = number(&parts.headers, INTERVAL_MICROS).unwrap_or_default();
            let events = Events::new(texts, Duration::from_micros(micros as u64));
            respond("text/event-stream; charset=utf-8", Answer::Events(events))
        }
    }
}

async fn count(body: Incoming) -> Result<usize, hyper::Error> {
    let (mut body, mut bytes) = (pin!(body), 0);
    while let Some(frame) = body.as_mut().frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes)
}

fn number(headers: &HeaderMap, name: &str) -> Option<usize> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn respond(content_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    let content_type = header::HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

fn refusal(status: StatusCode) -> Response<Answer> {
    let mut response = respond("text/plain", Answer::Whole(None));
    *response.status_mut() = status;
    response
}

/// The body of an answer.
enum Answer {
    Whole(Option<Bytes>),
    Events(Events),
    /// This many bytes that mean nothing.
    Filler(u64),
}

/// A streamed answer: all that is due is given at once.
struct Events {
    number: usize,
    texts: usize,
    interval: Duration,
    due: Pin<Box<Sleep>>,
}

impl Events {
    fn new(texts: usize, interval: Duration) -> Self {
        Self {
            number: 0,
            texts,
            interval,
            due: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // Timers are no finer than a millisecond, so that the first event must not wait for one.
        if !self.interval.is_zero() && self.number > 0 {
            ready!(self.due.as_mut().poll(context));
        }
        if !self.interval.is_zero() {
            self.due.as_mut().reset(Instant::now() + self.interval);
        }
        let event = traffic::event(self.number, self.texts);
        self.number += 1;
        Poll::Ready(event.map(Bytes::from))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Events(events) => ready!(events.poll(context)),
            Self::Filler(0) => None,
            Self::Filler(left) => {
                let now = (*left).min(FILLER.len() as u64);
                *left -= now;
                Some(Bytes::from_static(FILLER).slice(..usize::try_from(now).unwrap_or_default()))
            }
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Events(_) => SizeHint::new(),
            Self::Filler(bytes) => SizeHint::with_exact(*bytes),
        }
    }
}

static FILLER: &[u8] = &[b'w'; 64 << 10];
/// HTTP/2 flow control that a body of 1 MB does not wait for.
const WINDOW_BYTES: u32 = 2 << 20;
