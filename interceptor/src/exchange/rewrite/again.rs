//! The other form of a call that was refused, and the memory of the one that was taken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use weir_core::edit::{self, Edit};
use weir_core::prompt;
use weir_core::rewrite::{self, Form, Plan};

use super::super::entry::Entry;
use super::{Asked, Failed, Read, Rewriter};
use crate::process::config;

/// Another form of a call.
type Other = (Form, Plan);

impl Rewriter {
    /// The first form of a call that is not the one in which it was `sent`.
    fn other(
        &self,
        asked: &Asked<'_>,
        config: &config::Cache,
        sent: &[u8],
    ) -> Result<Option<Other>, Failed> {
        let seen = |body: &[u8]| {
            let prompt = prompt::read(body).map_err(Failed::Unreadable)?;
            Ok::<_, Failed>(prompt.fingerprints(body, &self.key))
        };
        let refused = seen(sent)?;
        for form in Form::ALL {
            let Some(plan) = self.plan_form(asked, config, form, None)? else {
                continue;
            };
            let Ok(body) = edit::apply(asked.body, &mut plan.edits.clone()) else {
                continue;
            };
            if seen(&body)? != refused {
                return Ok(Some((form, plan)));
            }
        }
        Ok(None)
    }

    /// Plans a form of a call, and has its conversation go by it from then on where it is the one that was
    /// `taken`: what is known and done about values may have changed since that was sent, and what is
    /// remembered has to be what its provider saw.
    fn plan_form(
        &self,
        asked: &Asked<'_>,
        config: &config::Cache,
        form: Form,
        taken: Option<&[Edit]>,
    ) -> Result<Option<Plan>, Failed> {
        let Some(Read { prompt, thread }) = self.read(asked.body, &asked.scope())? else {
            return Ok(None);
        };
        let current = self.configured(config).ok_or(Failed::Rules)?;
        let request = self.request(asked, &prompt, &thread);
        let at = thread.first.at;
        let _alone = self.turns.alone(at);
        let known = self.store.get(at, asked.now_s).map_err(Failed::Memory)?;
        let mut plan = rewrite::plan_again(
            &request,
            known.tree.as_deref(),
            (&current, form),
            |id| self.rules(id),
            |spans| self.standings(&request, &current, asked, spans),
        );
        if let Some(plan) = &mut plan
            && taken.is_some_and(|taken| taken == plan.edits)
            && let Some(tree) = plan.tree.take()
        {
            self.remember((at, tree), &known, &current, asked.now_s)?;
        }
        Ok(plan)
    }
}

impl Entry {
    /// The form to try next of a call whose body reads `plain` and that was refused as it was `sent`.
    pub(in crate::exchange) fn other_form(&self, plain: &[u8], sent: &[u8]) -> Option<Other> {
        self.about_form(plain, |rewriter, asked, config| {
            rewriter.other(asked, config, sent)
        })
    }

    /// Remembers the form that a call was `taken` in, for the next of its conversation.
    pub(in crate::exchange) fn remember_form(&self, plain: &[u8], form: Form, taken: &[Edit]) {
        let _plan = self.about_form(plain, |rewriter, asked, config| {
            rewriter.plan_form(asked, config, form, Some(taken))
        });
    }

    /// None, where that does not work: then nothing is sent again, or it will be the next time too.
    fn about_form<T>(
        &self,
        plain: &[u8],
        act: impl Fn(&Rewriter, &Asked<'_>, &config::Cache) -> Result<Option<T>, Failed>,
    ) -> Option<T> {
        let asking = self.asking(self.call.as_ref()?);
        let asked = asking.asked(plain, &self.context.metrics);
        let (rewriter, config) = (&self.context.rewriter, &self.rules.config.cache);
        let done = catch_unwind(AssertUnwindSafe(|| act(rewriter, &asked, config)));
        match done.unwrap_or(Err(Failed::Panicked)) {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(%error, id = self.record.id, "a refused prompt has no other form");
                None
            }
        }
    }
}
