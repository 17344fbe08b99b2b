//! The lease functions of the database do what their model does.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::Type;
use weir::ledger::{Ledger, put_to};
use weir_core::lease::{Book, Charge, LEASE_MS, Take};

use super::options;
use super::server::Server;

/// Deterministic chance.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from(self.0 >> 1).unwrap() % bound
    }
}

async fn ship(client: &Client, holder: &str, kind: &str, id: &str, charge: &Charge) {
    let row = serde_json::json!([{
        "id": id, "instance": holder, "started_ms": 0, "charges": [charge],
    }]);
    let none = "[]".to_owned();
    let (ended, begun) = if kind == "charge" {
        (row.to_string(), none)
    } else {
        (none, row.to_string())
    };
    client
        .query_typed(
            "SELECT weir.ship($1, NULL, NULL, NULL, NULL, $2::text::jsonb, $3::text::jsonb, '[]')",
            &[
                (&holder, Type::TEXT),
                (&ended, Type::TEXT),
                (&begun, Type::TEXT),
            ],
        )
        .await
        .unwrap();
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    client: &Client,
    sql: &str,
    holder: &str,
    epoch: i64,
) -> T {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] = [
        (&holder, Type::TEXT),
        (&epoch, Type::INT8),
        (&LEASE_MS, Type::INT8),
    ];
    client.query_typed(sql, &parameters).await.unwrap()[0].get(0)
}

async fn with_tables() -> Server {
    let server = Server::start();
    let state = tempfile::tempdir().unwrap();
    let options = options(state.path(), &server.url());
    // Makes the tables.
    tokio::task::spawn_blocking(move || drop(Ledger::open(&options).unwrap()))
        .await
        .unwrap();
    server
}

#[tokio::test]
async fn the_database_answers_as_its_model_does() {
    let server = with_tables().await;
    let client = server.client().await;
    let mut book = Book::default();
    let mut dice = Dice(0x5EED);
    let mut numbers = 0;
    for step in 0..3_000 {
        let holder = format!("h{}", dice.below(4));
        let account = format!("a{}", dice.below(3));
        let epoch = 1 + dice.below(3);
        let id = format!("call {}", dice.below(200));
        let charge = Charge {
            account: account.clone(),
            at_ms: dice.below(3) * 100,
            amount: dice.below(60),
        };
        match dice.below(10) {
            0 => {
                let sql = "SELECT weir.register($1, $2, $3)";
                let accepted: bool = one(&client, sql, &holder, epoch).await;
                assert_eq!(accepted, book.register(&holder, epoch, 0), "step {step}");
            }
            1 => {
                let sql = "SELECT weir.renew($1, $2, $3)";
                let accepted: bool = one(&client, sql, &holder, epoch).await;
                assert_eq!(accepted, book.renew(&holder, epoch, 0), "step {step}");
            }
            2 => {
                ship(&client, &holder, "admit", &id, &charge).await;
                book.admit(&id, &holder, &[charge]);
            }
            3 => {
                ship(&client, &holder, "charge", &id, &charge).await;
                book.charge(&id, &holder, &[charge]);
            }
            4 if dice.below(8) == 0 => {
                let sql = "SELECT weir.end_holder($1, false), $2, $3";
                let _: i64 = one(&client, sql, &holder, epoch).await;
                book.end(&holder);
            }
            _ => {
                numbers += 1;
                let least = dice.below(500);
                let question = Take {
                    account,
                    holder,
                    epoch,
                    number: (numbers - dice.below(20)).max(1),
                    least,
                    most: least + dice.below(100),
                    limit: 2_000,
                    from_ms: dice.below(3) * 100,
                    seed: dice.below(300),
                    seed_ms: dice.below(4) * 100,
                };
                let expected = book.take(&question);
                assert_eq!(
                    put_to(&client, &question).await.unwrap(),
                    expected,
                    "step {step}: {question:?}"
                );
            }
        }
    }
    for account in ["a0", "a1", "a2"] {
        let sum = format!(
            "SELECT coalesce(sum(amount), 0)::bigint FROM weir.spent WHERE account = '{account}'"
        );
        assert_eq!(server.number(&sum).await, book.spent(account, 0));
    }
}

#[tokio::test]
async fn absurd_usage_fills_the_books_and_stops_nothing() {
    let server = with_tables().await;
    let client = server.client().await;
    let mut book = Book::default();
    for holder in ["h0", "h1"] {
        let sql = "SELECT weir.register($1, $2, $3)";
        assert!(one::<bool>(&client, sql, holder, 1).await);
        assert!(book.register(holder, 1, 0));
        for call in 0..2 {
            let charge = Charge {
                account: "a".to_owned(),
                at_ms: 0,
                amount: i64::MAX,
            };
            let id = format!("{holder} {call}");
            ship(&client, holder, "charge", &id, &charge).await;
            book.charge(&id, holder, &[charge]);
        }
    }
    let question = Take {
        account: "a".to_owned(),
        holder: "h0".to_owned(),
        epoch: 1,
        number: 1,
        least: 1,
        most: 1,
        limit: 2_000,
        from_ms: 0,
        seed: 0,
        seed_ms: 0,
    };
    let expected = book.take(&question);
    assert_eq!(put_to(&client, &question).await.unwrap(), expected);
}

