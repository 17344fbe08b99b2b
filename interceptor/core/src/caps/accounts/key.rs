//! What names an account of a cap, and how people read it.

use super::super::cap::Dimension;
use crate::identity::Subject;

/// The values with their lengths, so that no choice of names gives two subjects one account.
pub(super) fn account_key(per: &[Dimension], subject: &Subject<'_>) -> String {
    let mut key = String::with_capacity(KEY_BYTES);
    for dimension in per {
        let value = dimension.value(subject);
        key.push_str(&value.map_or(0, str::len).to_string());
        key.push(if value.is_some() { ':' } else { '?' });
        key.push_str(value.unwrap_or_default());
    }
    key
}

/// Whose account a key names: the way back from [`account_key`], so that no account need keep it.
pub(super) fn scope_of(per: &[Dimension], key: &str) -> String {
    if key == SHARED_KEY {
        return SHARED_SCOPE.to_owned();
    }
    if per.is_empty() {
        return "all".to_owned();
    }
    let mut rest = key;
    let mut parts = Vec::with_capacity(per.len());
    for dimension in per {
        let value = match rest.find([':', '?']) {
            Some(at) => {
                let length = rest.get(..at).and_then(|digits| digits.parse().ok());
                let is_known = rest.get(at..).is_some_and(|rest| rest.starts_with(':'));
                let after = rest.get(at.saturating_add(1)..).unwrap_or_default();
                let (value, next) = after
                    .split_at_checked(length.unwrap_or(0))
                    .unwrap_or((after, ""));
                rest = next;
                if is_known { value } else { UNKNOWN }
            }
            None => UNKNOWN,
        };
        parts.push(format!("{}={value}", dimension.as_str()));
    }
    parts.join(", ")
}

/// The key of the account that is shown as `scope`: the way back from [`scope_of`]; none where no
/// account is shown so. A value that looks like what follows it is taken to be as short as it can be.
pub(super) fn key_of(per: &[Dimension], scope: &str) -> Option<String> {
    if scope == SHARED_SCOPE {
        return Some(SHARED_KEY.to_owned());
    }
    if per.is_empty() {
        return (scope == "all").then(String::new);
    }
    let mut key = String::with_capacity(KEY_BYTES);
    for value in values_of(per, scope)? {
        match value {
            UNKNOWN => key.push_str("0?"),
            known => key.push_str(&format!("{}:{known}", known.len())),
        }
    }
    Some(key)
}

/// The values that a scope names, in the order of `per`, which is not empty.
pub(in crate::caps) fn values_of<'a>(per: &[Dimension], scope: &'a str) -> Option<Vec<&'a str>> {
    let mut rest = scope.strip_prefix(&named(per.first()?))?;
    let mut values = Vec::with_capacity(per.len());
    for (index, _) in per.iter().enumerate() {
        let next = per.get(index.saturating_add(1)).map(named);
        let (value, after) = match next {
            Some(next) => rest.split_once(&format!(", {next}"))?,
            None => (rest, ""),
        };
        values.push(value);
        rest = after;
    }
    Some(values)
}

fn named(dimension: &Dimension) -> String {
    format!("{}=", dimension.as_str())
}

/// The account that callers beyond the most share. No other key starts with a letter: that of a
/// cap kept by nothing is empty.
pub(super) const SHARED_KEY: &str = "others";
const SHARED_SCOPE: &str = "all others";
pub(in crate::caps) const UNKNOWN: &str = "unknown";

/// Room for a user or a hash, so that most keys are one allocation.
const KEY_BYTES: usize = 64;
