//! Wire formats: events in their order, plain bodies, errors, and what was received.

use bytes::Bytes;
use http::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{APIS, BOTH, Path, Read, connect, say, send, start};
use crate::json::Json;
use crate::{Api, Options, Protocols, Simulator};

const MESSAGES: Path = APIS[0];
const CHAT: Path = APIS[1];
const RESPONSES: Path = APIS[2];

fn names(read: &Read) -> Vec<String> {
    let mut names: Vec<String> = read
        .events()
        .iter()
        .map(|(name, data)| {
            let kind = data
                .as_ref()
                .and_then(|data| data.text("type"))
                .unwrap_or("-");
            if name.is_empty() {
                kind.to_owned()
            } else {
                name.clone()
            }
        })
        .collect();
    names.dedup();
    names
}

#[tokio::test]
async fn a_messages_stream_has_the_events_of_the_provider_in_order() {
    let simulator = start();
    for version in BOTH {
        let text = "[[sim: tokens=200 events=50 tool=Read]]";
        let read = say(&simulator, version, MESSAGES, text, true)
            .await
            .read()
            .await;
        let start = [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
        ];
        let tool = [
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
        ];
        let end = ["content_block_stop", "message_delta", "message_stop"];
        assert_eq!(names(&read), [&start[..], &tool, &end].concat());
        let events = read.events();
        let data = |index: usize| events[index].1.as_ref().unwrap();
        let deltas = events.iter().filter(|(_, d)| {
            d.as_ref().unwrap().at(&["delta", "type"]) == Some(&Json::from("text_delta"))
        });
        assert_eq!(deltas.count(), 50);
        let usage = data(0).at(&["message", "usage"]).unwrap();
        assert!(
            usage
                .at(&["cache_creation", "ephemeral_5m_input_tokens"])
                .is_some(),
            "{usage}"
        );
        let last = data(events.len() - 2);
        let (name, input) = (
            "Read",
            r#"{"path":"src/lib.rs","first_line":1,"lines":120}"#,
        );
        let output = 200 + crate::tokens::count(name) + crate::tokens::count(input);
        assert_eq!(
            last.at(&["usage", "output_tokens"]).unwrap().as_u64(),
            Some(output)
        );
        assert_eq!(
            last.at(&["usage", "cache_creation"]),
            None,
            "the split is in message_start only"
        );
        assert_eq!(
            last.at(&["delta", "stop_reason"]).unwrap().as_str(),
            Some("tool_use")
        );
    }
}

