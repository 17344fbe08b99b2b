//! The search for the end of a string, which is where the time of a scan goes.

use memchr::memchr;

/// Where the quote is that ends the string whose text starts at `start`.
///
/// A quote ends the string unless an odd number of backslashes stands before it. Counting them
/// backwards from each quote leaves the search with one byte to look for, so that texts full of
/// `\n` do not stop it; no backslash is counted twice, as each run ends at its quote.
pub(super) fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut from = start;
    loop {
        let quote = from.wrapping_add(find_quote(bytes.get(from..)?)?);
        let before = bytes.get(start..quote).unwrap_or_default();
        let backslashes = before
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        if backslashes & 1 == 0 {
            return Some(quote);
        }
        from = quote.wrapping_add(1);
        from = from.wrapping_add(escaped_quotes(bytes, from));
    }
}

/// How many bytes from `at`, just behind an escaped quote, cannot hold the end of the string.
///
/// Where one quote is escaped more are near: source code, JSON in JSON. Stopping at each of them
/// costs more than to look at whole blocks for a quote that may be a real one, that is without a
/// backslash before it or with two. The loop inside is one that the compiler vectorises.
fn escaped_quotes(bytes: &[u8], at: usize) -> usize {
    let mut passed = 0_usize;
    let tail = |back: usize| bytes.get(at.checked_sub(back)?..);
    let (Some(mut now), Some(mut one), Some(mut two)) = (tail(0), tail(1), tail(2)) else {
        return 0;
    };
    while let (Some((block, rest)), Some((block_1, rest_1)), Some((block_2, rest_2))) = (
        now.split_first_chunk::<BLOCK_BYTES>(),
        one.split_first_chunk::<BLOCK_BYTES>(),
        two.split_first_chunk::<BLOCK_BYTES>(),
    ) {
        let mut found = false;
        for ((byte, before), twice) in block.iter().zip(block_1).zip(block_2) {
            found |= (*byte == b'"') & ((*before != b'\\') | (*twice == b'\\'));
        }
        if found {
            break;
        }
        (now, one, two) = (rest, rest_1, rest_2);
        passed = passed.wrapping_add(BLOCK_BYTES);
    }
    passed
}

/// Where the first quote is. Keys and short texts are looked through eight bytes at a time here,
/// which for them is faster than the call of a vectorised search.
#[inline]
fn find_quote(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let mut passed = 0_usize;
    while passed < SHORT_BYTES {
        let Some((word, tail)) = rest.split_first_chunk::<8>() else {
            break;
        };
        let zeros = marks(u64::from_le_bytes(*word), QUOTES);
        if zeros != 0 {
            let byte = usize::try_from(zeros.trailing_zeros() >> 3).unwrap_or_default();
            return Some(passed.wrapping_add(byte));
        }
        passed = passed.wrapping_add(8);
        rest = tail;
    }
    memchr(b'"', rest).map(|at| passed.wrapping_add(at))
}

/// Whether one of eight bytes is that of `repeated`.
#[inline]
pub(super) const fn has(word: u64, repeated: u64) -> bool {
    marks(word, repeated) != 0
}

/// The lowest bit set marks the first of eight bytes that is that of `repeated`: a classic of word-wise
/// search.
#[inline]
const fn marks(word: u64, repeated: u64) -> u64 {
    let differs = word ^ repeated;
    differs.wrapping_sub(LOWS) & !differs & HIGHS
}

/// How much is looked at in one go where quotes are escaped, in bytes.
const BLOCK_BYTES: usize = 64;

/// How far a string is searched word by word before the vectorised search takes over, in bytes.
const SHORT_BYTES: usize = 16;
const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
pub(super) const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
const LOWS: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
