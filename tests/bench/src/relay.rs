//! Relays that do less than any interceptor: they end TLS, begin TLS again, and pass on what comes.
//!
//! The floor of what an interceptor can cost copies bytes and knows no HTTP. What hyper adds beyond it,
//! reading HTTP on both sides without a look at anything, is what the HTTP library takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::process;
use crate::tls::{self, HTTP1, HTTP2, Identity};
use crate::traffic::API_HOST;

/// How a relay is started.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    identity: Identity,
    /// The server behind it.
    #[arg(long)]
    upstream: SocketAddr,
    /// The CA of that server, PEM.
    #[arg(long)]
    upstream_ca: PathBuf,
}

/// What a relay does with what it reads.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// Copies bytes.
    Floor,
    /// Streams the bodies of HTTP/1.1 through.
    Hyper,
}

/// Serves until standard input is closed.
pub(crate) fn run(options: &Options, way: Way) -> anyhow::Result<()> {
    let protocols: &[&[u8]] = match way {
        Way::Floor => &[HTTP2, HTTP1],
        Way::Hyper => &[HTTP1],
    };
    let relay = Arc::new(Relay {
        acceptor: options.identity.server_config(protocols)?.into(),
        http1: options.connector(HTTP1)?,
        http2: options.connector(HTTP2)?,
        upstream: options.upstream,
        way,
    });
    process::serve(move |socket| {
        let relay = Arc::clone(&relay);
        async move { relay.connection(socket).await }
    })
}

struct Relay {
    acceptor: TlsAcceptor,
    http1: TlsConnector,
    http2: TlsConnector,
    upstream: SocketAddr,
    way: Way,
}

type Client = server::TlsStream<TcpStream>;
type Upstream = client::TlsStream<TcpStream>;

impl Options {
    /// Upstream sessions are resumed: what a relay gets for nothing belongs to the floor.
    fn connector(&self, alpn: &[u8]) -> anyhow::Result<TlsConnector> {
        let config = tls::client_config(&self.upstream_ca, alpn, None)?;
        Ok(Arc::new(config).into())
    }
}

impl Relay {
    async fn connection(&self, socket: TcpStream) -> anyhow::Result<()> {
        socket.set_nodelay(true)?;
        let client = self.acceptor.accept(socket).await?;
        let connector = match client.get_ref().1.alpn_protocol() {
            Some(HTTP2) => &self.http2,
            _ => &self.http1,
        };
        let upstream = TcpStream::connect(self.upstream).await?;
        upstream.set_nodelay(true)?;
        let upstream = connector
            .connect(ServerName::try_from(API_HOST)?, upstream)
            .await?;
        match self.way {
            Way::Floor => copy(client, upstream).await,
            Way::Hyper => stream(client, upstream).await,
        }
    }
}

async fn copy(mut client: Client, mut upstream: Upstream) -> anyhow::Result<()> {
    let (client, upstream) = (&mut client, &mut upstream);
    tokio::io::copy_bidirectional_with_sizes(client, upstream, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}

async fn stream(client: Client, upstream: Upstream) -> anyhow::Result<()> {
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await?;
    tokio::spawn(async move {
        // What breaks it breaks the answer, and the client counts that.
        drop(connection.await);
    });
    let sender = Mutex::new(sender);
    let service = service_fn(|request| {
        let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send_request(request)
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(client), service)
        .await?;
    Ok(())
}

/// Per direction and connection: two TLS records.
const COPY_BYTES: usize = 32 << 10;
