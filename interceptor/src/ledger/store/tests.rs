//! What the database holds after entries came in, in any order and more than once.

use rusqlite::types::Value;
use weir_core::usage::Usage;

use super::super::record::{Edit, Identity, Timings};
use super::*;

fn full_usage() -> Usage {
    Usage {
        input: 4,
        cache_read: 5,
        cache_write: 6,
        cache_write_long: 7,
        output: 8,
        reasoning: 9,
        web_searches: u64::MAX,
        ..Usage::default()
    }
}

fn full_record() -> Record {
    Record {
        id: "an-id".to_owned(),
        started_unix_ms: 1,
        identity: Identity {
            pid: Some(2),
            program: Some("claude".to_owned()),
            uid: Some(3),
            user: Some("alice".to_owned()),
            cgroup: Some("/a".to_owned()),
            container: Some("c0".to_owned()),
            pod: Some("p0".to_owned()),
            namespace: Some("n0".to_owned()),
            service_account: Some("sa".to_owned()),
            team: Some("red".to_owned()),
            key_hash: Some("hash".to_owned()),
            key_tail: Some("tail".to_owned()),
            key_kind: Some("oauth".to_owned()),
        },
        destination: "192.0.2.1:443".to_owned(),
        host: "api.anthropic.com".to_owned(),
        provider: "anthropic".to_owned(),
        api: "messages".to_owned(),
        method: "POST".to_owned(),
        path_class: "/v1/messages".to_owned(),
        session: Some("s".to_owned()),
        model_requested: Some("asked".to_owned()),
        model_answered: Some("answered".to_owned()),
        status: Some(200),
        outcome: Outcome::Refused {
            cap: "daily".to_owned(),
        },
        stream: true,
        usage: Some(full_usage()),
        cost: Cost::Priced {
            total: Money::from_nanos(10),
            version: "v".to_owned(),
        },
        cost_by_list: Some(Money::from_nanos(23)),
        cost_of_input: Some(Money::from_nanos(19)),
        counted_tokens: 22,
        cost_without_cache: Some(Money::from_nanos(11)),
        cost_perfect_cache: Some(Money::from_nanos(12)),
        cache_outcome: Some("hit".to_owned()),
        cache_reason: Some("system_changed".to_owned()),
        cache_where: Some("system[0]+19".to_owned()),
        cache_rule: Some("iso_time".to_owned()),
        missed: Some(Money::from_nanos(20)),
        rewrite_saving: Some(Money::from_nanos(-21)),
        edits: vec![Edit {
            rule: "date".to_owned(),
            bytes: 13,
        }],
        reasons: vec!["why".to_owned()],
        request_bytes: 14,
        response_bytes: 15,
        timings: Timings {
            added_us: 16,
            upstream_first_byte_us: Some(17),
            total_us: 18,
        },
        ..Record::default()
    }
}

/// The only row of a table, column by column.
fn row(store: &Store, table: &str) -> Vec<(String, String)> {
    let mut select = store
        .connection
        .prepare(&format!("SELECT * FROM {table}"))
        .unwrap();
    let columns: Vec<String> = select
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut rows = select.query([]).unwrap();
    let row = rows.next().unwrap().unwrap();
    let shown = |at: usize| match row.get(at).unwrap() {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        other => panic!("unexpected {other:?}"),
    };
    let values = (0..columns.len()).map(shown).collect::<Vec<_>>();
    assert!(rows.next().unwrap().is_none(), "one row in {table}");
    columns.into_iter().zip(values).collect()
}

fn count(store: &Store, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store
        .connection
        .query_row(&sql, [], |row| row.get(0))
        .unwrap()
}

fn recorded(record: Record) -> Entry {
    Entry::Recorded(Box::new(record))
}

fn admitted(record: Record) -> Entry {
    Entry::Admitted {
        reserved: Money::from_nanos(500),
        record: Box::new(record),
    }
}

