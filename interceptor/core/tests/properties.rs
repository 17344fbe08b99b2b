//! What holds for any bytes at all, of any origin and cut anywhere: nothing panics, nothing is lost,
//! and the cut makes no difference.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use weir_core::answer::{Answer, AnswerReader, Form};
use weir_core::api::{Api, recognize};
use weir_core::call;
use weir_core::catalog::{Catalog, Provider};
use weir_core::edit::{Edit, Piece, UsageChunkFilter, apply, ask_for_usage};
use weir_core::sse::EventParser;

const APIS: [Api; 15] = Api::ALL;

/// Cuts `bytes` at the given places, in order.
fn cut<'a>(bytes: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places
        .iter()
        .map(|place| place.index(bytes.len() + 1))
        .collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places.into_iter().chain([bytes.len()]) {
        pieces.push(&bytes[from..place]);
        from = place;
    }
    pieces
}

/// Name and data of an event.
type Seen = (Vec<u8>, Vec<u8>);

fn events(pieces: &[&[u8]]) -> Vec<Seen> {
    let mut parser = EventParser::new(1 << 20);
    let mut seen = Vec::new();
    for piece in pieces {
        parser.push(piece, |event| {
            seen.push((event.name.to_vec(), event.data.to_vec()));
        });
    }
    seen
}

/// The events of a stream by the letter of WHATWG HTML section 9.2.6, slowly.
fn events_by_the_letter(stream: &[u8]) -> Vec<Seen> {
    let stream = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
    let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = stream.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&&b'\n');
                lines.push(Vec::new());
            }
            b'\n' => lines.push(Vec::new()),
            other => lines.last_mut().unwrap().push(*other),
        }
    }
    lines.pop();
    let (mut seen, mut name, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        if line.is_empty() {
            if data.pop().is_some() {
                seen.push((name.clone(), data.clone()));
            }
            name.clear();
            data.clear();
            continue;
        }
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => name = value.to_vec(),
            b"data" => {
                data.extend_from_slice(value);
                data.push(b'\n');
            }
            _ => {}
        }
    }
    seen
}

/// Bytes that event streams are made of.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let scrap = select(vec![
        "data",
        "event",
        "id",
        ":",
        " ",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\u{feff}",
        "x",
        "data: 1\n\n",
        "data: [DONE]\n\n",
        ": comment\n\n",
        CHUNK,
        USAGE,
        MESSAGE_START,
        MESSAGE_DELTA,
        COMPLETED,
        "event: error\ndata: {\"error\":{\"type\":\"t\"}}\r\r",
        "{\"usage\":",
        "\\",
        "\"",
        "}",
    ]);
    vec(scrap, 0..20).prop_map(|scraps| scraps.concat().into_bytes())
}

const CHUNK: &str = "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"finish_reason\":null}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\r\n\r\n";
const MESSAGE_START: &str =
    "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":3}}}\n\n";
const MESSAGE_DELTA: &str = "event: message_delta\rdata: {\"usage\":{\"output_tokens\":3}}\r\r";
const COMPLETED: &str =
    "event: response.completed\ndata: {\"response\":\ndata: {\"status\":\"completed\"}}\n\n";

fn read(api: Api, form: Form, pieces: &[&[u8]]) -> Answer {
    let mut reader = AnswerReader::new(api, form);
    for piece in pieces {
        reader.push(piece);
    }
    reader.finish()
}

/// What passes the filter, and how many chunks do not.
fn filtered(pieces: &[&[u8]]) -> (Vec<u8>, u64) {
    let mut filter = UsageChunkFilter::new();
    let mut passed = Vec::new();
    for piece in pieces {
        filter.push(piece, |bytes| match bytes {
            Piece::Held(held) => passed.extend_from_slice(held),
            Piece::Now(range) => passed.extend_from_slice(&piece[range]),
        });
    }
    let removed = filter.removed();
    passed.extend_from_slice(&filter.finish());
    (passed, removed)
}

