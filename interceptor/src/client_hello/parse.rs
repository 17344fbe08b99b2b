//! A ClientHello in the bytes of a connection, however they were cut. The fuzz target takes in this file by
//! itself, so that it is built without the rest.

use rustls::pki_types::DnsName;
use rustls::server::{Accepted, Acceptor, ClientHello as Hello};
use rustls::{CipherSuite, NamedGroup, SignatureScheme};

/// A ClientHello and the bytes that it came in.
pub(crate) struct ClientHello {
    /// Lower case, without a trailing dot.
    pub(crate) server_name: String,
    pub(crate) offer: Offer,
    /// Whether our answer would be one that the client can take.
    pub(crate) is_answerable: bool,
    /// Continues the handshake, when we are the server.
    pub(crate) accepted: Accepted,
    /// Continues the connection, when we are not.
    pub(crate) bytes: Vec<u8>,
}

impl ClientHello {
    /// What an accepted hello says; why it says nothing, with its bytes.
    pub(super) fn of(accepted: Accepted, bytes: Vec<u8>) -> Result<Self, (NoHello, Vec<u8>)> {
        let hello = accepted.client_hello();
        let Some(name) = hello.server_name() else {
            return Err((NoHello::NoServerName, bytes));
        };
        let server_name = normal(name);
        let offer = Offer::of(hello.alpn());
        let is_answerable = is_answerable(&hello);
        Ok(Self {
            server_name,
            offer,
            is_answerable,
            accepted,
            bytes,
        })
    }
}

/// Whether the client takes what we answer with: a certificate of ECDSA with P-256, and the suites and
/// groups of rustls. A client of another kind may still have TLS in common with the provider.
fn is_answerable(hello: &Hello<'_>) -> bool {
    let groups = hello.named_groups().unwrap_or_default();
    hello.cipher_suites().iter().any(|one| SUITES.contains(one))
        && groups.iter().any(|one| GROUPS.contains(one))
        && (hello.signature_schemes()).contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
}

/// Of TLS 1.3, and of TLS 1.2 those for such a certificate.
const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];
const GROUPS: [NamedGroup; 4] = [
    NamedGroup::X25519MLKEM768,
    NamedGroup::X25519,
    NamedGroup::secp256r1,
    NamedGroup::secp384r1,
];

/// Why bytes are no hello that names a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoHello {
    /// It is not TLS.
    NotTls,
    /// It names no server.
    NoServerName,
    /// It is none that we can answer, of TLS 1.1 for one; but it names this server.
    Unanswerable(String),
    /// It is malformed, or too long.
    Broken,
}

/// The application protocols that a client offers, of those that we can read (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Offer {
    /// No ALPN extension: HTTP/1.1 by convention.
    None,
    Http1,
    Http2,
    Http1AndHttp2,
    /// An ALPN extension without a protocol that we speak.
    Unreadable,
}

impl Offer {
    fn of<'a>(protocols: Option<impl Iterator<Item = &'a [u8]>>) -> Self {
        let Some(protocols) = protocols else {
            return Self::None;
        };
        let (mut http1, mut http2) = (false, false);
        for protocol in protocols {
            http1 |= protocol == b"http/1.1";
            http2 |= protocol == b"h2";
        }
        match (http1, http2) {
            (true, true) => Self::Http1AndHttp2,
            (true, false) => Self::Http1,
            (false, true) => Self::Http2,
            (false, false) => Self::Unreadable,
        }
    }
}

/// What the bytes of a connection turned out to be, however they were cut: the server that they name, or why
/// none; nothing where more are needed.
pub fn classify<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
    bytes_max: usize,
) -> Option<Result<String, NoHello>> {
    let mut reader = Reader::default();
    for chunk in chunks {
        let before = reader.bytes.len();
        reader.bytes.extend_from_slice(chunk);
        let Some(found) = reader.look(before, bytes_max) else {
            continue;
        };
        let hello = found.and_then(|accepted| {
            ClientHello::of(*accepted, reader.bytes).map_err(|(reason, _)| reason)
        });
        return Some(hello.map(|hello| hello.server_name));
    }
    None
}

