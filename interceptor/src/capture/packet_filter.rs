//! The redirect by nftables, for kernels that take no programs of ours.
//!
//! One `nft -i` process holds the table: with the flag `owner` the kernel removes the table when
//! that process ends, and it ends when its standard input does, so also when Weir is killed. What
//! covers a Weir that hangs is a set of ports whose elements live for a second and are renewed by
//! each heartbeat. With `fail = "closed"` the table has no owner and outlives Weir, the set runs
//! empty, and connections are refused.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use crate::process::config::Fail;
use crate::process::limits::{HEARTBEAT_AGE_MAX, PACKET_FILTER_TIMEOUT_MS};

/// What is to be redirected, and to where.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Name of the table, unlike that of any other Weir.
    pub(super) table: String,
    /// Directory of the command's cgroup.
    pub(super) cgroup: PathBuf,
    /// Where cgroup2 is mounted.
    pub(super) cgroup_mount: PathBuf,
    /// Destination ports to redirect.
    pub(super) ports: Vec<u16>,
    /// Port of the listeners.
    pub(super) listener: u16,
    /// Whether one of them is on ::1.
    pub(super) v6: bool,
    /// What happens when Weir is dead or hangs.
    pub(super) fail: Fail,
}

/// A table of the packet filter, in force while this lives.
#[derive(Debug)]
pub(super) struct PacketFilter {
    renewal: String,
    nft: Mutex<Nft>,
}

impl PacketFilter {
    /// Puts the table in force.
    pub(super) fn open(plan: &Plan) -> Result<Self, PacketFilterError> {
        let mut nft = Nft::start(&plan.cgroup_mount)?;
        nft.send(&ruleset(plan)?)?;
        nft.send(&format!("list table inet {}\n", plan.table))?;
        let answer = nft.answer()?;
        if !answer.contains(&format!("redirect to :{}", plan.listener)) {
            return Err(PacketFilterError::Refused { answer });
        }
        let ports = set_of(&plan.ports);
        let table = &plan.table;
        let renewal =
            format!("flush set inet {table} alive; add element inet {table} alive {ports}\n");
        Ok(Self {
            renewal,
            nft: Mutex::new(nft),
        })
    }

    /// Renews the ports.
    pub(super) fn heartbeat(&self) -> io::Result<()> {
        let mut nft = self.nft.lock().unwrap_or_else(PoisonError::into_inner);
        nft.send(&self.renewal)?;
        nft.complaint()
    }

    /// Ends the process that holds the table.
    pub(super) fn close(&self) {
        self.nft
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .end();
    }
}

/// The child that holds the table.
#[derive(Debug)]
struct Nft {
    child: Child,
    // None from its end on.
    commands: Option<ChildStdin>,
    said: BufReader<File>,
}

impl Nft {
    fn start(cgroup_mount: &Path) -> Result<Self, PacketFilterError> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .map_err(|errno| PacketFilterError::Io(errno.into()))?;
        let errors = write.try_clone().map_err(PacketFilterError::Io)?;
        let mut command = nft();
        command
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(write)
            .stderr(errors);
        // Ctrl-C is for the command; this process goes with Weir.
        command.process_group(0);
        if cgroup_mount != Path::new(NFT_CGROUP_MOUNT) {
            show_cgroups_at_usual_place(&mut command, cgroup_mount)?;
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PacketFilterError::NoNft,
            _ => PacketFilterError::Io(error),
        })?;
        let commands = child.stdin.take();
        Ok(Self {
            child,
            commands,
            said: BufReader::new(File::from(read)),
        })
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        let Some(commands) = &mut self.commands else {
            return Ok(());
        };
        commands.write_all(text.as_bytes())
    }

    /// Reads up to the end of a listed table, or to an error.
    fn answer(&mut self) -> Result<String, PacketFilterError> {
        let mut answer = String::new();
        loop {
            self.wait()?;
            let mut line = String::new();
            let bytes = (&mut self.said).take(LINE_BYTES_MAX).read_line(&mut line);
            if bytes.map_err(PacketFilterError::Io)? == 0 {
                return Err(PacketFilterError::Refused { answer });
            }
            answer.push_str(&line);
            if line.starts_with("Error") {
                // What it is about stands in the next two lines, which may not come.
                return Err(PacketFilterError::Refused {
                    answer: line.trim_end().to_owned(),
                });
            }
            if line.trim_end() == "}" {
                return Ok(answer);
            }
        }
    }

    fn wait(&self) -> Result<(), PacketFilterError> {
        if !self.said.buffer().is_empty() || self.readable(PACKET_FILTER_TIMEOUT_MS)? {
            return Ok(());
        }
        Err(PacketFilterError::Silent)
    }

    fn readable(&self, timeout_ms: u16) -> Result<bool, PacketFilterError> {
        let mut descriptors = [PollFd::new(self.said.get_ref().as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut descriptors, PollTimeout::from(timeout_ms));
        ready
            .map(|count| count > 0)
            .map_err(|errno| PacketFilterError::Io(errno.into()))
    }

    /// After the set-up it says nothing unless something is wrong. Read so that its pipe never fills.
    fn complaint(&mut self) -> io::Result<()> {
        if !self.readable(0).map_err(io::Error::other)? {
            return Ok(());
        }
        let mut line = String::new();
        if (&mut self.said).take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Err(io::Error::other("expected nft to run, it has ended"));
        }
        Err(io::Error::other(format!("nft: {}", line.trim_end())))
    }
}

