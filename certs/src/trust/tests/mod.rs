//! What programs are given, on made-up machines of every layout.

mod machine;

mod bundles;
mod overlays;
mod stores;
mod variables;
