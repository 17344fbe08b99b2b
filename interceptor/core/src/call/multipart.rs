//! Calls that upload a file, as `multipart/form-data` (RFC 7578).

use memchr::memmem;

use super::Call;

/// What a body of this kind starts with.
pub(super) const DASHES: &[u8] = b"--";

/// Reads the few fields that matter. The boundary is what the body starts with, so that no header
/// is needed; what is no such form has no fields.
pub(super) fn read(call: &mut Call, body: &[u8]) {
    let first_line = memmem::find(body, LINE_END).unwrap_or(body.len());
    let Some(delimiter) = body
        .get(..first_line)
        .filter(|line| line.len() > DASHES.len())
    else {
        return;
    };
    let delimiter = [LINE_END, delimiter].concat();
    let finder = memmem::Finder::new(&delimiter);
    let mut rest = body.get(first_line..).unwrap_or_default();
    while let Some(end) = finder.find(rest) {
        read_part(call, rest.get(..end).unwrap_or_default());
        let next = end.saturating_add(delimiter.len());
        rest = rest.get(next..).unwrap_or_default();
    }
}

/// Reads one part: its header lines, an empty line, and the value.
fn read_part(call: &mut Call, part: &[u8]) {
    let Some(head_bytes) = memmem::find(part, HEAD_END) else {
        return;
    };
    let (head, value) = part.split_at_checked(head_bytes).unwrap_or_default();
    let value = value.get(HEAD_END.len()..).unwrap_or_default();
    if memmem::find(head, b"filename=").is_some() {
        call.media = call.media.saturating_add(1);
        return;
    }
    let is_named = |name: &[u8]| {
        [&b" name="[..], &b";name="[..]].into_iter().any(|before| {
            memmem::find_iter(head, before).any(|at| {
                let named = head.get(at.saturating_add(before.len())..);
                let named = named.unwrap_or_default();
                let named = named.strip_prefix(b"\"").unwrap_or(named);
                named
                    .strip_prefix(name)
                    .is_some_and(|end| matches!(end.first(), None | Some(b'"' | b';' | b'\r')))
            })
        })
    };
    let text = || {
        let short = value.len() <= crate::json::NAME_BYTES_MAX;
        let text = std::str::from_utf8(value).ok();
        text.filter(|_| short).map(|text| text.trim().to_owned())
    };
    if is_named(b"model") {
        call.model = text();
    } else if is_named(b"stream") {
        call.stream = value.eq_ignore_ascii_case(b"true");
    } else if is_named(b"n") {
        call.choices = text()
            .and_then(|text| text.parse().ok())
            .unwrap_or(1)
            .max(1);
    } else if is_named(b"prompt") {
        let bytes = u64::try_from(value.len()).unwrap_or(u64::MAX);
        call.text_bytes = call.text_bytes.saturating_add(bytes);
    }
}

const LINE_END: &[u8] = b"\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";
