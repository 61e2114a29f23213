//! Sockets that whoever started the process listens on already, as systemd's socket units do:
//! `sd_listen_fds(3)`. The only place of lamb that makes something of a descriptor's number.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// The sockets of `LISTEN_FDS`, in their order.
#[derive(Debug, Default)]
pub struct Passed {
    pub tcp: Vec<TcpListener>,
    pub unix: Vec<UnixListener>,
}

impl Passed {
    /// Takes what the environment says was passed to this process; nothing where that says nothing. To
    /// be called once, before the process opens anything.
    pub fn take() -> Result<Passed> {
        let mut passed = Passed::default();
        for number in sd_notify::listen_fds()? {
            passed.add(own(number)).with_context(|| format!("descriptor {number}"))?;
        }
        Ok(passed)
    }

    fn add(&mut self, socket: OwnedFd) -> Result<()> {
        let kind = || -> io::Result<_> {
            Ok((socket_domain(&socket)?, socket_type(&socket)?, socket_acceptconn(&socket)?))
        };
        match kind()? {
            (AddressFamily::INET | AddressFamily::INET6, SocketType::STREAM, true) => {
                self.tcp.push(socket.into());
            }
            (AddressFamily::UNIX, SocketType::STREAM, true) => self.unix.push(socket.into()),
            _ => bail!("not a TCP or Unix stream socket that listens"),
        }
        Ok(())
    }
}

#[allow(unsafe_code)]
fn own(number: RawFd) -> OwnedFd {
    // SAFETY: it is open, as it could be made close-on-exec, and was passed to this process, whose
    // code has opened nothing yet and does this once.
    unsafe { OwnedFd::from_raw_fd(number) }
}
