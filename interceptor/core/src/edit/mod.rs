//! Changes of a body, as byte ranges replaced: what no edit names stays as it came.

use std::borrow::Cow;
use std::ops::Range;

mod terms;
mod usage_of_streams;

pub use terms::{lower_output_limit, name_model};
pub use usage_of_streams::{
    ASK_FOR_USAGE, Piece, UsageChunkFilter, ask_for_usage, tells_usage_only_if_asked,
};

/// One byte range of a body and what stands there instead. An empty range is an insertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced.
    pub range: Range<usize>,
    /// What stands there instead.
    pub replacement: Vec<u8>,
    /// The rule that asked for it, for the record of the exchange.
    pub rule: Cow<'static, str>,
}

/// Edits that do not fit the body, or each other: a fault of the rules that made them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// An edit reaches beyond the body, or ends before it starts.
    #[error(
        "expected a range inside the {body_bytes} bytes of the body, found {range:?} of rule {rule}"
    )]
    OutOfBounds {
        /// What was to be replaced.
        range: Range<usize>,
        /// The length of the body.
        body_bytes: usize,
        /// Whose edit it is.
        rule: Cow<'static, str>,
    },
    /// Two edits replace the same bytes.
    #[error(
        "expected edits that do not overlap, found one of rule {first} and one of rule {second} at byte {at}"
    )]
    Overlap {
        /// Whose edit comes first.
        first: Cow<'static, str>,
        /// Whose edit starts inside it.
        second: Cow<'static, str>,
        /// Where the second one starts.
        at: usize,
    },
}

/// The body with all edits made. Sorts the edits; insertions at one place keep their order.
///
/// # Errors
///
/// If an edit is out of bounds, or two overlap. The body is to be sent as it came then.
pub fn apply(body: &[u8], edits: &mut [Edit]) -> Result<Vec<u8>, EditError> {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let added = edits.iter().fold(0_usize, |sum, edit| {
        sum.saturating_add(edit.replacement.len())
    });
    let mut edited = Vec::with_capacity(body.len().saturating_add(added));
    let mut from = 0;
    let mut last_rule = &Cow::Borrowed("");
    for edit in &*edits {
        let range = edit.range.clone();
        if range.start < from {
            return Err(EditError::Overlap {
                first: last_rule.clone(),
                second: edit.rule.clone(),
                at: range.start,
            });
        }
        let Some(kept) = body
            .get(from..range.start)
            .filter(|_| body.get(range.clone()).is_some())
        else {
            return Err(EditError::OutOfBounds {
                range,
                body_bytes: body.len(),
                rule: edit.rule.clone(),
            });
        };
        edited.extend_from_slice(kept);
        edited.extend_from_slice(&edit.replacement);
        from = range.end;
        last_rule = &edit.rule;
    }
    edited.extend_from_slice(body.get(from..).unwrap_or_default());
    Ok(edited)
}

#[cfg(test)]
mod tests;
