//! Sends requests to their original destination over verified, pooled connections.

mod body;
pub(crate) mod connect;
mod http1;
mod pool;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

pub(crate) use body::{RequestBody, UpstreamBody};
pub(crate) use connect::{Destination, DialError, Dialer};

use crate::client_hello::Offer;
use http1::Http1;
use pool::Pool;

type Http2 = hyper::client::conn::http2::SendRequest<RequestBody>;

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

    /// Makes sure that a verified connection for `route` is at hand, and tells its protocol, which
    /// is then mirrored to the client.
    pub(crate) async fn prepare(&self, route: &Route) -> Result<Protocol, DialError> {
        if let Some(protocol) = self.pool.protocol(route) {
            return Ok(protocol);
        }
        let (protocol, connected) = self.dial(route).await?;
        self.keep(route, protocol, connected);
        Ok(protocol)
    }

    /// Sends `request` and returns the head of the answer; the body is read as it comes.
    ///
    /// A pooled connection may have been closed by the provider in the meantime: a request that
    /// was not sent for that reason is sent again on a fresh one.
    pub(crate) async fn send(
        &self,
        route: &Route,
        mut request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        loop {
            let (connected, fresh) = match self.pool.take(route) {
                Some(connected) => (connected, false),
                None => {
                    let (protocol, connected) = self.dial(route).await?;
                    if let Connected::Http2(sender) = &connected {
                        self.keep(route, protocol, Connected::Http2(sender.clone()));
                    }
                    (connected, true)
                }
            };
            let sent = match connected {
                Connected::Http1(connection) => {
                    connection.send(request, self.way_back(route)).await
                }
                Connected::Http2(sender) => send_http2(sender, request).await,
            };
            match sent {
                Ok(response) => return Ok(response),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(SendError::Broken(failed.into_error())),
                },
            }
        }
    }

    /// Closes connections that have been idle for longer than `idle_max`.
    pub(crate) fn close_idle(&self, idle_max: Duration) {
        self.pool.close_idle(Instant::now(), idle_max);
    }

    fn way_back(&self, route: &Route) -> pool::WayBack {
        pool::WayBack::new(Arc::clone(&self.pool), route.clone())
    }

    fn keep(&self, route: &Route, protocol: Protocol, connected: Connected) {
        self.pool.put(route, protocol, connected);
    }

    async fn dial(&self, route: &Route) -> Result<(Protocol, Connected), DialError> {
        let stream = self
            .dialer
            .tls(&route.destination, &route.host, route.offer)
            .await?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            Some(_) => Protocol::Http1,
            None => Protocol::Http1Unnegotiated,
        };
        let failed = |error: hyper::Error| DialError::Handshake {
            host: route.host.to_string(),
            error: std::io::Error::other(error),
        };
        let connected = match protocol {
            Protocol::Http2 => {
                let (sender, connection) =
                    hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                        .initial_stream_window_size(STREAM_WINDOW)
                        .initial_connection_window_size(CONNECTION_WINDOW)
                        .max_header_list_size(HEADER_LIST_BYTES_MAX)
                        .handshake(TokioIo::new(stream))
                        .await
                        .map_err(failed)?;
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "an upstream HTTP/2 connection ended");
                    }
                });
                Connected::Http2(sender)
            }
            Protocol::Http1 | Protocol::Http1Unnegotiated => Connected::Http1(Box::new(
                Http1::handshake(stream, protocol).await.map_err(failed)?,
            )),
        };
        Ok((protocol, connected))
    }
}

type TrySendError = hyper::client::conn::TrySendError<Request<RequestBody>>;

async fn send_http2(
    mut sender: Http2,
    request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, TrySendError> {
    Ok(sender
        .try_send_request(request)
        .await?
        .map(UpstreamBody::Http2))
}
