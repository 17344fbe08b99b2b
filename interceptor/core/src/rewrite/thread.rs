//! Where a request stands in its conversation: the turns of the application, each known by the hash
//! of the history up to its end.

use crate::prompt::{Fingerprint, HashKey, Prompt, Role};

/// A conversation as one request shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The first message of the application, where the values of the start are told, and the
    /// history up to it, by which a conversation is known.
    pub first: Turn,
    /// The last message of each turn of the application, in order. The last is the new one.
    pub turns: Vec<Turn>,
    /// Whether the model has not spoken yet.
    pub is_start: bool,
}

/// The end of a turn of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The index of its message.
    pub message: usize,
    /// The history up to its end.
    pub at: Fingerprint,
}

impl Thread {
    /// Reads the turns of a prompt; `scope` tells callers and APIs apart that share nothing. None,
    /// if the application says nothing.
    #[must_use]
    pub fn of(prompt: &Prompt, body: &[u8], key: &HashKey, scope: &[&[u8]]) -> Option<Self> {
        let histories = prompt.histories(body, key, key.hash(scope));
        let turn = |message: usize| {
            let at = histories.get(message).copied()?;
            Some(Turn { message, at })
        };
        let is_user = |role| role == Role::User || role == Role::Tool;
        let first = prompt.messages.iter().position(|m| is_user(m.role))?;
        let (mut turns, mut last, mut answers) = (Vec::new(), None, 0_usize);
        for (index, message) in prompt.messages.iter().enumerate() {
            match message.role {
                Role::User | Role::Tool => last = Some(index),
                Role::Assistant => {
                    turns.extend(last.take().and_then(turn));
                    answers = answers.saturating_add(1);
                }
                Role::System => {}
            }
        }
        turns.extend(last.and_then(turn));
        Some(Self {
            first: turn(first)?,
            turns,
            is_start: answers == 0,
        })
    }
}
