//! The rules in force, and those that older conversations go by.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use weir_core::rewrite::{RuleSet, RulesId};
use weir_core::volatile::Rules;

use super::Rewriter;
use crate::process::config;

/// Sets of rules by their names, and the name of the one that a text of the configuration makes.
#[derive(Debug, Default)]
pub(super) struct Sets {
    known: HashMap<RulesId, Arc<Rules>>,
    configured: Option<(String, RulesId)>,
    /// The set whose text was written down last.
    pub(super) kept: Option<RulesId>,
}

impl Rewriter {
    /// The rules that the configuration asks for. The text was checked when it was read.
    pub(super) fn configured(&self, config: &config::Cache) -> Option<RuleSet> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((text, id)) = &sets.configured
            && *text == config.rules
        {
            let rules = sets.known.get(id).map(Arc::clone)?;
            return Some(RuleSet {
                id: *id,
                rules,
                learned: None,
            });
        }
        let mut set = RuleSet::new(Rules::parse(&config.rules).ok()?, &self.key);
        sets.configured = Some((config.rules.clone(), set.id));
        // One that was in force before is the same: heads are remembered by it.
        let known = sets.known.entry(set.id).or_insert(set.rules);
        set.rules = Arc::clone(known);
        Some(set)
    }

    /// The rules that an older conversation goes by.
    pub(super) fn rules(&self, id: RulesId) -> Option<Arc<Rules>> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = sets.known.get(&id) {
            return Some(Arc::clone(rules));
        }
        let rules = Arc::new(Rules::from_source(&self.store.rules(id)?).ok()?);
        if sets.known.len() < RULE_SETS_MAX {
            sets.known.insert(id, Arc::clone(&rules));
        }
        Some(rules)
    }
}

/// Sets of rules held at the same time: that in force, and those of conversations from before.
const RULE_SETS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    #[test]
    fn rules_that_come_back_are_those_that_were_in_force() {
        let state = tempfile::tempdir().unwrap();
        let untold = IntCounter::new("untold", "untold").unwrap();
        let rewriter = Rewriter::open(state.path(), None, None, untold).unwrap();
        let by = |rules: &str| {
            let config = config::Cache {
                rules: rules.to_owned(),
                ..config::Cache::default()
            };
            rewriter.configured(&config).unwrap().rules
        };
        let first = by("");
        let other = by("[[rule]]\nname = \"current-date\"\ntransform = \"keep\"");
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(Arc::ptr_eq(&first, &by("")));
    }
}
