//! The prefix of a call as its provider sees it: what was sent of it lately, and what is taken out.

use std::sync::{Arc, MutexGuard, PoisonError};

use weir_core::catalog::Provider;
use weir_core::prompt::{Fingerprint, Prompt, Section};
use weir_core::rewrite::{Head, Heads, Plan, Prefixes, Request, RuleSet, Warmth};

use super::{Asked, Rewriter};

impl Rewriter {
    /// What the tools and the system prompt of a call show. It is read once for all calls that have the
    /// same, of each part when that is first asked for.
    pub(super) fn head(&self, call: &Request<'_>, rules: &RuleSet) -> (Fingerprint, Arc<Head>) {
        let name = Head::name(call, rules.id);
        let known = self.heads().get(name);
        let head = known.unwrap_or_else(|| Arc::new(Head::read(call, &rules.rules)));
        (name, head)
    }

    pub(super) fn heads(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of a call was sent so lately that it would be read.
    pub(super) fn warmth(&self, request: &Request<'_>, plan: &Plan, asked: &Asked<'_>) -> Warmth {
        let is_made = plan.applied || asked.call.only.is_some();
        let edits = if is_made { &plan.edits[..] } else { &[] };
        let [caller, host] = asked.call.scope();
        let scope = [caller, host, asked.call.about.model.as_bytes()];
        let prefixes = Prefixes::of(request, edits, &scope);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.note(&prefixes, asked.call.now_s)
    }
}

/// The block by which Claude Code says who it is. Anthropic takes it out by its place before it looks
/// at anything else, so it stays there; to all others it is a line that changes.
pub(crate) fn untouchable(provider: Provider, body: &[u8], prompt: &Prompt) -> Option<usize> {
    let segments = prompt.segments.iter().enumerate();
    let mut system = segments.filter(|(_, segment)| segment.section == Section::System);
    let (index, first) = system.next()?;
    let text = body.get(first.text.clone()?)?.get(1..)?;
    (provider == Provider::Anthropic && text.starts_with(ATTRIBUTION)).then_some(index)
}

/// How the block begins by which Claude Code says who it is.
const ATTRIBUTION: &[u8] = b"x-anthropic-billing-header:";
