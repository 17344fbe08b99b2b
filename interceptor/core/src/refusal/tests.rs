//! Golden answers.

use super::*;
use crate::caps::{Quantity, Window};
use crate::money::Money;

const ID: &str = "req_weir_01";

fn money(nanos: i64) -> Quantity {
    Quantity::Money(Money::from_nanos(nanos))
}

fn exceeded() -> Exceeded {
    Exceeded {
        cap: "each developer, each day".to_owned(),
        scope: "user=ann".to_owned(),
        window: Window::Day,
        cause: Cause::Exhausted,
        limit: money(20_000_000_000),
        spent: money(19_871_234_567),
        reserved: money(120_000_000),
        requested: money(50_000_000),
        resets_at_unix: Some(1_795_392_000),
        retry_after_s: None,
    }
}

#[track_caller]
fn check(api: Api, reason: &Reason<'_>, status: u16, headers: &[(&str, &str)], body: &str) {
    let rendered = render(api, reason, ID);
    let found: Vec<(&str, &str)> = rendered
        .headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!((rendered.status, found.as_slice()), (status, headers));
    let expected: String = body.lines().map(str::trim_start).collect();
    assert_eq!(String::from_utf8(rendered.body).unwrap(), expected);
}

const FINAL: [(&str, &str); 3] = [
    ("content-type", "application/json"),
    ("request-id", ID),
    ("x-should-retry", "false"),
];
const OPENAI_FINAL: [(&str, &str); 3] = [
    ("content-type", "application/json"),
    ("x-request-id", ID),
    ("x-should-retry", "false"),
];

#[test]
fn a_cap_is_refused_as_anthropic_refuses_unpaid_calls() {
    check(
        Api::Messages,
        &Reason::CapExceeded(&exceeded()),
        402,
        &FINAL,
        r#"{"type":"error","error":{"type":"billing_error","message":
        "Weir refused this call: the spending cap \"each developer, each day\" (user=ann) allows $20.00 per day; $19.88 is spent, $0.12 is reserved by calls in flight, this call may take $0.05. The cap resets at 2026-11-23T00:00:00Z (request req_weir_01).",
        "details":{"refused_by":"weir","error_code":"cap_exceeded",
        "cap":"each developer, each day","scope":"user=ann","limit_usd":"20.00",
        "spent_usd":"19.871234567","reserved_usd":"0.12","resets_at":"2026-11-23T00:00:00Z"}},
        "request_id":"req_weir_01"}"#,
    );
}

#[test]
fn a_cap_is_refused_as_openai_refuses_an_exhausted_quota() {
    let forever = Exceeded {
        window: Window::Total,
        reserved: money(0),
        requested: money(0),
        spent: money(1_200),
        resets_at_unix: None,
        ..exceeded()
    };
    for api in [Api::ChatCompletions, Api::Responses] {
        check(
            api,
            &Reason::CapExceeded(&forever),
            402,
            &OPENAI_FINAL,
            r#"{"error":{"message":
            "Weir refused this call: the spending cap \"each developer, each day\" (user=ann) allows $20.00 in total; $0.0000012 is spent. The cap does not reset (request req_weir_01).",
            "type":"insufficient_quota","param":null,"code":"insufficient_quota",
            "details":{"refused_by":"weir","error_code":"cap_exceeded",
            "cap":"each developer, each day","scope":"user=ann","limit_usd":"20.00",
            "spent_usd":"0.0000012","reserved_usd":"0.00","resets_at":null}},
            "request_id":"req_weir_01"}"#,
        );
    }
}

#[test]
fn a_request_beyond_the_bound_is_refused_as_too_large() {
    let reason = Reason::TooLarge {
        limit_bytes: 33_554_432,
    };
    check(
        Api::Messages,
        &reason,
        413,
        &FINAL,
        r#"{"type":"error","error":{"type":"request_too_large","message":
        "Weir refused this request: it is longer than the 33554432 bytes that Weir reads, and requests that cannot be read are not allowed here (request req_weir_01).",
        "details":{"refused_by":"weir","error_code":"too_large"}},"request_id":"req_weir_01"}"#,
    );
    check(
        Api::Responses,
        &reason,
        413,
        &OPENAI_FINAL,
        r#"{"error":{"message":
        "Weir refused this request: it is longer than the 33554432 bytes that Weir reads, and requests that cannot be read are not allowed here (request req_weir_01).",
        "type":"invalid_request_error","param":null,"code":"request_too_large",
        "details":{"refused_by":"weir","error_code":"too_large"}},"request_id":"req_weir_01"}"#,
    );
}

#[test]
fn a_request_that_cannot_be_read_is_refused_with_what_was_found() {
    let reason = Reason::Unreadable {
        detail: "expected JSON, found \"<\"",
    };
    check(
        Api::Messages,
        &reason,
        400,
        &FINAL,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":
        "Weir refused this request: it could not be read (expected JSON, found \"<\"), and requests that cannot be read are not allowed here (request req_weir_01).",
        "details":{"refused_by":"weir","error_code":"unreadable"}},"request_id":"req_weir_01"}"#,
    );
    check(
        Api::ChatCompletions,
        &reason,
        400,
        &OPENAI_FINAL,
        r#"{"error":{"message":
        "Weir refused this request: it could not be read (expected JSON, found \"<\"), and requests that cannot be read are not allowed here (request req_weir_01).",
        "type":"invalid_request_error","param":null,"code":"unreadable_request",
        "details":{"refused_by":"weir","error_code":"unreadable"}},"request_id":"req_weir_01"}"#,
    );
}

