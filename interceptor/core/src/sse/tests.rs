//! The parser of event streams, from the outside.

use super::*;

/// Name and data of an event, as text.
type Seen = (String, String);

/// The events of a stream that is pushed in pieces of the given sizes, over and over.
fn events(stream: &[u8], sizes: &[usize]) -> Vec<Seen> {
    let mut parser = EventParser::new(1024);
    let mut seen = Vec::new();
    let mut rest = stream;
    for size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        parser.push(piece, |event| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            seen.push((text(event.name), text(event.data)));
        });
        rest = after;
        if rest.is_empty() {
            return seen;
        }
    }
    seen
}

/// Checks the events of a stream, whole, in all splits in two, and byte by byte.
#[track_caller]
fn check(stream: &str, expected: &[(&str, &str)]) {
    let expected: Vec<Seen> = expected
        .iter()
        .map(|(name, data)| ((*name).to_owned(), (*data).to_owned()))
        .collect();
    let stream = stream.as_bytes();
    assert_eq!(events(stream, &[stream.len().max(1)]), expected, "whole");
    assert_eq!(events(stream, &[1]), expected, "byte by byte");
    for at in 1..stream.len() {
        assert_eq!(
            events(stream, &[at, stream.len()]),
            expected,
            "split at {at}"
        );
    }
}

#[test]
fn lines_end_with_any_of_the_three_line_ends() {
    let expected = [("a", "1"), ("", "2\n3")];
    check("event: a\ndata: 1\n\ndata: 2\ndata: 3\n\n", &expected);
    check(
        "event: a\r\ndata: 1\r\n\r\ndata: 2\r\ndata: 3\r\n\r\n",
        &expected,
    );
    check("event: a\rdata: 1\r\rdata: 2\rdata: 3\r\r", &expected);
    check("event: a\r\ndata: 1\n\r\ndata: 2\rdata: 3\n\r", &expected);
}

#[test]
fn fields_are_read_as_the_standard_says() {
    check("data:1\n\n", &[("", "1")]);
    check("data:  1\n\n", &[("", " 1")]);
    check("data\n\n", &[("", "")]);
    check("data\ndata\n\n", &[("", "\n")]);
    check("data:\n\n", &[("", "")]);
    check("database: 1\n\n", &[]);
    check("event: a\n\ndata: 1\n\n", &[("", "1")]);
    check("event: a\nevent: b\ndata: 1\n\n", &[("b", "1")]);
    check("event: a\ndata: 1\nevent\n\n", &[("", "1")]);
    check("id: 7\nretry: 3\ndata: 1\nunknown: 2\n\n", &[("", "1")]);
    check("data: a: b\n\n", &[("", "a: b")]);
    check("data: ü🦀\n\n", &[("", "ü🦀")]);
    check("data: a\ndata: b\ndata: c\n\n", &[("", "a\nb\nc")]);
}

#[test]
fn comments_and_empty_lines_are_no_events() {
    check(": keep-alive\n\n\n\n: x\ndata: 1\n\n:\n\n", &[("", "1")]);
    check("\n\n\r\n\r", &[]);
    check("", &[]);
}

#[test]
fn an_event_that_no_empty_line_ends_is_none() {
    check("data: 1\n\ndata: 2\n", &[("", "1")]);
    check("data: 1", &[]);
}

#[test]
fn a_byte_order_mark_is_ignored_at_the_start_only() {
    check("\u{FEFF}data: 1\n\n\u{FEFF}data: 2\n\n", &[("", "1")]);
    check("\u{FEFF}event: a\ndata: 1\n\n", &[("a", "1")]);
}

#[test]
fn an_event_beyond_the_bound_is_counted_and_the_stream_goes_on() {
    let long = "x".repeat(1024);
    let many = "data: x\n".repeat(200);
    for stream in [
        format!("data: 1\n\nevent: a\ndata: {long}\ndata: y\n\ndata: 2\n\n"),
        format!("data: 1\n\n{many}\ndata: 2\n\n"),
        format!("data: 1\r\n\r\nevent: a\r\ndata: {long}\r\n\r\ndata: 2\r\n\r\n"),
    ] {
        check(&stream, &[("", "1"), ("", "2")]);
        for size in [1, 7, 1023, 4096] {
            let mut parser = EventParser::new(1024);
            for piece in stream.as_bytes().chunks(size) {
                parser.push(piece, |_| {});
            }
            assert_eq!(parser.skipped(), 1, "{size}");
            assert!(parser.pending.capacity() <= KEPT_BYTES);
        }
    }
}

#[test]
fn an_event_of_exactly_the_bound_is_read() {
    let stream = format!("data: {}\n\n", "x".repeat(1024 - 8));
    assert_eq!(events(stream.as_bytes(), &[stream.len()]).len(), 1);
    assert_eq!(events(stream.as_bytes(), &[3]).len(), 1);
    let stream = format!("data: {}\n\n", "x".repeat(1024 - 7));
    assert_eq!(events(stream.as_bytes(), &[stream.len()]).len(), 0);
    assert_eq!(events(stream.as_bytes(), &[3]).len(), 0);
}

#[test]
fn ranges_cover_the_stream_from_block_to_block() {
    let stream = ": c\n\nevent: a\ndata: 1\n\ndata: 2\r\n\r\ndata: 3";
    for size in [1, 2, 5, 100] {
        let mut parser = EventParser::new(1024);
        let mut ranges = Vec::new();
        for piece in stream.as_bytes().chunks(size) {
            parser.push(piece, |event| ranges.push(event.range));
        }
        // In single bytes the last line feed comes after the event is complete.
        assert_eq!(ranges.first(), Some(&(5..23)), "{size}");
        assert!(matches!(ranges.get(1), Some(range) if range.start == 23 && range.end >= 33));
        assert_eq!(parser.block_start(), 34, "{size}");
    }
}

#[test]
fn an_event_in_one_push_is_not_copied() {
    let stream = b"data: before\n\ndata: whole\n\n";
    let mut parser = EventParser::new(1024);
    let inside = stream.as_ptr_range();
    parser.push(stream, |event| {
        assert!(inside.contains(&event.data.as_ptr()));
    });
    assert_eq!(parser.pending.capacity(), 0);
}
