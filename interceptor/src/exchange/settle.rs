//! What an exchange cost, when it is over: by its usage, or by the best that is known.

use weir_core::answer::Answer;
use weir_core::api::Endpoint;
use weir_core::cache::CacheRules;
use weir_core::caps::Amount;
use weir_core::catalog::Provider;
use weir_core::money::Money;
use weir_core::pricing::{Context, Listing, PriceTable, Quote};
use weir_core::usage::Usage;

use super::entry::{End, Entry};
use super::judged::{Judged, Sum};
use super::priced::{self, Priced};
use crate::ledger::{Cost, Outcome};
use crate::process::config::Unpriced;

impl Entry {
    /// Completes the record, and replaces what was reserved by what was spent.
    pub(super) fn settle(&mut self, answer: Option<&Answer>, end: End) {
        if let Some(answer) = answer {
            self.record.model_answered.clone_from(&answer.model);
            self.record.reasons.extend(answer.error.clone());
        }
        let complete = answer.is_some_and(|answer| answer.complete);
        self.record.outcome = self.outcome(answer, end, complete);
        if self.told_before {
            self.record.reasons.push("told_before".to_owned());
            self.record.cost = nothing();
        } else if self.call.is_some() {
            self.record.usage = answer.and_then(|answer| answer.usage);
            let told = self.record.usage.filter(|_| complete);
            let is_unreadable = answer.is_some_and(|answer| answer.usage_unreadable);
            let seen = || self.used_so_far(answer).or(self.begun);
            let used = told.or_else(|| seen().filter(|_| !is_unreadable));
            self.counted = used.as_ref().map(Usage::tokens);
            self.record.cost = match (used, answer) {
                (Some(used), Some(answer)) => self.price(&used, answer, told.is_some()),
                _ => self.without_usage(answer, end),
            };
            self.charge(answer);
            self.note_for_later(answer);
        } else if let (Endpoint::Later(later), Some(answer)) = (self.endpoint, answer) {
            self.settle_later(later, answer);
        } else if self.is_free() || self.is_not_billed(end) {
            self.record.cost = nothing();
        }
        let spent = self.spent();
        self.record.counted_tokens = spent.tokens;
        self.charge_spent(spent);
        if let Some(ticket) = self.ticket.take() {
            let warnings = self.context.caps().settle(ticket, spent);
            self.context.warn(&warnings);
        } else if self.call.is_some() && self.sent.is_some()
            || matches!(self.endpoint, Endpoint::Later(_))
        {
            self.spend_unreserved(spent);
        }
    }

    /// What the call counts under caps: nothing, where the provider does not bill it.
    fn spent(&self) -> Amount {
        match &self.record.cost {
            Cost::Priced { total, .. } if self.counted.is_none() => Amount {
                money: *total,
                ..Amount::ZERO
            },
            Cost::Unknown => Amount::ZERO,
            cost => {
                let tokens = self.counted.unwrap_or(self.reserved.tokens);
                Amount::of_call(cost.spent(), tokens)
            }
        }
    }

    fn outcome(&self, answer: Option<&Answer>, end: End, complete: bool) -> Outcome {
        let refused = matches!(
            self.record.outcome,
            Outcome::Refused { .. } | Outcome::Denied
        );
        let failed = self.record.status.is_some_and(|status| status >= 400);
        match end {
            End::NotSent if refused => self.record.outcome.clone(),
            End::NotSent | End::NotAnswered => Outcome::UpstreamFailed,
            // The cap was noted when it was found to be in the way.
            End::CutOff => self.record.outcome.clone(),
            _ if failed || answer.is_some_and(|answer| answer.error.is_some()) => {
                Outcome::ProviderError
            }
            // Many clients close the connection as soon as they have read the terminal event.
            End::Complete | End::ClientGone if complete => Outcome::Completed,
            End::ClientGone => Outcome::ClientGone,
            End::Broken => Outcome::Truncated,
            End::Complete if self.call.is_none() => match self.endpoint {
                Endpoint::Call(_) => Outcome::Unread,
                _ => Outcome::Completed,
            },
            End::Complete if answer.is_none() => Outcome::Completed,
            End::Complete => Outcome::Truncated,
        }
    }

