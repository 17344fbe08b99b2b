//! A sidecar on a capture in proxy mode, in a state directory of its own, and what can be seen of it.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, broadcast};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir::capture::{self, Capture, Command, Mode};
use weir::ledger::Record;
use weir::process::clock::Clock;
use weir::process::config::{Config, Live};
use weir::process::leftovers::Leftovers;
use weir::process::state::StateDirectory;
use weir::sidecar::{Parts, Sidecar};
use weir_certs::Authority;
use weir_core::catalog::Catalog;

use crate::{PATIENCE, Wire, soon};

/// A sidecar at work, and the application's view of it.
pub struct World {
    /// The sidecar.
    pub sidecar: Sidecar,
    /// The configuration, which can be replaced.
    pub live: Arc<Live>,
    /// The capture, which the sidecar uses too.
    pub capture: Arc<Capture>,
    proxy: SocketAddr,
    ca_pem: String,
    state: TempDir,
    /// Roots of the servers behind it: not in the state directory, which is searched.
    _roots: TempDir,
    records: Mutex<broadcast::Receiver<Arc<Record>>>,
}

/// A row of the ledger's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Id of the exchange.
    pub id: String,
    /// How it ended.
    pub outcome: String,
    /// `priced`, `estimated`, …
    pub cost_state: String,
    /// 10⁻⁹ USD.
    pub cost_nanos: Option<i64>,
}

