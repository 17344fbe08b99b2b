//! Dials the original destination and verifies it, from a socket that is never redirected.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::capture::Capture;
use crate::client_hello::Offer;
use crate::process::limits;
use crate::read_ahead::ReadAhead;

/// Where the application meant to connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    /// The address that the kernel saw.
    Address(SocketAddr),
    /// The name and port that the client gave to the explicit proxy.
    Name(Arc<str>, u16),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Why there is no verified connection to a destination.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// No TCP connection.
    #[error("expected a connection to {destination}, found: {error}")]
    Unreachable {
        destination: Destination,
        error: io::Error,
    },
    /// The certificate does not verify against the roots that Weir trusts.
    #[error("expected a certificate of {host} from a trusted root, found: {error}")]
    Untrusted { host: String, error: io::Error },
    /// The server asks for a client certificate, which only the application has.
    #[error("{host} asks for a client certificate")]
    WantsClientCertificate { host: String },
    /// Another failure of the handshake.
    #[error("expected a TLS handshake with {host}, found: {error}")]
    Handshake { host: String, error: io::Error },
}

/// Dials upstream connections.
pub(crate) struct Dialer {
    tls: ClientConfig,
    resolve: BTreeMap<String, SocketAddr>,
    capture: Arc<Capture>,
    connect_timeout: Duration,
}

impl Dialer {
    pub(crate) fn new(
        roots: RootCertStore,
        resolve: BTreeMap<String, SocketAddr>,
        capture: Arc<Capture>,
        connect_timeout: Duration,
    ) -> Self {
        let tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            tls,
            resolve,
            capture,
            connect_timeout,
        }
    }

    /// A TCP connection to `destination`, or to what the configuration resolves `host` to.
    ///
    /// # Errors
    /// [`DialError::Unreachable`].
    pub(crate) async fn tcp(
        &self,
        destination: &Destination,
        host: Option<&str>,
    ) -> Result<TcpStream, DialError> {
        let unreachable = |error| DialError::Unreachable {
            destination: destination.clone(),
            error,
        };
        let connect = async {
            if let Some(target) = host.and_then(|host| self.resolve.get(host)) {
                return self.one(*target).await;
            }
            match destination {
                Destination::Name(name, port) => {
                    self.any_of(tokio::net::lookup_host((name.as_ref(), *port)).await?)
                        .await
                }
                Destination::Address(address) => self.original(*address, host).await,
            }
        };
        match tokio::time::timeout(self.connect_timeout, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(unreachable(error)),
            Err(elapsed) => Err(unreachable(elapsed.into())),
        }
    }

    /// The original address. Where that is IPv6, the host's IPv4 addresses get their chance too:
    /// our listener made the client's IPv6 attempt succeed, so its own fallback never ran.
    async fn original(&self, address: SocketAddr, host: Option<&str>) -> io::Result<TcpStream> {
        let first = self.one(address);
        let (true, Some(host)) = (address.is_ipv6(), host) else {
            return first.await;
        };
        let fallback = async {
            let addresses = tokio::net::lookup_host((host, address.port())).await?;
            self.any_of(addresses.filter(SocketAddr::is_ipv4)).await
        };
        race(first, fallback).await
    }

    /// The addresses one after the other, each with a head start before the next.
    async fn any_of(&self, addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match tokio::time::timeout(limits::DIAL_ATTEMPT_TIMEOUT, self.one(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(elapsed) => last = elapsed.into(),
            }
        }
        Err(last)
    }

    async fn one(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        self.capture.tag_upstream(socket.as_fd())?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A TLS connection to `destination` whose certificate is valid for `host`, offering the
    /// protocols that the client offered.
    ///
    /// # Errors
    /// Every [`DialError`].
    pub(crate) async fn tls(
        &self,
        destination: &Destination,
        host: &str,
        offer: Offer,
    ) -> Result<TlsStream<ReadAhead>, DialError> {
        let failed = |error: io::Error| DialError::Handshake {
            host: host.to_owned(),
            error,
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let tcp = self.tcp(destination, Some(host)).await?;
        notice_silence(&tcp).map_err(failed)?;
        let asked = Arc::new(CertificateAsked(AtomicBool::new(false)));
        let mut config = self.tls.clone();
        config.alpn_protocols = protocols(offer);
        config.client_auth_cert_resolver = Arc::<CertificateAsked>::clone(&asked);
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, ReadAhead::new(tcp));
        let outcome = tokio::time::timeout(self.connect_timeout, handshake).await;
        if asked.0.load(Ordering::Relaxed) {
            return Err(DialError::WantsClientCertificate {
                host: host.to_owned(),
            });
        }
        match outcome {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if is_untrusted(&error) => Err(DialError::Untrusted {
                host: host.to_owned(),
                error,
            }),
            Ok(Err(error)) => Err(failed(error)),
            Err(elapsed) => Err(failed(elapsed.into())),
        }
    }
}

