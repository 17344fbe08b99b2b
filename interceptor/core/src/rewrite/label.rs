//! Which of the values in a prompt a change is about, in words that the model finds there.
//!
//! Where a reference stands in the prefix, its name says so, and where a rule found one value only that
//! is called like the rule there, the name of the rule does. Of other values that stay there themselves,
//! the text that tells another quotes the words before it and its beginning. That is longer, and told at
//! each change, so it is not said where it is clear.

use crate::json;
use crate::volatile::{Rules, Transform};

use super::Request;
use super::current::Current;
use super::memory::Value;

/// Says of each of `changes` where in the prefix the value stands that it replaces; `kept` is what
/// those were first.
pub(super) fn place_all(
    request: &Request<'_>,
    found: &[Current],
    rules: &Rules,
    kept: &[Value],
    changes: &mut [Value],
) {
    if changes.is_empty() {
        return;
    }
    let stays = |now: &Current| matches!(now.transform, Transform::Pin | Transform::Coarsen);
    let rule = |now: &Current| rules.rule(now.span.rule).map(|rule| rule.name.as_str());
    let before = |index: usize| index.checked_sub(1).and_then(|before| found.get(before));
    let is_clear = |index: usize, now: &Current| {
        let alike = found.iter().filter(|other| rule(other) == rule(now));
        alike.count() < 2
            && rules.learned() != Some(now.span.rule)
            && rule(now).is_none_or(|name| is_named(request, before(index), now, name))
    };
    let mut places: Vec<(String, usize)> = Vec::new();
    let unclear = |(index, now): &(usize, &Current)| stays(now) && !is_clear(*index, now);
    for (index, now) in found.iter().enumerate().filter(unclear) {
        let first = kept.iter().find(|first| first.name == now.value.name);
        let Some(first) = first else { continue };
        let Some(place) = place(request, before(index), now, first) else {
            continue;
        };
        // Of several that read the same, which one.
        let known = places.iter_mut().find(|(known, _)| *known == place);
        let number = match known {
            Some((_, count)) => {
                *count = count.saturating_add(1);
                *count
            }
            None => {
                places.push((place.clone(), 1));
                1
            }
        };
        let own = changes
            .iter_mut()
            .find(|change| change.name == now.value.name);
        if let Some(own) = own {
            own.place = match number {
                1 => place,
                number => format!("{place} (no. {number})"),
            };
        }
    }
}

/// Whether the prompt calls a value as its rule does; the date and the time are the only ones there.
fn is_named(request: &Request<'_>, before: Option<&Current>, now: &Current, rule: &str) -> bool {
    if matches!(rule, "current-date" | "current-time") {
        return true;
    }
    let label = words_before(request, before, now).map(|(line, _)| line.to_lowercase());
    label.is_some_and(|label| rule.split('-').all(|word| label.contains(word)))
}

/// The words before a value, on its line or on the one above, and what is between them and it.
fn words_before(
    request: &Request<'_>,
    before: Option<&Current>,
    now: &Current,
) -> Option<(String, String)> {
    let segment = request.prompt.segments.get(now.span.segment)?;
    let start = segment.text.as_ref()?.start.checked_add(1)?;
    let before = before.filter(|before| before.span.segment == now.span.segment);
    let start = before.map_or(start, |before| before.span.range.end.max(start));
    let words = text(request.body.get(start..now.span.range.start)?)?;
    let (line, blank) = words.split_at_checked(words.trim_end().len())?;
    let blank = if blank.contains('\n') { " " } else { blank };
    let line = line
        .rsplit('\n')
        .next()?
        .trim_start_matches([' ', '\t', ',', ';', '.']);
    Some((line.to_owned(), blank.to_owned()))
}

/// The words before a value, and the beginning of what it was first.
fn place(
    request: &Request<'_>,
    before: Option<&Current>,
    now: &Current,
    first: &Value,
) -> Option<String> {
    let (line, blank) = words_before(request, before, now)?;
    let skipped = line.chars().count().saturating_sub(LABEL_CHARACTERS_MAX);
    let label: String = line.chars().skip(skipped).collect();
    let was = text(first.raw.as_bytes())?;
    let line = was.trim_start().lines().next().unwrap_or_default();
    let value: String = line.chars().take(VALUE_CHARACTERS_MAX).collect();
    let more = if value.len() < was.trim().len() {
        "…"
    } else {
        ""
    };
    let quoted = format!("{label}{blank}{value}{more}");
    let json = serde_json::to_string(quoted.trim()).ok()?;
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.to_owned())
}

/// What a part of a JSON string reads.
fn text(raw: &[u8]) -> Option<String> {
    let quoted = [b"\"", raw, b"\""].concat();
    json::text(&quoted, 0..quoted.len())
}

/// How much of the line before a value is quoted, in characters.
const LABEL_CHARACTERS_MAX: usize = 60;
/// How much of a value is quoted, in characters.
const VALUE_CHARACTERS_MAX: usize = 40;
