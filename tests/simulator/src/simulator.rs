//! The simulator: a listener, the providers' state behind it, and what a test or the demo may ask of both.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::bill::{Billed, Received};
use crate::clock::Clock;
use crate::connection;
use crate::exchange::State;
use crate::tls;

/// How a simulator is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host names on the certificate besides [`Simulator::HOSTS`].
    pub extra_names: Vec<String>,
    /// HTTP versions that are offered in the TLS handshake.
    pub protocols: Protocols,
    /// Clock that cache lifetimes run by.
    pub clock: Clock,
    /// Whether a thinking block that is replayed after a changed history is refused, as the providers do for accounts
    /// created since 2026-08-31. A request can also ask for it (`thinking.block_binding.prefix_mismatch_behavior`).
    pub preserved_thinking: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            extra_names: Vec::new(),
            protocols: Protocols::Http2AndHttp1,
            clock: Clock::system(),
            preserved_thinking: true,
        }
    }
}

/// HTTP versions that are offered in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// `h2` and `http/1.1`, as the providers do.
    Http2AndHttp1,
    /// `http/1.1` only.
    Http1,
}

/// The simulated providers on one address. Dropping it closes the listener and the idle connections; answers on
/// their way have a second to finish.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    ca_pem: String,
    state: Arc<State>,
    connections: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
}

impl Simulator {
    /// Host names the certificate is for, besides `localhost`.
    pub const HOSTS: &[&str] = &[
        "api.anthropic.com",
        "api.openai.com",
        "chatgpt.com",
        "generativelanguage.googleapis.com",
        "api.mistral.ai",
        "api.groq.com",
        "api.cohere.com",
        "bedrock-runtime.us-east-1.amazonaws.com",
        "aiplatform.googleapis.com",
        "us-east5-aiplatform.googleapis.com",
        "weir-tests.openai.azure.com",
    ];

    /// Starts listening. The work is done by tasks of the tokio runtime this is called in.
    ///
    /// # Errors
    /// If the address cannot be bound, or a name of `options` is not a host name.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(options: Options) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let names = Self::HOSTS
            .iter()
            .chain(&["localhost"])
            .map(|name| (*name).to_owned());
        let alpn: &[&[u8]] = match options.protocols {
            Protocols::Http2AndHttp1 => &[b"h2", b"http/1.1"],
            Protocols::Http1 => &[b"http/1.1"],
        };
        let (config, ca_pem) = tls::configure(names.chain(options.extra_names).collect(), alpn)?;
        let state = Arc::new(State::new(options.clock, options.preserved_thinking));
        let connections = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = watch::channel(false);
        let front = Front {
            listener,
            acceptor: TlsAcceptor::from(config),
            state: Arc::clone(&state),
            connections: Arc::clone(&connections),
            stopped,
        };
        tokio::spawn(front.run());
        Ok(Self {
            addr,
            ca_pem,
            state,
            connections,
            stop,
        })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The certificate (PEM) of the CA that a client has to trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The bill, a line for each call, in the order in which the answers started. The oldest lines of a very long bill
    /// are forgotten (but not by [`Self::total_nanodollars`]).
    #[must_use]
    pub fn bill(&self) -> Vec<Billed> {
        self.state.books.lines()
    }

    /// The sum of the bill, in nano-dollars (10⁻⁹ USD).
    #[must_use]
    pub fn total_nanodollars(&self) -> u64 {
        self.state.books.total_nanodollars()
    }

    /// The requests that arrived, oldest first, refused ones included. The oldest are forgotten when there are more than
    /// 20 000 of them, or more than 256 MiB.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.state.books.received()
    }

    /// The latest line of the bill.
    #[must_use]
    pub fn last_billed(&self) -> Option<Billed> {
        self.state.books.last_line()
    }

    /// The latest request that arrived.
    #[must_use]
    pub fn last_received(&self) -> Option<Received> {
        self.state.books.last_received()
    }

    /// How many TCP connections were accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// The accepting task.
struct Front {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<State>,
    connections: Arc<AtomicUsize>,
    stopped: watch::Receiver<bool>,
}

impl Front {
    async fn run(mut self) {
        let mut serving = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = self.stopped.changed() => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((socket, _)) = accepted else {
                // Out of file descriptors, most likely: let a connection end first.
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            };
            self.connections.fetch_add(1, Ordering::SeqCst);
            serving.spawn(connection::serve(
                Arc::clone(&self.state),
                self.acceptor.clone(),
                socket,
                self.stopped.clone(),
            ));
            // What became of a connection is its client's business: handshakes fail and resets happen, by order.
            while serving.try_join_next().is_some() {}
        }
        drop(self.listener);
        let all = async { while serving.join_next().await.is_some() {} };
        // After the grace, dropping the set ends what is left.
        drop(tokio::time::timeout(GRACE, all).await);
    }
}

/// How long answers may go on after the simulator was dropped.
const GRACE: Duration = Duration::from_secs(1);

const ACCEPT_RETRY: Duration = Duration::from_millis(10);
