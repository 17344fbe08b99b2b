//! The other forms of a request that a provider refused, because its history is not the one that the
//! signatures in it are bound to.
//!
//! What was sent follows from what is remembered of the conversation, which may be lost, or be that of
//! another one. Each form here is a function of the request and of what is remembered now. Which one the
//! provider takes is noted at the turn, so that the next one takes it at once.

use memchr::memmem;

use crate::api::Api;
use crate::prompt::{Prompt, SegmentKind};

use super::planner::{FindRules, FindStandings, Planner};
use super::thinking::is_claude;
use super::{Plan, Request, RuleSet, Standings, Tree};

/// Whether the history of a request may be refused: there is thinking in it that may be signed.
#[must_use]
pub fn may_be_bound(api: Api, model: &str, (body, prompt): (&[u8], &Prompt)) -> bool {
    match api {
        Api::Messages | Api::InvokeModel | Api::Converse => {
            let mut segments = prompt.segments.iter();
            segments.any(|segment| segment.kind == SegmentKind::Thinking)
        }
        // OpenRouter has it beside the content of a message.
        Api::ChatCompletions => is_claude(model) && memmem::find(body, br#""signature""#).is_some(),
        Api::Responses
        | Api::Completions
        | Api::Embeddings
        | Api::Images
        | Api::Audio
        | Api::Realtime
        | Api::GenerateContent
        | Api::EmbedContent
        | Api::CachedContents
        | Api::Interactions
        | Api::CohereChat => false,
    }
}

/// Whether a provider says with this error that the history of a request is not the one that its
/// signatures are bound to. The sentence is Anthropic's, which clouds and gateways hand on inside errors
/// of their own; it ends with what differs. The same without a conversation is said of a signature that
/// is none at all, which no other form makes one.
#[must_use]
pub fn refuses_history(error: &[u8]) -> bool {
    let error = String::from_utf8_lossy(error).replace('`', "");
    error.contains("Invalid signature in thinking block")
        && error.contains("bound to a different conversation")
}

/// How a request may be sent whose history was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it came.
    AsItCame,
    /// With what its conversation was given, as far as it is remembered.
    Remembered,
    /// The same, if it is none of so many others that begin alike and fit better.
    Another(usize),
    /// With its values moved as where a conversation begins under the rules of now: what a
    /// conversation whose memory is lost was given, if its values did not change since.
    Anew,
}

impl Form {
    /// All, in the order in which they are tried, but for those that were sent before.
    pub const ALL: [Self; 6] = [
        Self::AsItCame,
        Self::Remembered,
        Self::Another(1),
        Self::Anew,
        Self::Another(2),
        Self::Another(3),
    ];

    /// The name in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AsItCame => "as_it_came",
            Self::Remembered => "remembered",
            Self::Another(_) => "another",
            Self::Anew => "anew",
        }
    }
}

/// Plans a request in `form`, noting that its conversation goes by it from this turn on. None, where
/// there is no such form of it, or where it may not be edited: that needs conversations that begin
/// now to be edited, or this one to have been.
pub(super) fn plan(
    request: &Request<'_>,
    tree: Option<&Tree>,
    (current, form): (&RuleSet, Form),
    rule_set: FindRules<'_>,
    standings: FindStandings<'_>,
) -> Option<Plan> {
    if request.held_by_provider || request.thread.is_start {
        return None;
    }
    let mut planner = Planner::new(request, tree);
    match form {
        Form::AsItCame => {
            planner.go_by_form((false, 0), current, rule_set)?;
            planner.plan.edits.clear();
        }
        Form::Remembered => planner.go_by_form((true, 0), current, rule_set)?,
        Form::Another(rank) => planner.go_by_form((true, rank), current, rule_set)?,
        Form::Anew if request.begin => planner.begin_anew(current, &|spans| {
            let standings = standings(spans);
            // Where nothing was moved lately, nothing says what was when it began.
            let is_known = !standings.moved.is_empty();
            if is_known {
                standings
            } else {
                Standings::all_moved(spans)
            }
        })?,
        Form::Anew => return None,
    }
    Some(planner.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_refusal_of_a_history_is_one() {
        let said = "messages.1.content.0: Invalid `signature` in `thinking` block";
        let bound = "The block is bound to a different conversation: the system prompt differs";
        assert!(refuses_history(format!("{said}. {bound}").as_bytes()));
        let raw = format!(
            r#"{{"error":{{"metadata":{{"raw":"{{\"message\":\"{said}. {bound}\"}}"}}}}}}"#
        );
        assert!(refuses_history(raw.as_bytes()));
        assert!(!refuses_history(said.as_bytes()));
        assert!(!refuses_history(bound.as_bytes()));
        assert!(!refuses_history(b"\xff"));
    }
}
