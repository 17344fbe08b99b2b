//! The local certificate authority, the leaves it mints, and how programs are made to trust it.
//!
//! [`Authority`] is the CA in its file; [`Authority::leaf`] mints what a client is answered with.

pub mod authority;
pub mod host;

pub use authority::{Authority, AuthorityError, Leaf};
