//! Events of a stream, told apart as the bytes come (WHATWG HTML, section 9.2.6 "Interpreting an
//! event stream").
//!
//! The parser watches a stream that is passed on by somebody else: it owns no bytes of an event
//! that lies in one push, and only what has arrived of one that is cut. An event whose bytes
//! exceed a bound is counted and passed over; the stream goes on. Of fields only `event` and
//! `data` are read: `id` and `retry` concern reconnection, which no provider offers. As the
//! standard says, an event that is not closed by an empty line is none.

use std::mem;
use std::ops::Range;

use memchr::memchr2;

/// A complete event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The field `event`; empty if there is none.
    pub name: &'a [u8],
    /// The fields `data`, joined by line feeds.
    pub data: &'a [u8],
    /// Where its bytes are in the stream, from the end of the previous block up to and with its
    /// empty line. A line feed that belongs to the final carriage return but comes in a later push
    /// is in no event.
    pub range: Range<u64>,
}

/// Tells events apart, however the stream is cut.
#[derive(Debug)]
pub struct EventParser {
    event_bytes_max: usize,
    /// How many bytes were pushed.
    pushed: u64,
    /// Where the block of lines that is being read starts in the stream.
    block_start: u64,
    /// What of that block came in earlier pushes; nothing if it is too long.
    pending: Vec<u8>,
    block: Block,
    /// The last byte pushed was a carriage return: a line feed would belong to it.
    after_return: bool,
    skipped: u64,
}

/// What is known of the block that is being read. Ranges count from its start.
#[derive(Debug, Default)]
struct Block {
    line_start: usize,
    /// Whether the line that is being read has bytes in earlier pushes.
    line_begun: bool,
    name: Range<usize>,
    data: Data,
    too_long: bool,
}

#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    /// One line, which stays where it is.
    Line(Range<usize>),
    /// Several lines, joined.
    Lines(Vec<u8>),
}

impl EventParser {
    /// Before the first byte of a stream. An event of more than `event_bytes_max` bytes, field
    /// names and line ends included, is passed over.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            pushed: 0,
            block_start: 0,
            pending: Vec::new(),
            block: Block::default(),
            after_return: false,
            skipped: 0,
        }
    }

    /// Takes the next bytes of the stream; calls `each` with every event that is complete by them.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Event<'_>)) {
        let mut rest = self.complete_line_end(bytes);
        // Where the block starts in this push, if it does.
        let mut block = rest;
        while let Some(length) = memchr2(b'\n', b'\r', rest) {
            let (line_end, next) = split_line(rest, length);
            self.after_return = next.is_empty() && line_end == b"\r";
            let consumed = length.saturating_add(line_end.len());
            let is_blank = length == 0 && !self.block.line_begun;
            self.block.line_begun = false;
            if !self.pending.is_empty() {
                self.pending
                    .extend_from_slice(rest.get(..consumed).unwrap_or_default());
            }
            let end = self.pushed.saturating_add(distance(bytes, next));
            let block_bytes = end.saturating_sub(self.block_start);
            self.block.too_long |= block_bytes > widen(self.event_bytes_max);
            let buffer = if self.pending.is_empty() {
                block
            } else {
                &self.pending
            };
            if is_blank {
                self.skipped = self.skipped.saturating_add(u64::from(self.block.too_long));
                if let Some(event) = self.block.event(buffer, self.block_start..end) {
                    each(event);
                }
                self.start_block(end);
                block = next;
            } else {
                let line_bytes = narrow(block_bytes).saturating_sub(line_end.len());
                self.block
                    .read_line(buffer, line_bytes, self.block_start == 0);
                self.block.line_start = narrow(block_bytes);
            }
            rest = next;
        }
        self.keep(if self.pending.is_empty() { block } else { rest }, rest);
        self.pushed = self.pushed.saturating_add(widen(bytes.len()));
    }

    /// Where in the stream the block starts that has not ended yet.
    #[must_use]
    pub const fn block_start(&self) -> u64 {
        self.block_start
    }

    /// How many of the bytes pushed last belong to that block.
    #[must_use]
    pub const fn open_bytes(&self) -> u64 {
        self.pushed.saturating_sub(self.block_start)
    }

    /// Whether the block that has not ended yet is too long to become an event.
    #[must_use]
    pub const fn is_skipping(&self) -> bool {
        self.block.too_long
    }

    /// How many blocks were too long.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Takes the line feed of a carriage return that ended the push before.
    fn complete_line_end<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let was_return = mem::take(&mut self.after_return);
        let Some(rest) = bytes.strip_prefix(b"\n").filter(|_| was_return) else {
            self.after_return = was_return && bytes.is_empty();
            return bytes;
        };
        if self.block.line_start == 0 {
            self.block_start = self.block_start.saturating_add(1);
        } else {
            self.block.line_start = self.block.line_start.saturating_add(1);
            if !self.block.too_long {
                self.pending.push(b'\n');
            }
        }
        rest
    }

    fn start_block(&mut self, at: u64) {
        self.block_start = at;
        self.block = Block::default();
        self.pending.clear();
        self.pending.shrink_to(KEPT_BYTES);
    }

    /// Keeps what has arrived of a block; `line` is the part of it after the last line end.
    fn keep(&mut self, arrived: &[u8], line: &[u8]) {
        self.block.line_begun |= !line.is_empty();
        if self.pending.len().saturating_add(arrived.len()) > self.event_bytes_max {
            self.block.too_long = true;
        }
        if self.block.too_long {
            self.pending = Vec::new();
        } else {
            self.pending.extend_from_slice(arrived);
        }
    }
}

