//! Reads the calls inside a WebSocket, whose bytes pass as they came.
//!
//! A message of the application is held back until it is whole: one that asks for a response is a call, and is forwarded
//! if the caps allow it. If not, it stays here, and the application gets the API's error event, between two messages of
//! the provider. What the provider sends is passed on at once and read on the side; each response is one record.
//!
//! A compressed message builds on those before it. So after one was refused the provider could not read the next: such a
//! socket is closed (RFC 6455, code 1008), unless both sides agreed to compress each message by itself. It is closed too
//! after a response that outgrew its cap was ended: only so the provider stops to generate it.

mod calls;
mod frames;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{SEC_WEBSOCKET_EXTENSIONS, UPGRADE};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

pub(super) use calls::Calls;
use calls::Verdict;
use frames::{Content, Frames, Inflate, Piece, Sender};

use super::entry::End;
use crate::metrics::Bound;
use crate::process::limits;
use crate::sidecar::{BODY_PERMIT_BYTES, Context};

/// How the two sides of a socket compress what they send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Compression {
    /// Whether messages may be compressed.
    may: bool,
    client_starts_afresh: bool,
    server_starts_afresh: bool,
}

impl Compression {
    /// What the answer to the upgrade says; nothing, if it says what is not known here.
    pub(super) fn agreed(headers: &HeaderMap) -> Option<Self> {
        let is_websocket = headers
            .get(UPGRADE)
            .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let mut agreed = Self::default();
        for extension in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
            agreed.read(extension)?;
        }
        is_websocket.then_some(agreed)
    }

    /// RFC 7692, section 7.1. A smaller window than the largest needs no care: it is read by one of that size.
    fn read(&mut self, extension: &HeaderValue) -> Option<()> {
        let mut parameters = extension.to_str().ok()?.split(';').map(str::trim);
        if parameters.next() != Some("permessage-deflate") || self.may {
            return None;
        }
        self.may = true;
        for parameter in parameters {
            match parameter.split('=').next().unwrap_or_default().trim() {
                "client_no_context_takeover" => self.client_starts_afresh = true,
                "server_no_context_takeover" => self.server_starts_afresh = true,
                "client_max_window_bits" | "server_max_window_bits" => {}
                _ => return None,
            }
        }
        Some(())
    }

    fn of_client(self) -> Option<Inflate> {
        self.may.then(|| Inflate::new(self.client_starts_afresh))
    }

    fn of_server(self) -> Option<Inflate> {
        self.may.then(|| Inflate::new(self.server_starts_afresh))
    }
}

/// Passes on what both sides send until either is done.
pub(super) async fn relay<C, S>(calls: Calls, compression: Compression, client: C, server: S)
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let context = Arc::clone(&calls.context);
    let calls = Shared(Arc::new(Mutex::new(calls)));
    let (refusals, refused) = mpsc::channel(REFUSALS_MAX);
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    let up = Up {
        calls: calls.clone(),
        context,
        frames: Frames::new(
            Sender::Client,
            limits::BODY_BYTES_MAX,
            compression.of_client(),
        ),
        held: Held::default(),
        refusals,
    };
    let down = Down {
        calls: calls.clone(),
        frames: Frames::new(Sender::Server, MESSAGE_BYTES_MAX, compression.of_server()),
        refused,
    };
    let both = tokio::try_join!(
        up.run(from_client, to_server),
        down.run(from_server, to_client)
    );
    let end = match both {
        Ok(_) => End::ClientGone,
        Err(Ended { end, error }) => {
            tracing::debug!(%error, "a socket was cut");
            end
        }
    };
    calls.lock().end(end);
}