/// The accounts of a table, in order.
async fn accounts(client: &Client, sql: &str) -> Vec<String> {
    let rows = client.query_typed(sql, &[]).await.unwrap();
    let mut accounts: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    accounts.sort();
    accounts
}

#[tokio::test]
async fn what_is_long_over_is_dropped_and_what_counts_is_not() {
    let server = with_tables().await;
    let client = server.client().await;
    // Windows that began at 100 and 900 after a month ago, one without an end; and rolling ones: of 2.4 s, which counts for
    // a step of 100 ms more; of an unknown length; unused; of which something is leased.
    client
        .batch_execute(
            "INSERT INTO weir.account SELECT unnest(ARRAY['c:money:100:a', 'c:money:900:a',
                'c:money:-9223372036854775808:a', 'c:money:rolling24:a', 'c:money:rolling:a',
                'c:money:rolling24:unused', 'c:money:rolling24:leased']);
             INSERT INTO weir.lease SELECT id, 'gone', 1, 5 FROM weir.account;
             UPDATE weir.lease SET allowed = 0 WHERE account LIKE '%rolling%' AND account NOT LIKE '%leased';
             INSERT INTO weir.spent VALUES ('c:money:100:a', 'h', 100, 1), ('c:money:900:a', 'h', 900, 1),
                ('c:money:-9223372036854775808:a', 'h', -9223372036854775808, 1),
                ('c:money:rolling24:a', 'h', 2678375500, 1), ('c:money:rolling24:a', 'h', 2678375499, 1),
                ('c:money:rolling:a', 'h', 100, 1);
             DELETE FROM weir.holder;
             INSERT INTO weir.holder VALUES ('over', 1, NULL), ('journaled', 1, NULL),
                ('lives', 1, now() + interval '1 hour');
             INSERT INTO weir.journal VALUES ('journaled', 0, 0)",
        )
        .await
        .unwrap();
    assert_eq!(server.number("SELECT weir.ownerless()").await, 4);
    // 500 ms and a month.
    let purge = "SELECT weir.purge(2678400500, 1) + weir.purge_rolling(1)";
    // One row of each table at once: spent twice, a lease, two accounts, and the node that is over.
    assert_eq!(server.number(purge).await, 5);
    assert_eq!(server.number(purge).await, 1);
    let mut kept = vec![
        "c:money:-9223372036854775808:a",
        "c:money:900:a",
        "c:money:rolling24:a",
        "c:money:rolling24:leased",
        "c:money:rolling:a",
    ];
    for table in [
        "SELECT account FROM weir.lease",
        "SELECT id FROM weir.account",
        "SELECT account FROM weir.spent UNION SELECT 'c:money:rolling24:leased'",
    ] {
        assert_eq!(accounts(&client, table).await, kept, "{table}");
    }
    let rolling = "SELECT at_ms FROM weir.spent WHERE account = 'c:money:rolling24:a'";
    assert_eq!(server.number(rolling).await, 2_678_375_500);
    let holders = accounts(&client, "SELECT id FROM weir.holder").await;
    assert_eq!(holders, ["journaled", "lives"]);
    assert_eq!(server.number(purge).await, 0);
    // Those of the node that lives are somebody's.
    client
        .batch_execute("UPDATE weir.lease SET holder = 'lives'")
        .await
        .unwrap();
    assert_eq!(server.number("SELECT weir.ownerless()").await, 0);
    // When the rest of the rolling ones is over, it goes, unless somebody may not know of a reset yet.
    let later = "SELECT weir.purge(2678400501, 9) + weir.purge_rolling(9)";
    client
        .batch_execute(
            "UPDATE weir.lease SET allowed = 0 WHERE account LIKE '%leased';
             INSERT INTO weir.cap_change (seen, at_ms, cap, kind, nanos, tokens, calls, author, reason)
             VALUES (pg_current_snapshot(), 0, 'c', 'reset', 0, 0, 0, 'a', 'b')",
        )
        .await
        .unwrap();
    assert_eq!(server.number(later).await, 1, "what was spent");
    client
        .batch_execute("UPDATE weir.cap_change SET written_at = now() - interval '61 minutes'")
        .await
        .unwrap();
    assert_eq!(server.number(later).await, 2);
    kept.retain(|account| !account.contains("rolling24"));
    let left = "SELECT id FROM weir.account";
    assert_eq!(accounts(&client, left).await, kept);
}

