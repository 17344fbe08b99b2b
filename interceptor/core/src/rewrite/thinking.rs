//! Whether the signatures of a call's thinking are bound to the history, so that a provider refuses
//! one that was changed.

use std::sync::LazyLock;

use crate::answer::Object;
use crate::pricing::spellings_of;

/// Whether thinking is switched on in `body`, and nothing says that `model` signs it without the
/// history. A model that is not known is taken to bind it.
#[must_use]
pub fn binds_history(model: &str, body: &[u8]) -> bool {
    let Some(body) = Object::read(body) else {
        return false;
    };
    // Converse has the parameters of the model's maker in a member of their own.
    let more = body.object("additionalModelRequestFields");
    let thinking = body.object("thinking");
    let thinking = thinking.or_else(|| more?.object("thinking"));
    match thinking {
        // Who says what a history that differs is to lead to has it checked, whatever the model.
        Some(thinking) if thinking.object("block_binding").is_some() => true,
        Some(thinking) if thinking.name("type").as_deref() == Some("disabled") => false,
        Some(_) => !is_unbound(model),
        // How OpenRouter asks Claude for it, and hands its blocks on with their signatures.
        None => body.object("reasoning").is_some() && is_claude(model) && !is_unbound(model),
    }
}

/// Whether a model is listed as one that signs its thinking without the history, if at all.
fn is_unbound(model: &str) -> bool {
    let spellings = spellings_of(model);
    let is_listed = |listed: &Listed| spellings.iter().any(|name| listed.is(name));
    UNBOUND.iter().any(is_listed)
}

pub(super) fn is_claude(model: &str) -> bool {
    model.to_ascii_lowercase().contains("claude")
}

/// A line of the list.
#[derive(Debug)]
enum Listed {
    /// A model.
    Model(&'static str),
    /// All whose names begin so.
    Family(&'static str),
}

impl Listed {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Model(model) => name == *model,
            Self::Family(start) => name.starts_with(start),
        }
    }
}

static UNBOUND: LazyLock<Vec<Listed>> = LazyLock::new(|| {
    let lines = include_str!("../../unbound.txt").lines();
    let lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    let listed = lines.filter(|line| !line.is_empty());
    listed
        .map(|line| match line.strip_suffix('*') {
            Some(start) => Listed::Family(start),
            None => Listed::Model(line),
        })
        .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_thinking_of_models_that_are_not_known_to_leave_the_history_out_is_bound_to_it() {
        let cases = [
            ("claude-opus-5-5", true),
            ("claude-opus-5-5-20261014", true),
            ("claude-opus-5-6", true),
            ("claude-fable-5-1", true),
            ("claude-mythos-5-1", true),
            ("us.anthropic.claude-haiku-5-5", true),
            ("anthropic/claude-sonnet-5.5", true),
            ("claude-opus-6", true),
            ("a-deployment", true),
            ("", true),
            ("claude-opus-5", false),
            ("claude-opus-5@20260724", false),
            ("claude-sonnet-5-20260601", false),
            ("claude-3-7-sonnet-20250219", false),
            ("anthropic/claude-3.7-sonnet:thinking", false),
            ("claude-sonnet-4-20250514", false),
            ("claude-opus-4-8[1m]", false),
            ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", false),
            ("glm-5.2", false),
            ("deepseek-reasoner", false),
            ("moonshotai/kimi-k3", false),
        ];
        for (model, binds) in cases {
            let on = |field: &str| format!(r#"{{{field},"messages":[]}}"#);
            let adaptive = on(r#""thinking":{"type":"adaptive"}"#);
            assert_eq!(binds_history(model, adaptive.as_bytes()), binds, "{model}");
            let asked = on(
                r#""thinking":{"type":"adaptive","block_binding":{"prefix_mismatch_behavior":"error"}}"#,
            );
            assert!(binds_history(model, asked.as_bytes()), "{model}");
            let off = on(r#""thinking":{"type":"disabled"}"#);
            assert!(!binds_history(model, off.as_bytes()), "{model}");
            let none = on(r#""max_tokens":1"#);
            assert!(!binds_history(model, none.as_bytes()), "{model}");
            let converse = on(r#""additionalModelRequestFields":{"thinking":{"type":"enabled"}}"#);
            assert_eq!(binds_history(model, converse.as_bytes()), binds, "{model}");
        }
        let reasons = br#"{"reasoning":{"effort":"high"},"messages":[]}"#;
        assert!(binds_history("anthropic/claude-opus-5.5", reasons));
        assert!(!binds_history("anthropic/claude-opus-4.5", reasons));
        assert!(!binds_history("openai/gpt-6-astra", reasons));
    }
}
