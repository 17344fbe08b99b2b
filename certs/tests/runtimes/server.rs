//! A TLS server on the loopback address that greets whoever accepts its certificate.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::{default_provider, sign};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, Stream};
use time::{Duration, OffsetDateTime};
use weir_certs::Authority;

/// A host that the CA covers.
pub(crate) const COVERED: &str = "api.anthropic.com";
/// A host that it does not cover; the server has a certificate for it that was signed nonetheless.
pub(crate) const FORGED: &str = "example.org";
/// What a client gets that accepts the certificate.
pub(crate) const GREETING: &str = "greetings from behind the certificate";

pub(crate) struct Server {
    port: u16,
}

impl Server {
    /// Starts it for the life of the process. `key_pem` is the file with the key of the CA.
    pub(crate) fn start(authority: &Authority, key_pem: &str) -> Self {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Certificates {
                covered: covered(authority),
                forged: forged(authority, key_pem),
            }));
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, config) = (client.unwrap(), Arc::clone(&config));
                thread::spawn(move || greet(client, config));
            }
        });
        Self { port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// A client that refuses the certificate is what some tests are about, so nothing here fails.
fn greet(mut client: TcpStream, config: Arc<ServerConfig>) {
    let mut connection = ServerConnection::new(config).unwrap();
    let mut stream = Stream::new(&mut connection, &mut client);
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let length = GREETING.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{GREETING}"
    );
    drop(stream.write_all(answer.as_bytes()));
    connection.send_close_notify();
    drop(connection.complete_io(&mut client));
}

#[derive(Debug)]
struct Certificates {
    covered: Arc<CertifiedKey>,
    forged: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name()? {
            COVERED => Some(Arc::clone(&self.covered)),
            FORGED => Some(Arc::clone(&self.forged)),
            _ => None,
        }
    }
}

fn covered(authority: &Authority) -> Arc<CertifiedKey> {
    let leaf = authority.leaf(COVERED).unwrap();
    certified(leaf.chain, &leaf.key)
}

/// Signs what the CA refuses to sign, with the key that a thief took from its file.
fn forged(authority: &Authority, key_pem: &str) -> Arc<CertifiedKey> {
    let (_, key) = key_pem.split_once("-----BEGIN PRIVATE KEY-----").unwrap();
    let stolen = KeyPair::from_pem(&format!("-----BEGIN PRIVATE KEY-----{key}")).unwrap();
    let issuer = Issuer::from_ca_cert_der(authority.certificate(), stolen).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([FORGED.to_owned()]).unwrap();
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    certified(vec![certificate.into()], &key)
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Arc<CertifiedKey> {
    let key = sign::any_supported_type(key).unwrap();
    Arc::new(CertifiedKey::new(chain, key))
}
