//! From the text of rules to a set of them.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use serde::{Deserialize, Serialize};

use super::guard::{Guards, Language};
use super::learned::RULE;
use super::pattern::Pattern;
use super::{REACH_BYTES, Rule, Rules, Transform};

/// What is wrong with rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Not TOML of the expected shape.
    #[error("expected rules in TOML, found: {0}")]
    Format(#[from] toml::de::Error),
    /// Words that guard values, which only the built-in rules have.
    #[error(
        "expected [[rule]] alone, found [[guard]]: what guards values is built in; take it out"
    )]
    Guard,
    /// A name that can't stand in a prompt.
    #[error(
        "expected a name of 1 to {NAME_BYTES_MAX} small letters, digits and hyphens, found {name:?}"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The pattern is not one.
    #[error("rule {rule}: expected a regular expression, found: {source}")]
    Pattern {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
    /// The pattern takes nothing.
    #[error("rule {rule}: expected a group `(?<value>…)` in the pattern, found none")]
    NoValue {
        /// The rule.
        rule: String,
    },
    /// Nothing says where to look.
    #[error("rule {rule}: expected at least one hint of {HINT_BYTES_MIN} bytes or more")]
    NoHints {
        /// The rule.
        rule: String,
    },
    /// A shape that is not defined, or is defined by itself.
    #[error("rule {rule}: expected shapes that are defined and not nested deeper than 8")]
    Shape {
        /// The rule.
        rule: String,
    },
    /// An example does not come out as it says.
    #[error("rule {rule}: expected its example {example:?} to give {expected:?}, found {found:?}")]
    Example {
        /// The rule.
        rule: String,
        /// The text.
        example: String,
        /// The value; empty, where there should be none.
        expected: String,
        /// What the rule finds.
        found: Vec<String>,
    },
    /// A rule that only changes a transform names no other rule.
    #[error("rule {rule}: expected a pattern, or the name of a built-in rule")]
    Unknown {
        /// The rule.
        rule: String,
    },
    /// There are too many, or they are too large together.
    #[error(
        "expected at most {RULES_MAX} rules and hints that fit into memory, found {found} rules"
    )]
    TooMany {
        /// How many.
        found: usize,
    },
}

/// A file of rules.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    shapes: BTreeMap<String, String>,
    pub(super) rule: Vec<RawRule>,
    pub(super) guard: Vec<Language>,
}

/// A rule as it is written; [`Rules::parse`] says whether it is one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transform: Option<Transform>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    near: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reach: Option<usize>,
    /// Texts with the value that is found in each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) found: Vec<(String, String)>,
    /// Texts in which nothing is found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left: Vec<String>,
}

/// Reads `base`, then `more`.
pub(super) fn parse(base: &str, more: &str) -> Result<Rules, RulesError> {
    let raw: Raw = toml::from_str(base)?;
    let (mut shapes, mut rules) = (raw.shapes, Vec::new());
    let added: Raw = toml::from_str(more)?;
    // A test reads the base as it is; shapes can make another pattern of each.
    let tested = if added.shapes.is_empty() {
        raw.rule.len()
    } else {
        0
    };
    shapes.extend(added.shapes);
    let examples: Vec<Examples> = added.rule.iter().map(Examples::of).collect();
    rules.extend(raw.rule);
    let built_in = rules.len();
    if !added.guard.is_empty() {
        return Err(RulesError::Guard);
    }
    for rule in added.rule {
        if rule.pattern.is_some() {
            rules.push(rule);
            continue;
        }
        let named = rules.iter_mut().filter(|known| known.name == rule.name);
        let mut changed = 0_usize;
        for known in named {
            known.transform = rule.transform;
            changed = changed.saturating_add(1);
        }
        if changed == 0 {
            return Err(RulesError::Unknown { rule: rule.name });
        }
    }
    if rules.len() > RULES_MAX {
        return Err(RulesError::TooMany { found: rules.len() });
    }
    let mut guards = Guards::new(&shapes, &raw.guard);
    let mut hints = Vec::new();
    let mut owners = Vec::new();
    let mut checked = Vec::new();
    for (index, rule) in rules.into_iter().enumerate() {
        for hint in &rule.hints {
            hints.push(hint.clone());
            owners.push(index);
        }
        let mut rule = check(rule, &shapes)?;
        if index < built_in {
            rule.guard = guards.of(&rule);
        }
        if index >= tested {
            rule.check_pattern()?;
        }
        checked.push(rule);
    }
    let found = checked.len();
    let rules = Rules {
        rules: checked,
        hints: search(&hints).ok_or(RulesError::TooMany { found })?,
        owners,
        source: format!("{base}{SEPARATOR}{more}"),
    };
    examples
        .iter()
        .try_for_each(|examples| examples.check(&rules))?;
    Ok(rules)
}

/// The tests of a rule.
pub(super) struct Examples {
    rule: String,
    /// Texts with the value that is found; none, where nothing is to be found.
    texts: Vec<(String, Option<String>)>,
}

