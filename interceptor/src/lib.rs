//! Weir.

pub mod ledger;
pub mod report;
