//! What one holder knows of its own slices, and what it asks for.

use std::collections::BTreeMap;

use super::{Answer, IDLE_MS, LIMIT_SHARE, SHORT_MS, Take, USABLE_MS};

/// The slices of one holder. Times are of its own clock, which only has to go forward, in
/// milliseconds.
#[derive(Debug)]
pub struct Slices {
    holder: String,
    /// Registered as this, or to be.
    epoch: i64,
    is_registered: bool,
    last_number: i64,
    /// Until when what the book allowed may be used.
    usable_until_ms: i64,
    by_account: BTreeMap<String, Slice>,
}

#[derive(Debug, Default)]
struct Slice {
    allowed: i64,
    /// The number of the latest question.
    number: i64,
    is_asked: bool,
    /// An answer never came: the book may have allowed more than is known here.
    is_unsure: bool,
    /// When there was last need of it.
    needed_ms: i64,
    /// When the book last said that it is exhausted, and what was asked for then.
    short: Option<(i64, Answer)>,
    short_of: i64,
}

/// What is known of an account when more of it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The account.
    pub account: &'a str,
    /// What this holder has spent and reserved in the window.
    pub used: i64,
    /// What it needs on top.
    pub need: i64,
    /// As in [`Take`].
    pub limit: i64,
    /// As in [`Take`].
    pub from_ms: i64,
    /// As in [`Take`].
    pub seed: i64,
    /// As in [`Take`].
    pub seed_ms: i64,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The first, as that.
    Register {
        /// Higher than ever before.
        epoch: i64,
    },
    /// Another one.
    Renew {
        /// As which it was registered.
        epoch: i64,
    },
}