#[test]
fn each_field_of_a_record_is_in_the_column_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&directory.path().join("db")).unwrap();
    store
        .commit("me", None, &[recorded(full_record())])
        .unwrap();
    let expected = "seq=1 id=an-id instance=me started_ms=1 pid=2 program=claude uid=3 user=alice \
        cgroup=/a container=c0 key_hash=hash key_tail=tail key_kind=oauth \
        destination=192.0.2.1:443 host=api.anthropic.com provider=anthropic api=messages \
        method=POST path_class=/v1/messages session=s model_requested=asked \
        model_answered=answered status=200 outcome=refused refused_by=daily stream=1 input=4 \
        cache_read=5 cache_write=6 cache_write_long=7 output=8 reasoning=9 \
        web_searches=9223372036854775807 cost_state=priced cost_nanos=10 price_version=v \
        cost_without_cache_nanos=11 cost_perfect_cache_nanos=12 cache_outcome=hit \
        edits=[{\"rule\":\"date\",\"bytes\":13}] reasons=[\"why\"] request_bytes=14 \
        response_bytes=15 added_us=16 upstream_first_byte_us=17 total_us=18 \
        pod=p0 namespace=n0 service_account=sa team=red cost_input_nanos=19 cache_reason=system_changed \
        cache_where=system[0]+19 cache_rule=iso_time missed_nanos=20 rewrite_saving_nanos=-21 counted_tokens=22 \
        notional_nanos=null usage_details=null cost_by_list_nanos=23";
    let actual = row(&store, "exchange");
    let actual: Vec<_> = actual
        .iter()
        .map(|(column, value)| format!("{column}={value}"))
        .collect();
    assert_eq!(actual.join(" "), expected);
}

#[test]
fn what_a_plan_paid_and_what_usage_has_beside_the_buckets_have_columns_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&directory.path().join("db")).unwrap();
    let record = Record {
        cost: Cost::Notional {
            total: Money::from_nanos(30),
            version: "v".to_owned(),
        },
        usage: Some(Usage {
            input: 4,
            input_audio: 3,
            ..Usage::default()
        }),
        ..full_record()
    };
    let reported = Record {
        id: "other".to_owned(),
        cost: Cost::Reported {
            total: Money::from_nanos(31),
        },
        ..full_record()
    };
    let entries = [recorded(record), recorded(reported)];
    store.commit("me", None, &entries).unwrap();
    let columns = [
        "cost_state",
        "cost_nanos",
        "notional_nanos",
        "usage_details",
    ];
    let rows = columns.map(|column| {
        let sql = format!("SELECT group_concat(coalesce({column}, '-'), ' ') FROM exchange");
        let row = store.connection.query_row(&sql, [], |row| row.get(0));
        row.map(|texts: String| texts).unwrap()
    });
    assert_eq!(rows[0], "notional reported");
    assert_eq!(rows[1], "- 31");
    assert_eq!(rows[2], "30 -");
    assert!(
        rows[3].contains("\"input_audio\":3") && rows[3].ends_with(" -"),
        "{rows:?}"
    );
}

#[test]
fn admissions_and_records_come_to_one_row_in_any_order_and_any_number() {
    let record = full_record;
    let orders: [Vec<Vec<Entry>>; 5] = [
        vec![vec![recorded(record())]],
        vec![vec![admitted(record()), recorded(record())]],
        vec![vec![admitted(record())], vec![recorded(record())]],
        vec![vec![recorded(record())], vec![admitted(record())]],
        vec![
            vec![admitted(record()), admitted(record())],
            vec![recorded(record()), recorded(record())],
        ],
    ];
    for (number, batches) in orders.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join("db")).unwrap();
        for batch in batches {
            store.commit("me", None, &batch).unwrap();
        }
        assert_eq!(store.settle_lost("me").unwrap(), 0, "order {number}");
        assert_eq!(
            (count(&store, "exchange"), count(&store, "admission")),
            (1, 0)
        );
    }
}

