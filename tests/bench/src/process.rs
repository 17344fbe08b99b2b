//! The processes of a run: how one serves until it is told to stop, and how one is started,
//! watched and ended.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

/// What serves has as many threads as there are cores.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

/// Serves connections on a free loopback port, which is printed, until standard input is closed.
pub(crate) fn serve<F>(connection: impl Fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    runtime()?.block_on(async {
        let listener = listen().await?;
        let accept = async {
            loop {
                let (socket, _) = listener.accept().await?;
                let connection = connection(socket);
                tokio::spawn(async move {
                    // Clients count what fails; a connection that they close is no failure.
                    drop(connection.await);
                });
            }
        };
        tokio::select! {
            ended = accept => ended,
            () = input_closed() => Ok(()),
        }
    })
}

/// A listener on a free loopback port, after its address was printed as a line of JSON.
pub(crate) async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(&listener.local_addr()?)?;
    Ok(listener)
}

/// Prints a line of JSON.
pub(crate) fn say(message: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, message)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Resolves when standard input is closed: the process that started this one wants no more of it,
/// or is gone.
pub(crate) async fn input_closed() {
    let mut sink = [0; 64];
    while tokio::io::stdin()
        .read(&mut sink)
        .await
        .is_ok_and(|bytes| bytes > 0)
    {}
}

/// A process that was started here, speaks in lines of JSON, and ends when its input is closed;
/// dropped, it is told to, then made to.
pub(crate) struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: PathBuf,
}

impl Process {
    /// Starts `program`; what it writes to standard error is kept in `dir`.
    pub(crate) fn start(
        dir: &Path,
        name: &str,
        program: &OsStr,
        arguments: &[OsString],
    ) -> anyhow::Result<Self> {
        let errors = dir.join(format!("{name}.stderr"));
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&errors)?)
            .spawn()
            .with_context(|| format!("expected to start {}", program.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("standard output was piped")?;
        let (sender, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            input,
            lines,
            errors,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Writes a line of JSON to its standard input.
    pub(crate) fn tell(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let input = self.input.as_mut().context("standard input is open")?;
        let written = input.write_all(&line);
        written.with_context(|| self.complaint("to take an order"))
    }

    /// The next line of JSON that it prints.
    pub(crate) fn hear<T: DeserializeOwned>(&self, wait: Duration) -> anyhow::Result<T> {
        let line = match self.lines.recv_timeout(wait) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => anyhow::bail!(self.complaint("an answer in time")),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!(self.complaint("an answer")),
        };
        serde_json::from_str(&line).with_context(|| self.complaint(&format!("JSON, found {line}")))
    }

    fn complaint(&self, expected: &str) -> String {
        let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let last: Vec<&str> = errors.lines().rev().take(ERROR_LINES).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        format!("{}: expected {expected}; its last words: {last}", self.name)
    }

    fn ended_within(&mut self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        while Instant::now() < end {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        if self.ended_within(END_WAIT) {
            return;
        }
        let told = kill(Pid::from_raw(self.pid()), Signal::SIGTERM).is_ok();
        if !told || !self.ended_within(END_WAIT) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// CPU time that the processes have used so far, threads that ended included, in nanoseconds.
///
/// This is `utime + stime` of `/proc/PID/stat` without its rounding to hundredths of a second.
pub(crate) fn cpu_ns(pids: &[i32]) -> anyhow::Result<u64> {
    let mut total = 0;
    for pid in pids {
        let clock = nix::time::clock_getcpuclockid(Pid::from_raw(*pid))
            .with_context(|| format!("expected process {pid} to live"))?;
        total += crate::clock::nanoseconds(nix::time::clock_gettime(clock)?);
    }
    Ok(total)
}

/// Resident memory of the processes, in KiB.
pub(crate) fn resident_kib(pids: &[i32]) -> anyhow::Result<u64> {
    let mut total = 0;
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        total += kib.with_context(|| format!("expected VmRSS of process {pid}"))?;
    }
    Ok(total)
}

/// `root` and the processes that descend from it, without `except`.
pub(crate) fn family(root: i32, except: i32) -> anyhow::Result<Vec<i32>> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        next += 1;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children"))?;
            let children = children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok());
            family.extend(children.filter(|pid| *pid != except));
        }
    }
    Ok(family)
}

/// Nothing says more than a line for each order.
const LINES_MAX: usize = 64;
/// Lines of standard error shown when a process does not do as expected.
const ERROR_LINES: usize = 12;
/// How long a process may take to end after it was told to.
const END_WAIT: Duration = Duration::from_secs(10);
