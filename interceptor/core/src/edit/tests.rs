//! Edits, from the outside.

use super::*;
use crate::api::Api;
use crate::call;
use crate::catalog::Provider;

fn edit(range: Range<usize>, replacement: &str) -> Edit {
    Edit {
        range,
        replacement: replacement.into(),
        rule: "test".into(),
    }
}

#[test]
fn what_no_edit_names_stays_as_it_came() {
    for (mut edits, expected) in [
        (vec![], "0123456789"),
        (vec![edit(2..4, "ab")], "01ab456789"),
        (vec![edit(8..10, ""), edit(0..1, "x")], "x1234567"),
        (
            vec![edit(3..3, "b"), edit(3..3, "c"), edit(3..5, "d")],
            "012bcd56789",
        ),
        (vec![edit(0..0, "<"), edit(10..10, ">")], "<0123456789>"),
        (vec![edit(2..4, ""), edit(4..6, "")], "016789"),
        (vec![edit(0..10, "")], ""),
    ] {
        let edited = apply(b"0123456789", &mut edits).unwrap();
        assert_eq!(String::from_utf8(edited).unwrap(), expected);
    }
}

#[test]
fn edits_that_do_not_fit_are_refused() {
    for mut edits in [
        vec![edit(9..11, "")],
        vec![edit(11..11, "")],
        vec![edit(Range { start: 4, end: 2 }, "")],
    ] {
        let error = apply(b"0123456789", &mut edits).unwrap_err();
        assert!(
            matches!(error, EditError::OutOfBounds { body_bytes: 10, .. }),
            "{error}"
        );
    }
    for mut edits in [
        vec![edit(2..5, ""), edit(4..6, "")],
        vec![edit(2..5, ""), edit(3..3, "")],
        vec![edit(2..5, ""), edit(2..5, "")],
    ] {
        let error = apply(b"0123456789", &mut edits).unwrap_err();
        assert!(matches!(error, EditError::Overlap { .. }), "{error}");
    }
}

/// The body after the edit that asks for usage, if there is one.
fn asked(body: &str) -> Option<String> {
    let call = call::parse(Api::ChatCompletions, body.as_bytes()).unwrap();
    let edit = ask_for_usage(Provider::OpenAi, &call, body.as_bytes())?;
    let edited = apply(body.as_bytes(), &mut [edit]).unwrap();
    let again = call::parse(Api::ChatCompletions, &edited).unwrap();
    assert!(again.include_usage, "{body}");
    assert_eq!(
        ask_for_usage(Provider::OpenAi, &again, &edited),
        None,
        "{body}"
    );
    Some(String::from_utf8(edited).unwrap())
}

#[test]
fn usage_of_a_stream_is_asked_for_where_the_client_did_not() {
    for (body, expected) in [
        (
            r#" {"stream":true}"#,
            r#" {"stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options": { "include_obfuscation":false}}"#,
            r#"{"stream":true,"stream_options": {"include_usage":true, "include_obfuscation":false}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage": false }}"#,
            r#"{"stream":true,"stream_options":{"include_usage": true }}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_us\u0061ge":null}}"#,
            r#"{"stream":true,"stream_options":{"include_us\u0061ge":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        assert_eq!(asked(body).as_deref(), Some(expected), "{body}");
    }
}

#[test]
fn usage_is_not_asked_for_where_it_would_change_anything_else() {
    for body in [
        r#"{}"#,
        r#"{"stream":false}"#,
        r#"{"stream":"true"}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"stream_options":"all"}"#,
    ] {
        assert_eq!(asked(body), None, "{body}");
    }
    let body = br#"{"stream":true}"#;
    for api in Api::ALL {
        let call = call::parse(api, body).unwrap();
        for provider in Provider::ALL {
            let asks = matches!(api, Api::ChatCompletions | Api::Completions)
                && [Provider::OpenAi, Provider::Azure, Provider::DeepSeek].contains(&provider);
            let asked = ask_for_usage(provider, &call, body).is_some();
            assert_eq!(asked, asks, "{provider:?} {api:?}");
        }
    }
}

/// What a client sees of a stream that passes the filter in pieces of the given size, and how many
/// chunks were taken out.
fn filtered(stream: &[u8], sizes: &[usize]) -> (String, u64) {
    let mut filter = UsageChunkFilter::new();
    let mut seen = Vec::new();
    let mut rest = stream;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        filter.push(piece, |bytes| match bytes {
            Piece::Held(held) => seen.extend_from_slice(held),
            Piece::Now(range) => seen.extend_from_slice(&piece[range]),
        });
        rest = after;
    }
    let removed = filter.removed();
    seen.extend_from_slice(&filter.finish());
    (String::from_utf8(seen).unwrap(), removed)
}

