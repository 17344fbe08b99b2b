//! Reports of a seeded ledger, as they are printed.

mod routes;
mod tables;

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
        api: "messages".to_owned(),
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
    let output = record.usage.unwrap_or_default().output;
    record.cost_of_input = Some(dollars(cost - i64::try_from(output).unwrap()));
    record.cost_without_cache = Some(dollars(without));
    record.cost_perfect_cache = Some(dollars(perfect));
    record
}

/// A list of models: in the ledger, and in no report.
fn no_call() -> Record {
    Record {
        api: String::new(),
        usage: None,
        ..priced(call(9, "none", 0, 0, 0, 0), 0, 0, 0)
    }
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
        no_call(),
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
            fees: BTreeMap::new(),
        },
    )
}

fn check(actual: &str, expected: &str) {
    assert_eq!(actual, expected.trim_start_matches('\n'), "\n{actual}");
}

#[test]
fn the_spend_report_says_what_was_refused_failed_and_has_no_price() {
    let table = ask(&[GroupKey::Model], |reader, query| {
        render_table(&spend(reader, query).unwrap(), usize::MAX)
    });
    check(
        &table,
        r#"
spend since 2026-11-01 23:30

model                       calls refused failed unpriced input output     cost
claude-sonnet-4-5-20250929      3       1      0        0 1.27M   1600  $0.5564
claude-haiku-4-5                3       0      1        0 10000    100 $0.0149+
gpt-?[31mnext, "new"            1       0      0        1   100      5        ?
total                           7       1      1        1 1.28M   1705 $0.5713+

+ 1 call of a model without a price, not in the cost: see weir prices check
+ 1 call without any usage told, not in tokens and cost
$0.0125 of the cost is estimated, for calls of unknown usage or price
"#,
    );
}

#[test]
fn the_bypass_report_names_programs_hosts_and_reasons() {
    let table = ask(&[], |reader, query| {
        render_table(&bypass(reader, query).unwrap(), usize::MAX)
    });
    check(
        &table,
        r#"
not inspected since 2026-11-01 23:30

program  host               reason             count
git      github.com         not_an_llm_host        9
nc       192.0.2.7:443      no_server_name         1
node     api.anthropic.com  client_rejects_ca      1
total                                             11

client_rejects_ca: does not trust the CA, or pins another: see weir doctor
"#,
    );
}

#[test]
fn csv_has_exact_amounts_and_quoted_names() {
    let csv = ask(&[GroupKey::Model], |reader, query| {
        render_csv(&cache(reader, query).unwrap())
    });
    assert!(csv.lines().count() == 4 && csv.matches("\r\n").count() == 4);
    check(
        &csv.replace("\r\n", "\n"),
        r#"
model,calls,hit_calls,input_tokens,read_tokens,written_tokens,uncached_tokens,read_permille,cost_usd,cost_without_cache_usd,cost_perfect_cache_usd,saved_usd,missed_usd,rewrite_saving_usd,estimated_usd,unpriced_calls,calls_without_usage,switched_off_calls,notional_usd
claude-sonnet-4-5-20250929,2,0,1278067,1234567,42000,1500,965,0.556371,3.858201,0.421371,3.30183,0.00,0.00,0.00,0,0,0,0.00
claude-haiku-4-5,3,0,10000,9000,0,1000,900,0.0149,0.023,0.014001,0.0081,0.00,0.00,0.0125,0,1,0,0.00
"gpt-?[31mnext, ""new""",1,0,100,10,0,90,100,0.00,0.00,0.00,0.00,0.00,0.00,0.00,1,0,0,0.00
"#,
    );
}

#[test]
fn json_has_everything_with_amounts_as_integers() {
    let json = ask(&[GroupKey::Provider], |reader, query| {
        render_json(&spend(reader, query).unwrap()).unwrap()
    });
    check(
        &json,
        r#"
{
  "since": "2026-11-01T23:30:00+01:00",
  "by": [
    "provider"
  ],
  "rows": [
    {
      "group": {
        "provider": "anthropic"
      },
      "calls": 6,
      "refused_calls": 1,
      "failed_calls": 1,
      "calls_without_usage": 1,
      "unknown_requests": 0,
      "unpriced_calls": 0,
      "input_tokens": 1288067,
      "output_tokens": 1700,
      "cost_nano_usd": 571271000,
      "estimated_nano_usd": 12500000,
      "notional_nano_usd": 0
    },
    {
      "group": {
        "provider": "openai"
      },
      "calls": 1,
      "refused_calls": 0,
      "failed_calls": 0,
      "calls_without_usage": 0,
      "unknown_requests": 0,
      "unpriced_calls": 1,
      "input_tokens": 100,
      "output_tokens": 5,
      "cost_nano_usd": 0,
      "estimated_nano_usd": 0,
      "notional_nano_usd": 0
    }
  ],
  "total": {
    "calls": 7,
    "refused_calls": 1,
    "failed_calls": 1,
    "calls_without_usage": 1,
    "unknown_requests": 0,
    "unpriced_calls": 1,
    "input_tokens": 1288167,
    "output_tokens": 1705,
    "cost_nano_usd": 571271000,
    "estimated_nano_usd": 12500000,
    "notional_nano_usd": 0
  }
}
"#,
    );
}

#[test]
fn a_report_of_nothing_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::new(directory.path());
    let error = Reader::open(&options).unwrap_err().to_string();
    assert!(error.contains("there is no ledger at"), "{error}");
    assert!(error.contains("as root, ask as root"), "{error}");
    drop(Ledger::open(&options).unwrap());
    let reader = Reader::open(&options).unwrap();
    let query = Query {
        since_unix_ms: LATE,
        by: Vec::new(),
        time_zone: TimeZone::UTC,
        fees: BTreeMap::new(),
    };
    let table = render_table(&spend(&reader, &query).unwrap(), 80);
    check(&table, "spend: nothing since 2026-11-01 22:30\n");
}

