//! What no rule edits leaves as it came, in both directions: heads and bodies of HTTP/1.1.

mod bodies;
mod fixtures;
mod http2;
mod properties;

use weir::process::config::Config;
use weir_tests::{Message, World};

use crate::replay::Replay;

const HOST: &str = "api.anthropic.com";

/// Asserts that head and body of both messages are the same, the head to the byte.
fn assert_same(what: &str, sent: &str, found: &Message) {
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert_eq!(found.head, format!("{head}\r\n\r\n"), "head of {what}");
    assert_eq!(String::from_utf8_lossy(&found.body), body, "body of {what}");
}

/// Requests without a transfer coding, as they stand on the wire.
const REQUESTS: [&str; 14] = [
    "GET /v1/models?limit=3&after_id=a%2Fb;c HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
    // No `accept`, no `user-agent`, nothing is added.
    "DELETE /v1/files/file_1 HTTP/1.1\r\nhost: api.anthropic.com\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
    "POST //v1//other/ HTTP/1.1\r\nHOST: api.anthropic.com\r\ncontent-LENGTH: 5\r\n\r\nhello",
    "PURGE /x HTTP/1.1\r\nhost: api.anthropic.com\r\ncontent-length: 0\r\n\r\n",
    // Case, order, repeated names, empty values, values with everything that a value may have.
    "POST /v1/messages/count_tokens HTTP/1.1\r\nx-Stainless-Lang: js\r\nX-API-KEY: sk-ant-1\r\n\
     Anthropic-Beta: one\r\nAnthropic-Beta: two,three\r\nanthropic-beta: one\r\nHost: \
     api.anthropic.com\r\nX-Empty:\r\nX-Odd: \"a\", b;c=\t(d) \\ {e}\r\nAccept: */*\r\n\
     Content-Length: 2\r\nZ: z\r\nA: a\r\n\r\n{}",
    // What is not JSON, or no call, is forwarded as it is.
    "POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\ncontent-length: 9\r\n\r\nnot json!",
    "POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\ncontent-length: 0\r\n\r\n",
    "POST /v1/messages?beta=true HTTP/1.1\r\nhost: api.anthropic.com\r\ncontent-length: \
     80\r\n\r\n{ \"model\" : \"claude-opus-5-5\",\n\t\"max_tokens\":1e2, \"messages\":[], \"x\":1.0 ,\
     \"x\":1}",
    "POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\nAccept-Encoding: gzip, br;q=0.5\r\n\
     Cookie: a=b\r\nCookie: c=d\r\nAuthorization: Bearer x y\r\nContent-Length: 30\r\n\r\n\
     {\"model\":\"claude-new\",\"n\":[1]}",
    "POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\nExpect: 100-continue\r\n\
     content-length: 13\r\n\r\n{\"model\":\"m\"}",
    "POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\nconnection: keep-alive\r\n\
     keep-alive: timeout=5\r\nte: trailers\r\ncontent-length: 13\r\n\r\n{\"model\":\"m\"}",
    "GET /v1/models HTTP/1.1\r\nHost: api.anthropic.com\r\nConnection: close\r\n\r\n",
    "GET /v1/models HTTP/1.0\r\nHost: api.anthropic.com\r\n\r\n",
];

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    for request in REQUESTS {
        let mut client = world.http1(server.addr, HOST).await;
        client.send(request).await;
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_same("the request", request, &server.answer(ok).await);
        if request.contains("100-continue") {
            assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        }
        assert!(client.message().await.head.contains(" 200 OK\r\n"));
        world.record().await;
    }
    world.no_more_records().await;
}

