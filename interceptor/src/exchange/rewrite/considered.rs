//! A call whose prompt is considered: before it is sent, where it may be edited, else behind its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use weir_core::api::Api;
use weir_core::call::Call;
use weir_core::catalog::Provider;
use weir_core::edit::Edit;
use weir_core::prompt::Prompt;
use weir_core::rewrite::{self, About, Called, Measured, Plan, Valued, Withheld};

use super::super::credential::Kind;
use super::super::entry::Entry;
use super::{Asked, Failed, Planned, Read, Rewriter};
use crate::metrics::Metrics;
use crate::process::config::{self, CacheMode};
use crate::sidecar::Context;

/// Why a conversation that begins now is only watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    /// `mode` is not `rewrite`.
    Observed,
    /// A plan with a flat price: nothing is saved, and its provider may look at the bytes.
    Subscription,
    /// The body is signed.
    Signed,
    /// The provider caches nothing as short as this.
    BelowMinimum,
}

impl Only {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Subscription => "subscription",
            Self::Signed => "signed",
            Self::BelowMinimum => "below_minimum",
        }
    }
}

/// What was, or would have been, done to a prompt.
pub(in crate::exchange) struct Considered {
    pub(in crate::exchange) plan: Plan,
    /// The workload that the plan's effect is counted for.
    pub(in crate::exchange) measured: Measured,
    /// The prompt as the plan read it.
    pub(in crate::exchange) prompt: Prompt,
    /// What of it is to be done now.
    edits: Vec<Edit>,
    /// Why values were left where they stand, where that is news.
    reason: Option<String>,
}

/// A call whose prompt is considered: what is needed of it when it may be over already.
pub(in crate::exchange) struct Asking {
    /// Of its record.
    id: String,
    pub(super) api: Api,
    pub(super) provider: Provider,
    pub(super) caller: String,
    pub(super) about: About,
    pub(super) only: Option<Only>,
    pub(super) previous_response: bool,
    /// Whether it goes as it came, whatever its conversation was given before.
    is_fixed: bool,
    /// The shortest prefix that is cached, about.
    pub(super) minimum_bytes: usize,
    pub(super) now_s: i64,
}

impl Asking {
    /// What callers and APIs are told apart by that share no cache.
    pub(super) const fn scope(&self) -> [&[u8]; 2] {
        [self.caller.as_bytes(), self.about.host.as_bytes()]
    }

    pub(super) const fn called<'a>(
        &'a self,
        workload: u64,
        values: &'a [Valued],
        begins: bool,
    ) -> Called<'a> {
        Called {
            workload,
            about: &self.about,
            values,
            begins,
            now_s: self.now_s,
        }
    }
}

impl Rewriter {
    /// Considers a prompt, remembers what has to be, and counts what comes of it. `read` is the prompt,
    /// if it was read before.
    pub(in crate::exchange) fn consider(
        &self,
        asking: &Asking,
        body: &[u8],
        cache: &config::Cache,
        metrics: &Metrics,
        read: Option<Read>,
    ) -> Option<Considered> {
        let count = |result| metrics.rewritten.with_label_values(&[result]).inc();
        let asked = Asked {
            call: asking,
            body,
            metrics,
        };
        let planned = catch_unwind(AssertUnwindSafe(|| self.plan(&asked, cache, read)));
        let Planned {
            plan,
            edits,
            measured,
            prompt,
        } = match planned.unwrap_or(Err(Failed::Panicked)) {
            Ok(planned) => planned?,
            Err(error) => {
                tracing::warn!(%error, id = asking.id, "a prompt goes as it came");
                count("failed");
                return None;
            }
        };
        let edits = if asking.is_fixed { Vec::new() } else { edits };
        let why = match (plan.withheld, asking.only) {
            // What a workload shows counts only where it would have been edited.
            (Some(Withheld::Kept | Withheld::SwitchedOff) | None, Some(only)) => only.as_str(),
            (Some(withheld), _) => withheld.as_str(),
            (None, None) => "observed",
        };
        count(if edits.is_empty() { why } else { "edited" });
        let is_left = !plan.spans.is_empty() && (!plan.applied || asking.is_fixed);
        // That a value stands where it stood is no news.
        let is_news = is_left && why != Withheld::Kept.as_str();
        let is_news = is_news && cache.mode == CacheMode::Rewrite;
        Some(Considered {
            plan,
            measured,
            prompt,
            edits,
            reason: is_news.then(|| format!("not_rewritten_{why}")),
        })
    }
}

