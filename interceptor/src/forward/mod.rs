//! Sends requests to their original destination over verified, pooled connections.

mod body;
pub(crate) mod connect;
mod driven;
mod http1;
mod pool;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_rustls::client::TlsStream;

pub(crate) use body::{Begun, RequestBody, UpstreamBody};
pub(crate) use connect::{Destination, DialError, Dialer};

use crate::client_hello::Offer;
use crate::process::limits;
use crate::read_ahead::ReadAhead;
use http1::Http1;
use pool::{Pool, WayBack};

/// Its body is boxed, because hyper keeps room for 32 requests per connection.
type Outgoing = Request<Box<RequestBody>>;
type Http2 = hyper::client::conn::http2::SendRequest<Box<RequestBody>>;

/// Flow-control windows of HTTP/2 in bytes (RFC 9113, section 5.2): a prompt of 1 MB goes out
/// without waiting for the other side, and a fast stream is not held back by us.
pub(crate) const STREAM_WINDOW: u32 = 2 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 8 << 20;

/// More header fields than any provider takes (hyper's own default is 100).
pub(crate) const HEADERS_MAX: usize = 256;

/// Bytes of all header fields of an HTTP/2 message (hyper's own default is 16 KiB, less than what
/// providers take): as many as HTTP/1.1 messages may have here.
pub(crate) const HEADER_LIST_BYTES_MAX: u32 = 400 << 10;

/// Connections that may serve one another's requests: same host, same address, same protocols.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    /// Lower case.
    pub(crate) host: Arc<str>,
    pub(crate) destination: Destination,
    pub(crate) offer: Offer,
}

/// The HTTP version that an upstream connection speaks, as negotiated by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.1 without ALPN.
    Http1Unnegotiated,
    Http1,
    Http2,
}

impl Protocol {
    /// What a server answers to ALPN (RFC 7301, section 3.2).
    pub(crate) fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http1Unnegotiated => Vec::new(),
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The application did not send all of it.
    #[error("expected the whole request, found: {0}")]
    Request(anyhow::Error),
    /// It was never sent.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It may have been sent, and no answer came.
    #[error("expected an answer from the provider, found: {0}")]
    Broken(#[from] hyper::Error),
}

/// A connection on which a request can be sent now.
enum Connected {
    Http1(Box<Http1>),
    Http2(Http2),
}

/// The provider, as one connection of an application is served by it.
///
/// HTTP/1.1 connections are taken for one request each and go back to the pool; so an application
/// that opens many finds many. An HTTP/2 connection belongs to one connection of an application as
/// long as that lives, as it would without Weir: nobody queues behind the streams of others.
pub(crate) struct Upstream {
    pool: Arc<Pool>,
    route: Route,
    protocol: Protocol,
    http2: Mutex<Option<Http2>>,
}

impl Upstream {
    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// What the provider chose, and the application is answered with.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn lease(&self) -> MutexGuard<'_, Option<Http2>> {
        self.http2.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is at hand.
    fn at_hand(&self) -> Option<Connected> {
        match self.protocol {
            Protocol::Http2 => {
                let live = self.lease().clone().filter(|sender| !sender.is_closed());
                live.map(Connected::Http2)
            }
            Protocol::Http1 | Protocol::Http1Unnegotiated => {
                self.pool.take_http1(&self.route).map(Connected::Http1)
            }
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(sender) = self.lease().take() {
            self.pool
                .put(&self.route, self.protocol, Connected::Http2(sender));
        }
    }
}

/// Sends requests upstream.
pub(crate) struct Forwarder {
    dialer: Dialer,
    pool: Arc<Pool>,
}

impl Forwarder {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            pool: Arc::new(Pool::default()),
        }
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Makes sure that a verified connection for `route` is at hand.
    pub(crate) async fn open(&self, route: Route) -> Result<Upstream, DialError> {
        let (protocol, http2) = match self.pool.ready(&route) {
            Some(ready) => ready,
            None => match self.dial(&route, route.offer).await? {
                (protocol, Connected::Http2(sender)) => (protocol, Some(sender)),
                (protocol, connected @ Connected::Http1(_)) => {
                    self.pool.put(&route, protocol, connected);
                    (protocol, None)
                }
            },
        };
        let pool = Arc::clone(&self.pool);
        Ok(Upstream {
            pool,
            route,
            protocol,
            http2: Mutex::new(http2),
        })
    }

