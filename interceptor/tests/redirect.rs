//! The redirect by the packet filter and by kernel programs, for real: root, in network namespaces
//! of the tests' own. Where they may not be made, these tests fail.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use weir::capture::{self, Capture, Mode, Request};
use weir::process::config::Fail;
use weir::process::leftovers::Leftovers;
use weir::process::state::StateDirectory;

/// TEST-NET-1 (RFC 5737), given to a device of the namespace: what goes there without a redirect
/// reaches a listener of the test.
const PROVIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The same in IPv6 (RFC 3849).
const PROVIDER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const PORT: u16 = 443;
/// What never comes within this time does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Within which connections go direct where Weir was killed.
const A_SECOND: Duration = Duration::from_secs(1);

/// A network namespace with a provider, a cgroup for the application, and a capture.
struct World {
    capture: Option<Capture>,
    leftovers: Option<Leftovers>,
    provider: TcpListener,
    cgroup: PathBuf,
    _state: tempfile::TempDir,
}

/// Enters a network namespace in which the provider is at home and the rest is silent.
fn enter_namespace() {
    // Of this thread, which the test has for itself; children are started from it.
    unshare(CloneFlags::CLONE_NEWNET).expect("expected root");
    for arguments in [
        "link set lo up",
        "link add outside type veth peer name far",
        "addr add 192.0.2.1/24 dev outside",
        "addr add 2001:db8::1/64 dev outside nodad",
        "link set far up",
        "link set outside up",
        "route add default via 192.0.2.2",
        "-6 route add default via 2001:db8::2",
    ] {
        let status = Command::new("ip")
            .args(arguments.split(' '))
            .status()
            .unwrap();
        assert!(status.success(), "ip {arguments}");
    }
    // That nobody is at an address is known after a tenth of a second, not after three.
    for (name, value) in [("mcast_solicit", "1"), ("retrans_time_ms", "100")] {
        std::fs::write(format!("/proc/sys/net/ipv4/neigh/outside/{name}"), value).unwrap();
    }
}

impl World {
    fn new(mode: Mode, fail: Fail, address: IpAddr) -> Self {
        enter_namespace();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mount = weir_probes::cgroup2_mount().unwrap();
        let cgroup = mount.join(format!(
            "weir-test-{}-{number}/application",
            std::process::id()
        ));
        std::fs::create_dir_all(&cgroup).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(Some(&directory.path().join("state"))).unwrap();
        let mut leftovers = Leftovers::start(&state).unwrap();
        let request = Request {
            mode: Some(mode),
            command: capture::Command::Cgroup(cgroup.clone()),
            uid: 0,
            ports: vec![PORT],
            fail,
        };
        let capture = capture::open(&request, &mut leftovers).unwrap().capture;
        assert_eq!(capture.mode(), mode);
        capture.heartbeat().unwrap();
        Self {
            capture: Some(capture),
            leftovers: Some(leftovers),
            provider: TcpListener::bind((address, PORT)).unwrap(),
            cgroup,
            _state: directory,
        }
    }

    fn capture(&self) -> &Capture {
        self.capture.as_ref().unwrap()
    }

    fn address(&self) -> IpAddr {
        self.provider.local_addr().unwrap().ip()
    }

    fn redirected(&self) -> TcpListener {
        let is_v6 = self.address().is_ipv6();
        self.capture()
            .listeners()
            .unwrap()
            .remove(usize::from(is_v6))
    }

    /// A shell of the application, with `$1` and `$2` the provider's address and port.
    fn application(&self, script: &str) -> Child {
        let enter = format!(
            "echo $$ > {}/cgroup.procs || exit 99; {script}",
            self.cgroup.display()
        );
        self.outside(&enter)
    }