impl Entry {
    /// Plans how the prompt is rewritten; gives the edits that are to be made now.
    pub(in crate::exchange) fn rewrite(&mut self, body: &[u8]) -> Vec<Edit> {
        let read = self.recalled.take();
        let Some(asking) = self.asking_of(body) else {
            return Vec::new();
        };
        let Context {
            rewriter, metrics, ..
        } = &*self.context;
        let cache = &self.rules.config.cache;
        let considered = rewriter.consider(&asking, body, cache, metrics, read);
        let Some(mut considered) = considered else {
            return Vec::new();
        };
        self.record.reasons.extend(considered.reason.take());
        let edits = std::mem::take(&mut considered.edits);
        self.considered = Some(considered);
        edits
    }

    /// The call, if its prompt is to be considered.
    fn asking_of(&self, body: &[u8]) -> Option<Asking> {
        let call = self.call.as_ref()?;
        let rewriter = &self.context.rewriter;
        let is_off = self.rules.config.cache.mode == CacheMode::Off;
        let is_idle = is_off && rewriter.nodes.is_none() && rewriter.store.is_empty();
        let is_considered = !is_idle && rewrite::covers(call.api, body);
        is_considered.then(|| self.asking(call))
    }

    pub(super) fn asking(&self, call: &Call) -> Asking {
        let minimum = self.priced().map_or(0, |priced| priced.minimum_tokens());
        let only = self.only_watched(minimum);
        let identity = &self.record.identity;
        Asking {
            id: self.record.id.clone(),
            api: call.api,
            provider: self.session.provider,
            caller: identity.key_hash.clone().unwrap_or_default(),
            about: About {
                program: identity.program.clone().unwrap_or_default(),
                host: self.record.host.clone(),
                model: call.model.clone().unwrap_or_default(),
            },
            only,
            previous_response: call.previous_response,
            // A signed body can't be changed, whatever its conversation was given before.
            is_fixed: only == Some(Only::Signed) || self.rules.config.observe,
            minimum_bytes: usize::try_from(minimum.saturating_mul(BYTES_PER_TOKEN))
                .unwrap_or(usize::MAX),
            now_s: self.record.started_unix_ms.div_euclid(1000),
        }
    }

    /// The same of a prompt that was sent as it came.
    pub(in crate::exchange) fn asking_to_watch(&self, body: &[u8]) -> Option<Asking> {
        let asking = self.asking_of(body)?;
        Some(Asking {
            only: asking.only.or(Some(Only::Observed)),
            is_fixed: true,
            ..asking
        })
    }

    /// Whether no prompt can be edited: none that begins now, and of none it is remembered that it
    /// was. Then a plan may be made while the provider is at the call.
    pub(in crate::exchange) fn only_watches(&self) -> bool {
        self.rules.config.cache.mode != CacheMode::Rewrite
            && self.context.rewriter.nodes.is_none()
            && self.context.rewriter.store.has_only_watched()
    }

    /// Why a conversation that begins with this call is only watched.
    fn only_watched(&self, minimum_tokens: u64) -> Option<Only> {
        match self.credential {
            _ if self.signed => return Some(Only::Signed),
            // An unknown login may be one of a plan, at a provider that is no cloud.
            Some(Kind::Subscription | Kind::OAuth) => return Some(Only::Subscription),
            Some(Kind::ApiKey | Kind::CloudIam) | None => {}
        }
        let rewrites = self.rules.config.cache.mode == CacheMode::Rewrite;
        // Where the mode has changed, plans may be left of what was sent as it came before: that a
        // conversation began so, and is never to be edited, is known only when they are made.
        if !rewrites || self.rules.config.observe || self.context.analyst.has_plans() {
            return Some(Only::Observed);
        }
        let tokens = self.priced()?.terms.estimate.reserved;
        (tokens < minimum_tokens).then_some(Only::BelowMinimum)
    }
}

/// Of prompts, about.
const BYTES_PER_TOKEN: u64 = 4;
