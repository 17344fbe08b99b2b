//! Tells the frames of one direction of a WebSocket apart as the bytes pass, and puts messages together from them
//! (RFC 6455; compressed messages RFC 7692).
//!
//! It owns no bytes that are passed on: it says how many of those at hand belong to what, and keeps a copy of the
//! message that is being read. What it can't read ends the reading, never the traffic.

use std::io::Cursor;

use flate2::{Decompress, FlushDecompress, Status};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Part of a message that goes on after them.
    Message,
    /// Of a frame that stands between those of messages: a ping, a pong, or the end.
    Control,
    /// The end of a message.
    End(Content),
    /// Bytes of a direction that is not read any more.
    Unread,
}

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Message(Vec<u8>),
    /// It was longer than what is read.
    TooLong,
}

/// Who sends the bytes of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// The application: it masks each frame (RFC 6455, section 5.1).
    Client,
    /// The provider, which masks none.
    Server,
}

impl Sender {
    /// Whether the first bytes of a header, all of it or not, can be those of a frame: the rest
    /// need not be waited for.
    fn may_begin_with(self, header: &[u8]) -> bool {
        let opcode_is_known = |byte: u8| matches!(byte & 0x0f, 0..=2 | 8..=10);
        let is_masked_as_due = |byte: u8| (byte & 0x80 != 0) == (self == Self::Client);
        header
            .first()
            .is_none_or(|byte| byte & 0x30 == 0 && opcode_is_known(*byte))
            && header.get(1).is_none_or(|byte| is_masked_as_due(*byte))
    }
}

/// Why a direction is not read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Its bytes are no frames.
    Framing,
    /// A compressed message can't be read; those after it depend on it.
    Compression,
}

/// Reads one direction.
pub(super) struct Frames {
    sender: Sender,
    message_bytes_max: usize,
    inflate: Option<Inflate>,
    /// The bytes of a header that is not complete.
    header: Vec<u8>,
    frame: Option<Frame>,
    message: Option<Message>,
    broken: Option<Broken>,
}

/// The frame that is being read.
struct Frame {
    is_control: bool,
    is_final: bool,
    mask: Option<[u8; 4]>,
    /// Bytes of its payload that were read, and those that are to come.
    read: u64,
    left: u64,
}

/// The message that is being read.
struct Message {
    payload: Vec<u8>,
    is_compressed: bool,
    is_too_long: bool,
}

impl Frames {
    /// Before the first byte. A message longer than `message_bytes_max`, decompressed or not, is not kept.
    pub(super) fn new(sender: Sender, message_bytes_max: usize, inflate: Option<Inflate>) -> Self {
        Self {
            sender,
            message_bytes_max,
            inflate,
            header: Vec::new(),
            frame: None,
            message: None,
            broken: None,
        }
    }

    /// Why nothing more is read.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// Whether something may be sent between what was read and what comes.
    pub(super) fn is_between_messages(&self) -> bool {
        self.header.is_empty()
            && self.frame.is_none()
            && self.message.is_none()
            && self.broken.is_none()
    }

    /// Whether the message at hand is not kept, so that there is no reason to hold it back.
    pub(super) fn is_passing(&self) -> bool {
        self.message
            .as_ref()
            .is_some_and(|message| message.is_too_long)
    }

    /// Keeps nothing of the message at hand.
    pub(super) fn give_up(&mut self) {
        if let Some(message) = &mut self.message {
            message.is_too_long = true;
            message.payload = Vec::new();
        }
    }

    /// Whether a message that is missing leaves those after it unreadable to the other side.
    pub(super) fn builds_on_earlier_messages(&self) -> bool {
        self.inflate
            .as_ref()
            .is_some_and(|inflate| !inflate.starts_afresh)
    }

