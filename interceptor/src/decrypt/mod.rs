//! Decides by the server name whether a connection is inspected, and terminates its TLS if so.
//!
//! The provider is dialled and verified first; only then is the client answered, with the
//! protocol that the provider chose. So a client never sees a working connection to a provider
//! that could not be reached.

mod leaf;
mod rejections;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;
use weir_core::catalog::{Listing, Provider};

pub(crate) use leaf::Leaves;
use rejections::Refusal;
pub(crate) use rejections::Rejections;

use crate::accept::{self, Origin, Passed, pass};
use crate::client_hello::{ClientHello, Offer};
use crate::exchange::Latest;
use crate::forward::{DialError, Route, Upstream};
use crate::metrics::BypassReason;
use crate::process::config::Fail;
use crate::process::limits;
use crate::read_ahead::ReadAhead;
use crate::sidecar::{Context, Rules};
use crate::tunnel;

/// A decrypted connection to a provider.
pub(crate) struct Session {
    pub(crate) origin: Arc<Origin>,
    pub(crate) provider: Provider,
    pub(crate) upstream: Upstream,
    /// Of the request that came last.
    pub(crate) credential: Latest,
}

/// A connection of an application, decrypted. Boxed: it is moved several times.
pub(crate) type Decrypted = Box<TlsStream<ReadAhead>>;

/// Passes or refuses a connection whose server name is known, or decrypts it to be inspected.
pub(crate) async fn decide(
    context: &Arc<Context>,
    rules: &Arc<Rules>,
    origin: &Arc<Origin>,
    stream: TcpStream,
    hello: Box<ClientHello>,
) -> anyhow::Result<Option<(Session, Decrypted)>> {
    let host: Arc<str> = Arc::from(hello.server_name.as_str());
    let provider = match judge(context, rules, origin, &host, &hello) {
        Ok(provider) => provider,
        Err(reason) => {
            let head = &hello.bytes;
            let passed = Passed {
                stream,
                head,
                host: Some(&host),
                reason,
            };
            pass_or_refuse(context, rules, origin, passed).await?;
            return Ok(None);
        }
    };
    let destination = origin.destination.clone();
    let route = Route {
        host: Arc::clone(&host),
        destination,
        offer: hello.offer,
    };
    let asked = Instant::now();
    let upstream = match rules.forwarder.open(route).await {
        Ok(upstream) => upstream,
        Err(error) => {
            tracing::warn!(%error, "expected a verified connection to the provider");
            let reason = match error {
                DialError::Unreachable { .. } => {
                    tunnel::reset(stream);
                    return Err(error.into());
                }
                DialError::Untrusted { .. } => BypassReason::UpstreamUntrusted,
                DialError::WantsClientCertificate { .. } => {
                    BypassReason::UpstreamWantsClientCertificate
                }
                DialError::Handshake { .. } => BypassReason::UpstreamHandshake,
            };
            let head = &hello.bytes;
            let passed = Passed {
                stream,
                head,
                host: Some(&host),
                reason,
            };
            pass_or_refuse(context, rules, origin, passed).await?;
            return Ok(None);
        }
    };
    let session = Session {
        origin: Arc::clone(origin),
        provider,
        upstream,
        credential: Latest::default(),
    };
    let waited = asked.elapsed();
    let stream = terminate(context, &session, stream, hello, waited).await?;
    Ok(Some((session, stream)))
}

/// Passes or refuses a connection to a server that is known, of TLS that we do not speak.
pub(crate) async fn turn_away(
    context: &Context,
    rules: &Rules,
    origin: &Origin,
    stream: TcpStream,
    host: &str,
    head: &[u8],
) -> anyhow::Result<()> {
    let reason = match rules.catalog.lookup(host) {
        Listing::Provider(_) => BypassReason::NoCommonTls,
        Listing::Ignored => BypassReason::Ignored,
        Listing::Unknown => BypassReason::NotProvider,
    };
    let passed = Passed {
        stream,
        head,
        host: Some(host),
        reason,
    };
    pass_or_refuse(context, rules, origin, passed).await
}

/// The provider, if the connection is to be inspected.
fn judge(
    context: &Context,
    rules: &Rules,
    origin: &Origin,
    host: &Arc<str>,
    hello: &ClientHello,
) -> Result<Provider, BypassReason> {
    let provider = match rules.catalog.lookup(host) {
        Listing::Provider(provider) => provider,
        Listing::Ignored => return Err(BypassReason::Ignored),
        Listing::Unknown => return Err(BypassReason::NotProvider),
    };
    if hello.offer == Offer::Unreadable {
        return Err(BypassReason::UnreadableProtocol);
    }
    if !hello.is_answerable {
        return Err(BypassReason::NoCommonTls);
    }
    if !context.leaves.covers(host) {
        return Err(BypassReason::CaDoesNotCover);
    }
    if context
        .rejections
        .contains(&origin.application.runs, host, Instant::now())
    {
        return Err(BypassReason::ClientRejectsCa);
    }
    Ok(provider)
}

/// What can't be inspected passes, or is refused where the configuration says so: only what is no
/// blind spot passes always.
async fn pass_or_refuse(
    context: &Context,
    rules: &Rules,
    origin: &Origin,
    passed: Passed<'_>,
) -> anyhow::Result<()> {
    if rules.config.intercept.fail == Fail::Closed && passed.reason.is_blind_spot() {
        context
            .metrics
            .connections_refused
            .with_label_values(&[passed.reason.as_str()])
            .inc();
        let (host, reason) = (passed.host.unwrap_or_default(), passed.reason.as_str());
        tracing::warn!(host, reason, "refused a connection that can't be inspected");
        accept::report(context, origin, passed.host, passed.reason);
        tunnel::reset(passed.stream);
        return Ok(());
    }
    pass(context, rules, origin, passed).await
}

/// Answers the client's handshake with a leaf for the host that it asked for.
async fn terminate(
    context: &Context,
    session: &Session,
    stream: TcpStream,
    hello: Box<ClientHello>,
    waited: Duration,
) -> anyhow::Result<Decrypted> {
    let (host, program) = (
        &session.upstream.route().host,
        &session.origin.application.runs,
    );
    let config = context
        .leaves
        .server_config(host, session.upstream.protocol())
        .map_err(|error| anyhow::anyhow!("expected a certificate for {host}: {error}"))?;
    let stream = ReadAhead::new(stream);
    let handshake = StartHandshake::from_parts(hello.accepted, stream).into_stream(config);
    match tokio::time::timeout(limits::TLS_HANDSHAKE_TIMEOUT, handshake).await? {
        Ok(stream) => {
            let now = Instant::now();
            context.rejections.succeeded(program, host, now);
            Ok(Box::new(stream))
        }
        Err(error) => {
            // A client that waited long for the provider may have given up for that reason.
            let refusal = Refusal::of(&error)
                .filter(|refusal| *refusal == Refusal::Alert || waited < PATIENCE);
            if let Some(refusal) = refusal {
                let now = Instant::now();
                if context.rejections.failed(program, host, refusal, now) {
                    // One connection may be all that the program tries.
                    let reason = BypassReason::ClientRejectsCa;
                    accept::report(context, &session.origin, Some(host), reason);
                    context
                        .metrics
                        .connections_refused
                        .with_label_values(&["ca_rejected"])
                        .inc();
                    tracing::warn!(
                        %error, program = program.as_ref(), host = host.as_ref(),
                        "the program does not trust the local CA: see `weir doctor`"
                    );
                }
            }
            Err(error.into())
        }
    }
}

/// Clients wait longer than this for a server's first bytes.
const PATIENCE: Duration = Duration::from_secs(1);
