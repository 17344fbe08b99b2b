//! Which network namespace a socket is in.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// The cookie of the socket's network namespace (`SO_NETNS_COOKIE`, Linux 5.14): never reused while the machine runs,
/// and what the kernel programs see.
///
/// # Errors
/// If the descriptor is not a socket, or the kernel is older.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut bytes = size_of::<u64>() as libc::socklen_t;
    #[expect(unsafe_code, reason = "neither std nor nix knows this option")]
    // SAFETY: the pointers are to live locals, and `bytes` is the size of `cookie`.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut bytes,
        )
    };
    if status == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::UdpSocket, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn two_sockets_of_one_namespace_have_the_same_cookie() {
        let [a, b] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_eq!(
            netns_cookie(a.as_fd()).unwrap(),
            netns_cookie(b.as_fd()).unwrap()
        );
        assert_ne!(netns_cookie(a.as_fd()).unwrap(), 0);
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let file = File::open("/proc/self/stat").unwrap();
        assert_eq!(
            netns_cookie(file.as_fd()).unwrap_err().raw_os_error(),
            Some(libc::ENOTSOCK)
        );
    }
}
