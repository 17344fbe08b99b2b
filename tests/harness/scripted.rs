//! A TLS server of exact bytes: it accepts, and the test does the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{Wire, soon};

/// A server whose connections are handed to the test.
pub struct Scripted {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The CA of its certificate.
    pub ca_pem: String,
    connections: Mutex<mpsc::Receiver<TlsStream<TcpStream>>>,
    listening: tokio::task::JoinHandle<()>,
}

const HOSTS: [&str; 23] = [
    "api.anthropic.com",
    "api.openai.com",
    "chatgpt.com",
    "api.groq.com",
    "elsewhere.example",
    "api.cerebras.ai",
    "api.cohere.com",
    "api.deepseek.com",
    "api.fireworks.ai",
    "api.minimax.io",
    "api.mistral.ai",
    "api.moonshot.ai",
    "api.perplexity.ai",
    "api.together.xyz",
    "api.voyageai.com",
    "api.x.ai",
    "api.z.ai",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "contoso.openai.azure.com",
    "generativelanguage.googleapis.com",
    "openrouter.ai",
    "router.requesty.ai",
    "us-east5-aiplatform.googleapis.com",
];

/// Connections that wait for the test to take them.
const WAITING_MAX: usize = 1024;

impl Scripted {
    /// A server that speaks HTTP/1.1 by ALPN.
    pub async fn http1() -> Self {
        Self::start(&[b"http/1.1"], Clients::Anyone).await
    }

    /// A server that speaks HTTP/2 by ALPN.
    pub async fn http2() -> Self {
        Self::start(&[b"h2"], Clients::Anyone).await
    }

    /// A server that knows no ALPN.
    pub async fn without_alpn() -> Self {
        Self::start(&[], Clients::Anyone).await
    }

    /// A server that asks its clients for a certificate.
    pub async fn asking_for_a_client_certificate() -> Self {
        Self::start(&[b"http/1.1"], Clients::WithCertificate).await
    }

    async fn start(alpn: &[&[u8]], clients: Clients) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (config, ca_pem) = config(alpn, clients);
        let acceptor = TlsAcceptor::from(config);
        let (taken, connections) = mpsc::channel(WAITING_MAX);
        let listening = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let (acceptor, taken) = (acceptor.clone(), taken.clone());
                tokio::spawn(async move {
                    // A handshake that fails is what the test is about: it sees the other side.
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        drop(taken.send(stream).await);
                    }
                });
            }
        });
        Self {
            addr,
            ca_pem,
            connections: Mutex::new(connections),
            listening,
        }
    }

    /// The next connection.
    ///
    /// # Panics
    /// Where none comes.
    pub async fn accept(&self) -> Wire<TlsStream<TcpStream>> {
        Wire::new(self.accept_stream().await)
    }

    /// The next connection, as a stream.
    ///
    /// # Panics
    /// Where none comes.
    pub async fn accept_stream(&self) -> TlsStream<TcpStream> {
        let mut connections = self.connections.lock().await;
        soon("a connection at the server", connections.recv())
            .await
            .unwrap()
    }

    /// Stops to listen; connections stay.
    ///
    /// # Panics
    /// Where it had stopped by itself.
    pub async fn close(&self) {
        self.listening.abort();
        // Aborted, the task still runs until it is next polled.
        while !self.listening.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// The next connection, however long it takes to come.
    ///
    /// # Panics
    /// When the server is gone.
    pub async fn next(&self) -> TlsStream<TcpStream> {
        self.connections.lock().await.recv().await.unwrap()
    }

    /// Whether no connection waits to be accepted.
    pub async fn is_left_alone(&self) -> bool {
        self.connections.lock().await.try_recv().is_err()
    }
}

/// Who may connect.
#[derive(Clone, Copy)]
enum Clients {
    Anyone,
    WithCertificate,
}

fn config(alpn: &[&[u8]], clients: Clients) -> (Arc<ServerConfig>, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "scripted server, not for real use");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let names = HOSTS.map(str::to_owned);
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let builder = ServerConfig::builder();
    let builder = match clients {
        Clients::Anyone => builder.with_no_client_auth(),
        Clients::WithCertificate => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(ca_certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    (Arc::new(config), ca_certificate.pem())
}
