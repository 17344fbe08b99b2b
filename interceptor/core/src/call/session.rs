//! Which session of its program a call belongs to, as far as the program says.
//!
//! What names a session, in this order: a header field ([`session_of_headers`]); in the body
//! ([`Call::session`](super::Call::session)) the conversation, then Anthropic's `metadata.user_id`; at
//! last the answer that is continued ([`Call::continues`](super::Call::continues)). A
//! `prompt_cache_key` names none: it is meant to be shared by whoever has a prompt in common.

use crate::json::{NAME_BYTES_MAX, Scanner};

use super::member_string;

/// The session that header fields name; `field` tells the value of one by its name, in lower case.
pub fn session_of_headers<'a>(field: impl Fn(&'static str) -> Option<&'a str>) -> Option<&'a str> {
    let named = HEADERS.into_iter().filter_map(field);
    let mut named = named.map(str::trim);
    named.find(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX)
}

/// The session in the `metadata.user_id` of a call. Claude Code writes an object there, as text, whose
/// member `session_id` it is, and before that `user_…_account_…_session_…`. Of other programs it is
/// their user, which is the nearest to a session that they name.
pub(super) fn of_user_id(user_id: String) -> String {
    let text = user_id.as_bytes();
    if let Ok(Some(session)) = member_string(&mut Scanner::new(text), text, b"session_id") {
        return session;
    }
    match user_id.rsplit_once("_session_") {
        Some((_, session)) => session.to_owned(),
        None => user_id,
    }
}

/// Of Claude Code; of Codex, by its older and newer name; of `OpenRouter` and opencode; and what hosts
/// of open models route a session by.
const HEADERS: [&str; 5] = [
    "x-claude-code-session-id",
    "session_id",
    "session-id",
    "x-session-id",
    "x-session-affinity",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_header_field_that_says_something_names_the_session() {
        let long = "s".repeat(NAME_BYTES_MAX + 1);
        for (fields, session) in [
            (&[("x-claude-code-session-id", "a")][..], Some("a")),
            (&[("session_id", "a")], Some("a")),
            (&[("session-id", " a ")], Some("a")),
            (
                &[("x-session-affinity", "b"), ("x-session-id", "a")],
                Some("a"),
            ),
            (&[("session_id", ""), ("x-session-id", "a")], Some("a")),
            (&[("session_id", &long), ("x-session-id", "a")], Some("a")),
            (&[("x-request-id", "a")], None),
        ] {
            let found = session_of_headers(|name| {
                let mut fields = fields.iter();
                fields.find_map(|(field, value)| (*field == name).then_some(*value))
            });
            assert_eq!(found, session, "{fields:?}");
        }
    }

    #[test]
    fn a_user_id_names_the_session_that_is_in_it() {
        for (user_id, session) in [
            (
                r#"{"device_id":"d","account_uuid":"","session_id":"s-1"}"#,
                "s-1",
            ),
            ("user_0a_account_1b-2c_session_s-1", "s-1"),
            (r#"{"device_id":"d"}"#, r#"{"device_id":"d"}"#),
            ("ann", "ann"),
            ("", ""),
        ] {
            assert_eq!(of_user_id(user_id.to_owned()), session);
        }
    }
}
