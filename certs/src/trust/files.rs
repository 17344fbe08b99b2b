//! The directory of the files that programs read: the CA, merged bundles, replacements.
//!
//! Files are named after what they hold, so that running programs keep theirs when the CA or a
//! bundle changes, and none is written twice. Those that nobody asked for in a long time are
//! removed. The private key never comes near this directory.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::TrustError;
use crate::Authority;

/// An open directory of public files.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    trusted_pem: String,
    ca: PathBuf,
}

impl Files {
    /// Opens `directory`, which everyone can read, makes it if need be, and puts the certificate of
    /// the CA there. It must not be the directory of the CA itself.
    ///
    /// # Errors
    /// [`TrustError::Unwritable`].
    pub fn open(directory: &Path, authority: &Authority) -> Result<Self, TrustError> {
        Self::with_certificates(directory, &authority.trusted_pem())
    }

    pub(super) fn with_certificates(directory: &Path, pem: &str) -> Result<Self, TrustError> {
        fs::create_dir_all(directory)
            .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o755)))
            .map_err(|source| TrustError::Unwritable {
                path: directory.to_owned(),
                source,
            })?;
        let mut files = Self {
            directory: directory.to_owned(),
            trusted_pem: pem.to_owned(),
            ca: directory.join("ca.pem"),
        };
        files.prune(SystemTime::now());
        files.ca = files.put("ca", "pem", pem.as_bytes())?;
        Ok(files)
    }

    /// The file that holds the CA alone, for what adds to the roots that a program has.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// What is to be trusted, as PEM: the CA, and the one before it while that is valid.
    #[must_use]
    pub fn trusted_pem(&self) -> &str {
        &self.trusted_pem
    }

    /// The first directory on the way to the files that other users cannot enter, if there is one.
    /// A program of another user then cannot read its bundle.
    #[must_use]
    pub fn closed_at(&self) -> Option<&Path> {
        let mut ways: Vec<_> = self.directory.ancestors().collect();
        ways.reverse();
        ways.into_iter()
            .filter(|way| !way.as_os_str().is_empty())
            .find(|way| {
                fs::metadata(way).is_ok_and(|found| found.permissions().mode() & 0o001 == 0)
            })
    }

    /// Writes a file that everyone can read, whole or not at all, unless it is there.
    pub(super) fn put(
        &self,
        stem: &str,
        extension: &str,
        content: &[u8],
    ) -> Result<PathBuf, TrustError> {
        let digest = crate::sha256_hex(content);
        let digest = digest.get(..DIGITS).unwrap_or_default();
        let path = self.directory.join(format!("{stem}-{digest}.{extension}"));
        write_once(&path, content)
            .map(|()| path.clone())
            .map_err(|source| TrustError::Unwritable { path, source })
    }

    /// Removes what was last asked for before the age limit. Best effort: it is only tidiness.
    fn prune(&self, now: SystemTime) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let age = entry
                .metadata()
                .and_then(|file| file.modified())
                .ok()
                .and_then(|modified| now.duration_since(modified).ok());
            if age.is_some_and(|age| age > UNUSED_MAX) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }
}

fn write_once(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Ok(there) = File::open(path)
        && there.metadata()?.len() == content.len() as u64
    {
        // Its age is that of its last use. Another user's file stays as old as it is.
        drop(there.set_modified(SystemTime::now()));
        return Ok(());
    }
    let mut unfinished = path.as_os_str().to_owned();
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    unfinished.push(format!(".{}.{turn}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o644)
        .open(&unfinished)?;
    // The mode above goes through the umask, this one does not.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(content)?;
    fs::rename(&unfinished, path)
}

/// Tells apart the unfinished files of one process.
static TURN: AtomicU64 = AtomicU64::new(0);

/// 64 bits of a digest: nobody who could collide it may write the directory.
const DIGITS: usize = 16;
/// Longer than any program runs that was given one of the files at its start.
const UNUSED_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);
