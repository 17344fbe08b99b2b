//! The hooks: each gathers what the decision needs, and carries out the verdict.

use core::ptr;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_SOCK_OPS_TCP_CONNECT_CB,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval,
        bpf_sk_storage_get,
    },
    macros::{cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockOpsContext},
};
use weir_probes_common::{
    Address, Attempt, Facts as _, FlowKey, Listener, Origin, Protocol, Reason, Verdict, decide,
};

use crate::{
    facts::{Kernel, LOOPBACK4, LOOPBACK6, socket},
    maps::{CAN_SET_ERRNO, CONFIG, FLOWS, ORIGIN, count},
};

/// TCP and UDP sockets connecting to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, destination4(&ctx), rewrite4)
}

/// TCP and UDP sockets connecting to an IPv6 address, v4-mapped included.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, destination6(&ctx), rewrite6)
}

/// Unconnected UDP sockets sending to an IPv4 address, v4-mapped included.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    send(&ctx, destination4(&ctx))
}

/// Unconnected UDP sockets sending to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    send(&ctx, destination6(&ctx))
}

/// A redirected IPv4 socket is told the peer that it asked for.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(origin) = origin_of(&ctx)
        && let Some(word) = origin.destination.v4()
    {
        write4(&ctx, word, origin.port);
    }
    ALLOW
}

/// A redirected IPv6 socket is told the peer that it asked for.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(origin) = origin_of(&ctx) {
        write6(&ctx, origin.destination.words(), origin.port);
    }
    ALLOW
}

/// Stores the flow when the socket has its local port and before its SYN leaves, hence before the listener can accept.
/// Not at ACTIVE_ESTABLISHED, which comes after accept on a loaded machine. This hook runs without the task, so
/// everything about the task was noted at connect.
#[sock_ops]
pub fn tcp_connect(ctx: SockOpsContext) -> u32 {
    if ctx.op() != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return ALLOW as u32;
    }
    // SAFETY: ctx is the hook's own.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return ALLOW as u32;
    }
    let map = (&raw const ORIGIN).cast_mut().cast();
    // SAFETY: socket is not null; without the create flag the helper only looks.
    let origin = unsafe { bpf_sk_storage_get(map, socket.cast(), ptr::null_mut(), 0) };
    let origin = origin.cast::<Origin>();
    if origin.is_null() {
        return ALLOW as u32;
    }
    // SAFETY: storage of ORIGIN holds an Origin.
    let origin = unsafe { *origin };
    let address = local_address(&ctx, &origin);
    // SAFETY: ctx is the hook's own.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let key = FlowKey::new(netns_cookie, address, ctx.local_port() as u16);
    if FLOWS.insert(&key, &origin, 0).is_err() {
        count(Reason::FlowNotStored);
    }
    ALLOW as u32
}

#[inline(always)]
fn connect(
    ctx: &SockAddrContext,
    destination: Address,
    rewrite: impl FnOnce(&SockAddrContext, Listener),
) -> i32 {
    // SAFETY: a read of the hook's own context.
    let protocol = match unsafe { (*ctx.sock_addr).protocol } {
        IPPROTO_TCP => Protocol::Tcp,
        IPPROTO_UDP => Protocol::Udp,
        _ => return ALLOW,
    };
    let attempt = Attempt {
        protocol,
        destination,
        port: port(ctx),
    };
    let Some(config) = CONFIG.get(0) else {
        return ALLOW;
    };
    let verdict = decide(&attempt, config, &Kernel(ctx));
    if let Verdict::Redirect(listener) = verdict {
        if !store_origin(ctx, &attempt) {
            return match Kernel(ctx).netns() {
                Some(netns) => conclude(Verdict::not_redirectable(&netns, Reason::OriginNotStored)),
                None => ALLOW,
            };
        }
        rewrite(ctx, listener);
    } else if protocol == Protocol::Tcp {
        // The socket may have been redirected before, and be used again: getpeername must not tell the old story.
        // SAFETY: the hook's socket is never null. It failing means that there was nothing to delete.
        let _nothing_to_delete = unsafe { ORIGIN.delete(socket(ctx)) };
    }
    conclude(verdict)
}

#[inline(always)]
fn send(ctx: &SockAddrContext, destination: Address) -> i32 {
    // SAFETY: a read of the hook's own context. UDP-Lite comes here too.
    if unsafe { (*ctx.sock_addr).protocol } != IPPROTO_UDP {
        return ALLOW;
    }
    let attempt = Attempt {
        protocol: Protocol::Udp,
        destination,
        port: port(ctx),
    };
    match CONFIG.get(0) {
        Some(config) => conclude(decide(&attempt, config, &Kernel(ctx))),
        None => ALLOW,
    }
}

/// Counts the verdict and turns it into the program's return value.
#[inline(always)]
fn conclude(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Redirect(_) => {
            count(Reason::Redirected);
            ALLOW
        }
        Verdict::Pass(reason) => {
            count(reason);
            ALLOW
        }
        Verdict::Refuse(reason) => {
            count(reason);
            if reason != Reason::QuicRefused {
                count(Reason::RefusedClosed);
            }
            if CAN_SET_ERRNO.load() != 0 {
                // SAFETY: the helper has no preconditions; it fails for no errno.
                unsafe { bpf_set_retval(-ECONNREFUSED) };
            }
            REFUSE
        }
    }
}

