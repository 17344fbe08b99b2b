//! The admin server: `/metrics`, `/healthz`, `/readyz`, `/api/v1/status`, for monitoring on a TCP
//! address and for `weir status` on a socket in the state directory.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_TIMEOUT, ADMIN_RETRY_DELAY};

/// What the server shows; each is called once per request for it.
#[derive(Clone)]
pub struct Pages {
    /// `/metrics`, in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// `/api/v1/status`.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// `/readyz`: whether connections are captured and served at this moment, or what is wrong.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

/// Serves on the address until dropped.
pub async fn serve_address(listener: TcpListener, pages: Pages) {
    let slots = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let accepted = listener.accept().await;
        serve_accepted(accepted.map(|(stream, _)| stream), &pages, slot).await;
    }
}

/// Serves on the socket until dropped.
pub async fn serve_socket(listener: UnixListener, pages: Pages) {
    let slots = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let accepted = listener.accept().await;
        serve_accepted(accepted.map(|(stream, _)| stream), &pages, slot).await;
    }
}

/// Serves a connection in a task of its own, which keeps its slot.
async fn serve_accepted<S>(accepted: io::Result<S>, pages: &Pages, slot: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match accepted {
        Ok(stream) => {
            let pages = pages.clone();
            tokio::spawn(async move {
                serve(stream, pages).await;
                drop(slot);
            });
        }
        Err(error) => pause(&error).await,
    }
}

/// Out of file descriptors, most likely: that ends by itself, and must not spin until then.
async fn pause(error: &io::Error) {
    warn!(%error, "the admin server cannot accept a connection");
    tokio::time::sleep(ADMIN_RETRY_DELAY).await;
}

/// The socket for `weir status`: it lies in a directory that only its owner can enter.
///
/// # Errors
/// The path is taken, or its directory cannot be opened.
pub fn listen_on_socket(path: &Path) -> io::Result<UnixListener> {
    at_short_path(path, |path| UnixListener::bind(path))
}

/// A connection to the socket of another process.
///
/// # Errors
/// Nobody listens there, or the directory cannot be opened.
pub fn connect_to_socket(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    at_short_path(path, |path| std::os::unix::net::UnixStream::connect(path))
}

/// The address of a socket holds less than a path may be long: one that does not fit is reached by
/// a descriptor of its directory.
fn at_short_path<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return act(path);
    };
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return act(path);
    }
    let directory = File::open(directory)?;
    let descriptor = directory.as_raw_fd().to_string();
    act(&Path::new("/proc/self/fd").join(descriptor).join(name))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, pages: Pages) {
    let answer = service_fn(|request| {
        let response = answer(&request, &pages);
        async { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection of the admin server broke");
    }
}

fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = page(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "expected GET\n".into(),
        );
        response
            .headers_mut()
            .insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => page(StatusCode::OK, PROMETHEUS, (pages.metrics)()),
        "/healthz" => page(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => match (pages.ready)() {
            Ok(()) => page(StatusCode::OK, TEXT, "ready\n".into()),
            Err(reason) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
        },
        "/api/v1/status" => page(StatusCode::OK, JSON, format!("{}\n", (pages.status)())),
        path => {
            let text =
                format!("expected /metrics, /healthz, /readyz or /api/v1/status, found {path}\n");
            page(StatusCode::NOT_FOUND, TEXT, text)
        }
    }
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

/// `sun_path` has 108 bytes, the last of which is a NUL: unix(7).
const SOCKET_PATH_BYTES_MAX: usize = 107;
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// The text format's own version, as scrapers negotiate it.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        Pages {
            metrics: Arc::new(|| "weir_up 1\n".into()),
            status: Arc::new(|| serde_json::json!({"mode": "ebpf"})),
            ready: Arc::new(|| Err("no heartbeat".into())),
        }
    }

    fn status_and_type(method: Method, path: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(())
            .unwrap();
        let response = answer(&request, &pages());
        let content_type = response.headers()[CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        (response.status().as_u16(), content_type)
    }

    #[test]
    fn each_page_has_its_status_and_type() {
        for (method, path, status, content_type) in [
            (Method::GET, "/metrics", 200, PROMETHEUS),
            (Method::GET, "/healthz", 200, TEXT),
            (Method::GET, "/readyz", 503, TEXT),
            (Method::GET, "/api/v1/status?x=1", 200, JSON),
            (Method::HEAD, "/healthz", 200, TEXT),
            (Method::GET, "/nothing", 404, TEXT),
            (Method::POST, "/metrics", 405, TEXT),
        ] {
            assert_eq!(
                status_and_type(method, path),
                (status, content_type.into()),
                "{path}"
            );
        }
    }

    fn ask(mut stream: impl io::Read + io::Write, text: &str) -> String {
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_servers_answer_and_survive_what_is_no_http() {
        let directory = tempfile::tempdir().unwrap();
        // Longer than the address of a socket.
        let below = directory.path().join("a".repeat(200));
        std::fs::create_dir(&below).unwrap();
        let path = below.join("1.sock");
        let socket = listen_on_socket(&path).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let servers = [
            tokio::spawn(serve_socket(socket, pages())),
            tokio::spawn(serve_address(listener, pages())),
        ];
        tokio::task::spawn_blocking(move || {
            let question = "GET /api/v1/status HTTP/1.1\r\nhost: weir\r\n\r\n";
            for noise in ["\u{1}\u{2}\r\n\r\n", question] {
                let by_address = ask(std::net::TcpStream::connect(address).unwrap(), noise);
                let by_socket = ask(connect_to_socket(&path).unwrap(), noise);
                let expected = if noise == question {
                    "200 OK"
                } else {
                    "400 Bad Request"
                };
                for answer in [by_address, by_socket] {
                    assert!(
                        answer.starts_with(&format!("HTTP/1.1 {expected}")),
                        "{answer}"
                    );
                    assert_eq!(answer.contains(r#"{"mode":"ebpf"}"#), noise == question);
                }
            }
        })
        .await
        .unwrap();
        servers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