    /// What an answer that broke off used at least: a stream tells its output only at its end, and
    /// `OpenAI`'s nothing at all before. Each event that brought a piece of it is a token or more.
    pub(super) fn used_so_far(&self, answer: Option<&Answer>) -> Option<Usage> {
        let answer = answer?;
        let told = answer.usage.or_else(|| {
            let input = self.terms.estimate.expected;
            (answer.delta_events > 0).then_some(Usage {
                input,
                ..Usage::default()
            })
        })?;
        Some(Usage {
            output: told.output.max(answer.output_tokens_seen()),
            output_audio: told.output_audio.max(answer.speech_tokens_seen()),
            ..told
        })
    }

    /// A call without usage: an error is not billed; what was sent and never answered in full
    /// counts with what was reserved for it.
    fn without_usage(&mut self, answer: Option<&Answer>, end: End) -> Cost {
        match (end, &self.record.outcome) {
            _ if self.is_not_billed(end) => nothing(),
            (End::NotAnswered | End::ClientGone | End::Broken | End::CutOff, _)
            | (_, Outcome::Truncated) => Cost::Estimated {
                total: self.reserved.money,
                version: String::new(),
            },
            // It was answered, so it was billed: what can't be read is not for free.
            (End::Complete | End::NotSent, _) => {
                // One that was cancelled says how it ended, and not what it used.
                let is_read = answer.is_some_and(|answer| answer.background && answer.complete);
                let reason = if is_read {
                    "usage_not_told"
                } else {
                    "answer_unreadable"
                };
                self.record.reasons.push(reason.to_owned());
                Cost::Estimated {
                    total: self.reserved.money,
                    version: String::new(),
                }
            }
        }
    }

    /// Whether a request that is no call costs nothing. What is spent inside a socket is in the records of its calls.
    fn is_free(&self) -> bool {
        match self.endpoint {
            // Whatever is asked for by a GET: it may have become a socket that Weir does not know.
            Endpoint::Free(_) => self.record.status != Some(101),
            Endpoint::Later(_) => true,
            Endpoint::Socket(_) => self.record.reasons.is_empty(),
            Endpoint::Call(_) | Endpoint::Other(_) => false,
        }
    }

    fn is_not_billed(&self, end: End) -> bool {
        end == End::NotSent || self.sent.is_none() || self.record.outcome == Outcome::ProviderError
    }

    /// Puts what the provider says that it charged over what a table says, and books a call that a
    /// plan pays for apart.
    pub(super) fn charge(&mut self, answer: Option<&Answer>) {
        let cost = &mut self.record.cost;
        if let Some(total) = answer.and_then(|answer| answer.reported_cost) {
            *cost = Cost::Reported { total };
        }
        if !self.is_paid_by_a_plan() {
            return;
        }
        let version = match &self.record.cost {
            Cost::Priced { version, .. } | Cost::Estimated { version, .. } => version.clone(),
            Cost::Reported { .. } => "reported".to_owned(),
            Cost::Notional { .. } | Cost::Unpriced | Cost::Unknown => return,
        };
        let total = self.record.cost.spent();
        if total > Money::ZERO {
            self.record.cost = Cost::Notional { total, version };
        }
    }

    /// What counts for usage of a model without a price.
    pub(super) fn without_price(&self, usage: &Usage) -> Cost {
        match self.rules.config.pricing.unpriced {
            Unpriced::Flat { picos_per_token } => Cost::Estimated {
                total: priced::at_flat_price(usage.tokens(), picos_per_token),
                version: "flat".to_owned(),
            },
            Unpriced::Allow | Unpriced::Refuse => Cost::Unpriced,
        }
    }

    /// Learns from the usage of an answer; tells the previous prompt of the conversation.
    fn learn(&self, priced: &Priced<'_>, answer: &Answer, usage: &Usage) -> Option<u64> {
        let (memory, metrics) = (&self.context.memory, &self.context.metrics);
        metrics.estimated(priced.terms.estimate.expected, usage.prompt());
        memory.learn(priced, answer.model.as_deref(), usage)
    }

