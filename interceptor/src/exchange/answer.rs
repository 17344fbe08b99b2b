//! Passes an answer on as it comes, and reads its usage on the side.
//!
//! Reading never decides what is passed on: an answer that can't be read passes all the same. Nor does
//! an answer wait for its record, which is written behind its last bytes (`behind`).

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use weir_core::answer::{AnswerReader, Form};
use weir_core::api::Endpoint;
use weir_core::caps::Exceeded;
use weir_core::edit::{Piece, UsageChunkFilter};
use weir_core::refusal;

use super::decode::{Decoder, Encoding};
use super::entry::{End, Entry};
use super::response::BoxError;
use super::response::ClientBody;
use crate::forward::{Protocol, UpstreamBody};
use crate::metrics::Bound;

/// Makes the response to the application of the provider's.
pub(super) fn observe(
    mut entry: Box<Entry>,
    response: Response<UpstreamBody>,
) -> Response<ClientBody> {
    let (mut head, upstream) = response.into_parts();
    entry.answered(head.status);
    let reader = reader(&entry, head.status, &head.headers);
    let may_filter = head.status.is_success() && is_plain_stream(&head.headers);
    let filter =
        (entry.asked_for_usage() && reader.is_some() && may_filter).then(UsageChunkFilter::new);
    let may_end = may_filter.then_some(entry.growth).flatten().is_some();
    if filter.is_some() || may_end {
        head.headers.remove(CONTENT_LENGTH);
    }
    let mut observed = Observed {
        upstream,
        entry,
        reader,
        broken: None,
        filter,
        may_end,
        ends_by: None,
        last: None,
        unread: Bytes::new(),
        ended: false,
        is_complete: false,
        flushed: false,
    };
    if observed.upstream.is_end_stream() {
        observed.complete(Bytes::new());
    }
    Response::from_parts(head, ClientBody::Answer(Passing(Some(Box::new(observed)))))
}

/// The value of a header field, if it is text.
fn text(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether an event can be taken out of the answer or put at its end: another form has none, and an
/// encoded one would have to be encoded again.
fn is_plain_stream(headers: &HeaderMap) -> bool {
    let form = text(headers, CONTENT_TYPE).and_then(Form::of_content_type);
    matches!(form, Some(Form::EventStream | Form::Frames))
        && Encoding::of(text(headers, CONTENT_ENCODING)) == Some(Encoding::Identity)
}

/// What reads the answer, if it can be read.
fn reader(entry: &Entry, status: http::StatusCode, headers: &HeaderMap) -> Option<Decoder<Sink>> {
    let tells = match entry.endpoint {
        Endpoint::Call(_) => entry.call.is_some(),
        Endpoint::Later(_) => status.is_success(),
        _ => false,
    };
    if !tells {
        return None;
    }
    let unreadable = |what: &str| {
        entry
            .context
            .metrics
            .unreadable
            .with_label_values(&[what])
            .inc();
        None
    };
    let form = text(headers, CONTENT_TYPE).and_then(Form::of_content_type);
    let reader = match (entry.endpoint, form) {
        (Endpoint::Call(api), Some(form)) => Some(AnswerReader::new(api, form)),
        (Endpoint::Later(later), form) => Some(AnswerReader::later(later, form)),
        _ => None,
    };
    let Some(mut reader) = reader else {
        // Proxies and load balancers answer errors with pages of their own.
        return if status.is_success() {
            unreadable("answer_type")
        } else {
            None
        };
    };
    let Some(encoding) = Encoding::of(text(headers, CONTENT_ENCODING)) else {
        return unreadable("answer_encoding");
    };
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            reader.header(name.as_str(), value);
        }
    }
    let sink = Sink {
        reader: Some(reader),
        decoded: 0,
        decoded_max: if encoding == Encoding::Identity {
            u64::MAX
        } else {
            DECODED_BYTES_MAX
        },
    };
    Decoder::new(encoding, sink).ok()
}

/// Decoded bytes of one encoded answer that are read: a bound on work, since none are kept.
const DECODED_BYTES_MAX: u64 = 256 << 20;

