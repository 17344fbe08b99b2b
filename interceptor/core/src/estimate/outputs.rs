//! How long answers are, learned from those before: what a call will probably cost depends on it
//! more than on anything else, and what it may cost at most is mostly many times as much.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

/// The lengths of answers, by workload and model, and by model alone for workloads that are new.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outputs {
    #[serde(default)]
    workloads: HashMap<String, Lengths>,
    #[serde(default)]
    models: HashMap<String, Lengths>,
}

impl Outputs {
    /// Tokens that nine answers of ten do not exceed, of those that this workload (a key, or a
    /// program) got of the model lately; of all workloads, where it has had few; and never less
    /// than a floor.
    #[must_use]
    pub fn expected(&self, workload: &str, model: &str) -> u64 {
        let of_workload = self.workloads.get(&of(workload, model));
        let lengths = [of_workload, self.models.get(model)];
        lengths
            .into_iter()
            .flatten()
            .find(|lengths| lengths.count() >= ANSWERS_MIN)
            .map_or(TOKENS_AT_FIRST, |lengths| {
                lengths.quantile(QUANTILE_PERCENT)
            })
            .max(TOKENS_FLOOR)
    }

    /// Learns from an answer of so many tokens.
    pub fn learn(&mut self, workload: &str, model: &str, tokens: u64) {
        if let Some(lengths) = entry(&mut self.workloads, of(workload, model), WORKLOADS_MAX) {
            lengths.add(tokens);
        }
        if let Some(lengths) = entry(&mut self.models, model.to_owned(), MODELS_MAX) {
            lengths.add(tokens);
        }
    }
}

fn of(workload: &str, model: &str) -> String {
    [workload, " ", model].concat()
}

/// The entry of `key`; where there is no room for a new one, it takes that of any other: what was
/// learned there is learned again in a few calls.
pub(super) fn entry<K: Clone + Eq + Hash, V: Default>(
    map: &mut HashMap<K, V>,
    key: K,
    most: usize,
) -> Option<&mut V> {
    if map.len() >= most && !map.contains_key(&key) {
        let any = map.keys().next().cloned()?;
        map.remove(&any);
    }
    Some(map.entry(key).or_default())
}

/// How many answers had which length, the recent ones counting more.
///
/// Lengths are told apart to half a power of two, so that a quantile is at most half too high.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Lengths(Vec<u16>);

impl Lengths {
    fn add(&mut self, tokens: u64) {
        let at = bucket(tokens);
        if self.0.len() <= at {
            self.0.resize(at.saturating_add(1), 0);
        }
        if let Some(count) = self.0.get_mut(at) {
            *count = count.saturating_add(1);
        }
        if self.count() > ANSWERS_KEPT {
            self.0
                .iter_mut()
                .for_each(|count| *count = count.div_euclid(2));
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// The upper end of the bucket up to which that share of the answers is.
    fn quantile(&self, percent: u64) -> u64 {
        let wanted = self.count().saturating_mul(percent).div_ceil(100);
        let mut seen = 0_u64;
        for (at, count) in self.0.iter().enumerate() {
            seen = seen.saturating_add(u64::from(*count));
            if seen >= wanted {
                return upper(at);
            }
        }
        upper(BUCKETS)
    }
}

/// Two buckets for each power of two: below and from one and a half times it on.
fn bucket(tokens: u64) -> usize {
    let Some(power) = tokens.checked_ilog2() else {
        return 0;
    };
    let half = 1_u64
        .checked_shl(power)
        .map_or(0, |start| start.saturating_add(start.div_euclid(2)));
    let power = usize::try_from(power).unwrap_or(BUCKETS);
    let at = power
        .saturating_mul(2)
        .saturating_add(usize::from(tokens >= half));
    at.min(BUCKETS)
}

/// The largest number of a bucket.
fn upper(at: usize) -> u64 {
    let power = u32::try_from(at.div_euclid(2)).unwrap_or(u32::MAX);
    let start = 1_u64.checked_shl(power).unwrap_or(u64::MAX);
    let end = if at.is_multiple_of(2) {
        start.saturating_add(start.div_euclid(2))
    } else {
        start.saturating_mul(2)
    };
    end.saturating_sub(1).max(1)
}

/// The last bucket: answers of a million tokens and more.
const BUCKETS: usize = 40;
/// The share of answers that are no longer than what is expected, in percent.
const QUANTILE_PERCENT: u64 = 90;
/// So many answers tell their usual length.
const ANSWERS_MIN: u64 = 8;
/// Beyond so many, what was counted before counts half.
const ANSWERS_KEPT: u64 = 200;
/// The answer of a model that is not known yet, in tokens.
const TOKENS_AT_FIRST: u64 = 2048;
/// Less is never expected: short answers do not mean that the next one is.
const TOKENS_FLOOR: u64 = 128;
/// Workloads, each with a model, whose lengths are kept; about 200 bytes each.
const WORKLOADS_MAX: usize = 4096;
/// Models whose lengths are kept.
const MODELS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_in_the_bucket_whose_end_is_next() {
        let mut at = 0;
        for tokens in [
            2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 1000, 1535, 1536, 2047, 2048,
        ] {
            assert!(bucket(tokens) >= at);
            at = bucket(tokens);
            assert!(tokens <= upper(at), "{tokens}");
            assert!(at == 0 || tokens > upper(at - 1), "{tokens}");
            assert!(
                upper(at) <= tokens.saturating_mul(3).div_ceil(2),
                "{tokens}"
            );
        }
        assert_eq!((bucket(0), bucket(1)), (0, 1));
        assert_eq!(bucket(u64::MAX), BUCKETS);
    }

    #[test]
    fn nine_answers_of_ten_are_not_longer_than_expected() {
        let mut outputs = Outputs::default();
        for round in 0..100_u64 {
            let tokens = if round % 10 == 9 { 30_000 } else { 300 };
            outputs.learn("agent", "m", tokens);
        }
        let expected = outputs.expected("agent", "m");
        assert!((300..450).contains(&expected), "{expected}");
    }

    #[test]
    fn a_new_workload_is_expected_to_answer_as_others_do_and_a_new_model_as_most() {
        let mut outputs = Outputs::default();
        assert_eq!(outputs.expected("agent", "m"), TOKENS_AT_FIRST);
        for _ in 0..8 {
            outputs.learn("agent", "m", 5000);
        }
        assert_eq!(
            outputs.expected("chat", "m"),
            outputs.expected("agent", "m")
        );
        assert_eq!(outputs.expected("agent", "n"), TOKENS_AT_FIRST);
        for _ in 0..8 {
            outputs.learn("chat", "m", 1);
        }
        assert_eq!(outputs.expected("chat", "m"), TOKENS_FLOOR);
        assert!(outputs.expected("agent", "m") >= 5000);
    }

    #[test]
    fn what_was_lately_counts_more() {
        let mut outputs = Outputs::default();
        for _ in 0..1000 {
            outputs.learn("agent", "m", 100_000);
        }
        for _ in 0..1000 {
            outputs.learn("agent", "m", 200);
        }
        assert!(outputs.expected("agent", "m") < 300);
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let mut outputs = Outputs::default();
        for round in 0..WORKLOADS_MAX.saturating_mul(2) {
            outputs.learn(&round.to_string(), &round.to_string(), 1);
        }
        assert_eq!(outputs.workloads.len(), WORKLOADS_MAX);
        assert_eq!(outputs.models.len(), MODELS_MAX);
    }
}
