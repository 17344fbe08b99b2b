//! The cgroup2 that the programs are attached to: where it is mounted, and one for a command of our own.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use crate::{LoadError, instance};

/// A cgroup for one command and its descendants: `weir/<pid>-<start time>-<namespace>` below the mount. Dropping it removes it if
/// no process is left in it; otherwise [`crate::clean_stale`] removes it later.
#[derive(Debug)]
pub struct ChildCgroup {
    path: PathBuf,
}

impl ChildCgroup {
    /// Makes the cgroup of this process.
    ///
    /// # Errors
    /// If there is no writable cgroup2, or the directory cannot be made.
    pub fn create() -> Result<Self, LoadError> {
        let parent = cgroup2_mount()?.join(PARENT);
        let name = instance::own_name().map_err(|source| LoadError::Cgroup {
            path: parent.clone(),
            source,
        })?;
        let path = parent.join(name);
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(LoadError::Cgroup { path, source }),
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into it. To be done before the process makes sockets: a socket stays in the cgroup that it
    /// was made in.
    ///
    /// # Errors
    /// The kernel's, most often that the process is gone.
    pub fn add(&self, pid: u32) -> Result<(), LoadError> {
        let path = self.path.join("cgroup.procs");
        fs::write(&path, pid.to_string()).map_err(|source| LoadError::Cgroup { path, source })
    }
}

impl Drop for ChildCgroup {
    fn drop(&mut self) {
        // With processes left in it, it stays for clean_stale.
        let _busy = remove(&self.path);
    }
}

/// Where cgroup2 is mounted: /sys/fs/cgroup on most machines, /sys/fs/cgroup/unified beside version 1.
///
/// # Errors
/// If none is mounted, or only read-only.
pub fn cgroup2_mount() -> Result<PathBuf, LoadError> {
    let path = PathBuf::from("/proc/self/mountinfo");
    match fs::read_to_string(&path) {
        Ok(mountinfo) => parse_mountinfo(&mountinfo),
        Err(source) => Err(LoadError::Cgroup { path, source }),
    }
}

/// Opens the directory of a cgroup2.
pub(crate) fn open(path: &Path) -> Result<File, LoadError> {
    let failed = |source| LoadError::Cgroup {
        path: path.to_owned(),
        source,
    };
    let directory = File::open(path).map_err(failed)?;
    let kind = fstatfs(&directory)
        .map_err(|errno| failed(errno.into()))?
        .filesystem_type();
    if kind == CGROUP2_SUPER_MAGIC {
        Ok(directory)
    } else {
        Err(LoadError::NotCgroup2 {
            path: path.to_owned(),
        })
    }
}

/// Removes a cgroup, and those that its processes made below it, if no process is left in any.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    // The files of a cgroup go with its directory, and cannot be removed by themselves.
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The format is that of proc_pid_mountinfo(5).
fn parse_mountinfo(mountinfo: &str) -> Result<PathBuf, LoadError> {
    let mut read_only = None;
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else {
            continue;
        };
        let mut fields = mount.split(' ').skip(4);
        let (Some(path), Some(options)) = (fields.next(), fields.next()) else {
            continue;
        };
        if file_system.split(' ').next() != Some("cgroup2") {
            continue;
        }
        if options.split(',').any(|option| option == "rw") {
            return Ok(path.into());
        }
        read_only = Some(path);
    }
    Err(match read_only {
        Some(path) => LoadError::ReadOnlyCgroup2 { path: path.into() },
        None => LoadError::NoCgroup2,
    })
}

/// Below the mount, the directory of all our cgroups.
pub const PARENT: &str = "weir";

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 1 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
26 24 0:24 / /sys/fs/cgroup/unified rw,nosuid,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
";
    const UNIFIED: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,memory_recursiveprot\n";
    const CONTAINER: &str =
        "29 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";

    #[test]
    fn the_mount_is_found_on_hybrid_and_unified_machines() {
        assert_eq!(
            parse_mountinfo(HYBRID).unwrap(),
            Path::new("/sys/fs/cgroup/unified")
        );
        assert_eq!(
            parse_mountinfo(UNIFIED).unwrap(),
            Path::new("/sys/fs/cgroup")
        );
    }

    #[test]
    fn a_writable_mount_is_preferred_and_a_read_only_one_is_named() {
        let both = format!("{CONTAINER}{HYBRID}");
        assert_eq!(
            parse_mountinfo(&both).unwrap(),
            Path::new("/sys/fs/cgroup/unified")
        );
        assert!(matches!(
            parse_mountinfo(CONTAINER),
            Err(LoadError::ReadOnlyCgroup2 { path }) if path == Path::new("/sys/fs/cgroup")
        ));
    }

    #[test]
    fn without_one_the_error_says_so() {
        for text in ["", "nonsense\n", "1 2 - cgroup2\n"] {
            assert!(
                matches!(parse_mountinfo(text), Err(LoadError::NoCgroup2)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn only_a_cgroup2_can_be_attached_to() {
        assert!(matches!(
            open(Path::new("/proc")),
            Err(LoadError::NotCgroup2 { .. })
        ));
        assert!(matches!(
            open(Path::new("/nowhere")),
            Err(LoadError::Cgroup { .. })
        ));
    }
}
