//! The other processes of the redirect's tests: a program that connects, or a Weir that can be stopped and killed.
//!
//! Commands come as lines on stdin, one answer line each goes to stdout: `ok …` or `error <errno or message>`.
#![expect(clippy::print_stdout, reason = "stdout carries the answers")]

use std::{
    io::{self, BufRead as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
    process,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{Uid, setresuid},
};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use weir_probes::{ChildCgroup, Fail, Options, Redirect, netns_cookie, own_pin_directory};

fn main() -> Result<()> {
    let mut application = Application {
        socket: None,
        weir: None,
    };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match application.obey(&words) {
            Ok(answer) => println!("ok {answer}"),
            Err(error) => match error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error)
            {
                Some(errno) => println!("error {errno}"),
                None => println!("error {error:#}"),
            },
        }
    }
    Ok(())
}

struct Application {
    /// The last socket stays open until the next command that makes one.
    socket: Option<Socket>,
    weir: Option<Weir>,
}

struct Weir {
    redirect: Redirect,
    cgroup: ChildCgroup,
    _listener: TcpListener,
}

impl Application {
    fn obey(&mut self, words: &[&str]) -> Result<String> {
        match words {
            ["become", uid] => {
                let uid = Uid::from_raw(uid.parse()?);
                setresuid(uid, uid, uid)?;
                Ok(String::new())
            }
            ["connect", kind, destination, options @ ..] => {
                let socket = self.socket.insert(open(kind)?);
                prepare(socket, options)?;
                connect(socket, destination, options.contains(&"nonblocking"))
            }
            ["again", destination] => {
                let socket = self
                    .socket
                    .as_ref()
                    .context("expected an earlier connect")?;
                dissolve(socket)?;
                connect(socket, destination, false)
            }
            ["send", kind, destination] => {
                let destination: SocketAddr = destination.parse()?;
                let sent = self
                    .socket
                    .insert(open(kind)?)
                    .send_to(b"ping", &destination.into())?;
                Ok(sent.to_string())
            }
            ["weir", fail] => {
                let weir = self.weir.insert(Weir::start(fail)?);
                Ok(weir.cgroup.path().display().to_string())
            }
            ["beat"] => {
                self.weir()?.redirect.heartbeat()?;
                Ok(String::new())
            }
            ["enter"] => {
                self.weir()?.cgroup.add(process::id())?;
                Ok(String::new())
            }
            ["upstream", kind, destination] => {
                let socket = open(kind)?;
                self.weir()?.redirect.tag_upstream(socket.as_fd())?;
                connect(self.socket.insert(socket), destination, false)
            }
            _ => bail!("expected a command, found {words:?}"),
        }
    }

    fn weir(&self) -> Result<&Weir> {
        self.weir.as_ref().context("expected `weir` before")
    }
}

impl Weir {
    fn start(fail: &str) -> Result<Self> {
        let (fail, pin) = match fail {
            "open" => (Fail::Open, None),
            "closed" => (Fail::Closed, Some(own_pin_directory()?)),
            other => bail!("expected open or closed, found {other}"),
        };
        let cgroup = ChildCgroup::create()?;
        let redirect = Redirect::attach(&Options {
            cgroup: cgroup.path(),
            ports: &[443],
            fail,
            pin: pin.as_deref(),
        })?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let cookie = netns_cookie(listener.as_fd())?;
        redirect.enroll(cookie, listener.local_addr()?.port(), None)?;
        redirect.tag_listener(listener.as_fd())?;
        redirect.heartbeat()?;
        Ok(Self {
            redirect,
            cgroup,
            _listener: listener,
        })
    }
}

fn open(kind: &str) -> Result<Socket> {
    let (domain, type_, protocol) = match kind {
        "tcp4" => (Domain::IPV4, Type::STREAM, Protocol::TCP),
        "tcp6" => (Domain::IPV6, Type::STREAM, Protocol::TCP),
        "udp4" => (Domain::IPV4, Type::DGRAM, Protocol::UDP),
        "udp6" => (Domain::IPV6, Type::DGRAM, Protocol::UDP),
        other => bail!("expected a kind of socket, found {other}"),
    };
    let socket = Socket::new(domain, type_, Some(protocol))?;
    // It bounds a blocking connect too, so that a test fails and does not hang.
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn prepare(socket: &Socket, options: &[&str]) -> Result<()> {
    for option in options {
        match option.split_once('=') {
            Some(("bind", address)) => socket.bind(&address.parse::<SocketAddr>()?.into())?,
            Some(("device", device)) => socket.bind_device(Some(device.as_bytes()))?,
            None if *option == "nonblocking" => socket.set_nonblocking(true)?,
            _ => bail!("expected an option of connect, found {option}"),
        }
    }
    Ok(())
}

/// The answer is: peer, own address, socket cookie.
fn connect(socket: &Socket, destination: &str, nonblocking: bool) -> Result<String> {
    match socket.connect(&destination.parse::<SocketAddr>()?.into()) {
        Err(error) if nonblocking && error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
            let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            poll(&mut ready, PollTimeout::try_from(PATIENCE)?)?;
            socket.take_error()?.map_or(Ok(()), Err)?;
        }
        other => other?,
    }
    let [peer, local] = [socket.peer_addr()?, socket.local_addr()?].map(|address| {
        address
            .as_socket()
            .map_or_else(String::new, |address| address.to_string())
    });
    Ok(format!("{peer} {local} {}", socket.cookie()?))
}

/// Undoes a connect, as connect(2) describes it for `AF_UNSPEC`.
fn dissolve(socket: &Socket) -> Result<()> {
    #[expect(
        unsafe_code,
        reason = "no safe way to make an address of family AF_UNSPEC"
    )]
    // SAFETY: all zero is the family AF_UNSPEC, and 16 bytes of it, the size of a sockaddr_in, are initialised.
    let address = unsafe { SockAddr::new(SockAddrStorage::zeroed(), 16) };
    Ok(socket.connect(&address)?)
}

const PATIENCE: Duration = Duration::from_secs(10);