    /// Sends `request` and returns the head of the answer; the body is read as it comes.
    ///
    /// A connection at hand may have been closed by the provider in the meantime: a request that
    /// was not sent for that reason, or that may be sent twice, is sent again on a fresh one.
    pub(crate) async fn send(
        &self,
        upstream: &Upstream,
        request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let mut request = request.map(Box::new);
        loop {
            let (connected, fresh) = match upstream.at_hand() {
                Some(connected) => (connected, false),
                // Boxed: seldom needed, and large.
                None => (Box::pin(self.redial(upstream)).await?, true),
            };
            let (copy, original) = copied_if_repeatable(request);
            request = original;
            let sent = match connected {
                Connected::Http1(http1) => {
                    let way_back = WayBack::new(Arc::clone(&self.pool), upstream.route.clone());
                    http1.send(request, way_back).await
                }
                Connected::Http2(sender) => send_http2(sender, request).await,
            };
            match sent {
                Ok(response) => return Ok(response),
                Err(mut failed) => match failed.take_message().or(copy) {
                    Some(again) if !fresh => request = again,
                    _ => return Err(SendError::Broken(failed.into_error())),
                },
            }
        }
    }

    /// Closes connections that have been idle for longer than `idle_max`.
    pub(crate) fn close_idle(&self, idle_max: Duration) {
        self.pool.close_idle(Instant::now(), idle_max);
    }

    async fn redial(&self, upstream: &Upstream) -> Result<Connected, DialError> {
        // The application was answered with this protocol, so no other will do any more.
        let offer = match upstream.protocol {
            Protocol::Http1Unnegotiated => Offer::None,
            Protocol::Http1 => Offer::Http1,
            Protocol::Http2 => Offer::Http2,
        };
        let (protocol, connected) = self.dial(&upstream.route, offer).await?;
        if protocol != upstream.protocol {
            let error = std::io::Error::other(format!("expected {offer:?}, found {protocol:?}"));
            return Err(DialError::Handshake {
                host: upstream.route.host.to_string(),
                error,
            });
        }
        if let Connected::Http2(sender) = &connected {
            *upstream.lease() = Some(sender.clone());
        }
        Ok(connected)
    }

    async fn dial(&self, route: &Route, offer: Offer) -> Result<(Protocol, Connected), DialError> {
        let stream = self
            .dialer
            .tls(&route.destination, &route.host, offer)
            .await?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            Some(_) => Protocol::Http1,
            None => Protocol::Http1Unnegotiated,
        };
        let connected = match protocol {
            Protocol::Http2 => handshake_http2(stream).await.map(Connected::Http2),
            Protocol::Http1 | Protocol::Http1Unnegotiated => {
                let http1 = Http1::handshake(stream, protocol).await;
                http1.map(|http1| Connected::Http1(Box::new(http1)))
            }
        };
        let connected = connected.map_err(|error| DialError::Handshake {
            host: route.host.to_string(),
            error: std::io::Error::other(error),
        })?;
        Ok((protocol, connected))
    }
}

type TrySendError = hyper::client::conn::TrySendError<Outgoing>;

/// A connection that falls silent, as behind a NAT that forgot it, is noticed by pings; its
/// requests then fail, and the next ones get a fresh connection.
async fn handshake_http2(stream: TlsStream<ReadAhead>) -> hyper::Result<Http2> {
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::PING_INTERVAL)
        .keep_alive_timeout(limits::PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream HTTP/2 connection ended");
        }
    });
    Ok(sender)
}

async fn send_http2(
    mut sender: Http2,
    request: Outgoing,
) -> Result<Response<UpstreamBody>, TrySendError> {
    Ok(sender
        .try_send_request(request)
        .await?
        .map(UpstreamBody::Http2))
}

/// A copy of a request without a body whose method may be repeated (RFC 9110, section 9.2.2).
fn copied_if_repeatable(request: Outgoing) -> (Option<Outgoing>, Outgoing) {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_end_stream() {
        return (None, request);
    }
    let (head, body) = request.into_parts();
    let nothing = RequestBody::Full {
        bytes: Bytes::new(),
        trailers: None,
        announced: false,
    };
    (
        Some(Request::from_parts(head.clone(), Box::new(nothing))),
        Request::from_parts(head, body),
    )
}
