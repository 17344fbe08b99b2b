//! Callers that share one HTTP/2 connection.

use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use super::Gate;
use super::callers::{CALLS_MAX, FAILURES_MAX, nanoseconds};
use super::connection::{Target, To};
use crate::job::Outcome;
use crate::traffic::{self, API_HOST, BODY_BYTES};

/// What the connection carries.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) callers: usize,
    pub(crate) body_bytes: usize,
}

/// Makes calls until the gate's end.
///
/// # Errors
/// There is no connection; what fails later is counted.
pub(crate) async fn run(
    target: &Target,
    load: Load,
    gate: Gate,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let tls = target.connect(To::ApiHttp2).await?;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(tls))
        .await?;
    let connection = tokio::spawn(connection);
    let caller = Caller {
        sender,
        body: Bytes::from(traffic::request_body(load.body_bytes, false)?),
        answer: serde_json::to_vec(&traffic::answer())?.len(),
    };
    caller.clone().call().await.context("warming up")?;
    let Some(end) = gate.pass().await else {
        return Ok(());
    };
    let mut callers = JoinSet::new();
    for _ in 0..load.callers {
        callers.spawn(caller.clone().until(end));
    }
    while let Some(counted) = callers.join_next().await {
        outcome.join(counted?);
    }
    connection.abort();
    Ok(())
}

#[derive(Clone)]
struct Caller {
    sender: SendRequest<Full<Bytes>>,
    body: Bytes,
    /// Length of the answer's body that must come.
    answer: usize,
}

impl Caller {
    async fn until(mut self, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        while Instant::now() < end && outcome.failed < FAILURES_MAX && outcome.calls < CALLS_MAX {
            let began = Instant::now();
            match self.call().await {
                Ok(()) => {
                    outcome.latency.record(nanoseconds(began.elapsed()));
                    outcome.calls += 1;
                    outcome.bytes += self.answer as u64;
                }
                Err(error) => outcome.fail(&error),
            }
        }
        outcome
    }

    async fn call(&mut self) -> anyhow::Result<()> {
        let request = Request::post(format!("https://{API_HOST}/v1/messages"))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("user-agent", "weir-bench")
            .header("x-api-key", "sk-ant-bench")
            .header("anthropic-version", "2023-06-01")
            .header(BODY_BYTES, self.body.len())
            .body(Full::new(self.body.clone()))?;
        self.sender.ready().await?;
        let answer = super::callers::within_wait(async {
            let answer = self.sender.send_request(request).await?;
            anyhow::ensure!(
                answer.status() == 200,
                "expected 200, found {}",
                answer.status()
            );
            Ok(answer.into_body().collect().await?.to_bytes())
        })
        .await?;
        let found = answer.len();
        anyhow::ensure!(
            found == self.answer,
            "expected {} bytes, found {found}",
            self.answer
        );
        Ok(())
    }
}

/// Flow control that no answer waits for.
const WINDOW_BYTES: u32 = 2 << 20;
