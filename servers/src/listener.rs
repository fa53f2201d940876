//! The listening socket, made in one place so that it is the same for every model.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{SOCK_CLOEXEC, SOCK_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::Connection;
use crate::server::{Server, Warning, log, timestamp};

/// Pause after an accept that failed for want of descriptors or memory. The connection stays in the
/// kernel's queue, so the listener stays readable: a loop without a pause burned 95 % of a CPU.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(50);

/// Errors of setting up a listening server.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket listens on the address.
    #[error(
        "cannot listen on {0}: the port is in use; stop the other server, or take port 0 for any free \
         one"
    )]
    InUse(SocketAddr),
    /// No interface of this machine has the address.
    #[error(
        "cannot listen on {0}: not an address of this machine; take 127.0.0.1 for this machine \
         only, or 0.0.0.0 for all its addresses"
    )]
    NotLocal(SocketAddr),
    /// The port is reserved.
    #[error(
        "cannot listen on {0}: not permitted; ports below 1024 are reserved, take a higher one"
    )]
    NotPermitted(SocketAddr),
    /// Any other failure to listen.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, #[source] io::Error),
    /// A failure to set up signals, counters or events.
    #[error("cannot set up the server: {0}")]
    Setup(#[from] io::Error),
}

impl BindError {
    fn new(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            io::ErrorKind::AddrNotAvailable => BindError::NotLocal(address),
            io::ErrorKind::PermissionDenied => BindError::NotPermitted(address),
            _ => BindError::Other(address, error),
        }
    }
}

/// Results of an attempt to accept.
pub(crate) enum Accepted {
    Connection(Connection),
    /// A connection above the limit was refused.
    Refused,
    /// The backlog is empty.
    Empty,
    /// A connection is waiting, and cannot be accepted now.
    Exhausted,
}

/// A listening socket that never blocks.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    server: Arc<Server>,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, server: &Arc<Server>) -> Result<Self, BindError> {
        let socket = listen(address, server.settings.backlog)
            .map_err(|error| BindError::new(address, error))?;
        Ok(Listener {
            socket,
            server: Arc::clone(server),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?;
        address
            .as_socket()
            .ok_or_else(|| Errno::EAFNOSUPPORT.into())
    }

    /// Accepts one connection, with a blocking or a non-blocking socket.
    pub(crate) fn accept(&self, blocking: bool) -> Accepted {
        let flags = if blocking { 0 } else { SOCK_NONBLOCK };

        loop {
            let error = match self.socket.accept4(SOCK_CLOEXEC | flags) {
                Ok((socket, address)) => {
                    if self.server.settings.verbose {
                        let peer = address.as_socket().map(|peer| peer.to_string());
                        let peer = peer.unwrap_or_default();
                        log(format_args!("{} connection from {peer}", timestamp()));
                    }
                    let connection = Connection::new(&self.server, TcpStream::from(socket));
                    return self.admit(connection);
                }
                Err(error) => error,
            };

            match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::EAGAIN => return Accepted::Empty,
                // A signal, or a client that has already disconnected.
                Errno::EINTR | Errno::ECONNABORTED => {}
                // Mostly EMFILE, ENFILE, ENOBUFS or ENOMEM. No error ends the server, and none is
                // worth an immediate retry.
                _ => {
                    self.server.counters.exhaust();
                    self.server.warn(
                        Warning::AcceptFailed,
                        format_args!(
                            "cannot accept a connection for now: {error}; see the counters"
                        ),
                    );
                    return Accepted::Exhausted;
                }
            }
        }
    }

    /// Refuses the connection if it is above the limit.
    fn admit(&self, connection: Connection) -> Accepted {
        let limit = self.server.settings.max_connections;
        if self.server.counters.open() <= u64::from(limit) {
            return Accepted::Connection(connection);
        }

        drop(connection);
        self.server.warn(
            Warning::Full,
            format_args!("connections refused: {limit} are open; --max-connections sets the limit"),
        );
        Accepted::Refused
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it, which saves a system call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// The listener as seen by a thread that accepts for itself, while the acceptor handles signals.
#[derive(Debug)]
pub(crate) struct Incoming {
    listener: Arc<Listener>,
    /// Connections that may still be accepted from the backlog during the drain.
    drain_quota: u32,
}

impl Incoming {
    pub(crate) fn new(listener: Arc<Listener>) -> Self {
        let drain_quota = listener.server.settings.backlog;
        Incoming {
            listener,
            drain_quota,
        }
    }

    /// Waits for a connection; `None` at the end of the server.
    pub(crate) fn accept(&mut self) -> Option<Connection> {
        loop {
            let draining = self.listener.server.is_draining();
            if draining {
                self.drain_quota = self.drain_quota.checked_sub(1)?;
            }

            match self.listener.accept(true) {
                Accepted::Connection(connection) => return Some(connection),
                Accepted::Refused => {}
                _ if draining => return None,
                Accepted::Empty => self.wait(None),
                Accepted::Exhausted => self.wait(Some(BACK_OFF)),
            }
        }
    }

    /// Waits for a connection or the end of the server; with `back_off` only for the end, and no
    /// longer than that.
    fn wait(&self, back_off: Option<Duration>) {
        let mut events = [
            PollFd::new(self.listener.server.stop_event(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if back_off.is_some() { 1 } else { 2 };
        let timeout = back_off.and_then(|time| PollTimeout::try_from(time).ok());

        // An error or a signal only makes the caller try to accept again.
        let _ = poll(&mut events[..watched], timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn server() -> Arc<Server> {
        Arc::new(Server::new(Settings::default()).unwrap())
    }

    #[test]
    fn accepted_sockets_send_without_delay() {
        for blocking in [true, false] {
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &server()).unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let Accepted::Connection(connection) = listener.accept(blocking) else {
                panic!("a client is waiting");
            };
            let (stream, _serving) = connection.begin(Ok).unwrap();
            assert!(stream.nodelay().unwrap());
        }
    }

    #[test]
    fn an_empty_backlog_is_no_error() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &server()).unwrap();
        assert!(matches!(listener.accept(true), Accepted::Empty));
    }

    #[test]
    fn bind_errors_tell_their_cause() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap(), &server()).unwrap();
        let taken = first.local_addr().unwrap();
        let error = Listener::bind(taken, &server()).unwrap_err();
        assert!(matches!(error, BindError::InUse(address) if address == taken));
        // Reserved for documentation: no machine has it.
        let elsewhere = "192.0.2.1:0".parse().unwrap();
        let error = Listener::bind(elsewhere, &server()).unwrap_err();
        assert!(matches!(error, BindError::NotLocal(_)));
    }
}
