//! Any bytes, cut anywhere, are classified the same way and never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parse::classify;

#[expect(
    dead_code,
    reason = "the rest of it is what connections are opened with"
)]
#[path = "../../../interceptor/src/client_hello/parse.rs"]
mod parse;

const BYTES_MAX: usize = 64 << 10;

fuzz_target!(|input: (Vec<u8>, u16)| {
    let (bytes, at) = input;
    let (one, two) = bytes.split_at(usize::from(at).min(bytes.len()));
    assert_eq!(
        classify([bytes.as_slice()], BYTES_MAX),
        classify([one, two], BYTES_MAX)
    );
});
