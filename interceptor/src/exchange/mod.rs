//! One exchange with a provider, in the order in which it happens.

mod admission;
mod admit;
mod analyst;
mod answer;
mod behind;
mod chains;
mod credential;
mod decode;
mod edit;
mod entry;
mod explain;
mod growth;
mod judge;
mod judged;
mod later;
mod lease;
mod linger;
mod priced;
mod request;
mod resend;
mod response;
mod rewrite;
mod secret;
mod settle;
mod settled;
mod unpriced;
mod upgrade;
mod websocket;

use std::sync::Arc;

use http::Request;
use http::header::CONTENT_LENGTH;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use weir_core::api::Endpoint;

pub(crate) use admission::Memory;
pub(crate) use analyst::Analyst;
pub(crate) use behind::Behind;
pub(crate) use chains::Chains;
pub(crate) use credential::{Keyring, Latest};
use edit::Edited;
use entry::Entry;
pub(crate) use explain::CacheMemory;
pub(crate) use later::Pending;
pub(crate) use lease::{give_back, held_of, leased_names, like_all_of};
use linger::Lingering;
pub(crate) use priced::MINIMUM_TOKENS;
use request::Read;
use response::Response;
pub(crate) use rewrite::{Rewriter, untouchable};
pub(crate) use secret::Secret;
use settled::Settled;

use crate::decrypt::{Decrypted, Session};
use crate::forward::{self, Protocol, RequestBody, SendError};
use crate::process::limits;
use crate::sidecar::{Context, Rules};

/// Serves the requests of one decrypted connection until either side closes it.
pub(crate) async fn serve(
    context: &Arc<Context>,
    rules: &Arc<Rules>,
    session: Session,
    stream: Decrypted,
) {
    let protocol = session.upstream.protocol();
    let session = Arc::new(session);
    // Boxed: an answer that streams needs no room for what came before its head.
    let service = service_fn(|request| {
        Box::pin(exchange(
            Arc::clone(context),
            Arc::clone(rules),
            Arc::clone(&session),
            request,
        ))
    });
    let served = match protocol {
        Protocol::Http1 | Protocol::Http1Unnegotiated => {
            let connection = hyper::server::conn::http1::Builder::new()
                .preserve_header_case(true)
                .auto_date_header(false)
                .max_headers(forward::HEADERS_MAX)
                .timer(TokioTimer::new())
                .header_read_timeout(limits::CLIENT_IDLE_TIMEOUT)
                .serve_connection(
                    TokioIo::new(Lingering::new(stream, Arc::clone(context))),
                    service,
                )
                .with_upgrades();
            let connection = std::pin::pin!(connection);
            let mut connection = Settled::new(connection);
            tokio::select! {
                served = &mut connection => served,
                () = context.draining() => {
                    connection.get_mut().as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Protocol::Http2 => {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .auto_date_header(false)
                .initial_stream_window_size(forward::STREAM_WINDOW)
                .initial_connection_window_size(forward::CONNECTION_WINDOW)
                .max_header_list_size(forward::HEADER_LIST_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = Box::pin(connection);
            tokio::select! {
                served = connection.as_mut() => served,
                () = context.draining() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of an application ended");
    }
}

/// The pipeline. A failure to reach the provider ends the application's connection as the provider's
/// own failure would have, so that its retries run; everything else is an answer.
async fn exchange(
    context: Arc<Context>,
    rules: Arc<Rules>,
    session: Arc<Session>,
    request: Request<Incoming>,
) -> Result<Response, SendError> {
    let mut entry = Entry::open(context, rules, session, &request);
    let Endpoint::Call(api) = entry.endpoint else {
        // A header must not be enough to have a call forwarded unread: so calls come first.
        if upgrade::is_asked_for(&request) {
            return upgrade::forward(entry, request).await;
        }
        return forward(entry, request.map(RequestBody::Streamed)).await;
    };
    let (head, body, trailers) = match request::read(&entry.context, request).await {
        Ok(Read::Whole {
            head,
            body,
            trailers,
            memory,
        }) => {
            entry.body_memory = memory;
            (head, body, trailers)
        }
        Ok(Read::TooLong(_)) if entry.fails_closed() => return Ok(entry.refuse_too_long(api)),
        Ok(Read::TooLong(request)) => {
            entry.unread("request_too_long");
            return forward(entry, request).await;
        }
        Err(error) => return Err(SendError::Request(error)),
    };
    match entry.read_call(api, &head.headers, &body) {
        Ok(()) => {}
        Err(unreadable) if entry.fails_closed() => {
            return Ok(entry.refuse_unreadable(api, &unreadable));
        }
        Err(unreadable) => {
            tracing::warn!(unreadable, "expected a call, forwarded unread");
            entry.unread("request_unreadable");
        }
    }
    if let Some(model) = entry.refused_for_no_price() {
        return Ok(entry.refuse_unpriced(api, &model));
    }
    let plain = entry.plain(&body);
    if let Err(exceeded) = entry.admit_leased(&plain).await {
        return Ok(entry.refuse(api, &exceeded));
    }
    let came = body.clone();
    entry.recall(&plain).await;
    let Edited { body, plain: sent } = entry.edit(body);
    entry.keep_for_sketch(plain, sent);
    let head = entry.edit_head(head, body.len());
    entry.keep_to_go_again(&head, trailers.as_deref(), came);
    let body = RequestBody::Full {
        bytes: body,
        trailers,
        announced: head.headers.contains_key(CONTENT_LENGTH),
    };
    forward(entry, Request::from_parts(head, body)).await
}

/// Sends a request, and passes the answer on while reading it on the side.
async fn forward(
    mut entry: Box<Entry>,
    request: Request<RequestBody>,
) -> Result<Response, SendError> {
    entry.sending();
    let (rules, session) = (Arc::clone(&entry.rules), Arc::clone(&entry.session));
    let sending = rules.forwarder.send(&session.upstream, request);
    // What explains the cache is worked out while the provider is at it, and nothing waits for it.
    let (sent, ()) = tokio::join!(biased; sending, async { entry.hand_over() });
    match sent {
        Ok(response) if entry.may_go_again(response.status()) => {
            // Boxed: seldom needed, and large.
            Box::pin(resend::answer(entry, response)).await
        }
        Ok(response) => Ok(answer::observe(entry, response)),
        Err(error) => {
            entry.failed(&error);
            Err(error)
        }
    }
}
