//! The ledger through `kill -9`, with several processes, and on a full disk.
//!
//! A test that needs a process of its own runs itself again, told by a variable where to write.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use rusqlite::Connection;
use weir::ledger::{Bypass, Cost, Explained, Ledger, LedgerOptions, Others, Outcome, Record};
use weir_core::money::Money;

const WAIT: Duration = Duration::from_secs(120);
const STATE_DIR: &str = "WEIR_TEST_LEDGER";
const RESERVED: Money = Money::from_nanos(5_000);
const COST: Money = Money::from_nanos(3_000);
const AT: i64 = 1_793_572_200_000;

fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        started_unix_ms: AT,
        host: "api.anthropic.com".to_owned(),
        provider: "anthropic".to_owned(),
        model_requested: Some("claude-sonnet-4-5".to_owned()),
        outcome: Outcome::Completed,
        cost: Cost::Priced {
            total: COST,
            version: "v".to_owned(),
        },
        ..Record::default()
    }
}

/// This test again, in a process of its own, on a state directory.
fn again(test: &str, state_dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(STATE_DIR, state_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What to open, where this process is the child of a test.
fn options_of_child() -> Option<LedgerOptions> {
    std::env::var_os(STATE_DIR).map(LedgerOptions::new)
}

/// Waits for a child that is to succeed; what it said.
fn succeeded(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// One whole line, in one write.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("\n{line}\n").as_bytes())
        .unwrap();
}

/// Outcome and cost of every record.
fn written(state_dir: &Path) -> HashMap<String, (String, Option<i64>)> {
    let connection = Connection::open(state_dir.join("weir.db")).unwrap();
    let mut select = connection
        .prepare("SELECT id, outcome, cost_nanos FROM exchange")
        .unwrap();
    let rows = select
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// What was found out about a call.
fn hit() -> Explained {
    Explained {
        cache_outcome: Some("hit".to_owned()),
        ..Explained::default()
    }
}

/// The calls of which it is known.
fn explained(state_dir: &Path) -> HashSet<String> {
    let connection = Connection::open(state_dir.join("weir.db")).unwrap();
    let mut select = connection
        .prepare("SELECT id FROM exchange WHERE cache_outcome = 'hit'")
        .unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn bypassed(state_dir: &Path) -> i64 {
    let connection = Connection::open(state_dir.join("weir.db")).unwrap();
    let sum = "SELECT coalesce(sum(count), 0) FROM bypass";
    connection.query_row(sum, [], |row| row.get(0)).unwrap()
}

fn journal_files(state_dir: &Path) -> Vec<String> {
    let files = fs::read_dir(state_dir.join("journal")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "opening").collect()
}

/// Four threads that write and say so, until somebody ends this process.
fn write_forever(ledger: &Ledger) {
    let write = |thread: usize| {
        for number in 0.. {
            let id = format!("{}-{thread}-{number}", ledger.instance());
            ledger.admit(&record(&id), RESERVED);
            say(&format!("admitted {id}"));
            let mut journaled = ledger.write_down(record(&id));
            say(&format!("recorded {id}"));
            ledger.explain(&mut journaled, hit());
            say(&format!("explained {id}"));
            ledger.bypass(Bypass {
                at_unix_ms: AT,
                count: 1,
                ..Bypass::default()
            });
            say(&format!("bypassed {id}"));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || write(thread));
        }
    });
}

/// Reads what a child says, kills it after so many lines, and returns the lines that came whole.
fn kill_after(mut child: Child, lines: u64) -> Vec<(String, String)> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut seen, mut said) = (String::new(), 0, Vec::new());
    if lines == 0 {
        child.kill().unwrap();
    }
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some((what, id)) = line
            .strip_suffix('\n')
            .and_then(|line| line.split_once(' '))
        {
            said.push((what.to_owned(), id.to_owned()));
        }
        line.clear();
        seen += 1;
        if seen == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    said
}

