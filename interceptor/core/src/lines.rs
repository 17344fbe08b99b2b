//! Texts of JSON one by line (`application/x-ndjson` and its other names), told apart as they come.

use memchr::memchr;

/// Tells lines apart, however they are cut.
#[derive(Debug)]
pub struct LineParser {
    line_bytes_max: usize,
    /// What has arrived of a line in earlier pushes; nothing if it is too long.
    pending: Vec<u8>,
    too_long: bool,
    skipped: u64,
}

impl LineParser {
    /// Before the first byte. Lines of more than `line_bytes_max` bytes are passed over.
    #[must_use]
    pub const fn new(line_bytes_max: usize) -> Self {
        Self {
            line_bytes_max,
            pending: Vec::new(),
            too_long: false,
            skipped: 0,
        }
    }

    /// Takes the next bytes; calls `each` with every line that is complete by them and not empty.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, next) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            rest = next.get(1..).unwrap_or_default();
            if self.pending.is_empty() && !self.too_long && line.len() <= self.line_bytes_max {
                give(line, &mut each);
            } else {
                self.keep(line);
                self.end(&mut each);
            }
        }
        self.keep(rest);
    }

    /// Takes the end: what has no line feed behind it is a line all the same.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        self.end(&mut each);
    }

    /// How many lines were too long.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    fn keep(&mut self, part: &[u8]) {
        if self.pending.len().saturating_add(part.len()) > self.line_bytes_max {
            self.too_long = true;
            self.pending = Vec::new();
        }
        if !self.too_long {
            self.pending.extend_from_slice(part);
        }
    }

    fn end(&mut self, each: &mut impl FnMut(&[u8])) {
        self.skipped = self.skipped.saturating_add(u64::from(self.too_long));
        self.too_long = false;
        give(&self.pending, each);
        self.pending.clear();
    }
}

fn give(line: &[u8], each: &mut impl FnMut(&[u8])) {
    let line = line.trim_ascii();
    if !line.is_empty() {
        each(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]], line_bytes_max: usize) -> (Vec<String>, u64) {
        let mut parser = LineParser::new(line_bytes_max);
        let mut found = Vec::new();
        let mut each = |line: &[u8]| found.push(String::from_utf8(line.to_vec()).unwrap());
        for piece in pieces {
            parser.push(piece, &mut each);
        }
        parser.finish(&mut each);
        let skipped = parser.skipped();
        (found, skipped)
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"{\"a\":1}\r\n\n  \n{\"b\":2}\n{\"long\":\"long\"}\n{\"c\":3}";
        let expected = ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(lines(&[text], 9), (expected.clone(), 1));
        for at in 0..=text.len() {
            let (one, two) = text.split_at(at);
            assert_eq!(lines(&[one, two], 9), (expected.clone(), 1), "{at}");
        }
    }
}
