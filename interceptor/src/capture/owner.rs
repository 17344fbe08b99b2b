//! Whose a connection is, where no program in the kernel says so: the socket with its address, and
//! the process of the command that holds this socket.
//!
//! It is a look after the fact: a process that has ended, or passed its socket on, is not found.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Command, Flow, sock_diag};

/// A socket of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) inode: u64,
    pub(super) uid: u32,
}

/// The socket of this network namespace that is connected from `local` to `remote`.
pub(super) fn socket(local: SocketAddr, remote: SocketAddr) -> Option<Socket> {
    let (local, remote) = (canonical(local), canonical(remote));
    match sock_diag::find(local, remote) {
        Ok(found) => found,
        Err(error) => {
            // A kernel may be built without it.
            tracing::debug!(%error, "sock_diag has no answer: all sockets are read");
            listed(local, remote)
        }
    }
}

/// The same, among all sockets of the namespace.
fn listed(local: SocketAddr, remote: SocketAddr) -> Option<Socket> {
    // An IPv4 connection of an IPv6 socket stands in the second file.
    ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .iter()
        .find_map(|path| {
            let table = std::fs::read_to_string(path).ok()?;
            find_socket(&table, local, remote)
        })
}

fn find_socket(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<Socket> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        // Slot, local, remote, state, queues, timer, retransmissions, uid, timeout, inode.
        let [_, here, there, _, _, _, _, uid, _, inode] = fields.as_slice() else {
            return None;
        };
        if parse_address(here)? != local || parse_address(there)? != remote {
            return None;
        }
        Some(Socket {
            inode: inode.parse().ok()?,
            uid: uid.parse().ok()?,
        })
    })
}

/// `0100007F:1F90`: the address in words of 32 bits as they lie in memory, the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0_u8; 16];
    let words = address.len().checked_div(8)?;
    for (index, chunk) in bytes.chunks_exact_mut(4).take(words).enumerate() {
        let start = index.checked_mul(8)?;
        let word = u32::from_str_radix(address.get(start..start.checked_add(8)?)?, 16).ok()?;
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        32 => IpAddr::V6(Ipv6Addr::from(bytes)),
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, port)))
}

/// Without flow label and scope, and v4-mapped as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether the ids by which the kernel knows processes are those of `/proc`: not where that is of another
/// namespace of processes (pid_namespaces(7)) than the first, as in a container.
pub(super) fn knows_process_ids() -> bool {
    let is_first = |path: &str| {
        std::fs::metadata(path).is_ok_and(|namespace| namespace.ino() == FIRST_NAMESPACE)
    };
    // In a namespace below that of `/proc`, this process has more ids than one there.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .map_or(1, |ids| ids.split_ascii_whitespace().count());
    is_first("/proc/self/ns/pid") || (ids > 1 && is_first("/proc/1/ns/pid"))
}

/// The inode of the first namespace of processes (`PROC_PID_INIT_INO` in linux/proc_ns.h).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The processes of the command.
#[derive(Debug)]
pub(super) struct Members {
    command: Command,
}

impl Members {
    pub(super) fn new(command: Command) -> Self {
        Self { command }
    }

    /// What is known of the caller with this socket; without it, nothing.
    pub(super) fn flow(&self, socket: Option<Socket>, destination: Option<SocketAddr>) -> Flow {
        let pid = socket.and_then(|socket| {
            let mut pids = self.pids().into_iter();
            pids.find(|pid| holds(*pid, socket.inode))
        });
        Flow {
            destination,
            pid,
            uid: socket.map(|socket| socket.uid),
            cgroup_id: pid.and_then(|pid| self.cgroup_id(pid)).unwrap_or(0),
            socket_cookie: socket.map_or(0, |socket| socket.inode),
        }
    }

    fn pids(&self) -> Vec<u32> {
        match &self.command {
            Command::Cgroup(path) => in_cgroup(path),
            Command::Descendants { .. } => descendants(std::process::id(), &parents()),
        }
    }

    /// The inode of the process's own cgroup, which may lie below that of the command.
    fn cgroup_id(&self, pid: u32) -> Option<u64> {
        let Command::Cgroup(path) = &self.command else {
            return None;
        };
        let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let name = path.file_name()?.to_str()?;
        let below = own
            .split_once(name)
            .map_or("", |(_, below)| below.trim_start_matches('/'));
        Some(std::fs::metadata(path.join(below)).ok()?.ino())
    }
}

/// Whether the process has the socket open.
fn holds(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        std::fs::read_link(descriptor.path())
            .is_ok_and(|target| target.as_os_str().as_bytes() == wanted.as_bytes())
    })
}

/// The processes of a cgroup and of those below it.
#[must_use]
pub fn in_cgroup(path: &Path) -> Vec<u32> {
    let mut pids = vec![];
    let mut directories: VecDeque<PathBuf> = VecDeque::from([path.to_owned()]);
    while let Some(directory) = directories.pop_front() {
        let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        let below = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.extend(below.map(|entry| entry.path()));
    }
    pids
}

/// The parent of each process that is running now.
fn parents() -> HashMap<u32, u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, parent_of(pid)?)))
        .collect()
}

/// The parent of a process that is running now; 0, which is no process, where it has none here.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, parentheses too.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn descendants(of: u32, parents: &HashMap<u32, u32>) -> Vec<u32> {
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next = next.saturating_add(1);
        found.extend(
            parents
                .iter()
                .filter(|entry| *entry.1 == parent)
                .map(|entry| *entry.0),
        );
    }
    found.remove(0);
    found
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let parsed = |text| parse_address(text).map(|address| address.to_string());
        if cfg!(target_endian = "little") {
            assert_eq!(parsed("0100007F:01BB").as_deref(), Some("127.0.0.1:443"));
            let one = "00000000000000000000000001000000:0050";
            assert_eq!(parsed(one).as_deref(), Some("[::1]:80"));
            let mapped = "0000000000000000FFFF00000100007F:0050";
            assert_eq!(parsed(mapped).as_deref(), Some("127.0.0.1:80"));
        }
        for text in [
            "",
            ":",
            "0100007F",
            "0100007F:",
            "XX00007F:0050",
            "01:0050",
            "ä100007:0050",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn the_process_that_connected_is_found_by_its_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let local = stream.local_addr().unwrap();
        let found = socket(local, listener.local_addr().unwrap()).unwrap();
        assert_eq!(found.uid, nix::unistd::getuid().as_raw());
        assert_eq!(
            listed(local, listener.local_addr().unwrap()),
            Some(found),
            "both ways say the same"
        );
        assert!(holds(std::process::id(), found.inode));
        drop(stream);
        assert!(!holds(std::process::id(), found.inode));
        assert_eq!(socket(local, "127.0.0.1:1".parse().unwrap()), None);
    }

    #[test]
    fn a_caller_whose_socket_is_gone_is_nobody_not_root() {
        let members = Members::new(Command::Descendants {
            reason: "this is a test".into(),
        });
        let destination = "192.0.2.7:443".parse().ok();
        let flow = members.flow(None, destination);
        assert_eq!((flow.uid, flow.pid, flow.socket_cookie), (None, None, 0));
        assert_eq!(flow.destination, destination);
    }

    #[test]
    fn descendants_are_those_below_and_no_others() {
        let parents = HashMap::from([(2, 1), (3, 1), (4, 2), (5, 4), (6, 3), (1, 0)]);
        let mut found = descendants(2, &parents);
        found.sort_unstable();
        assert_eq!(found, [4, 5]);
        assert_eq!(descendants(6, &parents), Vec::<u32>::new());
    }
}
