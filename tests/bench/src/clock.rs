//! The one clock that two processes of a machine share: `CLOCK_MONOTONIC`.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since an arbitrary moment, the same in every process.
pub(crate) fn monotonic_ns() -> u64 {
    // The clock always exists on Linux; zero would show as an absurd delay.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, nanoseconds)
}

/// A kernel time stamp in nanoseconds; those of clocks that only count up are never negative.
pub(crate) fn nanoseconds(time: nix::sys::time::TimeSpec) -> u64 {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or_default()
}
