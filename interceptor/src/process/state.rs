//! The state directory: where it is, and that only its owner can read it.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;

/// The directory with the ledger, the CA, the logs and the sockets of running processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDirectory {
    root: PathBuf,
}

impl StateDirectory {
    /// Finds the directory (`given` is `--state-dir`) and makes it, readable by its owner alone.
    ///
    /// # Errors
    /// No place for it is known, or it cannot be made or written to.
    pub fn open(given: Option<&Path>) -> Result<Self, StateError> {
        let state = Self {
            root: locate(given)?,
        };
        refuse_foreign(&state).map_err(|source| StateError::Unusable {
            path: state.root.clone(),
            source,
        })?;
        // The logs first: by them another process that starts knows the directory for Weir's.
        for directory in [state.root.clone(), state.logs(), state.run()] {
            make_private(&directory).map_err(|source| StateError::Unusable {
                path: directory,
                source,
            })?;
        }
        Ok(state)
    }

    /// Finds the directory without making it: for commands that only read.
    ///
    /// # Errors
    /// No place for it is known.
    pub fn find(given: Option<&Path>) -> Result<Self, StateError> {
        locate(given).map(|root| Self { root })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Sockets and leftover lists of running processes.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Log files.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The local CA.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.root.join("ca")
    }
}

/// `--state-dir`, `WEIR_STATE_DIR`, `/var/lib/weir` for root, `$XDG_STATE_HOME/weir`, in this order.
fn locate(given: Option<&Path>) -> Result<PathBuf, StateError> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let path = if let Some(given) = given {
        given.to_owned()
    } else if let Some(path) = variable(STATE_VARIABLE) {
        path
    } else if nix::unistd::geteuid().is_root() {
        PathBuf::from(STATE_OF_ROOT)
    } else if let Some(path) = variable("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
        path.join("weir")
    } else {
        // The default of XDG_STATE_HOME by the XDG base directory specification.
        variable("HOME")
            .ok_or(StateError::Unknown)?
            .join(".local/state/weir")
    };
    // The command may look at it from another working directory.
    std::path::absolute(&path).map_err(|source| StateError::Unusable { path, source })
}

/// Whoever names `/tmp` or `/etc` by mistake does not want it closed to everybody else.
fn refuse_foreign(state: &StateDirectory) -> io::Result<()> {
    let is_used = match std::fs::read_dir(&state.root) {
        // Where another process starts for the first time too, there may be its probe.
        Ok(entries) => entries.flatten().any(|entry| {
            let name = entry.file_name();
            !name.as_encoded_bytes().starts_with(PROBE.as_bytes())
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if is_used && !state.logs().is_dir() {
        let message = "it holds files that are not Weir's";
        return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, message));
    }
    Ok(())
}

fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let metadata = std::fs::metadata(directory)?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        let owner = metadata.uid();
        let message = format!("it belongs to user {owner}, not to the one who runs weir");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    // It may have been there before, open to others.
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    // Root passes every permission check, but not a read-only file system.
    let probe = directory.join(format!("{PROBE}{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
}

/// The secret of this installation in the file `path`, which is made where there is none: whole or not
/// at all, and of two processes one makes it, for both. `without` says what becomes of what was hashed
/// or sealed with it.
///
/// # Errors
/// The file can't be read or made, or is not a secret.
pub(crate) fn secret(path: &Path, without: &str) -> io::Result<Vec<u8>> {
    let secret = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_secret(path)?;
            std::fs::read(path)?
        }
        read => read?,
    };
    if secret.len() != SECRET_BYTES {
        let message = format!(
            "expected {SECRET_BYTES} bytes in {}, found {}: remove the file, and {without}",
            path.display(),
            secret.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(secret)
}

fn make_secret(path: &Path) -> io::Result<()> {
    let mut secret = [0; SECRET_BYTES];
    rand::fill(&mut secret).map_err(io::Error::other)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    // Readable by its owner alone.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&secret)?;
    file.as_file().sync_all()?;
    match std::fs::hard_link(file.path(), path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Why there is no state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Neither told nor derivable.
    #[error(
        "expected a state directory, found none of --state-dir, WEIR_STATE_DIR, XDG_STATE_HOME \
         and HOME: set one"
    )]
    Unknown,
    /// It cannot be made or written to.
    #[error(
        "expected a state directory that can be written at {}, found: {source}; name another \
         with --state-dir or WEIR_STATE_DIR", path.display()
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Names the state directory where `--state-dir` does not.
pub const STATE_VARIABLE: &str = "WEIR_STATE_DIR";
/// Of a secret of this installation.
const SECRET_BYTES: usize = 32;
/// How the names of files begin that show that a directory can be written to.
const PROBE: &str = ".writable-";
/// Where the file system hierarchy standard puts the state of a system service.
const STATE_OF_ROOT: &str = "/var/lib/weir";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_private_even_if_it_was_not_before() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let state = StateDirectory::open(Some(&path)).unwrap();
        for directory in [state.path(), &state.run(), &state.logs()] {
            let mode = std::fs::metadata(directory).unwrap().mode() & 0o777;
            assert_eq!(mode, 0o700, "{}", directory.display());
        }
    }

    #[test]
    fn a_directory_with_other_files_is_left_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::write(parent.path().join("somebody's"), b"").unwrap();
        let error = StateDirectory::open(Some(parent.path()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("not Weir's"), "{error}");
        let mode = std::fs::metadata(parent.path()).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o755);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, b"short").unwrap();
        let error = secret(&path, "keys get new hashes").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("found 5: remove the file, and keys"),
            "{text}"
        );
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named_with_the_way_out() {
        let error = StateDirectory::open(Some(Path::new("/proc/nothing/here"))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/proc/nothing/here"), "{text}");
        assert!(text.contains("--state-dir"), "{text}");
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = StateDirectory::open(Some(file.path()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}
