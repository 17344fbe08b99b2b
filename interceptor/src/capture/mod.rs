//! How connections of the command come to Weir: the only part that needs privileges.
//!
//! Three ways, tried in this order: programs in the kernel rewrite the destination (`ebpf`), the
//! packet filter redirects (`packet_filter`), the command is told of a proxy (`proxy`).

mod ladder;
mod listen;
mod owner;
mod sock_diag;
mod packet_filter;
mod stale;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use weir_probes::Reason;

use crate::process::limits::HEARTBEAT_AGE_MAX;
use owner::Members;
use packet_filter::PacketFilter;

pub use ladder::{CaptureError, Opened, Request, open};
pub use owner::in_cgroup as processes_in;
pub(crate) use owner::parent_of;
pub use packet_filter::PacketFilterError;
pub(crate) use packet_filter::nft;
pub use stale::clean_stale_tables;

/// A connection as the application meant it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where the application connected to; `None` in [`Mode::Proxy`], where its CONNECT says it.
    pub destination: Option<SocketAddr>,
    /// Process id (thread group) of the caller; `None` where it is not known any more.
    pub pid: Option<u32>,
    /// User id of the caller; `None` where its socket is not found any more.
    pub uid: Option<u32>,
    /// Id of the caller's cgroup: the inode of its directory; 0 where it is not known.
    pub cgroup_id: u64,
    /// The kernel's cookie of the caller's socket, in [`Mode::Ebpf`]; else the inode of that socket.
    pub socket_cookie: u64,
}

/// How connections are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Programs in the kernel.
    Ebpf,
    /// The packet filter.
    Redirect,
    /// The environment of the command.
    Proxy,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebpf => "ebpf",
            Self::Redirect => "redirect",
            Self::Proxy => "proxy",
        })
    }
}

/// An open capture; dropping it lets connections go direct again, unless it fails closed.
pub struct Capture {
    way: Way,
    listeners: Vec<TcpListener>,
    last_heartbeat: Mutex<Option<Instant>>,
}

enum Way {
    Ebpf {
        redirect: Box<weir_probes::Redirect>,
        netns_cookie: u64,
        port4: u16,
        /// Of the listener on ::1, where there is one.
        port6: Option<u16>,
        /// Whether IPv6 connections are redirected.
        has_ipv6_route: AtomicBool,
        /// Set where the kernel's process ids are not those of this process: it is in a namespace of
        /// its own, as in a container.
        members: Option<Members>,
    },
    Redirect {
        filter: PacketFilter,
        members: Members,
    },
    Proxy {
        address: SocketAddr,
        members: Members,
        uid: u32,
    },
}