    /// The quote for the model that answered or, where that has none, that was asked for.
    ///
    /// Behind a gateway an answer may name a model that no table knows. At Bedrock it names the
    /// model without the profile that the price depends on, so that what was asked comes first.
    fn known<'a>(&self, answered: Context<'a>, priced: &Priced<'a>) -> Option<Known<'a>> {
        let prices = priced.prices;
        let known = |model: &'a str, listing: Listing| {
            let context = Context { model, ..answered };
            let quote = prices.quote_of(&listing, &context)?;
            Some(Known {
                context,
                listing,
                quote,
            })
        };
        let as_asked = || known(priced.model, priced.terms.listing);
        let as_answered = || {
            let listing = prices.listing(answered.provider, answered.model);
            known(answered.model, listing)
        };
        let as_learned = || {
            let (model, listing) = priced.listed();
            known(model, *listing)
        };
        let asked_first =
            answered.model == priced.model || self.session.provider == Provider::Bedrock;
        let found = if asked_first {
            as_asked().or_else(as_answered)
        } else {
            as_answered().or_else(as_asked)
        };
        found.or_else(as_learned)
    }

    fn price(&mut self, usage: &Usage, answer: &Answer, exact: bool) -> Cost {
        let explaining = self.explaining.take().filter(|_| exact);
        let Some(priced) = self.priced() else {
            return Cost::Unknown;
        };
        let previous = exact.then(|| self.learn(&priced, answer, usage)).flatten();
        // The first message of a call whose history the provider holds is its new one.
        let is_held = priced.call.previous_response;
        let previous = previous.filter(|_| !is_held);
        let (asked, prices) = (priced.context(), &self.prices);
        let answered = Context {
            model: answer.model.as_deref().unwrap_or(asked.model),
            service_tier: answer.service_tier.as_deref().or(asked.service_tier),
            speed: answer.speed.as_deref().or(asked.speed),
            inference_geo: answer.inference_geo.as_deref().or(asked.inference_geo),
            ..asked
        };
        let known = self.known(answered, &priced);
        let rules = self.cache_rules(&priced, known.as_ref());
        let found = known.and_then(|known| {
            let sum = known.sum(prices, usage, answer)?;
            Some((sum, known.quote.version().into_owned()))
        });
        let judged = Judged {
            usage: *usage,
            rules,
            previous,
            is_held,
            diagnosis: answer.cache_diagnosis.clone(),
            first_byte_us: self.record.timings.upstream_first_byte_us.unwrap_or(0),
            began_s: self.record.started_unix_ms.div_euclid(1000),
            sum: found.as_ref().map(|(sum, _)| *sum),
        };
        self.explain(judged, explaining);
        let Some((sum, version)) = found else {
            return self.without_price(usage);
        };
        let total = sum.cost.total;
        self.record.cost_by_list = sum.by_list.filter(|by_list| *by_list != sum.total());
        self.record.cost_of_input = sum.as_charged(sum.cost.of_input());
        self.record.cost_without_cache = sum.as_charged(sum.cost.without_cache);
        if exact {
            Cost::Priced { total, version }
        } else {
            Cost::Estimated { total, version }
        }
    }

    fn cache_rules(&self, priced: &Priced<'_>, known: Option<&Known<'_>>) -> CacheRules {
        let minimum = match known {
            Some(known) => priced::minimum_tokens(&known.listing),
            None => priced.minimum_tokens(),
        };
        match self.session.provider {
            Provider::Anthropic => {
                let marked = priced.call.cache_breakpoints > 0;
                CacheRules::by_markers(marked, minimum)
            }
            _ => {
                let rates = known.and_then(|known| known.quote.rates(0));
                let charges = rates.is_some_and(|rates| rates.charges_for_writes());
                CacheRules::automatic(charges, minimum)
            }
        }
    }
}

/// A model whose price is known.
struct Known<'a> {
    context: Context<'a>,
    listing: Listing,
    quote: Quote<'a>,
}

impl Known<'_> {
    /// What a call cost. Where it had several passes, each is priced by its own model and length.
    fn sum(&self, prices: &PriceTable, usage: &Usage, answer: &Answer) -> Option<Sum> {
        let rates = self.quote.rates(usage.prompt())?;
        let whole = rates.cost(usage)?;
        let passes = answer.parts.iter().map(|part| {
            let model = part.model.as_deref().unwrap_or(self.context.model);
            let context = Context {
                model,
                ..self.context
            };
            let quote = prices.quote(&context)?;
            let cost = quote.price(&part.usage)?;
            Some((cost, quote.by_list(&part.usage, cost)))
        });
        let mut passes = passes.collect::<Option<Vec<_>>>()?;
        if passes.is_empty() {
            passes.push((whole, self.quote.by_list(usage, whole)));
        }
        let by_list = passes.iter().map(|(_, by_list)| Some((*by_list)?.total));
        Some(Sum {
            rates,
            whole,
            by_list: by_list.sum(),
            cost: passes.into_iter().map(|(cost, _)| cost).sum(),
            reported: answer.reported_cost,
        })
    }
}

/// The cost of what no provider bills.
pub(super) fn nothing() -> Cost {
    let version = PriceTable::builtin().version().to_owned();
    Cost::Priced {
        total: Money::ZERO,
        version,
    }
}
