//! Why a call did not read from the cache what the call before it had left there.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::CacheRules;
use super::sketch::{Parting, Run, Sketch};
use crate::prompt::{Lifetime, Section};
use crate::usage::Usage;

/// Why not everything was read that could have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The definitions of tools changed, or their order.
    ToolsChanged,
    /// The system prompt changed.
    SystemChanged,
    /// A message of the past changed.
    MessagesChanged,
    /// Another model was asked for.
    ModelChanged,
    /// A parameter changed that the cache depends on.
    ParameterChanged,
    /// `prompt_cache_key` changed.
    CacheKeyChanged,
    /// Another account pays: caches are not shared.
    OtherAccount,
    /// Another host was called.
    OtherRoute,
    /// What was written was gone by then.
    LifetimeElapsed,
    /// The prompt is too short to be cached.
    BelowMinimum,
    /// The provider wants to be asked, and was not.
    NoBreakpoint,
    /// The last breakpoint of the call before stood far before its end.
    TooFewBreakpoints,
    /// What was written is too far before the next breakpoint.
    BeyondLookBack,
    /// The answer to the call before had not begun.
    NotWrittenYet,
    /// The provider holds what came before, so that nobody else can compare.
    HeldByProvider,
    /// Nothing changed, and still it was not read.
    Provider,
}

impl Reason {
    /// The name in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ToolsChanged => "tools_changed",
            Self::SystemChanged => "system_changed",
            Self::MessagesChanged => "messages_changed",
            Self::ModelChanged => "model_changed",
            Self::ParameterChanged => "parameter_changed",
            Self::CacheKeyChanged => "cache_key_changed",
            Self::OtherAccount => "other_account",
            Self::OtherRoute => "other_route",
            Self::LifetimeElapsed => "lifetime_elapsed",
            Self::BelowMinimum => "below_minimum",
            Self::NoBreakpoint => "no_breakpoint",
            Self::TooFewBreakpoints => "too_few_breakpoints",
            Self::BeyondLookBack => "beyond_look_back",
            Self::NotWrittenYet => "not_written_yet",
            Self::HeldByProvider => "held_by_provider",
            Self::Provider => "provider",
        }
    }

    /// The reason that a provider gives itself, in `diagnostics.cache_miss_reason` of Anthropic or
    /// `prompt_cache_diagnostics` of `OpenAI`; none for what says nothing, such as `unavailable`.
    #[must_use]
    pub fn of_provider(word: &str) -> Option<Self> {
        match word {
            "model_changed" => Some(Self::ModelChanged),
            "system_changed" => Some(Self::SystemChanged),
            "tools_changed" => Some(Self::ToolsChanged),
            "messages_changed" | "input_changed" => Some(Self::MessagesChanged),
            "instructions_changed" => Some(Self::SystemChanged),
            "prompt_cache_key_changed" => Some(Self::CacheKeyChanged),
            // What else changes is a setting, such as the service tier.
            setting => setting
                .ends_with("_changed")
                .then_some(Self::ParameterChanged),
        }
    }
}

/// A call whose answer is over.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its prompt, as it was sent.
    pub sketch: Sketch,
    /// What it used.
    pub usage: Usage,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub sent_ms: i64,
    /// When its answer began.
    pub answered_ms: i64,
}

/// What is known of why a call read what it read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Tokens of the call that it follows, as far as this one could have read them.
    pub expected_tokens: Option<u64>,
    /// Why less was read.
    pub reason: Option<Reason>,
    /// Where the prompts part, or which parameter changed.
    pub place: Option<String>,
    /// Where that is in the body that was sent.
    pub parting: Option<Parting>,
}

/// The latest calls of each family, for comparison. A family are the calls of one program of one
/// user to one API. All of it is bounded: [`FAMILIES_MAX`], [`CALLS_MAX`].
#[derive(Debug, Default)]
pub struct Seen {
    families: HashMap<u64, VecDeque<Made>>,
}

impl Explanation {
    /// Takes what the provider says over what was found out: it knows. The place stays only where
    /// both say the same.
    pub fn believe(&mut self, provider: Reason) {
        if self.reason != Some(provider) {
            self.reason = Some(provider);
            self.place = None;
            self.parting = None;
        }
    }
}