#[test]
fn nothing_that_was_acknowledged_is_lost_or_doubled_by_kill_9_at_any_instant() {
    let test = "nothing_that_was_acknowledged_is_lost_or_doubled_by_kill_9_at_any_instant";
    if let Some(options) = options_of_child() {
        write_forever(&Ledger::open(&options).unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut admitted, mut recorded, mut bypasses) = (HashSet::new(), HashSet::new(), 0);
    let mut told = HashSet::new();
    let rounds = 12;
    for round in 0..rounds {
        let lines = RandomState::new().hash_one(round) % [30, 3_000, 12_000][round % 3];
        for (what, id) in kill_after(again(test, directory.path()), lines) {
            match what.as_str() {
                "admitted" => drop(admitted.insert(id)),
                "recorded" => drop(recorded.insert(id)),
                "explained" => drop(told.insert(id)),
                "bypassed" => bypasses += 1,
                _ => {}
            }
        }
    }
    let ledger = Ledger::open(&LedgerOptions::new(directory.path())).unwrap();
    let mut spent = Money::ZERO;
    ledger
        .spent_since(0, |spend| spent += spend.amount)
        .unwrap();
    let written = written(directory.path());
    for id in &recorded {
        assert_eq!(
            written.get(id),
            Some(&("completed".to_owned(), Some(COST.nanos()))),
            "{id}"
        );
    }
    for id in &admitted {
        let (outcome, cost) = &written[id];
        let expected = if outcome == "lost" { RESERVED } else { COST };
        assert_eq!(*cost, Some(expected.nanos()), "{id}: {outcome}");
    }
    assert!(recorded.len() > 100, "only {} recorded", recorded.len());
    let explained = explained(directory.path());
    assert!(told.is_subset(&explained));
    assert!(explained.iter().all(|id| written[id].0 == "completed"));
    // At most one entry of each thread was journaled and then not acknowledged, in each round.
    let slack = rounds * 4;
    assert!((admitted.len()..=admitted.len() + slack).contains(&written.len()));
    let counted = usize::try_from(bypassed(directory.path())).unwrap();
    assert!(
        (bypasses..=bypasses + slack).contains(&counted),
        "{counted} of {bypasses}"
    );
    let sum = written
        .values()
        .filter_map(|(_, cost)| *cost)
        .map(Money::from_nanos)
        .sum::<Money>();
    assert_eq!(spent, sum);
    drop(ledger);
    assert_eq!(journal_files(directory.path()), Vec::<String>::new());
}

#[test]
fn processes_that_share_a_ledger_see_what_the_others_spend() {
    let test = "processes_that_share_a_ledger_see_what_the_others_spend";
    if let Some(options) = options_of_child() {
        let ledger = Ledger::open(&options).unwrap();
        for number in 0..400 {
            let id = format!("{}-{number}", ledger.instance());
            ledger.admit(&record(&id), RESERVED);
            ledger.record(record(&id));
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&LedgerOptions::new(directory.path())).unwrap();
    ledger.record(record("before"));
    assert!(ledger.flush(WAIT));
    let mut seeded = Vec::new();
    ledger
        .spent_since(0, |spend| seeded.push(spend.id))
        .unwrap();
    assert_eq!(seeded, ["before"]);
    let children: Vec<Child> = (0..3).map(|_| again(test, directory.path())).collect();
    for number in 0..400 {
        ledger.record(record(&format!("own-{number}")));
    }
    let mut seen = HashSet::new();
    for child in children {
        succeeded(child);
        for spend in ledger.poll_others().unwrap().spent {
            assert_eq!(spend.amount, COST);
            assert!(seen.insert(spend.id), "seen twice");
        }
    }
    assert_eq!(seen.len(), 1200);
    assert!(seen.iter().all(|id| !id.starts_with("own")));
    assert_eq!(ledger.poll_others().unwrap(), Others::default());
    assert!(ledger.flush(WAIT));
    assert_eq!(written(directory.path()).len(), 1601);
}

#[test]
fn what_a_killed_process_had_in_flight_is_reserved_then_spent_for_those_that_run() {
    let test = "what_a_killed_process_had_in_flight_is_reserved_then_spent_for_those_that_run";
    if let Some(options) = options_of_child() {
        let ledger = Ledger::open(&options).unwrap();
        ledger.admit(&record("in-flight"), RESERVED);
        assert!(ledger.flush(WAIT));
        say("admitted");
        loop {
            std::thread::park();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&LedgerOptions::new(directory.path())).unwrap();
    let mut child = again(test, directory.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "admitted"));
    let others = ledger.poll_others().unwrap();
    assert_eq!(others.spent, []);
    let amounts: Vec<_> = others.reserved.iter().map(|spend| spend.amount).collect();
    assert_eq!(amounts, [RESERVED]);
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + WAIT;
    let others = loop {
        let others = ledger.poll_others().unwrap();
        if !others.spent.is_empty() || Instant::now() > deadline {
            break others;
        }
        std::thread::yield_now();
    };
    let spent: Vec<_> = others
        .spent
        .iter()
        .map(|spend| (spend.id.as_str(), spend.amount))
        .collect();
    assert_eq!(spent, [("in-flight", RESERVED)]);
    assert_eq!(others.reserved, []);
    assert_eq!(written(directory.path())["in-flight"].0, "lost");
}

/// Makes the disk full or not, for this process alone: its files may grow, or not.
fn fill_disk(full: bool) {
    ignore_file_size_signal();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, if full { 0 } else { hard }, hard).unwrap();
}

#[expect(unsafe_code, reason = "the default of this signal ends the process")]
fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
}

