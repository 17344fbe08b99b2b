//! Histories that their providers refused, so that nothing is sent again that will be refused again.
//!
//! A signature is bound to all that stands before it: a prompt that begins with all that another had up
//! to its last answer is refused as that one was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use weir_core::prompt::Fingerprint;

/// What was refused lately.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Fingerprint, i64>>);

impl Refusals {
    /// Notes that a call was refused whose prompt up to its last answer is `history`.
    pub(super) fn note(&self, history: Fingerprint, now_s: i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REFUSALS_MAX {
            let oldest = known.iter().min_by_key(|(_, at_s)| **at_s);
            let oldest = oldest.map(|(history, _)| *history);
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(history, now_s);
    }

    /// Whether a call was refused whose history was one of these.
    pub(super) fn know(&self, histories: &[Fingerprint], now_s: i64) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = histories.iter().filter_map(|history| known.get(history));
        refused.any(|at_s| now_s.saturating_sub(*at_s) < KNOWN_SECONDS)
    }
}

/// Refusals that are known at once: the latest.
const REFUSALS_MAX: usize = 4096;
/// How long one is known. Then it is tried again, once.
const KNOWN_SECONDS: i64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_for_an_hour_and_the_oldest_goes_for_others() {
        let refusals = Refusals::default();
        refusals.note(10, 0);
        assert!(refusals.know(&[9, 10, 11], KNOWN_SECONDS - 1));
        assert!(!refusals.know(&[9, 10, 11], KNOWN_SECONDS));
        assert!(!refusals.know(&[9, 11], 1));
        let many = 100..u128::try_from(REFUSALS_MAX).unwrap() + 100;
        for history in many.clone() {
            refusals.note(history, 1);
        }
        assert!(!refusals.know(&[10], 1), "the oldest");
        assert!(many.into_iter().all(|history| refusals.know(&[history], 2)));
    }
}
