//! What a Weir leaves that was killed, and what is left of it where its state directory goes. Root, in
//! namespaces of the tests' own: where they may not be made, these tests fail.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weir::capture;

/// Runs a command below a Weir.
fn run(state: &Path, command: &[&str]) -> Output {
    // Certificates for programs would stay for others.
    let (none, public): (Option<&str>, _) = (None, "/run/weir");
    std::fs::create_dir_all(public).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).expect("expected root");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
    mount(none, public, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let config = state.parent().unwrap().join("weir.toml");
    std::fs::write(&config, "[admin]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(["run", "--config"]).arg(config);
    weir.arg("--state-dir").arg(state).arg("--").args(command);
    weir.env_remove("SUDO_UID").stdin(Stdio::null());
    weir.output().unwrap()
}

#[test]
fn status_finds_a_process_whose_state_directory_has_a_long_path() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("a".repeat(200));
    let path = state.to_str().unwrap();
    let weir = env!("CARGO_BIN_EXE_weir");
    let output = run(&state, &[weir, "status", "--state-dir", path]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(", fail open\n"), "{said}");
}

#[test]
fn a_state_directory_that_was_removed_meanwhile_is_told_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let said = |command: &[&str]| String::from_utf8(run(&state, command).stderr).unwrap();
    let lost = "was removed meanwhile: what weir recorded is lost";
    let removed = said(&["rm", "-r", state.to_str().unwrap()]);
    assert!(removed.contains(lost), "{removed}");
    let kept = said(&["true"]);
    assert!(!kept.contains(lost), "{kept}");
}

#[test]
fn tables_of_dead_processes_are_removed_and_no_others() {
    unshare(CloneFlags::CLONE_NEWNET).expect("expected root");
    // More than the largest number of a process: proc_sys_kernel(5).
    let dead = 1 << 23;
    let alive = std::process::id();
    let names = [
        format!("weir_{dead}_1"),
        format!("weir_{dead}_2"),
        format!("weir_{alive}_1"),
        format!("other_{dead}_1"),
        format!("weir_{dead}_x"),
    ];
    let nft = |command: String| {
        let status = Command::new("nft").arg(command).status().unwrap();
        assert!(status.success());
    };
    for name in &names {
        nft(format!("add table inet {name}"));
        nft(format!(
            "add set inet {name} alive {{ type inet_service; }}"
        ));
    }
    // As a heartbeat does, of a process in another container.
    nft(format!("add element inet {} alive {{ 443 }}", names[1]));
    assert_eq!(capture::clean_stale_tables(), names[..1]);
    let listed = Command::new("nft")
        .args(["list", "tables"])
        .output()
        .unwrap();
    let left = String::from_utf8(listed.stdout).unwrap();
    assert!(!left.contains(&names[0]), "{left}");
    assert!(names[1..].iter().all(|name| left.contains(name)), "{left}");
}