    /// A shell outside of the application's cgroup.
    fn outside(&self, script: &str) -> Child {
        Command::new("bash")
            .args([
                "-c",
                script,
                "bash",
                &self.address().to_string(),
                &PORT.to_string(),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Connects again and again until the provider answers, or not, as `want` says.
    fn connects_directly_within_patience(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let child = self.application(CONNECT);
            let listeners = [&self.provider];
            let came = first_ready(&listeners, Duration::from_millis(300)).is_some();
            if came {
                drop(self.provider.accept().unwrap());
            }
            end(child);
            if came {
                return true;
            }
        }
        false
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.capture.take());
        if let Some(leftovers) = self.leftovers.take() {
            leftovers.undo();
        }
        std::fs::write(self.cgroup.join("cgroup.kill"), "1").unwrap();
        for directory in [self.cgroup.as_path(), self.cgroup.parent().unwrap()] {
            let start = Instant::now();
            // A process that was killed stays in it for a moment.
            while std::fs::remove_dir(directory).is_err() && start.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        }
    }
}

const CONNECT: &str = "exec 3<>/dev/tcp/$1/$2 && echo hello >&3 && exec cat <&3";

/// The index of the first listener with a connection.
fn first_ready(listeners: &[&TcpListener], timeout: Duration) -> Option<usize> {
    let mut descriptors: Vec<PollFd<'_>> = listeners
        .iter()
        .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
        .collect();
    let timeout = PollTimeout::try_from(timeout.as_millis()).unwrap();
    poll(&mut descriptors, timeout).unwrap();
    descriptors
        .iter()
        .position(|descriptor| descriptor.any() == Some(true))
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn tables() -> String {
    let output = Command::new("nft")
        .args(["list", "tables"])
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn check_a_redirected_connection(mode: Mode, address: IpAddr) {
    let world = World::new(mode, Fail::Open, address);
    let listener = world.redirected();
    let child = world.application(CONNECT);
    assert_eq!(
        first_ready(&[&listener, &world.provider], PATIENCE),
        Some(0)
    );
    let (mut stream, peer) = listener.accept().unwrap();
    let flow = world.capture().flow(stream.as_fd(), peer).unwrap();
    assert_eq!(flow.destination, Some(SocketAddr::from((address, PORT))));
    assert_eq!(flow.pid, Some(child.id()));
    assert_eq!(flow.uid, 0);
    assert_eq!(
        flow.cgroup_id,
        std::fs::metadata(&world.cgroup).unwrap().ino()
    );
    assert_ne!(flow.socket_cookie, 0);
    stream.set_nonblocking(false).unwrap();
    let mut hello = [0; 6];
    stream.read_exact(&mut hello).unwrap();
    stream.write_all(b"answer\n").unwrap();
    drop(stream);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (&hello, output.stdout.as_slice()),
        (b"hello\n", &b"answer\n"[..])
    );
}

#[test]
fn the_application_is_redirected_and_where_it_went_is_known() {
    for mode in [Mode::Ebpf, Mode::Redirect] {
        for address in [PROVIDER, PROVIDER_V6] {
            // A thread each: the namespace is the thread's.
            let checked = std::thread::spawn(move || check_a_redirected_connection(mode, address));
            assert!(checked.join().is_ok(), "{mode} {address}");
        }
    }
}

#[test]
fn others_are_not_redirected_and_cannot_use_the_listener() {
    for mode in [Mode::Ebpf, Mode::Redirect] {
        // A thread each: the namespace is the thread's.
        std::thread::spawn(move || {
            let world = World::new(mode, Fail::Open, PROVIDER);
            let listener = world.redirected();
            let child = world.outside(CONNECT);
            assert_eq!(
                first_ready(&[&listener, &world.provider], PATIENCE),
                Some(1)
            );
            end(child);
            let address = listener.local_addr().unwrap();
            let _intruder = std::net::TcpStream::connect(address).unwrap();
            assert_eq!(first_ready(&[&listener], PATIENCE), Some(0));
            let (stream, peer) = listener.accept().unwrap();
            assert_eq!(world.capture().flow(stream.as_fd(), peer), None, "{mode}");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn quic_is_refused_at_once() {
    for mode in [Mode::Ebpf, Mode::Redirect] {
        std::thread::spawn(move || {
            let world = World::new(mode, Fail::Open, PROVIDER);
            // Programs in the kernel refuse the connect; the packet filter can only refuse to send.
            let expected = match mode {
                Mode::Redirect => "Operation not permitted",
                Mode::Ebpf | Mode::Proxy => "Connection refused",
            };
            let script = "exec 3<>/dev/udp/$1/$2 && echo datagram >&3";
            let output = world.application(script).wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(expected), "{mode}: {said}");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_weir_that_hangs_is_gone_around() {
    for mode in [Mode::Ebpf, Mode::Redirect] {
        std::thread::spawn(move || {
            let world = World::new(mode, Fail::Open, PROVIDER);
            // No heartbeat comes any more, and nobody accepts.
            assert!(world.connects_directly_within_patience(), "{mode}");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_closed_packet_filter_outlives_weir_and_refuses_until_it_is_cleaned_up() {
    let mut world = World::new(Mode::Redirect, Fail::Closed, PROVIDER);
    drop(world.capture.take());
    assert!(tables().contains("table inet weir_"), "{}", tables());
    let output = world.application(CONNECT).wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Connection refused"), "{said}");
    assert!(world.leftovers.take().unwrap().undo().is_empty());
    assert_eq!(tables(), "");
    assert!(world.connects_directly_within_patience());
}

#[test]
fn an_open_packet_filter_goes_with_weir_even_when_it_is_killed() {
    unshare(CloneFlags::CLONE_NEWNET).expect("expected root");
    let directory = tempfile::tempdir().unwrap();
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--mode", "redirect", "--state-dir"])
        .arg(directory.path().join("state"))
        .args(["--", "sh", "-c", "echo ready; exec sleep 1000"])
        .env_remove("SUDO_UID")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = weir.stdout.take().unwrap();
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    assert!(tables().contains("table inet weir_"), "{}", tables());
    let command = only_child_named("sleep", weir.id());
    weir.kill().unwrap();
    weir.wait().unwrap();
    let start = Instant::now();
    while !tables().is_empty() {
        assert!(start.elapsed() < A_SECOND, "{}", tables());
        std::thread::yield_now();
    }
    let command = nix::unistd::Pid::from_raw(command.try_into().unwrap());
    nix::sys::signal::kill(command, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn only_child_named(name: &str, parent: u32) -> u32 {
    let task = format!("/proc/{parent}/task/{parent}/children");
    let children = std::fs::read_to_string(task).unwrap();
    let is_named = |pid: &&str| {
        std::fs::read_to_string(Path::new("/proc").join(pid).join("comm"))
            .is_ok_and(|comm| comm.trim() == name)
    };
    // `exec` may be a moment away.
    let start = Instant::now();
    loop {
        if let Some(pid) = children.split_ascii_whitespace().find(is_named) {
            return pid.parse().unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "{children}");
        std::thread::yield_now();
    }
}

/// What a process of the command's meets that tries to connect to an address where nobody
/// is, when Weir is gone.
fn meets_without_weir(mode: &str, fail: &str, ends: Ends) -> String {
    enter_namespace();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(
        path("weir.toml"),
        format!("[intercept]\nfail = \"{fail}\"\n"),
    )
    .unwrap();
    for name in ["go", "met"] {
        nix::unistd::mkfifo(&path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let last = match ends {
        Ends::WithItsCommand => "exit 0",
        Ends::Killed => "exec sleep 1000",
    };
    let attempt = r#"read x < "$0/go"; (exec 3<>/dev/tcp/192.0.2.9/443) 2> "$0/met""#;
    let script = format!(r#"bash -c '{attempt}' "$0" > /dev/null 2>&1 & echo ready; {last}"#);
    let weir = |arguments: &[&std::ffi::OsStr]| {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(["run", "--mode", mode, "--config"])
            .arg(path("weir.toml"));
        weir.arg("--state-dir")
            .arg(path("state"))
            .args(arguments)
            .env_remove("SUDO_UID");
        weir
    };
    let arguments = [
        "bash".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
        directory.path().as_os_str(),
    ];
    let mut child = weir(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    let mut sleep = None;
    if ends == Ends::Killed {
        sleep = Some(only_child_named("sleep", child.id()));
        child.kill().unwrap();
    }
    child.wait().unwrap();
    let start = Instant::now();
    // The process that holds the table hears of a kill a moment later.
    while fail == "open" && !tables().is_empty() {
        assert!(start.elapsed() < A_SECOND, "{}", tables());
        std::thread::yield_now();
    }
    std::fs::write(path("go"), "\n").unwrap();
    let met = std::fs::read_to_string(path("met")).unwrap();
    if let Some(sleep) = sleep {
        let sleep = nix::unistd::Pid::from_raw(sleep.try_into().unwrap());
        nix::sys::signal::kill(sleep, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    // Now that nobody is left to be refused, the next start cleans up.
    let start = Instant::now();
    loop {
        assert!(weir(&["true".as_ref()]).status().unwrap().success());
        let left = std::fs::read_dir(path("state/run")).unwrap().count();
        if left == 0 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{left} files are left");
    }
    assert_eq!(tables(), "");
    met
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    WithItsCommand,
    Killed,
}

#[test]
fn without_weir_processes_of_the_command_are_refused_or_go_direct_as_told() {
    for (fail, expected) in [
        ("closed", "Connection refused"),
        ("open", "No route to host"),
    ] {
        for mode in ["ebpf", "redirect"] {
            for ends in [Ends::WithItsCommand, Ends::Killed] {
                let met = std::thread::spawn(move || meets_without_weir(mode, fail, ends));
                let met = met.join().unwrap();
                assert!(met.contains(expected), "{mode} {fail} {ends:?}: {met}");
            }
        }
    }
}

#[test]
fn through_sudo_the_command_runs_as_the_user_who_can_read_the_ca() {
    let directory = tempfile::tempdir().unwrap();
    let script = r#"id -u; id -g; id -G; echo "$HOME"; cat "$NODE_EXTRA_CA_CERTS" | head -1"#;
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--state-dir"])
        .arg(directory.path().join("state"))
        .args(["--", "sh", "-c", script])
        .envs([
            ("SUDO_UID", "65534"),
            ("SUDO_GID", "65534"),
            ("SUDO_USER", "nobody"),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let home = nix::unistd::User::from_uid(65534.into())
        .unwrap()
        .unwrap()
        .dir;
    let expected = format!(
        "65534\n65534\n65534\n{}\n-----BEGIN CERTIFICATE-----\n",
        home.display()
    );
    assert_eq!(
        text,
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
