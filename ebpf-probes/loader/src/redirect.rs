//! One attachment of the programs to one cgroup, and the maps that go with it.

use std::{
    fmt,
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, SkStorage},
    programs::{
        CgroupAttachMode, CgroupSockAddr, Program, ProgramType, SockOps,
        links::{FdLink, PinnedLink},
    },
    sys::{BpfHelper, is_helper_supported},
};
use nix::time::{ClockId, clock_gettime};
use weir_probes_common::{Address, Config, FlowKey, Netns, Origin, PORTS_MAX, Reason, Tag};

use crate::{LoadError, MapError, capabilities, cgroup, error::AttachError, pin};

/// The attached programs. Dropping it detaches them, unless they were pinned: see [`Options::pin`].
pub struct Redirect {
    links: Links,
    fail: Fail,
    // Each map has a lock of its own, since aya wants `&mut` for what the kernel does atomically. Held for one or two
    // system calls of about half a microsecond.
    netns: Mutex<HashMap<MapData, u64, Netns>>,
    heartbeat: Mutex<Array<MapData, u64>>,
    tags: Mutex<SkStorage<MapData, Tag>>,
    flows: Mutex<HashMap<MapData, FlowKey, Origin>>,
    counters: PerCpuArray<MapData, u64>,
}

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Directory of the cgroup2 whose processes, and those of its descendants, are covered. A socket belongs to the
    /// cgroup that its creator was in when it was created.
    pub cgroup: &'a Path,
    /// Destination ports to redirect, host byte order, 1 to [`PORTS_MAX`] of them.
    pub ports: &'a [u16],
    /// What happens to connections that should be redirected and cannot be.
    pub fail: Fail,
    /// A directory of a bpffs, made if absent, in which the links are pinned so that they outlive this process. With
    /// [`Fail::Closed`] connections are then refused after a crash. [`Redirect::detach`] and [`crate::clean_stale`]
    /// remove the pins.
    pub pin: Option<&'a Path>,
}

/// What happens to connections that should be redirected and cannot be: no listener of ours, a stale heartbeat, a
/// socket bound to a device, native IPv6 without an IPv6 listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// They go where the program wants.
    Open,
    /// They fail with `ECONNREFUSED`.
    Closed,
}

/// Who connected, and to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The address that the program asked for; v4-mapped is given as IPv4.
    pub destination: SocketAddr,
    /// Cookie of the program's socket (`SO_COOKIE`).
    pub socket_cookie: u64,
    /// Inode of the cgroup2 directory of the process that called connect.
    pub cgroup_id: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// When connect was called, in nanoseconds of `CLOCK_MONOTONIC`.
    pub connected_at_ktime_ns: u64,
}

/// How often each reason applied, in the order of [`Reason::ALL`].
pub type Counters = Vec<(Reason, u64)>;

impl Redirect {
    /// Loads the programs and attaches them. Nothing is redirected before a namespace is enrolled, its listener is
    /// tagged, and the heart beats.
    ///
    /// # Errors
    /// Says which capability or kernel feature is missing, and what to do.
    pub fn attach(options: &Options<'_>) -> Result<Self, LoadError> {
        let ports = ports(options.ports)?;
        capabilities::check()?;
        let cgroup = cgroup::open(options.cgroup)?;
        let mut programs = load()?;
        set(
            &mut programs,
            Config {
                stale_after_ns: STALE_AFTER.as_nanos() as u64,
                ports,
            },
        )?;
        let links = attach_all(&mut programs, &cgroup)?;
        Ok(Self {
            links: match options.pin {
                None => Links::Held(links.into_iter().map(|attached| attached.link).collect()),
                Some(directory) => Links::pin(links, directory)?,
            },
            fail: options.fail,
            netns: Mutex::new(map(&mut programs, "NETNS")?),
            heartbeat: Mutex::new(map(&mut programs, "HEARTBEAT")?),
            tags: Mutex::new(map(&mut programs, "TAG")?),
            flows: Mutex::new(map(&mut programs, "FLOWS")?),
            counters: map(&mut programs, "COUNTERS")?,
        })
    }

    /// Whether this machine can redirect: capabilities, cgroup2, and every program accepted by the kernel. Attaches
    /// nothing.
    ///
    /// # Errors
    /// As [`Redirect::attach`].
    pub fn probe() -> Result<(), LoadError> {
        capabilities::check()?;
        cgroup::cgroup2_mount()?;
        load().map(drop)
    }

    /// Redirects the connections of a network namespace to 127.0.0.1:`port4`, and native IPv6 to `[::1]:port6`.
    ///
    /// Leave `port6` out where the namespace has no IPv6 route that leads out: a listener on loopback would make every
    /// IPv6 connect succeed and so defeat the client's fall-back to IPv4. Calling it again replaces the ports.
    ///
    /// # Errors
    /// If the kernel refuses the entry: more than 4096 namespaces.
    pub fn enroll(
        &self,
        netns_cookie: u64,
        port4: u16,
        port6: Option<u16>,
    ) -> Result<(), MapError> {
        let flags = match self.fail {
            Fail::Open => 0,
            Fail::Closed => Netns::FAIL_CLOSED,
        };
        let entry = Netns {
            port4,
            port6: port6.unwrap_or(0),
            flags,
        };
        lock(&self.netns)
            .insert(netns_cookie, entry, 0)
            .map_err(MapError::of("NETNS"))
    }

