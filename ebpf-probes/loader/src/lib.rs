//! Loads the redirect programs into the kernel, attaches them to a cgroup, and feeds their maps.
//!
//! [`Redirect`] is the whole of it: [`Redirect::attach`], then [`Redirect::enroll`] each network namespace that has a
//! listener, tag the listeners, keep the heartbeat going, and [`Redirect::take_flow`] for each accepted connection.
//! [`ChildCgroup`] makes the cgroup for a command of our own. What the programs decide is in `weir-probes-common`.

mod redirect;

mod capabilities;
mod cgroup;
mod error;
mod instance;
mod pin;
mod socket;

pub use cgroup::{ChildCgroup, PARENT as CGROUP_PARENT, cgroup2_mount};
pub use error::{AttachError, LoadError, MapError};
pub use instance::clean_stale;
pub use pin::own_pin_directory;
pub use redirect::{Counters, FLOW_AGE_MAX, Fail, Flow, Options, Redirect, STALE_AFTER};
pub use socket::netns_cookie;
pub use weir_probes_common::{PORTS_MAX, Reason};
