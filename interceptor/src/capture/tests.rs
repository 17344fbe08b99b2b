//! The ladder, on whatever this machine allows.

use super::*;
use crate::process::config::Fail;
use crate::process::leftovers::Leftovers;
use crate::process::state::StateDirectory;

fn without_cgroup(mode: Option<Mode>, fail: Fail) -> (Request, Leftovers, tempfile::TempDir) {
    let parent = tempfile::tempdir().unwrap();
    let state = StateDirectory::open(Some(&parent.path().join("state"))).unwrap();
    let request = Request {
        mode,
        command: Command::Descendants {
            reason: "this is a test".into(),
        },
        uid: nix::unistd::getuid().as_raw(),
        ports: vec![443],
        fail,
    };
    (request, Leftovers::start(&state).unwrap(), parent)
}

#[test]
fn each_step_down_the_ladder_is_said_with_its_reason() {
    let (request, mut leftovers, _directory) = without_cgroup(None, Fail::Open);
    let opened = open(&request, &mut leftovers).unwrap();
    assert_eq!(opened.capture.mode(), Mode::Proxy);
    let expected = [
        "no mode ebpf: expected a cgroup for the command, found: this is a test",
        "no mode redirect: for the same reason",
    ];
    assert_eq!(opened.steps, expected);
}

#[test]
fn what_must_fail_closed_never_rests_on_a_proxy() {
    let (request, mut leftovers, _directory) = without_cgroup(None, Fail::Closed);
    let error = open(&request, &mut leftovers).unwrap_err().to_string();
    assert!(error.contains("no mode redirect"), "{error}");
    let (request, mut leftovers, _directory) = without_cgroup(Some(Mode::Proxy), Fail::Closed);
    let opened = open(&request, &mut leftovers).unwrap();
    assert!(
        opened.steps[0].contains("cannot be kept"),
        "{:?}",
        opened.steps
    );
}

#[test]
fn a_way_that_was_asked_for_is_not_replaced_by_another() {
    let (request, mut leftovers, _directory) = without_cgroup(Some(Mode::Ebpf), Fail::Open);
    let error = open(&request, &mut leftovers).unwrap_err().to_string();
    assert!(
        error.contains("no mode ebpf") && !error.contains("redirect"),
        "{error}"
    );
}

#[test]
fn the_command_is_told_of_the_proxy_in_each_spelling() {
    let (request, mut leftovers, _directory) = without_cgroup(Some(Mode::Proxy), Fail::Open);
    let capture = open(&request, &mut leftovers).unwrap().capture;
    let address = capture.listeners().unwrap()[0].local_addr().unwrap();
    let environment = capture.environment();
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let expected = (name.into(), format!("http://{address}").into());
        assert!(environment.contains(&expected), "{environment:?}");
    }
    assert!(environment.contains(&("NODE_USE_ENV_PROXY".into(), "1".into())));
}

#[test]
fn readiness_follows_the_heartbeat() {
    let (request, mut leftovers, _directory) = without_cgroup(Some(Mode::Proxy), Fail::Open);
    let capture = open(&request, &mut leftovers).unwrap().capture;
    assert!(capture.ready().unwrap_err().contains("none yet"));
    capture.heartbeat().unwrap();
    assert_eq!(capture.ready(), Ok(()));
    let long_ago = Instant::now().checked_sub(HEARTBEAT_AGE_MAX * 2).unwrap();
    *capture.last_heartbeat.lock().unwrap() = Some(long_ago);
    assert!(capture.ready().unwrap_err().contains("the last was"));
}
