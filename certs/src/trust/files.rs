//! The directory of the files that programs read: the CA, merged bundles, replacements.
//!
//! Files are named after what they hold, so that running programs keep theirs when the CA or a
//! bundle changes, and none is written twice. Those that nobody needs are removed: no Weir holds
//! them, no program has their names in its environment, and nobody asked for them in a long time, or
//! others take the room. The private key never comes near this directory.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::TrustError;
use crate::Authority;

/// An open directory of public files. As long as this lives, nobody removes those that were put or
/// found there by it.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    trusted_pem: String,
    ca: PathBuf,
    /// Locked, and shared with all who hold them.
    held: Mutex<Vec<File>>,
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
            held: Mutex::default(),
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
        let held = write_once(&path, content).map_err(|source| TrustError::Unwritable {
            path: path.clone(),
            source,
        })?;
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(held);
        Ok(path)
    }

    /// Removes what nobody needs. Best effort: it is only tidiness.
    fn prune(&self, now: SystemTime) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        let mut unused = unused(entries.flatten().filter_map(|entry| Found::of(&entry, now)));
        if !unused.is_empty() {
            leave_to_programs(&mut unused);
        }
        for name in unused {
            remove_unless_held(&self.directory.join(name), now);
        }
    }
}

/// A file, and how long ago somebody asked for it last.
struct Found {
    age: Duration,
    name: OsString,
    bytes: u64,
}

impl Found {
    fn of(entry: &DirEntry, now: SystemTime) -> Option<Self> {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            age: age(&metadata, now)?,
            name: entry.file_name(),
            bytes: metadata.len(),
        })
    }
}

/// Nothing for a file of the future: clocks are set back.
fn age(metadata: &fs::Metadata, now: SystemTime) -> Option<Duration> {
    now.duration_since(metadata.modified().ok()?).ok()
}

/// The names of those that nobody asked for in a long time, and of the oldest that exceed the room.
fn unused(found: impl Iterator<Item = Found>) -> HashSet<OsString> {
    let mut found: Vec<Found> = found.collect();
    found.sort_by_key(|file| file.age);
    let mut bytes = 0_u64;
    found.retain(|file| {
        bytes = bytes.saturating_add(file.bytes);
        file.age > UNUSED_MAX || bytes > UNUSED_BYTES_MAX && file.age > FRESH
    });
    found.into_iter().map(|file| file.name).collect()
}

/// Takes out those that stand in the environment of a program, whoever started it.
fn leave_to_programs(names: &mut HashSet<OsString>) {
    let Ok(processes) = fs::read_dir("/proc") else {
        names.clear();
        return;
    };
    for process in processes.flatten() {
        let Ok(environment) = fs::read(process.path().join("environ")) else {
            continue;
        };
        for word in environment.split(|byte| b"/:;=, \"'\0".contains(byte)) {
            names.remove(OsStr::from_bytes(word));
        }
    }
}

fn remove_unless_held(path: &Path, now: SystemTime) {
    let Ok(file) = File::open(path) else { return };
    if file.try_lock().is_err() {
        return;
    }
    // Somebody may have asked for it since it was looked at.
    let age = file.metadata().ok().and_then(|found| age(&found, now));
    if age.is_some_and(|age| age > FRESH) {
        drop(fs::remove_file(path));
    }
}

/// Returns the file, locked so that nobody removes it.
fn write_once(path: &Path, content: &[u8]) -> io::Result<File> {
    if let Some(there) = hold(path)?
        && there.metadata()?.len() == content.len() as u64
    {
        // Its age is that of its last use. Another user's file stays as old as it is.
        drop(there.set_modified(SystemTime::now()));
        return Ok(there);
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
    // Without locks, as on some network file systems, its age alone tells who needs it.
    drop(file.try_lock_shared());
    // The mode above goes through the umask, this one does not.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(content)?;
    fs::rename(&unfinished, path)?;
    Ok(file)
}

/// The file at `path`, locked; none where there is none, or somebody removes it. Never waits: every
/// user can lock a file that all can read.
fn hold(path: &Path) -> io::Result<Option<File>> {
    let Ok(file) = File::open(path) else {
        return Ok(None);
    };
    if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return Ok(None);
    }
    let is_there = file.metadata()?.nlink() > 0;
    Ok(is_there.then_some(file))
}

/// Tells apart the unfinished files of one process.
static TURN: AtomicU64 = AtomicU64::new(0);

/// 64 bits of a digest: nobody who could collide it may write the directory.
const DIGITS: usize = 16;
/// Longer than a shell is used that evaluated `weir ca env`: it names files that no lock and no
/// environment of a process tells of.
const UNUSED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Of the files of root in memory; those of one CA are about 3 MiB.
const UNUSED_BYTES_MAX: u64 = 64 << 20;
/// Never removed for want of room: their command may not have started yet, and a shell that took the variables
/// of `weir ca env` shows them to nobody.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
