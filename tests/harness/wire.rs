//! One side of a connection, byte by byte: exact bytes out, exact bytes in.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::soon;

/// A connection, with what was read and not yet asked for.
pub struct Wire<S> {
    stream: S,
    read: Vec<u8>,
}

/// An HTTP/1.1 message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// From the first line to the empty one, included, as it stood on the wire.
    pub head: String,
    /// Without its transfer coding, otherwise as it stood on the wire.
    pub body: Vec<u8>,
    /// After a chunked body: the lines before the empty one.
    pub trailers: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Of a connection.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// The connection.
    ///
    /// # Panics
    /// Where something was read that nobody asked for.
    pub fn into_inner(self) -> S {
        assert!(self.read.is_empty(), "read too far: {:?}", self.read);
        self.stream
    }

    /// The connection, to look at.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Sends `bytes`.
    ///
    /// # Panics
    /// Where the other side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends `bytes`.
    ///
    /// # Errors
    /// The connection's.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let sent = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        soon("the other side to read", sent).await
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        drop(soon("a close", self.stream.shutdown()).await);
    }

    /// Reads more; the number of bytes, 0 at the end.
    async fn more(&mut self) -> std::io::Result<usize> {
        soon("bytes, or their end", self.stream.read_buf(&mut self.read)).await
    }

    /// What was read and not yet asked for, with what has arrived since.
    ///
    /// # Panics
    /// Where the connection broke.
    pub async fn so_far(&mut self) -> &[u8] {
        assert!(self.more().await.is_ok());
        &self.read
    }

    /// What comes up to `end`, included.
    ///
    /// # Panics
    /// Where the connection ends first.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let found = self.read.windows(end.len()).position(|bytes| bytes == end);
            if let Some(at) = found {
                return self.read.drain(..at + end.len()).collect();
            }
            let more = self.more().await;
            assert!(
                more.as_ref().is_ok_and(|count| *count > 0),
                "expected {:?}, found {more:?} after {:?}",
                String::from_utf8_lossy(end),
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// The next `count` bytes.
    ///
    /// # Panics
    /// Where the connection ends first.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            let more = self.more().await;
            assert!(
                more.as_ref().is_ok_and(|count| *count > 0),
                "expected {count} bytes, found {more:?} after {}",
                self.read.len()
            );
        }
        self.read.drain(..count).collect()
    }

    /// What comes until the connection ends, and the error that it ended with.
    pub async fn rest(&mut self) -> (Vec<u8>, Option<std::io::Error>) {
        loop {
            match self.more().await {
                Ok(0) => return (std::mem::take(&mut self.read), None),
                Ok(_) => {}
                Err(error) => return (std::mem::take(&mut self.read), Some(error)),
            }
        }
    }

    /// A head: up to the empty line.
    pub async fn head(&mut self) -> String {
        String::from_utf8_lossy(&self.until(b"\r\n\r\n").await).into_owned()
    }

    /// A request, or a response to anything but HEAD.
    ///
    /// # Panics
    /// Where its framing is broken.
    pub async fn message(&mut self) -> Message {
        let head = self.head().await;
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_ascii_lowercase())
            })
        };
        let bodyless = ["HTTP/1.1 1", "HTTP/1.1 204", "HTTP/1.1 304"]
            .iter()
            .any(|start| head.starts_with(start));
        let mut message = Message {
            head: head.clone(),
            body: Vec::new(),
            trailers: String::new(),
        };
        if bodyless {
            return message;
        }
        if field("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
            (message.body, message.trailers) = self.chunks().await;
        } else if let Some(length) = field("content-length") {
            message.body = self.exactly(length.parse().unwrap()).await;
        } else if head.starts_with("HTTP/") {
            message.body = self.rest().await.0;
        }
        message
    }

    /// A chunked body and its trailers.
    ///
    /// # Panics
    /// Where its framing is broken.
    pub async fn chunks(&mut self) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await;
            if chunk.is_empty() {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        let mut trailers = String::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
            if line == "\r\n" {
                return (body, trailers);
            }
            trailers.push_str(&line);
        }
    }

    /// The data of one chunk.
    ///
    /// # Panics
    /// Where its framing is broken.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = String::from_utf8(self.until(b"\r\n").await).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            return Vec::new();
        }
        let data = self.exactly(size).await;
        assert_eq!(self.exactly(2).await, b"\r\n");
        data
    }
}

impl Message {
    /// The lines of the head, without the first.
    pub fn fields(&self) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter(|line| !line.is_empty())
            .collect()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Waits for bytes or the end; whether it is the end.
    pub async fn is_over(&mut self) -> bool {
        if !self.read.is_empty() {
            return false;
        }
        // An idle connection may stay so for as long as it likes.
        !matches!(self.stream.read_buf(&mut self.read).await, Ok(count) if count > 0)
    }
}
