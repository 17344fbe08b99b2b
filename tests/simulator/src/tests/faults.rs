//! Stage directions, each over HTTP/1.1 and HTTP/2.

use std::io::Read as _;
use std::time::{Duration, Instant};

use http::Version;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{APIS, BOTH, Path, Read, connect, say, start};
use crate::Simulator;

/// What the whole stream would have been.
async fn whole(simulator: &Simulator, version: Version, path: Path) -> usize {
    say(simulator, version, path, "x", true)
        .await
        .read()
        .await
        .events()
        .len()
}

fn terminal(path: Path) -> &'static [u8] {
    match path.0 {
        "/v1/messages" => b"event: message_stop",
        "/v1/chat/completions" => b"data: [DONE]",
        _ => b"event: response.completed",
    }
}

fn has_terminal(read: &Read, path: Path) -> bool {
    read.bytes
        .windows(terminal(path).len())
        .any(|window| window == terminal(path))
}

#[tokio::test]
async fn a_reset_comes_after_exactly_the_events_asked_for() {
    let simulator = start();
    for version in BOTH {
        for path in APIS {
            for after in [0, 1, 4] {
                let text = format!("[[sim: reset_after={after}]]");
                let read = say(&simulator, version, path, &text, true)
                    .await
                    .read()
                    .await;
                assert!(read.failed, "{version:?} {path:?} {after}");
                assert_eq!(read.events().len(), after, "{version:?} {path:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_over_http1_is_a_reset_of_the_connection() {
    let simulator = start();
    let mut tls = connect(&simulator, "api.openai.com", &[b"http/1.1"]).await;
    let body = APIS[1].body("[[sim: reset_after=3]]", true);
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\nauthorization: Bearer k\r\n\
         content-length: {length}\r\n\r\n"
    );
    tls.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let error = tls.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(
        String::from_utf8(answer)
            .unwrap()
            .matches("data: {")
            .count(),
        3
    );
}

#[tokio::test]
async fn a_stalled_stream_stays_open_and_bills_what_was_sent() {
    let simulator = start();
    for version in BOTH {
        for path in APIS {
            let text = "[[sim: tokens=100 events=10 stall_after=7]]";
            let mut answer = say(&simulator, version, path, text, true).await;
            assert_eq!(answer.read_events(7).await.len(), 7);
            let more = tokio::time::timeout(Duration::from_millis(20), answer.read_events(1)).await;
            more.expect_err("nothing comes any more");
            let sent_before_text = match path.0 {
                "/v1/messages" => 3,
                "/v1/chat/completions" => 1,
                _ => 4,
            };
            let line = simulator.bill().pop().unwrap();
            assert_eq!(
                line.usage.output,
                (7 - sent_before_text) * 10,
                "{version:?} {path:?}"
            );
            assert!(line.nanodollars > 0 && line.usage.prompt() > 0);
        }
    }
}

#[tokio::test]
async fn a_truncated_stream_ends_without_its_last_event() {
    let simulator = start();
    for version in BOTH {
        for path in APIS {
            let all = whole(&simulator, version, path).await;
            let read = say(&simulator, version, path, "[[sim: truncate]]", true)
                .await
                .read()
                .await;
            assert!(
                !read.failed && !has_terminal(&read, path),
                "{version:?} {path:?}"
            );
            assert_eq!(read.events().len(), all - 1);
            let plain = say(&simulator, version, path, "[[sim: truncate]]", false)
                .await
                .read()
                .await;
            assert!(!plain.failed);
            crate::json::Json::parse(&plain.bytes).unwrap_err();
        }
    }
}

#[tokio::test]
async fn an_error_in_the_middle_is_the_last_event() {
    let simulator = start();
    for version in BOTH {
        for path in APIS {
            let read = say(&simulator, version, path, "[[sim: error_after=4]]", true).await;
            assert_eq!(read.status, 200);
            let events = read.read().await.events();
            assert_eq!(events.len(), 5, "{path:?}");
            let (name, data) = events.last().unwrap();
            let data = data.as_ref().unwrap();
            let found = match path.0 {
                "/v1/messages" => (name.as_str(), data.at(&["error", "type"]).unwrap().as_str()),
                "/v1/chat/completions" => ("error", data.at(&["error", "type"]).unwrap().as_str()),
                _ => (name.as_str(), data.text("code")),
            };
            let kind = if path == APIS[0] {
                "overloaded_error"
            } else {
                "server_error"
            };
            assert_eq!(found, ("error", Some(kind)));
        }
    }
}

#[tokio::test]
async fn a_length_that_is_a_lie_breaks_the_body_off() {
    let simulator = start();
    for version in BOTH {
        for path in APIS {
            for stream in [false, true] {
                let answer = say(
                    &simulator,
                    version,
                    path,
                    "[[sim: lie_content_length]]",
                    stream,
                )
                .await;
                let length: usize = answer.header("content-length").parse().unwrap();
                let read = answer.read().await;
                assert!(read.failed, "{version:?} {path:?}");
                assert_eq!(read.bytes.len(), length - 1);
            }
        }
    }
}

#[tokio::test]
async fn a_malformed_answer_is_not_json() {
    let simulator = start();
    for version in BOTH {
        for path in APIS {
            let text = "[[sim: malformed]]";
            let events = say(&simulator, version, path, text, true)
                .await
                .read()
                .await
                .events();
            let broken: Vec<usize> = (0..events.len())
                .filter(|i| events[*i].1.is_none())
                .collect();
            assert_eq!(broken[0], 3, "{path:?}");
            assert_eq!(events.len(), whole(&simulator, version, path).await);
            let plain = say(&simulator, version, path, text, false)
                .await
                .read()
                .await;
            crate::json::Json::parse(&plain.bytes).unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_status_is_answered_as_directed() {
    let simulator = start();
    for version in BOTH {
        for path in APIS {
            for (status, kinds) in [
                (529, ["overloaded_error", "server_error", "server_error"]),
                (429, ["rate_limit_error", "requests", "requests"]),
            ] {
                let text = format!("[[sim: status={status} retry_after=7]]");
                let answer = say(&simulator, version, path, &text, true).await;
                assert_eq!(answer.status, status);
                assert_eq!(answer.header("retry-after"), "7");
                let error = answer.read().await.json();
                let index = APIS.iter().position(|api| *api == path).unwrap();
                assert_eq!(
                    error.at(&["error", "type"]).unwrap().as_str(),
                    Some(kinds[index])
                );
                assert_eq!(simulator.bill().pop().unwrap().status, status);
            }
        }
    }
    assert_eq!(simulator.total_nanodollars(), 0);
}

#[tokio::test]
async fn encoded_answers_decode_to_the_plain_ones() {
    let simulator = start();
    for (token, stream) in ["gzip", "br", "zstd", "deflate"]
        .into_iter()
        .flat_map(|token| [(token, false), (token, true)])
    {
        for (version, path) in BOTH.into_iter().zip(APIS) {
            let text = format!("[[sim: tokens=3000 events=40 {token}]]");
            let answer = say(&simulator, version, path, &text, stream).await;
            assert_eq!(answer.header("content-encoding"), token);
            let encoded = answer.read().await.bytes;
            let mut decoded = String::new();
            match token {
                "gzip" => flate2::read::GzDecoder::new(&encoded[..]).read_to_string(&mut decoded),
                "deflate" => {
                    flate2::read::ZlibDecoder::new(&encoded[..]).read_to_string(&mut decoded)
                }
                "br" => brotli::Decompressor::new(&encoded[..], 4096).read_to_string(&mut decoded),
                _ => zstd::Decoder::new(&encoded[..])
                    .unwrap()
                    .read_to_string(&mut decoded),
            }
            .unwrap();
            assert!(
                decoded.contains("3000") && encoded.len() < decoded.len(),
                "{token}"
            );
            let ends = if stream {
                decoded.ends_with("\n\n")
            } else {
                decoded.ends_with('}')
            };
            assert!(ends, "{token} {decoded}");
        }
    }
}

#[tokio::test]
async fn encoded_requests_are_understood() {
    let simulator = start();
    let body = APIS[1].body("hello", false);
    let gzip = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(body.as_bytes(), 1).unwrap();
    for (token, encoded) in [("gzip", gzip), ("zstd", zstd)] {
        let headers = [("authorization", "Bearer k"), ("content-encoding", token)];
        let answer = super::client::send(
            &simulator,
            Version::HTTP_2,
            APIS[1],
            &headers,
            encoded.clone(),
        )
        .await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            simulator.received().pop().unwrap().body,
            encoded,
            "kept as it came"
        );
    }
}

#[tokio::test]
async fn events_keep_the_pace_and_plain_bodies_come_in_pieces() {
    let simulator = start();
    for version in BOTH {
        let begin = Instant::now();
        let text = "[[sim: tokens=8 events=8 delay_ms=4 start_ms=10]]";
        let read = say(&simulator, version, APIS[0], text, true)
            .await
            .read()
            .await;
        let least = Duration::from_millis(4) * u32::try_from(read.events().len()).unwrap();
        assert!(
            begin.elapsed() >= least + Duration::from_millis(10),
            "{:?}",
            begin.elapsed()
        );

        let text = "[[sim: events=4 reset_after=2]]";
        let whole = say(&simulator, version, APIS[0], "x", false)
            .await
            .read()
            .await
            .bytes
            .len();
        let read = say(&simulator, version, APIS[0], text, false)
            .await
            .read()
            .await;
        assert!(read.failed);
        assert_eq!(
            read.bytes.len(),
            whole.div_ceil(4) * 2,
            "half of the pieces"
        );
    }
}
