//! Usage that is told later, by an answer to another request: results of batches, responses that
//! were made in the background, what a gateway charged for a stream that was cut.
//!
//! Each is counted once, however often it is asked for. A response in the background keeps its
//! record open until an answer tells how it ended; that record has the usage then, and the answer's
//! own has none. What no call of this Weir is known for is in the record of the answer that told it.
//! Which was counted is remembered over restarts.

mod counted;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weir_core::answer::{Answer, Part};
use weir_core::api::{Api, Endpoint, Later, SaidByPath};
use weir_core::call::{self, Call};
use weir_core::caps::{self, Amount, Ticket};
use weir_core::catalog::Provider;
use weir_core::identity::Subject;
use weir_core::money::Money;
use weir_core::pricing::{self, Context as PriceContext};
use weir_core::usage::Usage;

use super::credential::Kind;
use super::entry::{End, Entry};
use super::explain::Explaining;
use super::priced::Terms;
use super::settle;
use crate::ledger::{Cost, Record};
use crate::sidecar::Context;
use counted::Counted;

/// What is not known to its end yet, and what was counted.
pub(crate) struct Pending {
    counted: Counted,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Calls in the background, by the hash of the response.
    calls: HashMap<u64, Waits>,
    /// What cut streams of `OpenRouter` count as, by the hash of the call.
    estimates: HashMap<u64, Money>,
}

/// A call in the background, as it stood when its own answer had ended.
pub(super) struct Waits {
    record: Record,
    call: Option<Call>,
    terms: Terms,
    credential: Option<Kind>,
    begun: Option<Usage>,
    conversation: u64,
    reserved: Amount,
    ticket: Option<Ticket>,
    explaining: Option<Explaining>,
    opened: Instant,
    sent: Option<Instant>,
    end: End,
}

impl Pending {
    /// What was counted is remembered in `state_dir`.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            counted: Counted::new(state_dir),
            waiting: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what has waited for too long at what was reserved for it.
    pub(crate) fn give_up_old(&self, context: &Context) {
        let given_up = self.lock().take_old(Instant::now());
        given_up
            .into_iter()
            .for_each(|waits| waits.give_up(context));
    }

    /// Counts what waits at what was reserved for it, before Weir ends.
    pub(crate) fn give_up_all(&self, context: &Context) {
        let waiting = std::mem::take(&mut self.lock().calls);
        waiting
            .into_values()
            .for_each(|waits| waits.give_up(context));
    }
}

impl Entry {
    fn hash_of(&self, what: &str, id: &str) -> u64 {
        counted::hash(&[self.session.provider.as_str(), what, id])
    }

    /// Keeps the record of a call open that goes on in the background; whether it does. Notes whether
    /// another answer was faster to tell how it ended.
    pub(super) fn waits(&mut self, answer: Option<&Answer>, end: End) -> bool {
        let is_call = self.endpoint == Endpoint::Call(Api::Responses) && self.call.is_some();
        let Some(answer) = answer.filter(|answer| is_call && answer.background) else {
            return false;
        };
        let sent = !matches!(end, End::NotSent | End::NotAnswered);
        let goes_on = sent && !answer.complete && answer.error.is_none();
        let Some(id) = answer.response_id.as_deref() else {
            return false;
        };
        if !goes_on && !answer.complete {
            return false;
        }
        // After a restart one that goes on counts as what was reserved, so it is never counted anew.
        let hash = self.hash_of("response", id);
        self.told_before = self.context.pending.counted.add(&[hash]) == [false];
        if self.told_before || !goes_on {
            return false;
        }
        let waits = Waits {
            begun: self.used_so_far(Some(answer)),
            record: std::mem::take(&mut self.record),
            call: self.call.take(),
            terms: std::mem::take(&mut self.terms),
            credential: self.credential,
            conversation: self.conversation,
            reserved: self.reserved,
            ticket: self.ticket.take(),
            explaining: self.explaining.take(),
            opened: self.opened,
            sent: self.sent,
            end,
        };
        self.context.metrics.in_flight.dec();
        let given_up = self.context.pending.lock().insert(hash, waits);
        for waits in given_up {
            waits.give_up(&self.context);
        }
        true
    }

    /// Notes what may be told of a call that was cut.
    pub(super) fn note_for_later(&self, answer: Option<&Answer>) {
        let Some(answer) = answer else {
            return;
        };
        let Some(id) = answer.response_id.as_deref() else {
            return;
        };
        if self.session.provider == Provider::OpenRouter
            && let Cost::Estimated { total, .. } = self.record.cost
        {
            let mut waiting = self.context.pending.lock();
            if waiting.estimates.len() >= WAITING_MAX {
                waiting.estimates.clear();
            }
            let hash = self.hash_of("generation", id);
            waiting.estimates.insert(hash, total);
        }
    }

