//! The walk through a JSON text.

use std::ops::Range;

use super::quote::end_of_string;
use super::{DEPTH_MAX, Kind, Malformed, Value, plain};

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
    fn string(&mut self) -> Result<(), Malformed> {
        let Some(quote) = end_of_string(self.bytes, self.at.wrapping_add(1)) else {
            self.at = self.bytes.len();
            return Err(self.expected("`\"` at the end of the string"));
        };
        self.at = quote.wrapping_add(1);
        Ok(())
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

const TOO_DEEP: &str = "at most 127 levels of brackets";
