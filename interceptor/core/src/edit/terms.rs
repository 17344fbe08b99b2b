//! Edits that make a call cheaper: a lower limit on its output, another model.

use std::ops::Range;

use crate::api::Api;
use crate::call::Call;
use crate::json::{self, Kind, Member};

use super::Edit;

/// The edits that lower the limit on output to `tokens`, per choice; nothing where the API has no
/// field for it that is known, or the thinking that the call asks for needs more.
///
/// A limit that is there is replaced; where there is none it is added.
#[must_use]
pub fn lower_output_limit(call: &Call, body: &[u8], tokens: u64) -> Option<Vec<Edit>> {
    let root = json::members(body, 0..body.len()).ok()?;
    match call.api {
        Api::Messages => {
            let thinking = nested(body, &root, "thinking", "budget_tokens");
            is_below(thinking, tokens)?;
            replace_or_add(body, &root, 0..body.len(), &["max_tokens"], tokens)
        }
        Api::InvokeModel => {
            // The makers of models name it differently: only what is there is lowered.
            let thinking = nested(body, &root, "thinking", "budget_tokens");
            is_below(thinking, tokens)?;
            find(body, &root, "max_tokens")?;
            replace_or_add(body, &root, 0..body.len(), &["max_tokens"], tokens)
        }
        Api::ChatCompletions | Api::Completions => {
            let names: &[&str] = match call.api {
                Api::Completions => &["max_tokens"],
                _ => &["max_completion_tokens", "max_tokens"],
            };
            replace_or_add(body, &root, 0..body.len(), names, tokens)
        }
        Api::Responses => {
            replace_or_add(body, &root, 0..body.len(), &["max_output_tokens"], tokens)
        }
        Api::GenerateContent => {
            if find(body, &root, "generation_config").is_some() {
                return None;
            }
            let config = find(body, &root, "generationConfig");
            if let Some(config) = config {
                let members = json::members(body, config.value.range.clone()).ok()?;
                let thinking = nested(body, &members, "thinkingConfig", "thinkingBudget");
                is_below(thinking, tokens)?;
            }
            within(body, &root, "generationConfig", "maxOutputTokens", tokens)
        }
        Api::Converse => within(body, &root, "inferenceConfig", "maxTokens", tokens),
        Api::Embeddings
        | Api::Images
        | Api::Audio
        | Api::Realtime
        | Api::EmbedContent
        | Api::CachedContents
        | Api::Interactions
        | Api::CohereChat => None,
    }
}

/// The edits that name another model; nothing where the body names none.
#[must_use]
pub fn name_model(body: &[u8], from: &str, to: &str) -> Option<Vec<Edit>> {
    let root = json::members(body, 0..body.len()).ok()?;
    let quoted = serde_json::to_vec(to).ok()?;
    // Of several with one key the last counts for most readers, and the first for some.
    let edits: Vec<Edit> = root
        .iter()
        .filter(|member| member.is(body, "model") && member.value.kind == Kind::String)
        .map(|member| Edit {
            range: member.value.range.clone(),
            replacement: quoted.clone(),
            rule: format!("{DOWNGRADE} from {from}").into(),
        })
        .collect();
    (!edits.is_empty()).then_some(edits)
}

fn find<'a>(body: &[u8], members: &'a [Member], name: &str) -> Option<&'a Member> {
    members.iter().rev().find(|member| member.is(body, name))
}

/// A number in an object that is a member.
fn nested(body: &[u8], members: &[Member], object: &str, name: &str) -> Option<u64> {
    let object = find(body, members, object)?;
    let members = json::members(body, object.value.range.clone()).ok()?;
    json::whole(body, find(body, &members, name)?.value.range.clone())
}

fn is_below(thinking: Option<u64>, tokens: u64) -> Option<()> {
    thinking
        .is_none_or(|thinking| thinking < tokens)
        .then_some(())
}

/// Replaces every member of these names, or adds one of the first.
fn replace_or_add(
    body: &[u8],
    members: &[Member],
    object: Range<usize>,
    names: &[&str],
    tokens: u64,
) -> Option<Vec<Edit>> {
    let edit = |range: Range<usize>, replacement: String| Edit {
        range,
        replacement: replacement.into_bytes(),
        rule: CLAMP.into(),
    };
    let is_limit = |member: &&Member| names.iter().any(|name| member.is(body, name));
    let there: Vec<&Member> = members.iter().filter(is_limit).collect();
    if !there.is_empty() {
        let is_above = |member: &&&Member| {
            json::whole(body, member.value.range.clone()).is_none_or(|limit| limit > tokens)
        };
        let lowered: Vec<Edit> = there
            .iter()
            .filter(is_above)
            .map(|member| edit(member.value.range.clone(), tokens.to_string()))
            .collect();
        return (!lowered.is_empty()).then_some(lowered);
    }
    let name = names.first()?;
    let bytes = body.get(object.clone())?;
    let open = bytes.iter().position(|byte| *byte == b'{')?;
    let at = object.start.checked_add(open)?.checked_add(1)?;
    let comma = if members.is_empty() { "" } else { "," };
    Some(vec![edit(at..at, format!("\"{name}\":{tokens}{comma}"))])
}