/// Hands decoded bytes to the reader.
struct Sink {
    /// Taken at the end.
    reader: Option<AnswerReader>,
    decoded: u64,
    decoded_max: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.decoded = self
            .decoded
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.decoded > self.decoded_max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "decoded answer too long",
            ));
        }
        if let Some(reader) = &mut self.reader {
            reader.push(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer on its way to the application, until it is dropped.
pub(crate) struct Passing(Option<Box<Observed>>);

/// What comes next of a body, or why it breaks off.
type Next = Result<Frame<Bytes>, BoxError>;

/// An answer that is read on its way.
pub(super) struct Observed {
    upstream: UpstreamBody,
    entry: Box<Entry>,
    reader: Option<Decoder<Sink>>,
    /// What was read of an answer whose encoding broke: its usage may have been told by then. Boxed,
    /// because it is rare, and large.
    broken: Option<Box<AnswerReader>>,
    /// Takes out what only Weir asked for.
    filter: Option<UsageChunkFilter>,
    /// Whether an event may be put at the end of it.
    may_end: bool,
    /// The cap by which it ends, as soon as an event is complete.
    ends_by: Option<Box<Exceeded>>,
    /// What comes after the bytes that the filter held back.
    last: Option<Next>,
    /// What was passed on last, until it is read.
    unread: Bytes,
    ended: bool,
    /// All of the answer was passed on, and the call is still to be settled.
    is_complete: bool,
    /// Whether the connection had its turn to flush before it hears of a failure.
    flushed: bool,
}

impl Observed {
    /// Reads `data` on the side, and has what is reserved follow; what is returned is passed on.
    fn observe(&mut self, data: Bytes) -> Bytes {
        if self.entry.growth.is_none() {
            return self.read(data);
        }
        let passed = self.read(data.clone());
        if self.may_end {
            return self.grow(data, passed);
        }
        // Encoded although it was not to be: no event can be put into it, so that it breaks off.
        let seen = self.reader.as_mut().and_then(Decoder::sink);
        let seen = seen.and_then(|sink| Some(sink.reader.as_ref()?.output_tokens_seen()));
        self.ends_by = seen.and_then(|seen| self.entry.grow(seen).err());
        if let Some(exceeded) = &self.ends_by {
            let error = format!("the spending cap {:?} is reached", exceeded.cap);
            self.cut_off();
            self.last = Some(Err(error.into()));
        }
        passed
    }

    /// Reads `data` on the side; what is returned is passed on.
    fn read(&mut self, data: Bytes) -> Bytes {
        let record = &mut self.entry.record;
        record.response_bytes = record.response_bytes.saturating_add(length(&data));
        if let Some(reader) = &mut self.reader
            && let Err(error) = reader.push(&data)
        {
            let metrics = &self.entry.context.metrics;
            if error.kind() == io::ErrorKind::FileTooLarge {
                metrics.bound_reached(Bound::DecodedBody);
            }
            metrics.unreadable.with_label_values(&["answer_body"]).inc();
            self.broken = self.take_reader().map(Box::new);
        }
        if self.entry.hands_on
            && let Some(sink) = self.reader.as_mut().and_then(Decoder::sink)
            && let Some(id) = sink.reader.as_ref().and_then(AnswerReader::response_id)
        {
            self.entry.hand_on(id);
        }
        match &mut self.filter {
            None => data,
            Some(filter) => {
                let mut kept = BytesMut::with_capacity(data.len());
                filter.push(&data, |piece| match piece {
                    Piece::Held(bytes) => kept.extend_from_slice(bytes),
                    Piece::Now(range) => {
                        kept.extend_from_slice(data.get(range).unwrap_or_default());
                    }
                });
                kept.freeze()
            }
        }
    }

    /// Reserves what the stream has grown to. Where it can't have that, the answer ends after the
    /// event that is complete last among `data`, with one that tells why: what is returned is
    /// passed on.
    fn grow(&mut self, data: Bytes, passed: Bytes) -> Bytes {
        let Some(reader) = self.reader.as_mut().and_then(Decoder::sink) else {
            return passed;
        };
        let Some(reader) = &reader.reader else {
            return passed;
        };
        let (seen, open) = (reader.output_tokens_seen(), reader.open_bytes());
        if self.ends_by.is_none() {
            self.ends_by = self.entry.grow(seen).err();
        }
        let Some(exceeded) = &self.ends_by else {
            return passed;
        };
        let Some(complete) = open.and_then(|open| length(&data).checked_sub(open)) else {
            // The event that is complete last was passed on before, and part of the next one.
            return passed;
        };
        let Endpoint::Call(api) = self.entry.endpoint else {
            return passed;
        };
        let end = refusal::end_of_stream(api, exceeded, &self.entry.record.id);
        // A filter passes on whole events only.
        let kept = match &self.filter {
            Some(_) => passed,
            None => data.slice(..usize::try_from(complete).unwrap_or(0).min(data.len())),
        };
        self.cut_off();
        Bytes::from([&kept[..], &end].concat())
    }

    /// Ends the answer by the cap that is in its way. The connection to the provider is closed with
    /// the body, so that it generates no more.
    fn cut_off(&mut self) {
        let Some(exceeded) = self.ends_by.take() else {
            return;
        };
        self.entry.note_cut_off(*exceeded);
        self.filter = None;
        self.end(End::CutOff);
    }

    fn take_reader(&mut self) -> Option<AnswerReader> {
        // Not the decoder's own end: that fails where the answer was cut short, and all that came
        // has been decoded already.
        let mut decoder = self.reader.take()?;
        decoder.sink()?.reader.take()
    }

    /// Whether the call is settled behind its answer: where it is known when the last bytes have gone
    /// out, which it is not over HTTP/2, and that takes microseconds. What tells of other calls may
    /// take the database, and is in no journal before.
    fn settles_behind(&self) -> bool {
        matches!(self.entry.endpoint, Endpoint::Call(_))
            && self.entry.session.upstream.protocol() != Protocol::Http2
    }

    /// Whether what is last of the answer may be passed on before it is read.
    fn may_read_behind(&self) -> bool {
        self.filter.is_none() && self.entry.growth.is_none() && self.settles_behind()
    }

    /// Ends a whole answer, of which `unread` is still to be read: settles the call, or has it settled
    /// when the answer has gone out.
    fn complete(&mut self, unread: Bytes) {
        self.ended = true;
        if self.settles_behind() {
            self.unread = unread;
            self.is_complete = true;
        } else {
            self.end(End::Complete);
        }
    }

    /// The last bytes are on their way, or never will be.
    fn leave(mut self: Box<Self>) {
        if !self.ended {
            // The application went away, or had read all that it wanted.
            self.end(End::ClientGone);
        } else if self.is_complete {
            let context = Arc::clone(&self.entry.context);
            context.behind.push(self);
        }
    }

    /// Settles the call of an answer that went out whole, and writes its record.
    pub(super) fn settle(mut self: Box<Self>) {
        let unread = std::mem::take(&mut self.unread);
        if !unread.is_empty() {
            self.read(unread);
        }
        self.end(End::Complete);
    }

    /// Settles the call, and writes its record.
    fn end(&mut self, end: End) {
        self.ended = true;
        let reader = self
            .take_reader()
            .or_else(|| self.broken.take().map(|broken| *broken));
        let answer = reader.map(AnswerReader::finish);
        self.entry.finish(answer.as_ref(), end);
    }

    /// What the filter held back.
    fn held_back(&mut self) -> Bytes {
        let held = self
            .filter
            .take()
            .map(|filter| Bytes::from(filter.finish()));
        held.unwrap_or_default()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(observed) = self.0.take() {
            observed.leave();
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Some(observed) => observed.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|observed| observed.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(SizeHint::new, |observed| observed.size_hint())
    }
}

impl Observed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        loop {
            if self.ended {
                // hyper drops what it has not flushed when a body fails. What came before the
                // failure, perhaps even the head, is the application's to see: so flush first.
                if matches!(self.last, Some(Err(_))) && !self.flushed {
                    self.flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                return Poll::Ready(self.last.take());
            }
            let Poll::Ready(next) = Pin::new(&mut self.upstream).poll_frame(cx) else {
                return Poll::Pending;
            };
            let data = match next.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if self.may_read_behind() && self.upstream.is_end_stream() => {
                    self.complete(data.clone());
                    data
                }
                Some(Ok(Ok(data))) => {
                    let data = self.observe(data);
                    if self.ended {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    if !self.upstream.is_end_stream() {
                        data
                    } else if self.filter.is_none() {
                        self.complete(Bytes::new());
                        data
                    } else {
                        let held = self.held_back();
                        self.complete(Bytes::new());
                        Bytes::from([data, held].concat())
                    }
                }
                Some(Ok(Err(trailers))) => {
                    self.last = Some(Ok(trailers));
                    self.complete(Bytes::new());
                    self.held_back()
                }
                Some(Err(error)) => {
                    self.last = Some(Err(error.into()));
                    self.end(End::Broken);
                    self.held_back()
                }
                None => {
                    self.complete(Bytes::new());
                    self.held_back()
                }
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.last.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.filter.is_some() || self.may_end {
            SizeHint::new()
        } else {
            self.upstream.size_hint()
        }
    }
}

fn length(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}