#[test]
fn what_was_in_flight_becomes_a_record_of_what_was_reserved() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&directory.path().join("db")).unwrap();
    store
        .commit("me", None, &[admitted(full_record())])
        .unwrap();
    assert_eq!(store.settle_lost("other").unwrap(), 0);
    assert_eq!(store.settle_lost("me").unwrap(), 1);
    assert_eq!(store.settle_lost("me").unwrap(), 0);
    let row = row(&store, "exchange");
    let expected = [
        ("id", "an-id"),
        ("instance", "me"),
        ("outcome", "lost"),
        ("refused_by", "null"),
        ("cost_state", "estimated"),
        ("cost_nanos", "500"),
        ("reasons", "[\"why\",\"weir_died_in_flight\"]"),
        ("program", "claude"),
    ];
    for (column, value) in expected {
        assert!(
            row.contains(&(column.to_owned(), value.to_owned())),
            "{column}: {row:?}"
        );
    }
}

#[test]
fn bypasses_add_up_per_minute() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&directory.path().join("db")).unwrap();
    let bypass = |at_unix_ms| {
        Entry::Bypassed(Bypass {
            at_unix_ms,
            count: 2,
            ..Bypass::default()
        })
    };
    store
        .commit("me", None, &[bypass(60_000), bypass(119_999)])
        .unwrap();
    store.commit("me", None, &[bypass(60_001)]).unwrap();
    let row = row(&store, "bypass");
    assert!(
        row.contains(&("minute_ms".to_owned(), "60000".to_owned())),
        "{row:?}"
    );
    assert!(
        row.contains(&("count".to_owned(), "6".to_owned())),
        "{row:?}"
    );
}

#[test]
fn how_far_a_journal_is_committed_is_remembered_until_it_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let at = Position {
        segment: 3,
        offset: 70,
    };
    Store::open(&path)
        .unwrap()
        .commit("me", Some(at), &[])
        .unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.committed("me").unwrap(), at);
    assert_eq!(store.committed("other").unwrap(), Position::default());
    assert_eq!(store.instances().unwrap(), ["me"]);
    store.forget("me").unwrap();
    assert_eq!(store.committed("me").unwrap(), Position::default());
}

#[test]
fn a_reset_is_ordered_among_records_and_of_each_account_the_latest_is_in_force() {
    use weir_core::caps::{Change, ChangeKind};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut store = Store::open(&path).unwrap();
    let mut spends = Spends::open(&path, "other").unwrap();
    let reset = |scope: Option<&str>| Change {
        number: 0,
        at_ms: 1,
        cap: "c".to_owned(),
        scope: scope.map(str::to_owned),
        kind: ChangeKind::Reset,
        author: "a".to_owned(),
        reason: "r".to_owned(),
    };
    let raise = |until_ms| Change {
        kind: ChangeKind::Raise {
            by: weir_core::caps::Amount::of_call(Money::MAX, u64::MAX),
            until_ms,
        },
        ..reset(None)
    };
    let mut record = |id: &str| {
        let record = Record {
            id: id.to_owned(),
            ..full_record()
        };
        store.commit("me", None, &[recorded(record)]).unwrap();
    };
    record("first");
    for change in [reset(None), raise(0), raise(i64::MAX), reset(Some("x"))] {
        spends.change(&change).unwrap();
    }
    record("second");
    assert_eq!(spends.change(&reset(None)).unwrap(), 5);
    record("third");
    let others = spends.others().unwrap();
    let after: Vec<_> = others
        .spent
        .iter()
        .map(|spend| (spend.id.as_str(), spend.after_change))
        .collect();
    assert_eq!(after, [("first", 0), ("second", 4), ("third", 5)]);
    let numbers: Vec<_> = others.changes.iter().map(|change| change.number).collect();
    // The reset of all accounts takes the place of the one before it.
    assert_eq!(numbers, [3, 5]);
    assert_eq!(spends.history().unwrap().len(), 5);
    let ChangeKind::Raise { by, .. } = others.changes[0].kind else {
        panic!("{:?}", others.changes[0])
    };
    assert_eq!(by.money, Money::MAX);
}
