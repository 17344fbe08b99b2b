//! What the decision asks, answered by the kernel.

use core::ptr;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::{
        bpf_get_netns_cookie, bpf_ktime_get_ns, bpf_sk_lookup_tcp, bpf_sk_release,
        bpf_sk_storage_get,
    },
    programs::SockAddrContext,
};
use weir_probes_common::{Facts, Listener, ListenerState, Netns, Tag};

use crate::maps::{HEARTBEAT, NETNS, TAG};

/// The facts about the socket of one hook call.
pub struct Kernel<'a>(pub &'a SockAddrContext);

impl Facts for Kernel<'_> {
    #[inline(always)]
    fn netns(&self) -> Option<Netns> {
        // SAFETY: the context is the hook's own.
        let cookie = unsafe { bpf_get_netns_cookie(self.0.as_ptr()) };
        // SAFETY: entries are replaced, not edited in place, and copied out at once.
        unsafe { NETNS.get(&cookie) }.copied()
    }

    #[inline(always)]
    fn is_own_socket(&self) -> bool {
        tag(socket(self.0)) == Some(Tag::UPSTREAM)
    }

    #[inline(always)]
    fn is_device_bound(&self) -> bool {
        // SAFETY: the hook's socket is never null.
        unsafe { (*socket(self.0)).bound_dev_if != 0 }
    }

    /// Asks the socket table each time: a cached answer goes stale just when the listener dies.
    #[inline(always)]
    fn listener(&self, listener: Listener) -> ListenerState {
        let (mut tuple, bytes) = tuple(listener);
        // SAFETY: tuple lives across the call, and its first `bytes` bytes are initialised.
        let found = unsafe {
            bpf_sk_lookup_tcp(
                self.0.as_ptr(),
                &mut tuple,
                bytes,
                i64::from(BPF_F_CURRENT_NETNS) as u64,
                0,
            )
        };
        if found.is_null() {
            return ListenerState::Absent;
        }
        // SAFETY: found is a socket that we hold a reference to.
        let is_listening = unsafe { (*found).state } == TCP_LISTEN;
        let is_ours = tag(found) == Some(Tag::LISTENER);
        // SAFETY: gives back the reference that the look-up took.
        unsafe { bpf_sk_release(found.cast()) };
        match (is_listening, is_ours) {
            (false, _) => ListenerState::Absent,
            (true, false) => ListenerState::Foreign,
            (true, true) => ListenerState::Ours,
        }
    }

    #[inline(always)]
    fn heartbeat_age_ns(&self) -> u64 {
        match HEARTBEAT.get(0) {
            // User space may have read the clock a moment after we were called.
            // SAFETY: the helper has no preconditions.
            Some(&at) if at != 0 => unsafe { bpf_ktime_get_ns() }.saturating_sub(at),
            _ => u64::MAX,
        }
    }
}

/// The socket that the hook was called for.
#[inline(always)]
pub fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: a sock_addr hook always has a socket.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

#[inline(always)]
fn tag(socket: *mut bpf_sock) -> Option<Tag> {
    let map = (&raw const TAG).cast_mut().cast();
    // SAFETY: socket is not null; without the create flag the helper only looks.
    let tag = unsafe { bpf_sk_storage_get(map, socket.cast(), ptr::null_mut(), 0) };
    if tag.is_null() {
        return None;
    }
    // SAFETY: storage of TAG holds a Tag.
    Some(unsafe { *tag.cast::<Tag>() })
}

/// The 4-tuple whose destination is the listener. Its source is zero, which no connection has, so that only a
/// listening socket matches.
#[inline(always)]
fn tuple(listener: Listener) -> (bpf_sock_tuple, u32) {
    // SAFETY: integers only.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    match listener {
        Listener::V4(port) => {
            tuple.__bindgen_anon_1.ipv4.daddr = LOOPBACK4;
            tuple.__bindgen_anon_1.ipv4.dport = port.to_be();
            (
                tuple,
                size_of_val_u32(unsafe { &tuple.__bindgen_anon_1.ipv4 }),
            )
        }
        Listener::V6(port) => {
            tuple.__bindgen_anon_1.ipv6.daddr = LOOPBACK6;
            tuple.__bindgen_anon_1.ipv6.dport = port.to_be();
            (
                tuple,
                size_of_val_u32(unsafe { &tuple.__bindgen_anon_1.ipv6 }),
            )
        }
    }
}

#[inline(always)]
fn size_of_val_u32<T>(_value: &T) -> u32 {
    size_of::<T>() as u32
}

/// 127.0.0.1 in network byte order.
pub const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();
/// ::1 in network byte order.
pub const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// `TCP_LISTEN` of include/net/tcp_states.h.
const TCP_LISTEN: u32 = 10;
