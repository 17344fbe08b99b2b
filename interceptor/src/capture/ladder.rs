//! Which way of capturing this machine allows: the best first, each step down with its reason.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::owner::{self, Members};
use super::packet_filter::{PacketFilter, PacketFilterError, Plan, TABLE_PREFIX};
use super::stale::clean_stale_tables;
use super::{Capture, Command, Mode, Way, listen};
use crate::process::config::Fail;
use crate::process::leftovers::{Leftover, Leftovers};

/// What is to be captured.
#[derive(Clone, Debug)]
pub struct Request {
    /// The way to take; `None`: the best that works.
    pub mode: Option<Mode>,
    /// Whose connections.
    pub command: Command,
    /// User id that the command runs as.
    pub uid: u32,
    /// Destination ports.
    pub ports: Vec<u16>,
    /// What happens when Weir is dead or hangs.
    pub fail: Fail,
}

/// A capture, and what did not work before it did.
#[derive(Debug)]
pub struct Opened {
    /// The capture.
    pub capture: Capture,
    /// One sentence for each step down the ladder.
    pub steps: Vec<String>,
}

/// Opens the capture that `request` asks for, noting in `leftovers` what outlives a killed process.
///
/// # Errors
/// The way that was asked for does not work here, or none does that can fail as told.
pub fn open(request: &Request, leftovers: &mut Leftovers) -> Result<Opened, CaptureError> {
    let ladder: &[Mode] = match &request.mode {
        Some(mode) => std::slice::from_ref(mode),
        // A program can ignore a proxy, so nothing that must fail closed may rest on one.
        None if request.fail == Fail::Closed => &[Mode::Ebpf, Mode::Redirect],
        None => &[Mode::Ebpf, Mode::Redirect, Mode::Proxy],
    };
    let mut steps: Vec<String> = vec![];
    let mut last_reason = String::new();
    for mode in ladder {
        match open_one(*mode, request, leftovers) {
            Ok(capture) => {
                if *mode == Mode::Proxy && request.fail == Fail::Closed {
                    steps.push(
                        "fail = \"closed\" cannot be kept in mode proxy: a program that ignores \
                         HTTPS_PROXY goes direct"
                            .to_owned(),
                    );
                }
                return Ok(Opened { capture, steps });
            }
            Err(error) => {
                let reason = error.to_string();
                steps.push(if reason == last_reason {
                    format!("no mode {mode}: for the same reason")
                } else {
                    format!("no mode {mode}: {reason}")
                });
                last_reason = reason;
            }
        }
    }
    Err(CaptureError::Nothing { steps })
}

fn open_one(
    mode: Mode,
    request: &Request,
    leftovers: &mut Leftovers,
) -> Result<Capture, CaptureError> {
    let v6 = match mode {
        // Used as soon as there is a route.
        Mode::Ebpf => true,
        Mode::Redirect => listen::has_ipv6_route(),
        Mode::Proxy => false,
    };
    let listeners = listen::loopback(v6).map_err(CaptureError::Listen)?;
    let way = match mode {
        Mode::Ebpf => ebpf(request, &listeners, leftovers)?,
        Mode::Redirect => redirect(request, &listeners, leftovers)?,
        Mode::Proxy => Way::Proxy {
            address: first(&listeners)?
                .local_addr()
                .map_err(CaptureError::Listen)?,
            members: Members::new(request.command.clone()),
            uid: request.uid,
        },
    };
    Ok(Capture {
        way,
        listeners,
        last_heartbeat: Mutex::new(None),
    })
}

