//! Warnings of caps, posted to the webhook that the configuration names: off the path of requests,
//! from a bounded queue, tried a few times.
//!
//! The body is what receivers of Slack's incoming webhooks accept, `text`, and beside it the same
//! for programs, `weir`. What can't be delivered is counted and logged, and stays in the log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use weir_core::caps::{Exceeded, Warning};

use crate::client_hello::Offer;
use crate::forward::{Destination, RequestBody, Route};
use crate::metrics::Bound;
use crate::process::config::Secret;
use crate::sidecar::{Context, unix_ms};

/// Alerts that wait to be posted. Beyond them alerts are dropped, and counted.
const QUEUE_MAX: usize = 256;
/// How often an alert is tried, and how long each time and between: a receiver that is down for
/// longer misses it.
const TRIES_MAX: u32 = 3;
const TRY_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(2);
const UNUSABLE: &str = "expected alerts.webhook to be a URL of the form https://host/path";

/// The way to the task that posts.
pub(crate) struct Alerts(mpsc::Sender<Value>);

/// A queue, and its end for [`post_all`].
pub(crate) fn queue() -> (Alerts, mpsc::Receiver<Value>) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    (Alerts(sender), receiver)
}

impl Alerts {
    /// Has a warning posted; false where the queue is full.
    pub(crate) fn tell(&self, warning: &Warning) -> bool {
        self.0.try_send(body(warning)).is_ok()
    }
}

/// Posts what comes until the sidecar ends.
pub(crate) async fn post_all(context: Arc<Context>, mut queue: mpsc::Receiver<Value>) {
    loop {
        let alert = tokio::select! {
            alert = queue.recv() => alert,
            () = context.draining() => None,
        };
        let Some(alert) = alert else { return };
        if let Err(error) = Box::pin(deliver(&context, &alert)).await {
            context.metrics.bound_reached(Bound::Alerts);
            tracing::warn!(error, "an alert was not delivered");
        }
    }
}

async fn deliver(context: &Context, alert: &Value) -> Result<(), String> {
    let mut last = String::new();
    for attempt in 0..TRIES_MAX {
        if attempt > 0 {
            tokio::time::sleep(PAUSE.saturating_mul(attempt)).await;
        }
        let posted = Box::pin(post(context, alert));
        match tokio::time::timeout(TRY_TIMEOUT, posted).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = format!("expected an answer within {TRY_TIMEOUT:?}"),
        }
    }
    Err(last)
}

async fn post(context: &Context, alert: &Value) -> Result<(), String> {
    let rules = context.rules();
    let Some(webhook) = &rules.config.alerts.webhook else {
        return Ok(());
    };
    let (uri, host) = address(webhook)?;
    let port = uri.port_u16().unwrap_or(443);
    let route = Route {
        host: Arc::clone(&host),
        destination: Destination::Name(Arc::clone(&host), port),
        offer: Offer::Http1,
    };
    let upstream = rules.forwarder.open(route).await;
    let upstream = upstream.map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let body = alert.to_string();
    let request = Request::post(path)
        .header(header::HOST, &*host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .body(RequestBody::Full {
            bytes: Bytes::from(body),
            trailers: None,
            announced: true,
        })
        .map_err(|_invalid| UNUSABLE.to_owned())?;
    let sent = rules.forwarder.send(&upstream, request).await;
    let status = sent.map_err(|error| error.to_string())?.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("expected a success, found {status}"))
    }
}

/// Where warnings are posted to, and the host of that.
///
/// # Errors
/// In words, what is not there, or is no URL; without it, since it is a secret.
pub(crate) fn address(webhook: &Secret) -> Result<(http::Uri, Arc<str>), String> {
    let url = webhook.read()?;
    let uri: http::Uri = url.parse().map_err(|_invalid| UNUSABLE.to_owned())?;
    let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(UNUSABLE.to_owned());
    };
    let host = host.to_ascii_lowercase().into();
    Ok((uri, host))
}

fn body(warning: &Warning) -> Value {
    let at = jiff::Timestamp::from_millisecond(unix_ms()).unwrap_or_default();
    let (text, mut facts) = match warning {
        Warning::Exceeded(exceeded) => (
            format!(
                "Weir: the cap \"{}\" ({}) of {} is exceeded: {} is spent.",
                exceeded.cap, exceeded.scope, exceeded.limit, exceeded.spent
            ),
            exceeded_facts(exceeded),
        ),
        Warning::Reached { permille, account } => {
            let (percent, rest) = (permille / 10, permille % 10);
            (
                format!(
                    "Weir: {percent}.{rest} % of the cap \"{}\" ({}) of {} are spent.",
                    account.cap, account.scope, account.limits
                ),
                json!({
                    "kind": "share", "cap": account.cap, "scope": account.scope,
                    "window": account.window, "limit": account.limits.to_string(),
                    "permille": permille, "spent_usd": usd(account.spent.money),
                    "spent_tokens": account.spent.tokens, "spent_calls": account.spent.calls,
                    "resets_at_unix": account.resets_at_unix,
                }),
            )
        }
    };
    if let Some(facts) = facts.as_object_mut() {
        facts.insert("at".to_owned(), at.to_string().into());
    }
    json!({ "text": text, "weir": facts })
}

fn exceeded_facts(exceeded: &Exceeded) -> Value {
    json!({
        "kind": "exceeded", "cap": exceeded.cap, "scope": exceeded.scope,
        "window": exceeded.window, "limit": exceeded.limit.to_string(),
        "spent": exceeded.spent.to_string(), "cause": exceeded.cause,
        "resets_at_unix": exceeded.resets_at_unix,
    })
}

fn usd(amount: weir_core::money::Money) -> String {
    amount.to_string().replace('$', "")
}
