//! How model names are spelled, and which names mean the same model.
//!
//! One model has many names: with a date, with the prefix of a gateway or of a region, inside an
//! ARN, with the suffix of a client. All that are spelled by a rule are taken apart here and looked
//! up in an index; only what is left is held against the patterns of a list, one by one.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::file::Model;

/// A name to look up, in lower case, and what the name itself asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spelling {
    pub(super) name: String,
    pub(super) fast: bool,
}

/// The spellings under which a model may be listed, the most specific first.
///
/// As it came; without the suffix of a client (`[1m]`); the last part of a path (`anthropic/…`, an
/// ARN); without the variant of a gateway (`:nitro`; one that is `:free` has none of the prices
/// that are listed), the version of a Bedrock id (`-v1:0`) and the date; as a global or regional row of Bedrock; without
/// the vendor (`anthropic.`); with dashes for dots, as Anthropic spells; and all that once more
/// without `-fast`, which asks for that mode.
pub(super) fn spellings(model: &str) -> Vec<Spelling> {
    let model = decoded(model).to_ascii_lowercase();
    let whole = model.split('[').next().unwrap_or_default();
    let bare = whole.rsplit('/').next().unwrap_or_default();
    let mut spellings = Vec::with_capacity(SPELLINGS_USUAL);
    if bare.ends_with(FREE) {
        return spellings;
    }
    add(&mut spellings, whole, false);
    variations(&mut spellings, bare, false);
    if let Some(slow) = undated(bare).strip_suffix("-fast") {
        variations(&mut spellings, slow, true);
    }
    spellings
}

/// The names under which a model may be listed, without what they ask for beside it.
pub(crate) fn spellings_of(model: &str) -> Vec<String> {
    let spellings = spellings(model).into_iter();
    spellings.map(|spelling| spelling.name).collect()
}

fn variations(spellings: &mut Vec<Spelling>, bare: &str, fast: bool) {
    add(spellings, bare, fast);
    let plain = unversioned(bare);
    add(spellings, plain, fast);
    let undated = undated(plain);
    add(spellings, undated, fast);
    let Some((scope, vendor, name)) = of_bedrock(undated) else {
        if name_of_claude(undated).contains('.') {
            add(spellings, &undated.replace('.', "-"), fast);
        }
        return;
    };
    add(spellings, &format!("{scope}.{vendor}.{name}"), fast);
    add(spellings, &format!("{vendor}.{name}"), fast);
    add(spellings, name, fast);
}

fn add(spellings: &mut Vec<Spelling>, name: &str, fast: bool) {
    if !name.is_empty() && !spellings.iter().any(|spelling| spelling.name == name) {
        let name = name.to_owned();
        spellings.push(Spelling { name, fast });
    }
}

/// `%3A` and `%2F` of an id in a path, undone once.
fn decoded(name: &str) -> Cow<'_, str> {
    let mut decoded = Cow::Borrowed(name);
    if !name.contains('%') {
        return decoded;
    }
    for (escape, sign) in [("%3a", ":"), ("%3A", ":"), ("%2f", "/"), ("%2F", "/")] {
        if decoded.contains(escape) {
            decoded = decoded.replace(escape, sign).into();
        }
    }
    decoded
}

/// The name, if it is Claude's; else nothing, which has no dot to change.
fn name_of_claude(name: &str) -> &str {
    if name.starts_with("claude-") {
        name
    } else {
        ""
    }
}

/// Without `:nitro`, `:0`, `-v1`.
pub(super) fn unversioned(name: &str) -> &str {
    let name = name.split(':').next().unwrap_or_default();
    match name.rsplit_once("-v") {
        Some((before, digits))
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            before
        }
        _ => name,
    }
}

/// Without a date at its end: `-20261014`, `@20261014`, `-2026-10-14`; also without `-latest`.
pub(super) fn undated(name: &str) -> &str {
    if let Some(before) = name.strip_suffix("-latest") {
        return before;
    }
    for length in [9_usize, 11] {
        let Some((before, date)) = name
            .len()
            .checked_sub(length)
            .and_then(|at| name.split_at_checked(at))
        else {
            continue;
        };
        if is_revision_or_nothing(date.as_bytes()) {
            return before;
        }
    }
    name
}

/// Scope, vendor and name of a Bedrock id. An id without a prefix stays in its region, which
/// costs what a profile of several regions does; only `global.` is cheaper.
fn of_bedrock(id: &str) -> Option<(&'static str, &str, &str)> {
    let (first, rest) = id.split_once('.')?;
    if BEDROCK_VENDORS.contains(&first) {
        return Some(("regional", first, rest));
    }
    let (vendor, name) = rest.split_once('.')?;
    let scope = if first == "global" { first } else { "regional" };
    let scope: &'static str = if scope == "global" {
        "global"
    } else {
        "regional"
    };
    BEDROCK_VENDORS
        .contains(&vendor)
        .then_some((scope, vendor, name))
}

