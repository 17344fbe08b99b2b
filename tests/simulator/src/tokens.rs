//! The simulated providers' tokenizer: four bytes of UTF-8 are a token, and every non-empty segment is at least one.
//!
//! Real tokenizers differ from model to model and are not published. This one is linear and predictable, so that a test
//! can say beforehand what a prompt costs. A segment is a text, or anything else in its compact JSON; an image or a
//! document is [`MEDIA`] tokens whatever its size, because its bytes say nothing about what it costs.

/// Tokens of a text: its bytes divided by four, rounded up.
#[must_use]
pub const fn count(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_PER_TOKEN as u64)
}

/// A text of exactly `tokens` tokens, made of four-byte words; each call with the same `offset` gives the same text.
///
/// Among the words are two-byte and four-byte characters, quotes and line ends, so that escapes and characters cut in
/// two by chunking are met in every longer answer.
#[must_use]
pub fn prose(tokens: u64, offset: u64) -> String {
    (offset..offset + tokens)
        .map(|index| {
            let index = usize::try_from(index).unwrap_or_default();
            WORDS.get(index % WORDS.len()).copied().unwrap_or("the ")
        })
        .collect()
}

/// Bytes of UTF-8 in a token.
pub(crate) const BYTES_PER_TOKEN: usize = 4;

/// Tokens of an image or a document.
pub const MEDIA: u64 = 1500;

const WORDS: [&str; 24] = [
    "the ", "low ", "dam ", "né ", "set ", "one ", "🌊", "\"a\" ", "ran ", "far ", "and ", "\nso ",
    "old ", "man ", "was ", "not ", "wet ", "yet ", "his ", "hat ", "had ", "any ", "dry ", "bit.",
];

#[cfg(test)]
mod tests {
    use super::{WORDS, count, prose};

    #[test]
    fn prose_has_exactly_the_tokens_that_were_asked_for_however_it_is_cut() {
        assert!(WORDS.iter().all(|word| word.len() == 4), "{WORDS:?}");
        for tokens in [0, 1, 23, 24, 25, 1000] {
            assert_eq!(count(&prose(tokens, 0)), tokens);
            assert_eq!(prose(tokens, 0) + &prose(7, tokens), prose(tokens + 7, 0));
        }
        assert_eq!(
            (count(""), count("a"), count("abcd"), count("abcde")),
            (0, 1, 1, 2)
        );
    }
}
