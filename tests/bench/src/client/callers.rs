//! Callers: each makes one call after the other until the time is over, and counts what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use memchr::memmem;

use super::connection::{Chunks, Connection, Framing, Target, To};
use super::{Gate, http2};
use crate::clock::monotonic_ns;
use crate::job::{Job, Outcome};
use crate::traffic::{
    self, API_HOST, BODY_BYTES, DOWNLOAD, EVENTS, INTERVAL_MICROS, LAST_EVENT, OTHER_HOST, SENT_AT,
};

/// One of the callers of a job.
pub(crate) struct Caller {
    target: Arc<Target>,
    job: Job,
    request: Request,
}

/// A request, ready to be sent, and what must come back.
struct Request {
    to: To,
    wire: Vec<u8>,
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    /// A body of this many bytes.
    Bytes(u64),
    /// A stream with this many text events.
    Texts(usize),
}

impl Caller {
    pub(crate) fn new(target: &Arc<Target>, job: Job) -> anyhow::Result<Self> {
        let request = match job {
            Job::Calls { body_bytes, .. }
            | Job::CallsHttp2 { body_bytes, .. }
            | Job::Connections { body_bytes, .. } => call(body_bytes)?,
            Job::Streams {
                events,
                interval_micros,
                ..
            } => stream(STREAM_BODY_BYTES, events, interval_micros)?,
            Job::Downloads { bytes, .. } => download(bytes),
            Job::Hold { body_bytes, .. } => stream(body_bytes, HELD_EVENTS, HELD_INTERVAL_MICROS)?,
        };
        let target = Arc::clone(target);
        Ok(Self {
            target,
            job,
            request,
        })
    }

    /// Makes calls until the gate's end. What fails is counted, and tried again on a new connection.
    pub(crate) async fn run(self, gate: Gate) -> Outcome {
        let mut outcome = Outcome::default();
        match self.job {
            Job::Hold { .. } => {
                if let Err(error) = within_wait(self.hold(gate, &mut outcome)).await {
                    outcome.fail(&error);
                }
            }
            Job::Connections { .. } => Box::pin(self.on_new_connections(gate, &mut outcome)).await,
            Job::CallsHttp2 {
                callers,
                body_bytes,
                ..
            } => {
                let load = http2::Load {
                    callers,
                    body_bytes,
                };
                if let Err(error) = http2::run(&self.target, load, gate, &mut outcome).await {
                    outcome.fail(&error);
                }
            }
            Job::Calls { .. } | Job::Streams { .. } | Job::Downloads { .. } => {
                Box::pin(self.on_kept_connection(gate, &mut outcome)).await;
            }
        }
        outcome
    }

    async fn on_kept_connection(&self, gate: Gate, outcome: &mut Outcome) {
        let mut warm_up = Outcome::default();
        let mut kept = None;
        let warm_up_request = match self.job {
            Job::Streams { .. } => call(WARM_UP_BYTES),
            _ => Ok(Request {
                wire: self.request.wire.clone(),
                ..self.request
            }),
        };
        let warmed = match warm_up_request {
            Ok(request) => self.call(&request, &mut kept, &mut warm_up).await,
            Err(error) => Err(error),
        };
        if let Err(error) = warmed {
            outcome.fail(&error.context("warming up"));
        }
        let Some(end) = gate.pass().await else { return };
        while Instant::now() < end && outcome.failed < FAILURES_MAX && outcome.calls < CALLS_MAX {
            match self.call(&self.request, &mut kept, outcome).await {
                Ok(()) => outcome.calls += 1,
                Err(error) => outcome.fail(&error),
            }
        }
        if let Some(connection) = kept {
            // The answers are all here; how the connection ends is nobody's loss.
            drop(connection.close().await);
        }
    }

    async fn on_new_connections(&self, gate: Gate, outcome: &mut Outcome) {
        let Some(end) = gate.pass().await else { return };
        while Instant::now() < end && outcome.failed < FAILURES_MAX && outcome.calls < CALLS_MAX {
            let mut kept = None;
            match self.call(&self.request, &mut kept, outcome).await {
                Ok(()) => outcome.calls += 1,
                Err(error) => outcome.fail(&error),
            }
            if let Some(connection) = kept {
                drop(connection.close().await);
            }
        }
    }

