//! A network namespace of its own with providers at TEST-NET addresses, an application in a cgroup, and Weir's side of
//! the redirect. Nothing leaves the namespace, and whoever accepts a connection shows where it went.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::{self, Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
};
use weir_probes::{Fail, Options, Reason, Redirect, cgroup2_mount, netns_cookie};

/// The application's uid: nobody.
pub(crate) const UID: u32 = 65_534;

/// The redirect attached to the cgroup of one application, with all in order except what `Setup` says.
pub(crate) struct World {
    pub(crate) redirect: Redirect,
    pub(crate) namespace: Namespace,
    pub(crate) application: Application,
    // Dropped after the application, whose cgroup it is.
    pub(crate) cgroup: Cgroup,
}

/// What is in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) fail: Fail,
    pub(crate) enrolled: bool,
    pub(crate) tagged: bool,
    pub(crate) listening: bool,
    pub(crate) v6: bool,
    pub(crate) beating: bool,
}

impl Setup {
    pub(crate) const ALL: Self = Self {
        fail: Fail::Open,
        enrolled: true,
        tagged: true,
        listening: true,
        v6: true,
        beating: true,
    };
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let cgroup = Cgroup::create();
        let redirect = Redirect::attach(&Options {
            cgroup: &cgroup.0,
            ports: &[443, 8443],
            fail: setup.fail,
            pin: None,
        })
        .unwrap();
        let mut namespace = Namespace::enter();
        namespace.join(&redirect, setup);
        let mut application = Application::start();
        cgroup.add(application.pid());
        application.ask(&format!("become {UID}")).unwrap();
        Self {
            redirect,
            namespace,
            application,
            cgroup,
        }
    }

    /// Lets the application try something, and says what became of it.
    pub(crate) fn attempt(&mut self, command: &str) -> Outcome {
        if self.namespace.beating {
            self.redirect.heartbeat().unwrap();
        }
        let answer = self.application.ask(command);
        self.namespace.outcome(answer)
    }

    pub(crate) fn count(&self, reason: Reason) -> u64 {
        let counters = self.redirect.counters().unwrap();
        counters
            .into_iter()
            .find(|(found, _)| *found == reason)
            .unwrap()
            .1
    }
}

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Our listener accepted it from `peer`.
    Redirected { sees: Connected, peer: SocketAddr },
    /// The provider accepted it.
    Direct { sees: Connected },
    /// It failed with this errno.
    Failed(i32),
}

/// What the application sees of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) cookie: u64,
}

impl Outcome {
    pub(crate) fn is_direct_to(&self, destination: &str) -> bool {
        matches!(self, Self::Direct { sees } if sees.peer == destination.parse().unwrap())
    }

    pub(crate) fn is_refused(&self) -> bool {
        *self == Self::Failed(nix::libc::ECONNREFUSED)
    }

    /// The address that our listener saw.
    pub(crate) fn redirected_from(&self) -> SocketAddr {
        match self {
            Self::Redirected { peer, .. } => *peer,
            other => panic!("expected a redirected connection, found {other:?}"),
        }
    }
}

/// A network namespace with its listeners.
pub(crate) struct Namespace {
    pub(crate) cookie: u64,
    pub(crate) ours: Vec<TcpListener>,
    providers: Vec<TcpListener>,
    beating: bool,
}

