//! The command's process: in its cgroup, mount namespace and user before its first instruction.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Pid, setgid, setgroups, setuid};

use super::invoker::{Identity, Variables};

/// What the process is to be.
#[derive(Debug)]
pub(super) struct Plan {
    /// Program and arguments.
    pub(super) command: Vec<OsString>,
    /// All of its environment.
    pub(super) environment: Variables,
    /// `cgroup.procs` of its cgroup, open for writing.
    pub(super) cgroup: Option<File>,
    /// Files that it sees in place of others.
    pub(super) overlays: Vec<Overlay>,
    /// Whom it becomes.
    pub(super) identity: Option<Identity>,
    /// The signals that were blocked when Weir was started.
    pub(super) mask: SigSet,
    /// The limit of open files that Weir was started with, soft and hard.
    pub(super) open_files: Option<(u64, u64)>,
}

/// A file laid over another.
#[derive(Debug)]
pub(super) struct Overlay {
    target: CString,
    replacement: CString,
}

impl Overlay {
    /// `None`: the paths are none.
    pub(super) fn new(target: &Path, replacement: &Path) -> Option<Self> {
        Some(Self {
            target: CString::new(target.as_os_str().as_bytes()).ok()?,
            replacement: CString::new(replacement.as_os_str().as_bytes()).ok()?,
        })
    }
}

/// A running command.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    /// For the log: what did not work, though the command runs.
    pub(super) notes: Vec<String>,
}

/// Starts the command.
pub(super) fn start(plan: Plan) -> Result<Started, StartError> {
    let Some((program, arguments)) = plan.command.split_first() else {
        return Err(StartError::NotFound {
            program: OsString::new(),
        });
    };
    let (read, write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|errno| StartError::Setup {
            step: "make a pipe",
            source: errno.into(),
        })?;
    let mut command = std::process::Command::new(program);
    command.args(arguments).env_clear().envs(&plan.environment);
    let targets: Vec<CString> = plan
        .overlays
        .iter()
        .map(|overlay| overlay.target.clone())
        .collect();
    let program = program.clone();
    prepare(&mut command, plan, write);
    let spawned = command.spawn();
    // It holds the closure, which holds the pipe's other end.
    drop(command);
    let mut reports = vec![];
    // The pipe is at its end: the child has replaced itself, or is gone.
    if let Err(error) = File::from(read).read_to_end(&mut reports) {
        tracing::warn!(%error, "the child's reports cannot be read");
    }
    let reports: Vec<Report> = reports
        .chunks_exact(Report::BYTES)
        .filter_map(Report::read)
        .collect();
    match spawned {
        Ok(child) => Ok(Started {
            pid: Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)),
            notes: reports
                .iter()
                .map(|report| report.sentence(&targets))
                .collect(),
        }),
        Err(source) => Err(
            match reports.iter().find_map(|report| report.step.fatal()) {
                Some(step) => StartError::Setup { step, source },
                None if source.kind() == io::ErrorKind::NotFound => {
                    StartError::NotFound { program }
                }
                None => StartError::NotExecutable { program, source },
            },
        ),
    }
}

#[expect(unsafe_code, reason = "a closure between fork and exec")]
fn prepare(command: &mut std::process::Command, plan: Plan, reports: OwnedFd) {
    let mut reports = File::from(reports);
    let enter = move || {
        let mut report = |step: Step, index: usize, error: io::Error| {
            let report = Report::new(step, index, &error);
            // Nobody is left to tell if the pipe is broken.
            let _unheard = reports.write_all(&report.bytes());
            error
        };
        if let Some(mut cgroup) = plan.cgroup.as_ref() {
            cgroup
                .write_all(b"0")
                .map_err(|error| report(Step::Cgroup, 0, error))?;
        }
        if !plan.overlays.is_empty() {
            overlay(&plan.overlays, &mut report);
        }
        if let Some((soft, hard)) = plan.open_files {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
                .map_err(|errno| report(Step::OpenFiles, 0, errno.into()))?;
        }
        if let Some(identity) = &plan.identity {
            setgroups(&identity.groups)
                .and_then(|()| setgid(identity.gid))
                .and_then(|()| setuid(identity.uid))
                .map_err(|errno| report(Step::Identity, 0, errno.into()))?;
        }
        // Last: from here on a signal may end the process before it is the command.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&plan.mask), None)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls on values that were made before,
    // allocates nothing (strings end in NUL, errors carry a number) and takes no lock.
    unsafe { command.pre_exec(enter) };
}

/// Without a namespace of its own the command runs all the same: runtimes that bring their own
/// roots then do not trust the CA, and are passed through.
fn overlay(overlays: &[Overlay], report: &mut impl FnMut(Step, usize, io::Error) -> io::Error) {
    let none: Option<&CStr> = None;
    let entered = unshare(CloneFlags::CLONE_NEWNS)
        // Mounts of the machine still arrive; those made here do not get out.
        .and_then(|()| mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none));
    if let Err(errno) = entered {
        let _reported = report(Step::Namespace, 0, errno.into());
        return;
    }
    for (index, overlay) in overlays.iter().enumerate() {
        let (from, onto) = (overlay.replacement.as_c_str(), overlay.target.as_c_str());
        if let Err(errno) = mount(Some(from), onto, none, MsFlags::MS_BIND, none) {
            let _reported = report(Step::Overlay, index, errno.into());
        }
    }
}

