//! Every decision of Weir, as pure functions and values: no I/O, no clock, no tasks, no locks.
//!
//! In reading order: what was asked (`catalog`, `api`, `json`, `call`), what came back (`sse`,
//! `frames`, `lines`, `answer`, `socket`, `usage`), what it cost (`money`, `pricing`, `cache`), and what is allowed
//! (`identity`, `estimate`, `caps`, `refusal`, `edit`), and how a prompt is kept in the cache
//! (`prompt`, `volatile`, `rewrite`).

#![forbid(unsafe_code)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::float_arithmetic
)]

pub mod catalog;
pub mod api;
pub mod json;
pub mod call;
pub mod sse;
pub mod frames;
pub mod lines;
pub mod answer;
pub mod socket;
pub mod usage;
pub mod money;
pub mod pricing;
pub mod cache;
pub mod identity;
pub mod estimate;
pub mod caps;
pub mod lease;
pub mod refusal;
pub mod edit;
pub mod prompt;
pub mod volatile;
pub mod rewrite;
