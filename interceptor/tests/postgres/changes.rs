//! Raises and resets of caps that are in force in running processes: made by the command, on both
//! databases, through restarts and `kill -9`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use weir::ledger::{Books, Ledger};
use weir_core::caps::{Amount, Change, ChangeKind};
use weir_simulator::{Options, Simulator};

use super::processes::{prepare, weir};
use super::server::Server;
use super::{COST, RESERVED, draft, options, record};

/// Calls until nobody answers any more.
const AGENT: &str = r#"
while status=$(curl -s -o /dev/null -w '%{http_code}' -H 'content-type: application/json' \
    -H 'x-api-key: a-key-of-the-test' -H 'anthropic-version: 2023-06-01' -d @"$0" \
    https://api.anthropic.com/v1/messages); do echo "$status"; sleep 0.02; done
"#;
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent under Weir, and what it is answered.
struct Agent {
    weir: Child,
    statuses: Receiver<String>,
}

impl Agent {
    fn start(directory: &Path, node: &str) -> Self {
        let body = directory.join("body.json");
        let command = ["sh", "-c", AGENT, body.to_str().unwrap()];
        let mut weir = weir(directory, node, &command).spawn().unwrap();
        let output = BufReader::new(weir.stdout.take().unwrap());
        let (said, statuses) = channel();
        std::thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            lines.try_for_each(|line| said.send(line)).ok()
        });
        Self { weir, statuses }
    }

    /// Waits until a call is answered so; how many were admitted meanwhile.
    fn until(&self, refused: bool) -> usize {
        let mut made = 0;
        loop {
            let status = self.statuses.recv_timeout(PATIENCE).unwrap();
            assert!(["200", "402", "429"].contains(&status.as_str()), "{status}");
            made += usize::from(status == "200");
            if (status == "402") == refused && status != "429" {
                return made;
            }
        }
    }

    fn kill(mut self) {
        self.weir.kill().unwrap();
        self.weir.wait().unwrap();
    }
}