/// Bytes that bodies of calls are made of, so that chance meets structure.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let scrap = select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"messages\":",
        "\"input\":",
        "\"system\":",
        "\"tools\":",
        "\"role\":",
        "\"content\":",
        "\"stream\":",
        "\"stream_options\":",
        "\"include_usage\":",
        "\"n\":",
        "\"model\":",
        "\"type\":",
        "\"image\"",
        "\"data\":",
        "\"system\"",
        "true",
        "null",
        "1",
        "\"x\"",
        "{}",
        "[]",
        "{\"stream\":true,",
        "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]",
    ]);
    vec(scrap, 0..24).prop_map(|scraps| scraps.concat().into_bytes())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1024))]

    #[test]
    fn events_are_those_of_the_standard_however_they_are_cut(
        stream in stream(), places in vec(any::<Index>(), 0..8),
    ) {
        let expected = events_by_the_letter(&stream);
        prop_assert_eq!(events(&cut(&stream, &places)), expected.clone());
        prop_assert_eq!(events(&stream.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn an_answer_reads_the_same_however_it_is_cut(
        stream in stream(), places in vec(any::<Index>(), 0..8),
    ) {
        for api in APIS {
            for form in [Form::Plain, Form::EventStream] {
                let whole = read(api, form, &[&stream]);
                prop_assert_eq!(read(api, form, &cut(&stream, &places)), whole);
            }
        }
    }

    #[test]
    fn the_filter_passes_the_same_however_the_stream_is_cut(
        stream in stream(), places in vec(any::<Index>(), 0..8),
    ) {
        // Something before: a byte order mark would come to mean something else at the start.
        let stream = [b"data: 0\n\n", stream.as_slice()].concat();
        let (passed, removed) = filtered(&[&stream]);
        prop_assert_eq!(filtered(&cut(&stream, &places)), (passed.clone(), removed));
        prop_assert_eq!(filtered(&stream.chunks(1).collect::<Vec<_>>()), (passed.clone(), removed));
        prop_assert!(removed > 0 || passed == stream);
        // Nothing but the chunks taken out is missing from the events.
        let mut remaining = events(&[&stream]);
        let kept = events(&[&passed]);
        remaining.retain(|event| kept.contains(event));
        prop_assert_eq!(remaining, kept.clone());
        prop_assert_eq!(kept.len() + usize::try_from(removed).unwrap(), events(&[&stream]).len());
    }

    #[test]
    fn a_call_is_read_or_refused_and_its_ranges_are_parts_of_the_body(body in body()) {
        for api in APIS {
            let Ok(call) = call::parse(api, &body) else { continue };
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
            for range in call.system.iter().chain(&call.tools).chain(&call.messages) {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&body[range.clone()]).is_ok());
            }
            if let Some(edit) = ask_for_usage(Provider::OpenAi, &call, &body) {
                let edited = apply(&body, &mut [edit]).unwrap();
                prop_assert!(call::parse(api, &edited).unwrap().include_usage);
            }
        }
    }

    #[test]
    fn no_bytes_make_anything_panic(bytes in vec(any::<u8>(), 0..200), places in vec(any::<Index>(), 0..4)) {
        for api in APIS {
            let _call = call::parse(api, &bytes);
            for form in [Form::Plain, Form::EventStream] {
                prop_assert_eq!(read(api, form, &cut(&bytes, &places)), read(api, form, &[&bytes]));
            }
        }
        prop_assert_eq!(filtered(&cut(&bytes, &places)), (bytes.clone(), 0));
        let text = String::from_utf8_lossy(&bytes);
        let _endpoint = recognize(Provider::OpenAi, "POST", &text);
        let _listing = Catalog::default().lookup(&text);
        let _form = Form::of_content_type(&text);
    }

    #[test]
    fn edits_leave_all_other_bytes_as_they_are(
        body in vec(any::<u8>(), 0..60),
        places in vec(any::<Index>(), 0..8),
        replacement in vec(any::<u8>(), 0..5),
        order in any::<u64>(),
    ) {
        // Every second piece is replaced.
        let pieces = cut(&body, &places);
        let (mut edits, mut expected, mut from) = (Vec::new(), Vec::new(), 0);
        for (number, piece) in pieces.iter().enumerate() {
            let range = from..from + piece.len();
            from = range.end;
            if number % 2 == 0 {
                expected.extend_from_slice(piece);
            } else {
                expected.extend_from_slice(&replacement);
                edits.push(Edit { range, replacement: replacement.clone(), rule: "test".into() });
            }
        }
        let edits_count = edits.len().max(1);
        edits.rotate_left(usize::try_from(order % 100).unwrap() % edits_count);
        prop_assert_eq!(apply(&body, &mut edits).unwrap(), expected);
    }
}