#[tokio::test]
async fn a_chat_stream_has_usage_only_if_it_was_asked_for() {
    let simulator = start();
    let headers = [("authorization", "Bearer k")];
    for (options, asked) in [
        (r#","stream_options":{"include_usage":true}"#, true),
        ("", false),
    ] {
        let body = format!(
            r#"{{"model":"gpt-6-sol","stream":true{options},"messages":[{{"role":"user","content":"[[sim: tokens=10 events=5]]"}}]}}"#
        );
        let read = send(&simulator, Version::HTTP_2, CHAT, &headers, body)
            .await
            .read()
            .await;
        let text = String::from_utf8(read.bytes.clone()).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let events = read.events();
        let chunks: Vec<&Json> = events
            .iter()
            .filter_map(|(_, data)| data.as_ref())
            .collect();
        let with_usage: Vec<_> = chunks.iter().map(|chunk| chunk.get("usage")).collect();
        let (last, others) = chunks.split_last().unwrap();
        if asked {
            assert_eq!(last.get("choices"), Some(&Json::Array(Vec::new())));
            assert_eq!(
                last.at(&["usage", "completion_tokens"]).unwrap().as_u64(),
                Some(10)
            );
            assert!(
                others
                    .iter()
                    .all(|chunk| chunk.get("usage") == Some(&Json::Null))
            );
            assert_eq!(chunks.len(), 1 + 5 + 1 + 1);
        } else {
            assert!(with_usage.iter().all(Option::is_none), "{with_usage:?}");
            assert!(
                chunks
                    .iter()
                    .all(|chunk| !chunk.get("choices").unwrap().items().is_empty())
            );
        }
    }
}

#[tokio::test]
async fn a_responses_stream_is_numbered_and_names_its_events() {
    let simulator = start();
    let text = "[[sim: tokens=30 events=5 think=8 tool=Read]]";
    let read = say(&simulator, Version::HTTP_11, RESPONSES, text, true)
        .await
        .read()
        .await;
    let expected = "response.created response.in_progress response.output_item.added \
        response.output_item.done response.output_item.added response.content_part.added \
        response.output_text.delta response.output_text.done response.content_part.done \
        response.output_item.done response.output_item.added response.function_call_arguments.delta \
        response.function_call_arguments.done response.output_item.done response.completed";
    assert_eq!(names(&read).join(" "), expected);
    for (number, (name, data)) in read.events().iter().enumerate() {
        let data = data.as_ref().unwrap();
        assert_eq!(
            data.get("sequence_number").unwrap().as_u64(),
            Some(number as u64)
        );
        assert_eq!(data.text("type"), Some(name.as_str()));
    }
    let events = read.events();
    let last = events.last().unwrap().1.as_ref().unwrap();
    let reasoning = last.at(&[
        "response",
        "usage",
        "output_tokens_details",
        "reasoning_tokens",
    ]);
    assert_eq!(reasoning.unwrap().as_u64(), Some(8));
    assert_eq!(last.at(&["response", "output"]).unwrap().items().len(), 3);
}

#[tokio::test]
async fn an_answer_is_cut_at_the_limit_of_the_caller() {
    let simulator = start();
    let cases = [
        (
            MESSAGES,
            r#"{"model":"claude-haiku-4-5","max_tokens":5,"messages":[{"role":"user","content":"x"}]}"#,
            "stop_reason",
            "max_tokens",
            "output_tokens",
        ),
        (
            CHAT,
            r#"{"model":"gpt-5.5","max_completion_tokens":5,"messages":[{"role":"user","content":"x"}]}"#,
            "finish_reason",
            "length",
            "completion_tokens",
        ),
        (
            RESPONSES,
            r#"{"model":"gpt-5.5","max_output_tokens":5,"input":"x"}"#,
            "status",
            "incomplete",
            "output_tokens",
        ),
    ];
    for (path, body, reason, value, output) in cases {
        let headers = [
            ("authorization", "Bearer k"),
            ("anthropic-version", "2023-06-01"),
        ];
        let answer = send(&simulator, Version::HTTP_11, path, &headers, body)
            .await
            .read()
            .await
            .json();
        let choice = answer
            .get("choices")
            .and_then(|choices| choices.items().first());
        assert_eq!(
            choice.unwrap_or(&answer).text(reason),
            Some(value),
            "{answer}"
        );
        assert_eq!(answer.at(&["usage", output]).unwrap().as_u64(), Some(5));
    }
}

#[tokio::test]
async fn counting_tokens_and_filling_the_cache_are_answered_too() {
    let simulator = start();
    let headers = [("x-api-key", "k"), ("anthropic-version", "2023-06-01")];
    let system = crate::tokens::prose(700, 0);
    let body = format!(
        r#"{{"model":"claude-sonnet-5-5","max_tokens":0,"cache_control":{{"type":"ephemeral"}},"system":{},"messages":[{{"role":"user","content":"four"}}]}}"#,
        Json::from(system)
    );
    let count = Path("/v1/messages/count_tokens");
    let counted = send(&simulator, Version::HTTP_11, count, &headers, body.clone()).await;
    assert_eq!(
        counted.read().await.json().to_string(),
        r#"{"input_tokens":701}"#
    );
    assert_eq!(simulator.bill(), [], "counting is free");
    for expected in [[0, 701], [701, 0]] {
        send(
            &simulator,
            Version::HTTP_11,
            MESSAGES,
            &headers,
            body.clone(),
        )
        .await
        .read()
        .await;
        let line = simulator.bill().pop().unwrap();
        assert_eq!((line.api, line.usage.output), (Api::Messages, 0));
        assert_eq!(
            [line.usage.cache_read, line.usage.cache_write_short],
            expected
        );
    }
}

#[tokio::test]
async fn a_stored_response_is_the_prefix_of_the_one_that_continues_it() {
    let simulator = start();
    let headers = [("authorization", "Bearer k")];
    let long = Json::from(crate::tokens::prose(1100, 0));
    let first = format!(r#"{{"model":"gpt-6-sol","input":{long}}}"#);
    let answer = send(&simulator, Version::HTTP_2, RESPONSES, &headers, first).await;
    let id = answer.read().await.json().text("id").unwrap().to_owned();
    let second = format!(r#"{{"model":"gpt-6-sol","input":"more","previous_response_id":"{id}"}}"#);
    let answer = send(&simulator, Version::HTTP_2, RESPONSES, &headers, second).await;
    let usage = answer.read().await.json();
    let input = usage.at(&["usage", "input_tokens"]).unwrap().as_u64();
    let cached = usage
        .at(&["usage", "input_tokens_details", "cached_tokens"])
        .unwrap()
        .as_u64();
    assert_eq!((input, cached), (Some(1100 + 24 + 1), Some(1100)));
}

#[tokio::test]
async fn http1_requests_are_kept_as_they_stood_on_the_wire() {
    let simulator = start();
    let mut tls = connect(&simulator, "api.openai.com", &[b"http/1.1"]).await;
    let body = r#"{"model":"gpt-5.5","messages":[]}"#;
    for (framing, framed) in [
        (format!("CONTENT-length: {}", body.len()), body.to_owned()),
        (
            "transfer-encoding: chunked".to_owned(),
            format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        ),
    ] {
        let head = format!(
            "POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: api.openai.com\r\nX-Odd-CASE:  two words \r\n{framing}\r\n\
             zebra: 1\r\nX-Odd-Case: again\r\nalpha: \u{e9}\r\n\r\n"
        );
        tls.write_all(head.as_bytes()).await.unwrap();
        tls.write_all(framed.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}}") {
            assert_ne!(tls.read_buf(&mut answer).await.unwrap(), 0);
        }
        let received = simulator.received().pop().unwrap();
        assert_eq!(
            (received.method.as_str(), received.version),
            ("POST", Version::HTTP_11)
        );
        assert_eq!(received.path, "/v1/chat/completions?x=1");
        assert_eq!(received.server_name.as_deref(), Some("api.openai.com"));
        assert_eq!(received.body, body);
        let (name, value) = framing.split_once(": ").unwrap();
        let expected = [
            ("Host", "api.openai.com"),
            ("X-Odd-CASE", "two words"),
            (name, value),
            ("zebra", "1"),
            ("X-Odd-Case", "again"),
            ("alpha", "\u{e9}"),
        ];
        let expected =
            expected.map(|(name, value)| (name.to_owned(), Bytes::from(value.to_owned())));
        assert_eq!(received.headers, expected);
        assert_eq!(received.header("x-odd-case"), Some("two words"));
    }
    assert_eq!(
        (simulator.connections(), simulator.received().len()),
        (1, 2)
    );
}

#[tokio::test]
async fn http2_requests_are_kept_with_their_authority() {
    let simulator = start();
    say(&simulator, Version::HTTP_2, MESSAGES, "hello", false)
        .await
        .read()
        .await;
    let received = simulator.received().pop().unwrap();
    assert_eq!(
        (received.version, received.path.as_str()),
        (Version::HTTP_2, "/v1/messages")
    );
    assert_eq!(received.authority.as_deref(), Some("api.anthropic.com"));
    assert_eq!(received.header("authorization"), Some("Bearer test-key"));
    assert_eq!(received.body, MESSAGES.body("hello", false));
}

#[tokio::test]
async fn a_simulator_without_http2_does_not_offer_it() {
    let options = Options {
        protocols: Protocols::Http1,
        ..Options::default()
    };
    let simulator = Simulator::start(options).unwrap();
    let tls = connect(&simulator, "api.anthropic.com", &[b"h2", b"http/1.1"]).await;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_ref()));
}

#[tokio::test]
async fn dropping_a_simulator_closes_idle_connections() {
    let simulator = start();
    let mut tls = connect(&simulator, "api.anthropic.com", &[b"http/1.1"]).await;
    drop(simulator);
    let mut rest = Vec::new();
    // An unexpected end of the TLS stream is an end, too.
    tls.read_to_end(&mut rest).await.unwrap_or_default();
    assert_eq!(rest, b"");
}