/// The same in an object that is a member, which is added where there is none.
fn within(
    body: &[u8],
    root: &[Member],
    object: &str,
    name: &str,
    tokens: u64,
) -> Option<Vec<Edit>> {
    let Some(member) = find(body, root, object) else {
        let open = body.iter().position(|byte| *byte == b'{')?.checked_add(1)?;
        let comma = if root.is_empty() { "" } else { "," };
        return Some(vec![Edit {
            range: open..open,
            replacement: format!("\"{object}\":{{\"{name}\":{tokens}}}{comma}").into_bytes(),
            rule: CLAMP.into(),
        }]);
    };
    if member.value.kind != Kind::Object {
        return None;
    }
    let range = member.value.range.clone();
    let members = json::members(body, range.clone()).ok()?;
    replace_or_add(body, &members, range, &[name], tokens)
}

/// The names of the edits in the record of an exchange.
const CLAMP: &str = "clamp";
const DOWNGRADE: &str = "downgrade";

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::*;
    use crate::call;

    #[track_caller]
    fn check(api: Api, body: &str, expected: Option<&str>) {
        let call = call::parse(api, body.as_bytes()).unwrap();
        let edits = lower_output_limit(&call, body.as_bytes(), 2000);
        let edited = edits.map(|mut edits| {
            String::from_utf8(apply(body.as_bytes(), &mut edits).unwrap()).unwrap()
        });
        assert_eq!(edited.as_deref(), expected, "{body}");
    }

    #[test]
    fn the_limit_is_lowered_where_each_api_keeps_it() {
        check(
            Api::Messages,
            r#"{"model":"m","max_tokens": 64000,"messages":[]}"#,
            Some(r#"{"model":"m","max_tokens": 2000,"messages":[]}"#),
        );
        check(
            Api::ChatCompletions,
            r#"{"max_tokens":9,"max_completion_tokens":9000}"#,
            Some(r#"{"max_tokens":9,"max_completion_tokens":2000}"#),
        );
        check(
            Api::ChatCompletions,
            r#"{ "model":"m"}"#,
            Some(r#"{"max_completion_tokens":2000, "model":"m"}"#),
        );
        check(
            Api::Responses,
            r#"{"input":"x"}"#,
            Some(r#"{"max_output_tokens":2000,"input":"x"}"#),
        );
        check(
            Api::GenerateContent,
            r#"{"contents":[],"generationConfig":{"temperature":1,"maxOutputTokens":8192}}"#,
            Some(r#"{"contents":[],"generationConfig":{"temperature":1,"maxOutputTokens":2000}}"#),
        );
        check(
            Api::GenerateContent,
            r#"{"contents":[]}"#,
            Some(r#"{"generationConfig":{"maxOutputTokens":2000},"contents":[]}"#),
        );
        check(
            Api::Converse,
            r#"{"messages":[],"inferenceConfig":{}}"#,
            Some(r#"{"messages":[],"inferenceConfig":{"maxTokens":2000}}"#),
        );
        check(Api::Embeddings, r#"{"input":"x"}"#, None);
    }

    #[test]
    fn thinking_needs_a_limit_above_its_budget() {
        check(
            Api::Messages,
            r#"{"max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":2000},"messages":[]}"#,
            None,
        );
        check(
            Api::Messages,
            r#"{"max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":1999},"messages":[]}"#,
            Some(
                r#"{"max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":1999},"messages":[]}"#,
            ),
        );
        check(
            Api::GenerateContent,
            r#"{"contents":[],"generationConfig":{"thinkingConfig":{"thinkingBudget":4096}}}"#,
            None,
        );
    }

    #[test]
    fn another_model_is_named_wherever_the_body_names_one() {
        let body = br#"{"model":"a","x":{"model":"a"},"model":"a"}"#;
        let mut edits = name_model(body, "a", "b\"c").unwrap();
        assert_eq!(edits[0].rule, "downgrade from a");
        let edited = apply(body, &mut edits).unwrap();
        let expected = br#"{"model":"b\"c","x":{"model":"a"},"model":"b\"c"}"#;
        assert_eq!(edited, expected);
        assert_eq!(name_model(br#"{"contents":[]}"#, "a", "b"), None);
    }
}