fn ebpf(
    request: &Request,
    listeners: &[TcpListener],
    leftovers: &mut Leftovers,
) -> Result<Way, CaptureError> {
    let cgroup = cgroup(request)?;
    let pins = match request.fail {
        Fail::Open => None,
        Fail::Closed => {
            let pins = weir_probes::own_pin_directory().map_err(CaptureError::Leftovers)?;
            let leftover = Leftover::Directory(pins.clone());
            leftovers
                .will_make(leftover)
                .map_err(CaptureError::Leftovers)?;
            Some(pins)
        }
    };
    let options = weir_probes::Options {
        cgroup: &cgroup,
        ports: &request.ports,
        fail: match request.fail {
            Fail::Open => weir_probes::Fail::Open,
            Fail::Closed => weir_probes::Fail::Closed,
        },
        pin: pins.as_deref(),
    };
    let redirect = Box::new(weir_probes::Redirect::attach(&options)?);
    let first = first(listeners)?;
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    let netns_cookie = weir_probes::netns_cookie(first.as_fd()).map_err(CaptureError::Listen)?;
    for listener in listeners {
        redirect.tag_listener(listener.as_fd())?;
    }
    let port4 = port(first).map_err(CaptureError::Listen)?;
    let port6 = listeners
        .get(1)
        .map(port)
        .transpose()
        .map_err(CaptureError::Listen)?;
    let has_route = listen::has_ipv6_route();
    redirect.enroll(netns_cookie, port4, port6.filter(|_| has_route))?;
    Ok(Way::Ebpf {
        redirect,
        netns_cookie,
        port4,
        port6,
        has_ipv6_route: AtomicBool::new(has_route),
        members: (!owner::knows_process_ids()).then(|| Members::new(request.command.clone())),
    })
}

fn redirect(
    request: &Request,
    listeners: &[TcpListener],
    leftovers: &mut Leftovers,
) -> Result<Way, CaptureError> {
    for table in clean_stale_tables() {
        tracing::info!(table, "removed the table of a dead process");
    }
    let table = format!("{TABLE_PREFIX}{}", leftovers.id().replace('-', "_"));
    if request.fail == Fail::Closed {
        let leftover = Leftover::Table(table.clone());
        leftovers
            .will_make(leftover)
            .map_err(CaptureError::Leftovers)?;
    }
    let plan = Plan {
        table,
        cgroup: cgroup(request)?,
        cgroup_mount: weir_probes::cgroup2_mount()?,
        ports: request.ports.clone(),
        listener: first(listeners)?
            .local_addr()
            .map_err(CaptureError::Listen)?
            .port(),
        v6: listeners.len() > 1,
        fail: request.fail,
    };
    let filter = PacketFilter::open(&plan)?;
    Ok(Way::Redirect {
        filter,
        members: Members::new(request.command.clone()),
    })
}

fn first(listeners: &[TcpListener]) -> Result<&TcpListener, CaptureError> {
    let none = || CaptureError::Listen(io::Error::from(io::ErrorKind::AddrNotAvailable));
    listeners.first().ok_or_else(none)
}

fn cgroup(request: &Request) -> Result<PathBuf, CaptureError> {
    match &request.command {
        Command::Cgroup(path) => Ok(path.clone()),
        Command::Descendants { reason } => Err(CaptureError::NoCgroup {
            reason: reason.clone(),
        }),
    }
}

/// Why connections cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// None of the ways that may be taken works.
    #[error("connections cannot be captured: {}", steps.join("; "))]
    Nothing {
        /// Why not, way by way.
        steps: Vec<String>,
    },
    /// The command has no cgroup of its own.
    #[error("expected a cgroup for the command, found: {reason}")]
    NoCgroup {
        /// Why not.
        reason: String,
    },
    /// No socket to listen on.
    #[error("expected a free port on loopback, found: {0}")]
    Listen(io::Error),
    /// What would outlive Weir cannot be noted.
    #[error("expected to note what is to be cleaned up, found: {0}")]
    Leftovers(io::Error),
    /// The kernel does not take the programs.
    #[error(transparent)]
    Programs(#[from] weir_probes::LoadError),
    /// The kernel does not take an entry.
    #[error(transparent)]
    Map(#[from] weir_probes::MapError),
    /// The packet filter does not work.
    #[error(transparent)]
    PacketFilter(#[from] PacketFilterError),
}
