//! The directory of a bpffs in which links outlive their process.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{LoadError, instance};

/// The directory for the pins of this process: `/sys/fs/bpf/weir/<pid>-<start time>-<namespace>`, where
/// [`crate::clean_stale`] looks for those of dead ones.
///
/// # Errors
/// If /proc is not mounted.
pub fn own_pin_directory() -> io::Result<PathBuf> {
    Ok(Path::new(PARENT).join(instance::own_name()?))
}

/// Makes the directory, and mounts a bpffs at /sys/fs/bpf if it would be there and none is.
pub(crate) fn prepare(directory: &Path) -> Result<(), LoadError> {
    let failed = |source| LoadError::Pin {
        path: directory.to_owned(),
        source,
    };
    if directory.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
        mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=0700"),
        )
        .map_err(|errno| no_bpffs(directory, errno))?;
    }
    fs::create_dir_all(directory).map_err(failed)?;
    if is_bpffs(directory) {
        Ok(())
    } else {
        Err(no_bpffs(directory, Errno::EINVAL))
    }
}

/// Removes a directory of pins; the links detach if nobody else holds them.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(directory)
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn no_bpffs(path: &Path, errno: Errno) -> LoadError {
    LoadError::NoBpffs {
        path: path.to_owned(),
        source: errno.into(),
    }
}

/// The directory of all our pins.
pub(crate) const PARENT: &str = "/sys/fs/bpf/weir";

/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_elsewhere_must_already_be_on_a_bpffs() {
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(matches!(
            prepare(elsewhere.path()),
            Err(LoadError::NoBpffs { .. })
        ));
    }
}
