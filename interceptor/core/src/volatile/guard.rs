//! Whether a value is part of what the system prompt tells the model to go by.
//!
//! "Token usage: 500 at most" reads like a figure that a machine put there, and is a limit; moved, it would
//! have no more authority than a user has. So the words of its sentence are looked at, and of the heading
//! over its line; of a time, whether its sentence is about it. The words are data of the rules (the shapes `duty`,
//! `limit` and `subject`, and `guard.toml` for other languages, with what ends a sentence there), so a set from
//! before there were any finds what it always found, and conversations under way go on as they began.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::Rule;
use super::file::expand;
use super::pattern::Pattern;

/// What makes a value one to go by.
#[derive(Debug)]
pub(super) enum Guard {
    /// Words of its sentence.
    Words {
        words: Arc<Pattern>,
        /// Whether the value itself may say them: text between tags, or of a commit, is taken as it is.
        has_text: bool,
        sentences: Arc<Sentences>,
    },
    /// What stands behind it, if it ends with a time.
    Subject(Arc<Pattern>),
}

/// The guards of a set of rules.
pub(super) struct Guards<'a> {
    shapes: &'a BTreeMap<String, String>,
    languages: &'a [Language],
    known: BTreeMap<&'static str, Arc<Pattern>>,
    sentences: Arc<Sentences>,
}

/// Where sentences end and begin, beside `. ` and the like.
#[derive(Debug)]
pub(super) struct Sentences {
    ends: String,
    openings: Vec<String>,
}

/// The words of a language.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Language {
    #[cfg_attr(not(test), expect(dead_code, reason = "a test names it"))]
    pub(super) language: String,
    /// Of duty and negation.
    #[serde(default)]
    duty: String,
    /// Of limits and money.
    #[serde(default)]
    limit: String,
    /// Of duty, in a script without blanks; in sets that have no `limit_signs` of limits, too.
    #[serde(default)]
    signs: String,
    /// Of limits and money, in a script without blanks.
    #[serde(default)]
    limit_signs: String,
    /// Signs that end a sentence with no blank behind them.
    #[serde(default)]
    ends: String,
    /// Signs that say nothing where a sentence begins with them: what is the following there is "or less"
    /// behind a number.
    #[serde(default)]
    openings: String,
    /// Texts that are left because of them.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test reads them"))]
    pub(super) left: Vec<String>,
}

impl<'a> Guards<'a> {
    pub(super) fn new(shapes: &'a BTreeMap<String, String>, languages: &'a [Language]) -> Self {
        let openings = languages
            .iter()
            .flat_map(|language| language.openings.split_ascii_whitespace());
        let sentences = Sentences {
            ends: languages.iter().map(|language| &*language.ends).collect(),
            openings: openings.map(str::to_owned).collect(),
        };
        Self {
            shapes,
            languages,
            known: BTreeMap::new(),
            sentences: Arc::new(sentences),
        }
    }

    /// What guards the values of a built-in rule.
    pub(super) fn of(&mut self, rule: &Rule) -> Option<Guard> {
        let shape = match (rule.kind.as_str(), rule.name.as_str()) {
            ("files" | "git", _) => "duty",
            ("figures" | "host" | "version", _) | (_, "relative-time" | "process-id") => "limit",
            ("date" | "time", _) => "subject",
            _ => return None,
        };
        let words = match self.known.get(shape) {
            Some(words) => Arc::clone(words),
            None => {
                let words = Arc::new(Pattern::new(self.pattern(shape)?));
                self.known.insert(shape, Arc::clone(&words));
                words
            }
        };
        if shape == "subject" {
            return Some(Guard::Subject(words));
        }
        let is_commit = rule.name == "commit" && !self.languages.is_empty();
        Some(Guard::Words {
            words,
            has_text: is_commit || rule.kind == "files",
            sentences: Arc::clone(&self.sentences),
        })
    }

    fn pattern(&self, shape: &str) -> Option<String> {
        let own = expand(self.shapes.get(shape)?, self.shapes)?;
        let duty = self.languages.iter().map(|language| &*language.duty);
        let limit = self.languages.iter().map(|language| &*language.limit);
        let words = match shape {
            "duty" => alternatives(duty, [BEFORE_DUTY, BEHIND_DUTY]),
            "limit" => alternatives(duty.chain(limit), [r"\b", r"\b"]),
            _ => Vec::new(),
        };
        let signs = self.languages.iter().map(|language| &*language.signs);
        let of_limits = self.languages.iter().map(|language| &*language.limit_signs);
        let signs = match shape {
            "duty" => alternatives(signs, ["", ""]),
            "limit" => alternatives(signs.chain(of_limits), ["", ""]),
            _ => Vec::new(),
        };
        let own = format!("(?:{own})");
        Some([vec![own], words, signs].concat().join("|"))
    }
}

/// Alternatives of a pattern: the words of lists that stand alone between `before` and `behind`, and those
/// that may go on.
fn alternatives<'a>(
    lists: impl Iterator<Item = &'a str>,
    [before, behind]: [&str; 2],
) -> Vec<String> {
    let words = lists.flat_map(str::split_ascii_whitespace);
    let (begun, whole): (Vec<&str>, Vec<&str>) = words.partition(|word| word.ends_with('*'));
    let both = [(whole, behind), (begun, "")].into_iter();
    let both = both.filter(|(words, _)| !words.is_empty());
    let both = both.map(|(words, behind)| {
        let words = words.into_iter().map(|word| word.trim_end_matches('*'));
        let words = words.map(|word| regex::escape(word).replace('_', r"\s+"));
        let words = words.collect::<Vec<_>>().join("|");
        format!("(?i:{before}(?:{words}){behind})")
    });
    both.collect()
}

