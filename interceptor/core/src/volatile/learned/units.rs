//! The system prompt as units: its lines, and the sentences of long ones. Values that rules know are
//! masked, so that a date in a line does not hide that the line stays.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use crate::prompt::{HashKey, Prompt, Section, SegmentKind};
use crate::volatile::decoded::Decoded;
use crate::volatile::{REFERENCE_OPEN, Span};

use super::shape::{Line, is_of_machine};
use super::{Side, TOKENS_MAX, VALUE_BYTES_MAX, VALUE_TOKENS_MAX};

/// The units of a system prompt, in order.
#[derive(Debug)]
pub struct Units<'a> {
    source: Source<'a>,
    hashes: Arc<[u64]>,
    /// Read where hashes do not say enough.
    texts: OnceCell<Texts<'a>>,
}

/// What units are read from.
#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    body: &'a [u8],
    prompt: &'a Prompt,
    skip: Option<usize>,
    known: &'a [Span],
    key: &'a HashKey,
}

#[derive(Debug, Default)]
struct Texts<'a> {
    texts: Vec<Masked<'a>>,
    units: Vec<Unit>,
}

#[derive(Debug)]
struct Masked<'a> {
    segment: usize,
    decoded: Decoded<'a>,
    /// What rules know, in order.
    masks: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Unit {
    hash: u64,
    /// Which text it is in; none for the edge between two texts.
    text: Option<usize>,
    range: Range<usize>,
}

/// A word, or a sign by itself.
#[derive(Debug)]
struct Token {
    range: Range<usize>,
    /// With [`DIGIT`] or [`WORD`] in its lowest bits; [`MASK`] for what a rule knows.
    hash: u64,
}

impl<'a> Units<'a> {
    /// Reads the system prompt. `known` is what rules found in it; `skip` names a segment that nobody
    /// may touch. What is beyond 4096 units is not looked at.
    #[must_use]
    pub fn of(
        body: &'a [u8],
        prompt: &'a Prompt,
        skip: Option<usize>,
        known: &'a [Span],
        key: &'a HashKey,
    ) -> Self {
        let source = Source {
            body,
            prompt,
            skip,
            known,
            key,
        };
        let texts = source.read();
        Self {
            source,
            hashes: texts.units.iter().map(|unit| unit.hash).collect(),
            texts: OnceCell::from(texts),
        }
    }

    /// The same, where the hashes of a system prompt with the same bytes and the same `known` in it are
    /// known already: it is read only where they do not say enough.
    #[must_use]
    pub(crate) const fn again(
        hashes: Arc<[u64]>,
        (body, prompt): (&'a [u8], &'a Prompt),
        skip: Option<usize>,
        known: &'a [Span],
        key: &'a HashKey,
    ) -> Self {
        Self {
            source: Source {
                body,
                prompt,
                skip,
                known,
                key,
            },
            hashes,
            texts: OnceCell::new(),
        }
    }

    fn texts(&self) -> &Texts<'a> {
        self.texts.get_or_init(|| self.source.read())
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn hash(&self, index: usize) -> Option<u64> {
        self.hashes.get(index).copied()
    }

    pub(crate) const fn hashes(&self) -> &Arc<[u64]> {
        &self.hashes
    }

    /// The tokens of a unit as hashes; none, if they are too many, or there is none.
    pub(super) fn tokens(&self, index: usize) -> Option<Vec<u64>> {
        let tokens = self.read(index)?;
        Some(tokens.iter().map(|token| token.hash).collect())
    }

    pub(super) fn side(&self, tokens: &[u64]) -> Side {
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        Side {
            tokens: tokens.len(),
            hash: half(self.source.key.hash(&[b"side", &bytes])),
        }
    }

