//! The demo's application: a program that knows nothing of Weir.
//!
//! It connects to an address that leads nowhere (TEST-NET-3, RFC 5737) and trusts the roots that
//! its environment names, as any program does. What answers it is up to the kernel.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weir_simulator::agent::{Agent, AgentRequest};

type Sender = SendRequest<Full<Bytes>>;

/// Answers nobody: only a redirected connection gets anywhere.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Runs the scripted agent until its work is done.
///
/// # Errors
/// The environment names no roots, or a connection failed.
pub(super) async fn run() -> anyhow::Result<()> {
    let connector = TlsConnector::from(Arc::new(tls()?));
    let mut agent = Agent::new();
    let mut connected: Option<(&'static str, Sender)> = None;
    while let Some(call) = agent.next_request() {
        let mut sender = match connected.take() {
            Some((host, sender)) if host == call.host && !sender.is_closed() => sender,
            _ => connect(&connector, call.host).await?,
        };
        sender.ready().await?;
        let host = call.host;
        let answer = sender.send_request(request(call)?).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        agent.absorb(&body);
        connected = Some((host, sender));
    }
    Ok(())
}

fn request(call: AgentRequest) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::post(call.path).header("host", call.host);
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    Ok(request.body(Full::new(Bytes::from(call.body)))?)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn tls() -> anyhow::Result<ClientConfig> {
    let path = variable("SSL_CERT_FILE").context("expected SSL_CERT_FILE to name the roots")?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        CertificateDer::pem_file_iter(&path)
            .with_context(|| format!("expected roots in {path}"))?
            .filter_map(Result::ok),
    );
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}

async fn connect(connector: &TlsConnector, host: &'static str) -> anyhow::Result<Sender> {
    let tcp = match variable("HTTPS_PROXY") {
        Some(proxy) => through_proxy(&proxy, host).await?,
        None => TcpStream::connect(SocketAddr::from((NOWHERE, 443))).await?,
    };
    tcp.set_nodelay(true)?;
    let tls = connector.connect(ServerName::try_from(host)?, tcp).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn through_proxy(proxy: &str, host: &str) -> anyhow::Result<TcpStream> {
    let address = proxy.trim_start_matches("http://").trim_end_matches('/');
    let mut tcp = TcpStream::connect(address).await?;
    let request = format!("CONNECT {host}:443 HTTP/1.1\r\nhost: {host}:443\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = BufReader::new(tcp);
    let mut line = String::new();
    answer.read_line(&mut line).await?;
    anyhow::ensure!(
        line.starts_with("HTTP/1.1 200"),
        "expected 200 of the proxy, found {line:?}"
    );
    while line != "\r\n" {
        line.clear();
        anyhow::ensure!(
            answer.read_line(&mut line).await? > 0,
            "the proxy closed the connection"
        );
    }
    Ok(answer.into_inner())
}
