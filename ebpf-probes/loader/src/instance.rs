//! Names that tell one running Weir from another, and the removal of what dead ones left behind.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use crate::{
    LoadError,
    cgroup::{self, cgroup2_mount},
    pin,
};

/// `<pid>-<start time>-<namespace>` of this process. The start time, in clock ticks since boot, tells it from an
/// earlier process of the same number, and the namespace of processes from one in another container.
pub(crate) fn own_name() -> io::Result<String> {
    let pid = process::id();
    let namespace = own_namespace()?;
    match start_ticks(pid)? {
        Some(start) => Ok(format!("{pid}-{start}-{namespace}")),
        None => Err(io::Error::other(
            "expected /proc/self/stat, found none; mount /proc",
        )),
    }
}

fn own_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Removes the cgroups and pins of Weir processes that died without cleaning up, and returns how many instances it
/// removed something of. A dead instance whose cgroup still holds processes is left alone: if it was to fail closed,
/// its pinned programs are what still refuses their connections. Of instances in other namespaces of processes nobody
/// here knows whether they live: theirs goes when it is empty and was made an hour ago.
///
/// # Errors
/// If there is no cgroup2. What cannot be removed is left for the next time.
pub fn clean_stale() -> Result<usize, LoadError> {
    let cgroups = cgroup2_mount()?.join(cgroup::PARENT);
    let pins = Path::new(pin::PARENT).to_owned();
    let Ok(namespace) = own_namespace() else {
        return Ok(0);
    };
    let mut names: Vec<PathBuf> = [&cgroups, &pins]
        .into_iter()
        .filter_map(|parent| fs::read_dir(parent).ok())
        .flatten()
        .filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())))
        .filter(|name| {
            let age = || {
                fs::metadata(cgroups.join(name))
                    .ok()?
                    .modified()
                    .ok()?
                    .elapsed()
                    .ok()
            };
            name.to_str()
                .is_some_and(|name| is_dead(name, namespace, age))
        })
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

/// Whether it is the name of an instance whose process is gone, as far as a process of `namespace` can tell. `age`:
/// of its cgroup. What is not a name of ours is not dead.
fn is_dead(name: &str, namespace: u64, age: impl Fn() -> Option<Duration>) -> bool {
    let mut parts = name.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start)), of, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    // Versions before told no namespace.
    let (Ok(of), Ok(pid)) = (of.unwrap_or(Ok(namespace)), u32::try_from(pid)) else {
        return false;
    };
    if of != namespace {
        return age().is_some_and(|age| age > FOREIGN_AGE);
    }
    matches!(start_ticks(pid), Ok(now) if now != Some(start))
}

/// A command is in its cgroup long before; where its processes have all ended, so has Weir, mostly.
const FOREIGN_AGE: Duration = Duration::from_hours(1);

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
        let (own, namespace) = (own_name().unwrap(), own_namespace().unwrap());
        let (pid, rest) = own.split_once('-').unwrap();
        let (start, _) = rest.split_once('-').unwrap();
        let earlier = start.parse::<u64>().unwrap() - 1;
        for (name, dead) in [
            (own.as_str(), false),
            (format!("{pid}-{earlier}-{namespace}").as_str(), true),
            (format!("4194305-1-{namespace}").as_str(), true), // beyond PID_MAX_LIMIT
            ("4194305-1", true),                               // of a version before
            ("somebody-else", false),
            ("1", false),
        ] {
            let old = || Some(2 * FOREIGN_AGE);
            assert_eq!(is_dead(name, namespace, old), dead, "{name}");
        }
    }

    #[test]
    fn of_another_namespace_only_what_is_old_is_dead() {
        let namespace = own_namespace().unwrap();
        let name = format!("4194305-1-{}", namespace + 1);
        assert!(!is_dead(&name, namespace, || Some(FOREIGN_AGE)));
        assert!(!is_dead(&name, namespace, || None));
        assert!(is_dead(&name, namespace, || Some(2 * FOREIGN_AGE)));
    }
}
