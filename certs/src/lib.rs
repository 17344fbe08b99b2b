//! The local certificate authority, the leaves it mints, and how programs are made to trust it.
//!
//! [`Authority`] is the CA in its file, [`Authority::leaf`] mints what a client is answered with,
//! and [`trust`] carries the certificate of the CA to the runtimes of one program or to the
//! machine's own store.

pub mod authority;
pub mod host;
pub mod trust;

pub use authority::{Authority, AuthorityError, Leaf};

use std::fmt::Write as _;

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}
