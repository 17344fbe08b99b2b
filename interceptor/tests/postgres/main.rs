//! The ledger in PostgreSQL: a real server, real processes, and what can become of either.
//!
//! A test that needs a process of its own runs itself again, told by a variable where to write.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod server;

mod changes;
mod lease;
mod ledger;
mod processes;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use weir::ledger::{Cost, LedgerOptions, Outcome, Record};
use weir_core::lease::Charge;
use weir_core::money::Money;

const AT: i64 = 1_793_572_200_000;
const RESERVED: Money = Money::from_nanos(5_000);
const COST: Money = Money::from_nanos(3_000);

fn options(state_dir: &Path, url: &str) -> LedgerOptions {
    LedgerOptions {
        url: url.to_owned(),
        ..LedgerOptions::new(state_dir)
    }
}

fn charged(amount: Money) -> Vec<Charge> {
    vec![Charge {
        account: "a".to_owned(),
        at_ms: i64::MIN,
        amount: amount.nanos(),
    }]
}

fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        started_unix_ms: AT,
        host: "api.anthropic.com".to_owned(),
        provider: "anthropic".to_owned(),
        model_requested: Some("claude-sonnet-4-5\0".to_owned()),
        outcome: Outcome::Completed,
        cost: Cost::Priced {
            total: COST,
            version: "v".to_owned(),
        },
        charges: charged(COST),
        ..Record::default()
    }
}

/// The same before it is sent.
fn draft(id: &str) -> Record {
    Record {
        cost: Cost::Unknown,
        charges: charged(RESERVED),
        ..record(id)
    }
}

const STATE_DIR: &str = "WEIR_TEST_LEDGER";
const URL: &str = "WEIR_TEST_URL";

/// This test again, in a process of its own.
fn again(test: &str, state_dir: &Path, url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(STATE_DIR, state_dir)
        .env(URL, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What to open, where this process is the child of a test.
fn options_of_child() -> Option<LedgerOptions> {
    let state_dir = std::env::var_os(STATE_DIR)?;
    Some(options(Path::new(&state_dir), &std::env::var(URL).unwrap()))
}
