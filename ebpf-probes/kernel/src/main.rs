//! The object that the loader embeds: the redirect programs and their maps.
//!
//! Built for the eBPF target by `../build.sh`; for any other target this is an empty program, so that plain cargo
//! commands do not trip over it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod facts;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod redirect;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The kernel lends several helpers to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here panics: the verifier would see a loop without end and refuse the program.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
