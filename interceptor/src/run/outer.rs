//! One run inside another: what the outer one captures must not be captured again, since each call would
//! have two records and count twice under every cap.

use std::fs;
use std::path::PathBuf;

use crate::capture::parent_of;
use crate::process::leftovers;
use crate::process::state::StateDirectory;

/// The process of the run that this one is inside of, if that has the same state directory. One with another
/// counts for itself.
pub(super) fn of_this_run(state: &StateDirectory) -> Option<u32> {
    let (own, directory) = (executable(std::process::id())?, state.run());
    let mut pid = std::process::id();
    for _ in 0..ANCESTORS_MAX {
        pid = parent_of(pid)?;
        // Process ids come again, in containers that share a state directory.
        let is_weir = || executable(pid).is_some_and(|other| other.file_name() == own.file_name());
        if leftovers::is_of_live_process(&directory, pid) && is_weir() {
            return Some(pid);
        }
    }
    None
}

fn executable(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Shells in shells: a process further up has nothing to do with this one any more.
const ANCESTORS_MAX: usize = 64;
