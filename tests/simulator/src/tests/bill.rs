//! The bill: it says what the answers say, and adds up.

use std::time::Duration;

use http::Version;

use super::client::{APIS, BOTH, Path, Read, say, send, start};
use crate::json::Json;
use crate::{Api, Clock, Options, Simulator, Usage};

/// The usage in an answer, in the buckets of the bill.
fn reported(path: Path, read: &Read, stream: bool) -> Usage {
    let (mut usage, mut output) = (Json::Null, Json::Null);
    let answers = if stream {
        read.events()
            .into_iter()
            .filter_map(|(_, data)| data)
            .collect()
    } else {
        vec![read.json()]
    };
    for answer in answers {
        let found = [
            &["usage"][..],
            &["message", "usage"],
            &["response", "usage"],
        ];
        for place in found
            .iter()
            .filter_map(|place| answer.at(place))
            .filter(|u| **u != Json::Null)
        {
            if usage == Json::Null || path.0 != "/v1/messages" {
                usage = place.clone();
            }
            output = place.clone();
        }
    }
    let number = |keys: &[&str]| usage.at(keys).and_then(Json::as_u64).unwrap_or_default();
    let last = |keys: &[&str]| output.at(keys).and_then(Json::as_u64).unwrap_or_default();
    match path.0 {
        "/v1/messages" => Usage {
            input_uncached: number(&["input_tokens"]),
            cache_read: number(&["cache_read_input_tokens"]),
            cache_write_short: number(&["cache_creation", "ephemeral_5m_input_tokens"]),
            cache_write_long: number(&["cache_creation", "ephemeral_1h_input_tokens"]),
            output: last(&["output_tokens"]),
            reasoning: last(&["output_tokens_details", "thinking_tokens"]),
        },
        _ => {
            let (input, output) = if path.0 == "/v1/responses" {
                ("input", "output")
            } else {
                ("prompt", "completion")
            };
            let details = |name: &str| number(&[&format!("{input}_tokens_details"), name]);
            let written = details("cache_write_tokens");
            let reasoning = [&format!("{output}_tokens_details"), "reasoning_tokens"];
            Usage {
                input_uncached: number(&[&format!("{input}_tokens")])
                    - details("cached_tokens")
                    - written,
                cache_read: details("cached_tokens"),
                cache_write_short: written,
                cache_write_long: 0,
                output: last(&[&format!("{output}_tokens")]),
                reasoning: last(&reasoning.map(|key| key as &str)),
            }
        }
    }
}

fn marked(path: Path, text: &str, stream: bool) -> String {
    let more = r#""cache_control":{"type":"ephemeral"},"thinking":{"type":"adaptive"}"#;
    let body = path.body(text, stream);
    if path == APIS[0] {
        body.replacen('{', &format!("{{{more},"), 1)
    } else {
        body
    }
}

#[tokio::test]
async fn every_answer_is_on_the_bill_with_the_usage_it_reports() {
    let simulator = start();
    let long = crate::tokens::prose(2000, 0);
    let headers = [
        ("authorization", "Bearer k"),
        ("anthropic-version", "2023-06-01"),
    ];
    let mut sum = 0;
    for version in BOTH {
        for path in APIS {
            for (stream, directions) in [
                (false, "tokens=50 think=20 tool=Read"),
                (true, "tokens=50 think=20 tool=Read"),
                (true, "tokens=1000 events=7 think=3"),
                (false, "tokens=0"),
            ] {
                let text = format!("{long}[[sim: {directions}]]");
                let answer = send(
                    &simulator,
                    version,
                    path,
                    &headers,
                    marked(path, &text, stream),
                )
                .await;
                let read = answer.read().await;
                let usage = reported(path, &read, stream);
                let line = simulator.bill().pop().unwrap();
                assert_eq!(line.usage, usage, "{path:?} {directions} stream: {stream}");
                assert!(usage.prompt() > 2000 && usage.reasoning <= usage.output);
                assert!(String::from_utf8_lossy(&read.bytes).contains(&line.id));
                assert_eq!((line.key.as_str(), line.status), ("k", 200));
                sum += line.nanodollars;
            }
        }
    }
    let bill = simulator.bill();
    assert_eq!(simulator.total_nanodollars(), sum);
    assert_eq!(bill.iter().map(|line| line.nanodollars).sum::<u64>(), sum);
    let read: Vec<Api> = bill
        .iter()
        .filter(|l| l.usage.cache_read > 0)
        .map(|l| l.api)
        .collect();
    for api in [Api::Messages, Api::ChatCompletions, Api::Responses] {
        assert!(read.contains(&api), "{api:?} has read its cache");
    }
}

#[tokio::test]
async fn a_known_call_costs_what_the_price_list_says() {
    let simulator = start();
    let text = crate::tokens::prose(1000, 0);
    say(&simulator, Version::HTTP_2, APIS[0], &text, true)
        .await
        .read()
        .await;
    let line = simulator.bill().pop().unwrap();
    assert_eq!((line.usage.input_uncached, line.usage.output), (1000, 24));
    assert_eq!(line.nanodollars, 1000 * 4000 + 24 * 20_000);
}

#[tokio::test]
async fn lifetimes_run_by_the_clock_that_was_injected() {
    let clock = Clock::manual(Duration::from_secs(1_790_000_000));
    let simulator = Simulator::start(Options {
        clock: clock.clone(),
        ..Options::default()
    })
    .unwrap();
    let text = crate::tokens::prose(600, 0);
    let headers = [
        ("authorization", "Bearer k"),
        ("anthropic-version", "2023-06-01"),
    ];
    for (minutes, read) in [(0, 0), (4, 600), (4, 600), (5, 0)] {
        clock.advance(Duration::from_mins(minutes));
        let body = marked(APIS[0], &text, false);
        send(&simulator, Version::HTTP_2, APIS[0], &headers, body)
            .await
            .read()
            .await;
        assert_eq!(
            simulator.bill().pop().unwrap().usage.cache_read,
            read,
            "{minutes} minutes later"
        );
    }
}

#[tokio::test]
async fn an_edited_history_is_refused_over_the_wire() {
    let simulator = start();
    let headers = [
        ("authorization", "Bearer k"),
        ("anthropic-version", "2023-06-01"),
    ];
    let body = |messages: &str| {
        format!(
            r#"{{"model":"claude-sonnet-5-5","max_tokens":900,"thinking":{{"type":"adaptive"}},"messages":[{messages}]}}"#
        )
    };
    let user = |text: &str| format!(r#"{{"role":"user","content":"{text}"}}"#);
    let post = async |messages: String| {
        send(
            &simulator,
            Version::HTTP_2,
            APIS[0],
            &headers,
            body(&messages),
        )
        .await
    };
    let answer = post(user("one")).await.read().await.json();
    let said = format!(
        r#"{{"role":"assistant","content":{}}}"#,
        answer.get("content").unwrap()
    );
    let (one, two, next) = (user("one"), user("two"), user("go on"));
    assert_eq!(post(format!("{one},{said},{next}")).await.status, 200);
    let refused = post(format!("{two},{said},{next}")).await;
    assert_eq!(refused.status, 400);
    let error = refused.read().await.json();
    assert!(
        error
            .at(&["error", "message"])
            .unwrap()
            .as_str()
            .unwrap()
            .contains("bound to a different conversation")
    );
}