impl Examples {
    pub(super) fn of(rule: &RawRule) -> Self {
        let found = rule.found.iter().cloned();
        let found = found.map(|(text, value)| (text, Some(value)));
        let left = rule.left.iter().map(|text| (text.clone(), None));
        Self {
            rule: rule.name.clone(),
            texts: found.chain(left).collect(),
        }
    }

    /// Whether `rules` find what the rule says that it finds, and leave what it leaves.
    pub(super) fn check(&self, rules: &Rules) -> Result<(), RulesError> {
        for (text, expected) in &self.texts {
            let all = rules.find_in_text(text).into_iter();
            let own =
                all.filter(|(_, rule)| rules.rule(*rule).is_some_and(|r| r.name == self.rule));
            let own = own.filter_map(|(range, _)| text.get(range).map(str::to_owned));
            let found: Vec<String> = own.collect();
            let is_as_told = match expected {
                Some(expected) => found.contains(expected),
                None => found.is_empty(),
            };
            if !is_as_told {
                return Err(RulesError::Example {
                    rule: self.rule.clone(),
                    example: text.clone(),
                    expected: expected.clone().unwrap_or_default(),
                    found,
                });
            }
        }
        Ok(())
    }
}

fn check(raw: RawRule, shapes: &BTreeMap<String, String>) -> Result<Rule, RulesError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if raw.name.is_empty() || raw.name.len() > NAME_BYTES_MAX || !raw.name.bytes().all(plain) {
        return Err(RulesError::Name { name: raw.name });
    }
    let is_learned = raw.name == RULE && raw.pattern.is_none();
    if !is_learned && raw.hints.is_empty()
        || raw.hints.iter().any(|hint| hint.len() < HINT_BYTES_MIN)
    {
        return Err(RulesError::NoHints { rule: raw.name });
    }
    if is_learned {
        return Ok(Rule {
            kind: raw.kind.unwrap_or_else(|| raw.name.clone()),
            name: raw.name,
            transform: raw.transform.unwrap_or_default(),
            pattern: None,
            near: None,
            guard: None,
            reach: 0,
        });
    }
    let Some(pattern) = expand(&raw.pattern.unwrap_or_default(), shapes) else {
        return Err(RulesError::Shape { rule: raw.name });
    };
    let near = (!raw.near.is_empty()).then(|| search(&raw.near));
    Ok(Rule {
        kind: raw.kind.unwrap_or_else(|| raw.name.clone()),
        name: raw.name,
        transform: raw.transform.unwrap_or_default(),
        pattern: Some(Pattern::new(pattern)),
        near: near.flatten(),
        guard: None,
        reach: raw.reach.unwrap_or(REACH_BYTES).min(REACH_BYTES_MAX),
    })
}

impl Rule {
    /// Whether the pattern is one, and takes a value.
    fn check_pattern(&self) -> Result<(), RulesError> {
        let rule = || self.name.clone();
        let Some(pattern) = &self.pattern else {
            return Ok(());
        };
        let ready = pattern.ready().map_err(|source| RulesError::Pattern {
            rule: rule(),
            source: Box::new(source.clone()),
        })?;
        if ready.capture_names().any(|name| name == Some("value")) {
            Ok(())
        } else {
            Err(RulesError::NoValue { rule: rule() })
        }
    }
}

fn search(texts: &[String]) -> Option<AhoCorasick> {
    // A table for each state would take 2.7 MiB instead of 0.2 for the hints of all rules, and is looked
    // through in 2.6 ns a byte instead of 3.1: less than it costs others to have it in the cache.
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(texts)
        .ok()
}

/// Puts shapes in the place of their names. `{` that begins a repetition is followed by a digit.
pub(super) fn expand(pattern: &str, shapes: &BTreeMap<String, String>) -> Option<String> {
    let mut expanded = pattern.to_owned();
    for _ in 0..SHAPE_DEPTH_MAX {
        let before = expanded.clone();
        for (name, shape) in shapes {
            let reference = format!("{{{name}}}");
            if expanded.contains(&reference) {
                expanded = expanded.replace(&reference, shape);
            }
        }
        if expanded == before {
            return Some(expanded);
        }
        if expanded.len() > PATTERN_TEXT_BYTES_MAX {
            return None;
        }
    }
    None
}

/// Reads what [`Rules::source`] gave.
pub(super) fn from_source(source: &str) -> Result<Rules, RulesError> {
    let (base, more) = source.split_once(SEPARATOR).unwrap_or((source, ""));
    parse(base, more)
}

/// Between the built-in rules and those of the configuration, in the text of a set.
const SEPARATOR: &str = "\n#### configuration\n";
/// Rules of a set.
const RULES_MAX: usize = 256;
/// The longest name of a rule, in bytes: it stands in prompts.
const NAME_BYTES_MAX: usize = 40;
/// The shortest hint, in bytes: a shorter one would be everywhere.
const HINT_BYTES_MIN: usize = 3;
/// The longest reach of a rule, in bytes.
const REACH_BYTES_MAX: usize = 64 << 10;
/// The longest pattern, shapes expanded, in bytes.
const PATTERN_TEXT_BYTES_MAX: usize = 64 << 10;
/// How deep shapes may be nested.
const SHAPE_DEPTH_MAX: usize = 8;
