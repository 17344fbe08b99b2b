//! The prompt of each dialect, in cache order.

use super::*;

/// Section, kind and text of each segment.
fn outline(body: &str) -> Vec<String> {
    let prompt = read(body.as_bytes()).unwrap();
    let each = prompt.segments.iter().map(|segment| {
        let text = segment
            .text
            .clone()
            .and_then(|text| body.get(text))
            .unwrap_or_default();
        let mark = match &segment.marker {
            None => "",
            Some(marker) if marker.lifetime == Lifetime::Long => " 1h",
            Some(_) => " 5m",
        };
        format!("{:?} {:?} {text}{mark}", segment.section, segment.kind)
    });
    each.collect()
}

#[test]
fn each_dialect_is_read_in_cache_order() {
    for (body, expected) in [
        (
            r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"tool_use","id":"1","name":"n","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"r"},{"type":"text","text":"go","cache_control":{"type":"ephemeral"}}]},{"role":"system","content":"note"}],"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral","ttl":"1h"}}],"tools":[{"name":"n","description":"d","input_schema":{}}]}"#,
            vec![
                r#"Tools Tool "d""#,
                r#"System Text "s" 1h"#,
                r#"Messages Text "hi""#,
                "Messages Thinking ",
                "Messages ToolUse ",
                "Messages ToolResult ",
                r#"Messages Text "go" 5m"#,
                r#"Messages Text "note""#,
            ],
        ),
        (
            r#"{"messages":[{"role":"developer","content":"s"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}}]},{"role":"tool","tool_call_id":"1","content":"r"}],"tools":[{"type":"function","function":{"name":"n","description":"d"}}]}"#,
            vec![
                r#"Tools Tool "d""#,
                r#"System Text "s""#,
                r#"Messages Text "a""#,
                "Messages Media ",
                r#"Messages ToolResult "r""#,
            ],
        ),
        (
            r#"{"instructions":"s","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"function_call","call_id":"1","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":"r"}]}"#,
            vec![
                r#"System Text "s""#,
                r#"Messages Text "a""#,
                r#"Messages ToolResult "r""#,
            ],
        ),
        (
            r#"{"instructions":"s","input":"a"}"#,
            vec![r#"System Text "s""#, r#"Messages Text "a""#],
        ),
        (
            r#"{"contents":[{"role":"user","parts":[{"text":"a"},{"inlineData":{"data":""}}]},{"role":"model","parts":[{"text":"x","thought":true},{"functionCall":{}}]}],"systemInstruction":{"parts":[{"text":"s"}]},"tools":[{"functionDeclarations":[]}],"cachedContent":"c"}"#,
            vec![
                "Tools Tool ",
                r#"System Text "s""#,
                r#"Messages Text "a""#,
                "Messages Media ",
                "Messages Thinking ",
                "Messages ToolUse ",
            ],
        ),
        (
            r#"{"system":[{"text":"s"},{"cachePoint":{"type":"default"}}],"messages":[{"role":"user","content":[{"text":"a"},{"toolResult":{"content":[]}},{"cachePoint":{"type":"default","ttl":"1h"}}]}],"toolConfig":{"tools":[{"toolSpec":{"name":"n","description":"d"}}]}}"#,
            vec![
                r#"Tools Tool "d""#,
                r#"System Text "s" 5m"#,
                r#"Messages Text "a""#,
                "Messages ToolResult  1h",
            ],
        ),
    ] {
        assert_eq!(outline(body), expected, "{body}");
    }
}

#[test]
fn markers_inside_of_contents_count_and_members_that_only_share_their_name_do_not() {
    let mark = r#""cache_control":{"type":"ephemeral"}"#;
    let long = r#""cache_control":{"type":"ephemeral","ttl":"1h"}"#;
    let text = format!(r#"{{"type":"text","text":"t",{long}}}"#);
    let search = format!(r#"{{"type":"search_result","content":[{text}],{mark}}}"#);
    let result = format!(
        r#"{{"type":"tool_result","tool_use_id":"t","content":[{{{mark},"type":"text","text":"r"}},{search}]}}"#
    );
    let document =
        format!(r#"{{"type":"document","source":{{"type":"content","content":[{text}]}},{mark}}}"#);
    let call = format!(
        r#"{{"type":"tool_use","id":"t","name":"n","input":{{"content":[{text}],{mark}}}}}"#
    );
    let schema = format!(r#"{{"name":"n","input_schema":{{"properties":{{{mark}}}}}}}"#);
    for (block, expected) in [(&result, 3), (&document, 2), (&call, 0)] {
        let body =
            format!(r#"{{"tools":[{schema}],"messages":[{{"role":"user","content":[{block}]}}]}}"#);
        let prompt = read(body.as_bytes()).unwrap();
        assert_eq!(prompt.markers(), expected, "{body}");
        let key = HashKey::new([7; 16]);
        // Without any marker it is the same prompt.
        let plain = body
            .replace(&format!(",{mark}"), "")
            .replace(&format!(",{long}"), "");
        let plain = plain.replace(&format!("{mark},"), "");
        if expected > 0 {
            assert_ne!(plain, body);
            let plain = plain.replace(r#""properties":{}"#, &format!(r#""properties":{{{mark}}}"#));
            let without = read(plain.as_bytes()).unwrap();
            assert_eq!(without.markers(), 0, "{plain}");
            assert_eq!(
                prompt.fingerprints(body.as_bytes(), &key),
                without.fingerprints(plain.as_bytes(), &key),
                "{body}"
            );
        }
    }
    let point = r#"{"cachePoint":{"type":"default"}}"#;
    for (blocks, expected) in [
        (format!(r#"{{"text":"a"}},{point},{point}"#), 2),
        (point.to_owned(), 1),
        (
            format!(
                r#"{{"toolResult":{{"content":[{{"text":"r"}},{point},{{"json":{{"content":[{point}]}}}}]}}}},{point}"#
            ),
            2,
        ),
    ] {
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{blocks}]}}]}}"#);
        assert_eq!(read(body.as_bytes()).unwrap().markers(), expected, "{body}");
    }
}

#[test]
fn what_only_moves_markers_or_changes_the_form_of_a_text_has_the_same_fingerprints() {
    let key = HashKey::new([7; 16]);
    let prints = |body: &str| {
        let prompt = read(body.as_bytes()).unwrap();
        let mut all = prompt.fingerprints(body.as_bytes(), &key);
        all.extend(prompt.histories(body.as_bytes(), &key, 1));
        all
    };
    let plain = r#"{"system":"s","tools":[{"name":"n","input_schema":{}}],"messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"image","source":{}}]}]}"#;
    for same in [
        r#"{"tools":[{"name":"n","input_schema":{},"cache_control":{"type":"ephemeral"}}],"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[{"content":[{"type":"text","text":"a"}],"role":"user"},{"role":"user","content":[{"cache_control":{"type":"ephemeral"}, "type":"image","source":{}}]}]}"#,
        r#"{"system":[{"text":"s","type":"text"}],"tools":[{"name":"n","input_schema":{} , "cache_control":{"type":"ephemeral","ttl":"1h"}}],"messages":[{"role":"user","content":[{"cache_control":{"type":"ephemeral"},"type":"text","text":"a"}]},{"role":"user","content":[{"type":"image", "cache_control":{"type":"ephemeral"},"source":{}}]}]}"#,
    ] {
        assert_eq!(prints(same), prints(plain), "{same}");
    }
    let other = plain.replace(r#""content":"a""#, r#""content":"b""#);
    let (other, plain) = (prints(&other), prints(plain));
    let same = other.iter().zip(&plain).map(|(a, b)| a == b);
    let same: Vec<bool> = same.collect();
    // Tool and system are the same; what comes behind the change is not.
    assert_eq!(same, [true, true, false, false, false, false]);
}

#[test]
fn a_key_of_another_installation_gives_other_fingerprints() {
    let body = br#"{"messages":[{"role":"user","content":"a"}]}"#;
    let prompt = read(body).unwrap();
    let of = |key| prompt.fingerprints(body, &HashKey::new(key));
    assert_ne!(of([1; 16]), of([2; 16]));
}

#[test]
fn a_body_of_another_shape_has_an_empty_prompt_or_none() {
    for body in [r#"{"messages":1,"system":2,"tools":null}"#, "{}"] {
        let prompt = read(body.as_bytes()).unwrap();
        assert_eq!(prompt.segments, [], "{body}");
    }
    for body in ["", "[]", r#"{"messages":[{]}"#, "{} {}"] {
        assert!(read(body.as_bytes()).is_err(), "{body}");
    }
}
