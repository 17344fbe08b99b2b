//! The scanner against `serde_json`: on well-formed texts it finds the same parts, and what it
//! accepts beyond them is wrong inside a string or a number only.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value as Tree;
use weir_core::json::{self, Kind, Malformed, Scanner, Value};

/// Checks that every part of `value` is where `tree` says, by parsing each slice.
fn check(bytes: &[u8], value: &Value, tree: &Tree) {
    let slice = &bytes[value.range.clone()];
    match tree {
        Tree::Object(object) => {
            assert_eq!(value.kind, Kind::Object);
            let members = json::members(bytes, value.range.clone()).unwrap();
            for (name, inner) in object {
                let last = members
                    .iter()
                    .rev()
                    .find(|member| member.is(bytes, name))
                    .unwrap();
                check(bytes, &last.value, inner);
            }
            let known = |range: &Range<usize>| {
                let key = &bytes[range.start - 1..=range.end];
                object.contains_key(&serde_json::from_slice::<String>(key).unwrap())
            };
            assert!(members.iter().all(|member| known(&member.key)));
        }
        Tree::Array(array) => {
            assert_eq!(value.kind, Kind::Array);
            let elements = json::elements(bytes, value.range.clone()).unwrap();
            assert_eq!(elements.len(), array.len());
            for (element, inner) in elements.iter().zip(array) {
                check(bytes, element, inner);
            }
        }
        Tree::String(_) => assert_eq!(value.kind, Kind::String),
        Tree::Number(_) => assert_eq!(value.kind, Kind::Number),
        Tree::Bool(true) => assert_eq!(value.kind, Kind::True),
        Tree::Bool(false) => assert_eq!(value.kind, Kind::False),
        Tree::Null => assert_eq!(value.kind, Kind::Null),
    }
    assert_eq!(serde_json::from_slice::<Tree>(slice).unwrap(), *tree);
}

/// Overwrites the inside of every string, keys included, and every number with plain ones.
fn plain(bytes: &[u8], value: &Value, text: &mut [u8]) {
    match value.kind {
        Kind::Object => {
            for member in json::members(bytes, value.range.clone()).unwrap() {
                text[member.key.clone()].fill(b'x');
                plain(bytes, &member.value, text);
            }
        }
        Kind::Array => {
            for element in json::elements(bytes, value.range.clone()).unwrap() {
                plain(bytes, &element, text);
            }
        }
        Kind::String => text[value.range.start + 1..value.range.end - 1].fill(b'x'),
        Kind::Number => {
            text[value.range.clone()].fill(b' ');
            text[value.range.start] = b'1';
        }
        Kind::True | Kind::False | Kind::Null => {}
    }
}

/// Compares the two on any bytes at all.
fn compare(bytes: &[u8]) {
    match (json::document(bytes), serde_json::from_slice::<Tree>(bytes)) {
        (Ok(value), Ok(tree)) => check(bytes, &value, &tree),
        (Ok(value), Err(_)) => {
            let mut text = bytes.to_vec();
            plain(bytes, &value, &mut text);
            serde_json::from_slice::<Tree>(&text).unwrap();
        }
        (Err(malformed), Ok(_)) => panic!("{malformed}: {}", String::from_utf8_lossy(bytes)),
        (Err(malformed), Err(_)) => assert!(malformed.at <= bytes.len()),
    }
}

/// Strings with escapes of all kinds, some long enough for every way of searching them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c\"\\\\\n/\u{e9}\u{1f980}]{0,8}",
        "([a-z ]{0,40}[\"\\\\]{1,5}){0,12}[a-z]{0,90}",
        "[a-z ]{100,300}",
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::from),
        any::<i64>().prop_map(Tree::from),
        // Of few digits: without the feature `float_roundtrip`, `serde_json` misreads the others.
        (any::<i16>(), -9_i32..9)
            .prop_map(|(digits, power)| { Tree::from(f64::from(digits) * 2_f64.powi(power)) }),
        text().prop_map(Tree::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Tree::from),
            vec((text(), inner), 0..6)
                .prop_map(|members| Tree::Object(members.into_iter().collect())),
        ]
    })
}

/// Bytes that JSON is made of, so that chance meets structure.
fn scraps() -> impl Strategy<Value = Vec<u8>> {
    let scrap = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\"a\"", "\"a\":", "0", "-", "1.5", "e", "E+2",
        "true", "false", "null", "nul", " ", "\n", "\t", "\u{1}", "\\u00e9", "\\ud800", "ü",
    ]);
    vec(scrap, 0..24).prop_map(|scraps| scraps.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_part_of_a_well_formed_text_is_found(tree in tree(), pretty in any::<bool>()) {
        let bytes = if pretty { serde_json::to_vec_pretty(&tree) } else { serde_json::to_vec(&tree) };
        let bytes = bytes.unwrap();
        check(&bytes, &json::document(&bytes).unwrap(), &tree);
    }

    #[test]
    fn a_damaged_text_is_accepted_only_if_its_structure_is_whole(
        tree in tree(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..4),
    ) {
        let mut bytes = serde_json::to_vec(&tree).unwrap();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => { bytes.remove(at); }
                _ => {}
            }
        }
        compare(&bytes);
    }

    #[test]
    fn scraps_of_json_are_judged_as_serde_json_does(bytes in scraps()) {
        compare(&bytes);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..64), range in (0_usize..80, 0_usize..80)) {
        compare(&bytes);
        let _members = json::members(&bytes, range.0..range.1);
        let _elements = json::elements(&bytes, range.0..range.1);
    }
}

