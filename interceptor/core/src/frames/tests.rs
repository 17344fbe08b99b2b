//! Binary streams, whole and cut, sound and broken.

use super::*;

/// A message as a provider sends it. Headers are strings.
fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).unwrap());
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    raw(&head, payload)
}

fn raw(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let around = [0_u8; 16];
    let total = [&around[..], headers, payload].concat().len();
    let total = u32::try_from(total).unwrap();
    let mut bytes = total.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn event(name: &str, payload: &[u8]) -> Vec<u8> {
    message(
        &[(":message-type", "event"), (":event-type", name)],
        payload,
    )
}

type Seen = (bool, String, Vec<u8>);

fn seen(pieces: &[&[u8]], frame_bytes_max: usize) -> (Vec<Seen>, u64) {
    let mut parser = FrameParser::new(frame_bytes_max);
    let mut seen = Vec::new();
    for piece in pieces {
        parser.push(piece, |frame| {
            let name = String::from_utf8(frame.name.to_vec()).unwrap();
            seen.push((frame.is_exception, name, frame.payload.to_vec()));
        });
    }
    (seen, parser.skipped())
}

fn stream() -> Vec<u8> {
    let exception = [
        (":exception-type", "throttlingException"),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    [
        event("messageStart", b"{}"),
        event("empty", b""),
        message(&exception, br#"{"message":"slow down"}"#),
    ]
    .concat()
}

#[test]
fn messages_are_the_same_however_they_are_cut() {
    let stream = stream();
    let expected = vec![
        (false, "messageStart".to_owned(), b"{}".to_vec()),
        (false, "empty".to_owned(), Vec::new()),
        (
            true,
            "throttlingException".to_owned(),
            br#"{"message":"slow down"}"#.to_vec(),
        ),
    ];
    assert_eq!(seen(&[&stream], 1024), (expected.clone(), 0));
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(seen(&bytes, 1024), (expected.clone(), 0));
    for at in 0..=stream.len() {
        for other in at..=stream.len() {
            let pieces = [&stream[..at], &stream[at..other], &stream[other..]];
            assert_eq!(seen(&pieces, 1024), (expected.clone(), 0), "{at} {other}");
        }
    }
}

#[test]
fn a_message_beyond_the_bound_is_passed_over_and_the_stream_goes_on() {
    let stream = [event("long", &[b'x'; 200]), event("next", b"{}")].concat();
    let expected = (vec![(false, "next".to_owned(), b"{}".to_vec())], 1);
    for at in 0..=stream.len() {
        let (one, two) = stream.split_at(at);
        assert_eq!(seen(&[one, two], 128), expected, "{at}");
    }
}

/// CRC-32 finds every burst of up to 32 bits: no changed byte goes unnoticed.
#[test]
fn no_broken_byte_is_read() {
    let first = event("first", b"{\"a\":1}");
    let stream = [first.clone(), event("next", b"{}")].concat();
    let whole = seen(&[&stream], 1024).0;
    for at in 0..first.len() {
        let mut broken = stream.clone();
        broken[at] ^= 0x20;
        let (found, skipped) = seen(&[&broken], 1024);
        // In the prelude: nothing more. Behind it: only this message is lost.
        let expected = if at < 12 { &[][..] } else { &whole[1..] };
        assert_eq!((found.as_slice(), skipped), (expected, 1), "{at}");
    }
}

#[test]
fn headers_of_every_type_are_passed() {
    let mut headers = Vec::new();
    for (kind, value) in [
        (0_u8, &b""[..]),
        (1, b""),
        (2, b"1"),
        (3, b"12"),
        (4, b"1234"),
        (5, b"12345678"),
        (6, b"\0\x02ab"),
        (8, b"12345678"),
        (9, b"1234567812345678"),
    ] {
        headers.extend_from_slice(b"\x01x");
        headers.push(kind);
        headers.extend_from_slice(value);
    }
    headers.extend_from_slice(b"\x0b:event-type\x07\0\x04last");
    let (found, skipped) = seen(&[&raw(&headers, b"p")], 1024);
    assert_eq!((found.len(), skipped), (1, 0));
    assert_eq!(found[0].1, "last");
    // An unknown type has an unknown length.
    for bad in [&b"\x01x\x0a"[..], b"\x05x", b"\x01x\x07\0\x09abc", b"\x01x"] {
        assert_eq!(seen(&[&raw(bad, b"p")], 1024), (vec![], 1), "{bad:?}");
    }
}

#[test]
fn lengths_that_cannot_be_end_the_reading() {
    let mut short = 15_u32.to_be_bytes().to_vec();
    short.extend_from_slice(&0_u32.to_be_bytes());
    short.extend_from_slice(&crc32fast::hash(&short).to_be_bytes());
    let mut headers = 20_u32.to_be_bytes().to_vec();
    headers.extend_from_slice(&5_u32.to_be_bytes());
    headers.extend_from_slice(&crc32fast::hash(&headers).to_be_bytes());
    for bad in [short, headers] {
        let stream = [bad, stream()].concat();
        assert_eq!(seen(&[&stream], 1024), (vec![], 1));
    }
    assert_eq!(seen(&[b"data: {}\n\ndata: {}\n\n"], 1024), (vec![], 1));
}
