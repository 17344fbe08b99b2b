//! Messages are the same however the bytes are cut, masked, fragmented and compressed.

use flate2::{Compress, Compression, FlushCompress};

use super::made::{MASK, PING, REST, TEXT, frame};
use super::*;

const MESSAGE_BYTES_MAX: usize = 1 << 20;

fn of_client(message_bytes_max: usize, inflate: Option<Inflate>) -> Frames {
    Frames::new(Sender::Client, message_bytes_max, inflate)
}

/// What was read of `bytes`, pushed in pieces of `size`; and what kind each byte was of.
fn read(frames: &mut Frames, bytes: &[u8], size: usize) -> (Vec<Content>, String) {
    let (mut contents, mut kinds) = (Vec::new(), String::new());
    for chunk in bytes.chunks(size) {
        let mut at = 0;
        while at < chunk.len() {
            let (piece, count) = frames.next(&chunk[at..]);
            assert!(count > 0, "{piece:?}");
            at += count;
            let kind = match piece {
                Piece::Message => "m",
                Piece::Control => "c",
                Piece::Unread => "u",
                Piece::End(content) => {
                    contents.push(content);
                    "m"
                }
            };
            kinds.push_str(&kind.repeat(count));
        }
    }
    (contents, kinds)
}

fn messages(sender: Sender, bytes: &[u8], size: usize, inflate: Option<Inflate>) -> Vec<String> {
    let mut frames = Frames::new(sender, MESSAGE_BYTES_MAX, inflate);
    let (contents, _) = read(&mut frames, bytes, size);
    assert_eq!(frames.broken(), None);
    assert!(frames.is_between_messages());
    contents
        .into_iter()
        .map(|content| match content {
            Content::Message(bytes) => String::from_utf8(bytes).unwrap(),
            Content::TooLong => "too long".to_owned(),
        })
        .collect()
}

#[test]
fn messages_are_found_however_they_are_cut() {
    let [medium, long] = [300, 70_000].map(|length| "x".repeat(length));
    for (sender, mask) in [(Sender::Server, None), (Sender::Client, MASK)] {
        let bytes = [
            frame(TEXT, b"one", true, false, mask),
            frame(TEXT, b"", true, false, mask),
            frame(TEXT, b"in ", false, false, mask),
            frame(PING, b"are you there?", true, false, mask),
            frame(REST, b"", false, false, mask),
            frame(REST, b"pieces", true, false, mask),
            frame(TEXT, medium.as_bytes(), true, false, mask),
        ]
        .concat();
        for size in 1..bytes.len() {
            let expected = ["one", "", "in pieces", medium.as_str()];
            assert_eq!(messages(sender, &bytes, size, None), expected, "{size}");
        }
        let bytes = frame(TEXT, long.as_bytes(), true, false, mask);
        assert_eq!(messages(sender, &bytes, 1000, None), [long.as_str()]);
    }
}

#[test]
fn every_byte_is_of_a_message_or_of_a_control_frame() {
    let begun = frame(TEXT, b"in ", false, false, MASK);
    let ping = frame(PING, b"?", true, false, MASK);
    let rest = frame(REST, b"pieces", true, false, MASK);
    let bytes = [begun.clone(), ping.clone(), rest.clone(), ping.clone()].concat();
    let expected = [
        ("m", begun.len()),
        ("c", ping.len()),
        ("m", rest.len()),
        ("c", ping.len()),
    ]
    .map(|(kind, count)| kind.repeat(count))
    .concat();
    for size in 1..=bytes.len() {
        let (_, kinds) = read(&mut of_client(MESSAGE_BYTES_MAX, None), &bytes, size);
        assert_eq!(kinds, expected, "{size}");
    }
}

