//! Waiting for the command as if Weir were not there: what the terminal sends reaches the command by
//! itself and only it; what is sent to Weir is passed on; when the command stops, so does Weir, and
//! the shell shows its prompt.
//!
//! Signals are blocked and read from a descriptor, because only there stands who sent them.

use std::io;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The signals of this process, from now on.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
    before: SigSet,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(u8),
    /// By this signal.
    Signal(Signal),
}

impl Signals {
    /// Blocks the signals for this thread and those that it starts: call it before the first.
    pub(super) fn block() -> io::Result<Self> {
        let mut set: SigSet = PASSED_ON.into_iter().collect();
        set.add(Signal::SIGCHLD);
        set.add(Signal::SIGTSTP);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            descriptor: SignalFd::with_flags(&set, flags)?,
            before,
        })
    }

    /// The signals that were blocked before.
    pub(super) fn before(&self) -> SigSet {
        self.before
    }

    /// Waits until the process `command` has ended; `on_hangup` is called when someone asks Weir to
    /// read its configuration again.
    pub(super) fn wait(&self, command: Pid, on_hangup: impl Fn()) -> io::Result<Ended> {
        loop {
            // First, because it may have ended before the first signal is read.
            if let Some(ended) = reap(command)? {
                return Ok(ended);
            }
            let mut descriptors = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut descriptors, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            while let Some(info) = self.descriptor.read_signal()? {
                let Ok(signal) = Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or(0))
                else {
                    continue;
                };
                if signal == Signal::SIGHUP {
                    on_hangup();
                }
                if is_passed_on(signal, &info, command) {
                    pass_on(signal, command);
                }
            }
        }
    }
}

/// What the terminal sends goes to the whole foreground group, so the command has it already; what
/// the command sends is not for itself.
fn is_passed_on(signal: Signal, info: &siginfo, command: Pid) -> bool {
    let from_kernel = info.ssi_code == libc::SI_KERNEL;
    let from_command = i32::try_from(info.ssi_pid) == Ok(command.as_raw());
    (PASSED_ON.contains(&signal) || signal == Signal::SIGTSTP) && !from_kernel && !from_command
}

fn pass_on(signal: Signal, command: Pid) {
    if let Err(error) = kill(command, signal) {
        tracing::debug!(%signal, %error, "signal not passed on");
    }
}

fn reap(command: Pid) -> io::Result<Option<Ended>> {
    loop {
        match waitpid(command, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => {
                return Ok(Some(Ended::Code(
                    u8::try_from(code & 0xff).unwrap_or(u8::MAX),
                )));
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Some(Ended::Signal(signal))),
            Ok(WaitStatus::Stopped(_, _)) => stop_with(command)?,
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Stops this process, so that the shell takes the terminal; `fg` continues both.
fn stop_with(command: Pid) -> io::Result<()> {
    kill(Pid::this(), Signal::SIGSTOP)?;
    pass_on(Signal::SIGCONT, command);
    Ok(())
}

/// Ends this process by the signal that ended the command, so that whoever started Weir sees what it
/// would have seen of the command: a shell that stops its script on Ctrl-C must know of it.
/// Returns where the signal does not end a process.
#[expect(unsafe_code, reason = "restores the default action of a signal")]
pub fn die_of(signal: Signal) {
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigHandler, raise};
    // The core would be Weir's, with the traffic in it.
    let _best_effort = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: no handler of Rust's is installed for it, so nothing relies on one.
    let _was = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
    let only = SigSet::from(signal);
    let _unblocked = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
    let _returns_if_harmless = raise(signal);
}

/// Signals that ask a program for something.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
