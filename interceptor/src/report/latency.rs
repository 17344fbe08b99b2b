//! Percentiles of durations in little memory: values are kept to three digits, counted.

use std::collections::BTreeMap;

/// Durations, in microseconds: at most 900 counters for each power of ten, whatever their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Latencies(BTreeMap<u64, u64>);

impl Latencies {
    pub(super) fn add(&mut self, micros: u64) {
        let count = self.0.entry(to_three_digits(micros)).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (micros, more) in &other.0 {
            let count = self.0.entry(*micros).or_default();
            *count = count.saturating_add(*more);
        }
    }

    /// The least of them that so many thousandths of all do not exceed.
    pub(super) fn permille(&self, share: u64) -> Option<u64> {
        let all: u64 = self.0.values().sum();
        let wanted = all.saturating_mul(share).div_ceil(1000);
        let mut counted = 0_u64;
        self.0.iter().find_map(|(micros, count)| {
            counted = counted.saturating_add(*count);
            (counted >= wanted).then_some(*micros)
        })
    }
}

fn to_three_digits(value: u64) -> u64 {
    let unit = 10_u64.pow(value.checked_ilog10().unwrap_or(0).saturating_sub(2));
    value - value % unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list_to_three_digits() {
        let mut odd = Latencies::default();
        let mut even = Latencies::default();
        for micros in 1..=100_000_u64 {
            let half = if micros % 2 == 0 { &mut even } else { &mut odd };
            half.add(micros);
        }
        odd.merge(&even);
        for (share, expected) in [(0, 1), (500, 50_000), (950, 95_000), (1000, 100_000)] {
            assert_eq!(odd.permille(share), Some(expected), "{share}");
        }
        assert_eq!(Latencies::default().permille(500), None);
    }

    #[test]
    fn memory_does_not_grow_with_the_number_of_calls() {
        let mut all = Latencies::default();
        (0..200_000_u64).for_each(|n| all.add(n * 977));
        assert!(all.0.len() <= 900 * 9, "{}", all.0.len());
        assert_eq!(to_three_digits(u64::MAX), 18_400_000_000_000_000_000);
    }
}
