//! The text of a JSON string, with the way back to its bytes.
//!
//! Rules look at text; edits are made of bytes. Between two escapes both run in step, so it is enough
//! to keep where each escape ends on either side.

use std::borrow::Cow;
use std::ops::Range;

/// A text and where it came from.
#[derive(Debug)]
pub(super) struct Decoded<'a> {
    pub(super) text: Cow<'a, str>,
    /// Where the string's first character is in the body.
    start: usize,
    /// Behind each escape: the place in the text, and in the string without its quotes.
    escapes: Vec<(usize, usize)>,
}

impl<'a> Decoded<'a> {
    /// Decodes the string in `range` of `body`, quotes included in the range; nothing if it is not
    /// a valid string.
    pub(super) fn new(body: &'a [u8], range: &Range<usize>) -> Option<Self> {
        let start = range.start.checked_add(1)?;
        let raw = body.get(start..range.end.checked_sub(1)?)?;
        let raw = std::str::from_utf8(raw).ok()?;
        let mut decoded = Self {
            text: Cow::Borrowed(raw),
            start,
            escapes: Vec::new(),
        };
        if memchr::memchr(b'\\', raw.as_bytes()).is_some() {
            decoded.unescape(raw)?;
        }
        Some(decoded)
    }

    /// Where a range of the text is in the body.
    pub(super) fn in_body(&self, range: &Range<usize>) -> Range<usize> {
        self.raw(range.start)..self.raw(range.end)
    }

    /// Where a range of the body is in the text.
    pub(super) fn in_text(&self, range: &Range<usize>) -> Range<usize> {
        self.cooked(range.start)..self.cooked(range.end)
    }

    fn cooked(&self, at: usize) -> usize {
        let at = at.saturating_sub(self.start);
        let behind = self.escapes.partition_point(|(_, raw)| *raw <= at);
        let last = behind
            .checked_sub(1)
            .and_then(|last| self.escapes.get(last));
        let (text, raw) = last.copied().unwrap_or_default();
        text.saturating_add(at.saturating_sub(raw))
    }

    fn raw(&self, at: usize) -> usize {
        let behind = self.escapes.partition_point(|(text, _)| *text <= at);
        let last = behind
            .checked_sub(1)
            .and_then(|last| self.escapes.get(last));
        let (text, raw) = last.copied().unwrap_or_default();
        self.start
            .saturating_add(raw)
            .saturating_add(at.saturating_sub(text))
    }

    fn unescape(&mut self, raw: &str) -> Option<()> {
        let mut text = String::with_capacity(raw.len());
        let mut at = 0_usize;
        while let Some(found) = memchr::memchr(b'\\', raw.get(at..)?.as_bytes()) {
            let escape = at.checked_add(found)?;
            text.push_str(raw.get(at..escape)?);
            let (character, length) = unescaped(raw.get(escape..)?)?;
            text.push(character);
            at = escape.checked_add(length)?;
            self.escapes.push((text.len(), at));
        }
        text.push_str(raw.get(at..)?);
        self.text = Cow::Owned(text);
        Some(())
    }
}

/// The character that an escape at the start of `raw` stands for, and the bytes that it takes (RFC
/// 8259 section 7).
fn unescaped(raw: &str) -> Option<(char, usize)> {
    let simple = |character| Some((character, 2));
    match raw.as_bytes().get(1)? {
        b'"' => simple('"'),
        b'\\' => simple('\\'),
        b'/' => simple('/'),
        b'b' => simple('\u{8}'),
        b'f' => simple('\u{c}'),
        b'n' => simple('\n'),
        b'r' => simple('\r'),
        b't' => simple('\t'),
        b'u' => {
            let first = unit(raw, 2)?;
            if let Some(character) = char::from_u32(u32::from(first)) {
                return Some((character, 6));
            }
            if raw.get(6..8)? != "\\u" {
                return None;
            }
            let pair = [first, unit(raw, 8)?];
            let character = char::decode_utf16(pair).next()?.ok()?;
            Some((character, 12))
        }
        _ => None,
    }
}

/// Four hexadecimal digits.
fn unit(raw: &str, at: usize) -> Option<u16> {
    let digits = raw.get(at..at.checked_add(4)?)?;
    let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| u16::from_str_radix(digits, 16).ok())?
}
