//! The same over HTTP/2: fields and their order, bodies, trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use weir::process::config::Config;
use weir_tests::{Scripted, World, soon};

/// A request as it arrived.
struct Received {
    head: http::request::Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// Answers every request in the same way, and gives the requests to the test.
async fn serve(server: Arc<Scripted>, received: mpsc::Sender<Received>) {
    loop {
        let stream = server.next().await;
        let received = received.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let received = received.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap();
                let trailers = body.trailers().cloned();
                let body = body.to_bytes();
                received
                    .send(Received {
                        head,
                        body,
                        trailers,
                    })
                    .await
                    .unwrap();
                Ok::<_, Infallible>(answer())
            }
        });
        tokio::spawn(async move {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .auto_date_header(false)
                .max_header_list_size(HEADER_LIST_BYTES)
                .serve_connection(TokioIo::new(stream), service)
                .await
        });
    }
}

const HEADER_LIST_BYTES: u32 = 256 << 10;
const ANSWER_BYTES: usize = 2 << 20;

fn answer() -> Response<BoxBody<Bytes, Infallible>> {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-done"),
        HeaderValue::from_static("yes"),
    )]);
    let body = Full::new(Bytes::from(vec![b'y'; ANSWER_BYTES]))
        .with_trailers(async move { Some(Ok(trailers)) });
    Response::builder()
        .status(429)
        .header("retry-after", "3")
        .header("set-cookie", "a=b")
        .header("x-unknown", "\"q\"")
        .header("set-cookie", "c=d")
        .body(body.boxed())
        .unwrap()
}

fn request(path: &str, body: Bytes, announced: bool) -> Request<BoxBody<Bytes, Infallible>> {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-checksum"),
        HeaderValue::from_static("abc"),
    )]);
    let mut request = Request::post(format!("https://api.anthropic.com{path}"))
        .header("x-api-key", "sk-ant-1")
        .header("anthropic-beta", "one")
        .header("user-agent", "Agent/1")
        .header("anthropic-beta", "two")
        .header("te", "trailers")
        .header("x-empty", "");
    for number in 0..150 {
        request = request.header(format!("x-{number}"), "v".repeat(number));
    }
    let length = body.len();
    let body = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
    match announced {
        true => request
            .header("content-length", length)
            .body(body.boxed())
            .unwrap(),
        false => request.body(Unannounced(body.boxed()).boxed()).unwrap(),
    }
}

/// A body that does not tell its length.
struct Unannounced(BoxBody<Bytes, Infallible>);

impl Body for Unannounced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

fn listed(headers: &HeaderMap) -> Vec<String> {
    let shown = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", shown(value)))
        .collect()
}

#[tokio::test]
async fn fields_bodies_and_trailers_pass_unchanged() {
    let server = Arc::new(Scripted::http2().await);
    let (received, mut requests) = mpsc::channel(1);
    tokio::spawn(serve(Arc::clone(&server), received));
    let world = World::start(&[&server.ca_pem], Config::default());
    let host = "api.anthropic.com";
    let stream = world.tls(server.addr, host, &[b"h2"]).await.unwrap();
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for path in ["/v1/messages?beta=true", "/v1/elsewhere?x=%2f"] {
        for (length, announced) in [(0, true), (1, false), (100_000, true), (3 << 20, false)] {
            let text = "x".repeat(length);
            let body = Bytes::from(format!("{{\"model\":\"m\",\"messages\":[\"{text}\"]}}"));
            let sent = request(path, body.clone(), announced);
            let (fields, uri) = (sent.headers().clone(), sent.uri().clone());
            let answered = soon("an answer", sender.send_request(sent)).await.unwrap();
            let found = soon("a request", requests.recv()).await.unwrap();
            assert_eq!(found.head.uri, uri);
            assert_eq!(listed(&found.head.headers), listed(&fields));
            assert!(found.body == body);
            assert_eq!(found.trailers.unwrap()["x-checksum"], "abc");
            let expected = answer();
            assert_eq!(answered.status(), expected.status());
            let mut fields = listed(expected.headers());
            // The server's own doing.
            fields.push(format!("content-length: {ANSWER_BYTES}"));
            assert_eq!(listed(answered.headers()), fields);
            let body = soon("the answer's end", answered.collect()).await.unwrap();
            assert_eq!(body.trailers().unwrap()["x-done"], "yes");
            assert!(body.to_bytes() == vec![b'y'; ANSWER_BYTES]);
            assert_eq!(world.record().await.status, Some(429));
        }
    }
}