/// The calls of a socket, which both directions work on.
#[derive(Clone)]
struct Shared(Arc<Mutex<Calls>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a socket does not go on, and what that means for the calls under way.
struct Ended {
    end: End,
    error: io::Error,
}

impl Ended {
    fn by_client(error: io::Error) -> Self {
        Self {
            end: End::ClientGone,
            error,
        }
    }

    fn by_server(error: io::Error) -> Self {
        Self {
            end: End::Broken,
            error,
        }
    }

    fn here(why: &str) -> Self {
        Self::by_server(io::Error::other(why))
    }
}

/// What is sent to the application in the provider's place.
struct Refusal {
    events: Vec<Vec<u8>>,
    /// Whether the socket can't go on after it.
    is_last: bool,
}

/// From the application to the provider.
struct Up {
    calls: Shared,
    context: Arc<Context>,
    frames: Frames,
    held: Held,
    refusals: mpsc::Sender<Refusal>,
}

/// The message that is not whole yet.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// Where in them are frames that are no part of it.
    controls: Vec<Range<usize>>,
    /// Its share of the memory for all bodies.
    memory: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn push(&mut self, bytes: &[u8], is_control: bool) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        if is_control {
            self.controls.push(from..self.bytes.len());
        }
    }

    /// Takes the share of the memory that it has grown to: for its bytes, and for what is read of them.
    fn account(&mut self, context: &Context) -> bool {
        let held = self
            .memory
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let length = self.bytes.len().saturating_mul(2);
        let missing = (length / BODY_PERMIT_BYTES).saturating_sub(held);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        match (
            Arc::clone(&context.bodies).try_acquire_many_owned(missing),
            &mut self.memory,
        ) {
            (Ok(more), Some(memory)) => memory.merge(more),
            (Ok(more), memory @ None) => *memory = Some(more),
            (Err(_), _) => return false,
        }
        true
    }

    /// All of it.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }

    /// What of it is to be sent if the message is not.
    fn take_controls(&mut self) -> Vec<u8> {
        let Self {
            bytes, controls, ..
        } = std::mem::take(self);
        let parts = controls.into_iter().filter_map(|range| bytes.get(range));
        parts.flatten().copied().collect()
    }
}

impl Up {
    async fn run(
        mut self,
        mut client: impl AsyncRead + Unpin,
        mut server: impl AsyncWrite + Unpin,
    ) -> Result<(), Ended> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = client.read(&mut buffer).await.map_err(Ended::by_client)?;
            let bytes = buffer.get(..read).unwrap_or_default();
            let sent = if read == 0 {
                // What of a message came without its end.
                self.held.take()
            } else {
                self.pass(bytes).await?
            };
            // A provider that takes no more may still have something to say.
            if server.write_all(&sent).await.is_err() || server.flush().await.is_err() {
                return Ok(());
            }
            if read == 0 {
                drop(server.shutdown().await);
                return Ok(());
            }
        }
    }

    /// What is to be sent now that `bytes` have come.
    async fn pass(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Ended> {
        let mut out = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            let was_broken = self.frames.broken().is_some();
            let was_passing = self.frames.is_passing();
            let (piece, count) = self.frames.next(bytes);
            let (these, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
            bytes = rest;
            let is_control = piece == Piece::Control;
            if is_control && self.held.bytes.is_empty() || self.frames.is_passing() {
                out.append(&mut self.held.take());
                out.extend_from_slice(these);
            } else {
                self.held.push(these, is_control);
            }
            match piece {
                Piece::Control => {}
                // It was counted with the piece that was too much.
                Piece::Message if was_passing => {}
                Piece::Message => {
                    let fits = self.held.account(&self.context);
                    if !fits || self.frames.is_passing() {
                        self.pass_unread(fits)?;
                        out.append(&mut self.held.take());
                    }
                }
                Piece::Unread => {
                    if !was_broken {
                        self.calls.lock().unread("socket_framing");
                        self.may_be_unread()?;
                    }
                    out.append(&mut self.held.take());
                }
                Piece::End(content) => {
                    let is_too_long = matches!(content, Content::TooLong);
                    // It outgrew the bound with its last bytes.
                    if is_too_long && !was_passing && self.frames.broken().is_none() {
                        self.pass_unread(true)?;
                    }
                    out.append(&mut self.judge(content).await?);
                }
            }
        }
        Ok(out)
    }

    /// Lets the message at hand pass without being read.
    fn pass_unread(&mut self, fits: bool) -> Result<(), Ended> {
        self.frames.give_up();
        self.context.metrics.bound_reached(if fits {
            Bound::RequestBody
        } else {
            Bound::RequestBodies
        });
        self.calls.lock().unread("request_too_long");
        self.may_be_unread()
    }

    fn may_be_unread(&self) -> Result<(), Ended> {
        if self.calls.lock().fails_closed() {
            return Err(Ended::here("what can't be read must not pass here"));
        }
        Ok(())
    }

    /// What is to be sent of the message that is held, now that it is whole.
    async fn judge(&mut self, content: Content) -> Result<Vec<u8>, Ended> {
        if self.frames.broken().is_some() {
            self.calls.lock().unread("socket_compression");
            self.may_be_unread()?;
        }
        let verdict = match &content {
            Content::Message(message) => self.calls.lock().asked(message),
            Content::TooLong => Verdict::Forward,
        };
        let event = match verdict {
            Verdict::Forward => return Ok(self.held.take()),
            Verdict::Refuse(event) => event,
        };
        let is_last = self.frames.builds_on_earlier_messages();
        let refusal = Refusal {
            events: vec![event],
            is_last,
        };
        if self.refusals.send(refusal).await.is_err() || is_last {
            // The other direction says goodbye.
            return std::future::pending().await;
        }
        Ok(self.held.take_controls())
    }
}

