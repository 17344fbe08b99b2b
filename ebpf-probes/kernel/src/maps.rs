//! The maps, filled by user space (`CONFIG`, `NETNS`, `HEARTBEAT`, `TAG`) and by the programs (the rest).

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, SkStorage},
    macros::btf_map,
};
use weir_probes_common::{Config, FlowKey, Netns, Origin, Reason, Tag};

/// The policy of this attachment.
#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();

/// Enrolled network namespaces, by cookie.
#[btf_map]
pub static NETNS: HashMap<u64, Netns, 4096> = HashMap::new();

/// When user space last showed life, in nanoseconds of `CLOCK_MONOTONIC`; 0: never.
#[btf_map]
pub static HEARTBEAT: Array<u64, 1> = Array::new();

/// Marks on our own sockets.
#[btf_map]
pub static TAG: SkStorage<Tag> = SkStorage::new();

/// What a redirected socket asked for. Dies with the socket.
#[btf_map]
pub static ORIGIN: SkStorage<Origin> = SkStorage::new();

/// What a connection that reaches a listener asked for, by what the listener sees. An entry is taken by the listener
/// within microseconds of accept; the LRU evicts those whose connection was never accepted.
#[btf_map]
pub static FLOWS: LruHashMap<FlowKey, Origin, 65_536> = LruHashMap::new();

/// How often each [`Reason`] applied.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Reason::ALL.len() }> = PerCpuArray::new();

/// Whether this kernel has `bpf_set_retval` (5.18). Without it a refusal reads EPERM instead of ECONNREFUSED. The
/// loader sets it before the verifier sees the programs, which then drops the calls that would not verify.
#[unsafe(no_mangle)]
pub static CAN_SET_ERRNO: Global<u8> = Global::new(1);

/// Counts one attempt under `reason`.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the slot is this CPU's own, and programs of one CPU do not preempt each other here.
        unsafe { *counter += 1 };
    }
}