impl Block {
    /// Reads the line from `line_start` to `line_end` of the block in `buffer`.
    fn read_line(&mut self, buffer: &[u8], line_end: usize, is_first_block: bool) {
        if self.too_long {
            return;
        }
        let mut start = self.line_start;
        let mut line = buffer.get(start..line_end).unwrap_or_default();
        if is_first_block
            && start == 0
            && let Some(rest) = line.strip_prefix(BYTE_ORDER_MARK)
        {
            line = rest;
            start = start.saturating_add(BYTE_ORDER_MARK.len());
        }
        if let Some(value) = value_of(line, b"data") {
            let value = start.saturating_add(value)..line_end;
            self.data = match mem::take(&mut self.data) {
                Data::None => Data::Line(value),
                Data::Line(first) => {
                    let first = buffer.get(first).unwrap_or_default();
                    let second = buffer.get(value).unwrap_or_default();
                    Data::Lines([first, b"\n", second].concat())
                }
                Data::Lines(mut lines) => {
                    lines.push(b'\n');
                    lines.extend_from_slice(buffer.get(value).unwrap_or_default());
                    Data::Lines(lines)
                }
            };
        } else if let Some(value) = value_of(line, b"event") {
            self.name = start.saturating_add(value)..line_end;
        }
    }

    /// The event that the block in `buffer` is, if it is one.
    fn event<'a>(&'a self, buffer: &'a [u8], range: Range<u64>) -> Option<Event<'a>> {
        if self.too_long {
            return None;
        }
        let data = match &self.data {
            Data::None => return None,
            Data::Line(range) => buffer.get(range.clone())?,
            Data::Lines(lines) => lines,
        };
        Some(Event {
            name: buffer.get(self.name.clone())?,
            data,
            range,
        })
    }
}

/// The line end that stands at `length` of `bytes`, and what comes after it.
fn split_line(bytes: &[u8], length: usize) -> (&[u8], &[u8]) {
    let line_end = bytes.get(length..).unwrap_or_default();
    let line_end_bytes = if line_end.starts_with(b"\r\n") { 2 } else { 1 };
    line_end
        .split_at_checked(line_end_bytes)
        .unwrap_or_default()
}

/// Where the value of the field `name` starts in `line`, if it is that field.
fn value_of(line: &[u8], name: &[u8]) -> Option<usize> {
    match line.strip_prefix(name)? {
        [] => Some(name.len()),
        [b':', b' ', ..] => Some(name.len().saturating_add(2)),
        [b':', ..] => Some(name.len().saturating_add(1)),
        _ => None,
    }
}

/// How many bytes of `bytes` come before `rest`, which is its end.
fn distance(bytes: &[u8], rest: &[u8]) -> u64 {
    widen(bytes.len().saturating_sub(rest.len()))
}

fn widen(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn narrow(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Ignored at the start of a stream.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The memory that a stream keeps from one event to the next, in bytes.
const KEPT_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests;
