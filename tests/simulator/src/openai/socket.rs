//! `GET /v1/responses` as a WebSocket: each message `response.create` is a call, and the events of its answer are
//! messages.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::bill::Received;
use crate::body::Body;
use crate::connection::Wire;
use crate::exchange::{Call, State, reply};
use crate::json::{Json, object};

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Whether a request wants to become a WebSocket.
pub(crate) fn is_asked_for(parts: &Parts) -> bool {
    parts
        .headers
        .get(UPGRADE)
        .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Agrees to a WebSocket, and serves it until the client closes it.
pub(crate) fn upgrade(
    state: &Arc<State>,
    wire: &Arc<Wire>,
    parts: &Parts,
    upgrade: OnUpgrade,
) -> io::Result<Response<Body>> {
    let key = parts.headers.get(SEC_WEBSOCKET_KEY);
    let accept = derive_accept_key(key.map_or(b"", |key| key.as_bytes()));
    let (state, wire, headers) = (Arc::clone(state), Arc::clone(wire), parts.headers.clone());
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            // How it ends is the client's business.
            drop(serve(&state, &wire, &headers, socket).await);
        }
    });
    let headers = [
        (CONNECTION.as_str(), "Upgrade".to_owned()),
        (UPGRADE.as_str(), "websocket".to_owned()),
        (SEC_WEBSOCKET_ACCEPT.as_str(), accept),
    ];
    reply(101, &headers, Body::free(Bytes::new()))
}

async fn serve(
    state: &State,
    wire: &Arc<Wire>,
    headers: &HeaderMap,
    mut socket: Socket,
) -> tungstenite::Result<()> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if !message.is_text() {
            continue;
        }
        let body = message.into_data();
        state.books.receive(Received {
            method: "WS".to_owned(),
            path: "/v1/responses".to_owned(),
            version: http::Version::HTTP_11,
            server_name: wire.server_name.clone(),
            authority: None,
            headers: Vec::new(),
            body: body.clone(),
        });
        let call = Call {
            state,
            wire,
            headers: headers.clone(),
            body,
            number: state.number(),
            started: state.clock.now(),
            in_socket: true,
            regional: false,
            deployment: None,
        };
        let answer = super::responses(&call).await?;
        if !send(&mut socket, answer).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends the events of `answer`, or its error. Whether the socket is to go on.
async fn send(socket: &mut Socket, answer: Response<Body>) -> tungstenite::Result<bool> {
    let (head, mut body) = answer.into_parts();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map(|frame| frame.into_data().unwrap_or_default()) else {
            // Reset by direction.
            return Ok(false);
        };
        let text = String::from_utf8_lossy(&data).into_owned();
        let message = if head.status.is_success() {
            let data = text.lines().find_map(|line| line.strip_prefix("data: "));
            data.unwrap_or_default().to_owned()
        } else {
            error(head.status.as_u16(), &text)
        };
        socket.send(Message::text(message)).await?;
    }
    Ok(true)
}

/// The error `body` as an event.
fn error(status: u16, body: &str) -> String {
    let body = Json::parse(body.as_bytes()).unwrap_or(Json::Null);
    let event = object! {
        "type": "error",
        "status": u64::from(status),
        "error": body.get("error").cloned(),
    };
    event.to_string()
}