    /// What stands in a unit between its sides: the segment, and where its bytes are in the body.
    pub(super) fn value(
        &self,
        index: usize,
        prefix: Side,
        suffix: Side,
    ) -> Option<(usize, Range<usize>)> {
        let (text, _) = self.unit(index)?;
        let tokens = self.read(index)?;
        let end = tokens.len().checked_sub(suffix.tokens)?;
        let value = tokens.get(prefix.tokens..end)?;
        let hashes = |tokens: &[Token]| -> Vec<u64> { tokens.iter().map(|t| t.hash).collect() };
        let fits = self.side(&hashes(tokens.get(..prefix.tokens)?)) == prefix
            && self.side(&hashes(tokens.get(end..)?)) == suffix
            && value.iter().all(|token| token.hash != MASK);
        let range = value.first()?.range.start..value.last()?.range.end;
        let is_ours = text
            .decoded
            .text
            .get(range.clone())?
            .contains(REFERENCE_OPEN);
        (fits && !is_ours && range.len() <= VALUE_BYTES_MAX)
            .then(|| (text.segment, text.decoded.in_body(&range)))
    }

    /// Whether what stands in a unit between the first `start` and the last `end` tokens looks as what
    /// machines put there, and not as what the model is told to go by.
    pub(super) fn is_of_machine(&self, index: usize, (start, end): (usize, usize)) -> bool {
        let Some(line) = self.line(index) else {
            return false;
        };
        let before = index.checked_sub(1).and_then(|before| self.line(before));
        let end = line.tokens.len().saturating_sub(end);
        is_of_machine(&line, start..end, before.as_ref())
    }

    fn line(&self, index: usize) -> Option<Line<'_>> {
        let (text, unit) = self.unit(index)?;
        let text = text.decoded.text.as_ref();
        let tokens = self.read(index)?;
        let tokens = tokens.iter().map(|token| {
            let known = token.hash == MASK;
            let word = text.get(token.range.clone()).filter(|_| !known);
            word.unwrap_or_default()
        });
        Some(Line {
            text: text.get(unit.range.clone())?,
            tokens: tokens.collect(),
        })
    }

    fn read(&self, index: usize) -> Option<Vec<Token>> {
        let (text, unit) = self.unit(index)?;
        text.tokens(unit.range.clone(), self.source.key)
            .filter(|tokens| !tokens.is_empty())
    }

    /// A unit and the text that it is in; none at an edge.
    fn unit(&self, index: usize) -> Option<(&Masked<'a>, &Unit)> {
        let Texts { texts, units } = self.texts();
        let unit = units.get(index)?;
        Some((texts.get(unit.text?)?, unit))
    }
}

impl<'a> Source<'a> {
    fn read(self) -> Texts<'a> {
        let mut read = Texts::default();
        let segments = self.prompt.segments.iter().enumerate();
        for (index, segment) in segments.take_while(|(_, s)| s.section != Section::Messages) {
            let is_readable = segment.section == Section::System
                && segment.kind == SegmentKind::Text
                && Some(index) != self.skip;
            let text = segment.text.as_ref().filter(|_| is_readable);
            let Some(decoded) = text.and_then(|text| Decoded::new(self.body, text)) else {
                continue;
            };
            let known = self.known.iter().filter(|span| span.segment == index);
            read.texts.push(Masked {
                segment: index,
                masks: known.map(|span| decoded.in_text(&span.range)).collect(),
                decoded,
            });
        }
        for (index, text) in read.texts.iter().enumerate() {
            read.units.push(EDGE);
            text.cut(index, self.key, &mut read.units);
        }
        read.units.push(EDGE);
        read
    }
}

