//! How model names are spelled, and which names mean the same model.

use serde::Deserialize;

/// A name to look up, in lower case, and what the name itself asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spelling<'a> {
    pub(super) name: &'a str,
    pub(super) fast: bool,
}

/// The spellings under which a model may be listed, the most specific first: as it came, without
/// the suffixes of clients (`[1m]`, `-fast`), and without the prefixes of gateways (`anthropic/…`).
pub(super) fn spellings(model: &str) -> Vec<Spelling<'_>> {
    let whole = model.split('[').next().unwrap_or_default();
    let bare = whole.rsplit('/').next().unwrap_or_default();
    let mut spellings = vec![Spelling {
        name: whole,
        fast: false,
    }];
    if bare != whole {
        spellings.push(Spelling {
            name: bare,
            fast: false,
        });
    }
    if let Some(slow) = bare.strip_suffix("-fast") {
        spellings.push(Spelling {
            name: slow,
            fast: true,
        });
    }
    spellings
}

/// A rule that a name must satisfy in all its parts. ASCII case does not count.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    equals: Option<String>,
    /// The name itself, or with the date or number of a revision behind it: `-20261014`,
    /// `@20261014`, `-2026-10-14`, `-0309`, `-001`.
    dated: Option<String>,
    starts_with: Option<String>,
    ends_with: Option<String>,
    contains: Option<String>,
    without: Option<String>,
}

impl Rule {
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
    start.eq_ignore_ascii_case(prefix).then_some(rest)
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
    let groups: Vec<&[u8]> = digits.split(|byte| *byte == b'-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    matches!(separator, b'-' | b'@')
        && groups
            .iter()
            .all(|group| group.iter().all(u8::is_ascii_digit))
        && matches!(lengths.as_slice(), [3 | 4 | 8] | [4, 2, 2])
}

#[cfg(test)]
mod tests {
    use super::super::PriceTable;
    use super::super::tests::{call, dollars, rates, rows};

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
        for (provider, models) in &table.providers {
            for model in models {
                // Ids of Bedrock and Fireworks stand for several names or for paths.
                if let Some(other) = table.find(provider, &model.id) {
                    assert_eq!(other.model.id, model.id, "{provider}");
                    found += 1;
                }
            }
        }
        assert!(found > 250, "{found}");
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
        let makers_models = || {
            table
                .providers
                .values()
                .flatten()
                .filter(|model| !model.resold)
        };
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