#[test]
fn a_full_disk_keeps_records_in_memory_until_there_is_room() {
    let test = "a_full_disk_keeps_records_in_memory_until_there_is_room";
    let Some(options) = options_of_child() else {
        let directory = tempfile::tempdir().unwrap();
        succeeded(again(test, directory.path()));
        assert_eq!(written(directory.path()).len(), 120);
        assert_eq!(journal_files(directory.path()), Vec::<String>::new());
        return;
    };
    let ledger = Ledger::open(&options).unwrap();
    (0..10).for_each(|number| ledger.record(record(&format!("before-{number}"))));
    fill_disk(true);
    for number in 0..100 {
        let id = format!("during-{number}");
        ledger.admit(&record(&id), RESERVED);
        ledger.record(record(&id));
    }
    let health = ledger.health();
    assert!(health.in_memory > 0, "{health:?}");
    assert_eq!(health.dropped, 0);
    let error = health.error.unwrap();
    assert!(error.contains("File too large"), "{error}");
    assert!(
        !ledger.flush(Duration::from_millis(400)),
        "a full disk was written to"
    );
    fill_disk(false);
    (0..10).for_each(|number| ledger.record(record(&format!("after-{number}"))));
    assert!(ledger.flush(WAIT), "{:?}", ledger.health());
    let health = ledger.health();
    assert_eq!(
        (health.in_memory, health.dropped, health.error),
        (0, 0, None)
    );
}

#[test]
fn on_a_full_disk_memory_is_bounded_and_what_does_not_fit_is_counted() {
    let test = "on_a_full_disk_memory_is_bounded_and_what_does_not_fit_is_counted";
    let Some(options) = options_of_child() else {
        let directory = tempfile::tempdir().unwrap();
        succeeded(again(test, directory.path()));
        return;
    };
    let ledger = Ledger::open(&options).unwrap();
    fill_disk(true);
    let long = "x".repeat(100_000);
    for number in 0..500 {
        ledger.record(Record {
            session: Some(long.clone()),
            ..record(&number.to_string())
        });
    }
    let health = ledger.health();
    assert_eq!(health.in_memory + health.dropped, 500, "{health:?}");
    assert!(health.dropped > 100 && health.in_memory > 200, "{health:?}");
    fill_disk(false);
    assert!(ledger.flush(WAIT), "{:?}", ledger.health());
    let kept = usize::try_from(health.in_memory).unwrap();
    assert_eq!(written(&options.state_dir).len(), kept);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named_with_what_to_do() {
    let test = "a_state_directory_that_cannot_be_used_is_named_with_what_to_do";
    if let Some(options) = options_of_child() {
        fill_disk(true);
        let error = Ledger::open(&options).unwrap_err().to_string();
        fill_disk(false);
        say(&error);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Ledger::open(&LedgerOptions::new(&file))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("{}/journal", file.display())),
        "{error}"
    );
    assert!(error.contains("Not a directory"), "{error}");
    assert!(error.contains("--state-dir or WEIR_STATE_DIR"), "{error}");

    let said = succeeded(again(test, &directory.path().join("full")));
    assert!(said.contains("/full/weir.db cannot be used"), "{said}");
}

#[test]
fn a_database_that_is_none_or_newer_is_refused_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::new(directory.path());
    let path = options.database().unwrap();
    fs::write(&path, "this is a text, and no database\n".repeat(200)).unwrap();
    let error = Ledger::open(&options).unwrap_err().to_string();
    assert!(
        error.contains("weir.db") && error.contains("not a database"),
        "{error}"
    );

    fs::remove_file(&path).unwrap();
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 999)
        .unwrap();
    let error = Ledger::open(&options).unwrap_err().to_string();
    assert!(
        error.contains("weir.db was written by another version of weir"),
        "{error}"
    );

    let options = LedgerOptions {
        url: "mysql://h/d".to_owned(),
        ..options
    };
    let error = Ledger::open(&options).unwrap_err().to_string();
    assert!(
        error.contains("mysql") && error.contains("sqlite:PATH"),
        "{error}"
    );
}

#[test]
fn everything_in_the_state_directory_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::new(directory.path().join("state"));
    let ledger = Ledger::open(&options).unwrap();
    ledger.record(record("a"));
    assert!(ledger.flush(WAIT));
    let mut directories = vec![options.state_dir.clone()];
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        assert_eq!(
            fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
            0o700
        );
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{}", entry.path().display());
                files += 1;
            }
        }
    }
    assert!(
        files >= 5,
        "database, its two companions, lock and segment: found {files}"
    );
}

#[test]
fn subscribers_get_records_as_they_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&LedgerOptions::new(directory.path())).unwrap();
    ledger.record(record("before"));
    let mut records = ledger.subscribe();
    ledger.record(record("after"));
    let received = records.try_recv().unwrap();
    assert_eq!(
        (received.id.as_str(), received.instance.as_str()),
        ("after", ledger.instance())
    );
    assert!(records.try_recv().is_err());
}

#[test]
fn a_call_still_in_flight_when_the_ledger_is_closed_is_lost_and_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&LedgerOptions::new(directory.path())).unwrap();
    ledger.admit(&record("in-flight"), RESERVED);
    drop(ledger);
    let expected = ("lost".to_owned(), Some(RESERVED.nanos()));
    assert_eq!(written(directory.path())["in-flight"], expected);
}
