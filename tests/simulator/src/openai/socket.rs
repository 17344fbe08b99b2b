//! `GET /v1/responses` and `GET /v1/realtime` as WebSockets: each message `response.create` is a call, and the events
//! of its answer are messages.

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

use super::realtime::Session;
use crate::bill::{Api, Received};
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
    let session = Session::asked_for(&parts.uri);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            // How it ends is the client's business.
            drop(serve(&state, &wire, &headers, session, socket).await);
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
    mut session: Option<Session>,
    mut socket: Socket,
) -> tungstenite::Result<()> {
    if let Some(session) = &session {
        socket.send(Message::text(session.created())).await?;
    }
    while let Some(message) = socket.next().await {
        let message = message?;
        if !message.is_text() {
            continue;
        }
        let mut body = message.into_data();
        if let Some(session) = &mut session {
            let (said, call) = session.hear(&body);
            for event in said {
                socket.send(Message::text(event.to_string())).await?;
            }
            let Some(call) = call else { continue };
            body = call.to_string().into();
        }
        state.books.receive(Received {
            method: "WS".to_owned(),
            path: if session.is_some() {
                "/v1/realtime"
            } else {
                "/v1/responses"
            }
            .to_owned(),
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
            in_socket: Some(if session.is_some() {
                Api::Realtime
            } else {
                Api::Responses
            }),
            regional: false,
            deployment: None,
        };
        let answer = super::responses(&call).await?;
        if !send(&mut socket, session.as_mut(), answer).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends the events of `answer`, or its error. Whether the socket is to go on.
async fn send(
    socket: &mut Socket,
    mut session: Option<&mut Session>,
    answer: Response<Body>,
) -> tungstenite::Result<bool> {
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
        let message = match &mut session {
            Some(session) => session.say(&message),
            None => Some(message),
        };
        if let Some(message) = message {
            socket.send(Message::text(message)).await?;
        }
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