impl Seen {
    /// Explains a call, and remembers it.
    pub fn explain(&mut self, family: u64, made: Made, rules: CacheRules) -> Explanation {
        let calls = self.families.get(&family);
        let before = calls.and_then(|calls| closest(calls, &made.sketch));
        let explanation =
            before.map_or_else(Explanation::default, |before| compare(before, &made, rules));
        self.remember(family, made);
        explanation
    }

    /// How many families are known, and how many calls of the one with the most.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let most = self.families.values().map(VecDeque::len).max();
        (self.families.len(), most.unwrap_or(0))
    }

    fn remember(&mut self, family: u64, made: Made) {
        if self.families.len() >= FAMILIES_MAX && !self.families.contains_key(&family) {
            // The one that was idle for longest: the loss costs its next call an explanation.
            let latest = |calls: &VecDeque<Made>| calls.back().map_or(0, |made| made.sent_ms);
            let idle = self.families.iter().min_by_key(|(_, calls)| latest(calls));
            idle.map(|(family, _)| *family)
                .and_then(|idle| self.families.remove(&idle));
        }
        let calls = self.families.entry(family).or_default();
        // An earlier call of the same conversation will not be compared with again.
        calls.retain(|call| !continues(&made.sketch, &call.sketch));
        calls.push_back(made);
        if calls.len() > CALLS_MAX {
            calls.pop_front();
        }
    }
}

/// The call that this one most probably follows: the longest that it goes on from word for word, or
/// the one that has most in common with it, of its conversation or, for the first one of a
/// conversation, of its family. Another conversation may have more in common: where short answers
/// ("OK") and the questions of a script are the same, in the same places.
fn closest<'a>(calls: &'a VecDeque<Made>, sketch: &Sketch) -> Option<&'a Made> {
    calls.iter().max_by_key(|call| {
        let earlier = &call.sketch;
        (
            continued(sketch, earlier),
            sketch.alike(earlier),
            call.sent_ms,
        )
    })
}

/// How many blocks `earlier` has, if all that they say is said again at the start; else none.
fn continued(sketch: &Sketch, earlier: &Sketch) -> usize {
    let theirs = &earlier.blocks;
    let again = sketch.blocks.get(..theirs.len());
    let begins = again.is_some_and(|again| {
        let mut pairs = again.iter().zip(theirs);
        pairs.all(|(ours, theirs)| ours.digest == theirs.digest)
    });
    if begins && sketch.same_conversation(earlier) {
        theirs.len()
    } else {
        0
    }
}

/// Whether an earlier call will not be compared with again, now that this one goes on from it.
fn continues(sketch: &Sketch, earlier: &Sketch) -> bool {
    sketch.model == earlier.model && continued(sketch, earlier) > 0
}

fn compare(before: &Made, made: &Made, rules: CacheRules) -> Explanation {
    let same_conversation = made.sketch.same_conversation(&before.sketch);
    let shared = if same_conversation {
        before.usage.prompt()
    } else {
        // Another conversation shares at most what stands before the messages.
        let (all, before_messages) = before.sketch.bytes();
        share(before.usage.prompt(), before_messages, all)
    };
    let expected = rules.readable(made.usage.prompt(), shared);
    let lacks = expected.saturating_sub(made.usage.cache_read) > super::TAIL_TOLERANCE_TOKENS;
    let mut explanation = Explanation {
        expected_tokens: Some(shared),
        ..Explanation::default()
    };
    if made.usage.prompt() < rules.minimum_tokens {
        explanation.reason = Some(Reason::BelowMinimum);
    } else if !rules.asked {
        explanation.reason = Some(Reason::NoBreakpoint);
    } else if lacks {
        explain_lack(&mut explanation, before, made, rules);
    }
    explanation
}

