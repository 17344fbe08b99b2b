//! The log: a file in the state directory, never the terminal of the command.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::limits::{LOG_FILE_BYTES_MAX, LOG_FILES_MAX};
use super::state::StateDirectory;

/// Sends the log of this process to a file of its own and returns the file's path. Call once.
///
/// # Errors
/// The file cannot be opened, `WEIR_LOG` is no filter, or there is a log already.
pub fn start(state: &StateDirectory) -> Result<PathBuf, LogError> {
    let filter = filter()?;
    let directory = state.logs();
    remove_oldest(&directory);
    let path = directory.join(format!("weir-{}.log", std::process::id()));
    let file = LogFile::open(&path, LOG_FILE_BYTES_MAX).map_err(|source| LogError::Unwritable {
        path: path.clone(),
        source,
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Shared(Arc::new(Mutex::new(file))))
        .try_init()
        .map_err(|source| LogError::Started {
            reason: source.to_string(),
        })?;
    Ok(path)
}

fn filter() -> Result<EnvFilter, LogError> {
    let Some(text) = std::env::var_os(LEVEL_VARIABLE).filter(|text| !text.is_empty()) else {
        return Ok(EnvFilter::new(LEVEL_DEFAULT));
    };
    let text = text.to_string_lossy().into_owned();
    EnvFilter::try_new(&text).map_err(|error| LogError::Filter {
        text,
        reason: error.to_string(),
    })
}

/// Leaves room for one more file; what cannot be removed stays.
fn remove_oldest(directory: &Path) {
    let modified = |entry: &std::fs::DirEntry| {
        entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| (modified(&entry), entry.path()))
        .collect();
    files.sort();
    let surplus = files.len().saturating_sub(LOG_FILES_MAX.saturating_sub(1));
    for (_, path) in files.into_iter().take(surplus) {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "old log not removed");
        }
    }
}

/// A file that is moved to `….old`, replacing the one there, when it reaches its bound: of a
/// long-running process the newest lines are kept, in at most twice the bound.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            bytes_max,
        })
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes >= self.bytes_max {
            std::fs::rename(&self.path, self.path.with_extension("log.old"))?;
            *self = Self::open(&self.path, self.bytes_max)?;
        }
        let written = self.file.write(line)?;
        self.bytes = self
            .bytes
            .saturating_add(written.try_into().unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[derive(Clone)]
struct Shared(Arc<Mutex<LogFile>>);

struct Locked<'a>(MutexGuard<'a, LogFile>);

impl<'a> MakeWriter<'a> for Shared {
    type Writer = Locked<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Locked(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Locked<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be written.
    #[error("expected to write the log file {}, found: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `WEIR_LOG` is no filter.
    #[error(
        "expected a level or filter such as \"debug\" or \"weir::capture=trace\" in WEIR_LOG, \
         found \"{text}\": {reason}"
    )]
    Filter {
        /// Its text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is one already.
    #[error("the log is started twice: {reason}")]
    Started {
        /// What the subscriber said.
        reason: String,
    },
}

/// Sets the level of the log.
pub const LEVEL_VARIABLE: &str = "WEIR_LOG";
/// The life cycle and what an operator must know; a line per connection only at `debug`.
const LEVEL_DEFAULT: &str = "info";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_room_and_keeps_the_newest_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir-1.log");
        let mut log = LogFile::open(&path, 10).unwrap();
        for line in [
            "one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n",
        ] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let old = std::fs::read_to_string(directory.path().join("weir-1.log.old")).unwrap();
        assert_eq!(old, "four\nfive\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "six\nseven\n");
    }

    #[test]
    fn only_the_newest_files_of_earlier_processes_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..LOG_FILES_MAX + 3 {
            let file = File::create(directory.path().join(format!("weir-{number}.log"))).unwrap();
            let age = std::time::Duration::from_secs(1000 - u64::try_from(number).unwrap());
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        remove_oldest(directory.path());
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, LOG_FILES_MAX - 1);
        assert!(!directory.path().join("weir-3.log").exists());
        assert!(directory.path().join("weir-4.log").exists());
    }
}