#[track_caller]
fn check_filter(stream: &str, expected: &str, removed: u64) {
    let expected = (expected.to_owned(), removed);
    let stream = stream.as_bytes();
    assert_eq!(filtered(stream, &[stream.len()]), expected, "whole");
    assert_eq!(filtered(stream, &[1]), expected, "byte by byte");
    for at in 1..stream.len() {
        assert_eq!(
            filtered(stream, &[at, stream.len()]),
            expected,
            "split at {at}"
        );
    }
}

const CHUNK: &str =
    r#"data: {"id":"c","choices":[{"delta":{"content":"\"usage\""}}],"usage":null}"#;
const USAGE: &str = r#"data: {"id":"c","choices": [ ],"usage":{"prompt_tokens":3}}"#;
const AZURE: &str = r#"data: {"choices":[],"prompt_filter_results":[],"usage":null}"#;
const DONE: &str = "data: [DONE]";

#[test]
fn the_usage_chunk_is_taken_out_and_nothing_else() {
    for end in ["\n", "\r\n", "\r"] {
        let stream = |lines: &[&str]| {
            lines
                .iter()
                .fold(String::new(), |stream, line| stream + line + end + end)
        };
        let with = stream(&[": ping", AZURE, CHUNK, USAGE, DONE]);
        check_filter(&with, &stream(&[": ping", AZURE, CHUNK, DONE]), 1);
        let last = stream(&[CHUNK, USAGE]);
        check_filter(&last, &stream(&[CHUNK]), 1);
    }
}

#[test]
fn a_stream_without_a_usage_chunk_passes_as_it_is() {
    let on_the_last = r#"data: {"choices":[{"index":0}],"usage":{"prompt_tokens":3}}"#;
    for stream in [
        format!("{CHUNK}\n\n{on_the_last}\n\n{DONE}\n\n"),
        format!("{CHUNK}\n\n{DONE}"),
        "data: {\"usage\":\n\n: x\r\r\n\ndata: \"usage\"\n\n".to_owned(),
        format!("{USAGE}\n"),
        "not an event stream".to_owned(),
    ] {
        check_filter(&stream, &stream, 0);
    }
}

#[test]
fn an_event_too_long_to_be_the_usage_chunk_is_not_held() {
    let long = format!(
        "data: {}",
        "x".repeat(usage_of_streams::USAGE_CHUNK_BYTES_MAX)
    );
    let stream = format!("{CHUNK}\n\n{long}\n\n{USAGE}\n\n{DONE}\n\n");
    let expected = (format!("{CHUNK}\n\n{long}\n\n{DONE}\n\n"), 1);
    for size in [1, 1000, 100_000, stream.len()] {
        assert_eq!(filtered(stream.as_bytes(), &[size]), expected, "{size}");
    }
    let mut filter = UsageChunkFilter::new();
    let mut passed = 0;
    filter.push(long.as_bytes(), |piece| {
        if let Piece::Now(range) = piece {
            passed += range.len();
        }
    });
    assert_eq!(passed, long.len());
}

#[test]
fn complete_events_are_passed_on_at_once() {
    let mut filter = UsageChunkFilter::new();
    for event in [format!("{CHUNK}\n\n"), format!("{AZURE}\r\n\r\n")] {
        filter.push(event.as_bytes(), |piece| {
            assert_eq!(piece, Piece::Now(0..event.len()));
        });
        assert_eq!(filter.removed(), 0);
    }
}
