//! Who opened a connection: the process behind the kernel's numbers.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::script;
use crate::capture::Flow;
use crate::ledger::Identity;

/// The application behind a connection.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    pub(crate) identity: Identity,
    /// Path of the executable, empty where it is not known; of an interpreter, with what tells its
    /// script from others. Trust is remembered by it.
    pub(crate) runs: Arc<str>,
}

/// Looks up what the kernel's numbers stand for. Reads a few files of `/proc`, which take some
/// microseconds and never block; what is gone or unreadable stays unknown.
pub(crate) async fn identify(flow: &Flow) -> Application {
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
    let script = flow
        .pid
        .zip(program)
        .and_then(|(pid, program)| script_of(pid, program));
    let runs = match script {
        Some(script) => format!("{executable} {script:016x}"),
        None => executable.clone(),
    };
    let user = match flow.uid {
        Some(uid) => NAMES.of(uid, user_name).await,
        None => None,
    };
    Application {
        identity: Identity {
            pid: flow.pid,
            program: program.map(str::to_owned),
            uid: flow.uid,
            user,
            cgroup: unified_path(&cgroups).or_else(|| Some(flow.cgroup_id.to_string())),
            container: container_id(&cgroups),
            ..Identity::default()
        },
        runs: Arc::from(runs),
    }
}

/// User names that were looked up, for a while. The account database may be a directory service
/// that takes seconds to answer, so it is asked on a thread that may block.
#[derive(Debug, Default)]
struct Names {
    known: std::sync::Mutex<HashMap<u32, Name>>,
    /// Held during a lookup, so that a burst of connections asks once.
    asking: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Name {
    name: Option<String>,
    asked: Instant,
}

impl Names {
    async fn of(&self, uid: u32, ask: fn(u32) -> Option<String>) -> Option<String> {
        if let Some(known) = self.known(uid) {
            return known.name;
        }
        let _asking = self.asking.lock().await;
        if let Some(known) = self.known(uid) {
            return known.name;
        }
        let name = match tokio::task::spawn_blocking(move || ask(uid)).await {
            Ok(name) => name,
            Err(error) => {
                tracing::error!(%error, uid, "looking for the name of a user ended");
                None
            }
        };
        let asked = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMES_MAX {
            known.clear();
        }
        let entry = Name {
            name: name.clone(),
            asked,
        };
        known.insert(uid, entry);
        name
    }

    fn known(&self, uid: u32) -> Option<Name> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let name = known.get(&uid)?;
        (name.asked.elapsed() < NAME_AGE_MAX).then(|| name.clone())
    }
}

/// Names belong to the machine, so one table serves all listeners.
static NAMES: LazyLock<Names> = LazyLock::new(Names::default);
/// Users of one machine whose names are kept; then all are asked for anew.
const NAMES_MAX: usize = 1024;
/// How long a name is believed. An account that was made or renamed shows up after that.
const NAME_AGE_MAX: Duration = Duration::from_secs(60);

fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??;
    Some(user.name)
}

/// What an interpreter runs.
fn script_of(pid: u32, program: &str) -> Option<u64> {
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    script::of(program, &command_line, &directory)
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

    #[tokio::test]
    async fn an_unknown_process_leaves_only_what_the_kernel_said() {
        let mut flow = Flow {
            destination: Some("192.0.2.7:443".parse().unwrap()),
            pid: Some(u32::MAX),
            uid: Some(0),
            cgroup_id: 7,
            socket_cookie: 0,
        };
        let identity = identify(&flow).await.identity;
        assert_eq!(identity.program, None);
        assert_eq!(identity.user.as_deref(), Some("root"));
        assert_eq!(identity.cgroup.as_deref(), Some("7"));
        flow.uid = None;
        let identity = identify(&flow).await.identity;
        assert_eq!((identity.uid, identity.user), (None, None));
    }

    #[tokio::test]
    async fn a_name_is_asked_for_once_and_not_on_a_thread_that_serves_connections() {
        static ASKED: std::sync::Mutex<Vec<std::thread::ThreadId>> =
            std::sync::Mutex::new(Vec::new());
        let ask = |uid: u32| {
            ASKED.lock().unwrap().push(std::thread::current().id());
            Some(format!("user-{uid}"))
        };
        let names = Names::default();
        let burst = [7, 7, 7].map(|uid| names.of(uid, ask));
        let [first, second, third] = burst;
        let found = tokio::join!(first, second, third);
        let name = Some("user-7".to_owned());
        assert_eq!(found, (name.clone(), name.clone(), name));
        let asked = ASKED.lock().unwrap().clone();
        assert_eq!(asked.len(), 1);
        assert!(!asked.contains(&std::thread::current().id()));
    }

    #[tokio::test]
    async fn names_are_bounded_and_a_user_without_one_is_remembered_too() {
        let names = Names::default();
        for uid in 0..=u32::try_from(NAMES_MAX).unwrap() {
            assert_eq!(names.of(uid, |_| None).await, None);
        }
        assert_eq!(names.known.lock().unwrap().len(), 1);
        let last = u32::try_from(NAMES_MAX).unwrap();
        assert_eq!(names.of(last, |_| Some("asked".into())).await, None);
    }
}
