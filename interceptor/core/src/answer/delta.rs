//! How much text the events of a stream bring: one walk over the strings of an event, no tree.

use memchr::memchr2;

/// The bytes of all strings of an event that are output, as they are escaped in JSON.
///
/// Every dialect says by the key what a string is. What is not JSON brings nothing.
pub(super) fn text_bytes(data: &[u8]) -> u64 {
    let mut rest = data;
    let mut sum = 0_u64;
    let mut key: &[u8] = b"";
    while let Some(start) = memchr::memchr(b'"', rest) {
        let inside = rest.get(start.saturating_add(1)..).unwrap_or_default();
        let Some(text) = string(inside) else {
            break;
        };
        let after = inside
            .get(text.len().saturating_add(1)..)
            .unwrap_or_default();
        if after.trim_ascii_start().first() == Some(&b':') {
            key = text;
        } else if is_output(key) {
            sum = sum.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        }
        rest = after;
    }
    sum
}

/// The inside of a string whose opening quote was passed.
fn string(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 0_usize;
    loop {
        let found = memchr2(b'"', b'\\', bytes.get(at..)?)?;
        at = at.saturating_add(found);
        if bytes.get(at) == Some(&b'"') {
            return bytes.get(..at);
        }
        at = at.saturating_add(2);
    }
}

/// Whether it is a key of output in the events of Anthropic, `OpenAI` and those who speak like it,
/// Gemini, Bedrock and Cohere. Not among them: `obfuscation`, ids, names, signatures.
const fn is_output(key: &[u8]) -> bool {
    matches!(
        key,
        b"text"
            | b"content"
            | b"delta"
            | b"thinking"
            | b"partial_json"
            | b"arguments"
            | b"reasoning_content"
            | b"reasoning"
            | b"refusal"
            | b"input"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_by_its_key_whatever_the_dialect() {
        for (data, bytes) in [
            (
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#,
                5,
            ),
            (
                r#"{"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#,
                7,
            ),
            (
                r#"{"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi \\"}}],"obfuscation":"xxxxxxxx"}"#,
                5,
            ),
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"id":"call_1","function":{"name":"f","arguments":"{}"}}]}}]}"#,
                2,
            ),
            (
                r#"{"type": "response.output_text.delta", "item_id": "msg", "delta" : "abc", "obfuscation": "y"}"#,
                3,
            ),
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"a"},{"text":"bc"}]}}]}"#,
                3,
            ),
            ("[DONE]", 0),
            (r#"{"text":"cut"#, 0),
            (r#"{"text":"\"#, 0),
            ("", 0),
        ] {
            assert_eq!(text_bytes(data.as_bytes()), bytes, "{data}");
        }
    }
}
