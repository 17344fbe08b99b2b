//! Real Weir processes against a simulated provider, under one cap, some of them killed: several on
//! one server, and one after the other on SQLite.

use std::fs::Permissions;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weir_simulator::{Options, Simulator};

use super::server::Server;

/// About what a call takes from its start to its end.
const CALL_MICROS: u64 = 60_000;
/// Agents that call at once, under one Weir that is killed.
const AGENTS: usize = 3;
/// The longest that a process does not see what another one admitted: half a second between looks,
/// 50 ms until the other's journal is in the database, and as much again where the machine is busy.
const LOOK_MS: i64 = 1_100;
const LIMIT_NANOS: i64 = 1_000_000_000;
/// Calls until one is refused, or nobody answers any more.
const AGENT: &str = r#"
while status=$(curl -s -o /dev/null -w '%{http_code}' -H 'content-type: application/json' \
    -H 'x-api-key: a-key-of-the-test' -H 'anthropic-version: 2023-06-01' -d @"$0" \
    https://api.anthropic.com/v1/messages) && [ "$status" = 200 ]; do echo "$status"; done
echo "$status"
"#;
const BODY: &str = r#"{"model": "claude-opus-5-5", "max_tokens": 1200, "stream": true, "messages":
    [{"role": "user", "content": "hello [[sim: tokens=1000 events=10 delay_ms=3]]"}]}"#;

pub(super) fn weir(directory: &Path, node: &str, command: &[&str]) -> Command {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(["run", "--mode", "proxy", "--config"])
        .arg(directory.join("weir.toml"))
        .arg("--state-dir")
        .arg(directory.join(node))
        .arg("--")
        .args(command)
        .env_remove("SUDO_UID")
        .env("NO_PROXY", "")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    weir
}

pub(super) fn prepare(directory: &Path, simulator: &Simulator, url: &str, limit_usd: &str) {
    let path = |name: &str| directory.join(name);
    std::fs::write(path("root.pem"), simulator.ca_pem()).unwrap();
    std::fs::write(path("body.json"), BODY).unwrap();
    let config = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[intercept]\nfail = \"closed\"\n\
         [upstream]\nresolve = {{ \"api.anthropic.com\" = \"{}\" }}\nextra_roots = [{:?}]\n\
         [ledger]\nurl = {:?}\n\
         [[cap]]\nname = \"fleet\"\nper = []\nwindow = \"total\"\nlimit_usd = {limit_usd}\nkind = \"strict\"\n",
        simulator.addr(),
        path("root.pem"),
        url
    );
    std::fs::write(path("weir.toml"), config).unwrap();
}

/// A node whose agents call for as long as they may.
fn node(directory: &Path, name: &str, agents: usize) -> Child {
    let body = directory.join("body.json");
    let together = vec![format!("({AGENT}) &"); agents].join("\n") + "\nwait";
    let command = ["sh", "-c", &together, body.to_str().unwrap()];
    weir(directory, name, &command).spawn().unwrap()
}

/// What agents were answered: after so many lines and a moment by chance, their Weir is killed.
fn statuses(mut weir: Child, kill_after: usize) -> Vec<String> {
    let output = BufReader::new(weir.stdout.take().unwrap());
    let mut statuses = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        statuses.push(line);
        if statuses.len() == kill_after {
            let chance = RandomState::new().hash_one(kill_after);
            std::thread::sleep(Duration::from_micros(chance % CALL_MICROS));
            weir.kill().unwrap();
        }
    }
    weir.wait().unwrap();
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_hold_one_cap_together_though_one_is_killed() {
    let server = Server::start();
    let simulator = Simulator::start(Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path(), &simulator, &server.url(), "1.00");
    let nodes = ["one", "two", "three"].map(|name| node(directory.path(), name, 1));
    let [one, two, three] = nodes;
    let all = tokio::task::spawn_blocking(move || {
        let two = std::thread::spawn(|| statuses(two, usize::MAX));
        let three = std::thread::spawn(|| statuses(three, usize::MAX));
        [statuses(one, 4), two.join().unwrap(), three.join().unwrap()]
    });
    let [one, two, three] = all.await.unwrap();
    assert!(one.len() >= 4, "{one:?}");
    for refused in [&two, &three] {
        let last = refused.last().unwrap();
        assert!(["402", "429"].contains(&last.as_str()), "{refused:?}");
    }
    // The next process on its state directory takes over what the killed one left.
    let mut again = weir(directory.path(), "one", &["true"]);
    assert!(again.output().unwrap().status.success());
    let billed = i64::try_from(simulator.total_nanodollars()).unwrap();
    let spent = server
        .number("SELECT sum(amount)::bigint FROM weir.spent")
        .await;
    assert!(billed <= LIMIT_NANOS, "{billed} billed");
    // What the killed one had in flight counts as what was reserved for it.
    assert!(
        (billed..=LIMIT_NANOS).contains(&spent),
        "{spent} of {billed}"
    );
    assert!(billed > LIMIT_NANOS / 2, "only {billed} was usable");
    let recorded = "SELECT sum(cost_nanos)::bigint FROM weir.exchange";
    assert_eq!(server.number(recorded).await, spent);
    let left = "SELECT (SELECT count(*) FROM weir.admission) + (SELECT count(*) FROM weir.lease)";
    assert_eq!(server.number(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_cap_by_key_holds_at_each_node_alone_for_want_of_a_secret_is_in_the_log() {
    let server = Server::start();
    let simulator = Simulator::start(Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path(), &simulator, &server.url(), "1.00");
    let config = directory.path().join("weir.toml");
    let by_key =
        "[[cap]]\nname = \"each key\"\nper = [\"key\"]\nwindow = \"total\"\nlimit_usd = 1\n";
    let text = std::fs::read_to_string(&config).unwrap() + by_key;
    let secret = directory.path().join("secret");
    std::fs::write(&secret, [7; 32]).unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o400)).unwrap();
    let shared = format!("[cache]\nsecret_file = {secret:?}\n");
    for (node, more, is_warned) in [("alone", "", true), ("together", shared.as_str(), false)] {
        std::fs::write(&config, format!("{text}{more}")).unwrap();
        let ended = weir(directory.path(), node, &["true"]).output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let logs = std::fs::read_dir(directory.path().join(node).join("logs")).unwrap();
        let logs = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap());
        let log: String = logs.collect();
        let warning = "each node spends the whole limit of each key by itself";
        assert_eq!(log.contains(warning), is_warned, "{node}: {log}");
    }
}

