//! Reads the TLS ClientHello of a connection, keeping every byte, so that the connection can
//! still be spliced to its original destination as if nobody had looked.
//!
//! The hello is parsed by rustls' `Acceptor`. It may span several TCP segments (post-quantum key
//! shares make it longer than one), so reading goes on until it is whole, opaque, too long or late.
//! ECH is seen by its outer server name only (RFC 9849): an inner name never leads to inspection.

use std::io;
use std::time::Duration;

use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::metrics::BypassReason;

/// First byte of a TLS handshake record (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
const READ_BYTES: usize = 4096;

/// How long, and how many bytes, a ClientHello may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) bytes_max: usize,
    /// From accept to the last byte of the hello.
    pub(crate) wait_max: Duration,
}

/// What a connection opened with.
pub(crate) enum Opening {
    /// A whole ClientHello that names a server.
    Tls(Box<ClientHello>),
    /// Not for us to read: splice it, starting with `bytes`.
    Opaque {
        /// Why it can't be read.
        reason: BypassReason,
        /// What the client sent so far.
        bytes: Vec<u8>,
    },
    /// The client left before it said anything.
    Closed,
}

/// A ClientHello and the bytes that it came in.
pub(crate) struct ClientHello {
    /// Lower case, without a trailing dot.
    pub(crate) server_name: String,
    pub(crate) offer: Offer,
    /// Continues the handshake, when we are the server.
    pub(crate) accepted: Accepted,
    /// Continues the connection, when we are not.
    pub(crate) bytes: Vec<u8>,
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

/// Reads until the opening of `stream` is understood.
///
/// # Errors
/// The error of the socket.
pub(crate) async fn read(stream: &mut TcpStream, limits: Limits) -> io::Result<Opening> {
    let mut reader = Reader::default();
    let reading = async {
        loop {
            reader.bytes.reserve(READ_BYTES);
            let before = reader.bytes.len();
            if stream.read_buf(&mut reader.bytes).await? == 0 {
                return Ok::<_, io::Error>(Found::Opaque(BypassReason::BrokenHello));
            }
            if let Some(found) = reader.look(before, limits.bytes_max) {
                return Ok(found);
            }
        }
    };
    let found = match tokio::time::timeout(limits.wait_max, reading).await {
        Ok(found) => found?,
        Err(_elapsed) if reader.bytes.is_empty() => Found::Opaque(BypassReason::SilentClient),
        Err(_elapsed) => Found::Opaque(BypassReason::BrokenHello),
    };
    let bytes = reader.bytes;
    Ok(match found {
        Found::Opaque(BypassReason::BrokenHello) if bytes.is_empty() => Opening::Closed,
        Found::Opaque(reason) => Opening::Opaque { reason, bytes },
        Found::Hello(accepted) => opening(*accepted, bytes),
    })
}

/// What the bytes of a connection turned out to be, however they were cut.
///
/// The word of the metric, for the fuzz target, which has no connection: `tls` or a reason.
#[must_use]
pub fn classify<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, bytes_max: usize) -> &'static str {
    let mut reader = Reader::default();
    for chunk in chunks {
        let before = reader.bytes.len();
        reader.bytes.extend_from_slice(chunk);
        match reader.look(before, bytes_max) {
            Some(Found::Opaque(reason)) => return reason.as_str(),
            Some(Found::Hello(accepted)) => {
                return match opening(*accepted, reader.bytes) {
                    Opening::Tls(_) => "tls",
                    Opening::Opaque { reason, .. } => reason.as_str(),
                    Opening::Closed => "closed",
                };
            }
            None => {}
        }
    }
    "incomplete"
}

#[derive(Default)]
struct Reader {
    acceptor: Acceptor,
    bytes: Vec<u8>,
}

enum Found {
    Hello(Box<Accepted>),
    Opaque(BypassReason),
}

impl Reader {
    /// Looks at the bytes from `fresh` on; none where more are needed.
    fn look(&mut self, fresh: usize, bytes_max: usize) -> Option<Found> {
        if *self.bytes.first()? != HANDSHAKE_RECORD {
            return Some(Found::Opaque(BypassReason::NotTls));
        }
        let mut fresh = self.bytes.get(fresh..).unwrap_or_default();
        while !fresh.is_empty() {
            if self.acceptor.read_tls(&mut fresh).is_err() {
                return Some(Found::Opaque(BypassReason::BrokenHello));
            }
            match self.acceptor.accept() {
                Ok(Some(accepted)) => return Some(Found::Hello(Box::new(accepted))),
                Ok(None) => {}
                Err(_) => return Some(Found::Opaque(BypassReason::BrokenHello)),
            }
        }
        (self.bytes.len() >= bytes_max).then_some(Found::Opaque(BypassReason::BrokenHello))
    }
}

fn opening(accepted: Accepted, bytes: Vec<u8>) -> Opening {
    let hello = accepted.client_hello();
    let Some(name) = hello.server_name() else {
        return Opening::Opaque {
            reason: BypassReason::NoServerName,
            bytes,
        };
    };
    let server_name = name.trim_end_matches('.').to_ascii_lowercase();
    let offer = Offer::of(hello.alpn());
    Opening::Tls(Box::new(ClientHello {
        server_name,
        offer,
        accepted,
        bytes,
    }))
}

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
            assert_eq!(classify([one, two], BYTES_MAX), "tls", "cut at {at}");
            assert_eq!(classify([one], BYTES_MAX), "incomplete", "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_hello_is_told_apart() {
        for (bytes, expected) in [
            (hello("192.0.2.7"), "no_server_name"),
            (b"GET / HTTP/1.1\r\n".to_vec(), "not_tls"),
            (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "not_tls"),
            (vec![0x16, 3, 1, 0, 4, 9, 9, 9, 9], "broken_hello"),
            (vec![0x16; 70_000], "broken_hello"),
        ] {
            assert_eq!(
                classify([bytes.as_slice()], BYTES_MAX),
                expected,
                "{expected}"
            );
        }
    }
}
