//! Listeners on loopback, at a port that nobody else has a claim on.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use socket2::{Domain, Protocol, Socket, Type};

use crate::process::limits::LISTEN_BACKLOG;

/// A listener on 127.0.0.1 and, with `v6` and where the machine has it, one on ::1 at the same port.
pub(super) fn loopback(v6: bool) -> io::Result<Vec<TcpListener>> {
    let first = RandomState::new().hash_one(std::process::id());
    let mut last_error = io::Error::from(io::ErrorKind::AddrInUse);
    for port in candidates(first, ephemeral_range()).take(ATTEMPTS_MAX) {
        match at_port(port, v6) {
            Ok(listeners) => return Ok(listeners),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last_error = error,
            Err(error) => return Err(error),
        }
    }
    Err(last_error)
}

fn at_port(port: u16, v6: bool) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![bind((Ipv4Addr::LOCALHOST, port).into())?];
    if v6 {
        match bind((Ipv6Addr::LOCALHOST, port).into()) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // IPv6 is switched off here: not our loss, nobody can connect by it either.
            Err(error) => tracing::info!(%error, "no listener on ::1"),
        }
    }
    Ok(listeners)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // No SO_REUSEADDR or SO_REUSEPORT: another process of the same user could join the port.
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Ports in which nothing else counts on: not the ephemeral ones, which are taken at any moment,
/// and not the node ports of Kubernetes, which a socket load balancer claims. Where the machine's
/// ephemeral range leaves none, any port may be tried.
fn candidates(first: u64, ephemeral: RangeInclusive<u16>) -> impl Iterator<Item = u16> {
    let is_free = |port: &u16| !ephemeral.contains(port) && !NODE_PORTS.contains(port);
    let mut ports: Vec<u16> = CANDIDATES.filter(is_free).collect();
    if ports.is_empty() {
        ports = CANDIDATES.collect();
    }
    let count = u64::try_from(ports.len()).unwrap_or(1).max(1);
    let start = usize::try_from(first.checked_rem(count).unwrap_or(0)).unwrap_or(0);
    ports.rotate_left(start);
    ports.into_iter()
}

fn ephemeral_range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    text.ok()
        .and_then(|text| parse_range(&text))
        .unwrap_or(EPHEMERAL_DEFAULT)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_ascii_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Some(low..=high),
        _ => None,
    }
}

/// Whether this network namespace has a route to IPv6 addresses of the internet: a default route, or as
/// of a VPN one for a part of them. Where it has none, a listener on ::1 would make connections succeed
/// that must fail so that the client falls back to IPv4.
pub(super) fn has_ipv6_route() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/ipv6_route").is_ok_and(|text| leads_out(&text))
}

/// The table holds destination, its prefix length, source, its prefix length, next hop, metric,
/// references, uses, flags and device; the kernel's own "unreachable" default routes are on `lo`.
fn leads_out(table: &str) -> bool {
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(destination), Some(bits), Some(next_hop), Some(device)) =
            (fields.first(), fields.get(1), fields.get(4), fields.last())
        else {
            return false;
        };
        let first = destination
            .get(..2)
            .and_then(|first| u8::from_str_radix(first, 16).ok());
        let (Some(first), Ok(bits)) = (first, u32::from_str_radix(bits, 16)) else {
            return false;
        };
        // 2000::/3 is all that is given out (RFC 4291, section 2.4): a route to all of it or to a part. What
        // is only on the link, a /64 or less without a gateway, is no way out.
        let mask = u8::MAX
            .checked_shl(8_u32.saturating_sub(bits.min(3)))
            .unwrap_or(0);
        let is_global = (first ^ 0x20) & mask == 0;
        let has_gateway = next_hop.bytes().any(|digit| digit != b'0');
        is_global && (bits < 64 || has_gateway) && *device != "lo"
    })
}

/// Unprivileged ports, below the default ephemeral range.
const CANDIDATES: RangeInclusive<u16> = 10_000..=29_999;
/// What Kubernetes gives to services of type NodePort.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// The kernel's default.
const EPHEMERAL_DEFAULT: RangeInclusive<u16> = 32_768..=60_999;
/// So many ports in a row are taken only where something is wrong.
const ATTEMPTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_listen_at_one_port_outside_the_claimed_ranges() {
        let listeners = loopback(true).unwrap();
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        assert_eq!(addresses[0].ip(), Ipv4Addr::LOCALHOST);
        assert!(
            addresses
                .iter()
                .all(|address| address.port() == addresses[0].port())
        );
        assert!(!NODE_PORTS.contains(&addresses[0].port()));
        assert!(!ephemeral_range().contains(&addresses[0].port()));
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = loopback(false).unwrap();
        let port = taken[0].local_addr().unwrap().port();
        assert_eq!(
            at_port(port, false).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }

    #[test]
    fn candidates_keep_out_of_the_ephemeral_range_while_they_can() {
        assert!(candidates(7, 15_000..=60_999).all(|port| port < 15_000));
        assert_eq!(candidates(0, 1_024..=65_535).count(), 20_000);
        assert_eq!(candidates(3, 32_768..=60_999).next(), Some(10_003));
        assert_eq!(candidates(u64::MAX, 32_768..=60_999).count(), 20_000);
    }

    #[test]
    fn only_a_route_that_leads_out_through_a_device_counts() {
        let zero = "0".repeat(32);
        let unreachable =
            format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n");
        let link = format!(
            "fe80{} 40 {zero} 00 {zero} 00000100 1 0 00000001 eth0\n",
            "0".repeat(28)
        );
        let default = format!(
            "{zero} 00 {zero} 00 fe80{}1 400 1 0 00450003 eth0\n",
            "0".repeat(27)
        );
        let elsewhere = unreachable + &link;
        assert!(!leads_out(""));
        assert!(!leads_out(&elsewhere));
        assert!(leads_out(&(elsewhere.clone() + &default)));
        let route = |destination: &str, bits: u8, next_hop: &str| {
            format!(
                "{destination:0<32} {bits:02x} {zero} 00 {next_hop:0<32} 400 1 0 00000001 tun0\n"
            )
        };
        for (destination, bits, next_hop, expected) in [
            // As VPNs set them.
            ("2", 3, "0", true),
            ("0", 1, "0", true),
            ("8", 1, "0", false),
            ("20010db8", 32, "fe80", true),
            ("26064700", 32, "0", true),
            // The link alone, an address of this machine, a private network.
            ("20010db8", 64, "0", false),
            ("20010db8", 128, "0", false),
            ("fd00", 64, "fe80", false),
        ] {
            let table = elsewhere.clone() + &route(destination, bits, next_hop);
            assert_eq!(leads_out(&table), expected, "{destination}/{bits}");
        }
    }

    #[test]
    fn the_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_range(""), None);
        assert_eq!(parse_range("a b"), None);
    }
}