impl World {
    /// A sidecar with an empty state directory that trusts upstream servers of `ca_pems`.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(ca_pems: &[&str], config: Config) -> Self {
        Self::continued(TempDir::new().unwrap(), ca_pems, config)
    }

    /// A sidecar on a state directory that one before has left.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn continued(state: TempDir, ca_pems: &[&str], config: Config) -> Self {
        Self::at(Clock::System, state, ca_pems, config)
    }

    /// The same by a clock of the test.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn at(clock: Clock, state: TempDir, ca_pems: &[&str], mut config: Config) -> Self {
        let roots = TempDir::new().unwrap();
        for (number, pem) in ca_pems.iter().enumerate() {
            let path = roots.path().join(format!("{number}.pem"));
            fs::write(&path, pem).unwrap();
            config.upstream.extra_roots.push(path);
        }
        let directory = StateDirectory::open(Some(state.path())).unwrap();
        let authority = Authority::open_or_create(
            &directory.authority(),
            &Catalog::builtin().permitted_subtrees(),
        )
        .unwrap();
        let ca_pem = authority.certificate_pem();
        let request = capture::Request {
            mode: Some(Mode::Proxy),
            command: Command::Descendants {
                reason: "the test is the application".to_owned(),
            },
            uid: nix::unistd::geteuid().as_raw(),
            ports: config.intercept.ports.clone(),
            fail: config.intercept.fail,
        };
        let mut leftovers = Leftovers::start(&directory).unwrap();
        let capture = capture::open(&request, &mut leftovers).unwrap().capture;
        leftovers.undo();
        let proxy = capture.listeners().unwrap()[0].local_addr().unwrap();
        let capture = Arc::new(capture);
        let live = Arc::new(Live::fixed(config));
        let sidecar = Sidecar::start(Parts {
            live: Arc::clone(&live),
            capture: Arc::clone(&capture),
            authority,
            state: directory,
            clock,
        })
        .unwrap();
        let records = Mutex::new(sidecar.ledger().subscribe());
        Self {
            sidecar,
            live,
            capture,
            proxy,
            ca_pem,
            state,
            _roots: roots,
            records,
        }
    }

    /// Drains the sidecar and leaves its state directory.
    ///
    /// # Panics
    /// Where what is recorded does not get into the database.
    pub async fn stop(self) -> TempDir {
        self.sidecar.drain(PATIENCE).await;
        assert!(self.sidecar.settled(PATIENCE));
        self.state
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// A connection to the sidecar that has said nothing yet.
    ///
    /// # Panics
    /// Where there is none.
    pub async fn connect(&self) -> TcpStream {
        let stream = soon("a connection", TcpStream::connect(self.proxy))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A tunnel to `target`, `host:port` or `address:port`.
    ///
    /// # Panics
    /// Where the proxy does not answer 200.
    pub async fn tunnel(&self, target: impl std::fmt::Display) -> TcpStream {
        ask_for_tunnel(self.connect().await, target).await
    }

    /// The same for a program that Weir can tell apart: what a program trusts is remembered by its
    /// name, and the test itself is not among its own descendants.
    async fn tunnel_of_a_program(&self, target: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        // It holds the socket from before the connection is made until it was looked up.
        let mut program = std::process::Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(socket.as_fd().try_clone_to_owned().unwrap())
            .spawn()
            .unwrap();
        let stream = soon("a connection", socket.connect(self.proxy)).await;
        let tunnel = ask_for_tunnel(stream.unwrap(), target).await;
        drop(program.stdin.take());
        program.wait().unwrap();
        tunnel
    }

    /// A TLS connection to `host` at `target` that trusts the local CA alone, so that it fails
    /// where it is not the sidecar who answers.
    ///
    /// # Errors
    /// The handshake's.
    pub async fn tls(
        &self,
        target: SocketAddr,
        host: &str,
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = self.tunnel(target).await;
        handshake(tcp, host, alpn, &self.ca_pem).await
    }

    /// The same over HTTP/1.1, byte by byte.
    ///
    /// # Panics
    /// Where the handshake fails.
    pub async fn http1(&self, target: SocketAddr, host: &str) -> Wire<TlsStream<TcpStream>> {
        let stream = self.tls(target, host, &[b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        Wire::new(stream)
    }

    /// The next record.
    ///
    /// # Panics
    /// Where none comes.
    pub async fn record(&self) -> Arc<Record> {
        let mut records = self.records.lock().await;
        soon("a record", records.recv()).await.unwrap()
    }

    /// Asserts that there is no record that [`Self::record`] has not given.
    ///
    /// # Panics
    /// Where there is one.
    pub async fn no_more_records(&self) {
        assert!(self.sidecar.settled(PATIENCE));
        let found = self.records.lock().await.try_recv();
        assert!(found.is_err(), "expected no record, found {found:?}");
    }

    /// Waits until other nodes can read all that was told in conversations here.
    ///
    /// # Panics
    /// Where that takes too long.
    pub async fn told(&self) {
        soon("all to be told to other nodes", async {
            while !self.sidecar.has_told() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }

    /// The rows of the ledger's database, once all that was recorded is in it.
    ///
    /// # Panics
    /// Where it can't be read.
    pub fn stored(&self) -> Vec<Stored> {
        assert!(self.sidecar.settled(PATIENCE));
        let database = rusqlite::Connection::open_with_flags(
            self.state().join("weir.db"),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .unwrap();
        let mut rows = database
            .prepare("SELECT id, outcome, cost_state, cost_nanos FROM exchange ORDER BY seq")
            .unwrap();
        let rows = rows.query_map((), |row| {
            Ok(Stored {
                id: row.get(0)?,
                outcome: row.get(1)?,
                cost_state: row.get(2)?,
                cost_nanos: row.get(3)?,
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The value of a metric by its name and labels as `/metrics` writes them, once all calls that
    /// are over were explained; 0 where it is not there.
    ///
    /// # Panics
    /// Where that takes too long.
    pub fn metric(&self, name: &str) -> u64 {
        assert!(self.sidecar.settled(PATIENCE));
        let metrics = self.sidecar.metrics();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// How many connections passed without inspection for `reason`.
    pub fn bypassed(&self, reason: &str) -> u64 {
        self.metric(&format!(
            "weir_bypassed_connections_total{{reason=\"{reason}\"}}"
        ))
    }

    /// How many connections were refused for `reason`.
    pub fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!(
            "weir_refused_connections_total{{reason=\"{reason}\"}}"
        ))
    }
}

/// Asks the proxy for a tunnel to `target`, `host:port` or `address:port`.
///
/// # Panics
/// Where the proxy does not answer 200.
pub async fn ask_for_tunnel(stream: TcpStream, target: impl std::fmt::Display) -> TcpStream {
    let mut wire = Wire::new(stream);
    wire.send(format!(
        "CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n"
    ))
    .await;
    let head = wire.until(b"\r\n\r\n").await;
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{head:?}");
    wire.into_inner()
}

/// A TLS handshake that trusts `ca_pem` alone.
///
/// # Errors
/// The handshake's.
///
/// # Panics
/// Where `ca_pem` is no certificate or `host` no name.
pub async fn handshake(
    tcp: TcpStream,
    host: &str,
    alpn: &[&[u8]],
    ca_pem: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    soon("a TLS handshake", connector.connect(name, tcp)).await
}

impl World {
    /// A TLS connection through a tunnel that trusts `ca_pem` and not the local CA: that of a
    /// program which brings its own roots.
    ///
    /// # Errors
    /// The handshake's.
    pub async fn tls_trusting(
        &self,
        target: SocketAddr,
        host: &str,
        ca_pem: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let tunnel = self.tunnel_of_a_program(target).await;
        handshake(tunnel, host, &[b"http/1.1"], ca_pem).await
    }
}

/// Between two looks at what tells of no change by itself.
const LOOK_EVERY: Duration = Duration::from_millis(5);