#[derive(Default)]
pub(super) struct Reader {
    acceptor: Acceptor,
    pub(super) bytes: Vec<u8>,
}

impl Reader {
    /// Looks at the bytes from `fresh` on; none where more are needed.
    pub(super) fn look(
        &mut self,
        fresh: usize,
        bytes_max: usize,
    ) -> Option<Result<Box<Accepted>, NoHello>> {
        if *self.bytes.first()? != HANDSHAKE_RECORD {
            return Some(Err(NoHello::NotTls));
        }
        let mut fresh = self.bytes.get(fresh..).unwrap_or_default();
        while !fresh.is_empty() {
            if self.acceptor.read_tls(&mut fresh).is_err() {
                return Some(Err(NoHello::Broken));
            }
            match self.acceptor.accept() {
                Ok(Some(accepted)) => return Some(Ok(Box::new(accepted))),
                Ok(None) => {}
                Err(_) => {
                    let named = server_name_in(&self.bytes).map(NoHello::Unanswerable);
                    return Some(Err(named.unwrap_or(NoHello::Broken)));
                }
            }
        }
        (self.bytes.len() >= bytes_max).then_some(Err(NoHello::Broken))
    }
}

/// The server that a hello names which rustls refuses, if the hello is whole in one record, as it is where
/// no version is offered that has large extensions (RFC 5246, sections 6.2.1 and 7.4.1.2; RFC 6066,
/// section 3).
fn server_name_in(bytes: &[u8]) -> Option<String> {
    let [HANDSHAKE_RECORD, TLS_MAJOR, _, record @ ..] = bytes else {
        return None;
    };
    let mut record = record;
    let message = vector(&mut record, 2).filter(|message| message.len() <= RECORD_BYTES_MAX)?;
    let [CLIENT_HELLO, message @ ..] = message else {
        return None;
    };
    let mut message = message;
    let mut hello = vector(&mut message, 3)?;
    take(&mut hello, VERSION_AND_RANDOM_BYTES)?;
    // The session, suites, and compressions.
    for length_bytes in [1, 2, 1] {
        vector(&mut hello, length_bytes)?;
    }
    let mut extensions = vector(&mut hello, 2)?;
    loop {
        let kind = take(&mut extensions, 2)?;
        let mut extension = vector(&mut extensions, 2)?;
        if kind == SERVER_NAME {
            let mut names = vector(&mut extension, 2)?;
            let is_host = take(&mut names, 1)? == HOST_NAME;
            let name = DnsName::try_from(vector(&mut names, 2)?).ok();
            return name.filter(|_| is_host).map(|name| normal(name.as_ref()));
        }
    }
}