/// The first that succeeds, the second after a head start of the first (RFC 8305, section 5).
async fn race(
    first: impl Future<Output = io::Result<TcpStream>>,
    second: impl Future<Output = io::Result<TcpStream>>,
) -> io::Result<TcpStream> {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    match tokio::time::timeout(HEAD_START, first.as_mut()).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => return second.await.or(Err(error)),
        Err(_elapsed) => {}
    }
    tokio::select! {
        connected = first.as_mut() => match connected {
            Ok(stream) => Ok(stream),
            Err(error) => second.await.or(Err(error)),
        },
        connected = second.as_mut() => match connected {
            Ok(stream) => Ok(stream),
            Err(_) => first.await,
        },
    }
}

/// RFC 8305, section 8.
const HEAD_START: Duration = Duration::from_millis(250);

/// Lets the kernel notice that the other side is gone without a word, as behind a NAT that forgot
/// the connection or after sleep: by unanswered data, and while a model thinks, by probes.
fn notice_silence(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(limits::SILENCE_MAX))?;
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(limits::SILENCE_MAX)
            .with_interval(limits::PING_INTERVAL),
    )
}

fn protocols(offer: Offer) -> Vec<Vec<u8>> {
    let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
    match offer {
        Offer::None | Offer::Unreadable => Vec::new(),
        Offer::Http1 => vec![http1],
        Offer::Http2 => vec![http2],
        Offer::Http1AndHttp2 => vec![http2, http1],
    }
}

fn is_untrusted(error: &io::Error) -> bool {
    let tls = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Has no certificate to give, and remembers that one was asked for.
#[derive(Debug)]
struct CertificateAsked(AtomicBool);

impl ResolvesClientCert for CertificateAsked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The roots that upstream certificates are verified against: the system's, Mozilla's as compiled
/// in, and those of the configuration. Several sources, because minimal images have no store.
///
/// # Errors
/// A file of `extra_roots` can't be read, or has none, in words for the operator.
pub(crate) fn roots(extra_roots: &[PathBuf]) -> Result<RootCertStore, String> {
    let compiled_in = webpki_roots::TLS_SERVER_ROOTS;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in extra_roots {
        add_roots(&mut store, path)
            .map_err(|why| format!("upstream.extra_roots: {}: {why}", path.display()))?;
    }
    // Most systems have Mozilla's, which take no memory of their own as compiled in.
    store.roots.retain(|root| !compiled_in.contains(root));
    store.roots.shrink_to_fit();
    store.extend(compiled_in.iter().cloned());
    Ok(store)
}

fn add_roots(store: &mut RootCertStore, path: &Path) -> Result<(), String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    let pem = std::fs::read(path)
        .map_err(|error| format!("expected a file that can be read: {error}"))?;
    let before = store.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|error| format!("expected certificates as PEM: {error}"))?;
        store
            .add(certificate)
            .map_err(|error| format!("expected a root certificate: {error}"))?;
    }
    if store.len() == before {
        return Err("expected a certificate as PEM, found none in the file".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;
    use rustls::pki_types::TrustAnchor;

    use super::*;

    #[test]
    fn each_root_that_is_compiled_in_is_trusted_once_beside_those_of_the_configuration() {
        let own = rcgen::generate_simple_self_signed(["corp.example".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("root.pem");
        std::fs::write(&file, own.cert.pem()).unwrap();
        let store = roots(&[file]).unwrap();
        for root in webpki_roots::TLS_SERVER_ROOTS {
            let times = store.roots.iter().filter(|other| *other == root).count();
            assert_eq!(times, 1, "{root:?}");
        }
        let key = own.signing_key.subject_public_key_info();
        let is_own = |root: &&TrustAnchor<'_>| key.ends_with(&root.subject_public_key_info);
        assert_eq!(store.roots.iter().filter(is_own).count(), 1);
    }
}
