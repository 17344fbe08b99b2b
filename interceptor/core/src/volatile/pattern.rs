//! A pattern that is made ready by the first text that has one of its hints.
//!
//! Ready it takes some 200 KiB, and most texts have hints of a few rules alone.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// The pattern of a rule, shapes expanded.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    ready: OnceLock<Result<Regex, regex::Error>>,
}

impl Pattern {
    pub(super) const fn new(text: String) -> Self {
        Self {
            text,
            ready: OnceLock::new(),
        }
    }

    /// The pattern, ready for a search.
    ///
    /// # Errors
    /// The text is none.
    pub(super) fn ready(&self) -> Result<&Regex, &regex::Error> {
        let make = || {
            RegexBuilder::new(&self.text)
                .size_limit(PATTERN_BYTES_MAX)
                .build()
        };
        self.ready.get_or_init(make).as_ref()
    }
}

/// What a pattern may take once it is ready, in bytes.
const PATTERN_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::super::Rules;

    fn ready(rules: &Rules) -> Vec<&str> {
        let is_ready = |pattern: &super::Pattern| pattern.ready.get().is_some();
        let rules = rules.all().iter();
        let ready = rules.filter(|rule| rule.pattern.as_ref().is_some_and(is_ready));
        ready.map(|rule| rule.name.as_str()).collect()
    }

    #[test]
    fn only_patterns_whose_hints_were_found_are_made_ready() {
        let rules = Rules::builtin().unwrap();
        assert_eq!(ready(&rules), [""; 0]);
        let found = rules.find_in_text("Working directory: /srv/app");
        assert_eq!(found.len(), 1);
        assert_eq!(ready(&rules), ["working-directory"]);
        rules.make_ready();
        let patterns = rules.all().iter().filter(|rule| rule.pattern.is_some());
        assert_eq!(ready(&rules).len(), patterns.count());
        let guards = rules.all().iter().filter_map(|rule| rule.guard.as_ref());
        assert!(guards.count() > 10);
        let mut guards = rules.all().iter().filter_map(|rule| rule.guard.as_ref());
        assert!(guards.all(|guard| matches!(guard.pattern().ready.get(), Some(Ok(_)))));
    }

    #[test]
    fn patterns_of_the_configuration_are_checked_at_once() {
        let more = "[[rule]]\nname = \"x\"\nhints = [\"abc\"]\npattern = 'abc (?<value>.)'";
        assert_eq!(ready(&Rules::parse(more).unwrap()), ["x"]);
        let other_shape = "[shapes]\nmoment = '('";
        assert!(Rules::parse(other_shape).is_err());
    }
}
