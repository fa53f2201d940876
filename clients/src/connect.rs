//! Opening connections: source addresses, timeouts, and what each refusal is called.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, Socket, Type};

use crate::LoadError;
use crate::client::{Client, Failure};
use crate::plan::Plan;
use crate::report::ErrorKind;

/// Descriptors a load process needs beside its connections.
const SPARE_FILES: u64 = 32;

/// Raises this process's soft limit on open files to the hard one, and says so when even that is too
/// low for so many clients: a process holds their sockets, or a pipe to each.
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

/// A socket ready to connect, with Nagle's algorithm off.
///
/// Under churn on loopback each connection takes another source address of 127.0.0.0/8: between one
/// pair of addresses there are only some 28,000 ports, and each stays taken for a minute.
pub(crate) fn socket(plan: &Plan, client: &Client<'_>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(plan.target),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if !client.connects_ahead()
        && let Some(source) = source_address(plan.target, client.index(), client.connections())
    {
        // The port is chosen when connecting, by the whole pair of addresses.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&source.into())?;
    }
    Ok(socket)
}

fn source_address(target: SocketAddr, client: u32, connection: u64) -> Option<SocketAddr> {
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

/// What a failed connect is called.
pub(crate) fn connect_failure(target: SocketAddr, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::ConnectTimedOut,
        _ => kind(error),
    };
    Failure::new(kind, format!("cannot connect to {target}: {error}"))
}

/// What an error on an open connection is called.
pub(crate) fn exchange_failure(error: &io::Error) -> Failure {
    Failure::new(kind(error), error.to_string())
}

/// The failure of a reply that did not come in time.
pub(crate) fn timed_out() -> Failure {
    Failure::new(ErrorKind::TimedOut, "no whole reply in time")
}

fn kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => ErrorKind::Reset,
        io::ErrorKind::AddrNotAvailable => ErrorKind::NoPorts,
        _ => match error.raw_os_error() {
            Some(nix::libc::EMFILE | nix::libc::ENFILE) => ErrorKind::NoFiles,
            _ => ErrorKind::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_differ_and_stay_on_loopback() {
        let target = "127.0.0.1:7".parse().unwrap();
        let addresses: std::collections::HashSet<_> = (0..1000)
            .map(|n| source_address(target, 3, n).unwrap().ip())
            .collect();
        assert_eq!(addresses.len(), 1000);
        assert!(addresses.iter().all(IpAddr::is_loopback));
        assert_eq!(source_address("[::1]:7".parse().unwrap(), 0, 0), None);
        assert_eq!(source_address("192.0.2.1:7".parse().unwrap(), 0, 0), None);
    }
}