/// From the provider to the application.
struct Down {
    calls: Shared,
    frames: Frames,
    refused: mpsc::Receiver<Refusal>,
}

impl Down {
    async fn run(
        mut self,
        mut server: impl AsyncRead + Unpin,
        mut client: impl AsyncWrite + Unpin,
    ) -> Result<(), Ended> {
        let mut buffer = vec![0; READ_BYTES];
        let mut may_be_refused = true;
        loop {
            let read = tokio::select! {
                biased;
                refusal = self.refused.recv(), if may_be_refused && self.may_speak() => {
                    match refusal {
                        Some(refusal) => self.refuse(refusal, &mut client).await?,
                        None => may_be_refused = false,
                    }
                    continue;
                }
                read = server.read(&mut buffer) => read.map_err(Ended::by_server)?,
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            if read == 0 {
                // Written before the application hears of it.
                self.calls.lock().end(End::Broken);
                drop(client.shutdown().await);
                return Ok(());
            }
            self.pass(bytes, &mut client).await?;
        }
    }

    /// Whether something can be sent in the provider's place: between messages. Where its frames are not read it never
    /// can, and the socket is to end.
    fn may_speak(&self) -> bool {
        self.frames.is_between_messages() || self.frames.broken().is_some()
    }

    async fn pass(
        &mut self,
        bytes: &[u8],
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Ended> {
        let (mut at, mut sent) = (0, 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let was_broken = self.frames.broken().is_some();
            let (piece, count) = self.frames.next(rest);
            at = at.saturating_add(count);
            match piece {
                Piece::End(Content::Message(message)) => {
                    let ended = self.calls.lock().said(&message);
                    if let Some(events) = ended {
                        write(client, bytes.get(sent..at).unwrap_or_default()).await?;
                        let is_last = true;
                        return self.refuse(Refusal { events, is_last }, client).await;
                    }
                }
                Piece::End(Content::TooLong) => self.calls.lock().unread("socket_message_too_long"),
                Piece::Message | Piece::Control | Piece::Unread => {}
            }
            if self.frames.broken().is_some() && !was_broken {
                self.calls.lock().unread("socket_framing");
            }
            if self.may_speak()
                && let Ok(refusal) = self.refused.try_recv()
            {
                write(client, bytes.get(sent..at).unwrap_or_default()).await?;
                sent = at;
                self.refuse(refusal, client).await?;
            }
        }
        write(client, bytes.get(sent..).unwrap_or_default()).await
    }

    async fn refuse(
        &self,
        refusal: Refusal,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Ended> {
        if self.frames.broken().is_some() {
            return Err(Ended::here("a call was refused, and nobody can be told"));
        }
        let bytes = refusal
            .frames()
            .map_err(|error| Ended::by_server(io::Error::other(error)))?;
        write(client, &bytes).await?;
        if refusal.is_last {
            drop(client.shutdown().await);
            return Err(Ended::here("nothing can follow what was refused"));
        }
        Ok(())
    }
}

impl Refusal {
    /// As it stands on the wire.
    fn frames(&self) -> Result<Vec<u8>, tungstenite::Error> {
        let mut bytes = Vec::new();
        for event in &self.events {
            let header = FrameHeader {
                opcode: OpCode::Data(Data::Text),
                ..FrameHeader::default()
            };
            let length = u64::try_from(event.len()).unwrap_or(u64::MAX);
            header.format(length, &mut bytes)?;
            bytes.extend_from_slice(event);
        }
        if self.is_last {
            let close = CloseFrame {
                code: CloseCode::Policy,
                reason: "Weir: a spending cap or a rule is in the way".into(),
            };
            Frame::close(Some(close)).format(&mut bytes)?;
        }
        Ok(bytes)
    }
}

async fn write(client: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Ended> {
    client.write_all(bytes).await.map_err(Ended::by_client)?;
    client.flush().await.map_err(Ended::by_client)
}

/// Bytes that are read at once, in each direction.
const READ_BYTES: usize = 16 << 10;

/// Bytes of a message of the provider that is read: as of an event of a stream over HTTP.
const MESSAGE_BYTES_MAX: usize = weir_core::answer::ANSWER_BYTES_MAX;

/// Refusals that wait for the end of a message of the provider; the application's next messages wait behind them.
const REFUSALS_MAX: usize = 4;
