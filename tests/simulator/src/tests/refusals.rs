//! Calls that are refused: in the shape of the provider, and for nothing.

use http::Version;

use super::client::{Path, send, start};
use crate::Simulator;

const MESSAGES: Path = Path("/v1/messages");
const CHAT: Path = Path("/v1/chat/completions");
const RESPONSES: Path = Path("/v1/responses");

type Headers = &'static [(&'static str, &'static str)];

const NO_KEY: Headers = &[("anthropic-version", "2023-06-01")];
const KEY: Headers = &[("authorization", "Bearer k")];
const VERSION: Headers = &[
    ("authorization", "Bearer k"),
    ("anthropic-version", "2023-06-01"),
];
const STRICT: Headers = &[
    ("authorization", "Bearer k"),
    ("anthropic-version", "2026-10-21"),
];
const GZIP: Headers = &[
    ("x-api-key", "k"),
    ("anthropic-version", "2023-06-01"),
    ("content-encoding", "gzip"),
];

const WHOLE: &str =
    r#"{"model":"claude-opus-5-5","max_tokens":1,"messages":[{"role":"user","content":"x"}]}"#;
const NO_LIMIT: &str = r#"{"model":"claude-opus-5-5","messages":[{"role":"user","content":"x"}]}"#;
const SAMPLED: &str = r#"{"model":"claude-opus-5-5","max_tokens":1,"temperature":1,"messages":[{"role":"user","content":"x"}]}"#;
const NOTHING_STREAMED: &str = r#"{"model":"claude-opus-5-5","max_tokens":0,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;

#[tokio::test]
async fn anthropic_refuses_in_its_own_shape_and_for_nothing() {
    let simulator = start();
    let cases = [
        (NO_KEY, WHOLE, 401, "authentication_error"),
        (KEY, WHOLE, 400, "invalid_request_error"),
        (VERSION, "{\"model\":", 400, "invalid_request_error"),
        (VERSION, "[]", 400, "invalid_request_error"),
        (VERSION, NO_LIMIT, 400, "invalid_request_error"),
        (VERSION, NOTHING_STREAMED, 400, "invalid_request_error"),
        (
            VERSION,
            r#"{"model":"claude-opus-5-5","max_tokens":1}"#,
            400,
            "invalid_request_error",
        ),
        (
            VERSION,
            r#"{"model":"gpt-5.5","max_tokens":1}"#,
            404,
            "not_found_error",
        ),
        (STRICT, SAMPLED, 400, "invalid_request_error"),
        (GZIP, WHOLE, 400, "invalid_request_error"),
    ];
    for (headers, body, status, kind) in cases {
        let answer = send(&simulator, Version::HTTP_2, MESSAGES, headers, body).await;
        assert_eq!(answer.status, status, "{headers:?} {body}");
        let id = answer.header("request-id").to_owned();
        let json = answer.read().await.json();
        assert_eq!(json.text("type"), Some("error"));
        assert_eq!(
            json.at(&["error", "type"]).unwrap().as_str(),
            Some(kind),
            "{json}"
        );
        assert_eq!(json.text("request_id"), Some(id.as_str()));
        assert_eq!(simulator.bill().pop().unwrap().id, id);
    }
    cost_nothing(&simulator, cases.len());
}

#[tokio::test]
async fn openai_refuses_in_its_own_shape_and_for_nothing() {
    let simulator = start();
    let unknown = r#"{"model":"gpt-5.5","previous_response_id":"resp_0","input":"x"}"#;
    let cases = [
        (CHAT, NO_KEY, "{}", 401, Some("invalid_api_key")),
        (CHAT, KEY, "[]", 400, None),
        (CHAT, KEY, "{", 400, None),
        (CHAT, KEY, r#"{"model":"gpt-5.5"}"#, 400, None),
        (
            CHAT,
            KEY,
            r#"{"model":"claude-opus-5-5"}"#,
            404,
            Some("model_not_found"),
        ),
        (
            RESPONSES,
            KEY,
            unknown,
            400,
            Some("previous_response_not_found"),
        ),
        (Path("/v1/images/generations"), KEY, "{}", 404, None),
    ];
    for (path, headers, body, status, code) in cases {
        let answer = send(&simulator, Version::HTTP_11, path, headers, body).await;
        assert_eq!(answer.status, status, "{path:?} {headers:?} {body}");
        let error = answer.read().await.json();
        let error = error.get("error").unwrap();
        assert_eq!(
            (error.text("type"), error.text("code")),
            (Some("invalid_request_error"), code)
        );
        assert!(
            error.text("message").is_some() && error.get("param").is_some(),
            "{error}"
        );
    }
    // A path that does not exist is not on the bill.
    cost_nothing(&simulator, cases.len() - 1);
}

fn cost_nothing(simulator: &Simulator, lines: usize) {
    let bill = simulator.bill();
    assert_eq!(bill.len(), lines);
    assert!(
        bill.iter()
            .all(|line| line.nanodollars == 0 && line.status >= 400),
        "{bill:?}"
    );
    assert_eq!(simulator.total_nanodollars(), 0);
}
