//! Weir: a transparent egress interceptor for LLM traffic.
//!
//! The modules are listed in the order in which a connection meets them.

mod accept;
pub mod capture;
pub mod client_hello;
mod decrypt;
mod exchange;
mod forward;
mod tunnel;

pub mod ledger;
pub mod metrics;
pub mod report;

pub mod process;
pub mod sidecar;
