//! Usage of Chat Completions streams, which exists only if asked for: the edit that asks, and the
//! filter that takes the answer out again for a client which did not.
//!
//! With `stream_options.include_usage` a stream has one chunk more, with no choices, before
//! `[DONE]`; some clients index `choices[0]` of every chunk. That chunk is all that the filter
//! takes out. The other chunks carry `"usage":null` then, which stays: to a client that does not
//! look for it nothing changes, and the bytes of the answer stay the provider's own.

use std::ops::Range;

use memchr::memmem;

use crate::api::Api;
use crate::call::Call;
use crate::catalog::Provider;
use crate::json::{self, Kind};
use crate::sse::EventParser;

use super::Edit;

/// The edit by which a stream of Chat Completions will tell its usage; nothing if the call is of
/// another kind, asks by itself, or goes to a provider that is not to be asked. Where there is an
/// edit, the client did not ask: its answer has to pass a [`UsageChunkFilter`].
#[must_use]
pub fn ask_for_usage(provider: Provider, call: &Call, body: &[u8]) -> Option<Edit> {
    let has_options = matches!(call.api, Api::ChatCompletions | Api::Completions);
    let asks = has_options && tells_usage_only_if_asked(provider);
    if !asks || !call.stream || call.include_usage {
        return None;
    }
    let edit = |range: Range<usize>, replacement: &str| {
        Some(Edit {
            range,
            replacement: replacement.into(),
            rule: ASK_FOR_USAGE.into(),
        })
    };
    let Some(options) = call.stream_options.clone() else {
        let start = body.iter().position(|byte| *byte == b'{')?.checked_add(1)?;
        // The body has members: `stream` at least. So a comma is due.
        return edit(start..start, r#""stream_options":{"include_usage":true},"#);
    };
    match body.get(options.clone())? {
        b"null" => return edit(options, r#"{"include_usage":true}"#),
        bytes if !bytes.starts_with(b"{") => return None,
        _ => {}
    }
    let members = json::members(body, options.clone()).ok()?;
    // Of several members with this key the last counts.
    if let Some(member) = members
        .iter()
        .rev()
        .find(|member| member.is(body, "include_usage"))
    {
        return edit(member.value.range.clone(), "true");
    }
    let start = options.start.checked_add(1)?;
    let comma = if members.is_empty() { "" } else { "," };
    edit(start..start, &format!(r#""include_usage":true{comma}"#))
}

/// Providers whose streams of Chat Completions tell the usage only where `stream_options` asks for
/// it. The others tell it anyway, or are known to refuse fields that they do not know, or may pass
/// the call on to somebody who does: there a stream tells its usage only if its client asks.
#[must_use]
pub const fn tells_usage_only_if_asked(provider: Provider) -> bool {
    matches!(
        provider,
        Provider::OpenAi | Provider::Azure | Provider::DeepSeek
    )
}

/// Bytes of an answer to pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of earlier pushes that were held until their event was complete.
    Held(&'a [u8]),
    /// A range of the bytes pushed just now.
    Now(Range<usize>),
}

/// Takes the usage chunk out of a stream of Chat Completions, however it is cut in pieces.
///
/// What cannot be the usage chunk passes verbatim. Only an event that has begun and not ended is
/// held, and a client can make nothing of that either.
#[derive(Debug)]
pub struct UsageChunkFilter {
    parser: EventParser,
    /// The bytes of an event that has begun and not ended.
    held: Vec<u8>,
    /// How many bytes of the stream came so far.
    pushed: u64,
    /// The last byte of the push before was the carriage return that ended a removed chunk: a line
    /// feed after it goes with it.
    removed_to_return: bool,
    removed: u64,
}

impl Default for UsageChunkFilter {
    fn default() -> Self {
        Self {
            parser: EventParser::new(USAGE_CHUNK_BYTES_MAX),
            held: Vec::new(),
            pushed: 0,
            removed_to_return: false,
            removed: 0,
        }
    }
}

impl UsageChunkFilter {
    /// Before the first byte of an answer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the answer; calls `pass` with what is to be passed on, in order.
    pub fn push(&mut self, bytes: &[u8], mut pass: impl FnMut(Piece<'_>)) {
        if bytes.is_empty() {
            return;
        }
        let mut removals: Vec<Range<u64>> = Vec::new();
        self.parser.push(bytes, |event| {
            if is_usage_chunk(event.data) {
                removals.push(event.range);
            }
        });
        self.removed = self.removed.saturating_add(count(removals.len()));
        let start = self.pushed;
        let end = start.saturating_add(count(bytes.len()));
        let mut from = start.saturating_sub(count(self.held.len()));
        if self.removed_to_return && bytes.starts_with(b"\n") {
            from = start.saturating_add(1);
        }
        self.removed_to_return =
            bytes.ends_with(b"\r") && removals.last().is_some_and(|last| last.end == end);
        // Of an event that will be passed on whatever it is, nothing is held.
        let decided = if self.parser.is_skipping() {
            end
        } else {
            self.parser.block_start()
        };
        for removal in removals {
            self.pass(from..removal.start, start, &mut pass);
            from = removal.end;
        }
        self.pass(from..decided, start, &mut pass);
        let undecided = offset(decided.max(from), start);
        if decided >= start {
            self.held.clear();
        }
        self.held
            .extend_from_slice(bytes.get(undecided..).unwrap_or_default());
        self.pushed = end;
    }

    /// The bytes that are still held at the end of the answer, to be passed on.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.held
    }

    /// How many chunks were taken out.
    #[must_use]
    pub const fn removed(&self) -> u64 {
        self.removed
    }

    /// Passes on a range of the stream, of which the bytes before `start` are held.
    fn pass(&self, range: Range<u64>, start: u64, pass: &mut impl FnMut(Piece<'_>)) {
        let held_start = start.saturating_sub(count(self.held.len()));
        let held = offset(range.start, held_start)..offset(range.end.min(start), held_start);
        if let Some(held) = self.held.get(held).filter(|held| !held.is_empty()) {
            pass(Piece::Held(held));
        }
        let now = offset(range.start, start)..offset(range.end, start);
        if now.start < now.end {
            pass(Piece::Now(now));
        }
    }
}

/// Whether the data of an event is the chunk which exists only because usage was asked for: with
/// usage, and with no choices. Azure's first chunk has no choices either, but no usage.
fn is_usage_chunk(data: &[u8]) -> bool {
    if memmem::find(data, b"\"usage\"").is_none() {
        return false;
    }
    let Ok(members) = json::members(data, 0..data.len()) else {
        return false;
    };
    let last = |name: &str| members.iter().rev().find(|member| member.is(data, name));
    let has_usage = last("usage").is_some_and(|member| member.value.kind == Kind::Object);
    let has_no_choices = last("choices").is_some_and(|member| {
        json::elements(data, member.value.range.clone()).is_ok_and(|choices| choices.is_empty())
    });
    has_usage && has_no_choices
}

/// The distance from `start` to `at`, nothing if `at` is before.
fn offset(at: u64, start: u64) -> usize {
    usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The name of the edit in the record of an exchange.
pub const ASK_FOR_USAGE: &str = "ask_for_usage";

/// The longest event that can be the usage chunk, in bytes: the real ones have a few hundred. What
/// is longer is passed on as it comes.
pub(super) const USAGE_CHUNK_BYTES_MAX: usize = 64 * 1024;