/// A node asks of an account of a rolling window that is about to be dropped: what it is granted then is in the books.
#[tokio::test]
async fn what_is_asked_of_an_account_while_it_is_dropped_is_in_the_books() {
    let server = with_tables().await;
    let client = server.client().await;
    let sql = "SELECT weir.register($1, $2, $3)";
    assert!(one::<bool>(&client, sql, "h", 1).await);
    let question = |number| Take {
        account: "c:money:rolling24:a".to_owned(),
        holder: "h".to_owned(),
        epoch: 1,
        number,
        least: if number == 1 { 0 } else { 7 },
        most: if number == 1 { 0 } else { 7 },
        limit: 2_000,
        from_ms: 0,
        seed: 0,
        seed_ms: 0,
    };
    put_to(&client, &question(1)).await.unwrap();
    // What drops it is held up where it has found it and waits for those that ask.
    let asks = server.client().await;
    asks.batch_execute(
        "BEGIN; SELECT 1 FROM weir.account FOR UPDATE; INSERT INTO weir.account VALUES ('another')",
    )
    .await
    .unwrap();
    let drops = server.client().await;
    // As long as this test may take to look.
    drops
        .batch_execute("ALTER FUNCTION weir.purge_rolling SET lock_timeout = '60s'")
        .await
        .unwrap();
    let drops =
        tokio::spawn(async move { drops.query_typed("SELECT weir.purge_rolling(9)", &[]).await });
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'";
    let until = Instant::now() + Duration::from_secs(60);
    while server.number(waiting).await == 0 {
        assert!(Instant::now() < until, "it did not wait");
    }
    put_to(&asks, &question(2)).await.unwrap();
    asks.batch_execute("COMMIT").await.unwrap();
    let dropped: i64 = drops.await.unwrap().unwrap()[0].get(0);
    assert_eq!(dropped, 0, "it is in use by now");
    let allowed = "SELECT allowed FROM weir.lease WHERE account = 'c:money:rolling24:a'";
    assert_eq!(server.number(allowed).await, 7);
}

/// Somebody is slow to ask of an account, while two nodes drop what is over: both leave it for later, and whoever else
/// asks has an answer.
#[tokio::test]
async fn nodes_that_drop_at_once_keep_neither_each_other_nor_calls_waiting() {
    let server = with_tables().await;
    let client = server.client().await;
    let sql = "SELECT weir.register($1, $2, $3)";
    assert!(one::<bool>(&client, sql, "h", 1).await);
    client
        .batch_execute("INSERT INTO weir.account VALUES ('c:money:rolling24:unused')")
        .await
        .unwrap();
    let slow = server.client().await;
    slow.batch_execute("BEGIN; INSERT INTO weir.account VALUES ('c:money:rolling24:slow')")
        .await
        .unwrap();
    let purge = [
        "SELECT weir.purge(2678400500, 9)",
        "SELECT weir.purge_rolling(9)",
    ];
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let node = server.client().await;
        nodes.push(tokio::spawn(async move {
            node.query_typed(purge[0], &[]).await.unwrap();
            let rows = node.query_typed(purge[1], &[]).await.unwrap();
            assert_eq!(rows[0].get::<_, i64>(0), 0, "it went on");
        }));
    }
    let question = Take {
        account: "c:money:rolling24:asked".to_owned(),
        holder: "h".to_owned(),
        epoch: 1,
        number: 1,
        least: 7,
        most: 7,
        limit: 2_000,
        from_ms: 0,
        seed: 0,
        seed_ms: 0,
    };
    let within = Duration::from_secs(20);
    let asked = tokio::time::timeout(within, put_to(&client, &question)).await;
    assert!(asked.expect("a call waits for nodes that drop").is_ok());
    for node in nodes {
        let ended = tokio::time::timeout(within, node).await;
        ended.expect("nodes wait for each other").unwrap();
    }
    slow.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        server.number(purge[1]).await,
        2,
        "unused, and not asked again"
    );
}

#[tokio::test]
async fn conversations_are_dropped_after_a_month_and_the_oldest_of_too_many() {
    let server = with_tables().await;
    let rows = "INSERT INTO weir.conversation (key, sealed, version, updated_at)
         SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), '1234', 1, now() - make_interval(days => n)
         FROM generate_series(26, 33) AS n";
    server.client().await.batch_execute(rows).await.unwrap();
    let purge = |arguments: &str| format!("SELECT weir.purge_conversations({arguments})");
    // 31, 32 and 33 days; one that is 30 days old is, too, since time has passed.
    assert_eq!(server.number(&purge("30, 100, 100, 3")).await, 3);
    assert_eq!(server.number(&purge("30, 100, 100, 3")).await, 1);
    assert_eq!(server.number(&purge("30, 100, 100, 3")).await, 0);
    let oldest = "SELECT max(get_byte(key, 15))::bigint FROM weir.conversation";
    assert_eq!(server.number(&purge("30, 3, 100, 5")).await, 1, "four");
    assert_eq!(server.number(oldest).await, 28);
    assert_eq!(
        server.number(&purge("30, 100, 9, 5")).await,
        1,
        "of 12 bytes"
    );
    assert_eq!(server.number(oldest).await, 27);
}