    /// Marks a listening socket as ours. Connections are redirected only to marked listeners.
    ///
    /// # Errors
    /// If the descriptor is not a socket, or the kernel is out of memory.
    pub fn tag_listener(&self, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        self.tag(socket, Tag::LISTENER)
    }

    /// Marks a socket, before it connects, as leading to the original destination: it is never redirected.
    ///
    /// # Errors
    /// As [`Redirect::tag_listener`].
    pub fn tag_upstream(&self, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        self.tag(socket, Tag::UPSTREAM)
    }

    /// Shows life. To be called at least every quarter of [`STALE_AFTER`], by what would hang if connections did.
    ///
    /// # Errors
    /// If the kernel refuses the write, which it has no reason to.
    pub fn heartbeat(&self) -> Result<(), MapError> {
        lock(&self.heartbeat)
            .set(0, now_ns(), 0)
            .map_err(MapError::of("HEARTBEAT"))
    }

    /// Takes the record of the connection that a listener of the given network namespace accepted from `peer`. None:
    /// the connection was not redirected, somebody connected to the listener itself; or it waited longer than
    /// [`FLOW_AGE_MAX`].
    pub fn take_flow(&self, netns_cookie: u64, peer: SocketAddr) -> Option<Flow> {
        let key = FlowKey::new(netns_cookie, Address::from(peer.ip()), peer.port());
        let mut flows = lock(&self.flows);
        let origin = flows.get(&key, 0).ok()?;
        // It fails only if the entry was evicted in this moment, and then it is gone all the same.
        let _already_gone = flows.remove(&key);
        is_recent(origin.connected_at_ktime_ns, now_ns()).then(|| Flow::from(origin))
    }

    /// How often each reason applied since the programs were attached, over all CPUs.
    ///
    /// # Errors
    /// If the kernel refuses the read, which it has no reason to.
    pub fn counters(&self) -> Result<Counters, MapError> {
        let sum = |reason: Reason| {
            let of_each_cpu = self.counters.get(&(reason as u32), 0)?;
            Ok((reason, of_each_cpu.iter().sum()))
        };
        Reason::ALL
            .into_iter()
            .map(|reason| sum(reason).map_err(MapError::of("COUNTERS")))
            .collect()
    }

    /// Detaches the programs, pinned or not.
    ///
    /// # Errors
    /// If a pin cannot be removed; the programs then stay attached, and the path is in the message.
    pub fn detach(self) -> Result<(), LoadError> {
        match self.links {
            Links::Held(links) => {
                drop(links);
                Ok(())
            }
            Links::Pinned { directory, links } => {
                let failed = |source| LoadError::Pin {
                    path: directory.clone(),
                    source,
                };
                for link in links {
                    drop(link.unpin().map_err(failed)?);
                }
                fs::remove_dir(&directory).map_err(failed)
            }
        }
    }

    fn tag(&self, socket: BorrowedFd<'_>, tag: Tag) -> Result<(), MapError> {
        lock(&self.tags)
            .insert(&socket, tag, 0)
            .map_err(MapError::of("TAG"))
    }
}

impl fmt::Debug for Redirect {
    /// Without the maps, of which aya's array types have no `Debug`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Redirect")
            .field("links", &self.links)
            .field("fail", &self.fail)
            .finish_non_exhaustive()
    }
}

impl From<Origin> for Flow {
    fn from(origin: Origin) -> Self {
        Self {
            destination: SocketAddr::new(IpAddr::from(origin.destination), origin.port),
            socket_cookie: origin.socket_cookie,
            cgroup_id: origin.cgroup_id,
            tgid: origin.tgid,
            uid: origin.uid,
            connected_at_ktime_ns: origin.connected_at_ktime_ns,
        }
    }
}

/// A program, by its name, and what attaches it.
struct Attached {
    program: String,
    link: FdLink,
}

/// What keeps the programs attached.
#[derive(Debug)]
enum Links {
    /// Our descriptors: closing them detaches.
    Held(Vec<FdLink>),
    /// Files of a bpffs: removing them detaches.
    Pinned {
        directory: PathBuf,
        links: Vec<PinnedLink>,
    },
}

impl Links {
    fn pin(links: Vec<Attached>, directory: &Path) -> Result<Self, LoadError> {
        pin::prepare(directory)?;
        let mut pinned = Vec::new();
        for Attached { program, link } in links {
            let path = directory.join(program);
            match link.pin(&path) {
                Ok(link) => pinned.push(link),
                Err(error) => {
                    // Nothing stays behind that this attachment pinned; what was there before is not ours.
                    let _unpinned: Vec<_> = pinned.into_iter().map(PinnedLink::unpin).collect();
                    let source = io::Error::other(error);
                    return Err(LoadError::Pin { path, source });
                }
            }
        }
        Ok(Self::Pinned {
            directory: directory.to_owned(),
            links: pinned,
        })
    }
}