/// Notes on the socket where it wanted to go, and who asked; false if there was no memory for it.
#[inline(always)]
fn store_origin(ctx: &SockAddrContext, attempt: &Attempt) -> bool {
    // SAFETY: the helpers have no preconditions, and ctx is the hook's own.
    let mut origin = unsafe {
        Origin {
            destination: attempt.destination,
            socket_cookie: bpf_get_socket_cookie(ctx.as_ptr()),
            cgroup_id: bpf_get_current_cgroup_id(),
            connected_at_ktime_ns: bpf_ktime_get_ns(),
            tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
            uid: bpf_get_current_uid_gid() as u32,
            port: attempt.port,
            padding: [0; 3],
        }
    };
    // SAFETY: the hook's socket is never null.
    let stored = unsafe { ORIGIN.get_or_insert_ptr_mut(ctx, Some(&mut origin)) };
    if stored.is_null() {
        return false;
    }
    // A socket that connects again keeps its storage, which the helper then returns unchanged.
    // SAFETY: storage of ORIGIN holds an Origin, and the socket is locked by connect.
    unsafe { *stored = origin };
    true
}

#[inline(always)]
fn origin_of(ctx: &SockAddrContext) -> Option<Origin> {
    // SAFETY: the hook's socket is never null.
    let origin = unsafe { ORIGIN.get_ptr_mut(ctx) };
    if origin.is_null() {
        return None;
    }
    // SAFETY: storage of ORIGIN holds an Origin.
    Some(unsafe { *origin })
}

#[inline(always)]
fn rewrite4(ctx: &SockAddrContext, listener: Listener) {
    let (Listener::V4(port) | Listener::V6(port)) = listener;
    write4(ctx, LOOPBACK4, port);
}

/// A v4-mapped destination lands on the IPv4 listener, and the socket stays v4-mapped.
#[inline(always)]
fn rewrite6(ctx: &SockAddrContext, listener: Listener) {
    match listener {
        Listener::V4(port) => write6(ctx, Address::from_v4(LOOPBACK4).words(), port),
        Listener::V6(port) => write6(ctx, LOOPBACK6, port),
    }
}

// The context may be read and written only in the sizes that the verifier knows, and the fields of the other family
// not at all: hence two functions each, and volatile accesses of one word, which the compiler cannot join.

#[inline(always)]
fn destination4(ctx: &SockAddrContext) -> Address {
    // SAFETY: a read of the hook's own context.
    Address::from_v4(unsafe { ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip4) })
}

#[inline(always)]
fn destination6(ctx: &SockAddrContext) -> Address {
    // SAFETY: the field of the hook's own context.
    Address::from_v6(unsafe { read_words(&raw const (*ctx.sock_addr).user_ip6) })
}

/// Both families are read before one is chosen: otherwise the compiler joins the reads into one at a computed offset
/// ("dereference of modified ctx ptr disallowed").
#[inline(always)]
fn local_address(ctx: &SockOpsContext, origin: &Origin) -> Address {
    // SAFETY: the field of the hook's own context.
    let v4 = unsafe { ptr::read_volatile(&raw const (*ctx.ops).local_ip4) };
    // SAFETY: the field of the hook's own context.
    let v6 = unsafe { read_words(&raw const (*ctx.ops).local_ip6) };
    match origin.destination.v4() {
        Some(_) => Address::from_v4(v4),
        None => Address::from_v6(v6),
    }
}

/// # Safety
/// `words` is a field of the context of the running hook.
#[inline(always)]
unsafe fn read_words(words: *const [u32; 4]) -> [u32; 4] {
    let words = words.cast::<u32>();
    // SAFETY: the caller's.
    unsafe {
        [
            ptr::read_volatile(words),
            ptr::read_volatile(words.add(1)),
            ptr::read_volatile(words.add(2)),
            ptr::read_volatile(words.add(3)),
        ]
    }
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: a read of the hook's own context.
    u16::from_be(unsafe { ptr::read_volatile(&raw const (*ctx.sock_addr).user_port) } as u16)
}

#[inline(always)]
fn write4(ctx: &SockAddrContext, address: u32, port: u16) {
    // SAFETY: writes to the hook's own context.
    unsafe {
        ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip4, address);
        ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port.to_be()));
    }
}

#[inline(always)]
fn write6(ctx: &SockAddrContext, address: [u32; 4], port: u16) {
    let [a, b, c, d] = address;
    // SAFETY: writes to the hook's own context.
    unsafe {
        let words = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
        ptr::write_volatile(words, a);
        ptr::write_volatile(words.add(1), b);
        ptr::write_volatile(words.add(2), c);
        ptr::write_volatile(words.add(3), d);
        ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port.to_be()));
    }
}

/// What a cgroup program returns to let the system call go on.
const ALLOW: i32 = 1;
/// What it returns to make the system call fail.
const REFUSE: i32 = 0;

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const ECONNREFUSED: i32 = 111;