    /// Settles an answer that tells of calls made before. By itself it costs nothing.
    pub(super) fn settle_later(&mut self, later: Later, answer: &Answer) {
        self.record.cost = settle::nothing();
        let (api, parts) = match later {
            Later::MessageBatch => (Api::Messages, self.new_results(answer)),
            Later::File => (Api::ChatCompletions, self.new_results(answer)),
            Later::Response => (Api::Responses, self.new_response(answer)),
            Later::Generation => return self.correct(answer),
        };
        if answer.unread > 0 {
            self.record.reasons.push("results_unread".to_owned());
        }
        let Some(first) = parts.first() else {
            if answer.unread > 0 {
                self.record.cost = Cost::Unknown;
            }
            return;
        };
        let model = first.model.clone().or_else(|| answer.model.clone());
        self.record.model_requested.clone_from(&model);
        self.record.usage = parts
            .iter()
            .map(|part| part.usage)
            .reduce(|sum, usage| sum.plus(&usage));
        self.counted = self.record.usage.as_ref().map(Usage::tokens);
        let of_first = |part: &Part| part.model == first.model;
        if !parts.iter().all(of_first) {
            self.record.reasons.push("several_models".to_owned());
        }
        self.record.cost = self.price_parts(&parts, answer, api, later);
        self.charge(Some(answer));
        self.charge_accounts(api, model);
    }

    /// The results of a batch that were not counted before.
    fn new_results(&self, answer: &Answer) -> Vec<Part> {
        let ids = answer.parts.iter().map(|part| {
            let id = part.id.as_deref().unwrap_or_default();
            self.hash_of(&self.results_of, id)
        });
        let new = self.context.pending.counted.add(&ids.collect::<Vec<_>>());
        let parts = answer.parts.iter().zip(new);
        parts
            .filter(|(_, is_new)| *is_new)
            .map(|(part, _)| part.clone())
            .collect()
    }

    /// What a response in the background used, if no call of this Weir is known for it. One that is
    /// known is ended here.
    fn new_response(&self, answer: &Answer) -> Vec<Part> {
        let told = answer.background && answer.complete;
        let Some(id) = answer.response_id.as_deref().filter(|_| told) else {
            return Vec::new();
        };
        let hash = self.hash_of("response", id);
        let waits = self.context.pending.lock().calls.remove(&hash);
        if let Some(waits) = waits {
            waits.resume(self, answer);
            return Vec::new();
        }
        let is_new = self.context.pending.counted.add(&[hash]) == [true];
        let usage = answer.usage.filter(|_| is_new);
        let part = usage.map(|usage| Part {
            usage,
            ..Part::default()
        });
        part.into_iter().collect()
    }

    /// Counts what a call cost beyond what it was estimated at when its stream was cut.
    fn correct(&mut self, answer: &Answer) {
        let Some((id, charged)) = answer.response_id.as_deref().zip(answer.reported_cost) else {
            return;
        };
        let hash = self.hash_of("generation", id);
        let Some(estimated) = self.context.pending.lock().estimates.remove(&hash) else {
            return;
        };
        let total = charged.saturating_sub_to_zero(estimated);
        if total == Money::ZERO {
            return;
        }
        self.record.reasons.push("estimate_corrected".to_owned());
        self.record.model_requested.clone_from(&answer.model);
        self.record.cost = Cost::Reported { total };
        self.counted = Some(0);
        self.charge_accounts(Api::ChatCompletions, answer.model.clone());
    }

    fn price_parts(&mut self, parts: &[Part], answer: &Answer, api: Api, later: Later) -> Cost {
        let batch = later != Later::Response;
        let provider = self.session.provider;
        let (mut total, mut of_input, mut without_cache) = (Money::ZERO, Money::ZERO, Money::ZERO);
        let mut by_list = Money::ZERO;
        let (mut version, mut unpriced) = (None, Usage::default());
        for part in parts {
            let model = part.model.as_deref().or(answer.model.as_deref());
            let context = PriceContext {
                provider: provider.priced_as(api).as_str(),
                model: model.unwrap_or_default(),
                at_unix: self.record.started_unix_ms.div_euclid(1000),
                service_tier: answer.service_tier.as_deref(),
                speed: None,
                inference_geo: part.inference_geo.as_deref(),
                regional: pricing::is_regional(provider.as_str(), &self.record.host),
                batch,
            };
            let quote = self.prices.quote(&context);
            let cost = quote.as_ref().and_then(|quote| quote.price(&part.usage));
            let (Some(quote), Some(cost)) = (quote, cost) else {
                unpriced = unpriced.plus(&part.usage);
                continue;
            };
            total += cost.total;
            by_list += quote.by_list(&part.usage, cost).unwrap_or(cost).total;
            of_input += cost.of_input();
            without_cache += cost.without_cache;
            version.get_or_insert_with(|| quote.version().into_owned());
        }
        // On the footing of what the provider says that it charged.
        let charged = answer.reported_cost.unwrap_or(total);
        let as_charged = |amount: Money| amount.scaled(charged, total);
        let (of_input, without_cache) = (as_charged(of_input), as_charged(without_cache));
        let flat = (unpriced != Usage::default()).then(|| self.without_price(&unpriced));
        let Some(version) = version else {
            return flat.unwrap_or_default();
        };
        if let Some(flat) = flat {
            self.record.reasons.push("results_without_price".to_owned());
            total += flat.spent();
            by_list += flat.spent();
        }
        let told = answer.reported_cost.unwrap_or(total);
        self.record.cost_by_list = Some(by_list).filter(|by_list| *by_list != told);
        self.record.cost_of_input = of_input;
        self.record.cost_without_cache = without_cache;
        Cost::Priced { total, version }
    }

