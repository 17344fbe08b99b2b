//! A TLS connection to a target, and just as much HTTP/1.1 as reading answers takes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::{Buf as _, BytesMut};
use memchr::{memchr, memmem};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{HTTP1, HTTP2, client_config};
use crate::traffic::{API_HOST, OTHER_HOST};

/// Where calls go, and whom to trust there.
pub(crate) struct Target {
    to: SocketAddr,
    proxy: Option<SocketAddr>,
    api: TlsConnector,
    api_http2: TlsConnector,
    other: TlsConnector,
}

/// What kind of connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    Api,
    ApiHttp2,
    Other,
}

impl Target {
    pub(crate) fn new(
        to: SocketAddr,
        proxy: Option<SocketAddr>,
        ca: &Path,
        other_ca: &Path,
    ) -> anyhow::Result<Self> {
        // Programs that open a connection for each call do not resume sessions.
        let connector = |ca, alpn| -> anyhow::Result<TlsConnector> {
            let config = client_config(ca, alpn, Some(Resumption::disabled()))?;
            Ok(Arc::new(config).into())
        };
        Ok(Self {
            to,
            proxy,
            api: connector(ca, HTTP1)?,
            api_http2: connector(ca, HTTP2)?,
            other: connector(other_ca, HTTP1)?,
        })
    }

    pub(crate) async fn connect(&self, to: To) -> anyhow::Result<TlsStream<TcpStream>> {
        let (connector, host) = match to {
            To::Api => (&self.api, API_HOST),
            To::ApiHttp2 => (&self.api_http2, API_HOST),
            To::Other => (&self.other, OTHER_HOST),
        };
        let mut tcp = TcpStream::connect(self.proxy.unwrap_or(self.to)).await?;
        tcp.set_nodelay(true)?;
        if self.proxy.is_some() {
            let authority = match to {
                To::Api | To::ApiHttp2 => format!("{API_HOST}:{}", self.to.port()),
                // A name that only the tunnel itself would have to resolve.
                To::Other => self.to.to_string(),
            };
            tunnel(&mut tcp, &authority).await?;
        }
        let tls = connector.connect(ServerName::try_from(host)?, tcp).await;
        let tls = tls.with_context(|| format!("expected a TLS handshake with {host}"))?;
        let (alpn, expected) = (
            tls.get_ref().1.alpn_protocol(),
            match to {
                To::ApiHttp2 => HTTP2,
                To::Api | To::Other => HTTP1,
            },
        );
        anyhow::ensure!(
            alpn == Some(expected),
            "expected {expected:?} by ALPN, found {alpn:?}"
        );
        Ok(tls)
    }
}

async fn tunnel(tcp: &mut TcpStream, authority: &str) -> anyhow::Result<()> {
    let request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = BytesMut::new();
    while !answer.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(answer.len() < HEAD_BYTES_MAX, "expected the end of a head");
        anyhow::ensure!(
            tcp.read_buf(&mut answer).await? > 0,
            "expected an answer to CONNECT"
        );
    }
    anyhow::ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "expected a tunnel, found {answer:?}"
    );
    Ok(())
}

/// An HTTP/1.1 connection. After an error it is of no more use.
pub(crate) struct Connection {
    tls: TlsStream<TcpStream>,
    unread: BytesMut,
}

/// How long the body of an answer is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

impl Connection {
    pub(crate) fn new(tls: TlsStream<TcpStream>) -> Self {
        let unread = BytesMut::with_capacity(READ_BYTES);
        Self { tls, unread }
    }