impl Masked<'_> {
    /// Cuts the text behind lines and sentences, but not inside of what a rule knows.
    fn cut(&self, text: usize, key: &HashKey, units: &mut Vec<Unit>) {
        let bytes = self.decoded.text.as_bytes();
        let mut masks = self.masks.iter().peekable();
        let mut start = 0_usize;
        for at in memchr::memchr3_iter(b'\n', b'.', b';', bytes) {
            while masks.next_if(|mask| mask.end <= at).is_some() {}
            let is_masked = masks.peek().is_some_and(|mask| mask.start <= at);
            let behind = at.saturating_add(1);
            let is_end = bytes.get(at) == Some(&b'\n') || bytes.get(behind) == Some(&b' ');
            if is_masked || !is_end {
                continue;
            }
            if units.len() >= UNITS_MAX {
                return;
            }
            units.extend(self.unit(text, start..behind, key));
            start = behind;
        }
        units.extend(self.unit(text, start..bytes.len(), key));
    }

    /// A unit without the blanks around it; nothing, if that is all there is.
    fn unit(&self, text: usize, range: Range<usize>, key: &HashKey) -> Option<Unit> {
        let whole = self.decoded.text.get(range.clone())?;
        let behind = whole.trim_start();
        let start = range.end.checked_sub(behind.len())?;
        let end = start.checked_add(behind.trim_end().len())?;
        if start == end {
            return None;
        }
        let bytes = self.decoded.text.as_bytes();
        let inside = |mask: &&Range<usize>| mask.start < end && mask.end > start;
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut from = start;
        for mask in self.masks.iter().filter(inside) {
            parts.push(bytes.get(from..mask.start).unwrap_or_default());
            from = mask.end.min(end);
        }
        parts.push(bytes.get(from..end)?);
        Some(Unit {
            hash: half(key.hash(&parts)),
            text: Some(text),
            range: start..end,
        })
    }

    /// The tokens in a range; none, if there are too many.
    fn tokens(&self, range: Range<usize>, key: &HashKey) -> Option<Vec<Token>> {
        let mut tokens = Vec::new();
        let mut at = range.start;
        while at < range.end {
            if tokens.len() >= TOKENS_MAX {
                return None;
            }
            let mask = self.masks.iter().find(|mask| mask.end > at);
            if let Some(mask) = mask.filter(|mask| mask.start <= at) {
                tokens.push(Token {
                    range: at..mask.end.min(range.end),
                    hash: MASK,
                });
                at = mask.end;
                continue;
            }
            let limit = mask.map_or(range.end, |mask| mask.start.min(range.end));
            let rest = self.decoded.text.get(at..limit)?;
            let blank = rest.len().checked_sub(rest.trim_start().len())?;
            at = at.checked_add(blank)?;
            let word = rest.get(blank..)?;
            let Some(length) = word_length(word) else {
                continue;
            };
            let word = word.get(..length)?;
            let end = at.checked_add(length)?;
            let flag = match word {
                _ if word.contains(char::is_numeric) => DIGIT,
                _ if word.contains(char::is_alphabetic) => WORD,
                _ => 0,
            };
            tokens.push(Token {
                range: at..end,
                hash: half(key.hash(&[word.as_bytes()])) & !(DIGIT | WORD) | flag,
            });
            at = end;
        }
        Some(tokens)
    }
}

/// How long the word or sign is that `text` begins with, in bytes. Signs between two letters or digits
/// are part of the word, so that an address, a path or a version is one.
fn word_length(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().peekable();
    let (_, first) = characters.next()?;
    if !is_of_word(first) {
        return Some(first.len_utf8());
    }
    let mut last = first;
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        let joins = match character {
            '-' | '.' | '/' | '+' | '@' => next.is_some_and(is_of_word),
            ':' => last.is_numeric() && next.is_some_and(char::is_numeric),
            character => is_of_word(character),
        };
        if !joins {
            return Some(at);
        }
        last = character;
    }
    Some(text.len())
}

/// Scripts without blanks have no words to find: each of their characters stands for itself.
fn is_of_word(character: char) -> bool {
    (character.is_alphanumeric() || character == '_') && character < FIRST_WITHOUT_BLANKS
}

/// Whether the tokens of a value make it one that may be learned, by their number and kinds.
pub(super) fn is_value(tokens: &[u64]) -> bool {
    let count = |flag: u64| tokens.iter().filter(|token| **token & flag != 0).count();
    let is_plain = tokens.len() <= VALUE_TOKENS_MAX && !tokens.contains(&MASK);
    is_plain && count(DIGIT) > 0 && count(WORD) <= count(DIGIT)
}

fn half(hash: u128) -> u64 {
    u64::try_from(hash >> 64).unwrap_or_default()
}

/// Units of a prompt; beyond, it is not looked at.
pub(super) const UNITS_MAX: usize = 4096;
/// Set in the hash of a token with a digit in it.
const DIGIT: u64 = 1;
/// Set in the hash of a token with letters and no digit.
const WORD: u64 = 2;
/// Stands for a value that a rule knows.
const MASK: u64 = 0;
/// The first character of the scripts of East Asia (Unicode block CJK Radicals Supplement).
const FIRST_WITHOUT_BLANKS: char = '\u{2e80}';
/// Stands before, between and behind texts.
const EDGE: Unit = Unit {
    hash: 1,
    text: None,
    range: 0..0,
};
