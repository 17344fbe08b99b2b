//! Names that tell one running Weir from another, and the removal of what dead ones left behind.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use crate::{
    LoadError,
    cgroup::{self, cgroup2_mount},
    pin,
};

/// `<pid>-<start time>` of this process. The start time, in clock ticks since boot, tells it from an earlier process
/// of the same number.
pub(crate) fn own_name() -> io::Result<String> {
    let pid = process::id();
    match start_ticks(pid)? {
        Some(start) => Ok(format!("{pid}-{start}")),
        None => Err(io::Error::other(
            "expected /proc/self/stat, found none; mount /proc",
        )),
    }
}

/// Removes the cgroups and pins of Weir processes that died without cleaning up, and returns how many instances it
/// removed something of. A dead instance whose cgroup still holds processes is left alone: if it was to fail closed,
/// its pinned programs are what still refuses their connections.
///
/// # Errors
/// If there is no cgroup2. What cannot be removed is left for the next time.
pub fn clean_stale() -> Result<usize, LoadError> {
    let cgroups = cgroup2_mount()?.join(cgroup::PARENT);
    let pins = Path::new(pin::PARENT).to_owned();
    let mut names: Vec<PathBuf> = [&cgroups, &pins]
        .into_iter()
        .filter_map(|parent| fs::read_dir(parent).ok())
        .flatten()
        .filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())))
        .filter(|name| name.to_str().is_some_and(is_dead))
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names
        .iter()
        .filter(|name| clean(&cgroups.join(name), &pins.join(name)))
        .count())
}

/// Whether something was removed.
fn clean(cgroup: &Path, pins: &Path) -> bool {
    // A cgroup can be removed only when no process is left in it.
    match cgroup::remove(cgroup) {
        Ok(()) => {
            let _left_for_the_next_time = pin::remove(pins);
            true
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => pin::remove(pins).is_ok(),
        Err(_) => false,
    }
}

/// Whether it is the name of an instance whose process is gone. What is not a name of ours is not dead.
fn is_dead(name: &str) -> bool {
    let Some((pid, start)) = name.split_once('-') else {
        return false;
    };
    let (Ok(pid), Ok(start)) = (pid.parse(), start.parse::<u64>()) else {
        return false;
    };
    matches!(start_ticks(pid), Ok(now) if now != Some(start))
}

/// When the process with this number started, in clock ticks since boot; None if there is none.
fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse_start_ticks(&stat).map(Some).ok_or_else(|| {
            io::Error::other(format!(
                "expected 22 fields in /proc/{pid}/stat, found {stat:?}"
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Field 22 of proc_pid_stat(5). Field 2, the program's name, may itself hold spaces and parentheses.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
        for name in ["weir", "a b", "a) S 1 (b", ""] {
            let stat = format!(
                "7 ({name}) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11 18446744073709551615"
            );
            assert_eq!(parse_start_ticks(&stat), Some(987_654), "{name}");
        }
        assert_eq!(parse_start_ticks("7 (weir) S 1"), None);
    }

    #[test]
    fn only_names_of_processes_that_are_gone_are_dead() {
        let own = own_name().unwrap();
        let (pid, start) = own.split_once('-').unwrap();
        let earlier = start.parse::<u64>().unwrap() - 1;
        for (name, dead) in [
            (own.as_str(), false),
            (format!("{pid}-{earlier}").as_str(), true),
            ("4194305-1", true), // beyond PID_MAX_LIMIT
            ("somebody-else", false),
            ("1", false),
        ] {
            assert_eq!(is_dead(name), dead, "{name}");
        }
    }
}
