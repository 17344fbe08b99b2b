//! The life of an attachment: its own sockets, its end, and what remains when its process is stopped or killed.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weir_probes::{
    ChildCgroup, Fail, LoadError, Options, Redirect, STALE_AFTER, cgroup2_mount, clean_stale,
};

use super::world::{Application, Cgroup, Namespace, Outcome, Setup, World, move_to};

/// A Weir in a process of its own, and an application in its cgroup.
struct Remote {
    // In this order: the cgroup can be removed when the application is gone.
    application: Application,
    weir: Application,
    cgroup: PathBuf,
    namespace: Namespace,
}

impl Remote {
    fn start(fail: &str) -> Self {
        // Its listener is the remote Weir's: here it is only known that no provider accepted.
        let mut namespace = Namespace::enter();
        namespace.ours.clear();
        let mut weir = Application::start();
        let cgroup = PathBuf::from(weir.ask(&format!("weir {fail}")).unwrap());
        let application = Application::start();
        move_to(&cgroup, application.pid());
        Self {
            application,
            weir,
            cgroup,
            namespace,
        }
    }

    /// Whether a connection to the provider was redirected; otherwise what became of it.
    fn attempt(&mut self) -> Result<(), Outcome> {
        let answer = self
            .application
            .ask("connect tcp4 192.0.2.7:443 nonblocking");
        match &answer {
            // The local address tells: a redirected socket speaks from loopback, a direct one from the provider's
            // address, which here is the machine's own.
            Ok(answer) if answer.contains(" 127.0.0.1:") => Ok(()),
            _ => Err(self.namespace.outcome(answer)),
        }
    }

