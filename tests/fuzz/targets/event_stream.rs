//! However a stream is cut, the answer is the same; and nothing but usage chunks is taken out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_core::answer::{AnswerReader, Form};
use weir_core::api::{Api, Later};
use weir_core::edit::{Piece, UsageChunkFilter};

fn filtered(chunks: &[&[u8]]) -> Vec<u8> {
    let mut filter = UsageChunkFilter::new();
    let mut kept = Vec::new();
    for chunk in chunks {
        filter.push(chunk, |piece| match piece {
            Piece::Held(bytes) => kept.extend_from_slice(bytes),
            Piece::Now(range) => kept.extend_from_slice(&chunk[range]),
        });
    }
    kept.extend(filter.finish());
    kept
}

fuzz_target!(|input: (Vec<u8>, u16)| {
    let (bytes, at) = input;
    let (one, two) = bytes.split_at(usize::from(at).min(bytes.len()));
    for api in Api::ALL {
        for form in [Form::EventStream, Form::Lines, Form::Plain] {
            let read = |chunks: &[&[u8]]| {
                let mut reader = AnswerReader::new(api, form);
                chunks.iter().for_each(|chunk| reader.push(chunk));
                reader.finish()
            };
            assert_eq!(read(&[&bytes]), read(&[one, two]));
        }
    }
    for later in [Later::MessageBatch, Later::File, Later::Response, Later::Generation] {
        let read = |chunks: &[&[u8]]| {
            let mut reader = AnswerReader::later(later, Some(Form::EventStream));
            chunks.iter().for_each(|chunk| reader.push(chunk));
            reader.finish()
        };
        assert_eq!(read(&[&bytes]), read(&[one, two]));
    }
    let whole = filtered(&[&bytes]);
    assert_eq!(whole, filtered(&[one, two]));
    assert!(whole.len() <= bytes.len());
});
