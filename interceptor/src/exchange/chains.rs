//! Which session an answer belongs to, for the calls that continue it and name none.
//!
//! `previous_response_id` names the answer before, which is another one for each call. So the first
//! answer of a chain names the session of all that follow it, each of which hands that on with its own
//! answer. It is handed on as soon as the answer tells its id: programs go on at the last event of a
//! stream, without waiting for its end. What is missed: a chain that was begun long ago, before a restart
//! or at another node begins anew with the answer that it continues.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_core::answer::Answer;
use weir_core::call::Call;

use super::entry::Entry;

/// Answers that are remembered at least, the latest; at most twice as many, about 150 bytes each.
const ANSWERS_MIN: usize = 4096;

/// The sessions of answers.
#[derive(Default)]
pub(crate) struct Chains {
    answers: Mutex<Answers>,
}

/// By host and id. The older ones are forgotten when there are enough newer ones.
#[derive(Default)]
struct Answers {
    newer: HashMap<u64, String>,
    older: HashMap<u64, String>,
}

impl Chains {
    /// The session of what continues the answer `id` of `host`.
    fn session_of(&self, host: &str, id: &str) -> String {
        let (answers, hash) = (self.lock(), hash(host, id));
        let known = answers
            .newer
            .get(&hash)
            .or_else(|| answers.older.get(&hash));
        known.map_or_else(|| id.to_owned(), String::clone)
    }

    fn hand_on(&self, host: &str, id: &str, session: &str) {
        let mut answers = self.lock();
        if answers.newer.len() >= ANSWERS_MIN {
            answers.older = mem::take(&mut answers.newer);
        }
        answers.newer.insert(hash(host, id), session.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Notes the session of a call: the head of its request may have named it.
    pub(super) fn note_session(&mut self, call: &Call) {
        if self.record.session.is_some() {
            return;
        }
        self.record.session.clone_from(&call.session);
        let (None, Some(previous)) = (&self.record.session, &call.continues) else {
            return;
        };
        // The answer that is continued may be one that was not read yet.
        self.context.behind.finish();
        let chains = &self.context.chains;
        self.record.session = Some(chains.session_of(&self.record.host, previous));
        self.hands_on = true;
    }

    /// Has what continues the answer `id` belong to the session of this call.
    pub(super) fn hand_on(&mut self, id: &str) {
        if mem::take(&mut self.hands_on)
            && let Some(session) = &self.record.session
        {
            let chains = &self.context.chains;
            chains.hand_on(&self.record.host, id, session);
        }
    }

    /// The same at the end of an answer, if it has an id.
    pub(super) fn hand_on_at_end(&mut self, answer: Option<&Answer>) {
        if let Some(id) = answer.and_then(|answer| answer.response_id.as_deref()) {
            self.hand_on(id);
        }
    }
}

fn hash(host: &str, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (host, id).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_session_however_long_and_wherever_it_branches() {
        let chains = Chains::default();
        let mut last = "resp_0".to_owned();
        for number in 1..100 {
            let session = chains.session_of("a", &last);
            assert_eq!(session, "resp_0");
            last = format!("resp_{number}");
            chains.hand_on("a", &last, &session);
        }
        assert_eq!(chains.session_of("a", "resp_50"), "resp_0");
        assert_eq!(chains.session_of("b", "resp_50"), "resp_50");
    }

    #[test]
    fn the_oldest_answers_are_forgotten() {
        let chains = Chains::default();
        for number in 0..3 * ANSWERS_MIN {
            chains.hand_on("a", &number.to_string(), "first");
        }
        let answers = chains.lock();
        assert_eq!(answers.newer.len(), ANSWERS_MIN);
        assert_eq!(answers.older.len(), ANSWERS_MIN);
        drop(answers);
        assert_eq!(chains.session_of("a", "0"), "0");
        let latest = (2 * ANSWERS_MIN).to_string();
        assert_eq!(chains.session_of("a", &latest), "first");
    }
}