    /// When the last connection that was redirected began, and what became of the first that was not. A stopped
    /// listener still completes handshakes in the kernel: without the heartbeat this would be a black hole.
    fn attempt_until_not_redirected(&mut self) -> (Instant, Outcome) {
        let mut last_redirected = None;
        loop {
            let begun = Instant::now();
            if let Err(outcome) = self.attempt() {
                return (
                    last_redirected.expect("the first came too late to be redirected"),
                    outcome,
                );
            }
            last_redirected = Some(begun);
            // Nobody accepts: more than 128 connections would fill the listener's queue.
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn beat(&mut self) {
        self.weir.ask("beat").unwrap();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.application.kill();
        self.weir.kill();
        clean_stale().unwrap();
    }
}

#[test]
fn killed_and_failing_open_connections_go_direct_at_once() {
    let mut remote = Remote::start("open");
    remote.beat();
    assert_eq!(remote.attempt(), Ok(()));
    remote.weir.kill();
    assert!(remote.attempt().unwrap_err().is_direct_to("192.0.2.7:443"));
}

#[test]
fn killed_and_failing_closed_connections_are_refused_until_the_last_program_is_gone() {
    let mut remote = Remote::start("closed");
    remote.beat();
    assert_eq!(remote.attempt(), Ok(()));
    remote.weir.kill();
    assert!(remote.attempt().unwrap_err().is_refused());

    let name = remote.cgroup.file_name().unwrap();
    let pins = Path::new("/sys/fs/bpf/weir").join(name);
    assert_eq!(fs::read_dir(&pins).unwrap().count(), 7);
    clean_stale().unwrap();
    assert!(
        remote.attempt().unwrap_err().is_refused(),
        "cleaning must not open what is closed"
    );

    remote.application.kill();
    clean_stale().unwrap();
    assert!(!pins.exists());
    assert!(!remote.cgroup.exists());
}

#[test]
fn stopped_connections_go_direct_once_the_heartbeat_is_a_second_old() {
    let mut remote = Remote::start("open");
    remote.beat();
    let beaten_by = Instant::now();
    let pid = Pid::from_raw(remote.weir.pid().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let (last_redirected, outcome) = remote.attempt_until_not_redirected();
    assert!(last_redirected.duration_since(beaten_by) <= STALE_AFTER);
    assert!(outcome.is_direct_to("192.0.2.7:443"), "{outcome:?}");
}

#[test]
fn stopped_and_failing_closed_connections_are_refused_once_the_heartbeat_is_a_second_old() {
    let mut remote = Remote::start("closed");
    let pid = Pid::from_raw(remote.weir.pid().cast_signed());
    remote.beat();
    kill(pid, Signal::SIGSTOP).unwrap();
    let (_, outcome) = remote.attempt_until_not_redirected();
    assert!(outcome.is_refused(), "{outcome:?}");
}

#[test]
fn a_socket_of_our_own_is_not_redirected_even_within_the_cgroup() {
    let mut remote = Remote::start("closed");
    remote.weir.ask("enter").unwrap();
    remote.beat();
    let untagged = remote.weir.ask("connect tcp4 192.0.2.7:443").unwrap();
    assert!(untagged.contains(" 127.0.0.1:"), "{untagged}");
    let answer = remote.weir.ask("upstream tcp4 192.0.2.7:443");
    let outcome = remote.namespace.outcome(answer);
    assert!(outcome.is_direct_to("192.0.2.7:443"), "{outcome:?}");
}

#[test]
fn a_dropped_redirect_detaches() {
    // The last named is the first dropped: the application leaves the cgroup before it is removed.
    let World {
        cgroup: _cgroup,
        redirect,
        namespace,
        mut application,
    } = World::new(Setup::ALL);
    drop(redirect);
    let outcome = namespace.outcome(application.ask("connect tcp4 192.0.2.7:443"));
    assert!(outcome.is_direct_to("192.0.2.7:443"), "{outcome:?}");
}

#[test]
fn pins_outlive_a_dropped_redirect_and_not_a_detached_one() {
    let cgroup = Cgroup::create();
    let pins = Path::new("/sys/fs/bpf").join(cgroup.0.file_name().unwrap());
    let options = Options {
        cgroup: &cgroup.0,
        ports: &[443],
        fail: Fail::Closed,
        pin: Some(&pins),
    };
    Redirect::attach(&options).unwrap().detach().unwrap();
    assert!(!pins.exists());

    drop(Redirect::attach(&options).unwrap());
    assert_eq!(fs::read_dir(&pins).unwrap().count(), 7);
    let occupied = Redirect::attach(&options).unwrap_err();
    assert!(matches!(occupied, LoadError::Pin { .. }), "{occupied}");
    assert_eq!(
        fs::read_dir(&pins).unwrap().count(),
        7,
        "a failed attach touches no pin of another"
    );
    fs::remove_dir_all(&pins).unwrap();
}

#[test]
fn a_child_cgroup_goes_when_it_is_empty_and_otherwise_waits_for_the_next_start() {
    let application = Application::start();
    let cgroup = ChildCgroup::create().unwrap();
    let path = cgroup.path().to_owned();
    cgroup.add(application.pid()).unwrap();
    drop(cgroup);
    assert!(path.exists(), "it is not empty");
    clean_stale().unwrap();
    assert!(path.exists(), "its process lives");

    drop(application);
    drop(ChildCgroup::create().unwrap());
    assert!(!path.exists());

    let dead = cgroup2_mount().unwrap().join("weir/4194305-1");
    fs::create_dir_all(dead.join("nested/by its program")).unwrap();
    clean_stale().unwrap();
    assert!(!dead.exists());
}

#[test]
fn what_cannot_be_attached_says_what_was_expected() {
    let cgroup = Cgroup::create();
    let attach = |cgroup: &Path, ports: &[u16]| {
        Redirect::attach(&Options {
            cgroup,
            ports,
            fail: Fail::Open,
            pin: None,
        })
        .unwrap_err()
    };
    assert!(matches!(
        attach(Path::new("/proc"), &[443]),
        LoadError::NotCgroup2 { .. }
    ));
    assert!(matches!(
        attach(Path::new("/nowhere"), &[443]),
        LoadError::Cgroup { .. }
    ));
    assert!(matches!(attach(&cgroup.0, &[]), LoadError::Ports { .. }));
    let elsewhere = tempfile::tempdir().unwrap();
    let pin = Options {
        cgroup: &cgroup.0,
        ports: &[443],
        fail: Fail::Closed,
        pin: Some(elsewhere.path()),
    };
    assert!(matches!(
        Redirect::attach(&pin),
        Err(LoadError::NoBpffs { .. })
    ));
}
