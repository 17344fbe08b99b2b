//! What is set beside a plan: breakpoints, and what routes a call to where its prompt is cached.

use weir_core::edit::Edit;
use weir_core::rewrite::{self, Markable, Plan, Request, Warmth};

use super::{Asked, Rewriter};

/// What there would be to set.
pub(super) struct Marks {
    pub(super) breakpoints: Vec<Edit>,
    pub(super) routes: Vec<Edit>,
}

impl Rewriter {
    /// What there would be to set of a call that is planned so. Notes that it is sent as planned. Where
    /// breakpoints were found to cost more than they save, it is `unmarked`.
    pub(super) fn marks(
        &self,
        asked: &Asked<'_>,
        request: &Request<'_>,
        plan: &Plan,
        unmarked: bool,
    ) -> Marks {
        let sent = self.warmth(request, plan, asked);
        let call = Markable {
            api: asked.call.api,
            provider: asked.call.provider,
            model: request.model,
            body: request.body,
            prompt: request.prompt,
            thread: request.thread,
            minimum_bytes: asked.call.minimum_bytes,
            warm: if unmarked { Warmth::default() } else { sent },
            edits: &plan.edits,
        };
        Marks {
            breakpoints: rewrite::breakpoints(&call),
            routes: rewrite::routing(&call, &asked.call.about.host, &plan.spans, &self.key),
        }
    }
}

impl Marks {
    /// Those that are set.
    pub(super) fn set(&self, asked: &Asked<'_>, plan: &Plan) -> Vec<Edit> {
        let breakpoints = self
            .breakpoints
            .iter()
            .filter(|_| asked.call.only.is_none());
        // A key that goes away in the middle of a conversation is a cache that is not found.
        let routes = self.routes.iter().filter(|_| plan.began == Some(true));
        breakpoints.chain(routes).cloned().collect()
    }
}
