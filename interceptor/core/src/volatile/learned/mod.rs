//! Values that no rule knows, learned from prompts that follow each other: what keeps changing in a
//! line while everything around it stays.
//!
//! A system prompt is read as [`Units`], its lines and sentences, each known by a keyed hash only. A
//! [`Prompts`] holds the latest prompt of each of its families so, aligns the next one with it, and
//! notes where one unit stands in the place of another. Three different values within the lifetime
//! of a cache make a [`Learned`] value; a prompt that is deployed anew changes once and stays. What is
//! learned is a piece of one line that looks as if a machine had put it there (`shape`): an id, a
//! counter, but never a sentence, nor a limit or an account. It misses values of several lines, words,
//! and what changes in the definitions of tools.

mod align;
mod family;
mod shape;
#[cfg(test)]
mod tests;
mod units;
mod words;

use serde::{Deserialize, Serialize};

use super::Span;

pub use family::{News, Observed, Prompts};
pub use units::Units;

/// Where a learned value stands: hashes of what surrounds it. It holds no text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Learned {
    /// The unit before, as [`Learned::skeleton`] if there is a learned value in it too; none, if it
    /// changes by itself.
    before: Option<u64>,
    /// The unit behind; none, if it changes too.
    after: Option<u64>,
    prefix: Side,
    suffix: Side,
}

/// What stands in a unit on one side of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Side {
    tokens: usize,
    hash: u64,
}

impl Learned {
    /// What the value is called where it stood, and where it is told.
    #[must_use]
    pub fn name(&self) -> String {
        let around =
            self.before.unwrap_or_default() ^ self.after.unwrap_or_default().rotate_left(13);
        let number = (self.skeleton() ^ around) & NAME_MASK;
        format!("{RULE}-{number:06x}")
    }

    /// What is left of the unit without the value.
    const fn skeleton(&self) -> u64 {
        self.prefix.hash ^ self.suffix.hash.rotate_left(31)
    }
}

impl Units<'_> {
    /// The values that are in the prompt now, in the order of the body, under the rule with the index
    /// `rule`. Each is found once, where it comes first.
    #[must_use]
    pub fn find(&self, learned: &[Learned], rule: usize) -> Vec<Span> {
        let mut left: Vec<&Learned> = learned.iter().collect();
        let (mut spans, mut previous) = (Vec::new(), None);
        for index in 0..self.len() {
            if left.is_empty() {
                break;
            }
            let next = index.checked_add(1).and_then(|next| self.hash(next));
            let mut found = None;
            for (place, one) in left.iter().enumerate() {
                let fits_around = one.before.is_none_or(|before| Some(before) == previous)
                    && one.after.is_none_or(|after| Some(after) == next);
                if !fits_around {
                    continue;
                }
                if let Some((segment, range)) = self.value(index, one.prefix, one.suffix) {
                    found = Some(place);
                    spans.push(Span {
                        segment,
                        range,
                        rule,
                        name: one.name(),
                    });
                    break;
                }
            }
            previous = match found {
                Some(place) => Some(left.remove(place).skeleton()),
                None => self.hash(index),
            };
        }
        spans
    }
}

/// The rule of all learned values, by its name in `rules.toml`.
pub(super) const RULE: &str = "learned-value";
/// How much of its hash is in a name: six hexadecimal digits.
const NAME_MASK: u64 = 0xff_ffff;
/// Tokens of a unit that is looked into; in a longer one nothing is learned.
const TOKENS_MAX: usize = 96;
/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 256;
/// The longest value, in tokens.
const VALUE_TOKENS_MAX: usize = 24;
