//! What a Weir process makes outside of itself, listed before it is made, so that it goes away at
//! the end, or when the next Weir starts after this one was killed.
//!
//! Each process holds a lock on its list. A list whose lock is free belongs to a dead process,
//! whatever became of its pid. What a command that still runs is held by (`fail = "closed"`
//! outlives Weir on purpose) stays until that command is gone.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::state::StateDirectory;

/// One thing to be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leftover {
    /// The directory of the command's cgroup. While processes live in it, nothing is undone; it is
    /// itself removed by [`weir_probes::clean_stale`].
    Cgroup(PathBuf),
    /// A directory of our own with all that is in it: trust bundles, or pinned programs.
    Directory(PathBuf),
    /// A socket.
    Socket(PathBuf),
    /// A table of the packet filter, family inet.
    Table(String),
}

/// The list of this process.
#[derive(Debug)]
pub struct Leftovers {
    id: String,
    path: PathBuf,
    list: Flock<File>,
    /// What was made, in order.
    made: Vec<Leftover>,
}

impl Leftovers {
    /// Starts the list of this process.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn start(state: &StateDirectory) -> io::Result<Self> {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_epoch.map_or(0, |duration| duration.as_secs());
        // With the time, because pids come again, and differ from container to container.
        let id = format!("{}-{seconds}", std::process::id());
        let path = state.run().join(format!("{id}.{LIST_EXTENSION}"));
        // Locked under another name first: no one may find it unlocked.
        let hidden = state.run().join(format!(".{id}"));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&hidden)?;
        let list = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        std::fs::rename(&hidden, &path)?;
        Ok(Self {
            id,
            path,
            list,
            made: vec![],
        })
    }

    /// Names this process among all on the machine, dead ones included.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes down that `leftover` is about to be made.
    ///
    /// # Errors
    /// The list cannot be written; the thing should not be made.
    pub fn will_make(&mut self, leftover: Leftover) -> io::Result<()> {
        let mut line = serde_json::to_vec(&leftover)?;
        line.push(b'\n');
        self.list.write_all(&line)?;
        self.made.push(leftover);
        Ok(())
    }

    /// Undoes everything, newest first, and returns what could not be undone.
    pub fn undo(mut self) -> Vec<Failure> {
        let failures = undo(&std::mem::take(&mut self.made));
        if failures.is_empty() {
            self.forget();
        }
        failures
    }

    /// Leaves everything in force; the next Weir that starts undoes it once the cgroup is empty.
    pub fn keep(mut self) {
        self.made.clear();
    }

    fn forget(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "list not removed");
        }
    }
}

impl Drop for Leftovers {
    /// An early return undoes what was made so far.
    fn drop(&mut self) {
        if !self.made.is_empty() && undo(&self.made).is_empty() {
            self.forget();
        }
    }
}

/// Undoes what dead processes left, and returns what was done or failed, for the log.
#[must_use]
pub fn clean_up(state: &StateDirectory) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(state.run()) else {
        return vec![];
    };
    let lists = entries.flatten().map(|entry| entry.path());
    lists
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == LIST_EXTENSION)
        })
        .filter_map(|path| clean_up_after(&path))
        .collect()
}

/// `None`: its process is alive.
fn clean_up_after(path: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).append(true).open(path).ok()?;
    let list = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
    let lines = BufReader::new(&*list).lines().map_while(Result::ok);
    // A line that was cut off by the death of its writer names nothing that was made.
    let made: Vec<Leftover> = lines
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    let name = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if made.iter().any(Leftover::is_populated) {
        return Some(format!(
            "process {name} is dead, its command runs on: left as it is"
        ));
    }
    let failures = undo(&made);
    if failures.is_empty() {
        return match std::fs::remove_file(path) {
            Ok(()) => Some(format!(
                "cleaned up after process {name}: {} things",
                made.len()
            )),
            Err(error) => Some(format!("{}: {error}", path.display())),
        };
    }
    let reasons: Vec<String> = failures.iter().map(ToString::to_string).collect();
    Some(format!(
        "process {name} left what could not be undone: {}",
        reasons.join("; ")
    ))
}

/// Whether process `pid` is alive and has its list in `directory`.
#[must_use]
pub(crate) fn is_of_live_process(directory: &Path, pid: u32) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return false;
    };
    let of_process = format!("{pid}-");
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(&of_process) && is_locked_list(&entry.path())
    })
}

fn is_locked_list(path: &Path) -> bool {
    let is_list = path
        .extension()
        .is_some_and(|extension| extension == LIST_EXTENSION);
    let Some(list) = is_list.then(|| File::open(path).ok()).flatten() else {
        return false;
    };
    let locked = Flock::lock(list, FlockArg::LockSharedNonblock);
    matches!(locked, Err((_, Errno::EWOULDBLOCK)))
}

