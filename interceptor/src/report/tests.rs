//! Reports of a seeded ledger, as they are printed.

use std::time::Duration;

use jiff::tz::{TimeZone, offset};
use weir_core::money::Money;
use weir_core::usage::Usage;

use super::*;
use crate::ledger::{Bypass, Cost, Identity, Ledger, Outcome, Record};

const WAIT: Duration = Duration::from_secs(60);
/// 2026-11-01T22:30:00Z: the first of November in London, the second in Berlin's winter time.
const LATE: i64 = 1_793_572_200_000;
const HOUR: i64 = 3_600_000;

fn dollars(millionths: i64) -> Money {
    Money::from_nanos(millionths * 1000)
}

fn call(id: u32, model: &str, read: u64, written: u64, input: u64, output: u64) -> Record {
    let usage = Usage {
        input,
        cache_read: read,
        cache_write: written,
        output,
        ..Usage::default()
    };
    Record {
        id: format!("id-{id}"),
        started_unix_ms: LATE,
        provider: "anthropic".to_owned(),
        host: "api.anthropic.com".to_owned(),
        model_requested: Some(model.to_owned()),
        outcome: Outcome::Completed,
        status: Some(200),
        usage: Some(usage),
        identity: Identity {
            program: Some("claude".to_owned()),
            uid: Some(1000),
            key_hash: Some("0123456789abcdef".to_owned()),
            key_tail: Some("x7Qz".to_owned()),
            ..Identity::default()
        },
        ..Record::default()
    }
}

fn priced(mut record: Record, cost: i64, without: i64, perfect: i64) -> Record {
    record.cost = Cost::Priced {
        total: dollars(cost),
        version: "2026-11-01".to_owned(),
    };
    record.cost_without_cache = Some(dollars(without));
    record.cost_perfect_cache = Some(dollars(perfect));
    record
}

fn records() -> Vec<Record> {
    let sonnet = "claude-sonnet-4-5-20250929";
    let mut refused = call(4, sonnet, 0, 0, 0, 0);
    refused.usage = None;
    refused.outcome = Outcome::Refused {
        cap: "daily".to_owned(),
    };
    refused.cost = Cost::Priced {
        total: Money::ZERO,
        version: String::new(),
    };
    let mut unpriced = call(5, "gpt-\u{1b}[31mnext, \"new\"", 10, 0, 90, 5);
    unpriced.provider = "openai".to_owned();
    unpriced.identity.user = Some("alice".to_owned());
    unpriced.started_unix_ms = LATE + HOUR;
    unpriced.cost = Cost::Unpriced;
    let mut lost = call(6, "claude-haiku-4-5", 0, 0, 0, 0);
    (lost.usage, lost.outcome) = (None, Outcome::Lost);
    lost.cost = Cost::Estimated {
        total: dollars(12_500),
        version: String::new(),
    };
    let mut unread = call(7, "claude-haiku-4-5", 0, 0, 0, 0);
    (unread.usage, unread.outcome) = (None, Outcome::Unread);
    let mut old = priced(call(8, sonnet, 0, 0, 1, 1), 1, 1, 1);
    old.started_unix_ms = LATE - 1;
    vec![
        priced(
            call(1, sonnet, 0, 40_000, 1_000, 700),
            163_500,
            133_500,
            28_500,
        ),
        priced(
            call(2, sonnet, 1_234_567, 2_000, 500, 900),
            392_871,
            3_724_701,
            392_871,
        ),
        priced(
            call(3, "claude-haiku-4-5", 9_000, 0, 1_000, 100),
            2_400,
            10_500,
            1_501,
        ),
        refused,
        unpriced,
        lost,
        unread,
        old,
    ]
}

fn bypasses() -> Vec<Bypass> {
    let bypass = |at, program: &str, host: &str, reason: &str, count| Bypass {
        at_unix_ms: at,
        program: program.to_owned(),
        host: host.to_owned(),
        destination: "192.0.2.7:443".to_owned(),
        reason: reason.to_owned(),
        count,
    };
    vec![
        bypass(LATE, "git", "github.com", "not_an_llm_host", 2),
        bypass(LATE + 59_000, "git", "github.com", "not_an_llm_host", 3),
        bypass(LATE + HOUR, "git", "github.com", "not_an_llm_host", 4),
        bypass(LATE, "node", "api.anthropic.com", "client_rejects_ca", 1),
        bypass(LATE, "nc", "", "no_server_name", 1),
        bypass(LATE - HOUR, "old", "example.org", "not_an_llm_host", 1),
    ]
}

/// What a report says about the seeded ledger, seen from Berlin.
fn ask(by: &[GroupKey], answer: impl FnOnce(&Reader, &Query) -> String) -> String {
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::new(directory.path());
    let ledger = Ledger::open(&options).unwrap();
    records()
        .into_iter()
        .for_each(|record| ledger.record(record));
    bypasses()
        .into_iter()
        .for_each(|bypass| ledger.bypass(bypass));
    assert!(ledger.flush(WAIT), "{:?}", ledger.health());
    let reader = Reader::open(&options).unwrap();
    let time_zone = TimeZone::fixed(offset(1));
    answer(
        &reader,
        &Query {
            since_unix_ms: LATE,
            by: by.to_vec(),
            time_zone,
        },
    )
}

/// Lines that end in spaces are never printed, so these may be written without.
fn check(actual: &str, expected: &str) {
    assert_eq!(actual, expected.trim_start_matches('\n'), "\n{actual}");
}

#[test]
fn the_cache_report_is_a_table_that_fits_a_terminal() {
    let table = ask(&[GroupKey::Provider, GroupKey::Model], |reader, query| {
        render_table(&cache(reader, query).unwrap())
    });
    assert!(
        table.lines().all(|line| line.chars().count() <= 100),
        "{table}"
    );
    check(&table, "");
}

#[test]
fn the_cache_report_groups_by_what_it_is_asked_for() {
    let keys = [
        GroupKey::Day,
        GroupKey::User,
        GroupKey::Key,
        GroupKey::Process,
    ];
    let table = ask(&keys, |reader, query| {
        render_table(&cache(reader, query).unwrap())
    });
    check(&table, "");
    let table = ask(&[], |reader, query| {
        render_table(&cache(reader, query).unwrap())
    });
    check(&table, "");
}

#[test]
fn the_spend_report_says_what_was_refused_failed_and_has_no_price() {
    let table = ask(&[GroupKey::Model], |reader, query| {
        render_table(&spend(reader, query).unwrap())
    });
    check(&table, "");
}

#[test]
fn the_bypass_report_names_programs_hosts_and_reasons() {
    let table = ask(&[], |reader, query| {
        render_table(&bypass(reader, query).unwrap())
    });
    check(&table, "");
}

#[test]
fn csv_has_exact_amounts_and_quoted_names() {
    let csv = ask(&[GroupKey::Model], |reader, query| {
        render_csv(&cache(reader, query).unwrap())
    });
    check(&csv, "");
}

#[test]
fn json_has_everything_with_amounts_as_integers() {
    let json = ask(&[GroupKey::Provider], |reader, query| {
        render_json(&spend(reader, query).unwrap()).unwrap()
    });
    check(&json, "");
}