    /// One call, on the kept connection where there is one; keeps the connection if all went well.
    async fn call(
        &self,
        request: &Request,
        kept: &mut Option<Connection>,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let connection = within_wait(async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::new(self.target.connect(request.to).await?),
            };
            connection.send(&request.wire).await?;
            let framing = connection.head().await?;
            match (request.expected, framing) {
                (Expected::Bytes(expected), Framing::Length(found)) if expected == found => {
                    connection.skip(expected).await?;
                    outcome.bytes += expected;
                }
                (Expected::Texts(texts), Framing::Chunked) => {
                    read_events(&mut connection, texts, began, outcome).await?;
                }
                (Expected::Bytes(expected), found) => {
                    anyhow::bail!("expected {expected} bytes, found {found:?}")
                }
                (Expected::Texts(_), found) => anyhow::bail!("expected a stream, found {found:?}"),
            }
            Ok(connection)
        })
        .await?;
        outcome.latency.record(nanoseconds(began.elapsed()));
        *kept = Some(connection);
        Ok(())
    }

    /// Opens a stream, and holds it until told to go.
    async fn hold(&self, gate: Gate, outcome: &mut Outcome) -> anyhow::Result<()> {
        let mut connection = Connection::new(self.target.connect(self.request.to).await?);
        connection.send(&self.request.wire).await?;
        connection.head().await?;
        let (mut chunks, mut text) = (Chunks::default(), BytesMut::new());
        while memmem::find(&text, SENT_AT.as_bytes()).is_none() {
            connection.read_chunks(&mut chunks, &mut text).await?;
        }
        outcome.calls += 1;
        gate.pass().await;
        Ok(())
    }
}

async fn read_events(
    connection: &mut Connection,
    texts: usize,
    began: Instant,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let (mut chunks, mut text) = (Chunks::default(), BytesMut::new());
    let (mut seen, mut last, mut first) = (0, false, true);
    while !chunks.ended() {
        connection.read_chunks(&mut chunks, &mut text).await?;
        let now = monotonic_ns();
        if std::mem::take(&mut first) {
            outcome.first_byte.record(nanoseconds(began.elapsed()));
        }
        while let Some(end) = memmem::find(&text, b"\n\n") {
            let event = text.split_to(end + 2);
            outcome.events += 1;
            last = event.starts_with(LAST_EVENT.as_bytes());
            if let Some(sent) = sent_at(&event) {
                seen += 1;
                outcome.event_delay.record(now.saturating_sub(sent));
            }
        }
    }
    anyhow::ensure!(
        seen == texts && last && text.is_empty(),
        "expected {texts} events and a proper end, found {seen}, then {text:?}"
    );
    Ok(())
}

fn sent_at(event: &[u8]) -> Option<u64> {
    let (_, after) =
        event.split_at_checked(memmem::find(event, SENT_AT.as_bytes())? + SENT_AT.len())?;
    let digits = after.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(crate) async fn within_wait<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(CALL_WAIT, work).await {
        Ok(done) => done,
        Err(_) => anyhow::bail!("expected an answer within {CALL_WAIT:?}"),
    }
}

/// The head of a call as an SDK would send it.
fn head(body_bytes: usize, more: &str) -> String {
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {API_HOST}\r\naccept: application/json\r\n\
         content-type: application/json\r\nuser-agent: weir-bench\r\nx-api-key: sk-ant-bench\r\n\
         anthropic-version: 2023-06-01\r\n{BODY_BYTES}: {body_bytes}\r\n{more}\
         content-length: {body_bytes}\r\n\r\n"
    )
}

fn call(body_bytes: usize) -> anyhow::Result<Request> {
    let mut wire = head(body_bytes, "").into_bytes();
    wire.extend(traffic::request_body(body_bytes, false)?);
    let answer = serde_json::to_vec(&traffic::answer())?.len();
    Ok(Request {
        to: To::Api,
        wire,
        expected: Expected::Bytes(answer as u64),
    })
}

fn stream(body_bytes: usize, events: usize, interval_micros: u64) -> anyhow::Result<Request> {
    let more = format!("{EVENTS}: {events}\r\n{INTERVAL_MICROS}: {interval_micros}\r\n");
    let mut wire = head(body_bytes, &more).into_bytes();
    wire.extend(traffic::request_body(body_bytes, true)?);
    Ok(Request {
        to: To::Api,
        wire,
        expected: Expected::Texts(events),
    })
}

fn download(bytes: u64) -> Request {
    let wire = format!("GET {DOWNLOAD}{bytes} HTTP/1.1\r\nhost: {OTHER_HOST}\r\n\r\n");
    Request {
        to: To::Other,
        wire: wire.into_bytes(),
        expected: Expected::Bytes(bytes),
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Bodies of calls whose answer is streamed.
const STREAM_BODY_BYTES: usize = 2_048;
/// The call that opens a connection before streams are measured on it.
const WARM_UP_BYTES: usize = 2_048;
/// A held stream goes on, slowly, for longer than it is looked at.
const HELD_EVENTS: usize = 1_000;
const HELD_INTERVAL_MICROS: u64 = 250_000;
/// A call that takes longer has failed.
const CALL_WAIT: Duration = Duration::from_secs(20);
/// Failed calls after which a caller gives up.
pub(crate) const FAILURES_MAX: u64 = 10;
/// Calls after which a caller stops even if there is time left.
pub(crate) const CALLS_MAX: u64 = 1_000_000;
