//! How a program is made to trust the CA: what it finds, what it is told, what is put in its way.
//!
//! [`Surroundings`] is the machine as the program sees it, [`Files`] the directory of what it may
//! read. From the two follow the variables it gets ([`environment()`]) and the files it sees replaced
//! ([`overlays()`]). [`store`] is the machine's own trust store, and [`runtimes`] tells `weir doctor`
//! which runtime learns of the CA by which way.
//!
//! Nothing that verified before stops verifying: what replaces a set of roots holds that set.

pub mod bundle;
mod environment;
mod files;
mod java;
mod overlay;
mod python;
mod report;
pub mod store;
mod surroundings;

use std::path::PathBuf;

pub use environment::{Environment, JavaDelivery, environment};
pub use files::Files;
pub use overlay::{FileId, Overlay, OverlayKind, Overlays, overlays};
pub use report::{RuntimeTrust, TrustedBy, runtimes};
pub use surroundings::Surroundings;

/// Why the certificate of the CA could not be handed out.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file for programs could not be written.
    #[error(
        "cannot write {}: {source}; make it writable, or run as a user who may write it",
        path.display()
    )]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system has no trust store of a known layout.
    #[error(
        "found no trust store under {}: expected `update-ca-certificates` (Debian, Alpine, SUSE) or `update-ca-trust` (Fedora); install the package ca-certificates",
        root.display()
    )]
    NoStore {
        /// Where the file system of the system starts.
        root: PathBuf,
    },
    /// The system's own command that rebuilds its trust store failed.
    #[error("{} failed: {found}; run it by hand to see why", command.display())]
    UpdateFailed {
        /// The command.
        command: PathBuf,
        /// How it ended, and the last it said.
        found: String,
    },
}

#[cfg(test)]
mod tests;
