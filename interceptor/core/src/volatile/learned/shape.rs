//! What a value must look like to be learned: as what a machine put there, never as what the system
//! prompt tells the model to go by.
//!
//! A learned value is told in a message of the user, with no more authority than that has. So a limit, a
//! price, an account or a customer must stay where it stands, however often it changes. Shape tells
//! some of them apart: letters and digits mixed are an id that a machine made, a number alone may be
//! anything, and what it is the words beside it say ("turn 17", "41 % of memory used"). It misses
//! what those words say in a language that is not in the lists: a number is not learned then, which
//! costs a miss; an id is.

use std::ops::Range;

use super::super::guard::Words;
use super::words::{
    AUTHORITY, AUTHORITY_SIGNS, COUNTERS, COUNTERS_SIGNS, LABELS, RESOURCES, STATES,
};

/// A line, or a sentence of a long one.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) text: &'a str,
    /// Its words and signs; empty, where a rule knows the value.
    pub(super) tokens: Vec<&'a str>,
}

/// Whether the tokens `value` of a line are such as machines put there. `before` is the line before it.
pub(super) fn is_of_machine(
    line: &Line<'_>,
    value: Range<usize>,
    before: Option<&Line<'_>>,
) -> bool {
    let heading = before.filter(|before| before.is_heading());
    if line.has_authority() || heading.is_some_and(Line::has_authority) {
        return false;
    }
    let Some(value) = line.tokens.get(value) else {
        return false;
    };
    let mut with_digits = value
        .iter()
        .filter(|token| token.contains(char::is_numeric));
    with_digits.all(|token| is_made(token)) || line.counts()
}

impl Line<'_> {
    /// Whether it stands over the next line rather than for itself.
    fn is_heading(&self) -> bool {
        self.tokens.len() <= HEADING_TOKENS_MAX && !self.text.ends_with(['.', ';', '!', '?'])
    }

    /// Whether it is for the model to go by: about money, accounts, limits, roles, duties.
    fn has_authority(&self) -> bool {
        let guard = Words::builtin();
        let mut words = self.tokens.iter().flat_map(|token| words(token));
        let is_known = |word: &str| {
            let inside = |known: &str| known.len() >= COMPOUND_BYTES_MIN && word.contains(known);
            all(AUTHORITY).any(|known| known == word || inside(known)) || guard.know(word)
        };
        let has = |sign: &str| self.text.contains(sign);
        all(AUTHORITY_SIGNS).any(has)
            || guard.signs.iter().any(|sign| has(sign))
            || words.any(|word| is_known(&word))
    }

    /// Whether its numbers are counters of a machine, or figures of its resources.
    fn counts(&self) -> bool {
        let is_in = |list: &str| {
            let mut words = self.tokens.iter().flat_map(|token| words(token));
            words.any(|word| all(list).any(|known| known == word))
        };
        // A word that can be an order ("Build 3 variants") has to be a label.
        let is_label = |pair: &[&str]| match pair {
            [word, sign] => {
                matches!(*sign, ":" | "=" | "#" | "：")
                    && words(word).any(|word| all(LABELS).any(|known| known == word))
            }
            _ => false,
        };
        all(COUNTERS_SIGNS).any(|sign| self.text.contains(sign))
            || is_in(COUNTERS)
            || is_in(RESOURCES) && is_in(STATES)
            || self.tokens.windows(2).any(is_label)
    }
}

/// The words of a list.
fn all(list: &str) -> impl Iterator<Item = &str> {
    list.split_ascii_whitespace()
}

/// The words in a token, in small letters: those of `refund_limit` and of `refundLimit`.
fn words(token: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for character in token.chars() {
        let begins = !character.is_alphabetic() || was_small && character.is_uppercase();
        if begins {
            words.push(String::new());
        }
        if let (true, Some(word)) = (character.is_alphabetic(), words.last_mut()) {
            word.extend(character.to_lowercase());
        }
        was_small = character.is_lowercase();
    }
    words.into_iter().filter(|word| !word.is_empty())
}

/// Whether a word is an id that a machine made: letters and digits mixed (`k3x9`), or letters before a
/// long number (`PROJ-1234`). Quantities (`50USD`, `1h30m`, `1920x1080`), dates, names with a number
/// (`tier2`, `FY2026`) and addresses of people are none.
fn is_made(word: &str) -> bool {
    let digits = word.chars().filter(|c| c.is_numeric()).count();
    if digits < MADE_DIGITS_MIN || word.contains('@') {
        return false;
    }
    let parts = || word.split(|c: char| !c.is_alphanumeric());
    let runs = parts().map(runs);
    let is_mixed = |runs: &Vec<&str>| runs.len() >= 3 && !is_quantity(runs);
    let is_year = |run: &&str| run.len() == 4 && (run.starts_with("19") || run.starts_with("20"));
    let counted = parts().flat_map(self::runs);
    let counted = counted.filter(|run| run.starts_with(char::is_numeric) && !is_year(run));
    let counted: usize = counted.map(str::len).sum();
    let begins_with_letters = word.starts_with(|c: char| !c.is_numeric());
    let has_letters = word.contains(char::is_alphabetic);
    runs.clone().any(|runs| is_mixed(&runs))
        || has_letters && begins_with_letters && counted >= NUMBER_DIGITS_MIN
}

/// The runs of letters, and of digits, that a part of a word is made of.
fn runs(part: &str) -> Vec<&str> {
    let is_digit = |c: char| c.is_numeric();
    let mut runs = Vec::new();
    let mut rest = part;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_digit(c) != is_digit(first));
        let (run, behind) = rest
            .split_at_checked(end.unwrap_or(rest.len()))
            .unwrap_or((rest, ""));
        runs.push(run);
        rest = behind;
    }
    runs
}

/// Whether numbers and units alternate: a duration, a dimension, the middle of a moment.
fn is_quantity(runs: &[&str]) -> bool {
    let mut letters = runs.iter().filter(|run| !run.starts_with(char::is_numeric));
    let begins = runs
        .first()
        .is_some_and(|run| run.starts_with(char::is_numeric));
    begins && letters.all(|run| UNITS.contains(run))
}

/// What stands between and behind the numbers of durations, dimensions and moments.
const UNITS: &[&str] = &[
    "d", "h", "hr", "hrs", "m", "min", "ms", "s", "sec", "x", "T", "Z", "am", "pm",
];
/// Tokens of a heading.
const HEADING_TOKENS_MAX: usize = 6;
/// From how many bytes on a known word counts inside of another one too, as in plurals and compounds.
const COMPOUND_BYTES_MIN: usize = 6;
/// Digits of an id.
const MADE_DIGITS_MIN: usize = 2;
/// Digits of a number behind letters that make both an id.
const NUMBER_DIGITS_MIN: usize = 4;
