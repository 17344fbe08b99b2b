//! Any bytes, cut anywhere, are classified the same way and never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::client_hello::classify;

const BYTES_MAX: usize = 64 << 10;

fuzz_target!(|input: (Vec<u8>, u16)| {
    let (bytes, at) = input;
    let (one, two) = bytes.split_at(usize::from(at).min(bytes.len()));
    assert_eq!(classify([bytes.as_slice()], BYTES_MAX), classify([one, two], BYTES_MAX));
});