#[test]
fn a_failed_upstream_may_be_tried_again() {
    let reason = Reason::UpstreamFailed {
        detail: "connection refused",
    };
    check(
        Api::Messages,
        &reason,
        502,
        &FINAL[..2],
        r#"{"type":"error","error":{"type":"api_error","message":
        "Weir could not get an answer from the provider: connection refused (request req_weir_01).",
        "details":{"refused_by":"weir","error_code":"upstream_failed"}},
        "request_id":"req_weir_01"}"#,
    );
    check(
        Api::ChatCompletions,
        &reason,
        502,
        &OPENAI_FINAL[..2],
        r#"{"error":{"message":
        "Weir could not get an answer from the provider: connection refused (request req_weir_01).",
        "type":"server_error","param":null,"code":"upstream_failed",
        "details":{"refused_by":"weir","error_code":"upstream_failed"}},
        "request_id":"req_weir_01"}"#,
    );
}

/// SDKs of both providers retry these, and no other status below 500, unless a header forbids it.
#[test]
fn no_refusal_has_a_status_that_clients_retry() {
    let exceeded = exceeded();
    let reasons = [
        Reason::CapExceeded(&exceeded),
        Reason::TooLarge { limit_bytes: 1 },
        Reason::Unreadable { detail: "" },
    ];
    for reason in reasons {
        let rendered = render(Api::Messages, &reason, ID);
        assert!(rendered.status < 500, "{reason:?}");
        assert!(![408, 409, 429].contains(&rendered.status), "{reason:?}");
        assert!(
            rendered
                .headers
                .iter()
                .all(|(name, _)| *name != "retry-after"),
            "{reason:?}"
        );
    }
}

#[test]
fn amounts_for_people_are_rounded_up_to_a_cent() {
    let rows = [
        (0, "$0.00"),
        (9_999_999, "$0.009999999"),
        (10_000_000, "$0.01"),
        (10_000_001, "$0.02"),
        (20_000_000, "$0.02"),
        (i64::MAX, "$9223372036.854775807"),
    ];
    for (nanos, text) in rows {
        assert_eq!(message::in_cents(money(nanos)).to_string(), text);
    }
}

#[test]
fn a_stream_ends_in_an_event_that_the_sdk_of_the_api_raises() {
    let told = exceeded();
    let end = |api| String::from_utf8(end_of_stream(api, &told, ID)).unwrap();
    let data = |text: &str| -> serde_json::Value {
        let data = text.split_once("data: ").unwrap().1;
        serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap()
    };
    let anthropic = end(Api::Messages);
    assert!(anthropic.starts_with("event: error\ndata: {\"type\":\"error\",\"error\":{"));
    assert_eq!(data(&anthropic)["error"]["type"], "billing_error");
    let chat = end(Api::ChatCompletions);
    assert!(chat.starts_with("data: {\"error\":{\"message\":\"Weir ended this answer: "));
    assert_eq!(
        data(&chat)["error"]["details"]["resets_at"],
        "2026-11-23T00:00:00Z"
    );
    let responses = end(Api::Responses);
    let (error, failed) = responses.split_once("event: response.failed\n").unwrap();
    assert!(error.starts_with("event: error\n"));
    assert_eq!(
        data(failed)["response"]["error"]["code"],
        "insufficient_quota"
    );
    let error = data(error);
    assert_eq!(error["type"], "error");
    assert_eq!(error["code"], "insufficient_quota");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("each developer")
    );
    assert_eq!(
        data(&end(Api::GenerateContent))["error"]["status"],
        "PERMISSION_DENIED"
    );
}

#[test]
fn what_passes_is_a_429_that_says_when() {
    let of = |cause, retry_after_s| Exceeded {
        cause,
        retry_after_s: Some(retry_after_s),
        ..exceeded()
    };
    for (cause, may_be_retried, name) in [
        (Cause::InFlight, true, "cap_in_use"),
        (Cause::Velocity, false, "too_fast"),
    ] {
        let told = of(cause, 7);
        let reason = Reason::CapExceeded(&told);
        assert_eq!(reason.as_str(), name);
        for api in [Api::Messages, Api::ChatCompletions, Api::GenerateContent] {
            let rendered = render(api, &reason, ID);
            assert_eq!(rendered.status, 429);
            let header = |name| {
                let mut all = rendered.headers.iter();
                all.find(|(found, _)| *found == name)
                    .map(|(_, value)| value.as_str())
            };
            assert_eq!(header("retry-after"), Some("7"));
            assert_eq!(header("x-should-retry").is_none(), may_be_retried);
        }
        // Amazon's SDKs look at the status alone.
        let status = if may_be_retried { 429 } else { 400 };
        assert_eq!(render(Api::Converse, &reason, ID).status, status);
    }
}

#[test]
fn limits_on_tokens_calls_and_single_calls_are_told_in_their_words() {
    let tokens = Exceeded {
        limit: Quantity::Tokens(1000),
        spent: Quantity::Tokens(1),
        reserved: Quantity::Tokens(0),
        requested: Quantity::Tokens(1200),
        window: Window::try_from("rolling 24h".to_owned()).unwrap(),
        ..exceeded()
    };
    let text = message::of_cap(&tokens);
    assert!(
        text.contains(
            "allows 1000 tokens in any 24h; 1 token is spent, this call may take 1200 tokens"
        ),
        "{text}"
    );
    let body = render(Api::Messages, &Reason::CapExceeded(&tokens), ID).body;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["details"]["limit_tokens"], 1000);
    let single = Exceeded {
        cause: Cause::PerCall,
        resets_at_unix: None,
        ..exceeded()
    };
    let text = message::of_cap(&single);
    assert!(
        text.ends_with("allows $20.00 for one call; this call may take $0.05"),
        "{text}"
    );
    assert_eq!(
        render(Api::Messages, &Reason::CapExceeded(&single), ID).status,
        402
    );
}
