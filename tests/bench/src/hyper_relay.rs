//! hyper alone: reads HTTP on both sides and streams every body through, without a look at anything.
//!
//! What it adds beyond the floor is what the HTTP library takes, before an interceptor has done
//! anything with what it read.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::floor::Options;
use crate::process;
use crate::tls::HTTP1;
use crate::traffic::API_HOST;

/// Serves until standard input is closed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let relay = Arc::new(Relay {
        acceptor: options.identity.server_config(&[HTTP1])?.into(),
        connector: options.connector(HTTP1)?,
        upstream: options.upstream,
    });
    process::serve(move |socket| {
        let relay = Arc::clone(&relay);
        async move { relay.connection(socket).await }
    })
}

struct Relay {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    upstream: std::net::SocketAddr,
}

impl Relay {
    async fn connection(&self, socket: TcpStream) -> anyhow::Result<()> {
        socket.set_nodelay(true)?;
        let client = self.acceptor.accept(socket).await?;
        let sender = Mutex::new(self.dial().await?);
        let service = service_fn(|request| {
            let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
            sender.send_request(request)
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(client), service)
            .await?;
        Ok(())
    }

    async fn dial(&self) -> anyhow::Result<SendRequest<Incoming>> {
        let upstream = TcpStream::connect(self.upstream).await?;
        upstream.set_nodelay(true)?;
        let name = ServerName::try_from(API_HOST)?;
        let upstream = self.connector.connect(name, upstream).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await?;
        tokio::spawn(async move {
            // What breaks it breaks the answer, and the client counts that.
            drop(connection.await);
        });
        Ok(sender)
    }
}
