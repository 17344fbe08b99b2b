//! However a binary stream is cut, the same messages come out and the answer is the same; and with
//! sound checksums whatever is inside is read or passed over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_core::answer::{AnswerReader, Form};
use weir_core::api::Api;
use weir_core::frames::FrameParser;

const FRAME_BYTES_MAX: usize = 4096;

fn frames(chunks: &[&[u8]]) -> (Vec<(bool, Vec<u8>, Vec<u8>)>, u64) {
    let mut parser = FrameParser::new(FRAME_BYTES_MAX);
    let mut found = Vec::new();
    for chunk in chunks {
        parser.push(chunk, |frame| {
            found.push((frame.is_exception, frame.name.to_vec(), frame.payload.to_vec()));
        });
    }
    (found, parser.skipped())
}

/// A message with these headers and this payload, and checksums that are right.
fn sound(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = u32::try_from(16 + headers.len() + payload.len()).expect("inputs are short");
    let mut bytes = total.to_be_bytes().to_vec();
    let headers_bytes = u32::try_from(headers.len()).expect("inputs are short");
    bytes.extend_from_slice(&headers_bytes.to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fuzz_target!(|input: (Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>, u16)| {
    let (messages, rest, at) = input;
    let mut bytes: Vec<u8> =
        messages.iter().flat_map(|(headers, payload)| sound(headers, payload)).collect();
    bytes.extend_from_slice(&rest);
    let (one, two) = bytes.split_at(usize::from(at).min(bytes.len()));
    assert_eq!(frames(&[&bytes]), frames(&[one, two]));
    for api in [Api::Converse, Api::InvokeModel] {
        let read = |chunks: &[&[u8]]| {
            let mut reader = AnswerReader::new(api, Form::Frames);
            chunks.iter().for_each(|chunk| reader.push(chunk));
            reader.finish()
        };
        assert_eq!(read(&[&bytes]), read(&[one, two]));
    }
});
