//! Weir: a transparent egress interceptor for LLM traffic.
//!
//! The modules are listed in the order in which a connection meets them.

pub mod capture;
pub mod sidecar;

pub mod ledger;
pub mod report;

pub mod process;
pub mod run;
pub mod cli;
