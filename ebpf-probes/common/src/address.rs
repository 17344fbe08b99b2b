//! One address type for IPv4 and IPv6, laid out as the kernel keeps it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address as four words, each holding network byte order, as in `struct bpf_sock_addr`. IPv4 is held as
/// `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2), so that a v4 socket and a v4-mapped v6 socket compare equal.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address([u32; 4]);

impl Address {
    /// From the one word of an IPv4 address.
    #[inline(always)]
    pub const fn from_v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From the four words of an IPv6 address, v4-mapped or not.
    #[inline(always)]
    pub const fn from_v6(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The four words of the IPv6 form.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// The word of the IPv4 address, if it is one.
    #[inline(always)]
    pub const fn v4(&self) -> Option<u32> {
        let [a, b, c, word] = self.0;
        if a == 0 && b == 0 && c == MAPPED {
            Some(word)
        } else {
            None
        }
    }

    /// Whether it never leaves the machine or the link: loopback, unspecified (which Linux connects to loopback)
    /// and link-local, where cloud metadata services live.
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        if let Some(word) = self.v4() {
            let host = u32::from_be(word);
            return host >> 24 == 127 || host >> 24 == 0 || host >> 16 == 0xa9fe;
        }
        let [a, b, c, d] = self.0;
        let is_loopback_or_unspecified = a == 0 && b == 0 && c == 0 && u32::from_be(d) <= 1;
        is_loopback_or_unspecified || u32::from_be(a) >> 22 == 0xfe80 >> 6
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                Self([96, 64, 32, 0].map(|shift| ((bits >> shift) as u32).to_be()))
            }
        }
    }
}

impl From<Address> for IpAddr {
    /// A v4-mapped address becomes IPv4.
    fn from(address: Address) -> Self {
        if let Some(word) = address.v4() {
            return Self::V4(Ipv4Addr::from_bits(u32::from_be(word)));
        }
        let bits = address.0.iter().fold(0, |bits: u128, word| {
            bits << 32 | u128::from(u32::from_be(*word))
        });
        Self::V6(Ipv6Addr::from_bits(bits))
    }
}

const MAPPED: u32 = 0xffff_u32.to_be();

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::string::ToString as _;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn every_form_survives_the_round_trip_and_mapped_becomes_v4() {
        for (given, canonical) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::1", "::1"),
            ("ffff:1:2:3:4:5:6:7", "ffff:1:2:3:4:5:6:7"),
        ] {
            assert_eq!(IpAddr::from(address(given)).to_string(), canonical);
        }
    }

    #[test]
    fn the_words_are_those_of_the_kernel() {
        assert_eq!(
            address("192.0.2.7"),
            Address::from_v4(u32::from_ne_bytes([192, 0, 2, 7]))
        );
        let [first, .., last] = address("2001:db8::7").words();
        assert_eq!(first.to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(last.to_ne_bytes(), [0, 0, 0, 7]);
    }

    #[test]
    fn local_is_loopback_unspecified_and_link_local_in_either_family() {
        for (text, is_local) in [
            ("127.0.0.1", true),
            ("127.255.255.254", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", true),
            ("169.254.169.254", true),
            ("::", true),
            ("::1", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("::2", false),
            ("fec0::1", false),
            ("fe7f::1", false),
            ("126.255.255.255", false),
            ("128.0.0.1", false),
            ("169.253.0.1", false),
            ("169.255.0.1", false),
            ("192.0.2.7", false),
            ("10.0.0.1", false),
            ("2001:db8::7", false),
        ] {
            assert_eq!(address(text).is_local(), is_local, "{text}");
        }
    }
}