#[test]
fn a_text_cut_anywhere_is_malformed() {
    let whole = br#"{"a":[1,-2.5e3,"x\"y\\",{"b":null}],"c":{"d":true,"e":false}}"#;
    for end in 0..whole.len() {
        assert!(json::document(&whole[..end]).is_err(), "{end}");
    }
    compare(whole);
}

#[test]
fn what_is_malformed_is_told_with_place_and_expectation() {
    for (text, at, expected) in [
        ("", 0, "a value"),
        ("{\"a\" 1}", 5, "`:`"),
        ("{\"a\":1,}", 7, "a key in quotes"),
        ("[1 2]", 3, "`,` or `]`"),
        ("[[1}", 3, "`,` or `]`"),
        ("{\"a\":1]", 6, "`,` or `}`"),
        ("[1,]", 3, "a value"),
        ("01", 1, "nothing after the value"),
        ("1.", 2, "a digit"),
        ("nulL", 0, "`null`"),
        ("\"abc", 4, "`\"` at the end of the string"),
        ("\u{feff}{}", 0, "a value"),
    ] {
        let malformed = json::document(text.as_bytes()).unwrap_err();
        assert_eq!((malformed.at, malformed.expected), (at, expected), "{text}");
        let nested = format!("[{text}");
        assert!(
            json::elements(nested.as_bytes(), 0..nested.len()).is_err(),
            "{text}"
        );
    }
}

#[test]
fn nesting_is_bounded_where_serde_json_bounds_it() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for (depth, fits) in [
            (json::DEPTH_MAX, true),
            (json::DEPTH_MAX + 1, false),
            (100_000, false),
        ] {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(json::document(text.as_bytes()).is_ok(), fits, "{depth}");
            assert_eq!(serde_json::from_str::<Tree>(&text).is_ok(), fits, "{depth}");
        }
    }
}

#[test]
fn of_members_with_one_key_the_last_counts_however_it_is_escaped() {
    let text = br#"{"model":1,"mod\u0065l":2,"Model":3}"#;
    let members = json::members(text, 0..text.len()).unwrap();
    let last = members
        .iter()
        .rev()
        .find(|member| member.is(text, "model"))
        .unwrap();
    assert_eq!(text[last.value.range.clone()], *b"2");
}

#[test]
fn walking_into_values_is_bounded_like_passing_them() {
    fn walk(scanner: &mut Scanner<'_>) -> Result<(), Malformed> {
        match scanner.kind()? {
            Kind::Array => scanner.elements(walk).map(|_| ()),
            Kind::Object => scanner.members(|scanner, _, _| walk(scanner)).map(|_| ()),
            _ => Ok(()),
        }
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for (depth, fits) in [(json::DEPTH_MAX, true), (json::DEPTH_MAX + 1, false)] {
            let text = format!("{}[]{}", open.repeat(depth - 1), close.repeat(depth - 1));
            assert_eq!(
                walk(&mut Scanner::new(text.as_bytes())).is_ok(),
                fits,
                "{depth}"
            );
        }
    }
}

/// Strings in which quotes are escaped are searched in blocks: their ends are tried at every place
/// of a block, behind every number of backslashes.
#[test]
fn a_string_ends_where_it_ends_whatever_is_escaped_before() {
    for length in 0..150 {
        for backslashes in 0..5 {
            let text = format!(
                r#"["\"{}{}{}",{{"{}":"{}"}}]"#,
                "x".repeat(length),
                r#"\\"#.repeat(backslashes),
                r#"\""#.repeat(length % 2),
                "y".repeat(70),
                r#"\"z"#.repeat(40),
            );
            compare(text.as_bytes());
            assert!(json::document(text.as_bytes()).is_ok(), "{text}");
        }
    }
}

#[test]
fn whole_numbers_are_those_of_serde_json() {
    for text in [
        "0",
        "7",
        "10",
        "01",
        "-0",
        "-1",
        "1.0",
        "1e3",
        "",
        "x",
        "1x",
        "+1",
        "9999999999999999999",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999",
    ] {
        let expected: Option<u64> = serde_json::from_str(text).ok();
        assert_eq!(
            json::whole(text.as_bytes(), 0..text.len()),
            expected,
            "{text:?}"
        );
    }
}

#[test]
fn a_key_is_known_however_it_is_escaped() {
    for key in [
        r"usage",
        r"\u0075sage",
        r"us\u0061ge",
        r"usag\u0065",
        r"\u0075\u0073\u0061\u0067\u0065",
    ] {
        let text = format!(r#"{{"user":1,"usage_and_more":2,"{key}":3}}"#);
        let members = json::members(text.as_bytes(), 0..text.len()).unwrap();
        let named: Vec<_> = members
            .iter()
            .map(|member| member.is(text.as_bytes(), "usage"))
            .collect();
        assert_eq!(named, [false, false, true], "{key}");
    }
}
