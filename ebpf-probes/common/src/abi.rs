//! The values of the maps: `repr(C)`, padded by hand, sizes asserted, so that both sides see the same bytes.

use crate::Address;

/// Settings of one attachment: the single value of map `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// A heartbeat older than this many nanoseconds of `CLOCK_MONOTONIC` is stale.
    pub stale_after_ns: u64,
    /// Destination ports that are redirected, host byte order; unused slots are 0.
    pub ports: [u16; PORTS_MAX],
}

/// Where a network namespace's listeners are, and what to do when they are not: value of map `NETNS`, whose key is
/// the namespace's cookie (`SO_NETNS_COOKIE`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Netns {
    /// Port of the listener on 127.0.0.1, host byte order.
    pub port4: u16,
    /// Port of the listener on ::1, host byte order; 0: native IPv6 is not redirected.
    pub port6: u16,
    /// [`Netns::FAIL_CLOSED`], or 0.
    pub flags: u32,
}

/// Who connected, and to where: the socket storage `ORIGIN` of a redirected socket, and the value of map `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The address that the program asked for.
    pub destination: Address,
    /// Cookie of the program's socket (`SO_COOKIE`).
    pub socket_cookie: u64,
    /// Inode of the cgroup2 directory of the task that called connect.
    pub cgroup_id: u64,
    /// When connect was called, in nanoseconds of `CLOCK_MONOTONIC`.
    pub connected_at_ktime_ns: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// The port that the program asked for, host byte order.
    pub port: u16,
    /// Zero.
    pub padding: [u16; 3],
}

/// Key of map `FLOWS`: a loopback address and port are unique only together with their network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Cookie of the network namespace (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
    /// Local address of the program's socket: what the listener sees as its peer.
    pub address: Address,
    /// Local port of the program's socket, host byte order.
    pub port: u16,
    /// Zero.
    pub padding: [u16; 3],
}

/// Socket storage `TAG`: set by user space on sockets of our own.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u32);

impl Config {
    /// Whether connections to `port` (host byte order) are redirected.
    #[inline(always)]
    pub fn covers(&self, port: u16) -> bool {
        port != 0 && self.ports.contains(&port)
    }
}

impl Netns {
    /// Flag: what cannot be redirected is refused, not let through.
    pub const FAIL_CLOSED: u32 = 1;

    /// Whether what cannot be redirected is refused.
    #[inline(always)]
    pub const fn fails_closed(&self) -> bool {
        self.flags & Self::FAIL_CLOSED != 0
    }
}

impl FlowKey {
    /// The key of the socket at `address` and `port` (host byte order) of a network namespace.
    #[inline(always)]
    pub const fn new(netns_cookie: u64, address: Address, port: u16) -> Self {
        Self {
            netns_cookie,
            address,
            port,
            padding: [0; 3],
        }
    }
}

impl Tag {
    /// A listener that redirected connections may land on.
    pub const LISTENER: Self = Self(1);
    /// A socket that leads to the original destination and is never redirected.
    pub const UPSTREAM: Self = Self(2);
}

/// How many ports one attachment redirects at most.
pub const PORTS_MAX: usize = 16;

const _: () = assert!(size_of::<Address>() == 16);
const _: () = assert!(size_of::<Config>() == 40);
const _: () = assert!(size_of::<Netns>() == 8);
const _: () = assert!(size_of::<Origin>() == 56);
const _: () = assert!(size_of::<FlowKey>() == 32);
const _: () = assert!(size_of::<Tag>() == 4);

#[cfg(feature = "user")]
mod pod {
    //! The marker that lets aya copy these types to and from maps.
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

    use super::{Config, FlowKey, Netns, Origin, Tag};

    // SAFETY: repr(C) of integers without implicit padding: every bit pattern is a value.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Netns {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Origin {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: repr(transparent) over an integer.
    unsafe impl aya::Pod for Tag {}
}