impl Nft {
    /// The end of its input ends it, and the kernel then removes the table that it owns.
    fn end(&mut self) {
        drop(self.commands.take());
        if let Err(error) = self.child.wait() {
            tracing::debug!(%error, "nft was not waited for");
        }
    }
}

impl Drop for Nft {
    fn drop(&mut self) {
        self.end();
    }
}

/// nft looks a cgroup up by its path below /sys/fs/cgroup only. On a machine with version 1 beside
/// version 2 that is another place, so nft gets a mount namespace in which it is not.
#[expect(unsafe_code, reason = "a closure between fork and exec")]
fn show_cgroups_at_usual_place(
    command: &mut std::process::Command,
    cgroup_mount: &Path,
) -> Result<(), PacketFilterError> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt as _;

    let from = CString::new(cgroup_mount.as_os_str().as_bytes())
        .map_err(|error| PacketFilterError::Io(error.into()))?;
    let none: Option<&'static std::ffi::CStr> = None;
    let enter = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        mount(
            Some(from.as_c_str()),
            c"/sys/fs/cgroup",
            none,
            MsFlags::MS_BIND,
            none,
        )?;
        Ok(())
    };
    // SAFETY: the closure makes three system calls and allocates nothing: its strings end in NUL.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// The commands that make the table.
fn ruleset(plan: &Plan) -> Result<String, PacketFilterError> {
    let below = plan
        .cgroup
        .strip_prefix(&plan.cgroup_mount)
        .ok()
        .and_then(Path::to_str);
    let Some(cgroup) = below.filter(|path| !path.is_empty() && !path.contains('"')) else {
        return Err(PacketFilterError::Cgroup {
            path: plan.cgroup.clone(),
        });
    };
    let level = cgroup.split('/').count();
    let ours = format!("socket cgroupv2 level {level} \"{cgroup}\"");
    let (table, listener, ports) = (&plan.table, plan.listener, set_of(&plan.ports));
    let seconds = HEARTBEAT_AGE_MAX.as_secs().max(1);
    let owner = match plan.fail {
        Fail::Open => "flags owner;",
        Fail::Closed => "",
    };
    let mut text = format!("add table inet {table} {{ {owner} }}\n");
    let mut add = |what: &str| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "add {what}");
    };
    add(&format!(
        "set inet {table} alive {{ type inet_service; flags timeout; timeout {seconds}s; }}"
    ));
    add(&format!("element inet {table} alive {ports}"));
    add(&format!(
        "chain inet {table} nat {{ type nat hook output priority -100; policy accept; }}"
    ));
    // After the nat chain: what was redirected has another port here.
    add(&format!(
        "chain inet {table} rest {{ type filter hook output priority 0; policy accept; }}"
    ));
    for chain in ["nat", "rest"] {
        add(&format!(
            "rule inet {table} {chain} ip daddr {LOCAL_V4} return"
        ));
        add(&format!(
            "rule inet {table} {chain} ip6 daddr {LOCAL_V6} return"
        ));
    }
    let families: &[&str] = if plan.v6 {
        &["ipv4", "ipv6"]
    } else {
        &["ipv4"]
    };
    for family in families {
        add(&format!(
            "rule inet {table} nat meta nfproto {family} {ours} tcp dport @alive redirect to :{listener}"
        ));
    }
    match plan.fail {
        // QUIC is refused so that clients fall back to TCP; without Weir it may pass.
        Fail::Open => add(&format!(
            "rule inet {table} rest {ours} udp dport @alive reject"
        )),
        Fail::Closed => {
            add(&format!(
                "rule inet {table} rest {ours} udp dport {ports} reject"
            ));
            add(&format!(
                "rule inet {table} rest {ours} tcp dport {ports} ct state new reject with tcp reset"
            ));
        }
    }
    Ok(text)
}

