//! What the prompt cache did for a call and why it did not do more, by what the call used and by what
//! its prompt shows.

use std::sync::PoisonError;

use weir_core::cache::{self, CacheOutcome, CacheRules, Explanation, Made, Reason};
use weir_core::money::Money;
use weir_core::pricing::{Cost, Rates};
use weir_core::usage::Usage;

use super::explain::{Analysis, Sent, Sketched};
use crate::ledger::Explained;
use crate::sidecar::Context;

/// A call whose usage is known.
pub(super) struct Judged {
    pub(super) usage: Usage,
    pub(super) rules: CacheRules,
    /// Tokens of the prompt before it in its conversation, as far as that is known by its name.
    pub(super) previous: Option<u64>,
    /// Whether the provider holds a part of the prompt, which was not in the request.
    pub(super) is_held: bool,
    /// What the provider says itself.
    pub(super) diagnosis: Option<String>,
    /// From the request sent on to the answer's first byte.
    pub(super) first_byte_us: u64,
    /// When the call began, in seconds since the Unix epoch.
    pub(super) began_s: i64,
    /// None, where its model has no price.
    pub(super) sum: Option<Sum>,
}

/// What it cost.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub(super) rates: Rates,
    /// Of the whole usage at those rates.
    pub(super) whole: Cost,
    /// The same, but where the call had parts with prices of their own.
    pub(super) cost: Cost,
    /// The same by list, whatever was negotiated.
    pub(super) by_list: Option<Money>,
    /// What the provider says that it charged.
    pub(super) reported: Option<Money>,
}

impl Sum {
    /// What counts: what the provider says, or what the prices come to.
    pub(super) fn total(&self) -> Money {
        self.reported.unwrap_or(self.cost.total)
    }

    /// An amount by the prices on the footing of what was charged, so that the two can be compared.
    pub(super) fn as_charged(&self, amount: Money) -> Option<Money> {
        amount.scaled(self.total(), self.cost.total)
    }
}

/// What the prompt shows.
#[derive(Default)]
struct Shown {
    explanation: Explanation,
    /// What is known to change where the prompts part.
    rule: Option<String>,
    /// What the prompt that was not sent would have used.
    other: Option<Usage>,
    sent: Sent,
    /// Whether a call that is the same either way may have been hurt by edits before it.
    may_be_hurt: bool,
}

impl Judged {
    /// What is known without a look at the prompt.
    pub(super) fn by_usage(&self) -> Explained {
        self.told(Shown::default())
    }

    /// What is known with it. Remembers the call, for those that follow it.
    pub(super) fn explain(&self, analysis: Analysis, context: &Context) -> Explained {
        let Analysis {
            sketched,
            measured,
            may_be_hurt,
        } = analysis;
        let explained = self.told(Shown {
            may_be_hurt,
            ..self.compare(sketched, context)
        });
        if let (Some(measured), Some(saved)) = (measured, explained.rewrite_saving) {
            let rewriter = &context.rewriter;
            rewriter.learn_effect(&measured, saved, self.began_s, &context.metrics);
        }
        explained
    }

    fn compare(&self, sketched: Sketched, context: &Context) -> Shown {
        // Rewriting may have asked where the client did not.
        let rules = CacheRules {
            asked: self.rules.asked || sketched.sketch.has_breakpoints(),
            ..self.rules
        };
        let usage = &self.usage;
        let (sent, _) = sketched.sketch.bytes();
        let first_byte_ms = i64::try_from(self.first_byte_us / 1000).unwrap_or(0);
        let made = Made {
            sketch: sketched.sketch,
            usage: *usage,
            sent_ms: sketched.sent_ms,
            answered_ms: sketched.sent_ms.saturating_add(first_byte_ms),
        };
        let is_known = !context.cache.follows_gap(sketched.family, sketched.sent_ms);
        let other = sketched.other.map(|other| {
            let (bytes, _) = other.bytes();
            let prompt = cache::share(usage.prompt(), bytes, sent);
            let replayed = &context.cache.replayed;
            let mut replayed = replayed.lock().unwrap_or_else(PoisonError::into_inner);
            replayed.send(&other, prompt, usage, rules, sketched.sent_ms)
        });
        let seen = &context.cache.seen;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut explanation = seen.explain(sketched.family, made, rules);
        drop(seen);
        if let Some(reason) = self.diagnosis.as_deref().and_then(Reason::of_provider) {
            explanation.believe(reason);
        }
        let rule = explanation.parting.as_ref().and_then(|parting| {
            let mut spans = sketched.spans.iter();
            let covering = spans.find(|known| known.covers(parting));
            covering.map(|known| known.rule.clone())
        });
        Shown {
            explanation,
            rule,
            other: other.filter(|_| is_known),
            sent: sketched.sent,
            may_be_hurt: false,
        }
    }

    fn told(&self, shown: Shown) -> Explained {
        let previous = shown.explanation.expected_tokens.or(self.previous);
        let outcome = cache::judge(&self.usage, self.rules, previous);
        let reason = if self.is_held {
            self.why_of_held(outcome)
        } else {
            shown.explanation.reason
        };
        let perfect = self.sum.and_then(|sum| {
            let Sum { rates, whole, .. } = &sum;
            let perfect = cache::perfect(&self.usage, rates, whole, self.rules, previous);
            let lost = whole.total - perfect;
            sum.as_charged(sum.cost.total.saturating_sub_to_zero(lost))
        });
        // What could have been read of what the provider holds is not known.
        let missed = self.sum.zip(perfect);
        let missed = missed.filter(|_| reason.is_some() && !self.is_held);
        let saving = self.sum.and_then(|sum| shown.saving(&sum));
        Explained {
            cache_outcome: Some(outcome.as_str().to_owned()),
            cost_perfect_cache: perfect,
            cache_reason: reason.map(|reason| reason.as_str().to_owned()),
            cache_where: shown.explanation.place,
            cache_rule: shown.rule,
            missed: missed.map(|(sum, perfect)| sum.total().saturating_sub_to_zero(perfect)),
            rewrite_saving: saving,
        }
    }
}

impl Judged {
    /// Why not all was read of a prompt of which the provider holds a part: what it says itself, or that it
    /// alone knows.
    fn why_of_held(&self, outcome: CacheOutcome) -> Option<Reason> {
        let told = self.diagnosis.as_deref().and_then(Reason::of_provider);
        match outcome {
            CacheOutcome::Partial | CacheOutcome::Write | CacheOutcome::Miss => {
                Some(told.unwrap_or(Reason::HeldByProvider))
            }
            CacheOutcome::Hit
            | CacheOutcome::BelowMinimum
            | CacheOutcome::NotAsked
            | CacheOutcome::NotReported => None,
        }
    }
}

impl Shown {
    /// What rewriting saves: did, or would have. A call that is the same either way counts where it
    /// may be hurt by edits before it, with what they cost it.
    fn saving(&self, sum: &Sum) -> Option<Money> {
        let (other, sent) = (sum.rates.cost(self.other.as_ref()?)?.total, sum.whole.total);
        let saving = match self.sent {
            Sent::Rewritten => other - sent,
            Sent::AsItCame => sent - other,
            Sent::Either if self.may_be_hurt => (other - sent).min(Money::ZERO),
            Sent::Either => return None,
        };
        sum.as_charged(saving)
    }
}
