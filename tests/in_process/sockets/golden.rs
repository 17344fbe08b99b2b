//! Golden sockets: what both sides of a Responses socket say in turn, and what is recorded of it, however their
//! messages are cut into frames and compressed.
//!
//! A file of `golden` has a line for each message of the application (`>`) and of the provider (`<`), to the byte,
//! and one (`=`) for the record that has to be there by then. What a record does not name there is expected to be empty.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use weir::ledger::{Outcome, Record};
use weir::process::config::Config;

use super::{Compressed, DEFLATE, MASK, PING, RESPONSES, REST, TEXT, frame, open, opened, started};

/// How messages become frames.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Whole,
    /// In pieces of so many bytes, with a ping between them.
    Cut(usize),
    Compressed,
}

fn framed(text: &str, how: Framing, mask: Option<[u8; 4]>, side: &mut Compressed) -> Vec<u8> {
    let bytes = match how {
        Framing::Whole => return frame(TEXT, text.as_bytes(), true, false, mask),
        Framing::Compressed => return side.frame(text, mask),
        Framing::Cut(bytes) => bytes,
    };
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(bytes).collect();
    let mut frames = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let opcode = if index == 0 { TEXT } else { REST };
        let is_final = index + 1 == pieces.len();
        frames.extend(frame(opcode, piece, is_final, false, mask));
        frames.extend(frame(PING, b"?", true, false, mask));
    }
    frames
}

/// A record as it is written in a file.
fn shown(record: &Record) -> Value {
    let usage = record.usage.map(|usage| {
        let tokens = [
            ("input", usage.input),
            ("cache_read", usage.cache_read),
            ("cache_write", usage.cache_write),
            ("output", usage.output),
            ("reasoning", usage.reasoning),
        ];
        let used = tokens.into_iter().filter(|(_, tokens)| *tokens > 0);
        used.map(|(name, tokens)| (name.to_owned(), tokens.into()))
            .collect::<Map<String, Value>>()
    });
    let outcome = match &record.outcome {
        Outcome::Completed => "completed",
        Outcome::ProviderError => "provider_error",
        _ => "another",
    };
    let mut all = json!({
        "model": record.model_requested,
        "answered": record.model_answered,
        "outcome": outcome,
        "usage": usage,
        "nanos": record.cost.spent().nanos(),
        "cache": record.cache_outcome,
        "reason": record.cache_reason,
        "where": record.cache_where,
        "rule": record.cache_rule,
        "missed": record.missed.map(|missed| missed.nanos()),
        "session": record.session,
        "reasons": record.reasons,
    });
    let members = all.as_object_mut().unwrap();
    members.retain(|_, value| !(value.is_null() || *value == json!([])));
    all
}

/// Replays a file, and gives how many records it has.
async fn replay(name: &str, text: &str, how: Framing) -> usize {
    let (server, world) = started(Config::default()).await;
    let extensions = match how {
        Framing::Compressed => DEFLATE,
        Framing::Whole | Framing::Cut(_) => "",
    };
    let mut socket = open(&world, &server, RESPONSES, extensions).await;
    opened(&world).await;
    let (mut up, mut down) = (Compressed::new(), Compressed::new());
    let mut records = 0;
    for line in text.lines() {
        let (mark, rest) = line.split_at(2);
        match mark {
            "> " => socket.up(&framed(rest, how, MASK, &mut up)).await,
            "< " => socket.down(&framed(rest, how, None, &mut down)).await,
            "= " => {
                let record = world.record().await;
                let expected: Value = serde_json::from_str(rest).unwrap();
                assert_eq!(shown(&record), expected, "{name}, {how:?}");
                assert_eq!((record.api.as_str(), record.stream), ("responses", true));
                records += 1;
            }
            _ => assert_eq!(mark, "# ", "{name}"),
        }
    }
    world.no_more_records().await;
    records
}

#[tokio::test]
async fn what_is_said_in_a_socket_passes_and_is_recorded_however_it_is_framed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("in_process/sockets/golden");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for how in [
            Framing::Whole,
            Framing::Cut(1),
            Framing::Cut(50),
            Framing::Compressed,
        ] {
            let records = Box::pin(replay(name, &text, how)).await;
            assert!(records > 0, "{name}");
        }
        files += 1;
    }
    assert!(files >= 10, "{files} files");
}
