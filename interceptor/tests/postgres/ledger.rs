//! Records reach the server, once each, whatever happens to either side.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use weir::ledger::{Bypass, Explained, Ledger};

use super::server::Server;
use super::{AT, COST, RESERVED, again, draft, options, options_of_child, record};

const WAIT: Duration = Duration::from_secs(120);

fn bypass() -> Bypass {
    Bypass {
        at_unix_ms: AT,
        program: "a\0program".to_owned(),
        count: 1,
        ..Bypass::default()
    }
}

/// What was found out about a call, by a rule of whoever put a zero into its name.
fn hit() -> Explained {
    Explained {
        cache_outcome: Some("hit".to_owned()),
        cache_rule: Some("mine\0".to_owned()),
        missed: Some(COST),
        ..Explained::default()
    }
}

/// One whole line, in one write.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("\n{line}\n").as_bytes())
        .unwrap();
}

/// Calls one after the other, until somebody ends this process.
fn write_forever(ledger: &Ledger) {
    for number in 0.. {
        let id = format!("{}-{number}", ledger.instance());
        ledger.admit(&draft(&id), RESERVED);
        say(&format!("admitted {id}"));
        let mut journaled = ledger.write_down(record(&id));
        say(&format!("recorded {id}"));
        ledger.explain(&mut journaled, hit());
        say(&format!("explained {id}"));
        ledger.bypass(bypass());
        say(&format!("bypassed {id}"));
    }
}

/// Kills a child after it said so many lines; what it said.
fn kill_after(mut child: Child, lines: usize) -> Vec<(String, String)> {
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut said = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        if let Some((what, id)) = line.split_once(' ') {
            said.push((what.to_owned(), id.to_owned()));
        }
        if said.len() == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    said
}

/// Outcome and cost of every record.
async fn written(server: &Server) -> HashMap<String, (String, Option<i64>)> {
    let rows = server
        .client()
        .await
        .query("SELECT id, outcome, cost_nanos FROM weir.exchange", &[])
        .await
        .unwrap();
    rows.iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))))
        .collect()
}

async fn check_kill_9(server: &Server, url: &str, test: &str) {
    let state = tempfile::tempdir().unwrap();
    let (mut admitted, mut recorded, mut bypassed) = (HashSet::new(), HashSet::new(), 0);
    let mut explained = 0;
    for lines in [1, 5, 77, 400, 1_501, 3_000] {
        let child = again(test, state.path(), url);
        for (what, id) in kill_after(child, lines) {
            match what.as_str() {
                "admitted" => drop(admitted.insert(id)),
                "recorded" => drop(recorded.insert(id)),
                "explained" => explained += 1,
                "bypassed" => bypassed += 1,
                _ => {}
            }
        }
    }
    let options = options(state.path(), url);
    tokio::task::spawn_blocking(move || drop(Ledger::open(&options).unwrap()))
        .await
        .unwrap();
    let written = written(server).await;
    for id in &recorded {
        let expected = ("completed".to_owned(), Some(COST.nanos()));
        assert_eq!(written.get(id), Some(&expected), "{id}");
    }
    let mut spent = 0;
    for (id, (outcome, cost)) in &written {
        let expected = if outcome == "lost" { RESERVED } else { COST };
        assert_eq!(*cost, Some(expected.nanos()), "{id}: {outcome}");
        spent += expected.nanos();
    }
    for id in &admitted {
        assert!(written.contains_key(id), "{id}");
    }
    assert!(recorded.len() > 500, "only {}", recorded.len());
    // At most one entry of each process was journaled and not yet said.
    assert!((admitted.len()..=admitted.len() + 6).contains(&written.len()));
    let counted = server
        .number("SELECT sum(count)::bigint FROM weir.bypass")
        .await;
    assert!(
        (bypassed..=bypassed + 6).contains(&counted),
        "{counted} of {bypassed}"
    );
    let hits = format!(
        "SELECT count(*) FROM weir.exchange WHERE cache_outcome = 'hit'
         AND cache_rule = 'mine\u{fffd}' AND missed_nanos = {}",
        COST.nanos()
    );
    let hits = server.number(&hits).await;
    assert!(
        (explained..=explained + 6).contains(&hits),
        "{hits} of {explained}"
    );
    let charged = "SELECT sum(amount)::bigint FROM weir.spent WHERE account = 'a'";
    assert_eq!(server.number(charged).await, spent);
    let left = "SELECT (SELECT count(*) FROM weir.admission) + (SELECT count(*) FROM weir.lease)
        + (SELECT count(*) FROM weir.holder WHERE lives_until IS NOT NULL)";
    assert_eq!(server.number(left).await, 0);
}