/// Loads the maps and all programs.
fn load() -> Result<Ebpf, LoadError> {
    let can_set_errno =
        is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval)
            .unwrap_or(false);
    let mut programs = EbpfLoader::new()
        .override_global("CAN_SET_ERRNO", &u8::from(can_set_errno), true)
        .load(OBJECT)
        .map_err(|source| LoadError::Object {
            source: Box::new(source),
        })?;
    for (name, program) in programs.programs_mut() {
        let loaded = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::SockOps(program) => program.load(),
            other => {
                return Err(LoadError::UnknownProgram {
                    program: name.into(),
                    kind: other.prog_type(),
                });
            }
        };
        loaded.map_err(|source| LoadError::Program {
            program: name.into(),
            source: Box::new(source),
        })?;
    }
    Ok(programs)
}

/// Attaches every program. The mode `Single` adds no flag to the link, and a link always admits other programs beside
/// it; any flag makes most kernels refuse (aya issue 1078).
fn attach_all(programs: &mut Ebpf, cgroup: &File) -> Result<Vec<Attached>, LoadError> {
    let mut links = Vec::new();
    for (name, program) in programs.programs_mut() {
        let link = match program {
            Program::CgroupSockAddr(program) => attach_sock_addr(program, cgroup),
            Program::SockOps(program) => attach_sock_ops(program, cgroup),
            other => {
                return Err(LoadError::UnknownProgram {
                    program: name.into(),
                    kind: other.prog_type(),
                });
            }
        };
        let link = link.map_err(|source| LoadError::Attach {
            program: name.into(),
            source,
        })?;
        links.push(Attached {
            program: name.to_owned(),
            link,
        });
    }
    Ok(links)
}

fn attach_sock_addr(program: &mut CgroupSockAddr, cgroup: &File) -> Result<FdLink, AttachError> {
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    Ok(program.take_link(id)?.try_into()?)
}

fn attach_sock_ops(program: &mut SockOps, cgroup: &File) -> Result<FdLink, AttachError> {
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    Ok(program.take_link(id)?.try_into()?)
}

fn set(programs: &mut Ebpf, config: Config) -> Result<(), LoadError> {
    map::<Array<MapData, Config>>(programs, "CONFIG")?
        .set(0, config, 0)
        .map_err(|source| {
            LoadError::Map(MapError {
                map: "CONFIG",
                source,
            })
        })
}

/// Takes a map out of the loaded object, typed.
fn map<M>(programs: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = programs
        .take_map(name)
        .ok_or(LoadError::NoMap { map: name })?;
    M::try_from(map).map_err(|source| LoadError::Map(MapError { map: name, source }))
}

/// Checks the ports and puts them into their slots.
fn ports(wanted: &[u16]) -> Result<[u16; PORTS_MAX], LoadError> {
    let mut ports = [0; PORTS_MAX];
    match ports.get_mut(..wanted.len()) {
        Some(slots) if !wanted.is_empty() && !wanted.contains(&0) => slots.copy_from_slice(wanted),
        _ => {
            return Err(LoadError::Ports {
                found: wanted.to_vec(),
            });
        }
    }
    Ok(ports)
}

/// A thread that panicked while it held the lock left nothing half done: the kernel's map is what it guards.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Now, as the programs have it from `bpf_ktime_get_ns`.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.unwrap_or_default().as_nanos() as u64
}

/// Whether a record can be that of a connection which is accepted now.
fn is_recent(connected_at_ns: u64, now_ns: u64) -> bool {
    u128::from(now_ns.saturating_sub(connected_at_ns)) <= FLOW_AGE_MAX.as_nanos()
}

/// For how long a record waits for its connection. A SYN that was never accepted leaves its record behind, and whoever
/// connects to the listener directly from the same port later must not be taken for that program.
pub const FLOW_AGE_MAX: Duration = Duration::from_secs(30);

/// After how long without a heartbeat the programs take us for hung. Applications are to reach their providers
/// within a second of that, and no stall of a scheduler under load should be taken for it.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// The committed object, or the one that `EBPF_OBJECT` named at build time.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WEIR_EBPF_OBJECT"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_to_sixteen_and_not_zero() {
        let seventeen: Vec<u16> = (1..=17).collect();
        for bad in [&[][..], &[443, 0], &seventeen] {
            assert!(matches!(ports(bad), Err(LoadError::Ports { found }) if found == bad));
        }
        assert_eq!(ports(&[443, 8443]).unwrap()[..3], [443, 8443, 0]);
        assert_eq!(ports(&seventeen[..16]).unwrap()[15], 16);
    }

    #[test]
    fn a_record_is_believed_for_a_while_only() {
        let bound = FLOW_AGE_MAX.as_nanos() as u64;
        let now = 10 * bound;
        for (connected_at, recent) in [
            (now, true),
            (now - bound, true),
            (now - bound - 1, false),
            (0, false),
            // The clocks of two processors.
            (now + 1, true),
        ] {
            assert_eq!(is_recent(connected_at, now), recent, "{connected_at}");
        }
    }

    #[test]
    fn a_redirect_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Redirect>();
    }
}
