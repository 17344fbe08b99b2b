//! What the tests of the in-process tier stand on: a whole sidecar, the client before it and the
//! server behind it.
//!
//! In reading order: [`World`] is the sidecar with its state directory; [`Wire`] is a connection
//! byte by byte, either side's; [`Scripted`] is a server that does what a test says; [`Client`]
//! speaks HTTP where the bytes do not matter; [`Api`] knows what a call looks like; [`encode`] is
//! Content-Encoding from the other side.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its harness too"
)]

mod world;

mod wire;

mod scripted;

mod client;

mod api;

pub mod encode;

pub use api::Api;
pub use client::{Answer, Client, KEY, request};
pub use scripted::Scripted;
pub use wire::{Message, Wire};
pub use world::{Stored, World, ask_for_tunnel, handshake};

use std::time::Duration;

/// What takes longer than this hangs. No test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, and fails naming `what` where it hangs.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("expected {what} within {PATIENCE:?}"),
    }
}
