//! A client of either HTTP version, for what is not about bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::{Api, World, soon};

/// A connection of an application.
pub struct Client {
    sender: Sender,
    host: &'static str,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Incoming,
}

impl Client {
    /// Connects to `host` at `target` through the sidecar.
    ///
    /// # Panics
    /// Where the connection is not inspected, or speaks another version.
    pub async fn connect(
        world: &World,
        target: SocketAddr,
        host: &'static str,
        version: Version,
    ) -> Self {
        let alpn: &[&[u8]] = if version == Version::HTTP_2 {
            &[b"h2", b"http/1.1"]
        } else {
            &[b"http/1.1"]
        };
        let stream = world.tls(target, host, alpn).await.unwrap();
        let client = Self::on(stream, host).await;
        let http2 = matches!(client.sender, Sender::Http2(_));
        assert_eq!(http2, version == Version::HTTP_2);
        client
    }

    /// Speaks to `host` on a connection, in the version that its handshake agreed upon.
    ///
    /// # Panics
    /// Where HTTP can't be spoken on it.
    pub async fn on(stream: TlsStream<TcpStream>, host: &'static str) -> Self {
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            return Self::with_window(stream, host, WINDOW_BYTES).await;
        }
        let shaken = http1::handshake(TokioIo::new(stream));
        let (sender, connection) = Box::pin(shaken).await.unwrap();
        tokio::spawn(connection);
        let sender = Sender::Http1(sender);
        Self { sender, host }
    }

    /// Speaks HTTP/2 to `host`, and takes no more than `window_bytes` of an answer until it is read.
    ///
    /// # Panics
    /// Where HTTP/2 can't be spoken on it.
    pub async fn with_window(
        stream: TlsStream<TcpStream>,
        host: &'static str,
        window_bytes: u32,
    ) -> Self {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window_bytes);
        let shaken = builder.handshake(TokioIo::new(stream));
        let (sender, connection) = Box::pin(shaken).await.unwrap();
        tokio::spawn(connection);
        let sender = Sender::Http2(sender);
        Self { sender, host }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The connection's: no answer came.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                request
                    .headers_mut()
                    .insert("host", self.host.parse().unwrap());
                soon("a free connection", sender.ready()).await?;
                soon("an answer", sender.send_request(request)).await?
            }
            Sender::Http2(sender) => {
                let uri = format!("https://{}{}", self.host, request.uri());
                *request.uri_mut() = uri.parse().unwrap();
                soon("an answer", sender.send_request(request)).await?
            }
        };
        let (parts, body) = response.into_parts();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// Makes a call.
    ///
    /// # Errors
    /// The connection's: no answer came.
    pub async fn call(&mut self, api: Api, body: &Value) -> hyper::Result<Answer> {
        self.send(request(api, body.to_string())).await
    }

    /// Makes a call and reads its whole answer.
    ///
    /// # Panics
    /// Where no answer came, or not all of it.
    pub async fn ask(&mut self, api: Api, body: &Value) -> (StatusCode, Bytes) {
        let answer = self.call(api, body).await.unwrap();
        (answer.status, answer.whole().await.unwrap())
    }
}

/// What is taken of an answer over HTTP/2 before it is read: hyper's own.
const WINDOW_BYTES: u32 = 2 << 20;

/// The key of [`Client`]'s calls.
pub const KEY: &str = "sk-test-CANARY-KEY-0123456789abcdef";

/// A call with [`KEY`].
///
/// # Panics
/// Never: all of it is valid.
pub fn request(api: Api, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(api.path())
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {KEY}"))
        .header("anthropic-version", "2023-06-01")
        .body(Full::new(body.into()))
        .unwrap()
}

impl Answer {
    /// All of the body.
    ///
    /// # Errors
    /// It broke off.
    pub async fn whole(self) -> hyper::Result<Bytes> {
        Ok(soon("the answer's end", self.body.collect())
            .await?
            .to_bytes())
    }

    /// The next data of the body; none at its end, or where it breaks off.
    pub async fn next(&mut self) -> Option<Bytes> {
        soon("data", self.body.frame())
            .await?
            .ok()?
            .into_data()
            .ok()
    }
}