/// Whether this process may give a command a mount namespace of its own.
///
/// # Errors
/// What the kernel said.
pub fn can_overlay() -> io::Result<()> {
    // The namespace is the thread's, and goes with it.
    let tried = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNS)).join();
    tried
        .map_err(|_panic| io::Error::other("the thread panicked"))?
        .map_err(io::Error::from)
}

/// What the child was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Cgroup,
    Namespace,
    Overlay,
    OpenFiles,
    Identity,
}

impl Step {
    const ALL: [Self; 5] = [
        Self::Cgroup,
        Self::Namespace,
        Self::Overlay,
        Self::OpenFiles,
        Self::Identity,
    ];

    /// What it says where the command cannot run without it.
    fn fatal(self) -> Option<&'static str> {
        match self {
            Self::Cgroup => Some("enter the command's cgroup"),
            Self::OpenFiles => Some("restore the limit of open files"),
            Self::Identity => Some("become the invoking user"),
            Self::Namespace | Self::Overlay => None,
        }
    }
}

/// A failure, as the child can write it without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    step: Step,
    index: u16,
    errno: i32,
}

impl Report {
    const BYTES: usize = 7;

    fn new(step: Step, index: usize, error: &io::Error) -> Self {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        Self {
            step,
            index,
            errno: error.raw_os_error().unwrap_or(0),
        }
    }

    fn bytes(self) -> [u8; Self::BYTES] {
        let [i0, i1] = self.index.to_le_bytes();
        let [e0, e1, e2, e3] = self.errno.to_le_bytes();
        [self.step as u8, i0, i1, e0, e1, e2, e3]
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let [step, i0, i1, e0, e1, e2, e3] = *bytes.first_chunk::<{ Self::BYTES }>()?;
        Some(Self {
            step: *Step::ALL.get(usize::from(step))?,
            index: u16::from_le_bytes([i0, i1]),
            errno: i32::from_le_bytes([e0, e1, e2, e3]),
        })
    }

    fn sentence(self, targets: &[CString]) -> String {
        let error = io::Error::from_raw_os_error(self.errno);
        let target = targets
            .get(usize::from(self.index))
            .map(|target| target.to_string_lossy());
        match (self.step, target) {
            (Step::Overlay, Some(target)) => format!("{target} is not overlaid: {error}"),
            (Step::Namespace, _) => {
                format!("the command gets no mount namespace, nothing is overlaid: {error}")
            }
            (step, _) => format!("{step:?}: {error}"),
        }
    }
}

/// Why the command does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("{}: expected a program, found none of this name", program.display())]
    NotFound {
        /// As it was given.
        program: OsString,
    },
    /// It cannot be executed.
    #[error("{}: expected a program that can be executed, found: {source}", program.display())]
    NotExecutable {
        /// As it was given.
        program: OsString,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something before it failed.
    #[error("the command was not started: cannot {step}: {source}")]
    Setup {
        /// What.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_pipe() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number);
            let report = Report {
                step,
                index: 513,
                errno: -70_000,
            };
            assert_eq!(Report::read(&report.bytes()), Some(report));
        }
        assert_eq!(Report::read(&[9, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Report::read(&[0]), None);
    }
}
