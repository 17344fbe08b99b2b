//! The page that says what is covered, provider by provider: made from the catalogue, the price
//! table and the fixtures, and held to be as it would be made now. `WEIR_UPDATE=1` writes it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_core::api::{Api, Endpoint, recognize};
use weir_core::catalog::Provider;
use weir_core::edit::tells_usage_only_if_asked;
use weir_core::pricing::{Context, PriceTable};
use weir_core::usage::Usage;

mod spoken;

use spoken::{SPOKEN, Spoken};

const PAGE: &str = "COVERAGE.md";

#[test]
fn the_page_is_as_it_would_be_made_now() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = page();
    if std::env::var_os("WEIR_UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "expected {PAGE} as it would be made now, found another: run this test with WEIR_UPDATE=1"
    );
}

#[test]
fn every_provider_and_every_api_is_on_the_page() {
    for provider in Provider::ALL {
        let is_on = SPOKEN.iter().any(|row| row.provider == provider);
        assert!(is_on, "{provider:?}");
    }
    for api in Api::ALL {
        assert!(SPOKEN.iter().any(|row| row.api == api), "{api:?}");
    }
}

fn page() -> String {
    let mut page = spoken::HEAD.to_owned();
    for row in SPOKEN {
        writeln!(
            page,
            "| {} | {} | `{}` | {} | {} | {} | {} | {} | {} |",
            row.provider.as_str(),
            row.api.as_str(),
            row.request,
            parsed(row),
            usage(row),
            streamed(row),
            priced(row),
            cache_facts(row),
            editable(row),
        )
        .unwrap();
    }
    page.push_str(spoken::FOOT);
    page
}

/// What a request of this row is recognised as.
fn parsed(row: &Spoken) -> &'static str {
    let (method, path) = row.request.split_once(' ').unwrap();
    match recognize(row.provider, method, path) {
        Endpoint::Call(api) if api == row.api => "yes",
        Endpoint::Socket(api) if api == row.api => "frames",
        found => panic!("{:?} {}: {found:?}", row.provider, row.request),
    }
}

/// Whether there are golden results with usage, plain or of a stream.
fn has_usage(api: Api, streamed: bool) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folders: BTreeSet<PathBuf> = spoken::FOLDERS
        .iter()
        .filter(|(_, of)| *of == api)
        .map(|(folder, _)| root.join(folder))
        .collect();
    assert!(!folders.is_empty(), "{api:?} has no fixtures");
    folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .any(|case| {
            let case = case.unwrap().path();
            let expected = fs::read(case.join("expected.json")).unwrap();
            let expected: Value = serde_json::from_slice(&expected).unwrap();
            let is_plain = case.join("answer.json").exists();
            let usage = expected.pointer("/answer/usage");
            usage.is_some_and(Value::is_object) && is_plain != streamed
        })
}

fn usage(row: &Spoken) -> &'static str {
    if has_usage(row.api, false) {
        "yes"
    } else {
        "–"
    }
}

fn streamed(row: &Spoken) -> &'static str {
    let has_options = matches!(row.api, Api::ChatCompletions | Api::Completions);
    if !has_usage(row.api, true) {
        "–"
    } else if !has_options || spoken::TELL_UNASKED.contains(&row.provider) {
        "yes"
    } else if tells_usage_only_if_asked(row.provider) {
        "yes, Weir asks"
    } else {
        "if the program asks"
    }
}

fn context<'a>(row: &'a Spoken) -> Context<'a> {
    Context {
        provider: row.provider.priced_as(row.api).as_str(),
        model: row.model,
        at_unix: AT_UNIX,
        ..Context::default()
    }
}

fn priced(row: &Spoken) -> &'static str {
    match PriceTable::builtin().rates(&context(row), 1) {
        _ if row.model.is_empty() => "–",
        Some(rates) if rates.notional => "list price of the maker",
        Some(_) => "yes",
        None => "not in the table",
    }
}

/// What is known of the provider's cache: the shortest prompt, and which kinds of tokens have a
/// price of their own.
fn cache_facts(row: &Spoken) -> String {
    let prices = PriceTable::builtin();
    let context = context(row);
    let cost = |usage: Usage| {
        let rates = prices.rates(&context, 1)?;
        Some(rates.cost(&usage)?.total)
    };
    let input = cost(Usage {
        input: MANY,
        ..Usage::default()
    });
    let read = cost(Usage {
        cache_read: MANY,
        ..Usage::default()
    });
    let write = cost(Usage {
        cache_write: MANY,
        ..Usage::default()
    });
    let minimum = prices
        .listing(context.provider, row.model)
        .min_cacheable_tokens;
    let facts: Vec<String> = [
        minimum.map(|tokens| format!("from {tokens}")),
        (read != input).then(|| "reads".to_owned()),
        (write != input).then(|| "writes".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if facts.is_empty() {
        "–".to_owned()
    } else {
        facts.join(", ")
    }
}

fn editable(row: &Spoken) -> &'static str {
    match (row.provider, row.api) {
        (_, Api::Realtime | Api::Audio | Api::Images) => "no",
        (Provider::Bedrock, _) => "unless signed",
        _ => "yes",
    }
}

const MANY: u64 = 1_000_000;

/// A day on which the prices of the table hold, in seconds since 1970: 2026-11-25.
const AT_UNIX: i64 = 1_795_608_000;