/// The words of all languages, for lines of which nothing is to be learned.
#[derive(Default)]
pub(super) struct Words {
    whole: HashSet<String>,
    beginnings: Vec<String>,
    pub(super) signs: Vec<String>,
}

impl Words {
    /// Those that Weir comes with.
    pub(super) fn builtin() -> &'static Self {
        static WORDS: LazyLock<Words> = LazyLock::new(|| {
            let file = toml::from_str::<BTreeMap<String, Vec<Language>>>(BUILTIN);
            let languages = file.into_iter().flat_map(BTreeMap::into_values).flatten();
            let mut words = Words::default();
            for language in languages {
                let lists = [&language.duty, &language.limit];
                let all = lists
                    .into_iter()
                    .flat_map(|list| list.split_ascii_whitespace());
                for word in all.filter(|word| !word.contains('_')) {
                    if let Some(beginning) = word.strip_suffix('*') {
                        words.beginnings.push(beginning.to_owned());
                    } else {
                        words.whole.insert(word.to_owned());
                    }
                }
                let lists = [&language.signs, &language.limit_signs].into_iter();
                let signs = lists.flat_map(|list| list.split_ascii_whitespace());
                words.signs.extend(signs.map(|sign| sign.replace('_', " ")));
            }
            words
        });
        &WORDS
    }

    /// Whether a word in small letters is one of them.
    pub(super) fn know(&self, word: &str) -> bool {
        let begins = |beginning: &String| word.starts_with(beginning);
        self.whole.contains(word) || self.beginnings.iter().any(begins)
    }
}

impl Guard {
    /// The pattern of its words.
    pub(super) const fn pattern(&self) -> &Arc<Pattern> {
        match self {
            Self::Words { words, .. } | Self::Subject(words) => words,
        }
    }

    /// Whether `value` is part of an instruction in `text`.
    pub(super) fn is_instruction(&self, text: &str, value: &Range<usize>) -> bool {
        let Ok(words) = self.pattern().ready() else {
            return false;
        };
        let (Some(before), Some(own), Some(behind)) = (
            text.get(..value.start),
            text.get(value.clone()),
            text.get(value.end..),
        ) else {
            return false;
        };
        let is_in = |part: &str| words.is_match(part);
        let (has_text, sentences) = match self {
            Self::Subject(_) => {
                return own.contains(':') && is_in(behind.lines().next().unwrap_or_default());
            }
            Self::Words {
                has_text,
                sentences,
                ..
            } => (*has_text, sentences),
        };
        let line = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
        let (above, beginning) = before.split_at(line);
        let beginning = sentences.last_of(beginning);
        let end = if own.ends_with('\n') {
            ""
        } else {
            sentences.first_of(behind)
        };
        is_in(beginning)
            || is_in(end)
            || sentences.heading(above).is_some_and(is_in)
            || has_text && is_in(own)
    }
}

impl Sentences {
    /// The line right over another, or over the fence of its block, that introduces it.
    fn heading<'a>(&self, above: &'a str) -> Option<&'a str> {
        let lines = above.trim_end_matches('\n').rsplit('\n');
        let line = lines.map(str::trim).find(|line| !line.starts_with("```"))?;
        let is_heading = line.starts_with('#') || line.ends_with([':', '：']);
        let line = line.trim_end_matches(|sign| self.ends.contains(sign));
        is_heading.then(|| self.last_of(line))
    }

    /// The sentence that a line ends in.
    fn last_of<'a>(&self, line: &'a str) -> &'a str {
        let ends = [". ", "! ", "? ", "; "].iter();
        let start = ends.filter_map(|end| line.rfind(end)).max();
        let start = start.map_or(0, |end| end.saturating_add(1));
        let own = |sign: char| self.ends.contains(sign);
        let sentence = line.get(start..).unwrap_or_default();
        let sentence = sentence.rsplit(own).next().unwrap_or_default();
        let begun = sentence.trim_start_matches(|sign: char| !sign.is_alphanumeric());
        let mut openings = self.openings.iter();
        let behind = openings.find_map(|opening| begun.strip_prefix(opening.as_str()));
        behind.unwrap_or(sentence)
    }

    /// The rest of a sentence, at most to the end of the line.
    fn first_of<'a>(&self, rest: &'a str) -> &'a str {
        let line = rest.lines().next().unwrap_or_default();
        let ends = [". ", "! ", "? ", ";"].iter();
        let end = ends.filter_map(|end| line.find(end)).min();
        let sentence = line.get(..end.unwrap_or(line.len())).unwrap_or_default();
        let own = |sign: char| self.ends.contains(sign);
        sentence.split(own).next().unwrap_or_default()
    }
}

/// The words that Weir comes with, at the end of its rules.
pub(super) const BUILTIN: &str = include_str!("guard.toml");
/// What stands before a word of duty, so that it is no part of a path.
const BEFORE_DUTY: &str = r#"(?:^|[\s(*_"'`«„“¿¡])"#;
/// What stands behind one.
const BEHIND_DUTY: &str = r"(?:[\s,.:;!?)]|$)";
