//! `sudo weir run` by somebody: the command is theirs, and nothing stays behind.
//!
//! The account and its rights exist in the test's mount namespace alone.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    process::Command,
};

use weir_probes::cgroup2_mount;

use crate::world::{Setup, World, installed, success};

/// Somebody's `sudo`.
fn sudo(world: &mut World) -> Command {
    let sudo = installed("sudo", "sudo");
    for (path, line, mode) in [
        (
            "/etc/passwd",
            "weirtest:x:54321:54321::/home/weirtest:/bin/sh",
            0o644,
        ),
        ("/etc/group", "weirtest:x:54321:", 0o644),
        ("/etc/shadow", "weirtest:*:20000:0:99999:7:::", 0o640),
        ("/etc/sudoers", "weirtest ALL=(root) NOPASSWD: ALL", 0o440),
    ] {
        let longer = format!("{}{line}\n", fs::read_to_string(path).unwrap());
        world.lay_over(path, &longer, mode);
    }
    let home = world.path("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(USER), Some(USER)).unwrap();
    let mut command = Command::new(sudo);
    command.uid(USER).gid(USER).current_dir(home).arg("-n");
    command
}

#[test]
fn the_command_is_the_invoking_users_and_nothing_stays_behind() {
    installed("curl", "curl");
    let mut world = World::new(Setup::default());
    let mounts = || fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let mut sudo = sudo(&mut world);
    let before = mounts();
    let weir = world.run(&[], ["sh", "-ec", SCRIPT]);
    sudo.arg(weir.get_program()).args(weir.get_args());
    sudo.env("MINE", "kept")
        .env("HOME", "/home/weirtest")
        .env("BODY", BODY);
    let output = world.output(sudo);
    let said = success(&output);
    let lines: Vec<&str> = said.lines().collect();
    let [id, environment, cgroup, answer] = lines.as_slice() else {
        panic!("{said}")
    };
    assert_eq!(*id, "54321 54321 54321");
    assert_eq!(*environment, "kept /home/weirtest not root's");
    assert!(answer.contains("\"type\":\"message\""), "{answer}");

    assert_eq!(fs::metadata(world.path("home/made")).unwrap().uid(), USER);
    world.books_agree();
    assert_eq!(world.records()[0].user, "weirtest");
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(summary.starts_with("weir: 1 LLM call, $"), "{summary}");

    let cgroup = cgroup.trim_start_matches("0::/");
    assert!(cgroup.contains("weir"), "{cgroup}");
    assert!(!cgroup2_mount().unwrap().join(cgroup).exists(), "{cgroup}");
    assert_eq!(mounts(), before);
    assert_eq!(fs::read_dir(world.path("state/run")).unwrap().count(), 0);
}

#[test]
fn a_code_and_a_signal_pass_through_sudo() {
    for (script, code) in [("exit 7", 7), ("kill -TERM $$", 143)] {
        let mut world = World::new(Setup::default());
        let mut sudo = sudo(&mut world);
        let weir = world.run(&[], ["sh", "-c", script]);
        // As a shell sees it.
        sudo.args(["sh", "-c", r#""$@"; exit $?"#, "sh"]);
        sudo.arg(weir.get_program()).args(weir.get_args());
        assert_eq!(world.output(sudo).status.code(), Some(code), "{script}");
    }
}

/// Anybody who is nobody else.
const USER: u32 = 54_321;

const SCRIPT: &str = r#"
echo "$(id -u) $(id -g) $(id -G)"
echo "$MINE $HOME ${SUDO_UID-not root's}"
grep '^0::' /proc/self/cgroup
touch made
curl -sS -H 'x-api-key: k' -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' \
    -d "$BODY" https://api.anthropic.com/v1/messages
"#;

const BODY: &str = r#"{"model":"claude-haiku-5-5","max_tokens":50,"messages":[{"role":"user","content":"Whose water is this?"}]}"#;