/// The names of some models: those that are spelled out in an index, and the patterns.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: HashMap<Box<str>, usize>,
    /// Which model has one, and as which of its rules.
    patterns: Vec<(usize, usize)>,
}

impl Names {
    /// Of two models with one name, the first has it.
    pub(super) fn of(models: &[Model]) -> Self {
        let mut names = Self::default();
        for (at, model) in models.iter().enumerate() {
            for (number, rule) in model.rules.iter().enumerate() {
                match rule.spelled_out() {
                    Some(name) => names.spell(name, at),
                    None => names.patterns.push((at, number)),
                }
                if let Some(name) = &rule.dated {
                    names.spell(name, at);
                }
            }
        }
        for (at, model) in models.iter().enumerate() {
            names.spell(&model.id, at);
            names.spell(unversioned(&model.id), at);
            names.spell(undated(unversioned(&model.id)), at);
        }
        names
    }

    fn spell(&mut self, name: &str, at: usize) {
        let name = name.to_ascii_lowercase().into();
        self.exact.entry(name).or_insert(at);
    }

    /// Which of the `models` that they are the names of is meant, and whether its fast mode is. A name
    /// that is spelled out goes before any pattern.
    pub(super) fn find(&self, models: &[Model], spellings: &[Spelling]) -> Option<(usize, bool)> {
        let spelled_out = spellings
            .iter()
            .find_map(|spelling| Some((*self.exact.get(spelling.name.as_str())?, spelling.fast)));
        spelled_out.or_else(|| {
            spellings.iter().find_map(|spelling| {
                let (at, _) = self.patterns.iter().find(|(at, number)| {
                    let rule = models.get(*at).and_then(|model| model.rules.get(*number));
                    rule.is_some_and(|rule| rule.matches(&spelling.name))
                })?;
                Some((*at, spelling.fast))
            })
        })
    }
}

/// A rule that a name must satisfy in all its parts. ASCII case does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) equals: Option<Box<str>>,
    /// The name itself, or with the date or number of a revision behind it: `-20261014`,
    /// `@20261014`, `-2026-10-14`, `-0309`, `-001`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dated: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) starts_with: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ends_with: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) contains: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) without: Option<Box<str>>,
}

impl Rule {
    /// A rule for one name.
    pub(super) fn equals(name: &str) -> Self {
        Self {
            equals: Some(name.into()),
            ..Self::default()
        }
    }

    /// The name, if the rule is for just one.
    fn spelled_out(&self) -> Option<&str> {
        let name = self.equals.as_deref()?;
        (*self == Self::equals(name)).then_some(name)
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        holds(self.equals.as_deref(), |text| {
            name.eq_ignore_ascii_case(text)
        }) && holds(self.dated.as_deref(), |text| {
            strip_prefix(name, text).is_some_and(is_revision_or_nothing)
        }) && holds(self.starts_with.as_deref(), |text| {
            strip_prefix(name, text).is_some()
        }) && holds(self.ends_with.as_deref(), |text| {
            name.len()
                .checked_sub(text.len())
                .and_then(|start| name.get(start..))
                .is_some_and(|end| end.eq_ignore_ascii_case(text))
        }) && holds(self.contains.as_deref(), |text| contains(name, text))
            && holds(self.without.as_deref(), |text| !contains(name, text))
    }

    /// Whether the rule asks for anything beyond the absence of something.
    pub(super) const fn is_selective(&self) -> bool {
        self.equals.is_some()
            || self.dated.is_some()
            || self.starts_with.is_some()
            || self.ends_with.is_some()
            || self.contains.is_some()
    }
}

fn holds(text: Option<&str>, test: impl FnOnce(&[u8]) -> bool) -> bool {
    text.is_none_or(|text| test(text.as_bytes()))
}

fn strip_prefix<'a>(name: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    // Names of one maker begin alike, so the ends of the prefixes tell most of them apart.
    let ends_alike = match (start.last(), prefix.last()) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        _ => true,
    };
    (ends_alike && start.eq_ignore_ascii_case(prefix)).then_some(rest)
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len().max(1))
        .any(|window| window.eq_ignore_ascii_case(part))
}

/// One digit is a version, not a revision: `claude-opus-5-5` is not a `claude-opus-5`.
fn is_revision_or_nothing(rest: &[u8]) -> bool {
    let Some((separator, digits)) = rest.split_first() else {
        return true;
    };
    let mut groups = digits.split(|byte| *byte == b'-').map(|group| {
        let all_digits = group.iter().all(u8::is_ascii_digit);
        if all_digits { group.len() } else { 0 }
    });
    let lengths = [groups.next(), groups.next(), groups.next(), groups.next()];
    matches!(separator, b'-' | b'@')
        && matches!(
            lengths,
            [Some(3 | 4 | 8), None, ..] | [Some(4), Some(2), Some(2), None]
        )
}

