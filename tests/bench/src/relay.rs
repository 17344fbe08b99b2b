//! Relays that do less than any interceptor: they end TLS, begin TLS again, and pass on what comes.
//!
//! The floor of what an interceptor can cost copies bytes and knows no HTTP. What hyper adds beyond it,
//! reading HTTP on both sides without a look at anything, is what the HTTP library takes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
    /// Copies bytes, each read [`BUSY`] later.
    Busy,
}

/// Serves until standard input is closed.
pub(crate) fn run(options: &Options, way: Way) -> anyhow::Result<()> {
    let protocols: &[&[u8]] = match way {
        Way::Floor | Way::Busy => &[HTTP2, HTTP1],
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
            Way::Busy => copy(Busy(client), Busy(upstream)).await,
        }
    }
}

async fn copy<C, U>(mut client: C, mut upstream: U) -> anyhow::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (client, upstream) = (&mut client, &mut upstream);
    tokio::io::copy_bidirectional_with_sizes(client, upstream, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}

/// How long a [`Way::Busy`] computes for each read: what a microsecond of work costs a call is what it adds
/// beyond the floor, by 40 at 2 KB, where each direction is one read.
const BUSY: Duration = Duration::from_micros(20);

/// A connection whose reads take [`BUSY`] longer.
struct Busy<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Busy<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, buffer);
        let since = Instant::now();
        while buffer.filled().len() > before && since.elapsed() < BUSY {
            std::hint::spin_loop();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Busy<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
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
