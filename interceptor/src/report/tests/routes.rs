//! Routes, their comparison, and the FOCUS export, of a ledger seeded for them.

use super::*;

/// A call that took `first` and `whole` milliseconds.
fn routed(id: u32, host: &str, model: &str, tokens: [u64; 3], cost: [i64; 3]) -> Record {
    let [read, written, input] = tokens;
    let [cost, of_input, without] = cost;
    let mut record = priced(
        call(id, model, read, written, input, 100),
        cost,
        without,
        cost,
    );
    record.cost_of_input = Some(dollars(of_input));
    record.host = host.to_owned();
    record.provider = if host == DIRECT {
        "anthropic"
    } else {
        "openrouter"
    }
    .to_owned();
    record.timings.upstream_first_byte_us = Some(u64::from(id) * 100_000);
    record.timings.total_us = u64::from(id) * 1_000_000;
    record
}

fn seeded() -> (tempfile::TempDir, LedgerOptions) {
    let mut hit = routed(
        1,
        DIRECT,
        "claude-opus-5-5",
        [9_000, 1_000, 0],
        [8_800, 6_800, 42_000],
    );
    hit.cache_outcome = Some("hit".to_owned());
    let mut missed = routed(
        2,
        DIRECT,
        "claude-opus-5-5",
        [0, 10_000, 0],
        [52_000, 50_000, 42_000],
    );
    missed.cache_outcome = Some("write".to_owned());
    missed.cache_reason = Some("system_changed".to_owned());
    missed.cache_rule = Some("iso_time".to_owned());
    missed.missed = Some(dollars(43_200));
    missed.rewrite_saving = Some(dollars(43_100));
    let mut cut = routed(
        3,
        DIRECT,
        "claude-opus-5-5",
        [0, 0, 10_000],
        [42_000, 40_000, 42_000],
    );
    cut.outcome = Outcome::Truncated;
    cut.started_unix_ms += HOUR;
    let mut other = routed(
        4,
        ROUTER,
        "anthropic/claude-opus-5.5",
        [0, 0, 10_000],
        [42_000, 40_000, 42_000],
    );
    other.identity.pod = Some("agent-0".to_owned());
    let mut gone = routed(
        5,
        ROUTER,
        "openai/gpt-6-sol",
        [0, 0, 1_000],
        [3_000, 2_000, 3_000],
    );
    gone.outcome = Outcome::ClientGone;
    let mut refused = call(6, "claude-opus-5-5", 0, 0, 0, 0);
    refused.outcome = Outcome::Denied;
    // No call, as far as Weir knows, and answered in no time.
    let mut unknown = call(7, "", 0, 0, 0, 0);
    (unknown.api, unknown.usage) = (String::new(), None);
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::new(directory.path());
    let ledger = Ledger::open(&options).unwrap();
    [hit, missed, cut, other, gone, refused, unknown]
        .into_iter()
        .for_each(|record| ledger.record(record));
    assert!(ledger.flush(WAIT), "{:?}", ledger.health());
    (directory, options)
}