fn set_of(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("{{ {} }}", ports.join(", "))
}

/// Where a redirected connection was meant to go, which the connection tracker remembers.
pub(super) fn original_destination(stream: BorrowedFd<'_>, peer: SocketAddr) -> Option<SocketAddr> {
    if peer.is_ipv4() {
        let address = getsockopt(&stream, sockopt::OriginalDst).ok()?;
        // The kernel keeps both in network byte order.
        let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
        return Some(SocketAddr::new(ip.into(), u16::from_be(address.sin_port)));
    }
    let address = getsockopt(&stream, sockopt::Ip6tOriginalDst).ok()?;
    Some(SocketAddr::new(
        address.sin6_addr.s6_addr.into(),
        u16::from_be(address.sin6_port),
    ))
}

/// `nft`, also where PATH lacks the directories of administrators, as after `su`.
pub(crate) fn nft() -> std::process::Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join("nft"))
        .find(|program| program.is_file());
    std::process::Command::new(found.unwrap_or_else(|| "nft".into()))
}

/// Why there is no redirect by the packet filter.
#[derive(Debug, thiserror::Error)]
pub enum PacketFilterError {
    /// The program is missing.
    #[error("expected the program nft, found none: install the package nftables")]
    NoNft,
    /// nft or the kernel does not take the rules.
    #[error("expected nft to take the rules, found: {}", answer.trim())]
    Refused {
        /// What it said.
        answer: String,
    },
    /// nft says nothing.
    #[error("expected an answer of nft within {PACKET_FILTER_TIMEOUT_MS} ms, found none")]
    Silent,
    /// The cgroup cannot be named in a rule.
    #[error("expected a cgroup below the mount of cgroup2, found {}", path.display())]
    Cgroup {
        /// Its directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot run nft: {0}")]
    Io(#[from] io::Error),
}

/// How the names of all tables begin; the id of the process follows.
pub(super) const TABLE_PREFIX: &str = "weir_";
/// Where nft looks cgroups up.
const NFT_CGROUP_MOUNT: &str = "/sys/fs/cgroup";
/// Loopback, unspecified and link-local destinations are nobody's providers.
const LOCAL_V4: &str = "{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 }";
/// As above.
const LOCAL_V6: &str = "{ ::/127, fe80::/10 }";
/// Of one line of nft.
const LINE_BYTES_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(fail: Fail, v6: bool) -> Plan {
        Plan {
            table: "weir_1".into(),
            cgroup: "/sys/fs/cgroup/unified/weir/1-2".into(),
            cgroup_mount: "/sys/fs/cgroup/unified".into(),
            ports: vec![443, 8443],
            listener: 10_001,
            v6,
            fail,
        }
    }

    #[test]
    fn failing_open_the_table_goes_with_its_owner_and_only_live_ports_are_redirected() {
        let text = ruleset(&plan(Fail::Open, false)).unwrap();
        assert!(text.contains("flags owner;"), "{text}");
        assert!(
            text.contains("level 2 \"weir/1-2\" tcp dport @alive redirect to :10001"),
            "{text}"
        );
        assert!(text.contains("udp dport @alive reject"), "{text}");
        assert!(!text.contains("nfproto ipv6"), "{text}");
        assert!(!text.contains("tcp reset"), "{text}");
    }

    #[test]
    fn failing_closed_the_table_has_no_owner_and_refuses_what_is_not_redirected() {
        let text = ruleset(&plan(Fail::Closed, true)).unwrap();
        assert!(!text.contains("owner"), "{text}");
        assert!(text.contains("nfproto ipv6"), "{text}");
        assert!(
            text.contains("tcp dport { 443, 8443 } ct state new reject"),
            "{text}"
        );
        assert!(text.contains("udp dport { 443, 8443 } reject"), "{text}");
    }

    #[test]
    fn a_cgroup_that_cannot_be_named_is_refused() {
        for cgroup in [
            "/elsewhere",
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/unified/a\"b",
        ] {
            let plan = Plan {
                cgroup: cgroup.into(),
                ..plan(Fail::Open, false)
            };
            let error = ruleset(&plan).unwrap_err();
            assert!(matches!(error, PacketFilterError::Cgroup { .. }), "{error}");
        }
    }
}
