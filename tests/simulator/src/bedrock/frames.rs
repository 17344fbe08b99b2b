//! The binary event stream of Amazon's services, as it is written.
//!
//! A message is: its length and that of its headers (4 bytes each, big-endian), the CRC-32 of these eight, headers,
//! payload, and the CRC-32 of all before.

use bytes::Bytes;

use crate::json::{Json, object};

/// An event of a stream.
pub(super) fn event(name: &str, payload: &Json) -> Bytes {
    message(
        &[
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload.to_string().as_bytes(),
    )
}

/// A failure in a stream that began well.
pub(super) fn exception(name: &str, text: &str) -> Bytes {
    message(
        &[
            (":exception-type", name),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        object! { "message": text }.to_string().as_bytes(),
    )
}

fn message(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.extend_from_slice(&length::<1>(name.len()));
        block.extend_from_slice(name.as_bytes());
        block.push(STRING);
        block.extend_from_slice(&length::<2>(value.len()));
        block.extend_from_slice(value.as_bytes());
    }
    let mut message = Vec::new();
    message.extend_from_slice(&length::<4>(16 + block.len() + payload.len()));
    message.extend_from_slice(&length::<4>(block.len()));
    seal(&mut message);
    message.extend_from_slice(&block);
    message.extend_from_slice(payload);
    seal(&mut message);
    message.into()
}

fn seal(message: &mut Vec<u8>) {
    message.extend_from_slice(&crc32fast::hash(message).to_be_bytes());
}

/// The last `N` bytes of a length: all there are, of what is written here.
fn length<const N: usize>(length: usize) -> [u8; N] {
    let bytes = (length as u64).to_be_bytes();
    bytes.last_chunk().copied().unwrap_or([0; N])
}

/// Type of a header whose value is a text.
const STRING: u8 = 7;

#[cfg(test)]
mod tests {
    use super::message;

    /// The messages that `botocore` tests its reader with.
    #[test]
    fn messages_are_written_as_the_published_ones() {
        let empty = b"\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2H\xeb}\x98\xc8\xff";
        assert_eq!(message(&[], b"").as_ref(), empty);
        let plain = b"\x00\x00\x00\x1d\x00\x00\x00\x00\xfdR\x8cZ{'foo':'bar'}\xc3e96";
        assert_eq!(message(&[], b"{'foo':'bar'}").as_ref(), plain);
        let with_header = b"\x00\x00\x00=\x00\x00\x00 \x07\xfd\x83\x96\x0ccontent-type\x07\x00\x10application/json\
            {'foo':'bar'}\x8d\x9c\x08\xb1";
        let header = [("content-type", "application/json")];
        assert_eq!(message(&header, b"{'foo':'bar'}").as_ref(), with_header);
    }
}
