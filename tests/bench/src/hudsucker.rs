//! The crate hudsucker as a typical inspector uses it: CONNECT proxy, body buffered, JSON parsed.

use std::convert::Infallible;
use std::future::Ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::hudsucker::certificate_authority::CertificateAuthority;
use ::hudsucker::rustls::{ServerConfig, server::ClientHello};
use ::hudsucker::{Body, HttpContext, HttpHandler, Proxy, RequestOrResponse};
use anyhow::Context as _;
use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;

use crate::process;
use crate::tls::{self, HTTP1, Identity};
use crate::traffic::{API_HOST, OTHER_HOST};

/// How the proxy is started.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    identity: Identity,
    /// The CA of the server behind it, PEM.
    #[arg(long)]
    upstream_ca: PathBuf,
}

/// Serves until standard input is closed. Sockets and HTTP are left as hudsucker sets them.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let authority = OneLeaf(options.identity.server_config(&[HTTP1])?);
    let mut tls = tls::client_config(&options.upstream_ca, HTTP1, None)?;
    // The connector adds the protocols that it is told to speak.
    tls.alpn_protocols.clear();
    let mut http = HttpConnector::new_with_resolver(Loopback);
    http.enforce_http(false);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    process::runtime()?.block_on(async {
        let listener = process::listen().await?;
        let proxy = Proxy::builder()
            .with_listener(listener)
            .with_ca(authority)
            .with_http_connector(connector)
            .with_http_handler(Inspector)
            .with_graceful_shutdown(process::input_closed())
            .build()?;
        proxy.start().await.context("hudsucker")
    })
}

/// Its own authority caches configurations by name. There is but one name to intercept here, and
/// this way its default features, and ring with them, stay out.
struct OneLeaf(Arc<ServerConfig>);

impl CertificateAuthority for OneLeaf {
    async fn gen_server_config(&self, _: &Authority) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }
}

/// Resolves every name to this machine; the port is in the request.
#[derive(Clone)]
struct Loopback;

impl tower_service::Service<Name> for Loopback {
    type Response = std::iter::Once<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        std::future::ready(Ok(std::iter::once(address)))
    }
}

/// Buffers requests, and answers that are JSON, and parses them into a tree. Streams pass.
#[derive(Clone)]
struct Inspector;

impl HttpHandler for Inspector {
    async fn handle_request(
        &mut self,
        _: &HttpContext,
        request: Request<Body>,
    ) -> RequestOrResponse {
        if request.method() == Method::CONNECT {
            return request.into();
        }
        let (parts, body) = request.into_parts();
        match read(body).await {
            Ok(body) => Request::from_parts(parts, body).into(),
            Err(_) => refusal().into(),
        }
    }

    async fn handle_response(&mut self, _: &HttpContext, answer: Response<Body>) -> Response<Body> {
        let kind = answer.headers().get(http::header::CONTENT_TYPE);
        if kind.is_none_or(|kind| kind.as_bytes() != b"application/json") {
            return answer;
        }
        let (parts, body) = answer.into_parts();
        match read(body).await {
            Ok(body) => Response::from_parts(parts, body),
            Err(_) => refusal(),
        }
    }

    async fn should_intercept_tls(&mut self, _: &HttpContext, hello: ClientHello<'_>) -> bool {
        debug_assert!(matches!(hello.server_name(), Some(API_HOST | OTHER_HOST)));
        hello.server_name() == Some(API_HOST)
    }
}

async fn read(body: Body) -> Result<Body, ::hudsucker::Error> {
    let bytes: Bytes = body.collect().await?.to_bytes();
    // An inspector would look into it; that it can't be skipped is what counts here.
    std::hint::black_box(serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    Ok(Full::new(bytes).into())
}

fn refusal() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}
