//! The decision: redirect, let pass or refuse, and why.

use crate::{Address, Config, Netns, Reason};

/// Decides about one connection attempt, or one unconnected UDP send.
///
/// Facts are asked for one by one, cheapest first, so that a connection which is none of our business costs one array
/// look-up. From the point where the attempt is ours by policy, whatever stands in the way of redirecting it lets it
/// pass (fail open) or refuses it (fail closed). UDP is refused exactly where TCP would be redirected: a program that
/// tries QUIC then falls back to TCP at once, and with Weir gone QUIC works as if it had never been there.
#[inline(always)]
pub fn decide(attempt: &Attempt, config: &Config, facts: &impl Facts) -> Verdict {
    if !config.covers(attempt.port) {
        return Verdict::Pass(Reason::OtherPort);
    }
    let Some(netns) = facts.netns() else {
        return Verdict::Pass(Reason::NotEnrolled);
    };
    if facts.is_own_socket() {
        return Verdict::Pass(Reason::OwnSocket);
    }
    if attempt.destination.is_local() {
        return Verdict::Pass(Reason::LocalDestination);
    }
    if facts.is_device_bound() {
        return Verdict::not_redirectable(&netns, Reason::DeviceBound);
    }
    let listener = match attempt.destination.v4() {
        Some(_) => Listener::V4(netns.port4),
        None if netns.port6 == 0 => {
            return Verdict::not_redirectable(&netns, Reason::NoV6Listener);
        }
        None => Listener::V6(netns.port6),
    };
    match facts.listener(listener) {
        ListenerState::Absent => Verdict::not_redirectable(&netns, Reason::NoListener),
        ListenerState::Foreign => Verdict::not_redirectable(&netns, Reason::UntaggedListener),
        ListenerState::Ours if facts.heartbeat_age_ns() > config.stale_after_ns => {
            Verdict::not_redirectable(&netns, Reason::HeartbeatStale)
        }
        ListenerState::Ours => match attempt.protocol {
            Protocol::Tcp => Verdict::Redirect(listener),
            Protocol::Udp => Verdict::Refuse(Reason::QuicRefused),
        },
    }
}

/// What the program asked for.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Transport of the socket.
    pub protocol: Protocol,
    /// Address asked for.
    pub destination: Address,
    /// Port asked for, host byte order.
    pub port: u16,
}

/// The transports that the hooks look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP, including subflows of MPTCP.
    Tcp,
    /// UDP, connected or not.
    Udp,
}

/// What has to be known beside the attempt; the kernel programs ask the kernel, tests say it.
pub trait Facts {
    /// The entry of the socket's network namespace, if it is enrolled.
    fn netns(&self) -> Option<Netns>;
    /// Whether the socket carries [`crate::Tag::UPSTREAM`].
    fn is_own_socket(&self) -> bool;
    /// Whether the socket is bound to a device.
    fn is_device_bound(&self) -> bool;
    /// What is at a loopback port of the socket's network namespace.
    fn listener(&self, listener: Listener) -> ListenerState;
    /// Nanoseconds since the last heartbeat; `u64::MAX` if there never was one.
    fn heartbeat_age_ns(&self) -> u64;
}

/// A listener on loopback, by its port in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// On 127.0.0.1.
    V4(u16),
    /// On ::1.
    V6(u16),
}

/// What is found at the listener's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerState {
    /// No listening socket.
    Absent,
    /// A listening socket without [`crate::Tag::LISTENER`].
    Foreign,
    /// Our listening socket.
    Ours,
}

/// What happens to the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its destination is rewritten to our listener.
    Redirect(Listener),
    /// It goes where the program wants.
    Pass(Reason),
    /// It fails with `ECONNREFUSED`.
    Refuse(Reason),
}

impl Verdict {
    /// The verdict on an attempt that should be redirected and cannot be.
    #[inline(always)]
    pub const fn not_redirectable(netns: &Netns, reason: Reason) -> Self {
        if netns.fails_closed() {
            Self::Refuse(reason)
        } else {
            Self::Pass(reason)
        }
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
