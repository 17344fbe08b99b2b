//! Takes captured connections: bounded, one task each, until drained.

mod identity;
mod proxy_request;
mod script;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;

pub(crate) use identity::Application;

use crate::capture::{Capture, Flow, Mode};
use crate::client_hello;
use crate::decrypt;
use crate::exchange;
use crate::forward::Destination;
use crate::ledger::Bypass;
use crate::metrics::{Bound, BypassReason};
use crate::process::limits;
use crate::sidecar::{Context, Rules, unix_ms};
use crate::tunnel;

/// After `accept` failed for want of file descriptors, the next try.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A connection: who opened it, and where to.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) application: Application,
    pub(crate) destination: Destination,
}

/// Accepts until the sidecar is drained.
pub(crate) async fn accept_all(context: Arc<Context>, listener: TcpListener) {
    loop {
        let permit = match Arc::clone(&context.connections).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_full) => {
                context.metrics.bound_reached(Bound::Connections);
                match Arc::clone(&context.connections).acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_closed) => return,
                }
            }
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = context.draining() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let context = Arc::clone(&context);
                tokio::spawn(async move { connection(&context, stream, peer, permit).await });
            }
            Err(error) => {
                tracing::warn!(%error, "expected to accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(
    context: &Arc<Context>,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    let (flow, mut stream) = match flow(&context.capture, stream, peer).await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, "looking for the owner of a connection ended");
            return;
        }
    };
    let Some(flow) = flow else {
        // Somebody connected to the listener directly: there is no original destination.
        context
            .metrics
            .connections_refused
            .with_label_values(&["not_redirected"])
            .inc();
        return tunnel::reset(stream);
    };
    // A small write that waits for an acknowledgement holds back the first events of a stream.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "expected to switch Nagle's algorithm off");
    }
    context.metrics.connections.inc();
    let rules = context.rules();
    if let Some(destination) = destination(context, &mut stream, flow.destination).await {
        let application = identity::identify(&flow).await;
        let origin = Arc::new(Origin {
            application,
            destination,
        });
        if let Err(error) = open(context, &rules, &origin, stream).await {
            tracing::debug!(%error, destination = %origin.destination, "a connection ended");
        }
    }
    context.metrics.connections.dec();
}

/// Asks the capture, where that reads all of `/proc` on a thread that may block.
async fn flow(
    capture: &Arc<Capture>,
    stream: TcpStream,
    peer: std::net::SocketAddr,
) -> Result<(Option<Flow>, TcpStream), JoinError> {
    use std::os::fd::AsFd as _;

    if !capture.reads_proc() {
        return Ok((capture.flow(stream.as_fd(), peer), stream));
    }
    let capture = Arc::clone(capture);
    tokio::task::spawn_blocking(move || (capture.flow(stream.as_fd(), peer), stream)).await
}

async fn destination(
    context: &Context,
    stream: &mut TcpStream,
    captured: Option<std::net::SocketAddr>,
) -> Option<Destination> {
    match (captured, context.capture.mode()) {
        (Some(address), _) => Some(Destination::Address(address)),
        (None, Mode::Proxy) => match proxy_request::read(stream).await {
            Ok(destination) => destination,
            Err(error) => {
                tracing::debug!(%error, "expected a CONNECT request");
                None
            }
        },
        (None, Mode::Ebpf | Mode::Redirect) => None,
    }
}

async fn open(
    context: &Arc<Context>,
    rules: &Arc<Rules>,
    origin: &Arc<Origin>,
    mut stream: TcpStream,
) -> anyhow::Result<()> {
    let limits = client_hello::Limits {
        bytes_max: limits::CLIENT_HELLO_BYTES_MAX,
        wait_max: limits::CLIENT_HELLO_TIMEOUT,
    };
    // Boxed, as what follows: a connection that is only spliced need not carry room for serving, nor
    // one that is served what it took to decide.
    match Box::pin(client_hello::read(&mut stream, limits)).await? {
        client_hello::Opening::Closed => Ok(()),
        client_hello::Opening::Opaque { reason, bytes } => {
            let passed = Passed {
                stream,
                head: &bytes,
                host: None,
                reason,
            };
            Box::pin(pass(context, rules, origin, passed)).await
        }
        client_hello::Opening::Unanswerable { server_name, bytes } => {
            let turned_away =
                decrypt::turn_away(context, rules, origin, stream, &server_name, &bytes);
            Box::pin(turned_away).await
        }
        client_hello::Opening::Tls(hello) => {
            let decided = Box::pin(decrypt::decide(context, rules, origin, stream, hello)).await?;
            if let Some((session, stream)) = decided {
                Box::pin(exchange::serve(context, rules, session, stream)).await;
            }
            Ok(())
        }
    }
}

/// Puts a connection that is not inspected into the summary and the reports.
pub(crate) fn report(context: &Context, origin: &Origin, host: Option<&str>, reason: BypassReason) {
    if reason.is_blind_spot() {
        context.count_not_inspected(reason.as_str());
    }
    write_down(context, origin, host, reason.as_str());
}

/// The same of a call on a connection that is inspected, as a whole or in part.
pub(crate) fn report_unread(context: &Context, origin: &Origin, host: &str, reason: &str) {
    let unreadable = &context.metrics.unreadable;
    unreadable.with_label_values(&[reason]).inc();
    context.count_not_inspected(reason);
    write_down(context, origin, Some(host), reason);
}

fn write_down(context: &Context, origin: &Origin, host: Option<&str>, reason: &str) {
    let program = &origin.application.identity.program;
    context.ledger.bypass(Bypass {
        at_unix_ms: unix_ms(),
        program: program.clone().unwrap_or_default(),
        host: host.unwrap_or_default().to_owned(),
        destination: origin.destination.to_string(),
        reason: reason.to_owned(),
        count: 1,
    });
}

/// A connection that is not inspected.
pub(crate) struct Passed<'a> {
    pub(crate) stream: TcpStream,
    /// What the client sent already.
    pub(crate) head: &'a [u8],
    pub(crate) host: Option<&'a str>,
    pub(crate) reason: BypassReason,
}

/// Splices a connection to its original destination, and counts it with the reason.
pub(crate) async fn pass(
    context: &Context,
    rules: &Rules,
    origin: &Origin,
    passed: Passed<'_>,
) -> anyhow::Result<()> {
    context
        .metrics
        .bypassed
        .with_label_values(&[passed.reason.as_str()])
        .inc();
    report(context, origin, passed.host, passed.reason);
    let dialer = rules.forwarder.dialer();
    tunnel::splice(
        dialer,
        passed.stream,
        passed.head,
        &origin.destination,
        passed.host,
    )
    .await?;
    Ok(())
}
