//! Stage directions: `[[sim: tokens=200 events=50 stall_after=3]]` in the last user message says how to answer.
//!
//! | direction | effect |
//! |---|---|
//! | `tokens=N` | the answer's text is N tokens |
//! | `events=N` | it is sent in N pieces |
//! | `think=N` | N tokens of thinking or reasoning come first |
//! | `tool=NAME` | the answer ends by calling that tool |
//! | `delay_ms=N` | wait before each event |
//! | `start_ms=N` | wait before the answer starts |
//! | `stall_after=N` | send nothing more after N events, and keep the connection open |
//! | `reset_after=N` | reset the connection (HTTP/2: the stream) after N events |
//! | `error_after=N` | an error event after N events, and the end |
//! | `truncate` | end without the terminal event; a plain body stops half way |
//! | `lie_content_length` | announce one byte more than is sent |
//! | `malformed` | the fourth event, or the body, is not JSON |
//! | `status=N` | refuse with that status, in the provider's shape |
//! | `retry_after=N` | seconds in the `retry-after` header of that refusal |
//! | `gzip` `br` `zstd` `deflate` | encode the body, whatever was accepted |
//!
//! Events are counted as they stand on the wire: for a stream each server-sent event, for a plain answer each of the
//! `events` pieces that its body is cut into. Unknown directions are ignored.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;

use crate::json::Json;

/// How to answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Directive {
    pub(crate) tokens: Option<u64>,
    pub(crate) events: Option<u64>,
    pub(crate) think: Option<u64>,
    pub(crate) tool: Option<String>,
    /// What that tool is called with: a text for a tool that takes one, else an object.
    pub(crate) input: Option<Json>,
    pub(crate) delay: Duration,
    pub(crate) start: Duration,
    pub(crate) stall_after: Option<usize>,
    pub(crate) reset_after: Option<usize>,
    pub(crate) error_after: Option<usize>,
    pub(crate) truncate: bool,
    pub(crate) lie_content_length: bool,
    pub(crate) malformed: bool,
    pub(crate) status: Option<u16>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) encoding: Option<Encoding>,
}

/// A content encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Brotli,
    Zstd,
    Deflate,
}

impl Encoding {
    pub(crate) fn named(token: &str) -> Option<Self> {
        Some(match token {
            "gzip" => Self::Gzip,
            "br" => Self::Brotli,
            "zstd" => Self::Zstd,
            "deflate" => Self::Deflate,
            _ => return None,
        })
    }

    /// The token of the `content-encoding` header.
    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }

    /// `encoded` decoded, if that is at most `bytes_max`.
    pub(crate) fn decode(self, encoded: &[u8], bytes_max: usize) -> io::Result<Bytes> {
        let reader: Box<dyn Read + '_> = match self {
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(encoded)),
            Self::Deflate => Box::new(flate2::read::ZlibDecoder::new(encoded)),
            Self::Brotli => Box::new(brotli::Decompressor::new(encoded, 4096)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(encoded)?),
        };
        let mut decoded = Vec::new();
        reader
            .take(bytes_max as u64 + 1)
            .read_to_end(&mut decoded)?;
        if decoded.len() > bytes_max {
            return Err(io::Error::other(format!(
                "more than {bytes_max} bytes when decoded"
            )));
        }
        Ok(decoded.into())
    }
}

impl Directive {
    /// The last direction in `text`, if there is one.
    pub(crate) fn find(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once("[[sim:")?;
        let (words, _) = rest.split_once("]]")?;
        let mut directive = Self::default();
        for word in words.split_whitespace() {
            directive.obey(word);
        }
        Some(directive)
    }

    fn obey(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let number = value.parse::<u64>().ok();
        let count = number.and_then(|n| usize::try_from(n).ok());
        match name {
            "tokens" => self.tokens = number.map(|n| n.min(TOKENS_MAX)),
            "events" => self.events = number,
            "think" => self.think = number.map(|n| n.min(TOKENS_MAX)),
            "tool" => self.tool = Some(value.to_owned()),
            "delay_ms" => self.delay = Duration::from_millis(number.unwrap_or_default()),
            "start_ms" => self.start = Duration::from_millis(number.unwrap_or_default()),
            "stall_after" => self.stall_after = count,
            "reset_after" => self.reset_after = count,
            "error_after" => self.error_after = count,
            "truncate" => self.truncate = true,
            "lie_content_length" => self.lie_content_length = true,
            "malformed" => self.malformed = true,
            "status" => self.status = value.parse().ok(),
            "retry_after" => self.retry_after = number,
            other => self.encoding = Encoding::named(other).or(self.encoding),
        }
    }
}

/// The longest answer there is.
const TOKENS_MAX: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::{Directive, Encoding};
    use std::time::Duration;

    #[test]
    fn the_last_direction_counts_and_unknown_words_do_not() {
        let text =
            "[[sim: tokens=1]] and [[sim: tokens=20 delay_ms=5 nonsense tool=Read br truncate]]!";
        let directive = Directive::find(text).unwrap();
        assert_eq!(
            directive,
            Directive {
                tokens: Some(20),
                delay: Duration::from_millis(5),
                tool: Some("Read".to_owned()),
                encoding: Some(Encoding::Brotli),
                truncate: true,
                ..Directive::default()
            }
        );
        assert_eq!(Directive::find("no directions, [[sim: not closed"), None);
        assert_eq!(
            Directive::find("[[sim: tokens=-3 status=abc]]"),
            Some(Directive::default())
        );
    }

    #[test]
    fn a_body_that_decodes_to_more_than_the_bound_is_refused() {
        let bomb = zstd::encode_all(&vec![0_u8; 100_000][..], 1).unwrap();
        assert_eq!(
            Encoding::Zstd.decode(&bomb, 100_000).unwrap().len(),
            100_000
        );
        Encoding::Zstd.decode(&bomb, 99_999).unwrap_err();
        for encoding in [
            Encoding::Gzip,
            Encoding::Deflate,
            Encoding::Brotli,
            Encoding::Zstd,
        ] {
            encoding.decode(b"not encoded at all", 1000).unwrap_err();
        }
    }
}