impl Capture {
    /// How connections are captured.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.way {
            Way::Ebpf { .. } => Mode::Ebpf,
            Way::Redirect { .. } => Mode::Redirect,
            Way::Proxy { .. } => Mode::Proxy,
        }
    }

    /// The listening sockets that captured connections arrive at: non-blocking, 127.0.0.1 first,
    /// then ::1 where the machine has it. The capture keeps duplicates of its own.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.listeners.iter().map(TcpListener::try_clone).collect()
    }

    /// What is known of an accepted connection, `peer` being its remote address. `None`: it did
    /// not come through the redirect, or not from the command, and must be refused.
    ///
    /// To be called once per connection. One or two system calls, unless it
    /// [reads `/proc`](Self::reads_proc).
    #[must_use]
    pub fn flow(&self, stream: BorrowedFd<'_>, peer: SocketAddr) -> Option<Flow> {
        match &self.way {
            Way::Ebpf {
                redirect,
                netns_cookie,
                members,
                ..
            } => {
                let flow = redirect.take_flow(*netns_cookie, peer).map(Flow::from)?;
                let Some(members) = members else {
                    return Some(flow);
                };
                let local = socket2::SockRef::from(&stream).local_addr().ok();
                let local = local.and_then(|local| local.as_socket());
                let socket = local.and_then(|local| owner::socket(peer, local));
                let found = members.flow(socket, flow.destination);
                Some(Flow {
                    pid: found.pid,
                    uid: found.uid.or(flow.uid),
                    ..flow
                })
            }
            Way::Redirect { members, .. } => {
                let destination = packet_filter::original_destination(stream, peer)?;
                let is_direct = self.listeners.iter().any(|listener| {
                    listener
                        .local_addr()
                        .is_ok_and(|address| address == destination)
                });
                if is_direct {
                    return None;
                }
                let socket = owner::socket(peer, destination);
                Some(members.flow(socket, Some(destination)))
            }
            Way::Proxy {
                address,
                members,
                uid,
            } => {
                // Any program of the machine can connect here; only the command's user may.
                let socket = owner::socket(peer, *address).filter(|socket| socket.uid == *uid)?;
                Some(members.flow(Some(socket), None))
            }
        }
    }

    /// Whether [`Self::flow`] looks for the owner of a socket, which takes milliseconds on a machine with
    /// many: not for a runtime's worker thread.
    #[must_use]
    pub fn reads_proc(&self) -> bool {
        !matches!(self.way, Way::Ebpf { members: None, .. })
    }

    /// Marks a socket as Weir's own before it connects, so that it is never redirected.
    ///
    /// # Errors
    /// The kernel refused; the socket must not be connected.
    pub fn tag_upstream(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        match &self.way {
            Way::Ebpf { redirect, .. } => redirect.tag_upstream(socket).map_err(io::Error::other),
            // Only sockets of the command's cgroup are redirected, and Weir is not in it.
            Way::Redirect { .. } | Way::Proxy { .. } => Ok(()),
        }
    }

    /// Tells the kernel that Weir is alive, and whether there is a way out by IPv6; due each
    /// [`crate::process::limits::HEARTBEAT_INTERVAL`], from a task of the runtime that serves
    /// connections, so that it stops when they do.
    ///
    /// # Errors
    /// The kernel refused; connections go direct, or are refused, within a second.
    pub fn heartbeat(&self) -> io::Result<()> {
        match &self.way {
            Way::Ebpf {
                redirect,
                netns_cookie,
                port4,
                port6,
                has_ipv6_route,
                ..
            } => {
                redirect.heartbeat().map_err(io::Error::other)?;
                let has_route = listen::has_ipv6_route();
                if has_ipv6_route.load(Ordering::Relaxed) != has_route {
                    redirect
                        .enroll(*netns_cookie, *port4, port6.filter(|_| has_route))
                        .map_err(io::Error::other)?;
                    has_ipv6_route.store(has_route, Ordering::Relaxed);
                }
            }
            Way::Redirect { filter, .. } => filter.heartbeat()?,
            Way::Proxy { .. } => {}
        }
        *self
            .last_heartbeat
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    /// How long ago the last heartbeat was; `None` before the first.
    #[must_use]
    pub fn heartbeat_age(&self) -> Option<Duration> {
        let last = self
            .last_heartbeat
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        last.map(|instant| instant.elapsed())
    }

    /// Whether connections are captured at this moment, or what is wrong.
    ///
    /// # Errors
    /// A sentence for `/readyz`.
    pub fn ready(&self) -> Result<(), String> {
        match self.heartbeat_age() {
            Some(age) if age <= HEARTBEAT_AGE_MAX => Ok(()),
            Some(age) => Err(format!(
                "expected a heartbeat within {} ms, the last was {} ms ago",
                HEARTBEAT_AGE_MAX.as_millis(),
                age.as_millis()
            )),
            None => Err("expected a heartbeat, there was none yet".to_owned()),
        }
    }

    /// Stops redirecting, and returns when the packet filter has: what would otherwise happen a
    /// moment after this process has ended. Programs in the kernel go with the last descriptor, so
    /// before the end of the process is known to anyone.
    pub fn close(&self) {
        if let Way::Redirect { filter, .. } = &self.way {
            filter.close();
        }
    }

    /// Connections of the command that were not redirected, by reason, since the start.
    #[must_use]
    pub fn skipped(&self) -> Vec<(&'static str, u64)> {
        let Way::Ebpf { redirect, .. } = &self.way else {
            return vec![];
        };
        let counters = redirect.counters().unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel's counters cannot be read");
            vec![]
        });
        counters
            .into_iter()
            .filter(|(reason, count)| *reason != Reason::Redirected && *count > 0)
            .map(|(reason, count)| (reason.name(), count))
            .collect()
    }

    /// Variables that the command needs in order to be captured.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let Way::Proxy { address, .. } = &self.way else {
            return vec![];
        };
        proxy_environment(*address)
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("mode", &self.mode())
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

impl From<weir_probes::Flow> for Flow {
    fn from(flow: weir_probes::Flow) -> Self {
        Self {
            destination: Some(flow.destination),
            pid: Some(flow.tgid),
            uid: Some(flow.uid),
            cgroup_id: flow.cgroup_id,
            socket_cookie: flow.socket_cookie,
        }
    }
}

/// Only HTTPS: LLM calls are, and a client that is told of a proxy for plain HTTP sends it requests
/// where Weir expects CONNECT. Both spellings, because curl, Python and Go each read another set.
/// `NO_PROXY` stays as it is.
fn proxy_environment(address: SocketAddr) -> Vec<(OsString, OsString)> {
    let proxy = format!("http://{address}");
    [
        ("HTTPS_PROXY", proxy.as_str()),
        ("https_proxy", &proxy),
        // Node reads the proxy variables only when told to, since 22.21 and 24.5.
        ("NODE_USE_ENV_PROXY", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value.into()))
    .collect()
}

/// Where the command's processes are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// In this cgroup and those below it.
    Cgroup(PathBuf),
    /// Among the descendants of Weir: there is no cgroup, for the reason given.
    Descendants {
        /// Why there is no cgroup.
        reason: String,
    },
}
