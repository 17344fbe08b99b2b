//! Why a connection attempt was treated as it was: one counter each.

/// Index of map `COUNTERS`. Every attempt that a hook sees is counted once; one that fail-closed refused is counted
/// a second time as [`Reason::RefusedClosed`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// TCP, sent to our listener.
    Redirected,
    /// The destination port is not in the policy.
    OtherPort,
    /// The network namespace is not enrolled.
    NotEnrolled,
    /// The socket carries our tag.
    OwnSocket,
    /// The destination is loopback, unspecified or link-local.
    LocalDestination,
    /// The socket is bound to a device (`SO_BINDTODEVICE`): redirected to loopback it would hang.
    DeviceBound,
    /// Native IPv6, and the namespace has no listener on ::1.
    NoV6Listener,
    /// Nothing listens at the enrolled port.
    NoListener,
    /// What listens at the enrolled port is not ours.
    UntaggedListener,
    /// The listener is there, but its process has not shown life for too long.
    HeartbeatStale,
    /// UDP that could be QUIC, refused so that the program falls back to TCP.
    QuicRefused,
    /// The kernel had no memory to note the original destination on the socket.
    OriginNotStored,
    /// Redirected, but the flow could not be stored: the listener will not find the destination.
    FlowNotStored,
    /// Refused because the namespace fails closed; its own reason is counted too.
    RefusedClosed,
}

impl Reason {
    /// All of them, in the order of their index.
    pub const ALL: [Self; 14] = [
        Self::Redirected,
        Self::OtherPort,
        Self::NotEnrolled,
        Self::OwnSocket,
        Self::LocalDestination,
        Self::DeviceBound,
        Self::NoV6Listener,
        Self::NoListener,
        Self::UntaggedListener,
        Self::HeartbeatStale,
        Self::QuicRefused,
        Self::OriginNotStored,
        Self::FlowNotStored,
        Self::RefusedClosed,
    ];

    /// The name used in metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::OtherPort => "other_port",
            Self::NotEnrolled => "not_enrolled",
            Self::OwnSocket => "own_socket",
            Self::LocalDestination => "local_destination",
            Self::DeviceBound => "device_bound",
            Self::NoV6Listener => "no_v6_listener",
            Self::NoListener => "no_listener",
            Self::UntaggedListener => "untagged_listener",
            Self::HeartbeatStale => "heartbeat_stale",
            Self::QuicRefused => "quic_refused",
            Self::OriginNotStored => "origin_not_stored",
            Self::FlowNotStored => "flow_not_stored",
            Self::RefusedClosed => "refused_closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_at_its_own_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
    }
}