#[test]
fn the_command_line_answers_in_each_format() {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::new(directory.path());
    let ledger = Ledger::open(&options).unwrap();
    records()
        .into_iter()
        .for_each(|record| ledger.record(record));
    assert!(ledger.flush(WAIT));
    let cases = [
        (
            "cache --since 2026-10-01 --by provider,model",
            "prompt cache since 2026-10-01 00:00",
        ),
        (
            "spend --since 2026-10-01 --json --by day",
            "{\n  \"since\": \"2026-10-01T00:00:00",
        ),
        (
            "spend --since 2026-10-01 --format csv --by key,user",
            "key,user,calls,refused_calls",
        ),
        (
            "bypass --since 2026-10-01",
            "not inspected: nothing since 2026-10-01 00:00",
        ),
    ];
    for (line, expected) in cases {
        let words = ["report"].into_iter().chain(line.split(' '));
        let arguments = <Command as clap::Parser>::try_parse_from(words)
            .unwrap()
            .arguments;
        let mut out = Vec::new();
        run(&arguments, &options, &BTreeMap::new(), 80, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(expected), "{line}: {text}");
    }
    for line in [
        "cache --since soon",
        "cache --by nonsense",
        "cache --json --format csv",
        "bypass --format focus",
    ] {
        let words = ["report"].into_iter().chain(line.split(' '));
        assert!(
            <Command as clap::Parser>::try_parse_from(words).is_err(),
            "{line}"
        );
    }
}

#[test]
fn what_a_plan_pays_for_and_what_was_switched_off_is_told_below_the_table() {
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::new(directory.path());
    let ledger = Ledger::open(&options).unwrap();
    let mut record = priced(call(1, "claude-opus-5-5", 900, 0, 100, 10), 500, 2_000, 300);
    record.cost = Cost::Notional {
        total: dollars(500),
        version: "2026-11-01".to_owned(),
    };
    record.missed = Some(dollars(200));
    record.reasons = vec!["not_rewritten_switched_off".to_owned()];
    ledger.record(record);
    assert!(ledger.flush(WAIT), "{:?}", ledger.health());
    let reader = Reader::open(&options).unwrap();
    let query = Query {
        since_unix_ms: LATE,
        by: Vec::new(),
        time_zone: TimeZone::UTC,
        fees: BTreeMap::new(),
    };
    let cache = cache(&reader, &query).unwrap();
    let totals = &cache.total;
    assert_eq!(totals.notional_nano_usd, dollars(500));
    let nothing = [
        totals.cost_nano_usd,
        totals.saved_nano_usd,
        totals.missed_nano_usd,
    ];
    assert_eq!(nothing, [Money::ZERO; 3], "a plan pays for it");
    let shown = render_table(&cache, 80);
    for line in [
        "1 call not rewritten: edits of prompts like theirs saved nothing",
        "+ $0.0005 by list prices for calls that a plan pays for, not in the cost",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let spend = spend(&reader, &query).unwrap();
    assert_eq!(spend.total.notional_nano_usd, dollars(500));
    assert_eq!(spend.total.cost_nano_usd, Money::ZERO);
}
