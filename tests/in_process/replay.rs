//! A server that gives each request to the test, and sends back what the test says.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use weir_tests::{Message, Scripted, Wire, soon};

/// Requests that wait to be answered.
const WAITING_MAX: usize = 1024;

type Asked = (Message, oneshot::Sender<Vec<u8>>);

/// The server.
pub(crate) struct Replay {
    pub(crate) addr: SocketAddr,
    pub(crate) ca_pem: String,
    asked: Mutex<mpsc::Receiver<Asked>>,
}

impl Replay {
    pub(crate) async fn start() -> Self {
        let server = Arc::new(Scripted::http1().await);
        let (addr, ca_pem) = (server.addr, server.ca_pem.clone());
        let (asked_tx, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            loop {
                let wire = Wire::new(server.next().await);
                tokio::spawn(serve(wire, asked_tx.clone()));
            }
        });
        Self {
            addr,
            ca_pem,
            asked: Mutex::new(asked),
        }
    }

    /// Answers the next request with `answer`, and gives the request.
    pub(crate) async fn answer(&self, answer: impl AsRef<[u8]>) -> Message {
        let (message, reply) = soon("a request", self.asked.lock().await.recv())
            .await
            .unwrap();
        reply.send(answer.as_ref().to_vec()).unwrap();
        message
    }
}

/// Serves one connection, until an answer says that it is the last.
async fn serve<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut wire: Wire<S>,
    asked: mpsc::Sender<Asked>,
) {
    while !wire.is_over().await {
        let (reply, replied) = oneshot::channel();
        if asked.send((wire.message().await, reply)).await.is_err() {
            return;
        }
        let Ok(answer) = replied.await else { return };
        let sent = wire.try_send(&answer).await;
        let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if sent.is_err() || head.contains("connection: close\r\n") {
            return wire.finish().await;
        }
    }
}
