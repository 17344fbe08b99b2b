//! The machine as a program sees it: its root, its environment, where it starts.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// What decides where a program looks for its roots. All paths but `root` are as the program
/// names them.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the program's file system starts on this machine: `/`, or the root of a container.
    pub root: PathBuf,
    /// The environment that the program would start with.
    pub environment: BTreeMap<OsString, OsString>,
    /// The working directory that the program starts in.
    pub directory: PathBuf,
    /// The command as the user wrote it, where one command is started.
    pub program: Option<OsString>,
}

impl Surroundings {
    /// Those of this process, for a command that it is about to start.
    ///
    /// # Errors
    /// When the working directory is gone.
    pub fn here(program: Option<OsString>) -> io::Result<Self> {
        Ok(Self {
            root: PathBuf::from("/"),
            environment: std::env::vars_os().collect(),
            directory: std::env::current_dir()?,
            program,
        })
    }

    /// The value of a variable, where it is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// A variable that holds a path, made absolute.
    pub(super) fn path_variable(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(|value| self.directory.join(value))
    }

    pub(super) fn home(&self) -> Option<PathBuf> {
        self.path_variable("HOME")
    }

    /// The directories that commands are looked for in.
    pub(super) fn search_path(&self) -> Vec<PathBuf> {
        self.variable("PATH")
            .map(std::env::split_paths)
            .into_iter()
            .flatten()
            .map(|directory| self.directory.join(directory))
            .take(SEARCH_DIRECTORIES_MAX)
            .collect()
    }

    /// The file that a command stands for, unresolved, as a shell finds it.
    pub(super) fn command(&self, name: &OsStr) -> Option<PathBuf> {
        let candidates = if name.as_bytes().contains(&b'/') {
            vec![self.directory.join(name)]
        } else {
            let directories = self.search_path();
            directories.iter().map(|dir| dir.join(name)).collect()
        };
        candidates.into_iter().find(|path| {
            self.resolve(path)
                .and_then(|real| fs::metadata(self.outside(&real)).ok())
                .is_some_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
    }

    /// Follows every symbolic link of `path` as the program would: links to absolute paths start
    /// at the program's root, not at ours. `None` where it leads nowhere.
    pub(super) fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let mut left: Vec<OsString> = parts(path);
        let mut resolved = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                resolved.pop();
                continue;
            }
            let next = resolved.join(&part);
            let found = fs::symlink_metadata(self.outside(&next)).ok()?;
            if !found.is_symlink() {
                resolved = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            let target = fs::read_link(self.outside(&next)).ok()?;
            if target.is_absolute() {
                resolved = PathBuf::from("/");
            }
            left.extend(parts(&target));
        }
        Some(resolved)
    }

    /// Where a resolved path of the program is found by this process.
    pub(super) fn outside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The names in a directory, sorted; none where it cannot be read.
    pub(super) fn list(&self, directory: &Path) -> Vec<OsString> {
        let entries = self
            .resolve(directory)
            .and_then(|real| fs::read_dir(self.outside(&real)).ok());
        let mut names: Vec<OsString> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .take(ENTRIES_MAX)
            .collect();
        names.sort_unstable();
        names
    }

    /// The bytes of a regular file. Anything else is refused: a pipe that a variable names would
    /// keep the caller waiting.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = self.read_start(path, FILE_BYTES_MAX + 1)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other("larger than any bundle of roots"));
        }
        Ok(bytes)
    }

    /// The first bytes of a regular file.
    pub(super) fn read_start(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let real = self
            .resolve(path)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(self.outside(&real))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let expected = metadata.len().min(bytes_max);
        let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default() + 1);
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        self.resolve(path)
            .is_some_and(|real| self.outside(&real).is_dir())
    }
}

/// The components of a path, last one first, as a stack is used.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// As the kernel's own limit, path_resolution(7).
const LINKS_MAX: usize = 40;
/// A `/usr/lib` has some thousand entries.
const ENTRIES_MAX: usize = 8192;
const SEARCH_DIRECTORIES_MAX: usize = 128;
/// The bundle of a distribution is a quarter of a mebibyte.
const FILE_BYTES_MAX: u64 = 8 << 20;