fn explain_lack(explanation: &mut Explanation, before: &Made, made: &Made, rules: CacheRules) {
    let (old, new) = (&before.sketch, &made.sketch);
    let parting = new.parts_from(old);
    let parameter = new.parameter_changed(old);
    let changed_at = parting.as_ref().map(|parting| parting.section);
    let idle_ms = made.sent_ms.saturating_sub(before.sent_ms);
    let cached = before.usage.prompt().saturating_sub(before.usage.input);
    let reason = if idle_ms > lifetime_ms(old, rules) {
        Reason::LifetimeElapsed
    } else if old.account != new.account {
        Reason::OtherAccount
    } else if old.route != new.route {
        Reason::OtherRoute
    } else if old.model != new.model {
        Reason::ModelChanged
    } else if old.cache_key != new.cache_key {
        Reason::CacheKeyChanged
    } else if let Some((name, _)) =
        parameter.filter(|(_, from)| changed_at.is_none_or(|at| *from <= at))
    {
        explanation.place = Some(name.to_owned());
        Reason::ParameterChanged
    } else if let Some(parting) = parting.filter(|parting| explains(parting, explanation, made)) {
        let reason = match parting.section {
            Section::Tools => Reason::ToolsChanged,
            Section::System => Reason::SystemChanged,
            Section::Messages => Reason::MessagesChanged,
        };
        explanation.place = Some(parting.place.clone());
        explanation.parting = Some(parting);
        reason
    } else if made.sent_ms < before.answered_ms {
        Reason::NotWrittenYet
    } else if rules.by_markers
        && cached
            <= made
                .usage
                .cache_read
                .saturating_add(super::TAIL_TOLERANCE_TOKENS)
    {
        Reason::TooFewBreakpoints
    } else if rules.by_markers && !is_in_reach(old, new) {
        Reason::BeyondLookBack
    } else {
        Reason::Provider
    };
    explanation.reason = Some(reason);
}

/// Whether what lies behind the parting is what was not read: not so where the provider read less
/// than what stands before it, for another reason.
fn explains(parting: &Parting, explanation: &Explanation, made: &Made) -> bool {
    let (all, _) = made.sketch.bytes();
    let blocks = made.sketch.blocks.iter().take(parting.segment);
    let before = blocks.fold(0_u64, |sum, block| {
        sum.saturating_add(u64::from(block.bytes))
    });
    let before = share(made.usage.prompt(), before, all);
    explanation
        .expected_tokens
        .is_none_or(|expected| before < expected)
}

/// Whether a breakpoint of `new` finds the last one of `old`, which all of `new` begins with.
fn is_in_reach(old: &Sketch, new: &Sketch) -> bool {
    let Some(written) = old
        .blocks
        .iter()
        .rposition(|block| block.breakpoint.is_some())
    else {
        return true;
    };
    let breakpoints = new.blocks.iter().enumerate().skip(written);
    breakpoints
        .filter(|(_, block)| block.breakpoint.is_some())
        .any(|(at, _)| positions(new, written, at) <= LOOK_BACK_POSITIONS)
}

/// Positions from one block back to another, both included.
pub(super) fn positions(sketch: &Sketch, from: usize, to: usize) -> usize {
    let count = to.saturating_sub(from).saturating_add(1);
    let mut last = Run::Alone;
    let mut positions = 0_usize;
    for block in sketch.blocks.iter().skip(from).take(count).rev() {
        if block.run == Run::Alone || block.run != last {
            positions = positions.saturating_add(1);
        }
        last = block.run;
    }
    positions
}

/// How long what a call wrote is kept.
fn lifetime_ms(sketch: &Sketch, rules: CacheRules) -> i64 {
    let longest = sketch
        .blocks
        .iter()
        .filter_map(|block| block.breakpoint)
        .max();
    match (rules.by_markers, longest) {
        (true, Some(Lifetime::Long)) => HOUR_MS,
        (true, _) => MARKED_MS,
        (false, _) if rules.block_tokens == 1 => BREAKPOINTS_MS,
        (false, _) => HOUR_MS,
    }
}

/// `part` of `all` of some tokens.
#[must_use]
pub fn share(tokens: u64, part: u64, all: u64) -> u64 {
    let tokens = u128::from(tokens).saturating_mul(u128::from(part));
    let share = tokens.checked_div(u128::from(all)).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Families whose latest calls are kept.
pub const FAMILIES_MAX: usize = 256;
/// Calls of a family that are kept, one for each conversation: with at most 128 KiB each.
pub const CALLS_MAX: usize = 16;
/// Positions that a breakpoint searches, its own included (Anthropic).
pub(super) const LOOK_BACK_POSITIONS: usize = 20;
pub(super) const MARKED_MS: i64 = 5 * 60 * 1000;
pub(super) const BREAKPOINTS_MS: i64 = 30 * 60 * 1000;
pub(super) const HOUR_MS: i64 = 60 * 60 * 1000;
