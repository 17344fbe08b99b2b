//! What no exchange passes through: configuration, limits, clock, state directory, log, what a killed
//! process leaves behind, admin server.

pub mod admin;
pub mod clock;
pub mod config;
pub mod leftovers;
pub mod limits;
pub mod logging;
pub(crate) mod prices;
pub mod state;

/// Has the thread that calls this give way to others: its niceness rises by `niceness`. What it does
/// is late then, at worst.
pub(crate) fn give_way(niceness: i32) {
    if let Err(error) = rustix::process::nice(niceness) {
        tracing::debug!(%error, "a thread does not give way to others");
    }
}
