//! What the kernel programs and user space agree on: the layout of the maps, and the decision whether to redirect.
//!
//! The decision is plain Rust so that it is tested on the host; the programs in `../kernel` only gather facts and
//! carry out the verdict.
#![no_std]

mod abi;
mod address;
mod decision;
mod reason;

pub use abi::{Config, FlowKey, Netns, Origin, PORTS_MAX, Tag};
pub use address::Address;
pub use decision::{Attempt, Facts, Listener, ListenerState, Protocol, Verdict, decide};
pub use reason::Reason;
