//! The other forms of a call that was refused, and the memory of those that were refused and the one that was taken.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use weir_core::edit::{self, Edit};
use weir_core::prompt::{self, Fingerprint, Role};
use weir_core::rewrite::{self, Form, Plan};

use super::super::entry::Entry;
use super::{Asked, Failed, Read, Rewriter};
use crate::process::config;

/// Another form of a call.
pub(in crate::exchange) struct Other {
    pub(in crate::exchange) form: Form,
    /// What makes it of the prompt that came.
    pub(in crate::exchange) planned: Vec<Edit>,
    /// What is set beside that, as in any other call.
    pub(in crate::exchange) marks: Vec<Edit>,
}

/// The forms in which a call may still be sent that was refused.
pub(in crate::exchange) struct Forms {
    /// The prompt as it came.
    read: Read,
    /// What was sent, the latest last.
    tried: Vec<Seen>,
    left: slice::Iter<'static, Form>,
    were_refused: bool,
    /// Whether no breakpoints are added.
    unmarked: bool,
}

/// A prompt as its provider sees it.
struct Seen {
    /// Up to the end of each of its segments.
    prefixes: Vec<Fingerprint>,
    /// Up to the end of each of its messages, by its caller, and which of them is its last answer.
    histories: Vec<Fingerprint>,
    answer: Option<usize>,
}

impl Forms {
    /// Whether there are some that were refused already, in this turn or an earlier one.
    pub(in crate::exchange) const fn were_refused(&self) -> bool {
        self.were_refused
    }
}

impl Rewriter {
    /// The forms of a call but the one in which it was `sent`; none, if nothing is said in its prompt.
    fn forms(
        &self,
        asked: &Asked<'_>,
        sent: &[u8],
        unmarked: bool,
    ) -> Result<Option<Forms>, Failed> {
        let read = self.read(asked.body, &asked.call.scope())?;
        let tried = vec![self.seen(asked, sent)?];
        Ok(read.map(|read| Forms {
            read,
            tried,
            left: Form::ALL.iter(),
            were_refused: false,
            unmarked,
        }))
    }

    /// The next form that is not one of those that were tried, nor known to be refused.
    fn next_form(
        &self,
        asked: &Asked<'_>,
        config: &config::Cache,
        forms: &mut Forms,
    ) -> Result<Option<Other>, Failed> {
        for form in forms.left.by_ref().copied() {
            let Some(plan) = self.plan_form(asked, config, (&forms.read, form), None)? else {
                continue;
            };
            let Ok(body) = edit::apply(asked.body, &mut plan.edits.clone()) else {
                continue;
            };
            let seen = self.seen(asked, &body)?;
            let mut tried = forms.tried.iter();
            if tried.any(|tried| tried.prefixes == seen.prefixes) {
                continue;
            }
            if self.refusals.know(&seen.histories, asked.call.now_s) {
                forms.were_refused = true;
                continue;
            }
            forms.tried.push(seen);
            let request = self.request(asked, &forms.read.prompt, &forms.read.thread);
            let marks = self.marks(asked, &request, &plan, forms.unmarked);
            return Ok(Some(Other {
                form,
                marks: marks.set(asked, &plan),
                planned: plan.edits,
            }));
        }
        Ok(None)
    }

    fn seen(&self, asked: &Asked<'_>, body: &[u8]) -> Result<Seen, Failed> {
        let prompt = prompt::read(body).map_err(Failed::Unreadable)?;
        let prefixes = prompt.fingerprints(body, &self.key);
        let [caller, host] = asked.call.scope();
        let whose = self
            .key
            .hash(&[caller, host, asked.call.about.model.as_bytes()]);
        let own = prompt.histories(body, &self.key, whose);
        // Those are without what stands before the messages, and prefixes without what is beside contents.
        let histories = prompt.messages.iter().zip(own).map(|(message, own)| {
            let last = message.segments.end.checked_sub(1);
            let prefix = last.and_then(|last| prefixes.get(last)).copied();
            let prefix = prefix.unwrap_or_default().to_le_bytes();
            self.key.hash(&[&prefix, &own.to_le_bytes()])
        });
        let mut messages = prompt.messages.iter();
        Ok(Seen {
            histories: histories.collect(),
            answer: messages.rposition(|message| message.role == Role::Assistant),
            prefixes,
        })
    }

    /// Notes that the form that was tried last is refused, and so will be all that begin as it does.
    fn refused(&self, asked: &Asked<'_>, forms: &Forms) {
        let latest = forms.tried.last();
        let history = latest.and_then(|seen| seen.histories.get(seen.answer?));
        if let Some(history) = history {
            self.refusals.note(*history, asked.call.now_s);
        }
    }

    /// Plans a form of a call, and has its conversation go by it from then on where it is the one that was
    /// `taken`: what is known and done about values may have changed since that was sent, and what is
    /// remembered has to be what its provider saw.
    fn plan_form(
        &self,
        asked: &Asked<'_>,
        config: &config::Cache,
        (Read { prompt, thread }, form): (&Read, Form),
        taken: Option<&[Edit]>,
    ) -> Result<Option<Plan>, Failed> {
        let current = self.configured(config).ok_or(Failed::Rules)?;
        let request = self.request(asked, prompt, thread);
        let at = thread.first.at;
        let _alone = self.turns.alone(at);
        let known = self
            .store
            .get(at, asked.call.now_s)
            .map_err(Failed::Memory)?;
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
            self.remember((at, tree), &known, &current, asked.call.now_s)?;
        }
        Ok(plan)
    }
}

impl Entry {
    /// The other forms of a call whose body reads `plain` and that was refused as it was `sent`. None of
    /// them gets breakpoints, if it is `unmarked`.
    pub(in crate::exchange) fn forms(
        &self,
        plain: &[u8],
        sent: &[u8],
        unmarked: bool,
    ) -> Option<Forms> {
        self.about_form(plain, |rewriter, asked, _| {
            rewriter.forms(asked, sent, unmarked)
        })
    }

    /// The one to try next.
    pub(in crate::exchange) fn next_form(&self, forms: &mut Forms, plain: &[u8]) -> Option<Other> {
        self.about_form(plain, |rewriter, asked, config| {
            rewriter.next_form(asked, config, forms)
        })
    }

    /// Remembers that the form that was tried last is refused.
    pub(in crate::exchange) fn remember_refusal(&self, forms: &Forms, plain: &[u8]) {
        self.about_form(plain, |rewriter, asked, _| {
            rewriter.refused(asked, forms);
            Ok(Some(()))
        });
    }

    /// Remembers the form that a call was `taken` in, for the next of its conversation.
    pub(in crate::exchange) fn remember_form(
        &self,
        forms: &Forms,
        plain: &[u8],
        form: Form,
        taken: &[Edit],
    ) {
        let _plan = self.about_form(plain, |rewriter, asked, config| {
            rewriter.plan_form(asked, config, (&forms.read, form), Some(taken))
        });
    }

    /// None, where that does not work: then nothing is sent again, or it will be the next time too.
    fn about_form<T>(
        &self,
        plain: &[u8],
        act: impl FnOnce(&Rewriter, &Asked<'_>, &config::Cache) -> Result<Option<T>, Failed>,
    ) -> Option<T> {
        let asking = self.asking(self.call.as_ref()?);
        let asked = Asked {
            call: &asking,
            body: plain,
            metrics: &self.context.metrics,
        };
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