/// Answers with a length of their own, as they stand on the wire.
const ANSWERS: [&str; 12] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\n{\"a\":",
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    // No date is made up, and a reason phrase stays.
    "HTTP/1.1 200 Here You Are\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nRequest-Id: req_1\r\nanthropic-RateLimit-Requests-Limit: 50\r\n\
     Set-Cookie: a=b\r\nSet-Cookie: c=d; Path=/\r\nX-Empty: \r\nCF-RAY: 1\r\nVary: A\r\nServer: x\r\n\
     Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\nAlt-Svc: h3=\":443\"\r\n\r\n{}",
    "HTTP/1.1 402 Payment Required\r\ncontent-type: application/json\r\ncontent-length: \
     64\r\n\r\n{\"type\":\"error\",\"error\":{\"type\":\"billing_error\",\"message\":\"no\"}}",
    "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nretry-after-ms: 6800\r\n\
     x-should-retry: true\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n\
     {\"error\":\"later\"}",
    "HTTP/1.1 529 Site is overloaded\r\ncontent-type: application/json\r\ncontent-length: \
     33\r\n\r\n{\"error\":{\"type\":\"overloaded_e\"}}",
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n\
     <h1>busy</h1>",
    "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 301 Moved Permanently\r\nLocation: https://elsewhere.example/\r\n\
     Content-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
];

#[tokio::test]
async fn an_answer_arrives_as_it_was_sent() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    for path in ["/v1/messages", "/v1/elsewhere"] {
        let mut client = world.http1(server.addr, HOST).await;
        for answer in ANSWERS {
            client.send(post(path, "", "{\"model\":\"m\"}")).await;
            server.answer(answer).await;
            assert_same("the answer", answer, &client.message().await);
            world.record().await;
        }
        assert!(client.is_over().await, "the last answer closes");
    }
    world.no_more_records().await;
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_and_all_of_its_head() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    for (status, head) in [
        (
            200,
            "HTTP/1.1 200 OK\r\nContent-Length: 512\r\nX-A: b\r\n\r\n",
        ),
        (
            404,
            "HTTP/1.1 404 Not Found\r\nX-A: b\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        client
            .send(format!("HEAD /api/hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await;
        server.answer(head).await;
        assert_eq!(client.head().await, head);
        assert_eq!(world.record().await.status, Some(status));
    }
    // What comes next is the next answer, not a body.
    client.send(post("/v1/x", "", "a")).await;
    server
        .answer("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nb")
        .await;
    assert_eq!(client.message().await.body, b"b");
}

#[tokio::test]
async fn as_many_fields_as_a_provider_takes_arrive_in_their_order() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let fields: String = (0..250)
        .map(|number| format!("X-Field-{number}: v{}\r\n", "v".repeat(number)))
        .collect();
    let request = post("/v1/messages", &fields, "{\"model\":\"m\"}");
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok");
    let mut client = world.http1(server.addr, HOST).await;
    client.send(&request).await;
    assert_same("the request", &request, &server.answer(&answer).await);
    assert_same("the answer", &answer, &client.message().await);
}

#[tokio::test]
async fn requests_in_a_pipeline_are_answered_one_by_one_and_in_order() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    let requests: Vec<String> = (0..5)
        .map(|number| post("/v1/messages", "", &format!("{{\"model\":\"m{number}\"}}")))
        .collect();
    client.send(requests.concat()).await;
    for (number, request) in requests.iter().enumerate() {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
        assert_same("the request", request, &server.answer(&answer).await);
        assert_same("the answer", &answer, &client.message().await);
        let record = world.record().await;
        assert_eq!(record.model_requested, Some(format!("m{number}")));
    }
}

#[tokio::test]
async fn fields_of_one_name_that_stood_apart_keep_their_values_and_order() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut client = world.http1(server.addr, HOST).await;
    client
        .send(post(
            "/v1/x",
            "B: 1\r\nA: x\r\nb: 2\r\nC: y\r\nB: 1\r\n",
            "",
        ))
        .await;
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let found = server.answer(ok).await;
    let fields = found.fields();
    assert_eq!(fields[1..6], ["B: 1", "b: 2", "B: 1", "A: x", "C: y"]);
}

/// A request with a body; `fields` are whole lines.
fn post(path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {HOST}\r\n{fields}content-length: {length}\r\n\r\n{body}"
    )
}
