//! Passes a connection that changes its protocol, a WebSocket for one, through as bytes
//! (RFC 9110, section 7.8).

use std::sync::Arc;

use http::header::UPGRADE;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::answer;
use super::entry::Entry;
use super::response::Response;
use crate::forward::{RequestBody, SendError};

/// Per direction.
const COPY_BYTES: usize = 16 << 10;

pub(super) fn is_asked_for(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(UPGRADE)
}

/// Sends the request; once both sides switch, copies between them until either is done.
pub(super) async fn forward(
    mut entry: Box<Entry>,
    mut request: Request<Incoming>,
) -> Result<Response, SendError> {
    let client = hyper::upgrade::on(&mut request);
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
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
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
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            let copied = tokio::io::copy_bidirectional_with_sizes(
                &mut client,
                &mut server,
                COPY_BYTES,
                COPY_BYTES,
            );
            if let Err(error) = copied.await {
                tracing::debug!(%error, "an upgraded connection was cut");
            }
        });
    }
    Ok(answer::observe(entry, response))
}