/// `weir caps …`, from the state directory of a node.
fn caps(directory: &Path, node: &str, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("caps")
        .args(arguments)
        .arg("--config")
        .arg(directory.join("weir.toml"))
        .arg("--state-dir")
        .arg(directory.join(node))
        .arg("--json")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// In so many seconds, as `--until` wants it.
fn within(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn check_changes(url: &str, looks_from: &str) {
    let simulator = Simulator::start(Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    prepare(at, &simulator, url, "0.10");
    let agent = Agent::start(at, "one");
    assert!(
        (3..=5).contains(&agent.until(true)),
        "five calls cost $0.10"
    );

    // A raise holds in the process that runs, to its amount and no further.
    let why = ["--reason", "a release"];
    let raise = ["raise", "fleet", "--usd", "0.05", "--for", "1h"];
    caps(at, looks_from, &[&raise[..], &why].concat());
    agent.until(false);
    assert!(agent.until(true) <= 2, "two calls cost $0.04");

    // Another ends by itself.
    let until = within(3);
    let raise = [
        "raise", "fleet", "--scope", "all", "--usd", "100", "--until", &until,
    ];
    caps(at, looks_from, &[&raise[..], &why].concat());
    agent.until(false);
    agent.until(true);
    assert!(
        jiff::Timestamp::now().to_string() >= until,
        "it ended too early"
    );

    // A reset gives back the whole limit, and what is left of the first raise.
    caps(at, looks_from, &[&["reset", "fleet"], &why[..]].concat());
    agent.until(false);
    let made = agent.until(true);
    assert!((4..=7).contains(&made), "{made} calls of at most $0.15");
    agent.kill();

    // All of that is as it was after a restart.
    let agent = Agent::start(at, "one");
    assert!(agent.until(true) <= 1);
    let listed = caps(at, looks_from, &["list"]);
    let account = &listed["caps"][0]["accounts"][0];
    assert_eq!(account["limit"]["nano_usd"], 150_000_000, "{listed}");
    let spent = account["spent"]["nano_usd"].as_i64().unwrap();
    assert!((80_000_000..=150_000_000).contains(&spent), "{spent}");
    let kinds: Vec<_> = listed["changes"].as_array().unwrap().iter().collect();
    assert_eq!(kinds.len(), 3);
    assert_eq!(
        [0, 1, 2].map(|at| kinds[at]["in_force"] == true),
        [true, false, true]
    );
    assert!(kinds.iter().all(|change| change["reason"] == "a release"));
    agent.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_weir_follows_raises_and_resets_on_sqlite() {
    tokio::task::spawn_blocking(|| check_changes("sqlite:weir.db", "one"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_weir_follows_raises_and_resets_on_a_server() {
    let server = Server::start();
    let url = server.url();
    tokio::task::spawn_blocking(move || check_changes(&url, "another"))
        .await
        .unwrap();
}

fn reset(cap: &str) -> Change {
    Change {
        number: 0,
        at_ms: super::AT,
        cap: cap.to_owned(),
        scope: None,
        kind: ChangeKind::Reset,
        author: "root".to_owned(),
        reason: "why \u{fc}".to_owned(),
    }
}

/// The reset that each record came after; 0 where there was none.
fn resets_before(books: &mut Books) -> BTreeMap<String, i64> {
    let mut after = BTreeMap::new();
    let others = books.read(0, |spend| after.extend([(spend.id, spend.after_change)]));
    others.unwrap();
    after
}

/// As a dump does that is restored where transactions have lower numbers.
fn move_to_another_server(server: &Server, runtime: &tokio::runtime::Handle) {
    let sql = "WITH of AS (UPDATE weir.cap_change SET seen = '4000000000:4000000000:' RETURNING 1)
        SELECT count(*) FROM of";
    runtime.block_on(server.number(sql));
}

/// Opens a ledger twice, since a second look is at what came after the first.
fn check_books(server: &Server, runtime: &tokio::runtime::Handle) {
    let state = tempfile::tempdir().unwrap();
    let options = options(state.path(), &server.url());
    let ledger = Ledger::open(&options).unwrap();
    let flush = |ledger: &Ledger| assert!(ledger.flush(PATIENCE));
    let spent = || {
        runtime.block_on(server.number("SELECT coalesce(sum(amount), 0)::bigint FROM weir.spent"))
    };
    ledger.record(record("before"));
    ledger.admit(&draft("in flight"), RESERVED);
    ledger.admit(&draft("presumed"), RESERVED);
    flush(&ledger);
    // The node is given up: what it has in flight is presumed.
    let give_up = format!("SELECT weir.end_holder('{}', false)", ledger.instance());
    runtime.block_on(server.number(&give_up));
    assert_eq!(spent(), COST.nanos() + 2 * RESERVED.nanos());
    let mut books = Books::open(&options).unwrap();
    let raise = ChangeKind::Raise {
        by: Amount::of_call(COST, 7),
        until_ms: i64::MAX,
    };
    let raise = Change {
        kind: raise,
        scope: Some("user=\u{fc}".to_owned()),
        ..reset("a cap")
    };
    assert_eq!(books.change(&raise, &[]).unwrap(), 1);
    assert_eq!(books.change(&reset("other"), &["b".to_owned()]).unwrap(), 2);
    assert_eq!(
        spent(),
        COST.nanos() + 2 * RESERVED.nanos(),
        "of another account"
    );
    assert_eq!(books.change(&reset("a cap"), &["a".to_owned()]).unwrap(), 3);
    assert_eq!(spent(), 0);
    // Told after all, it counts in full, and what was presumed is not taken off twice.
    ledger.record(record("presumed"));
    ledger.record(record("after"));
    flush(&ledger);
    assert_eq!(spent(), 2 * COST.nanos());
    let after = resets_before(&mut books);
    let expected = [
        ("after", 3),
        ("before", 0),
        ("in flight", 0),
        ("presumed", 3),
    ];
    assert_eq!(
        after,
        expected.map(|(id, after)| (id.to_owned(), after)).into()
    );
    let told: Vec<_> = [raise, reset("other"), reset("a cap")]
        .into_iter()
        .zip(1..)
        .map(|(change, number)| Change { number, ..change })
        .collect();
    assert_eq!(books.read(0, drop).unwrap().changes, told);
    assert_eq!(books.history().unwrap(), told);
    let second = books.change(&reset("a cap"), &["a".to_owned()]).unwrap();
    let numbers: Vec<i64> = books
        .read(0, drop)
        .unwrap()
        .changes
        .iter()
        .map(|change| change.number)
        .collect();
    assert_eq!(numbers, [1, 2, second], "of each account the latest");
    move_to_another_server(server, runtime);
    ledger.record(record("restored"));
    flush(&ledger);
    let after = resets_before(&mut books);
    let of = ["before", "after", "restored"].map(|id| after[id]);
    assert_eq!(of, [0, 3, second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_forgets_in_the_books_what_was_recorded_before_it_and_no_more() {
    let server = Server::start();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || check_books(&server, &runtime))
        .await
        .unwrap();
}

fn check_wait(server: &Server, runtime: &tokio::runtime::Handle) {
    let state = tempfile::tempdir().unwrap();
    let options = options(state.path(), &server.url());
    let ledger = Ledger::open(&options).unwrap();
    let mut books = Books::open(&options).unwrap();
    let writes = runtime.block_on(server.client());
    let write = |sql| runtime.block_on(writes.batch_execute(sql)).unwrap();
    write("BEGIN; LOCK TABLE weir.exchange IN ROW EXCLUSIVE MODE");
    let refused = books.change(&reset("a cap"), &["a".to_owned()]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("lock timeout"), "{refused}");
    write("COMMIT");
    // Nor does it hold once it could.
    assert_eq!(books.history().unwrap(), []);
    books.change(&reset("a cap"), &["a".to_owned()]).unwrap();
    assert_eq!(books.history().unwrap().len(), 1);
    drop(ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_waits_too_long_for_others_that_write_changes_nothing_and_says_so() {
    let server = Server::start();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || check_wait(&server, &runtime))
        .await
        .unwrap();
}
