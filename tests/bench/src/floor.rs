//! The floor of what an interceptor can cost: ends TLS, begins TLS again, copies bytes, knows no HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::process;
use crate::tls::{self, HTTP1, HTTP2, Identity};
use crate::traffic::API_HOST;

/// How a relay is started.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// The server behind it.
    #[arg(long)]
    pub(crate) upstream: SocketAddr,
    /// The CA of that server, PEM.
    #[arg(long)]
    upstream_ca: PathBuf,
}

/// Serves until standard input is closed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let relay = Arc::new(Relay {
        acceptor: options.identity.server_config(&[HTTP2, HTTP1])?.into(),
        http1: options.connector(HTTP1)?,
        http2: options.connector(HTTP2)?,
        upstream: options.upstream,
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
}

impl Options {
    /// Upstream sessions are resumed: what a relay gets for nothing belongs to the floor.
    pub(crate) fn connector(&self, alpn: &[u8]) -> anyhow::Result<TlsConnector> {
        let config = tls::client_config(&self.upstream_ca, alpn, None)?;
        Ok(Arc::new(config).into())
    }
}

impl Relay {
    async fn connection(&self, socket: TcpStream) -> anyhow::Result<()> {
        socket.set_nodelay(true)?;
        let mut client = self.acceptor.accept(socket).await?;
        let connector = match client.get_ref().1.alpn_protocol() {
            Some(HTTP2) => &self.http2,
            _ => &self.http1,
        };
        let upstream = TcpStream::connect(self.upstream).await?;
        upstream.set_nodelay(true)?;
        let mut upstream = connector
            .connect(ServerName::try_from(API_HOST)?, upstream)
            .await?;
        tokio::io::copy_bidirectional_with_sizes(
            &mut client,
            &mut upstream,
            COPY_BYTES,
            COPY_BYTES,
        )
        .await?;
        Ok(())
    }
}

/// Per direction and connection: two TLS records.
const COPY_BYTES: usize = 32 << 10;