impl Namespace {
    /// Moves the calling thread, and the processes that it starts from now on, into a new namespace.
    pub(crate) fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("the kernel tier needs root");
        let mut ip = Command::new("ip");
        let mut ip = ip
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip (iproute2)");
        ip.stdin
            .take()
            .unwrap()
            .write_all(ADDRESSES.as_bytes())
            .unwrap();
        assert!(ip.wait().unwrap().success());
        let listen = |address| TcpListener::bind::<SocketAddr>(address).unwrap();
        let at = |addresses: &[&str]| -> Vec<TcpListener> {
            addresses
                .iter()
                .map(|address| listen(address.parse().unwrap()))
                .collect()
        };
        let ours = at(&["127.0.0.1:0", "[::1]:0"]);
        Self {
            cookie: netns_cookie(ours[0].as_fd()).unwrap(),
            ours,
            providers: at(&PROVIDERS),
            beating: true,
        }
    }

    /// Enrols the namespace.
    pub(crate) fn join(&mut self, redirect: &Redirect, setup: Setup) {
        let [port4, port6] =
            [0, 1].map(|index: usize| self.ours[index].local_addr().unwrap().port());
        if setup.enrolled {
            redirect
                .enroll(self.cookie, port4, setup.v6.then_some(port6))
                .unwrap();
        }
        if setup.tagged {
            for listener in &self.ours {
                redirect.tag_listener(listener.as_fd()).unwrap();
            }
        }
        if !setup.listening {
            self.ours.clear();
        }
        self.beating = setup.beating;
    }

    /// Finds who accepted the connection that the application reports.
    pub(crate) fn outcome(&self, answer: Result<String, i32>) -> Outcome {
        let sees = match answer {
            Err(errno) => return Outcome::Failed(errno),
            Ok(answer) => Connected::parse(&answer),
        };
        let all: Vec<&TcpListener> = self.ours.iter().chain(&self.providers).collect();
        let mut ready: Vec<PollFd<'_>> = all
            .iter()
            .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut ready, PollTimeout::from(10_000_u16)).unwrap();
        let accepted = ready.iter().position(|one| one.any() == Some(true));
        let accepted = accepted.expect("a connection that the application made was accepted");
        let (_, peer) = all[accepted].accept().unwrap();
        if accepted < self.ours.len() {
            Outcome::Redirected { sees, peer }
        } else {
            Outcome::Direct { sees }
        }
    }
}

impl Connected {
    fn parse(answer: &str) -> Self {
        let mut words = answer.split(' ');
        let mut next = || {
            words
                .next()
                .unwrap_or_else(|| panic!("not a connection: {answer:?}"))
        };
        Self {
            peer: next().parse().unwrap(),
            local: next().parse().unwrap(),
            cookie: next().parse().unwrap(),
        }
    }
}

/// A process that does as it is told: see `application.rs`.
pub(crate) struct Application {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Application {
    pub(crate) fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_redirect-application"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self {
            process,
            commands,
            answers,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The answer, or the errno.
    pub(crate) fn ask(&mut self, command: &str) -> Result<String, i32> {
        writeln!(self.commands, "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        match answer.trim_end_matches('\n').split_once(' ') {
            Some(("ok", answer)) => Ok(answer.to_owned()),
            Some(("error", errno)) => Err(errno
                .parse()
                .unwrap_or_else(|_| panic!("{command}: {errno}"))),
            _ => panic!("{command}: expected an answer, found {answer:?}"),
        }
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have been killed by its test.
        let _already_dead = self.process.kill();
        let _already_waited = self.process.wait();
    }
}

/// A cgroup of the test's own, removed at its end.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    pub(crate) fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-test-{}-{number}", process::id());
        let path = cgroup2_mount().unwrap().join(name);
        fs::create_dir(&path).expect("the kernel tier needs root");
        Self(path)
    }

    pub(crate) fn add(&self, pid: u32) {
        move_to(&self.0, pid);
    }

    /// What the kernel calls it.
    pub(crate) fn id(&self) -> u64 {
        fs::metadata(&self.0).unwrap().ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _left_when_the_test_failed = fs::remove_dir(&self.0);
    }
}

/// Moves a process into a cgroup.
pub(crate) fn move_to(cgroup: &Path, pid: u32) {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
}

const ADDRESSES: &str = "\
link set lo up
addr add 192.0.2.7/32 dev lo
addr add 2001:db8::7/128 dev lo nodad
";

/// Where the application believes to connect to (RFC 5737, RFC 3849), and places that are never redirected.
const PROVIDERS: [&str; 5] = [
    "192.0.2.7:443",
    "192.0.2.7:8443",
    "[2001:db8::7]:443",
    "192.0.2.7:80",
    "127.0.0.1:443",
];
