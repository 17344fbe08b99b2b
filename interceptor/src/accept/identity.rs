//! Who opened a connection: the process behind the kernel's numbers.

use std::fs;
use std::sync::Arc;

use crate::capture::Flow;
use crate::ledger::Identity;

/// The application behind a connection.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    pub(crate) identity: Identity,
    /// Path of the executable; empty where it is not known. Trust is remembered by it.
    pub(crate) executable: Arc<str>,
}

/// Looks up what the kernel's numbers stand for. Reads a few files of `/proc`, which take some
/// microseconds and never block; what is gone or unreadable stays unknown.
pub(crate) fn identify(flow: &Flow) -> Application {
    let executable = flow
        .pid
        .and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok())
        .map(|path| {
            path.to_string_lossy()
                .trim_end_matches(" (deleted)")
                .to_owned()
        })
        .unwrap_or_default();
    let cgroups = flow
        .pid
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok())
        .unwrap_or_default();
    let program = executable
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty());
    Application {
        identity: Identity {
            pid: flow.pid,
            program: program.map(str::to_owned),
            uid: Some(flow.uid),
            user: user_name(flow.uid),
            cgroup: unified_path(&cgroups).or_else(|| Some(flow.cgroup_id.to_string())),
            container: container_id(&cgroups),
            ..Identity::default()
        },
        executable: Arc::from(executable),
    }
}

fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??;
    Some(user.name)
}

/// The path in the cgroup2 hierarchy, of `/proc/PID/cgroup` (cgroups(7): `0::PATH`).
fn unified_path(cgroups: &str) -> Option<String> {
    cgroups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

/// The container id in any cgroup path: Docker, containerd, CRI-O and Podman all end a path
/// component with 64 hexadecimal digits.
fn container_id(cgroups: &str) -> Option<String> {
    cgroups
        .split(['/', '-', ':', '.', '\n'])
        .rev()
        .find(|part| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3b1f8a0c2d4e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8";

    #[test]
    fn container_ids_are_found_in_the_paths_of_every_runtime() {
        for path in [
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("12:pids:/docker/{ID}\n0::/"),
            format!("0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-{ID}.scope"),
            format!("0::/machine.slice/libpod-{ID}.scope/container"),
            format!("0::/kubepods/besteffort/pod1/crio-{ID}"),
        ] {
            assert_eq!(container_id(&path).as_deref(), Some(ID), "{path}");
        }
        assert_eq!(
            container_id("0::/user.slice/user-1000.slice/session-2.scope"),
            None
        );
    }

    #[test]
    fn an_unknown_process_leaves_only_what_the_kernel_said() {
        let flow = Flow {
            destination: Some("192.0.2.7:443".parse().unwrap()),
            pid: Some(u32::MAX),
            uid: 0,
            cgroup_id: 7,
            socket_cookie: 0,
        };
        let identity = identify(&flow).identity;
        assert_eq!(identity.program, None);
        assert_eq!(identity.user.as_deref(), Some("root"));
        assert_eq!(identity.cgroup.as_deref(), Some("7"));
    }
}
