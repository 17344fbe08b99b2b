//! Reads the CONNECT request of a program that was told of a proxy (RFC 9110, section 9.3.6).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::forward::Destination;

const HEAD_BYTES_MAX: usize = 16 << 10;
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const REFUSED: &[u8] =
    b"HTTP/1.1 405 Method Not Allowed\r\nallow: CONNECT\r\ncontent-length: 0\r\n\
    connection: close\r\n\r\n";

/// The destination that the client asks for, answered with 200; none where it asks for anything
/// else, answered with 405.
///
/// # Errors
/// The socket's, or a head that is too long or too late.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<Destination>> {
    let head = tokio::time::timeout(HEAD_WAIT_MAX, read_head(stream)).await??;
    let destination = parse(&head);
    stream
        .write_all(if destination.is_some() {
            ESTABLISHED
        } else {
            REFUSED
        })
        .await?;
    Ok(destination)
}

/// Byte by byte towards the end, so that nothing of the tunnelled bytes is taken: a client waits
/// for our answer before it sends them, so in practice the head comes in one piece.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the request's head is too long",
            ));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn parse(head: &[u8]) -> Option<Destination> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    if words.next()? != "CONNECT" {
        return None;
    }
    let target = words.next()?;
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    if let Ok(address) = target.parse() {
        return Some(Destination::Address(address));
    }
    let (host, port) = target.rsplit_once(':')?;
    Some(Destination::Name(
        Arc::from(host.to_ascii_lowercase()),
        port.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_or_an_address_with_a_port() {
        let parsed = |line: &str| parse(format!("{line}\r\nhost: x\r\n\r\n").as_bytes());
        let name = Destination::Name(Arc::from("api.openai.com"), 443);
        assert_eq!(parsed("CONNECT API.openai.com:443 HTTP/1.1"), Some(name));
        let address = Destination::Address("[2001:db8::7]:443".parse().unwrap());
        assert_eq!(parsed("CONNECT [2001:db8::7]:443 HTTP/1.1"), Some(address));
        for bad in [
            "GET http://example.org/ HTTP/1.1",
            "CONNECT example.org HTTP/1.1",
            "CONNECT",
            "",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