fn undo(made: &[Leftover]) -> Vec<Failure> {
    let undone = made
        .iter()
        .rev()
        .map(|leftover| (leftover, leftover.undo()));
    undone
        .filter_map(|(leftover, result)| {
            let source = result
                .err()
                .filter(|error| error.kind() != io::ErrorKind::NotFound)?;
            Some(Failure {
                leftover: leftover.clone(),
                source,
            })
        })
        .collect()
}

impl Leftover {
    fn undo(&self) -> io::Result<()> {
        match self {
            Self::Cgroup(_) => Ok(()),
            Self::Directory(path) => std::fs::remove_dir_all(path),
            Self::Socket(path) => std::fs::remove_file(path),
            Self::Table(name) => delete_table(name),
        }
    }

    /// Whether processes live in it.
    fn is_populated(&self) -> bool {
        let Self::Cgroup(path) = self else {
            return false;
        };
        let events = std::fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }
}

/// Deletes a table; one that is gone is no error.
fn delete_table(name: &str) -> io::Result<()> {
    let nft = |arguments: &[&str]| {
        Command::new("nft")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    if !nft(&["list", "table", "inet", name])?.success() {
        return Ok(());
    }
    if nft(&["delete", "table", "inet", name])?.success() {
        return Ok(());
    }
    Err(io::Error::other("nft refused to delete it"))
}

/// Something that could not be undone.
#[derive(Debug, thiserror::Error)]
#[error("{leftover:?}: {source}")]
pub struct Failure {
    /// What is left.
    pub leftover: Leftover,
    /// What the system said.
    pub source: io::Error,
}

/// Of the lists, in the run directory.
const LIST_EXTENSION: &str = "leftovers";

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDirectory) {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(Some(&parent.path().join("state"))).unwrap();
        (parent, state)
    }

    /// A directory that stands for what a process made.
    fn make(leftovers: &mut Leftovers, parent: &Path) -> PathBuf {
        let path = parent.join(format!("made-{}", leftovers.id()));
        leftovers
            .will_make(Leftover::Directory(path.clone()))
            .unwrap();
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// The list of a process that was killed: unlocked, with what it made still there.
    fn kill(leftovers: Leftovers, extra: &str) -> PathBuf {
        let path = leftovers.path.clone();
        let text = std::fs::read_to_string(&path).unwrap() + extra;
        leftovers.keep();
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn what_a_dead_process_left_is_undone_even_if_its_list_was_cut_off() {
        let (parent, state) = state();
        let mut leftovers = Leftovers::start(&state).unwrap();
        let made = make(&mut leftovers, parent.path());
        let list = kill(leftovers, "{\"director");
        assert!(made.exists());
        let said = clean_up(&state);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("cleaned up"), "{said:?}");
        assert!(!made.exists());
        assert!(!list.exists());
        assert_eq!(clean_up(&state), Vec::<String>::new());
    }

    #[test]
    fn what_a_live_process_made_is_left_alone() {
        let (parent, state) = state();
        let mut leftovers = Leftovers::start(&state).unwrap();
        let made = make(&mut leftovers, parent.path());
        assert_eq!(clean_up(&state), Vec::<String>::new());
        assert!(made.exists());
        assert!(leftovers.undo().is_empty());
        assert!(!made.exists());
        assert_eq!(std::fs::read_dir(state.run()).unwrap().count(), 0);
    }

    #[test]
    fn a_process_is_known_by_its_list_as_long_as_it_lives() {
        let (_parent, state) = state();
        let (run, own) = (state.run(), std::process::id());
        assert!(!is_of_live_process(&run, own));
        let mut leftovers = Leftovers::start(&state).unwrap();
        assert!(is_of_live_process(&run, own));
        assert!(!is_of_live_process(&run, own / 10));
        let leftover = Leftover::Socket(run.join("never"));
        leftovers.will_make(leftover).unwrap();
        let list = kill(leftovers, "");
        assert!(list.exists());
        assert!(!is_of_live_process(&run, own));
    }

    #[test]
    fn what_is_gone_already_is_no_failure() {
        let (parent, state) = state();
        let mut leftovers = Leftovers::start(&state).unwrap();
        leftovers
            .will_make(Leftover::Socket(parent.path().join("never")))
            .unwrap();
        leftovers
            .will_make(Leftover::Cgroup(parent.path().join("never")))
            .unwrap();
        assert!(leftovers.undo().is_empty());
    }

    #[test]
    fn what_cannot_be_undone_is_named_and_tried_again_by_the_next_process() {
        let (parent, state) = state();
        let mut leftovers = Leftovers::start(&state).unwrap();
        let socket = parent.path().join("socket");
        let leftover = Leftover::Socket(socket.clone());
        leftovers.will_make(leftover).unwrap();
        std::fs::create_dir(&socket).unwrap();
        let failures = leftovers.undo();
        assert_eq!(failures.len(), 1);
        assert!(
            failures[0].to_string().contains("socket"),
            "{}",
            failures[0]
        );
        std::fs::remove_dir(&socket).unwrap();
        std::fs::write(&socket, "").unwrap();
        assert_eq!(clean_up(&state).len(), 1);
        assert!(!socket.exists());
    }
}