/// A name as hosts are listed.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Takes a vector, behind its length in so many bytes (RFC 5246, section 4.3).
fn vector<'a>(rest: &mut &'a [u8], length_bytes: usize) -> Option<&'a [u8]> {
    let length = take(rest, length_bytes)?;
    let length = length
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// First byte of a TLS handshake record (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// First byte of the version of each TLS, and of SSL 3.
const TLS_MAJOR: u8 = 3;
const RECORD_BYTES_MAX: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
const VERSION_AND_RANDOM_BYTES: usize = 2 + 32;
const SERVER_NAME: [u8; 2] = [0, 0];
const HOST_NAME: [u8; 1] = [0];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    const BYTES_MAX: usize = 64 << 10;

    fn hello(name: &'static str) -> Vec<u8> {
        let config = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_hello_is_read_however_it_is_cut() {
        let bytes = hello("api.anthropic.com");
        for at in 1..bytes.len() {
            let (one, two) = bytes.split_at(at);
            let named = Some(Ok("api.anthropic.com".to_owned()));
            assert_eq!(classify([one, two], BYTES_MAX), named, "cut at {at}");
            assert_eq!(classify([one], BYTES_MAX), None, "cut at {at}");
        }
    }

    /// What we answer with is what rustls has, as it is set up here.
    #[test]
    fn what_can_be_answered_is_what_we_answer_with() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let ours = provider.cipher_suites.iter().map(|suite| suite.suite());
        let ours: Vec<_> = ours
            .filter(|suite| !format!("{suite:?}").contains("_RSA_"))
            .collect();
        assert_eq!(ours.len(), SUITES.len());
        assert!(ours.iter().all(|suite| SUITES.contains(suite)), "{ours:?}");
        let groups: Vec<_> = provider
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert_eq!(groups.len(), GROUPS.len());
        assert!(
            groups.iter().all(|group| GROUPS.contains(group)),
            "{groups:?}"
        );
    }

    fn accepted(config: ClientConfig) -> ClientHello {
        let name = ServerName::try_from("api.anthropic.com").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut reader = Reader::default();
        connection.write_tls(&mut reader.bytes).unwrap();
        let accepted = reader.look(0, BYTES_MAX).unwrap().unwrap();
        ClientHello::of(*accepted, reader.bytes).unwrap()
    }

    #[test]
    fn a_client_that_takes_only_certificates_of_rsa_is_told_apart() {
        let of = |keep: fn(CipherSuite) -> bool| {
            let mut provider = rustls::crypto::aws_lc_rs::default_provider();
            provider.cipher_suites.retain(|suite| keep(suite.suite()));
            let config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            accepted(config).is_answerable
        };
        assert!(of(|_| true));
        assert!(of(
            |suite| format!("{suite:?}").starts_with("TLS_ECDHE_ECDSA")
        ));
        assert!(!of(
            |suite| format!("{suite:?}").starts_with("TLS_ECDHE_RSA")
        ));
    }

    /// A hello of TLS 1.1 that names `name`, with one suite and nothing else.
    fn old_hello(name: &str) -> Vec<u8> {
        let vector = |length_bytes: usize, bytes: Vec<u8>| {
            let length = bytes.len().to_be_bytes();
            [&length[length.len() - length_bytes..], &bytes].concat()
        };
        let name = vector(2, name.as_bytes().to_vec());
        let names = vector(2, vector(2, [&[0], &name[..]].concat()));
        let extensions = vector(2, [&[0, 0], &names[..]].concat());
        let mut hello = vec![3, 2];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
        hello.extend(extensions);
        let message = [&[1], &vector(3, hello)[..]].concat();
        [&[0x16, 3, 1], &vector(2, message)[..]].concat()
    }

    #[test]
    fn a_hello_of_old_tls_names_its_server_however_it_is_cut() {
        let bytes = old_hello("API.anthropic.com");
        let named = NoHello::Unanswerable("api.anthropic.com".to_owned());
        for at in 1..bytes.len() {
            let (one, two) = bytes.split_at(at);
            let found = classify([one, two], BYTES_MAX);
            assert_eq!(found, Some(Err(named.clone())), "cut at {at}");
            assert_eq!(classify([one], BYTES_MAX), None, "cut at {at}");
        }
        let nobody = classify([old_hello("a b").as_slice()], BYTES_MAX);
        assert_eq!(nobody, Some(Err(NoHello::Broken)));
    }

    #[test]
    fn what_is_no_hello_is_told_apart() {
        for (bytes, expected) in [
            (hello("192.0.2.7"), NoHello::NoServerName),
            (b"GET / HTTP/1.1\r\n".to_vec(), NoHello::NotTls),
            (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), NoHello::NotTls),
            (vec![0x16, 3, 1, 0, 4, 9, 9, 9, 9], NoHello::Broken),
            (vec![0x16; 70_000], NoHello::Broken),
        ] {
            let found = classify([bytes.as_slice()], BYTES_MAX);
            assert_eq!(found, Some(Err(expected)));
        }
    }
}