    /// Sends a whole request.
    pub(crate) async fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.tls.write_all(request).await?;
        Ok(self.tls.flush().await?)
    }

    /// Reads the head of an answer, whose status must be 200.
    pub(crate) async fn head(&mut self) -> anyhow::Result<Framing> {
        loop {
            if let Some(at) = memmem::find(&self.unread, b"\r\n\r\n") {
                return framing(&self.unread.split_to(at + 4));
            }
            anyhow::ensure!(
                self.unread.len() < HEAD_BYTES_MAX,
                "expected the end of a head"
            );
            self.fill().await?;
        }
    }

    /// Reads and forgets a body of `bytes` bytes.
    pub(crate) async fn skip(&mut self, bytes: u64) -> anyhow::Result<()> {
        let mut left = bytes;
        loop {
            let here = left.min(self.unread.len() as u64);
            self.unread.advance(usize::try_from(here)?);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Reads what has arrived of a chunked body, at least something, into `text`; the end is
    /// remembered in `chunks`.
    pub(crate) async fn read_chunks(
        &mut self,
        chunks: &mut Chunks,
        text: &mut BytesMut,
    ) -> anyhow::Result<()> {
        let before = text.len();
        loop {
            chunks.decode(&mut self.unread, text)?;
            if chunks.ended() || text.len() > before {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Ends the connection as TLS wants it.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        Ok(self.tls.shutdown().await?)
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.unread.reserve(READ_BYTES);
        let read = self.tls.read_buf(&mut self.unread).await?;
        anyhow::ensure!(
            read > 0,
            "expected more of an answer, found the end of the connection"
        );
        Ok(())
    }
}

fn framing(head: &[u8]) -> anyhow::Result<Framing> {
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    anyhow::ensure!(
        status.starts_with("HTTP/1.1 200"),
        "expected status 200, found {status}"
    );
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(Framing::Length(value.trim().parse()?));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            anyhow::ensure!(value.trim() == "chunked", "expected chunks, found {value}");
            return Ok(Framing::Chunked);
        }
    }
    anyhow::bail!("expected a content-length or chunks, found {head}")
}

/// Where the reading of a chunked body stands (RFC 9112, section 7.1).
#[derive(Debug, Default, PartialEq)]
pub(crate) enum Chunks {
    #[default]
    Size,
    /// Bytes of the chunk that are still to come.
    Data(usize),
    /// The line end after the data.
    DataEnd,
    /// The lines after the last chunk.
    Trailers,
    Ended,
}

impl Chunks {
    pub(crate) fn ended(&self) -> bool {
        *self == Self::Ended
    }

    /// Takes all that has arrived from `unread`, and appends what is data to `text`.
    fn decode(&mut self, unread: &mut BytesMut, text: &mut BytesMut) -> anyhow::Result<()> {
        loop {
            *self = match self {
                Self::Size => match take_line(unread) {
                    None => return Ok(()),
                    Some(line) => match size(&line)? {
                        0 => Self::Trailers,
                        size => Self::Data(size),
                    },
                },
                Self::Data(left) => {
                    let here = (*left).min(unread.len());
                    text.extend_from_slice(&unread.split_to(here));
                    match *left - here {
                        0 => Self::DataEnd,
                        left => {
                            *self = Self::Data(left);
                            return Ok(());
                        }
                    }
                }
                Self::DataEnd => match take_line(unread) {
                    None => return Ok(()),
                    Some(_) => Self::Size,
                },
                Self::Trailers => match take_line(unread) {
                    None => return Ok(()),
                    Some(line) if line.trim_ascii().is_empty() => Self::Ended,
                    Some(_) => Self::Trailers,
                },
                Self::Ended => return Ok(()),
            };
        }
    }
}

fn take_line(unread: &mut BytesMut) -> Option<BytesMut> {
    let end = memchr(b'\n', unread)?;
    Some(unread.split_to(end + 1))
}

fn size(line: &[u8]) -> anyhow::Result<usize> {
    let line = std::str::from_utf8(line)?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16).with_context(|| format!("expected a size, found {line:?}"))
}

/// Room for one read.
const READ_BYTES: usize = 64 << 10;
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_wherever_they_are_split() {
        let wire = b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nt: 1\r\n\r\n";
        for split in 0..=wire.len() {
            let (mut chunks, mut text) = (Chunks::default(), BytesMut::new());
            let mut unread = BytesMut::new();
            for part in [&wire[..split], &wire[split..]] {
                unread.extend_from_slice(part);
                chunks.decode(&mut unread, &mut text).unwrap();
            }
            assert_eq!(&text[..], b"hello, world", "split at {split}");
            assert!(chunks.ended(), "split at {split}");
        }
        let mut bad = BytesMut::from("five\r\n");
        assert!(
            Chunks::default()
                .decode(&mut bad, &mut BytesMut::new())
                .is_err()
        );
    }

    #[test]
    fn only_a_complete_answer_with_status_200_counts() {
        let ok = framing(b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 12\r\n\r\n").unwrap();
        assert_eq!(ok, Framing::Length(12));
        let chunked = framing(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        assert_eq!(chunked, Framing::Chunked);
        assert!(framing(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(framing(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