impl Slices {
    /// A holder that has nothing yet.
    #[must_use]
    pub fn new(holder: impl Into<String>) -> Self {
        Self {
            holder: holder.into(),
            epoch: 1,
            is_registered: false,
            last_number: 0,
            usable_until_ms: i64::MIN,
            by_account: BTreeMap::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The sign of life to give: as which epoch, and whether it is a registration.
    #[must_use]
    pub const fn sign(&self) -> Sign {
        if self.is_registered {
            Sign::Renew { epoch: self.epoch }
        } else {
            Sign::Register { epoch: self.epoch }
        }
    }

    /// The book's answer to a sign of life that was given at `sent_ms`.
    pub fn signed(&mut self, sent_ms: i64, sign: Sign, was_accepted: bool) {
        let (Sign::Register { epoch } | Sign::Renew { epoch }) = sign;
        if epoch != self.epoch {
            return;
        }
        if was_accepted {
            self.is_registered = true;
            let until_ms = sent_ms.saturating_add(USABLE_MS);
            self.usable_until_ms = self.usable_until_ms.max(until_ms);
        } else {
            self.begin_anew();
        }
    }

    fn begin_anew(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.is_registered = false;
        self.usable_until_ms = i64::MIN;
        self.by_account
            .values_mut()
            .for_each(|slice| slice.allowed = 0);
    }

    /// Whether signs of life have arrived lately: otherwise nothing is allowed.
    #[must_use]
    pub fn is_usable(&self, now_ms: i64) -> bool {
        now_ms < self.usable_until_ms
    }

    /// The most that this holder may have spent and reserved of an account.
    #[must_use]
    pub fn allowed(&self, account: &str, now_ms: i64) -> i64 {
        match self.by_account.get(account) {
            Some(slice) if self.is_usable(now_ms) => slice.allowed,
            _ => 0,
        }
    }

    /// What the book answered last, where it lately said that there is less than `need`.
    #[must_use]
    pub fn short(&self, account: &str, need: i64, now_ms: i64) -> Option<Answer> {
        let slice = self.by_account.get(account)?;
        let (at_ms, answer) = slice.short?;
        let is_lately = now_ms < at_ms.saturating_add(SHORT_MS);
        (is_lately && need >= slice.short_of).then_some(answer)
    }

    /// The question to ask where there is not enough; none while one is not answered.
    pub fn ask(&mut self, ask: &Ask<'_>, now_ms: i64) -> Option<Take> {
        let slack = ask.limit.div_euclid(LIMIT_SHARE).max(0);
        let least = ask.used.saturating_add(ask.need);
        let slice = self.slice(ask.account);
        slice.needed_ms = now_ms;
        slice.short_of = ask.need;
        self.question(ask, least, least.saturating_add(slack))
    }

    /// The question to ask in advance, where a half of the slice is used; none while it is not.
    pub fn refill(&mut self, ask: &Ask<'_>, now_ms: i64) -> Option<Take> {
        let slack = ask.limit.div_euclid(LIMIT_SHARE).max(0);
        let slice = self.by_account.get_mut(ask.account)?;
        slice.needed_ms = now_ms;
        let left = slice.allowed.saturating_sub(ask.used);
        let was_short = slice.short.is_some();
        if was_short || left.saturating_mul(2) >= slack {
            return None;
        }
        self.question(ask, ask.used, ask.used.saturating_add(slack))
    }

    /// The question that gives back what was not used for a while; none where there is nothing.
    pub fn give_back(&mut self, ask: &Ask<'_>, now_ms: i64) -> Option<Take> {
        let slice = self.by_account.get_mut(ask.account)?;
        let is_idle = now_ms >= slice.needed_ms.saturating_add(IDLE_MS);
        let has_more = slice.allowed > ask.used || slice.is_unsure;
        if !is_idle || !has_more || slice.is_asked {
            return None;
        }
        // Before the book knows: it may forget about it, and this holder must not.
        slice.allowed = slice.allowed.min(ask.used);
        self.question(ask, ask.used, ask.used)
    }

    /// The answer to a question, or none where it is given up. Late answers change nothing.
    pub fn answered(&mut self, take: &Take, answer: Option<Answer>, now_ms: i64) {
        let is_current = take.epoch == self.epoch;
        let slice = self.slice(&take.account);
        if take.number != slice.number {
            return;
        }
        slice.is_asked = false;
        // Stale: its first copy was answered, and that answer may never come.
        slice.is_unsure = matches!(answer, None | Some(Answer::Stale));
        if !is_current {
            return;
        }
        match answer {
            Some(Answer::Granted { number, allowed }) if number == take.number => {
                slice.allowed = allowed;
                slice.short = None;
            }
            Some(
                answer @ Answer::Short {
                    number, allowed, ..
                },
            ) if number == take.number => {
                slice.allowed = allowed;
                slice.short = Some((now_ms, answer));
            }
            Some(Answer::Unknown) => self.begin_anew(),
            Some(Answer::Granted { .. } | Answer::Short { .. } | Answer::Stale) | None => {}
        }
    }

    /// Forgets an account of which nobody wants anything any more: its window has passed.
    pub fn forget(&mut self, account: &str) {
        self.by_account.remove(account);
    }

    /// The same for one of which nothing is held. Says whether nothing is known of it now.
    pub fn forget_if_unheld(&mut self, account: &str) -> bool {
        let is_unheld = |slice: &Slice| slice.allowed <= 0 && !slice.is_asked && !slice.is_unsure;
        if self.by_account.get(account).is_some_and(is_unheld) {
            self.by_account.remove(account);
        }
        !self.by_account.contains_key(account)
    }

    /// The accounts of which something is or was held.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.by_account.keys().map(String::as_str)
    }

    fn question(&mut self, ask: &Ask<'_>, least: i64, most: i64) -> Option<Take> {
        let number = self.last_number.saturating_add(1);
        let slice = self.slice(ask.account);
        if slice.is_asked {
            return None;
        }
        slice.is_asked = true;
        slice.number = number;
        self.last_number = number;
        Some(Take {
            account: ask.account.to_owned(),
            holder: self.holder.clone(),
            epoch: self.epoch,
            number,
            least,
            most,
            limit: ask.limit,
            from_ms: ask.from_ms,
            seed: ask.seed,
            seed_ms: ask.seed_ms,
        })
    }

    fn slice(&mut self, account: &str) -> &mut Slice {
        self.by_account.entry(account.to_owned()).or_default()
    }
}