/// Each process sees what the others admitted a while ago. So beyond the limit there is at most what the
/// others admitted within that while, before the last call that was admitted.
#[tokio::test(flavor = "multi_thread")]
async fn processes_on_one_sqlite_ledger_overshoot_by_no_more_than_a_look_at_it_misses() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path(), &simulator, "sqlite:weir.db", "1.00");
    // Slow, so that a look misses few calls and not all.
    let body = BODY.replace("delay_ms=3", "delay_ms=25");
    std::fs::write(directory.path().join("body.json"), body).unwrap();
    let nodes = [(); 3].map(|()| node(directory.path(), "one", 1));
    let ended = nodes.map(|node| tokio::task::spawn_blocking(move || statuses(node, usize::MAX)));
    for ended in ended {
        let said = ended.await.unwrap();
        let last = said.last().unwrap();
        assert!(["402", "429"].contains(&last.as_str()), "{said:?}");
    }
    let database = rusqlite::Connection::open(directory.path().join("one/weir.db")).unwrap();
    let number = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).unwrap() };
    let missed = number(&format!(
        "SELECT coalesce(sum(other.cost_nanos), 0) FROM exchange AS other,
            (SELECT instance, started_ms FROM exchange WHERE outcome = 'completed'
             ORDER BY started_ms DESC LIMIT 1) AS last
         WHERE other.instance <> last.instance AND other.started_ms > last.started_ms - {LOOK_MS}"
    ));
    let billed = i64::try_from(simulator.total_nanodollars()).unwrap();
    assert_eq!(number("SELECT sum(cost_nanos) FROM exchange"), billed);
    assert!(missed < LIMIT_NANOS / 2, "{missed}: it says little");
    assert!(billed <= LIMIT_NANOS + missed, "{billed}, {missed} missed");
    assert!(billed > LIMIT_NANOS * 8 / 10, "only {billed} was usable");
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_go_on_where_they_stood_after_kill_9_at_any_instant() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path(), &simulator, "sqlite:weir.db", "1.00");
    // Some in the middle of answers, some before one, some after it.
    let mut made = 0;
    for kill_after in [1, 2, 7, 3, 5, 4, 3, 2] {
        let child = node(directory.path(), "one", AGENTS);
        let said = tokio::task::spawn_blocking(move || statuses(child, kill_after));
        let said = said.await.unwrap();
        made += said.iter().filter(|status| *status == "200").count();
    }
    assert!(made > 20, "only {made} calls");
    let child = node(directory.path(), "one", AGENTS);
    let last = tokio::task::spawn_blocking(move || statuses(child, usize::MAX));
    let last = last.await.unwrap();
    let refused = last.last().unwrap();
    assert!(["402", "429"].contains(&refused.as_str()), "{last:?}");
    let billed = i64::try_from(simulator.total_nanodollars()).unwrap();
    let database = rusqlite::Connection::open(directory.path().join("one/weir.db")).unwrap();
    let number = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).unwrap() };
    let spent = number("SELECT sum(cost_nanos) FROM exchange");
    assert!(
        (billed..=LIMIT_NANOS).contains(&spent),
        "{spent} of {billed}"
    );
    assert!(billed > LIMIT_NANOS / 2, "only {billed} was usable");
    let calls = number("SELECT count(*) FROM exchange WHERE cost_nanos > 0");
    let lines = i64::try_from(simulator.bill().len()).unwrap();
    // Of each process, one call of each agent may have been admitted and not yet sent, or sent and not
    // yet billed.
    let slack = 8 * i64::try_from(AGENTS).unwrap();
    assert!(
        (lines..=lines + slack).contains(&calls),
        "{calls} of {lines}"
    );
    assert_eq!(number("SELECT count(*) FROM admission"), 0);
}
