//! What no exchange passes through: configuration, limits, state directory, log, admin server.

pub mod config;
pub mod limits;
