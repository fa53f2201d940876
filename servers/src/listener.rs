//! The listening socket, made in one place so that it is the same for every model.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{SOCK_CLOEXEC, SOCK_NONBLOCK};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::Connection;
use crate::counters::Place;
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
        "cannot listen on {0}: not an address of this machine; take 127.0.0.1 or [::1] for this machine \
         only, 0.0.0.0 or [::] for all its addresses"
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

/// A listening socket; it does not block unless told to.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    server: Arc<Server>,
}

impl Listener {
    /// Listens on `address`.
    pub(crate) fn bind(address: SocketAddr, server: &Arc<Server>) -> Result<Self, BindError> {
        let socket = listen(address, false, server.settings.backlog)
            .map_err(|error| BindError::new(address, error))?;
        Ok(Listener {
            socket,
            server: Arc::clone(server),
        })
    }

    /// Listens on the same address as well, so that the kernel distributes connections over both.
    pub(crate) fn beside(&self) -> io::Result<Self> {
        // Whether a port may be shared is decided by both sockets, when the second one is bound.
        self.socket.set_reuse_port(true)?;
        let socket = listen(self.local_addr()?, true, self.server.settings.backlog)?;
        Ok(Listener {
            socket,
            server: Arc::clone(&self.server),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?;
        address
            .as_socket()
            .ok_or_else(|| Errno::EAFNOSUPPORT.into())
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Chooses whether [`Listener::accept`] waits for a connection, in every process that has this
    /// listener.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    /// Accepts one connection in `place`, with a blocking or a non-blocking socket.
    pub(crate) fn accept(&self, place: Place, blocking: bool) -> Accepted {
        let flags = if blocking { 0 } else { SOCK_NONBLOCK };

        loop {
            let accepted = self.socket.accept4(SOCK_CLOEXEC | flags);
            if let Some(accepted) = self.take(place, accepted.map(|(socket, _)| socket)) {
                return accepted;
            }
        }
    }

    /// Takes the result of an attempt to accept in `place`; `None` if it is to be repeated at once.
    pub(crate) fn take(&self, place: Place, accepted: io::Result<Socket>) -> Option<Accepted> {
        let error = match accepted {
            Ok(socket) => return Some(self.admit(place, TcpStream::from(socket))),
            Err(error) => error,
        };

        match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::EAGAIN => Some(Accepted::Empty),
            // A signal, a client that has already disconnected, or an attempt that was called off.
            Errno::EINTR | Errno::ECONNABORTED | Errno::ECANCELED => None,
            // Mostly EMFILE, ENFILE, ENOBUFS or ENOMEM. No error ends the server, and none is
            // worth an immediate retry.
            _ => {
                self.exhausted(&error);
                Some(Accepted::Exhausted)
            }
        }
    }

    /// Counts, and says at a limited rate, that a connection cannot be accepted.
    fn exhausted(&self, error: &io::Error) {
        self.server.counters.exhaust();
        self.server.warn(
            Warning::AcceptFailed,
            format_args!("cannot accept a connection for now: {error}; see the counters"),
        );
    }

    /// Counts a connection that was accepted in `place`, and refuses it if it is above the limit.
    fn admit(&self, place: Place, stream: TcpStream) -> Accepted {
        if self.server.settings.verbose {
            let peer = stream.peer_addr().map(|peer| peer.to_string());
            let peer = peer.unwrap_or_default();
            log(format_args!("{} connection from {peer}", timestamp()));
        }

        let connection = Connection::new(&self.server, place, stream);
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

fn listen(address: SocketAddr, reuseport: bool, backlog: u32) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuseport)?;
    // Accepted sockets inherit it, which saves a system call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn bind() -> Listener {
        Listener::bind("127.0.0.1:0".parse().unwrap(), &server()).unwrap()
    }

    fn place(listener: &Listener) -> Place {
        listener.server().counters.place(0)
    }

    fn server() -> Arc<Server> {
        Arc::new(Server::new(Settings::default()).unwrap())
    }

    #[test]
    fn accepted_sockets_send_without_delay() {
        for blocking in [true, false] {
            let listener = bind();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let Accepted::Connection(connection) = listener.accept(place(&listener), blocking)
            else {
                panic!("a client is waiting");
            };
            let (stream, _serving) = connection.begin(Ok).unwrap();
            assert!(stream.nodelay().unwrap());
        }
    }

    #[test]
    fn an_empty_backlog_is_no_error() {
        let listener = bind();
        assert!(matches!(
            listener.accept(place(&listener), true),
            Accepted::Empty
        ));
    }

    #[test]
    fn bind_errors_tell_their_cause() {
        let first = bind();
        let taken = first.local_addr().unwrap();
        let error = Listener::bind(taken, &server()).unwrap_err();
        assert!(matches!(error, BindError::InUse(address) if address == taken));
        // Reserved for documentation: no machine has it.
        let elsewhere = "192.0.2.1:0".parse().unwrap();
        let error = Listener::bind(elsewhere, &server()).unwrap_err();
        assert!(matches!(error, BindError::NotLocal(_)));
    }
}
