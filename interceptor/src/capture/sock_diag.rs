//! Asks the kernel for one socket by its addresses (sock_diag(7)), which takes as long on a machine
//! with a hundred thousand sockets as on one with ten.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::owner::Socket;

/// The TCP socket of this network namespace that is connected from `local` to `remote`.
///
/// # Errors
/// The kernel does not answer such questions; that it knows no such socket is none.
pub(super) fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Socket>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    setsockopt(
        &netlink,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(ANSWER_WAIT_MS),
    )?;
    send(
        netlink.as_raw_fd(),
        &question(local, remote),
        MsgFlags::empty(),
    )?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    read(answer.get(..length).unwrap_or_default(), remote)
}

/// A `struct nlmsghdr` and a `struct inet_diag_req_v2`, as in `linux/inet_diag.h`.
fn question(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = match local.ip() {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let mut body = vec![
        u8::try_from(family).unwrap_or_default(),
        u8::try_from(libc::IPPROTO_TCP).unwrap_or_default(),
        0,
        0,
    ];
    body.extend(u32::MAX.to_ne_bytes()); // In any state.
    body.extend(local.port().to_be_bytes());
    body.extend(remote.port().to_be_bytes());
    body.extend(address(local));
    body.extend(address(remote));
    body.extend(0_u32.to_ne_bytes()); // On any interface.
    body.extend([u32::MAX.to_ne_bytes(); 2].as_flattened()); // With any cookie.
    let length = u32::try_from(HEAD_BYTES.saturating_add(body.len())).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(
        u16::try_from(libc::NLM_F_REQUEST)
            .unwrap_or(1)
            .to_ne_bytes(),
    );
    message.extend([0; 8]); // Sequence number and sender, which the kernel fills in.
    message.extend(body);
    message
}

fn address(of: SocketAddr) -> [u8; 16] {
    match of.ip() {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip(ip.octets()) {
                *to = from;
            }
            bytes
        }
    }
}

/// A `struct nlmsghdr` and a `struct inet_diag_msg`, or an error number.
fn read(answer: &[u8], remote: SocketAddr) -> io::Result<Option<Socket>> {
    let short = || {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "sock_diag answered too little",
        )
    };
    let kind = chunk(answer, 4).map(u16::from_ne_bytes).ok_or_else(short)?;
    let number = |at| chunk(answer, at).map(u32::from_ne_bytes).ok_or_else(short);
    if i32::from(kind) == libc::NLMSG_ERROR {
        let errno = i32::from_ne_bytes(number(HEAD_BYTES)?.to_ne_bytes());
        return match errno.checked_neg() {
            Some(libc::ENOENT) => Ok(None),
            errno => Err(io::Error::from_raw_os_error(errno.unwrap_or_default())),
        };
    }
    let port = chunk(answer, REMOTE_PORT_AT)
        .map(u16::from_be_bytes)
        .ok_or_else(short)?;
    let (uid, inode) = (number(UID_AT)?, u64::from(number(INODE_AT)?));
    // Without one that is connected the kernel answers with the listener; one that is closed has no
    // owner any more.
    let found = port == remote.port() && inode != 0;
    Ok(found.then_some(Socket { inode, uid }))
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Of a `struct nlmsghdr`.
const HEAD_BYTES: usize = 16;
/// Where the fields of a `struct inet_diag_msg` are.
const REMOTE_PORT_AT: usize = HEAD_BYTES + 6;
const UID_AT: usize = HEAD_BYTES + 64;
const INODE_AT: usize = HEAD_BYTES + 68;
/// The message and its attributes take some hundred bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// The kernel answers within the system call that asks.
const ANSWER_WAIT_MS: i64 = 100;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_is_found_by_its_addresses_in_each_family_and_gone_when_it_is_closed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let remote = listener.local_addr().unwrap();
            let stream = TcpStream::connect(remote).unwrap();
            let local = stream.local_addr().unwrap();
            let found = find(local, remote).unwrap().unwrap();
            assert_eq!(found.uid, nix::unistd::getuid().as_raw());
            let link = format!("/proc/self/fd/{}", stream.as_raw_fd());
            let held = std::fs::read_link(link).unwrap();
            assert_eq!(
                held.to_str().unwrap(),
                format!("socket:[{}]", found.inode),
                "{address}"
            );
            drop(stream);
            drop(listener.accept().unwrap());
            assert_eq!(find(local, remote).unwrap(), None, "{address}");
        }
    }

    #[test]
    fn a_listener_is_not_taken_for_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let remote = "127.0.0.1:1".parse().unwrap();
        assert_eq!(find(local, remote).unwrap(), None);
    }

    #[test]
    fn an_ipv4_connection_of_an_ipv6_socket_is_found() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let remote = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect(remote).unwrap();
        let accepted = listener.accept().unwrap().0;
        let near = find(remote, stream.local_addr().unwrap()).unwrap().unwrap();
        let link = format!("/proc/self/fd/{}", accepted.as_raw_fd());
        let held = std::fs::read_link(link).unwrap();
        assert_eq!(held.to_str().unwrap(), format!("socket:[{}]", near.inode));
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_no_panic() {
        let remote = "127.0.0.1:1".parse().unwrap();
        let refused = [&[36, 0, 0, 0, 2, 0][..], &[0; 10], &(-13_i32).to_ne_bytes()].concat();
        assert_eq!(read(&refused, remote).unwrap_err().raw_os_error(), Some(13));
        for length in 0..refused.len() {
            assert!(read(&refused[..length], remote).is_err(), "{length}");
        }
    }
}
