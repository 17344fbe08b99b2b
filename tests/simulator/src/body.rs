//! The body of an answer: events at a pace, on the bill as they go out, with the faults that were ordered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::bill::{Books, LineNumber, Terms, Usage};
use crate::connection::Wire;
use crate::directive::{Directive, Encoding};

/// A piece of an answer that is sent, and paid for, as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) bytes: Bytes,
    /// Tokens of the answer that have been sent once this has been.
    pub(crate) output: u64,
}

/// Writes what was sent to the bill.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) books: Arc<Books>,
    pub(crate) line: LineNumber,
    pub(crate) terms: Terms,
    /// The usage once everything has been sent.
    pub(crate) usage: Usage,
}

/// The body hyper sends.
#[derive(Debug)]
pub(crate) struct Body {
    steps: VecDeque<Step>,
    delay: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    length: Option<u64>,
    meter: Option<Meter>,
    wire: Option<Arc<Wire>>,
}

#[derive(Debug)]
enum Step {
    Send(Event),
    /// Let the connection write out what it has.
    Flush,
    Stall,
    Reset,
}

impl Body {
    /// A body of `bytes`, of known length, that nobody pays for.
    pub(crate) fn free(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self {
            steps: VecDeque::from([Step::Send(Event { bytes, output: 0 })]),
            delay: Duration::ZERO,
            sleep: None,
            length: Some(length),
            meter: None,
            wire: None,
        }
    }

    /// The body of an answer. `known_length` lets the connection announce its length; `failure` is the event for
    /// `error_after`, in the API's shape.
    ///
    /// # Errors
    /// If the content encoding fails, which writing to memory does not.
    pub(crate) fn script(
        mut events: Vec<Event>,
        known_length: bool,
        directive: &Directive,
        failure: Option<Bytes>,
        (meter, wire): (Meter, Arc<Wire>),
    ) -> io::Result<Self> {
        if let (Some(after), Some(bytes)) = (directive.error_after, failure) {
            events.truncate(after);
            let output = events.last().map_or(0, |event| event.output);
            events.push(Event { bytes, output });
        }
        if let Some(encoding) = directive.encoding {
            events = encode(encoding, events, !directive.truncate)?;
        }
        let length = events.iter().map(|event| event.bytes.len() as u64).sum();
        let mut steps: VecDeque<Step> = events.into_iter().map(Step::Send).collect();
        for (after, fault) in [
            (directive.stall_after, Step::Stall),
            (directive.reset_after, Step::Reset),
        ] {
            if let Some(after) = after {
                steps.truncate(after);
                steps.extend([Step::Flush, Step::Flush, fault]);
            }
        }
        if directive.lie_content_length {
            // The connection fails at the end, and would not write out what it has by then.
            steps.extend([Step::Flush, Step::Flush]);
        }
        // The lie is told by a header. hyper insists that what it is told here is true.
        let length = (known_length && !directive.lie_content_length).then_some(length);
        Ok(Self {
            steps,
            delay: directive.delay,
            sleep: None,
            length,
            meter: Some(meter),
            wire: Some(wire),
        })
    }

    /// Bytes of the whole body, had it no faults.
    pub(crate) fn bytes_total(&self) -> usize {
        self.steps
            .iter()
            .map(|step| {
                if let Step::Send(e) = step {
                    e.bytes.len()
                } else {
                    0
                }
            })
            .sum()
    }

    /// Puts `event` on the bill and hands it over.
    fn send(&self, event: Event) -> Frame<Bytes> {
        if let Some(meter) = &self.meter {
            let reasoning = meter.usage.reasoning.min(event.output);
            let usage = Usage {
                output: event.output,
                reasoning,
                ..meter.usage
            };
            meter.books.update(meter.line, &meter.terms, usage);
        }
        Frame::data(event.bytes)
    }

    fn reset(&self) -> io::Error {
        if let Some(wire) = &self.wire {
            wire.reset_on_close();
        }
        io::Error::new(io::ErrorKind::ConnectionReset, "reset by direction")
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let delay = self.delay;
        if !delay.is_zero() && matches!(self.steps.front(), Some(Step::Send(_))) {
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Send(event)) => Poll::Ready(Some(Ok(self.send(event)))),
            Some(Step::Flush) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Stall) => {
                self.steps.push_front(Step::Stall);
                Poll::Pending
            }
            Some(Step::Reset) => Poll::Ready(Some(Err(self.reset()))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// `events` encoded as one stream, flushed after each; `finish` puts the end of the encoding into the last one.
fn encode(encoding: Encoding, events: Vec<Event>, finish: bool) -> io::Result<Vec<Event>> {
    let sink = Sink::default();
    let mut writer: Box<dyn Write> = match encoding {
        Encoding::Gzip => Box::new(flate2::write::GzEncoder::new(sink.clone(), FAST)),
        Encoding::Deflate => Box::new(flate2::write::ZlibEncoder::new(sink.clone(), FAST)),
        Encoding::Brotli => Box::new(brotli::CompressorWriter::new(
            sink.clone(),
            4096,
            BROTLI_QUALITY,
            18,
        )),
        Encoding::Zstd => {
            Box::new(zstd::stream::write::Encoder::new(sink.clone(), 1)?.auto_finish())
        }
    };
    let mut encoded = Vec::with_capacity(events.len());
    for event in events {
        writer.write_all(&event.bytes)?;
        writer.flush()?;
        encoded.push(Event {
            bytes: sink.take(),
            output: event.output,
        });
    }
    drop(writer);
    let end = sink.take();
    if let (Some(last), true) = (encoded.last_mut(), finish) {
        last.bytes = [last.bytes.as_ref(), end.as_ref()].concat().into();
    }
    Ok(encoded)
}

/// What an encoder has written.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Bytes {
        self.0.take().into()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const FAST: flate2::Compression = flate2::Compression::fast();

const BROTLI_QUALITY: u32 = 2;
