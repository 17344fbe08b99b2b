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

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Does what may block the thread that calls this, while the runtime's other tasks go on, if it is one
/// of a runtime that has other threads.
pub(crate) fn block<T>(act: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match runtime {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(act),
        _ => act(),
    }
}

/// Has the thread that calls this give way to others: its niceness rises by `niceness`. What it does
/// is late then, at worst.
pub(crate) fn give_way(niceness: i32) {
    if let Err(error) = rustix::process::nice(niceness) {
        tracing::debug!(%error, "a thread does not give way to others");
    }
}

/// Gives back to the kernel what the allocator holds free in whole pages: starting needs more than
/// serving does, and leaves it among what stays.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "one call of the C library")]
pub(crate) fn give_back_memory() {
    // SAFETY: malloc_trim takes the allocator's own locks; any thread may call it at any time.
    let _whether_there_was_any = unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give back by themselves what is free.
#[cfg(not(target_env = "gnu"))]
pub(crate) const fn give_back_memory() {}