#[tokio::test]
async fn kill_9_at_any_instant_loses_and_doubles_nothing() {
    let test = "ledger::kill_9_at_any_instant_loses_and_doubles_nothing";
    if let Some(options) = options_of_child() {
        return write_forever(&open(&options).await);
    }
    let server = Server::start();
    check_kill_9(&server, &server.url(), test).await;
}

#[tokio::test]
async fn nor_does_it_through_a_pool_in_transaction_mode() {
    let test = "ledger::nor_does_it_through_a_pool_in_transaction_mode";
    if let Some(options) = options_of_child() {
        return write_forever(&open(&options).await);
    }
    let mut server = Server::start();
    let url = server.pool();
    check_kill_9(&server, &url, test).await;
}

async fn open(options: &weir::ledger::LedgerOptions) -> Ledger {
    let options = options.clone();
    tokio::task::spawn_blocking(move || Ledger::open(&options).unwrap())
        .await
        .unwrap()
}

async fn flush(ledger: Ledger) {
    tokio::task::spawn_blocking(move || assert!(ledger.flush(WAIT), "{:?}", ledger.health()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_frozen_server_stops_nobody_and_misses_nothing() {
    let server = Server::start();
    let state = tempfile::tempdir().unwrap();
    let ledger = open(&options(state.path(), &server.url())).await;
    server.freeze();
    let began = Instant::now();
    for number in 0..1_000 {
        let id = format!("call {number:04}");
        ledger.admit(&draft(&id), RESERVED);
        ledger.record(record(&id));
        ledger.bypass(bypass());
    }
    let took = began.elapsed();
    // One that waited for the server would take seconds alone.
    assert!(took < Duration::from_secs(10), "{took:?} for 1000 calls");
    // A batch is tried, and given up; the server may yet do it when it goes on.
    while ledger.health().error.is_none() {
        assert!(began.elapsed() < WAIT, "{:?}", ledger.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ledger.health().journal_bytes > 0);
    server.thaw();
    flush(ledger).await;
    assert_eq!(written(&server).await.len(), 1_000);
    let charged = "SELECT sum(amount)::bigint FROM weir.spent WHERE account = 'a'";
    assert_eq!(server.number(charged).await, 1_000 * COST.nanos());
    let bypassed = "SELECT sum(count)::bigint FROM weir.bypass";
    assert_eq!(server.number(bypassed).await, 1_000);
}

#[tokio::test]
async fn nodes_see_what_the_others_spend_and_have_in_flight_once() {
    let server = Server::start();
    let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = open(&options(states[0].path(), &server.url())).await;
    let other = open(&options(states[1].path(), &server.url())).await;
    let told = tokio::task::spawn_blocking(move || {
        one.admit(&draft("over"), RESERVED);
        one.record(record("over"));
        one.admit(&draft("in flight"), RESERVED);
        assert!(one.flush(WAIT));
        let mut all = Vec::new();
        other.spent_since(0, |spend| all.push(spend.id)).unwrap();
        one.admit(&draft("later"), RESERVED);
        let mut later = one.write_down(record("later"));
        assert!(one.flush(WAIT));
        let others = other.poll_others().unwrap();
        // What is found out of a call that was seen does not make it another one.
        one.explain(&mut later, hit());
        assert!(one.flush(WAIT));
        let again = other.poll_others().unwrap();
        assert_eq!(one.poll_others().unwrap().spent, []);
        (all, others, again)
    });
    let (all, others, again) = told.await.unwrap();
    assert_eq!(all, ["over"]);
    let ids = |spends: &[weir::ledger::Spend]| -> Vec<(String, i64)> {
        spends
            .iter()
            .map(|spend| (spend.id.clone(), spend.amount.nanos()))
            .collect()
    };
    assert_eq!(ids(&others.spent), [("later".to_owned(), COST.nanos())]);
    assert_eq!(
        ids(&others.reserved),
        [("in flight".to_owned(), RESERVED.nanos())]
    );
    assert_eq!(ids(&again.spent), []);
    let hits = "SELECT count(*) FROM weir.exchange WHERE cache_outcome = 'hit' AND id = 'later'";
    assert_eq!(server.number(hits).await, 1);
    assert_eq!(ids(&again.reserved).len(), 1);
}

#[tokio::test]
async fn reports_are_made_of_what_is_on_the_server() {
    use weir::report::{Query, Reader};

    let server = Server::start();
    let state = tempfile::tempdir().unwrap();
    let options = options(state.path(), &server.url());
    let ledger = open(&options).await;
    for number in 0..3 {
        ledger.record(record(&number.to_string()));
    }
    ledger.bypass(bypass());
    flush(ledger).await;
    let totals = tokio::task::spawn_blocking(move || {
        let query = Query {
            since_unix_ms: AT,
            by: Vec::new(),
            time_zone: jiff::tz::TimeZone::UTC,
            fees: BTreeMap::new(),
        };
        let reader = Reader::open_since(&options, AT).unwrap();
        let spent = weir::report::spend(&reader, &query).unwrap();
        let bypassed = weir::report::bypass(&reader, &query).unwrap();
        let later = Reader::open_since(&options, AT + 600_000).unwrap();
        let nothing = weir::report::spend(&later, &query).unwrap();
        [
            serde_json::to_string(&spent).unwrap(),
            serde_json::to_string(&bypassed).unwrap(),
            serde_json::to_string(&nothing).unwrap(),
        ]
    });
    let [spent, bypassed, nothing] = totals.await.unwrap();
    assert!(spent.contains("\"cost_nano_usd\":9000"), "{spent}");
    assert!(bypassed.contains("a\u{fffd}program"), "{bypassed}");
    assert!(!nothing.contains("9000"), "{nothing}");
}

#[tokio::test]
async fn a_server_of_a_later_version_is_left_alone() {
    let server = Server::start();
    let state = tempfile::tempdir().unwrap();
    let options = options(state.path(), &server.url());
    drop(open(&options).await);
    let later = "INSERT INTO weir.version VALUES (99)";
    server.client().await.batch_execute(later).await.unwrap();
    let error = tokio::task::spawn_blocking(move || Ledger::open(&options).map(drop))
        .await
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(error.contains("its version is 99"), "{error}");
}

#[tokio::test]
async fn many_that_start_at_once_make_the_tables_once() {
    let server = Server::start();
    let states: Vec<_> = (0..6).map(|_| tempfile::tempdir().unwrap()).collect();
    let opened: Vec<_> = states
        .iter()
        .map(|state| {
            let options = options(state.path(), &server.url());
            tokio::spawn(async move { drop(open(&options).await) })
        })
        .collect();
    for opened in opened {
        opened.await.unwrap();
    }
    let steps = "SELECT count(*) FROM weir.version";
    assert_eq!(server.number(steps).await, 6, "one row for each step");
}

/// A server that wants a password, over a connection that is encrypted.
fn secured(directory: &Path) -> (Server, u16) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    std::fs::write(directory.join("root.pem"), authority.pem()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = port.local_addr().unwrap().port();
    drop(port);
    let server = Server::start_encrypted(number, &leaf.pem(), &key.serialize_pem());
    (server, number)
}

#[tokio::test]
async fn a_server_is_verified_and_the_password_comes_from_a_file() {
    let state = tempfile::tempdir().unwrap();
    let (server, port) = secured(state.path());
    let at = |user: &str, parameters: &str| {
        format!("postgres://{user}@localhost:{port}/postgres?{parameters}")
    };
    let root = format!("sslrootcert={}", state.path().join("root.pem").display());
    let password_file = state.path().join("password");
    std::fs::write(&password_file, "s3cret-pass\n").unwrap();
    let good = weir::ledger::LedgerOptions {
        password_file: Some(password_file),
        ..options(state.path(), &at("weir", &root))
    };
    drop(open(&good).await);
    let refused = [
        (at("weir", ""), "certificate"),
        (at("weir", "sslmode=disable"), "no encryption"),
        (
            at("weir", &root).replace("localhost", "127.0.0.1"),
            "certificate",
        ),
    ];
    for (url, why) in refused {
        let options = weir::ledger::LedgerOptions {
            url: url.clone(),
            ..good.clone()
        };
        let error = tokio::task::spawn_blocking(move || Ledger::open(&options).map(drop))
            .await
            .unwrap()
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{url}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let wrong = options(state.path(), &at("weir:wr0ng-pass", &root));
    let error = tokio::task::spawn_blocking(move || Ledger::open(&wrong).map(drop))
        .await
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(error.contains("password authentication failed"), "{error}");
    assert!(!error.contains("wr0ng"), "{error}");
    drop(server);
}