    /// What the first of `bytes`, which are not empty, are; and how many of them.
    pub(super) fn next(&mut self, bytes: &[u8]) -> (Piece, usize) {
        if self.broken.is_some() {
            return (Piece::Unread, bytes.len());
        }
        let Some(frame) = self.frame.take() else {
            return self.next_of_header(bytes);
        };
        let here = usize::try_from(frame.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.payload(frame, bytes.get(..here).unwrap_or_default())
    }

    fn next_of_header(&mut self, bytes: &[u8]) -> (Piece, usize) {
        let before = self.header.len();
        let missing = HEADER_BYTES_MAX.saturating_sub(before).min(bytes.len());
        self.header
            .extend_from_slice(bytes.get(..missing).unwrap_or_default());
        if !self.sender.may_begin_with(&self.header) {
            return self.stop(Broken::Framing, bytes.len());
        }
        let mut cursor = Cursor::new(&self.header);
        let parsed = FrameHeader::parse(&mut cursor);
        let taken = usize::try_from(cursor.position())
            .unwrap_or_default()
            .saturating_sub(before);
        match parsed {
            Ok(Some((header, length))) => {
                self.header.clear();
                self.begin(&header, length, taken)
            }
            // Of which kind the frame is, its first byte says (RFC 6455, section 5.2).
            Ok(None) => {
                let is_control = self.header.first().is_some_and(|byte| byte & 0x08 != 0);
                (kind(is_control), missing)
            }
            Err(_) => self.stop(Broken::Framing, bytes.len()),
        }
    }

    fn begin(&mut self, header: &FrameHeader, length: u64, taken: usize) -> (Piece, usize) {
        let is_control = matches!(header.opcode, OpCode::Control(_));
        let continues = header.opcode == OpCode::Data(Data::Continue);
        let in_order = is_control || continues == self.message.is_some();
        let compressed_as_agreed =
            !header.rsv1 || (self.inflate.is_some() && !is_control && !continues);
        if !in_order || !compressed_as_agreed {
            return self.stop(Broken::Framing, taken);
        }
        if !is_control && !continues {
            self.message = Some(Message {
                payload: Vec::new(),
                is_compressed: header.rsv1,
                is_too_long: false,
            });
        }
        let frame = Frame {
            is_control,
            is_final: header.is_final,
            mask: header.mask,
            read: 0,
            left: length,
        };
        if length > 0 {
            self.frame = Some(frame);
            return (kind(is_control), taken);
        }
        let (piece, _) = self.payload(frame, &[]);
        (piece, taken)
    }

    /// Takes bytes of a frame's payload, up to its end at most.
    fn payload(&mut self, mut frame: Frame, bytes: &[u8]) -> (Piece, usize) {
        let taken = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let (Some(message), false) = (&mut self.message, frame.is_control) {
            message.push(bytes, &frame, self.message_bytes_max);
        }
        frame.read = frame.read.saturating_add(taken);
        frame.left = frame.left.saturating_sub(taken);
        let (is_control, is_last) = (frame.is_control, frame.left == 0 && frame.is_final);
        if frame.left > 0 {
            self.frame = Some(frame);
        }
        if is_control || !is_last {
            return (kind(is_control), bytes.len());
        }
        let Some(message) = self.message.take() else {
            return self.stop(Broken::Framing, bytes.len());
        };
        match self.content(message) {
            Some(content) => (Piece::End(content), bytes.len()),
            None => {
                // This message has its end here all the same.
                self.broken = Some(Broken::Compression);
                (Piece::End(Content::TooLong), bytes.len())
            }
        }
    }

    /// A message decompressed; nothing, if that fails.
    fn content(&mut self, message: Message) -> Option<Content> {
        match (message.is_compressed, message.is_too_long) {
            (false, false) => Some(Content::Message(message.payload)),
            (false, true) => Some(Content::TooLong),
            (true, true) => None,
            (true, false) => {
                let inflate = self.inflate.as_mut()?;
                let plain = inflate.message(message.payload, self.message_bytes_max)?;
                Some(Content::Message(plain))
            }
        }
    }

    fn stop(&mut self, broken: Broken, bytes: usize) -> (Piece, usize) {
        self.broken = Some(broken);
        self.message = None;
        (Piece::Unread, bytes)
    }
}

fn kind(is_control: bool) -> Piece {
    if is_control {
        Piece::Control
    } else {
        Piece::Message
    }
}

impl Message {
    fn push(&mut self, bytes: &[u8], frame: &Frame, bytes_max: usize) {
        if self.is_too_long || self.payload.len().saturating_add(bytes.len()) > bytes_max {
            self.is_too_long = true;
            self.payload = Vec::new();
            return;
        }
        let Some(mask) = frame.mask else {
            self.payload.extend_from_slice(bytes);
            return;
        };
        // RFC 6455, section 5.3.
        let shift = usize::try_from(frame.read % 4).unwrap_or_default();
        let mask = mask.iter().cycle().skip(shift);
        self.payload
            .extend(bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    }
}

/// Decompresses the messages of one direction.
pub(super) struct Inflate {
    stream: Decompress,
    /// Whether each message is compressed by itself (`…_no_context_takeover`).
    starts_afresh: bool,
}

impl Inflate {
    pub(super) fn new(starts_afresh: bool) -> Self {
        Self {
            stream: Decompress::new(false),
            starts_afresh,
        }
    }

    /// A message of at most `bytes_max` bytes; nothing, if it is longer or broken.
    fn message(&mut self, mut payload: Vec<u8>, bytes_max: usize) -> Option<Vec<u8>> {
        // RFC 7692, section 7.2.2.
        payload.extend_from_slice(&[0, 0, 0xff, 0xff]);
        if self.starts_afresh {
            self.stream.reset(false);
        }
        let mut plain = Vec::with_capacity(payload.len().saturating_mul(USUAL_RATIO));
        let begun = self.stream.total_in();
        loop {
            let read = usize::try_from(self.stream.total_in().checked_sub(begun)?).ok()?;
            let (input, length) = (payload.get(read..)?, plain.len());
            let status = self
                .stream
                .decompress_vec(input, &mut plain, FlushDecompress::Sync)
                .ok()?;
            if plain.len() > bytes_max || status == Status::StreamEnd {
                return None;
            }
            let all_is_read = self.stream.total_in().checked_sub(begun)?
                >= u64::try_from(payload.len()).unwrap_or(u64::MAX);
            if plain.len() < plain.capacity() {
                if all_is_read {
                    return Some(plain);
                }
                if plain.len() == length {
                    return None;
                }
            }
            plain.reserve(DECOMPRESSED_BYTES_MIN.max(length));
        }
    }
}

/// The longest header of a frame (RFC 6455, section 5.2).
const HEADER_BYTES_MAX: usize = 14;

/// What JSON is longer than when it was compressed: the first guess of a message's length.
const USUAL_RATIO: usize = 4;

/// The least that the room for a message grows by, in bytes.
const DECOMPRESSED_BYTES_MIN: usize = 4096;

#[cfg(test)]
mod made;
#[cfg(test)]
mod tests;
