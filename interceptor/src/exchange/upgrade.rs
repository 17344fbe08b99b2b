//! Passes a connection that changes its protocol, a WebSocket for one, through as bytes
//! (RFC 9110, section 7.8). Where calls are made inside it, they are read.

use std::sync::Arc;

use http::header::UPGRADE;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use weir_core::api::Endpoint;

use super::answer;
use super::entry::Entry;
use super::response::Response;
use super::websocket::{self, Calls, Compression};
use crate::forward::{RequestBody, SendError};

/// Per direction.
const COPY_BYTES: usize = 16 << 10;

pub(super) fn is_asked_for(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(UPGRADE)
}

/// Sends the request; once both sides switch, passes on what they send until either is done.
pub(super) async fn forward(
    mut entry: Box<Entry>,
    mut request: Request<Incoming>,
) -> Result<Response, SendError> {
    let client = hyper::upgrade::on(&mut request);
    let uri = request.uri().clone();
    entry.sending();
    let request = request.map(RequestBody::Streamed);
    let sent = entry
        .rules
        .forwarder
        .send(&entry.session.upstream, request)
        .await;
    let mut response = match sent {
        Ok(response) => response,
        Err(error) => {
            entry.failed(&error);
            return Err(error);
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer::observe(entry, response));
    }
    let mut calls = None;
    if let Endpoint::Socket(api) = entry.endpoint {
        let compression = Compression::agreed(response.headers());
        if compression.is_none() && entry.fails_closed() {
            return Ok(entry.refuse_unreadable(api, "expected a WebSocket with known extensions"));
        }
        if compression.is_none() {
            entry.unread("socket_extension");
        }
        calls = compression.map(|compression| (Calls::new(&entry, api, &uri), compression));
    }
    let server = hyper::upgrade::on(&mut response);
    let connections = Arc::clone(&entry.context.connections);
    tokio::spawn(async move {
        // It counts as a connection as long as it lives.
        let Ok(_permit) = connections.acquire_owned().await else {
            return;
        };
        let (Ok(client), Ok(server)) = tokio::join!(client, server) else {
            return;
        };
        let (client, server) = (TokioIo::new(client), TokioIo::new(server));
        match calls {
            Some((calls, compression)) => {
                websocket::relay(calls, compression, client, server).await;
            }
            None => copy(client, server).await,
        }
    });
    Ok(answer::observe(entry, response))
}

async fn copy(mut client: TokioIo<Upgraded>, mut server: TokioIo<Upgraded>) {
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES);
    if let Err(error) = copied.await {
        tracing::debug!(%error, "an upgraded connection was cut");
    }
}
