//! Where the parts of a JSON text are: byte ranges found in one pass, without building a tree.
//!
//! A [`Scanner`] stands before a value and either skips it or walks into it, so that each byte is
//! looked at once. It checks the whole structure of what it passes (RFC 8259: brackets, commas,
//! colons, literals, numbers) and rejects what `serde_json` rejects, with these exceptions:
//! *inside* strings it looks for nothing but the closing quote, so bad escapes, control characters
//! and invalid UTF-8 pass, and numbers may be too large for a machine. Whoever needs such a value
//! decodes the slice, and finds out then. What it misses on purpose keeps it several times faster
//! than a parse: long texts are passed at the speed of a search for one byte.
//!
//! Of members with the same key the last counts, as in the parsers of the providers: callers that
//! collect members in order get that by overwriting.

use std::borrow::Cow;
use std::ops::Range;

mod quote;
mod scanner;

pub use scanner::Scanner;

/// What kind of value stands somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// A value: what it is, and its bytes without surrounding white space (a string with its quotes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What it is.
    pub kind: Kind,
    /// Where it is in the scanned bytes.
    pub range: Range<usize>,
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where the key is, quotes excluded.
    pub key: Range<usize>,
    /// The value.
    pub value: Value,
}

impl Member {
    /// Whether the key reads `name`, however it is escaped.
    #[must_use]
    pub fn is(&self, bytes: &[u8], name: &str) -> bool {
        let name = name.as_bytes();
        // An escape is longer than what it stands for, and one letter tells most keys apart.
        let may_be_escaped = |raw: &[u8]| {
            raw.len() > name.len() && (raw.first() == name.first() || raw.first() == Some(&b'\\'))
        };
        bytes.get(self.key.clone()).is_some_and(|raw| {
            raw == name || (may_be_escaped(raw) && is_escaped(raw) && *plain(raw) == *name)
        })
    }
}

/// The text breaks a rule of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed JSON at byte {at}: expected {expected}")]
pub struct Malformed {
    /// Where, in bytes from the start.
    pub at: usize,
    /// What should have been there.
    pub expected: &'static str,
}

/// How deep values may be nested, the outermost included. `serde_json` stops here as well.
pub const DEPTH_MAX: usize = 127;

/// The single value that `bytes` consist of, apart from white space.
///
/// # Errors
///
/// Where the bytes are not one well-formed value.
pub fn document(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut scanner = Scanner::new(bytes);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

/// The members of the object in `range` of `bytes`, in order, duplicates included.
///
/// # Errors
///
/// Where there is no well-formed object.
pub fn members(bytes: &[u8], range: Range<usize>) -> Result<Vec<Member>, Malformed> {
    members_of(&mut Scanner::within(bytes, range))
}

fn members_of(scanner: &mut Scanner<'_>) -> Result<Vec<Member>, Malformed> {
    let mut members = Vec::new();
    scanner.members(|scanner, key, _| {
        members.push(Member {
            key,
            value: scanner.value()?,
        });
        Ok::<(), Malformed>(())
    })?;
    Ok(members)
}

/// The members of the object that `bytes` consist of, apart from white space.
///
/// # Errors
///
/// Where the bytes are not one well-formed object.
pub fn whole_object(bytes: &[u8]) -> Result<Vec<Member>, Malformed> {
    let mut scanner = Scanner::new(bytes);
    let members = members_of(&mut scanner)?;
    scanner.end()?;
    Ok(members)
}

/// The elements of the array in `range` of `bytes`, in order.
///
/// # Errors
///
/// Where there is no well-formed array.
pub fn elements(bytes: &[u8], range: Range<usize>) -> Result<Vec<Value>, Malformed> {
    let mut elements = Vec::new();
    let mut scanner = Scanner::within(bytes, range);
    scanner.elements(|scanner| {
        elements.push(scanner.value()?);
        Ok::<(), Malformed>(())
    })?;
    Ok(elements)
}

/// The text of the string in `range` of `bytes`, quotes included in the range; nothing if that is
/// not a valid string.
#[must_use]
pub fn text(bytes: &[u8], range: Range<usize>) -> Option<String> {
    serde_json::from_slice(bytes.get(range)?).ok()
}

/// The whole number in `range` of `bytes`; nothing if that is not one, or it is negative.
#[must_use]
pub fn whole(bytes: &[u8], range: Range<usize>) -> Option<u64> {
    let text = bytes.get(range)?;
    let digit = |number: u64, byte: &u8| {
        let digit = byte.wrapping_sub(b'0');
        let is_digit = digit < 10;
        is_digit.then(|| number.wrapping_mul(10).wrapping_add(u64::from(digit)))
    };
    // What most are: no leading zero, and so few digits that they fit.
    match text {
        [b'1'..=b'9', ..] if text.len() <= SHORT_DIGITS => text.iter().try_fold(0, digit),
        _ => serde_json::from_slice(text).ok(),
    }
}

/// A whole number of so many digits fits into 64 bits.
const SHORT_DIGITS: usize = 19;

/// The text of a string that is a name, an id or the like; nothing if `value` is none, or is longer
/// than [`NAME_BYTES_MAX`].
#[must_use]
pub fn name(bytes: &[u8], value: &Value) -> Option<String> {
    let fits = value.kind == Kind::String && value.range.len() <= NAME_BYTES_MAX;
    fits.then(|| text(bytes, value.range.clone())).flatten()
}

/// The longest name that is read, in bytes of JSON: real ones are far below, and what is longer
/// would only fill records.
pub const NAME_BYTES_MAX: usize = 1024;

/// Whether there is an escape in a key. Eight bytes at a time: keys are short, and many.
fn is_escaped(raw: &[u8]) -> bool {
    let has = |word: &[u8; 8]| quote::has(u64::from_le_bytes(*word), quote::BACKSLASHES);
    match (raw.first_chunk(), raw.last_chunk()) {
        (Some(first), Some(last)) if raw.len() <= 16 => has(first) || has(last),
        _ => raw.contains(&b'\\'),
    }
}

/// The bytes between the quotes of a string as they read without escapes.
fn plain(raw: &[u8]) -> Cow<'_, [u8]> {
    if !is_escaped(raw) {
        return Cow::Borrowed(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(text) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(raw),
    }
}
