//! Weir: a transparent egress interceptor for LLM traffic.
//!
//! The modules are listed in the order in which a connection meets them; then what they share, and
//! what starts them.

pub mod capture;
mod accept;
pub mod client_hello;
mod decrypt;
mod exchange;
mod forward;
mod tunnel;
mod alerts;
mod read_ahead;
mod bell;
pub mod paged;
pub mod ledger;

pub mod sidecar;
pub mod metrics;
pub mod process;

pub mod run;
pub mod report;
pub mod demo;
pub mod cli;
