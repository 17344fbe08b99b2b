//! What no exchange passes through: configuration, limits, clock, state directory, log, what a killed
//! process leaves behind, admin server.

pub mod admin;
pub mod clock;
pub mod config;
pub mod leftovers;
pub mod limits;
pub mod logging;
pub(crate) mod prices;
pub mod state;
