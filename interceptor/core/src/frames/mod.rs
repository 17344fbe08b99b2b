//! Messages of Amazon's binary event stream, `application/vnd.amazon.eventstream`, told apart as
//! the bytes come.
//!
//! A message is, in big-endian order: 4 bytes of its whole length, 4 of the length of its headers,
//! 4 of the CRC-32 of those 8; the headers; the payload; 4 bytes of the CRC-32 of all before. A
//! header is a name behind one byte of length, one byte of type, and a value whose length the type
//! tells. (As `botocore` and Amazon's SDKs read it.)
//!
//! Like [`crate::sse`] this watches a stream that somebody else passes on. A message that is too
//! long, or whose checksum is wrong, is counted and passed over; after a wrong prelude nothing can
//! be told apart any more.

use std::mem;

/// A complete message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Whether it tells of a failure: `:message-type` is `exception` or `error`.
    pub is_exception: bool,
    /// What it is: `:event-type`, or of a failure `:exception-type` or `:error-code`.
    pub name: &'a [u8],
    /// Mostly JSON.
    pub payload: &'a [u8],
}

/// Tells messages apart, however the stream is cut.
#[derive(Debug)]
pub struct FrameParser {
    frame_bytes_max: usize,
    /// What has arrived of a message whose end has not.
    pending: Vec<u8>,
    /// Bytes still to come of a message that is passed over.
    to_skip: usize,
    skipped: u64,
    lost: bool,
}

/// What stands at the start of some bytes.
enum Start {
    /// A message of so many bytes, or at least so many: more have to come.
    Partial,
    Whole(usize),
    TooLong(usize),
    NoMessage,
}

impl FrameParser {
    /// Before the first byte of a stream. Messages of more than `frame_bytes_max` bytes are passed
    /// over.
    #[must_use]
    pub const fn new(frame_bytes_max: usize) -> Self {
        Self {
            frame_bytes_max,
            pending: Vec::new(),
            to_skip: 0,
            skipped: 0,
            lost: false,
        }
    }

    /// Takes the next bytes; calls `each` with every message that is complete by them.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Frame<'_>)) {
        let mut rest = bytes;
        // What began in an earlier push is completed by just as many bytes as it lacks.
        while !self.pending.is_empty() && !rest.is_empty() && !self.lost {
            let wanted = match prelude(&self.pending) {
                None => PRELUDE_BYTES,
                Some((total, _)) => total,
            };
            let missing = wanted.saturating_sub(self.pending.len());
            let (now, later) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
            self.pending.extend_from_slice(now);
            rest = later;
            let mut begun = mem::take(&mut self.pending);
            let left = self.read(&begun, &mut each);
            begun.drain(..begun.len().saturating_sub(left));
            self.pending = begun;
        }
        let left = self.read(rest, &mut each);
        let kept = rest.len().saturating_sub(left);
        self.pending
            .extend_from_slice(rest.get(kept..).unwrap_or_default());
    }

    /// How many of the bytes pushed last belong to a message that is not complete; none where that
    /// is not known.
    #[must_use]
    pub fn open_bytes(&self) -> Option<u64> {
        if self.lost || self.to_skip > 0 {
            return None;
        }
        u64::try_from(self.pending.len()).ok()
    }

    /// How many messages were passed over, the one included after which nothing could be read.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Reads the messages that `bytes` start with; returns how many bytes are left that are the
    /// start of another.
    fn read(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) -> usize {
        let mut rest = bytes;
        while !self.lost {
            let skipped = self.to_skip.min(rest.len());
            self.to_skip = self.to_skip.saturating_sub(skipped);
            rest = rest.get(skipped..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match self.start(rest) {
                Start::Partial => return rest.len(),
                Start::Whole(total) => {
                    let (message, next) = rest.split_at_checked(total).unwrap_or((rest, &[]));
                    match frame(message) {
                        Some(frame) => each(frame),
                        None => self.skipped = self.skipped.saturating_add(1),
                    }
                    rest = next;
                }
                Start::TooLong(total) => {
                    self.skipped = self.skipped.saturating_add(1);
                    self.to_skip = total;
                }
                Start::NoMessage => {
                    self.skipped = self.skipped.saturating_add(1);
                    self.lost = true;
                }
            }
        }
        0
    }

    fn start(&self, bytes: &[u8]) -> Start {
        let Some((total, headers)) = prelude(bytes) else {
            return Start::Partial;
        };
        let checked = bytes.get(..8).map(crc32fast::hash) == number(bytes, 8);
        let fits = total >= PRELUDE_BYTES.saturating_add(CHECKSUM_BYTES)
            && headers
                <= total
                    .saturating_sub(PRELUDE_BYTES)
                    .saturating_sub(CHECKSUM_BYTES);
        if !checked || !fits {
            Start::NoMessage
        } else if total > self.frame_bytes_max {
            Start::TooLong(total)
        } else if bytes.len() < total {
            Start::Partial
        } else {
            Start::Whole(total)
        }
    }
}

/// The lengths of a message and of its headers, in bytes, when all of the prelude is there.
fn prelude(bytes: &[u8]) -> Option<(usize, usize)> {
    number(bytes, 8)?;
    let length = |at| number(bytes, at).and_then(|length| usize::try_from(length).ok());
    Some((length(0)?, length(4)?))
}

/// The number of 4 bytes at `at`.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Takes a whole message apart; nothing if its checksum or its headers are wrong.
fn frame(message: &[u8]) -> Option<Frame<'_>> {
    let (_, headers_bytes) = prelude(message)?;
    let end = message.len().checked_sub(CHECKSUM_BYTES)?;
    if Some(crc32fast::hash(message.get(..end)?)) != number(message, end) {
        return None;
    }
    let payload = PRELUDE_BYTES.checked_add(headers_bytes)?;
    let mut headers = message.get(PRELUDE_BYTES..payload)?;
    let mut frame = Frame {
        is_exception: false,
        name: &[],
        payload: message.get(payload..end)?,
    };
    while let Some((name, value)) = header(&mut headers)? {
        match name {
            b":message-type" => frame.is_exception = value != b"event",
            b":event-type" | b":exception-type" | b":error-code" => frame.name = value,
            _ => {}
        }
    }
    Some(frame)
}

/// Takes one header from the start of `headers`: `Some(None)` at their end, `None` if it is none.
#[expect(
    clippy::type_complexity,
    reason = "a header or the end, and perhaps neither"
)]
fn header<'a>(headers: &mut &'a [u8]) -> Option<Option<(&'a [u8], &'a [u8])>> {
    if headers.is_empty() {
        return Some(None);
    }
    let name_bytes = usize::from(take(headers, 1)?.first().copied()?);
    let name = take(headers, name_bytes)?;
    let value_bytes = match take(headers, 1)?.first().copied()? {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        6 | 7 => usize::from(u16::from_be_bytes(take(headers, 2)?.try_into().ok()?)),
        9 => 16,
        _ => return None,
    };
    Some(Some((name, take(headers, value_bytes)?)))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Both lengths and their checksum, in bytes.
const PRELUDE_BYTES: usize = 12;

/// The checksum at the end of a message, in bytes.
const CHECKSUM_BYTES: usize = 4;

#[cfg(test)]
mod tests;
