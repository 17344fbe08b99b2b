//! Replays the corpus of agent sessions through a whole sidecar to the simulated providers, and says what rewriting makes
//! of their bills.
//!
//! The table in `README.md` is part of it: a test fails where it is stale, and writes it with `WEIR_UPDATE=1`. In reading
//! order: the sessions as data (`session`, with `sessions/*.toml`), the texts in them (`text`), the bodies that a client
//! makes of them (`body`), the replay (`replay`), Weir in between (`sidecar`, `process`, `nodes`), and the table (`table`).

#[cfg(test)]
mod session;

#[cfg(test)]
mod text;

#[cfg(test)]
mod body;

#[cfg(test)]
mod replay;

#[cfg(test)]
mod sidecar;

#[cfg(test)]
mod process;

#[cfg(test)]
mod nodes;

#[cfg(test)]
mod table;

#[cfg(test)]
mod tests;
