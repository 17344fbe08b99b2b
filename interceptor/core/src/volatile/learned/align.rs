//! Two prompts side by side: where one has something else than the other.
//!
//! Linear in the prompts: from each difference on, a bounded window is searched for where they meet
//! again. What does not meet within it is one difference up to the common end.

use std::ops::Range;

/// Where two prompts differ, in order.
#[derive(Debug, Default)]
pub(super) struct Alignment {
    pub(super) gaps: Vec<Gap>,
    /// Units that are the same.
    pub(super) shared: usize,
}

/// A difference: what was there, and what is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) old: Range<usize>,
    pub(super) new: Range<usize>,
}

impl Gap {
    /// Whether one unit stands in the place of each.
    pub(super) fn is_even(&self) -> bool {
        self.old.len() == self.new.len()
    }
}

impl Alignment {
    /// Aligns two prompts; none, if less than half of the longer one is the same.
    pub(super) fn of(old: &[u64], new: &[u64]) -> Option<Self> {
        let tail = old.iter().rev().zip(new.iter().rev());
        let tail = tail.take_while(|(old, new)| old == new).count();
        let (old_end, new_end) = (
            old.len().saturating_sub(tail),
            new.len().saturating_sub(tail),
        );
        let (mut i, mut j) = (0_usize, 0_usize);
        let mut found = Self::default();
        loop {
            let ahead = old.get(i..old_end)?.iter().zip(new.get(j..new_end)?);
            let same = ahead.take_while(|(old, new)| old == new).count();
            (i, j) = (i.saturating_add(same), j.saturating_add(same));
            found.shared = found.shared.saturating_add(same);
            if i >= old_end && j >= new_end {
                break;
            }
            let is_full = found.gaps.len() >= GAPS_MAX;
            let met = meet(old.get(i..old_end)?, new.get(j..new_end)?).filter(|_| !is_full);
            let gap = match met {
                Some((a, b)) => (i.saturating_add(a), j.saturating_add(b)),
                None => (old_end, new_end),
            };
            found.gaps.push(Gap {
                old: i..gap.0,
                new: j..gap.1,
            });
            (i, j) = gap;
        }
        found.shared = found.shared.saturating_add(tail);
        (found.shared.saturating_mul(2) >= old.len().max(new.len())).then_some(found)
    }

    /// Where a unit of the old prompt is in the new one.
    pub(super) fn place(&self, old: usize) -> Option<usize> {
        let before = self.gaps.iter().take_while(|gap| gap.old.start <= old);
        let Some(gap) = before.last() else {
            return Some(old);
        };
        if old < gap.old.end {
            let inside = old.checked_sub(gap.old.start)?;
            return gap.is_even().then_some(gap.new.start.checked_add(inside)?);
        }
        gap.new.end.checked_add(old.checked_sub(gap.old.end)?)
    }
}

/// How far ahead both are the same again, the nearest place first. One unit for one is the usual
/// case; elsewhere two in a row must be the same, since lines such as a closing brace are everywhere.
fn meet(old: &[u64], new: &[u64]) -> Option<(usize, usize)> {
    for distance in 1..=WINDOW.saturating_mul(2) {
        let even = distance.is_multiple_of(2).then_some(distance / 2);
        let others = distance.saturating_sub(WINDOW)..=distance.min(WINDOW);
        for a in even.into_iter().chain(others) {
            let b = distance.saturating_sub(a);
            let (Some(left), Some(right)) = (old.get(a), new.get(b)) else {
                continue;
            };
            let next = |of: &[u64], at: usize| of.get(at.saturating_add(1)).copied();
            let is_single = a == 1 && b == 1;
            if left == right && (is_single || next(old, a) == next(new, b)) {
                return Some((a, b));
            }
        }
    }
    None
}

/// Units ahead in which two prompts may meet again.
const WINDOW: usize = 32;
/// Differences between two prompts; what is left then is one.
const GAPS_MAX: usize = 32;
