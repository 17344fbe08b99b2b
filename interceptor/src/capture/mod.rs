//! How connections of the command come to Weir: the only part that needs privileges.
//!
//! Three ways, tried in this order: programs in the kernel rewrite the destination (`ebpf`), the
//! packet filter redirects (`redirect`), the command is told of a proxy (`proxy`).

use std::net::{SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

/// A connection as the application meant it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where the application connected to; `None` in [`Mode::Proxy`], where its CONNECT says it.
    pub destination: Option<SocketAddr>,
    /// Process id (thread group) of the caller in Weir's pid namespace; `None` where it is not known any more.
    pub pid: Option<u32>,
    /// User id of the caller.
    pub uid: u32,
    /// Id of the caller's cgroup: the inode of its directory; 0 where it is not known.
    pub cgroup_id: u64,
    /// The kernel's cookie of the socket: unique while the machine runs.
    pub socket_cookie: u64,
}

/// How connections are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Programs in the kernel.
    Ebpf,
    /// The packet filter.
    Redirect,
    /// The environment of the command.
    Proxy,
}

/// An open capture; dropping it lets connections go direct again.
#[derive(Debug)]
pub struct Capture {
    mode: Mode,
}

impl Capture {
    /// How connections are captured.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The listening sockets that captured connections arrive at: non-blocking, 127.0.0.1 first,
    /// then ::1 where the machine has it. The capture keeps duplicates of its own.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn listeners(&self) -> std::io::Result<Vec<TcpListener>> {
        Ok(vec![])
    }

    /// What is known of an accepted connection, `peer` being its remote address. `None`: it did
    /// not come through the redirect and must be refused. Call it once per connection.
    #[must_use]
    pub fn flow(&self, _stream: BorrowedFd<'_>, _peer: SocketAddr) -> Option<Flow> {
        None
    }

    /// Marks a socket as Weir's own before it connects, so that it is never redirected.
    ///
    /// # Errors
    /// The kernel refused; the socket must not be connected.
    pub fn tag_upstream(&self, _socket: BorrowedFd<'_>) -> std::io::Result<()> {
        Ok(())
    }

    /// Tells the kernel that Weir is alive; due each [`crate::process::limits::HEARTBEAT_INTERVAL`].
    ///
    /// # Errors
    /// The kernel refused; connections go direct, or are refused, within seconds.
    pub fn heartbeat(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Connections that were not redirected, by reason, since the capture was opened.
    #[must_use]
    pub fn skipped(&self) -> Vec<(&'static str, u64)> {
        vec![]
    }
}