/// Who sells models at Bedrock: the part of an id before the model.
const BEDROCK_VENDORS: [&str; 17] = [
    "ai21",
    "amazon",
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "luma",
    "meta",
    "minimax",
    "mistral",
    "moonshot",
    "moonshotai",
    "nvidia",
    "openai",
    "qwen",
    "stability",
    "zai",
];

/// The variant of a gateway's model that costs nothing.
const FREE: &str = ":free";
/// Room for the spellings of most names.
const SPELLINGS_USUAL: usize = 6;

#[cfg(test)]
mod tests {
    use super::super::PriceTable;
    use super::super::tests::{call, dollars, models_of, rates, rows};

    #[test]
    fn every_spelling_of_a_model_finds_its_price_and_no_other() {
        let list = rows(
            "anthropic | claude-opus-5-5-20261014   | 4 20 0.2 5 8
             anthropic | claude-opus-5-20260724     | 5 25 0.5 6.25 10
             anthropic | claude-opus-5@20260724     | 5 25 0.5 6.25 10
             anthropic | claude-opus-5-2026-07-24   | 5 25 0.5 6.25 10
             anthropic | claude-opus-5-latest       | 5 25 0.5 6.25 10
             anthropic | Claude-Opus-5-5            | 4 20 0.2 5 8
             anthropic | claude-opus-5-5[1m]        | 4 20 0.2 5 8
             anthropic | claude-opus-5-5-fast       | 8 40 0.4 10 16
             anthropic | anthropic/claude-opus-5.5  | 4 20 0.2 5 8
             openai    | gpt-6.1-sol-2026-11-03     | 2 10 0.1 2.5 5
             openai    | gpt-5.6                    | 4 20 0.4 5 10
             google    | models/gemini-4-argon-001  | 2 10 0.1 2 2
             google    | claude-opus-5-5@20261014   | 4 20 0.2 5 8
             google    | gemini-2.5-pro-preview-tts | none
             anthropic | claude-opus-5-6            | none
             anthropic | claude-opus-5-6-20270101   | none
             anthropic | claude-opus-55             | none
             anthropic | gpt-6-astra                | none
             anthropic |                            | none
             anthropic | claude                     | none
             openai    | gpt-6-astra-preview        | none
             openai    | /[-fast                    | none",
        );
        for [provider, model, expected] in list {
            let rates = PriceTable::builtin().rates(&call(provider, model), 1000);
            let found = rates.as_ref().map_or_else(|| "none".to_owned(), dollars);
            assert_eq!(found, expected, "{provider} {model}");
        }
    }

    #[test]
    fn every_model_is_found_by_its_own_id_as_itself() {
        let table = PriceTable::builtin();
        let mut found = 0;
        for model in models_of(table) {
            let context = call(&model.provider, &model.id);
            assert_eq!(
                table.quote(&context).unwrap().id(),
                Some(&*model.id),
                "{context:?}"
            );
            found += 1;
        }
        assert_eq!(found, 325);
    }

    #[test]
    fn a_provider_that_is_not_listed_gets_the_list_price_of_the_maker() {
        for model in [
            "claude-opus-5-5",
            "anthropic/claude-opus-5.5",
            "claude-opus-5-5-20261014",
        ] {
            let rates = rates(&call("configured", model), 1000);
            assert_eq!(
                (dollars(&rates).as_str(), rates.notional),
                ("4 20 0.2 5 8", true),
                "{model}"
            );
        }
        let sold_by_several = rates(&call("openrouter", "openai/gpt-6-astra"), 1000);
        assert_eq!(dollars(&sold_by_several), "10 50 1 12.5 25");
        for model in ["llama-3.3-70b", "my-model", ""] {
            assert_eq!(
                PriceTable::builtin().rates(&call("configured", model), 1000),
                None,
                "{model}"
            );
        }
        assert!(!rates(&call("anthropic", "claude-opus-5-5"), 1000).notional);
    }

    #[test]
    fn no_model_of_a_maker_is_claimed_by_another_maker() {
        let table = PriceTable::builtin();
        let makers_models = || models_of(table).filter(|model| !model.resold);
        for model in makers_models() {
            for other in makers_models().filter(|other| other.provider != model.provider) {
                assert!(
                    !other.rules.iter().any(|rule| rule.matches(&model.id)),
                    "{} of {} and {}",
                    model.id,
                    model.provider,
                    other.provider
                );
            }
        }
    }
}
