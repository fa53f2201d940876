//! Sockets of the clients: descriptor limit, source addresses, options.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::socket::{MsgFlags, recv, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::LoadError;
use crate::client::Client;
use crate::plan::Plan;

/// Descriptors that a load process needs beside its connections.
const SPARE_FILES: u64 = 32;

/// Raises the soft limit on open files of this process to the hard limit. Fails if even that is too low
/// for `clients`: the process holds a socket for each, or a pipe to each.
pub fn raise_file_limit(clients: u32) -> Result<(), LoadError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(io::Error::from)
        .map_err(LoadError::system("cannot read the limit on open files"))?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .map_err(io::Error::from)
            .map_err(LoadError::system("cannot raise the limit on open files"))?;
    }

    let needed = u64::from(clients) + SPARE_FILES;
    if needed > hard {
        return Err(LoadError::FileLimit {
            clients,
            needed,
            limit: hard,
        });
    }
    Ok(())
}

/// Selects the first of several addresses of a name that takes a connection, or the first one if none does.
/// A single address is not tried: the server would count the connection.
#[must_use]
pub fn first_reachable(addresses: &[SocketAddr], timeout: Duration) -> Option<SocketAddr> {
    let is_reachable = |address: &SocketAddr| TcpStream::connect_timeout(address, timeout).is_ok();
    match addresses {
        [] => None,
        [only] => Some(*only),
        [first, ..] => addresses
            .iter()
            .copied()
            .find(is_reachable)
            .or(Some(*first)),
    }
}

/// Creates a socket for the next connection of a client, with Nagle's algorithm off.
///
/// Between two addresses there are only some 28,000 ports, and each is in use for a minute after the connection.
/// So connections come from the source addresses of the plan in turn, or without any, under churn on loopback, from
/// another address of 127.0.0.0/8 each.
pub(crate) fn socket(plan: &Plan, client: &Client<'_>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(plan.target),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;

    let (index, attempts) = (client.index(), client.connection_attempts());
    let source = match source_in_turn(&plan.source_addresses, index, attempts) {
        None if !client.connects_before_start() => loopback_source(plan.target, index, attempts),
        source => source,
    };
    if let Some(source) = source {
        // Without this option, bind reserves a port for all targets, and ports run out sooner.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&source.into())?;
    }
    Ok(socket)
}

/// First bytes that can be read from a socket without waiting; they are not taken from it.
pub(crate) struct PendingBytes {
    buffer: [u8; 64],
    length: usize,
}

impl PendingBytes {
    pub(crate) fn of(socket: &impl AsRawFd) -> Self {
        let mut pending = PendingBytes {
            buffer: [0; 64],
            length: 0,
        };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        // An error, or the end of the stream, is noticed where a reply is received.
        pending.length = recv(socket.as_raw_fd(), &mut pending.buffer, flags).unwrap_or(0);
        pending
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// Fails if this host cannot connect to the target of a plan from one of its source addresses.
pub(crate) fn check_source_addresses(plan: &Plan) -> Result<(), LoadError> {
    for &source in &plan.source_addresses {
        let target = plan.target.ip();
        let failed = |error| LoadError::SourceAddress {
            source_address: source,
            target,
            error,
        };
        if source.is_ipv4() != target.is_ipv4() {
            let error = "they are of different versions of IP";
            return Err(failed(io::Error::other(error)));
        }
        UdpSocket::bind((source, 0)).map_err(failed)?;
    }
    Ok(())
}

/// The source address of a client's connection, of several in turn. Clients begin with different ones.
fn source_in_turn(addresses: &[IpAddr], client: u32, connection: u64) -> Option<SocketAddr> {
    let turn = (u64::from(client) + connection).checked_rem(addresses.len() as u64)?;
    let address = addresses[usize::try_from(turn).ok()?];
    Some(SocketAddr::new(address, 0))
}

/// An address of this host, another one for each connection to a server on loopback.
fn loopback_source(target: SocketAddr, client: u32, connection: u64) -> Option<SocketAddr> {
    let IpAddr::V4(target) = target.ip() else {
        return None;
    };
    if !target.is_loopback() {
        return None;
    }
    let byte = |number: u64| u8::try_from(1 + number % 250).expect("at most 250");
    let [b, c, d] = [u64::from(client), connection / 250, connection].map(byte);
    Some(SocketAddr::new(Ipv4Addr::new(127, b, c, d).into(), 0))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_first_address_that_answers_is_selected() {
        let timeout = Duration::from_secs(30);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        // Bound, so that nobody else gets it, but without a listener.
        let bound = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        bound
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let closed = bound.local_addr().unwrap().as_socket().unwrap();

        assert_eq!(first_reachable(&[closed, open], timeout), Some(open));
        assert_eq!(first_reachable(&[open, closed], timeout), Some(open));
        assert_eq!(first_reachable(&[closed, closed], timeout), Some(closed));
        assert_eq!(first_reachable(&[], timeout), None);
    }

    #[test]
    fn source_addresses_differ_and_are_loopback() {
        let target = "127.0.0.1:7".parse().unwrap();
        let addresses: std::collections::HashSet<_> = (0..1000)
            .map(|n| loopback_source(target, 3, n).unwrap().ip())
            .collect();
        assert_eq!(addresses.len(), 1000);
        assert!(addresses.iter().all(IpAddr::is_loopback));
        assert_eq!(loopback_source("[::1]:7".parse().unwrap(), 0, 0), None);
        assert_eq!(loopback_source("192.0.2.1:7".parse().unwrap(), 0, 0), None);
    }

    #[test]
    fn given_source_addresses_are_used_in_turn() {
        let given: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let last_byte = |client, connection| {
            let source = source_in_turn(&given, client, connection).unwrap();
            let IpAddr::V4(address) = source.ip() else {
                panic!("not IPv4")
            };
            address.octets()[3]
        };
        assert_eq!([0, 1, 2, 3].map(|n| last_byte(0, n)), [1, 2, 3, 1]);
        assert_eq!(
            [0, 1, 2, 3].map(|client| last_byte(client, 1)),
            [2, 3, 1, 2]
        );
        assert_eq!(source_in_turn(&[], 0, 0), None);
    }
}
