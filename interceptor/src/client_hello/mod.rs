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
    let mut bytes = Vec::with_capacity(READ_BYTES);
    match tokio::time::timeout(limits.wait_max, read_hello(stream, &mut bytes, limits)).await {
        Ok(Ok(Parsed::Hello(accepted))) => Ok(opening(accepted, bytes)),
        Ok(Ok(Parsed::Opaque(reason))) => Ok(Opening::Opaque { reason, bytes }),
        Ok(Ok(Parsed::Closed)) if bytes.is_empty() => Ok(Opening::Closed),
        Ok(Ok(Parsed::Closed)) => Ok(Opening::Opaque {
            reason: BypassReason::BrokenHello,
            bytes,
        }),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) if bytes.is_empty() => Ok(Opening::Opaque {
            reason: BypassReason::SilentClient,
            bytes,
        }),
        Err(_elapsed) => Ok(Opening::Opaque {
            reason: BypassReason::BrokenHello,
            bytes,
        }),
    }
}

enum Parsed {
    Hello(Accepted),
    Opaque(BypassReason),
    Closed,
}

async fn read_hello(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    limits: Limits,
) -> io::Result<Parsed> {
    let mut acceptor = Acceptor::default();
    loop {
        let before = bytes.len();
        bytes.reserve(READ_BYTES);
        if stream.read_buf(bytes).await? == 0 {
            return Ok(Parsed::Closed);
        }
        if bytes.first() != Some(&HANDSHAKE_RECORD) {
            return Ok(Parsed::Opaque(BypassReason::NotTls));
        }
        let mut fresh = bytes.get(before..).unwrap_or_default();
        while !fresh.is_empty() {
            if acceptor.read_tls(&mut fresh).is_err() {
                return Ok(Parsed::Opaque(BypassReason::BrokenHello));
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(Parsed::Hello(accepted)),
                Ok(None) => {}
                Err(_) => return Ok(Parsed::Opaque(BypassReason::BrokenHello)),
            }
        }
        if bytes.len() >= limits.bytes_max {
            return Ok(Parsed::Opaque(BypassReason::BrokenHello));
        }
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