    /// Notes which shared accounts pay, as for a call that was made just now.
    fn charge_accounts(&mut self, api: Api, model: Option<String>) {
        let Ok(call) = call::parse(api, b"{}") else {
            return;
        };
        self.call = Some(Call { model, ..call });
        self.charge_reserved();
    }

    /// Counts under the caps what was spent without having been reserved.
    pub(super) fn spend_unreserved(&self, amount: Amount) {
        if amount == Amount::ZERO {
            return;
        }
        let caller = self.record.caller();
        self.context.caps().record_spend(&caps::Spend {
            at_ms: self.record.started_unix_ms,
            subject: Subject {
                caller: &caller,
                provider: &self.record.provider,
                host: &self.record.host,
                model: self.record.model_requested.as_deref().unwrap_or_default(),
            },
            // It is told now, whatever was reset before.
            after_change: i64::MAX,
            amount,
        });
    }
}

impl Waiting {
    /// Takes those out that have waited for too long.
    fn take_old(&mut self, now: Instant) -> Vec<Waits> {
        let is_old = |waits: &Waits| now.duration_since(waits.opened) >= WAIT_MAX;
        self.calls
            .extract_if(|_, waits| is_old(waits))
            .map(|(_, waits)| waits)
            .collect()
    }

    /// Has a call wait; gives those back that are too many.
    fn insert(&mut self, hash: u64, mut waits: Waits) -> Vec<Waits> {
        let mut given_up = Vec::new();
        if self.calls.len() >= WAITING_MAX {
            let oldest = self.calls.iter().min_by_key(|(_, waits)| waits.opened);
            let oldest = oldest.map(|(hash, _)| *hash);
            given_up.extend(oldest.and_then(|oldest| self.calls.remove(&oldest)));
        }
        if self.calls.len() >= EXPLAINED_MAX {
            waits.explaining = None;
        }
        given_up.extend(self.calls.insert(hash, waits));
        given_up
    }
}

impl Waits {
    /// Writes the record, with what another request was answered.
    fn resume(self, by: &Entry, answer: &Answer) {
        let mut entry = Entry::of(
            std::sync::Arc::clone(&by.context),
            std::sync::Arc::clone(&by.rules),
            std::sync::Arc::clone(&by.session),
            Endpoint::Call(Api::Responses),
            SaidByPath::default(),
            self.record,
        );
        entry.call = self.call;
        entry.terms = self.terms;
        entry.credential = self.credential;
        entry.begun = self.begun;
        entry.conversation = self.conversation;
        entry.reserved = self.reserved;
        entry.ticket = self.ticket;
        entry.explaining = self.explaining;
        entry.opened = self.opened;
        entry.sent = self.sent;
        entry.write(Some(answer), self.end);
    }

    /// Counts it at what was reserved: nobody asked how it ended.
    fn give_up(mut self, context: &Context) {
        self.record.reasons.push("never_told".to_owned());
        self.record.outcome = crate::ledger::Outcome::Completed;
        self.record.cost = Cost::Estimated {
            total: self.reserved.money,
            version: String::new(),
        };
        if let Some(ticket) = self.ticket {
            let warnings = context.caps().settle(ticket, self.reserved);
            context.warn(&warnings);
        }
        {
            let mut totals = context.totals();
            totals.calls = totals.calls.saturating_add(1);
            totals.spend += self.reserved.money;
        }
        context.metrics.record(&self.record);
        context.ledger.record(self.record);
    }
}

/// How long a response in the background may take to be asked for: providers keep none longer.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Responses in the background whose end is not known, about 2 KB each; and as many estimates.
const WAITING_MAX: usize = 4096;
/// Those among them that are explained when their end is known: at most 128 KiB more each.
const EXPLAINED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asks_for_is_given_up_after_a_day() {
        let opened = Instant::now();
        let waits = || Waits {
            record: Record::default(),
            call: None,
            terms: Terms::default(),
            credential: None,
            begun: None,
            conversation: 0,
            reserved: Amount::ZERO,
            ticket: None,
            explaining: None,
            opened,
            sent: None,
            end: End::Complete,
        };
        let mut waiting = Waiting::default();
        assert!(waiting.insert(1, waits()).is_empty());
        let day = Duration::from_secs(24 * 60 * 60);
        let almost = opened + day - Duration::from_secs(1);
        assert!(waiting.take_old(almost).is_empty());
        assert_eq!(waiting.take_old(opened + day).len(), 1);
        assert!(waiting.calls.is_empty());
    }
}
