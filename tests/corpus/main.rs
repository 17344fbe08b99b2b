//! Replays the corpus of agent sessions at the simulated providers, and says what rewriting makes of their bills.
//!
//! `corpus` prints the table, `corpus --write` puts it into `README.md`; a test fails where it is stale. In reading order:
//! the sessions as data (`session`, with `sessions/*.toml`), the texts in them (`text`), the bodies that a client makes of
//! them (`body`), the replay (`replay`), Weir in between (`weir`), and the table (`table`).

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a tool of the tests: what is wrong with the data ends it"
)]

mod session;

mod text;

mod body;

mod replay;

mod weir;

mod table;

use std::path::Path;

fn main() {
    let table = table::table(&table::rows());
    if std::env::args().nth(1).as_deref() != Some("--write") {
        print!("{table}");
        return;
    }
    let readme = std::fs::read_to_string(README).expect(README);
    std::fs::write(Path::new(README), table::replaced(&readme, &table)).expect(README);
}

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/README.md");

#[cfg(test)]
mod tests;
