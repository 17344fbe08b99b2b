//! A TCP stream that is read in larger pieces than rustls asks for.
//!
//! rustls reads 4 KiB at a time, so a prompt of 1 MB takes it more than 250 system calls. Where such
//! a read comes back full, more is waiting: that is then read at once, up to 64 KiB, and handed out
//! from memory. A read that is not full costs nothing more, and an idle stream holds no memory.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Read at once, in bytes.
const AHEAD_BYTES: usize = 64 << 10;

thread_local! {
    /// Room to read ahead into, used again and again by the streams of a thread.
    static SPARE: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
}

/// A TCP stream that reads ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    stream: TcpStream,
    ahead: Option<Ahead>,
}

/// What was read and not asked for yet.
#[derive(Debug)]
struct Ahead {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            ahead: None,
        }
    }

    /// Hands out what was read before; whether there was anything.
    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let Some(ahead) = &mut self.ahead else {
            return false;
        };
        let left = ahead.bytes.get(ahead.start..ahead.end).unwrap_or_default();
        let piece = left.get(..buffer.remaining()).unwrap_or(left);
        buffer.put_slice(piece);
        ahead.start = ahead.start.saturating_add(piece.len());
        if ahead.start >= ahead.end
            && let Some(Ahead { bytes, .. }) = self.ahead.take()
        {
            give_back(bytes);
        }
        true
    }

    /// Reads what is waiting behind a read that came back full. What goes wrong here comes up again
    /// at the next read.
    fn fetch(&mut self, cx: &mut Context<'_>) {
        let mut bytes = room();
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let end = buffer.filled().len();
        if end == 0 || !matches!(read, Poll::Ready(Ok(()))) {
            return give_back(bytes);
        }
        self.ahead = Some(Ahead {
            bytes,
            start: 0,
            end,
        });
    }
}

fn room() -> Box<[u8]> {
    let spare = SPARE.with_borrow_mut(Option::take);
    spare.unwrap_or_else(|| vec![0; AHEAD_BYTES].into_boxed_slice())
}

fn give_back(bytes: Box<[u8]>) {
    SPARE.set(Some(bytes));
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.hand_out(buffer) {
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if matches!(read, Poll::Ready(Ok(()))) && buffer.remaining() == 0 {
            self.fetch(cx);
        }
        read
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsFd for ReadAhead {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (ReadAhead, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let far = listener.accept().await.unwrap().0;
        (ReadAhead::new(near), far)
    }

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_however_much_is_asked_for() {
        let sent: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        for piece in [1_000, 4_096, 100_000] {
            let (mut near, mut far) = pair().await;
            let bytes = sent.clone();
            let sending = tokio::spawn(async move { far.write_all(&bytes).await });
            let mut read = Vec::new();
            let mut buffer = vec![0; piece];
            loop {
                let bytes = near.read(&mut buffer).await.unwrap();
                read.extend_from_slice(&buffer[..bytes]);
                if bytes == 0 {
                    break;
                }
            }
            sending.await.unwrap().unwrap();
            assert!(read == sent, "{piece} bytes at a time");
            assert!(near.ahead.is_none(), "nothing is held at the end");
        }
    }

    #[tokio::test]
    async fn a_read_that_is_full_brings_the_rest_along_and_one_that_is_not_brings_nothing() {
        let (mut near, mut far) = pair().await;
        far.write_all(&[7; 10_000]).await.unwrap();
        near.stream.readable().await.unwrap();
        let mut buffer = [0; 4_096];
        assert_eq!(near.read(&mut buffer).await.unwrap(), 4_096);
        let ahead = near.ahead.as_ref().map(|ahead| ahead.end - ahead.start);
        assert_eq!(ahead, Some(10_000 - 4_096));
        assert_eq!(near.read(&mut buffer).await.unwrap(), 4_096);
        assert_eq!(near.read(&mut buffer).await.unwrap(), 10_000 - 2 * 4_096);
        assert!(near.ahead.is_none());
        far.write_all(&[7; 100]).await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 100);
        assert!(near.ahead.is_none());
    }

    #[tokio::test]
    async fn the_end_is_seen_behind_what_was_read_ahead() {
        let (mut near, mut far) = pair().await;
        far.write_all(&[7; 8_192]).await.unwrap();
        drop(far);
        let mut read = Vec::new();
        near.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [7; 8_192]);
    }
}