/// What a command line prints.
fn say(line: &str, fees: &[(&str, u32)]) -> String {
    #[derive(clap::Parser)]
    enum Command {
        Report(Arguments),
        Compare(CompareArguments),
    }
    let (_directory, options) = seeded();
    let fees = fees
        .iter()
        .map(|(host, fee)| ((*host).to_owned(), *fee))
        .collect();
    let words = ["weir"]
        .into_iter()
        .chain(line.split(' '))
        .chain(["--since", "2026-10-31"]);
    let mut out = Vec::new();
    match <Command as clap::Parser>::try_parse_from(words).unwrap() {
        Command::Report(arguments) => run(&arguments, &options, &fees, COLUMNS, &mut out).unwrap(),
        Command::Compare(arguments) => {
            compare(&arguments, &options, &fees, COLUMNS, &mut out).unwrap();
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn the_routes_report_says_what_each_completes_how_fast_and_at_what_price() {
    check(&say("report routes", &[]), ROUTES);
}

#[test]
fn a_request_of_an_unknown_api_is_no_call_and_is_told() {
    let table = say("report spend --by api", &[]);
    assert!(
        table.contains("+ 1 request of an unknown API: no calls, but may have cost money"),
        "{table}"
    );
    assert!(!table.contains("without any usage told"), "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&say("report spend --json --by api", &[])).unwrap();
    assert_eq!(json["total"]["calls"], 6);
    assert_eq!(json["total"]["unknown_requests"], 1);
}

#[test]
fn a_fee_of_the_host_is_in_its_prices() {
    let table = say("report routes --by host", &[(ROUTER, 550)]);
    assert!(table.contains("$4.0282"), "{table}");
    assert!(table.contains("fee of up to 5.50%"), "{table}");
}

#[test]
fn the_cache_report_says_what_was_missed_and_why() {
    check(&say("report cache --by reason,rule", &[]), REASONS);
}

#[test]
fn two_hosts_are_put_side_by_side_by_the_plain_name_of_the_model() {
    check(
        &say(&format!("compare {DIRECT} {ROUTER}"), &[(ROUTER, 550)]),
        COMPARED,
    );
    check(
        &say(&format!("compare {DIRECT} openruter.ai"), &[]),
        UNCALLED,
    );
    let csv = say(
        &format!("compare {DIRECT} {ROUTER} --by identity --format csv"),
        &[],
    );
    let names: Vec<_> = csv
        .lines()
        .skip(1)
        .map(|line| line.split(",5").next().unwrap())
        .collect();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(
        names.iter().all(|name| name.starts_with("1000 claude,")),
        "{csv}"
    );
    let json = say(&format!("compare {DIRECT} {ROUTER} --json"), &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let since = json["since"].as_str().unwrap();
    assert!(since.starts_with("2026-10-31T00:00:00"), "{since}");
    assert_eq!(
        json["rows"][0]["routes"][1]["input_nano_usd_per_million"],
        4_000_000_000_u64
    );
}

#[test]
fn focus_rows_add_up_to_what_the_calls_cost() {
    let focus = say("report spend --format focus --by user,pod", &[]);
    let mut lines = focus.lines();
    let head: Vec<_> = lines.next().unwrap().split(',').collect();
    let cost = head.iter().position(|name| *name == "BilledCost").unwrap();
    let nanos: u128 = lines
        .map(|line| line.split(',').nth(cost).unwrap().parse::<f64>().unwrap())
        .map(|dollars| (dollars * 1e9).round() as u128)
        .sum();
    assert_eq!(nanos, 147_800_000, "{focus}");
    assert!(
        focus.contains("2026-11-01T23:00:00Z,2026-11-01T22:00:00Z"),
        "{focus}"
    );
    assert!(
        focus.contains(r#""{""pod"":""agent-0"",""user"":""1000""}""#),
        "{focus}"
    );
    for meter in ["cache_read", "cache_write", "input", "output"] {
        assert!(focus.contains(&format!(",{meter},")), "{meter}: {focus}");
    }
}

/// Meter, quantity, unit, and in nano-dollars what is billed, by list, and avoided.
type FocusRow = (String, u64, String, [i64; 3]);

/// The rows of one record.
fn focus_of(record: Record) -> Vec<FocusRow> {
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::new(directory.path());
    let ledger = Ledger::open(&options).unwrap();
    ledger.record(record);
    assert!(ledger.flush(WAIT), "{:?}", ledger.health());
    let reader = Reader::open(&options).unwrap();
    let query = Query {
        since_unix_ms: LATE,
        by: Vec::new(),
        time_zone: TimeZone::UTC,
        fees: BTreeMap::new(),
    };
    let focus = focus::export(&reader, &query).unwrap();
    let mut lines = focus
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let at = |name: &str| head.iter().position(|column| *column == name).unwrap();
    let row = |row: Vec<&str>| {
        let text = |name: &str| row[at(name)].to_owned();
        let nanos = |name| (text(name).parse::<f64>().unwrap() * 1e9).round() as i64;
        let money = ["BilledCost", "ListCost", "x_AvoidedCost"].map(nanos);
        let quantity = text("PricingQuantity").parse().unwrap();
        (text("SkuMeter"), quantity, text("PricingUnit"), money)
    };
    lines.map(row).collect()
}

/// 1000 tokens in and out, and searches, of a model whose rates are 5 and 25 USD a million.
fn searched(web_searches: u64, file_searches: u64) -> Record {
    let mut record = call(1, "claude-opus-4-5", 0, 0, 1000, 1000);
    let usage = record.usage.unwrap();
    record.usage = Some(Usage {
        web_searches,
        file_searches,
        ..usage
    });
    let extras = 10_000 * web_searches + 2_500 * file_searches;
    let total = dollars(30_000 + i64::try_from(extras).unwrap());
    record.cost = Cost::Priced {
        total,
        version: "2026-11-22".to_owned(),
    };
    record.cost_of_input = Some(dollars(5_000));
    record.cost_without_cache = Some(total);
    record
}

fn row(meter: &str, quantity: u64, unit: &str, money: [i64; 3]) -> FocusRow {
    let money = money.map(|millionths| millionths * 1000);
    (meter.to_owned(), quantity, unit.to_owned(), money)
}

#[test]
fn searches_have_focus_rows_of_their_own() {
    let expected = [
        row("input", 1000, "Tokens", [5_000, 5_000, 0]),
        row("output", 1000, "Tokens", [25_000, 25_000, 0]),
        row("web_search", 5, "Searches", [50_000, 50_000, 0]),
    ];
    assert_eq!(focus_of(searched(5, 0)), expected);
    let expected = [
        row("input", 1000, "Tokens", [5_000, 5_000, 0]),
        row("output", 1000, "Tokens", [25_000, 25_000, 0]),
        row("web_search", 1, "Searches", [10_000, 10_000, 0]),
        row("file_search", 4, "Searches", [10_000, 10_000, 0]),
    ];
    assert_eq!(focus_of(searched(1, 4)), expected);
}

#[test]
fn a_negotiated_price_stands_beside_the_list_price_in_focus() {
    let mut record = searched(0, 0);
    record.cost = Cost::Priced {
        total: dollars(25_500),
        version: "2026-11-22+negotiated".to_owned(),
    };
    record.cost_by_list = Some(dollars(30_000));
    record.cost_of_input = Some(dollars(4_250));
    record.cost_without_cache = Some(dollars(25_500));
    let expected = [
        row("input", 1000, "Tokens", [4_250, 5_000, 0]),
        row("output", 1000, "Tokens", [21_250, 25_000, 0]),
    ];
    assert_eq!(focus_of(record), expected);
}

/// Of a small terminal.
const COLUMNS: usize = 80;
const DIRECT: &str = "api.anthropic.com";
const ROUTER: &str = "openrouter.ai";

const ROUTES: &str = r#"
routes since 2026-10-31 00:00

host               model
  calls   done   cut first   p95 whole   p95 read%  $/M in discount
api.anthropic.com  claude-opus-5-5
      3  66.6% 33.3% 100ms 200ms 1.00s 2.00s 30.0% $3.2267    19.3%
openrouter.ai      anthropic/claude-opus-5.5
      1 100.0%  0.0% 400ms 400ms 4.00s 4.00s  0.0% $4.0000     0.0%
openrouter.ai      openai/gpt-6-sol
      1      -     -     -     -     -     -  0.0% $2.0000     0.0%
total
      5  75.0% 25.0% 200ms 400ms 2.00s 4.00s 21.9% $3.3854    14.3%

done: answers that came whole; cut: that broke off; first, whole: time to the
first and the last byte, median and p95 (95 of 100 took no longer); read%:
share of the input that the cache had; $/M in: price of a million input tokens;
discount: what the cache took off that
"#;
const REASONS: &str = r#"
prompt cache since 2026-10-31 00:00

reason          rule
  calls  hits input read read%    w/r    cost    saved  missed rewrite
-               -
      4 25.0% 31000 9000 29.0%  11.1% $0.0958  $0.0332 $0.0000 $0.0000
system_changed  iso_time
      1  0.0% 10000    0  0.0%      - $0.0520 -$0.0100 $0.0432 $0.0431
total
      5 20.0% 41000 9000 21.9% 122.2% $0.1478  $0.0232 $0.0432 $0.0431

$0.0432 missed: system changed
hits: calls that read all they could; read%: share of the input that was read;
w/r: tokens written, of those read; saved: by the cache; missed: what it could
have saved besides; rewrite: what of that rewriting saved, or would have
"#;
const COMPARED: &str = r#"
api.anthropic.com and openrouter.ai since 2026-10-31 00:00

claude-opus-5-5               api.anthropic.com openrouter.ai   difference
  calls                                       3             1
  hits, of calls                          50.0%          0.0% -50.0 points
  read from cache, of tokens              30.0%          0.0% -30.0 points
  $ per million input tokens            $3.2267       $4.2200       +30.7%
  cache discount                          19.3%          0.0% -19.3 points
  completed                               66.6%        100.0% +33.4 points
  broke off                               33.3%          0.0% -33.3 points
  first byte, median                      100ms         400ms      +300.0%
  whole answer, median                    1.00s         4.00s      +300.0%
  whole answer, 95 in 100                 2.00s         4.00s      +100.0%

only at openrouter.ai: gpt-6-sol (1 call)
prices include the host's fee of up to 5.50% ([fees] in the configuration)
"#;
const UNCALLED: &str = r#"
api.anthropic.com and openruter.ai since 2026-10-31 00:00

only at api.anthropic.com: claude-opus-5-5 (3 calls)
no call to openruter.ai: there are some to api.anthropic.com, openrouter.ai
"#;
