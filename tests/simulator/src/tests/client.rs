//! A client that trusts the simulator, and reads an answer frame by frame.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::json::Json;
use crate::{Options, Simulator};

pub(super) const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// The three billed APIs: path, and a request body with this text as the last user message.
pub(super) const APIS: [Path; 3] = [
    Path("/v1/messages"),
    Path("/v1/chat/completions"),
    Path("/v1/responses"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path(pub(super) &'static str);

impl Path {
    pub(super) fn body(self, text: &str, stream: bool) -> String {
        let text = Json::from(text);
        match self.0 {
            "/v1/messages" => format!(
                r#"{{"model":"claude-opus-5-5","max_tokens":100000,"stream":{stream},"messages":[{{"role":"user","content":{text}}}]}}"#
            ),
            "/v1/chat/completions" => format!(
                r#"{{"model":"gpt-6-sol","stream":{stream},"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":{text}}}]}}"#
            ),
            _ => format!(r#"{{"model":"gpt-6-sol","stream":{stream},"input":{text}}}"#),
        }
    }

    pub(super) fn host(self) -> &'static str {
        if self.0 == "/v1/messages" {
            "api.anthropic.com"
        } else {
            "api.openai.com"
        }
    }
}

pub(super) fn start() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

/// A TLS connection for `host`, offering `alpn`.
pub(super) async fn connect(
    simulator: &Simulator,
    host: &'static str,
    alpn: &[&[u8]],
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let socket = TcpStream::connect(simulator.addr()).await.unwrap();
    let name = ServerName::try_from(host).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
        .unwrap()
}

/// An answer whose body has not been read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
}

/// A body as far as it came.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Vec<u8>,
    pub(super) failed: bool,
}

impl Read {
    pub(super) fn json(&self) -> Json {
        Json::parse(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    /// Server-sent events: the name, and the data if it is JSON.
    pub(super) fn events(&self) -> Vec<(String, Option<Json>)> {
        events(&self.bytes)
    }
}

pub(super) fn events(bytes: &[u8]) -> Vec<(String, Option<Json>)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let whole = text
        .split_inclusive("\n\n")
        .filter(|event| event.ends_with("\n\n"));
    whole
        .map(|event| {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let data = field("data: ").unwrap_or_default();
            (
                field("event: ").unwrap_or_default().to_owned(),
                Json::parse(data.as_bytes()).ok(),
            )
        })
        .collect()
}

/// Sends a request on a connection of its own.
pub(super) async fn send(
    simulator: &Simulator,
    version: Version,
    path: Path,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = Request::post(format!("https://{}{}", path.host(), path.0))
        .header("content-type", "application/json");
    if version == Version::HTTP_11 {
        request = request.header("host", path.host());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Full::new(body.into())).unwrap();
    let response = if version == Version::HTTP_2 {
        let tls = connect(simulator, path.host(), &[b"h2", b"http/1.1"]).await;
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_ref()));
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        *request.uri_mut() = path.0.parse().unwrap();
        let tls = connect(simulator, path.host(), &[b"http/1.1"]).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    assert_eq!(response.version(), version);
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

/// Sends `text` as the last user message, with a key.
pub(super) async fn say(
    simulator: &Simulator,
    version: Version,
    path: Path,
    text: &str,
    stream: bool,
) -> Answer {
    let headers = [
        ("authorization", "Bearer test-key"),
        ("anthropic-version", "2023-06-01"),
    ];
    send(simulator, version, path, &headers, path.body(text, stream)).await
}

impl Answer {
    /// Reads the body to its end, or to where it breaks off.
    pub(super) async fn read(mut self) -> Read {
        let mut bytes = Vec::new();
        loop {
            match self.body.frame().await {
                None => {
                    return Read {
                        bytes,
                        failed: false,
                    };
                }
                Some(Err(_)) => {
                    return Read {
                        bytes,
                        failed: true,
                    };
                }
                Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            }
        }
    }

    /// Reads the body until it holds `count` events, and leaves it open.
    pub(super) async fn read_events(&mut self, count: usize) -> Vec<(String, Option<Json>)> {
        let mut bytes = Vec::new();
        while events(&bytes).len() < count {
            let frame = self
                .body
                .frame()
                .await
                .expect("a stream that goes on")
                .unwrap();
            bytes.extend_from_slice(&frame.into_data().unwrap());
        }
        events(&bytes)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}
