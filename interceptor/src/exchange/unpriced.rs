//! Calls of models that have no price, where the configuration refuses them.

use weir_core::api::Api;
use weir_core::refusal::Reason;

use super::entry::Entry;
use super::response::{self, Response};
use crate::process::config::Unpriced;

impl Entry {
    /// The model, if it has no price and the call is to be refused for that. What only observes
    /// refuses nothing, and what a plan pays for needs no price.
    pub(super) fn refused_for_no_price(&self) -> Option<String> {
        let config = &self.rules.config;
        if config.observe || config.pricing.unpriced != Unpriced::Refuse {
            return None;
        }
        let priced = self.priced()?;
        let has_price = priced.is_free || priced.price().is_some();
        (!has_price).then(|| priced.model.to_owned())
    }

    /// Answers in the provider's place that the model has no price.
    pub(super) fn refuse_unpriced(self: Box<Self>, api: Api, model: &str) -> Response {
        tracing::info!(model, "refused a call of a model without a price");
        response::refusal(self.denied(api, &Reason::Unpriced { model }))
    }
}
