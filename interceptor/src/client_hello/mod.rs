//! Reads the TLS ClientHello of a connection, keeping every byte, so that the connection can
//! still be spliced to its original destination as if nobody had looked.
//!
//! The hello is parsed by rustls' `Acceptor`. It may span several TCP segments (post-quantum key
//! shares make it longer than one), so reading goes on until it is whole, opaque, too long or late.
//! ECH is seen by its outer server name only (RFC 9849): an inner name never leads to inspection.

mod parse;

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::metrics::BypassReason;
pub use parse::classify;
pub(crate) use parse::{ClientHello, Offer};
use parse::{NoHello, Reader};

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
    /// TLS that we do not speak, of 1.1 or older, to a server that is known.
    Unanswerable {
        /// Lower case, without a trailing dot.
        server_name: String,
        /// What the client sent so far.
        bytes: Vec<u8>,
    },
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
                return Ok::<_, io::Error>(Err(NoHello::Broken));
            }
            if let Some(found) = reader.look(before, limits.bytes_max) {
                return Ok(found);
            }
        }
    };
    let found = match tokio::time::timeout(limits.wait_max, reading).await {
        Ok(found) => found?,
        Err(_elapsed) if reader.bytes.is_empty() => {
            return Ok(Opening::Opaque {
                reason: BypassReason::SilentClient,
                bytes: reader.bytes,
            });
        }
        Err(_elapsed) => Err(NoHello::Broken),
    };
    let bytes = reader.bytes;
    let opened = match found {
        Err(NoHello::Broken) if bytes.is_empty() => return Ok(Opening::Closed),
        Err(reason) => Err((reason, bytes)),
        Ok(accepted) => ClientHello::of(*accepted, bytes),
    };
    Ok(match opened {
        Ok(hello) => Opening::Tls(Box::new(hello)),
        Err((NoHello::Unanswerable(server_name), bytes)) => {
            Opening::Unanswerable { server_name, bytes }
        }
        Err((NoHello::NotTls, bytes)) => opaque(BypassReason::NotTls, bytes),
        Err((NoHello::NoServerName, bytes)) => opaque(BypassReason::NoServerName, bytes),
        Err((NoHello::Broken, bytes)) => opaque(BypassReason::BrokenHello, bytes),
    })
}

const fn opaque(reason: BypassReason, bytes: Vec<u8>) -> Opening {
    Opening::Opaque { reason, bytes }
}
