//! Binary streams from a text that names their messages: one by line, `:name payload`, where the
//! payload is JSON; `:name <event` for an event in base64 inside a chunk; `!name payload` for an
//! exception.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The stream that a text describes.
pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().flat_map(message).collect()
}

fn message(line: &str) -> Vec<u8> {
    let (kind, rest) = line.split_at(1);
    let (name, payload) = rest.split_once(' ').unwrap();
    let payload = match payload.strip_prefix('<') {
        Some(event) => format!(
            r#"{{"bytes":"{}","p":"abcdefgh"}}"#,
            BASE64_STANDARD.encode(event)
        ),
        None => payload.to_owned(),
    };
    let (message_type, named) = match kind {
        ":" => ("event", ":event-type"),
        "!" => ("exception", ":exception-type"),
        other => panic!("expected `:` or `!`, found {other}"),
    };
    let mut headers = Vec::new();
    for (header, value) in [
        (named, name),
        (":content-type", "application/json"),
        (":message-type", message_type),
    ] {
        headers.push(u8::try_from(header.len()).unwrap());
        headers.extend_from_slice(header.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = u32::try_from(headers.len() + payload.len() + 16).unwrap();
    let mut bytes = total.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(&headers);
    bytes.extend_from_slice(payload.as_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}
