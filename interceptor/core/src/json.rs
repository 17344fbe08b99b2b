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

use memchr::memchr;

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
        bytes
            .get(self.key.clone())
            .is_some_and(|raw| *plain(raw) == *name.as_bytes())
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
    let mut members = Vec::new();
    let mut scanner = Scanner::within(bytes, range);
    scanner.members(|scanner, key, _| {
        members.push(Member {
            key,
            value: scanner.value()?,
        });
        Ok::<(), Malformed>(())
    })?;
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
    serde_json::from_slice(bytes.get(range)?).ok()
}

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

/// The bytes between the quotes of a string as they read without escapes.
fn plain(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(text) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(raw),
    }
}

/// A position in a JSON text.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    /// Before the first value of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            depth: 0,
        }
    }

    /// Before the value at the start of `range`, blind to what is behind it.
    #[must_use]
    pub fn within(bytes: &'a [u8], range: Range<usize>) -> Self {
        Self {
            bytes: bytes.get(..range.end).unwrap_or(bytes),
            at: range.start,
            depth: 0,
        }
    }

    /// The position, in bytes from the start.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// What kind of value comes next. White space before it is passed.
    ///
    /// # Errors
    ///
    /// Where no value begins.
    pub fn kind(&mut self) -> Result<Kind, Malformed> {
        match self.significant() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            _ => Err(self.expected("a value")),
        }
    }

    /// Passes the next value.
    ///
    /// # Errors
    ///
    /// Where it is not well-formed.
    pub fn value(&mut self) -> Result<Value, Malformed> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Object | Kind::Array => self.skip_nested()?,
            scalar => self.skip_scalar(scalar)?,
        }
        Ok(Value {
            kind,
            range: start..self.at,
        })
    }

    /// Walks into the next value, an object: `each` is called with the scanner before the value of
    /// each member, the range of the key without quotes, and the key as it reads. A value that
    /// `each` leaves untouched is passed. Returns where the object is.
    ///
    /// # Errors
    ///
    /// Where there is no well-formed object, and what `each` returns.
    pub fn members<E: From<Malformed>>(
        &mut self,
        mut each: impl FnMut(&mut Self, Range<usize>, &[u8]) -> Result<(), E>,
    ) -> Result<Range<usize>, E> {
        let start = self.enter(b'{', "`{`")?;
        if self.take(b'}') {
            return Ok(self.leave(start));
        }
        loop {
            let key = self.key()?;
            let raw = self.bytes.get(key.clone()).unwrap_or_default();
            self.significant();
            let before = self.at;
            each(self, key, &plain(raw))?;
            if self.at == before {
                self.value()?;
            }
            if self.take(b'}') {
                return Ok(self.leave(start));
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `}`").into());
            }
        }
    }

    /// Walks into the next value, an array: `each` is called with the scanner before each element.
    /// An element that `each` leaves untouched is passed. Returns where the array is.
    ///
    /// # Errors
    ///
    /// Where there is no well-formed array, and what `each` returns.
    pub fn elements<E: From<Malformed>>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<Range<usize>, E> {
        let start = self.enter(b'[', "`[`")?;
        if self.take(b']') {
            return Ok(self.leave(start));
        }
        loop {
            self.significant();
            let before = self.at;
            each(self)?;
            if self.at == before {
                self.value()?;
            }
            if self.take(b']') {
                return Ok(self.leave(start));
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `]`").into());
            }
        }
    }

    /// Checks that nothing but white space is left.
    ///
    /// # Errors
    ///
    /// Where something is left.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match self.significant() {
            None => Ok(()),
            Some(_) => Err(self.expected("nothing after the value")),
        }
    }

    fn enter(&mut self, bracket: u8, expected: &'static str) -> Result<usize, Malformed> {
        self.significant();
        let start = self.at;
        if !self.take(bracket) {
            return Err(self.expected(expected));
        }
        self.depth = self.depth.saturating_add(1);
        if self.depth > DEPTH_MAX {
            return Err(Malformed {
                at: start,
                expected: TOO_DEEP,
            });
        }
        Ok(start)
    }

    fn leave(&mut self, start: usize) -> Range<usize> {
        self.depth = self.depth.saturating_sub(1);
        start..self.at
    }

    /// Passes an object or array with all that is inside, without recursion.
    fn skip_nested(&mut self) -> Result<(), Malformed> {
        let mut open = Open {
            kinds: 0,
            depth: self.depth,
        };
        'value: loop {
            match self.significant() {
                Some(b'"') => self.string()?,
                Some(b'{') => {
                    self.push(&mut open, Kind::Object)?;
                    if self.take(b'}') {
                        open.pop();
                    } else {
                        self.key()?;
                        continue 'value;
                    }
                }
                Some(b'[') => {
                    self.push(&mut open, Kind::Array)?;
                    if self.take(b']') {
                        open.pop();
                    } else {
                        continue 'value;
                    }
                }
                _ => {
                    let kind = self.kind()?;
                    self.skip_scalar(kind)?;
                }
            }
            while open.depth > self.depth {
                match (self.significant(), open.is_object()) {
                    (Some(b','), true) => {
                        self.advance();
                        self.key()?;
                        continue 'value;
                    }
                    (Some(b','), false) => {
                        self.advance();
                        continue 'value;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.advance();
                        open.pop();
                    }
                    (_, true) => return Err(self.expected("`,` or `}`")),
                    (_, false) => return Err(self.expected("`,` or `]`")),
                }
            }
            return Ok(());
        }
    }

    fn push(&mut self, open: &mut Open, kind: Kind) -> Result<(), Malformed> {
        if open.depth >= DEPTH_MAX {
            return Err(self.expected(TOO_DEEP));
        }
        self.advance();
        open.kinds = (open.kinds << 1) | u128::from(kind == Kind::Object);
        open.depth = open.depth.saturating_add(1);
        Ok(())
    }

    fn skip_scalar(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::String => self.string(),
            Kind::Number => self.number(),
            Kind::True => self.literal(b"true", "`true`"),
            Kind::False => self.literal(b"false", "`false`"),
            Kind::Null => self.literal(b"null", "`null`"),
            Kind::Object | Kind::Array => self.skip_nested(),
        }
    }

    /// Passes a key and the colon behind it; returns where the key is, quotes excluded.
    fn key(&mut self) -> Result<Range<usize>, Malformed> {
        if self.significant() != Some(b'"') {
            return Err(self.expected("a key in quotes"));
        }
        let start = self.at.wrapping_add(1);
        self.string()?;
        let key = start..self.at.wrapping_sub(1);
        if !self.take(b':') {
            return Err(self.expected("`:`"));
        }
        Ok(key)
    }

    /// Passes a string, standing on its opening quote.
    ///
    /// A quote ends the string unless an odd number of backslashes stands before it. Counting them
    /// backwards from each quote leaves the search with one byte to look for, so that texts full of
    /// `\n` do not stop it; no backslash is counted twice, as each run ends at its quote.
    fn string(&mut self) -> Result<(), Malformed> {
        let start = self.at.wrapping_add(1);
        let mut from = start;
        loop {
            let rest = self.bytes.get(from..).unwrap_or_default();
            let Some(length) = find_quote(rest) else {
                self.at = self.bytes.len();
                return Err(self.expected("`\"` at the end of the string"));
            };
            let quote = from.wrapping_add(length);
            let before = self.bytes.get(start..quote).unwrap_or_default();
            let backslashes = before
                .iter()
                .rev()
                .take_while(|byte| **byte == b'\\')
                .count();
            if backslashes & 1 == 0 {
                self.at = quote.wrapping_add(1);
                return Ok(());
            }
            from = quote.wrapping_add(1);
            from = from.wrapping_add(escaped_quotes(self.bytes, from));
        }
    }

    /// Passes a number (RFC 8259 section 6).
    fn number(&mut self) -> Result<(), Malformed> {
        self.take_here(b"-");
        if !self.take_here(b"0") {
            self.digits()?;
        }
        if self.take_here(b".") {
            self.digits()?;
        }
        if self.take_here(b"eE") {
            self.take_here(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    /// Passes one digit or more.
    fn digits(&mut self) -> Result<(), Malformed> {
        if !self.take_here(b"0123456789") {
            return Err(self.expected("a digit"));
        }
        while self.take_here(b"0123456789") {}
        Ok(())
    }

    fn literal(&mut self, word: &[u8], expected: &'static str) -> Result<(), Malformed> {
        if !self
            .bytes
            .get(self.at..)
            .unwrap_or_default()
            .starts_with(word)
        {
            return Err(self.expected(expected));
        }
        self.at = self.at.wrapping_add(word.len());
        Ok(())
    }

    /// Passes white space; returns the byte after it, which is not passed.
    #[inline]
    fn significant(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.advance(),
                other => return other.copied(),
            }
        }
    }

    /// Passes white space and `byte`, if that is what comes next.
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.significant() == Some(byte);
        if found {
            self.advance();
        }
        found
    }

    /// Passes one of `bytes`, if it stands right here.
    fn take_here(&mut self, bytes: &[u8]) -> bool {
        let found = self
            .bytes
            .get(self.at)
            .is_some_and(|byte| bytes.contains(byte));
        if found {
            self.advance();
        }
        found
    }

    #[inline]
    fn advance(&mut self) {
        self.at = self.at.wrapping_add(1);
    }

    fn expected(&self, expected: &'static str) -> Malformed {
        Malformed {
            at: self.at,
            expected,
        }
    }
}

/// The brackets that are open while a value is passed: the lowest bit is the innermost, set for an
/// object.
struct Open {
    kinds: u128,
    depth: usize,
}

impl Open {
    fn is_object(&self) -> bool {
        self.kinds & 1 == 1
    }

    fn pop(&mut self) {
        self.kinds >>= 1;
        self.depth = self.depth.saturating_sub(1);
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
        let differs = u64::from_le_bytes(*word) ^ QUOTES;
        // The lowest bit set marks the first byte that is zero: a classic of word-wise search.
        let zeros = differs.wrapping_sub(LOWS) & !differs & HIGHS;
        if zeros != 0 {
            let byte = usize::try_from(zeros.trailing_zeros() >> 3).unwrap_or_default();
            return Some(passed.wrapping_add(byte));
        }
        passed = passed.wrapping_add(8);
        rest = tail;
    }
    memchr(b'"', rest).map(|at| passed.wrapping_add(at))
}

const TOO_DEEP: &str = "at most 127 levels of brackets";

const BLOCK_BYTES: usize = 64;

/// How far a string is searched word by word before the vectorised search takes over, in bytes.
const SHORT_BYTES: usize = 16;
const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
const LOWS: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
