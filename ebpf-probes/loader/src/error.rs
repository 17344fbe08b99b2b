//! What can go wrong, each with what to do about it.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    programs::{ProgramError, ProgramType, links::LinkError},
};
use weir_probes_common::PORTS_MAX;

/// Why the programs could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A capability is not in the effective set.
    #[error(
        "expected the capability {capability}, found it missing; run as root, or grant CAP_BPF and CAP_NET_ADMIN \
         (containers: --cap-add BPF --cap-add NET_ADMIN)"
    )]
    MissingCapability {
        /// Its name.
        capability: &'static str,
    },
    /// No cgroup2 file system is mounted.
    #[error(
        "expected a cgroup2 file system in /proc/self/mountinfo, found none; mount one: \
         mount -t cgroup2 none /sys/fs/cgroup"
    )]
    NoCgroup2,
    /// The cgroup2 file system is mounted read-only.
    #[error(
        "expected a writable cgroup2 file system, found {path} mounted read-only; in a container, share the \
         host's: --cgroupns host -v /sys/fs/cgroup:/sys/fs/cgroup"
    )]
    ReadOnlyCgroup2 {
        /// Where it is mounted.
        path: PathBuf,
    },
    /// The directory to attach to is not a cgroup2.
    #[error("expected a directory of a cgroup2 file system, found that {path} is none")]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// A cgroup could not be opened, made, entered or removed.
    #[error("cgroup {path}: {source}")]
    Cgroup {
        /// Its directory, or the file in it.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The list of ports does not fit.
    #[error("expected 1 to {PORTS_MAX} ports from 1 to 65535, found {found:?}")]
    Ports {
        /// What was asked for.
        found: Vec<u16>,
    },
    /// The kernel refused the object or one of its maps.
    #[error(
        "the kernel did not take the eBPF object; expected Linux 5.15 or later with CONFIG_BPF_SYSCALL and \
         CONFIG_CGROUP_BPF: {source}"
    )]
    Object {
        /// What aya says.
        source: Box<EbpfError>,
    },
    /// The kernel refused a program.
    #[error(
        "the kernel did not take the eBPF program {program}; expected Linux 5.15 or later with \
         CONFIG_CGROUP_BPF: {source}"
    )]
    Program {
        /// Its name.
        program: String,
        /// What aya says, with the verifier's log.
        source: Box<ProgramError>,
    },
    /// The object holds a program of a kind that the loader does not know.
    #[error(
        "expected only cgroup_sock_addr and sock_ops programs in the object, found {program}, a {kind:?}"
    )]
    UnknownProgram {
        /// Its name.
        program: String,
        /// Its kind.
        kind: ProgramType,
    },
    /// The kernel did not attach a program.
    #[error("the eBPF program {program} could not be attached to the cgroup: {source}")]
    Attach {
        /// Its name.
        program: String,
        /// What aya says.
        source: AttachError,
    },
    /// The object lacks a map.
    #[error(
        "expected the map {map} in the eBPF object, found none; was EBPF_OBJECT built from another version?"
    )]
    NoMap {
        /// Its name.
        map: &'static str,
    },
    /// A map could not be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A link could not be pinned or unpinned.
    #[error("pin {path}: {source}")]
    Pin {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The directory for pins is not on a bpffs, and none could be mounted.
    #[error(
        "expected {path} to be on a bpf file system, found that it is not; mount one: mount -t bpf bpf /sys/fs/bpf ({source})"
    )]
    NoBpffs {
        /// The directory.
        path: PathBuf,
        /// Why mounting it failed.
        source: io::Error,
    },
}

/// Why the kernel did not attach a program.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// `BPF_LINK_CREATE` failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The kernel has no links for cgroups (before Linux 5.7).
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A map could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("eBPF map {map}: {source}")]
pub struct MapError {
    /// Its name.
    pub map: &'static str,
    /// What aya says.
    pub source: aya::maps::MapError,
}

impl MapError {
    pub(crate) fn of(map: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |source| Self { map, source }
    }
}
