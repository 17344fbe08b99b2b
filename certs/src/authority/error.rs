//! What can be wrong with a CA, and what to do about it.

use std::path::PathBuf;

use time::OffsetDateTime;

/// Why there is no CA, or why it would not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is no CA in the directory.
    #[error("no CA at {}: make one with `weir ca init`", path.display())]
    Absent {
        /// The file that would hold it.
        path: PathBuf,
    },
    /// The file of the CA could not be read.
    #[error("cannot read the CA at {}: {source}; run as its owner", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of the CA could not be written.
    #[error(
        "cannot write the CA at {}: {source}; make the state directory writable for this user, or name another with `--state-dir`",
        path.display()
    )]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than the owner can read or write the private key.
    #[error(
        "the CA key at {} has mode {mode:04o}, expected 0600: others may have read it; replace it with `weir ca rotate`, or, if nobody else has been on this machine, `chmod 600` it",
        path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what this program wrote.
    #[error(
        "the CA at {} is damaged: expected one constrained CA certificate and its private key, found {found}; replace it with `weir ca rotate`",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// The certificate of the CA has run out.
    #[error("the CA expired at {not_after}: replace it with `weir ca rotate`")]
    Expired {
        /// Its last valid second.
        not_after: OffsetDateTime,
    },
    /// The certificate of the CA is from the future.
    #[error("the CA is valid from {not_before}, and the clock is before that: set the clock")]
    NotYetValid {
        /// Its first valid second.
        not_before: OffsetDateTime,
    },
    /// The host list is empty. A CA without permitted names would be good for every name.
    #[error("the list of hosts for the CA is empty: expected at least one host name")]
    NoHosts,
    /// An entry of the host list cannot be a name constraint.
    #[error("expected a host name or `*.suffix` in the hosts of the CA, found {entry:?}")]
    NotAHost {
        /// The entry.
        entry: String,
    },
    /// A leaf was asked for a name that the CA may not sign.
    #[error(
        "the CA is not made for {host:?}: add it to `[intercept] hosts` and run `weir ca rotate`"
    )]
    NotCovered {
        /// The name as it was asked for.
        host: String,
    },
    /// The cryptographic library refused.
    #[error("could not make a certificate: {0}")]
    Cryptography(#[from] rcgen::Error),
}
