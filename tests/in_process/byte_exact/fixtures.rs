//! Every call and answer that `core` is tested with, through the whole sidecar.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir::process::config::Config;
use weir_tests::{Api, World};

use super::post;
use crate::replay::Replay;

struct Case {
    name: String,
    api: Api,
    request: String,
    answer: String,
    stream: bool,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interceptor/core/tests/fixtures");
    let folders = ["anthropic", "openai-chat", "openai-responses"];
    let mut cases = Vec::new();
    for (folder, api) in folders.into_iter().zip(Api::ALL) {
        let found = fs::read_dir(root.join(folder)).unwrap();
        let mut found: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
        // Its record stays open: `later.rs` has such answers.
        found.retain(|path| !path.ends_with("in-the-background"));
        found.sort();
        cases.extend(found.into_iter().map(|path| {
            let stream = path.join("answer.sse");
            let answer = if stream.exists() {
                stream.clone()
            } else {
                path.join("answer.json")
            };
            Case {
                name: path.display().to_string(),
                api,
                request: fs::read_to_string(path.join("request.json")).unwrap(),
                answer: fs::read_to_string(answer).unwrap(),
                stream: stream.exists(),
            }
        }));
    }
    assert!(cases.len() > 40, "{} cases", cases.len());
    cases
}

/// Undoes the one edit that there is. This knows where the edit goes by the texts that it inserts.
fn unedited(body: &str) -> String {
    let whole = "\"stream_options\":{\"include_usage\":true},";
    body.replacen(whole, "", 1)
}

/// The stream without the chunk that was only asked for by Weir.
fn without_usage_chunk(stream: &str) -> String {
    let events = stream.split_inclusive("\n\n");
    let kept = events.filter(|event| {
        let data: Option<Value> = event
            .trim()
            .strip_prefix("data:")
            .and_then(|data| serde_json::from_str(data).ok());
        let is_usage = data.is_some_and(|data| {
            data["usage"].is_object() && data["choices"].as_array().is_some_and(Vec::is_empty)
        });
        !is_usage
    });
    kept.collect()
}

#[tokio::test]
async fn every_fixture_passes_unchanged_but_for_recorded_edits() {
    let server = Replay::start().await;
    let world = World::start(&[&server.ca_pem], Config::default());
    let mut edited = 0;
    for case in cases() {
        let mut client = world.http1(server.addr, case.api.host()).await;
        let content_type = if case.stream {
            "text/event-stream; charset=utf-8"
        } else {
            "application/json"
        };
        for cut in [7, 1000] {
            let request = post(case.api.path(), "", &case.request);
            let request = request.replace("api.anthropic.com", case.api.host());
            client.send(&request).await;
            let chunks: Vec<Vec<u8>> = case
                .answer
                .as_bytes()
                .chunks(cut)
                .map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
                .collect();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let answer = [head.as_bytes(), &chunks.concat(), b"0\r\n\r\n"].concat();
            let asked = server.answer(answer).await;
            let answered = client.message().await;
            let record = world.record().await;
            let name = &case.name;
            assert_eq!(answered.head, head, "{name}");
            let (body, answer) = (asked.body, String::from_utf8(answered.body).unwrap());
            let body = String::from_utf8(body).unwrap();
            if record.edits.is_empty() {
                assert_eq!(body, case.request, "{name}");
                assert_eq!(answer, case.answer, "{name}");
                let length = case.request.len();
                assert!(
                    asked
                        .head
                        .contains(&format!("content-length: {length}\r\n"))
                );
            } else {
                edited += 1;
                assert_eq!(record.edits.len(), 1, "{name}");
                assert_ne!(body, case.request, "{name}");
                assert_eq!(unedited(&body), case.request, "{name}");
                assert_eq!(answer, without_usage_chunk(&case.answer), "{name}");
            }
        }
    }
    assert!(edited > 0, "no fixture needs the edit");
    world.no_more_records().await;
}