/// `messages` as one side compresses them.
fn compressed(messages: &[&str], starts_afresh: bool) -> Vec<u8> {
    let mut compress = Compress::new(Compression::fast(), false);
    let mut bytes = Vec::new();
    for message in messages {
        if starts_afresh {
            compress.reset();
        }
        let mut payload = Vec::with_capacity(message.len() + 1000);
        compress
            .compress_vec(message.as_bytes(), &mut payload, FlushCompress::Sync)
            .unwrap();
        let payload = payload.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
        let (begun, rest) = payload.split_at(payload.len() / 2);
        bytes.extend(frame(TEXT, begun, false, true, MASK));
        bytes.extend(frame(REST, rest, true, false, MASK));
    }
    bytes
}

#[test]
fn compressed_messages_are_read_with_and_without_what_came_before() {
    let long = "how high is the water? ".repeat(5000);
    let said = [
        r#"{"type":"response.create"}"#,
        "",
        long.as_str(),
        r#"{"type":"response.create"}"#,
    ];
    for starts_afresh in [false, true] {
        let bytes = compressed(&said, starts_afresh);
        for size in [1, 7, bytes.len()] {
            let inflate = Inflate::new(starts_afresh);
            let found = messages(Sender::Client, &bytes, size, Some(inflate));
            assert!(found == said, "{size}: {:?}", found.iter().map(String::len));
        }
    }
    // What is not compressed may stand between.
    let bytes = [
        frame(TEXT, b"plain", true, false, MASK),
        compressed(&["c"], false),
    ]
    .concat();
    assert_eq!(
        messages(Sender::Client, &bytes, 3, Some(Inflate::new(false))),
        ["plain", "c"]
    );
}

#[test]
fn a_message_beyond_the_bound_is_passed_over_and_the_next_is_read() {
    let bytes = [
        frame(TEXT, &[b'x'; 101], true, false, MASK),
        frame(TEXT, b"next", true, false, MASK),
    ]
    .concat();
    for size in 1..bytes.len() {
        let (contents, _) = read(&mut of_client(100, None), &bytes, size);
        assert_eq!(
            contents,
            [Content::TooLong, Content::Message(b"next".to_vec())]
        );
    }
}

#[test]
fn a_compressed_message_beyond_the_bound_ends_the_reading() {
    let mut frames = of_client(100, Some(Inflate::new(false)));
    let bytes = compressed(&[&"x".repeat(101), "next"], false);
    let (contents, kinds) = read(&mut frames, &bytes, 5);
    assert_eq!(contents, [Content::TooLong]);
    assert!(kinds.ends_with('u'), "{kinds}");
    assert_eq!(frames.broken(), Some(Broken::Compression));
}

#[test]
fn what_is_no_frame_ends_the_reading_and_takes_every_byte() {
    let text = |mask| frame(TEXT, b"x", true, false, mask);
    let begun = frame(TEXT, b"x", false, false, None);
    let (client, server) = (Sender::Client, Sender::Server);
    let broken = [
        ("not a frame", client, b"GET / HTTP/1.1\r\n".to_vec()),
        ("an opcode that is none", client, vec![0x83, 0x80]),
        ("a reserved bit", server, vec![0xa1, 0]),
        (
            "compressed without agreement",
            server,
            frame(TEXT, b"x", true, true, None),
        ),
        (
            "the rest of nothing",
            server,
            frame(REST, b"x", true, false, None),
        ),
        (
            "a message inside another",
            server,
            [begun, text(None)].concat(),
        ),
        ("a client that does not mask", client, text(None)),
        ("a server that does", server, text(MASK)),
        (
            "a ping that is not masked",
            client,
            frame(PING, b"?", true, false, None),
        ),
        // Nothing is waited for that makes no difference.
        (
            "a header of which more is to come",
            client,
            vec![0x81, 0x7e],
        ),
        ("a first byte", client, vec![0x87]),
    ];
    for (what, sender, bytes) in broken {
        for size in 1..=bytes.len() {
            let mut frames = Frames::new(sender, MESSAGE_BYTES_MAX, None);
            let (contents, kinds) = read(&mut frames, &bytes, size);
            assert_eq!(contents, [], "{what}");
            assert_eq!(kinds.len(), bytes.len(), "{what}");
            assert_eq!(frames.broken(), Some(Broken::Framing), "{what}");
            assert!(!frames.is_between_messages());
        }
    }
}
