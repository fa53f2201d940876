//! Connections passed from the acceptor to worker processes, as descriptors over Unix sockets.
//!
//! A worker reports when it is free. The acceptor accepts only while one is, and passes the connection to
//! the free worker with the lowest number; further connections wait in the backlog.
//!
//! Source: Stevens, *UNIX Network Programming* (3rd ed.), vol. 1, ch. 30.9.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, send, sendmsg, socketpair,
};

use crate::connection::Connection;
use crate::counters::Place;
use crate::server::Server;

/// The acceptor's side: its sockets to the workers, by the numbers of these.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    sockets: BTreeMap<usize, OwnedFd>,
    free: BTreeSet<usize>,
    /// The worker's end of the last socket, up to the fork of that worker.
    worker_end: Option<OwnedFd>,
    /// A connection that could not be passed because its worker had died.
    held: Option<Connection>,
}

impl Passing {
    /// Makes the socket of a worker that is about to be forked, and watches it under this key.
    pub(crate) fn open(&mut self, number: usize, epoll: &Epoll, key: u64) -> nix::Result<()> {
        let (socket, worker_end) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
        self.sockets.insert(number, socket);
        self.worker_end = Some(worker_end);
        Ok(())
    }

    /// Closes the socket of a worker, which ends it if it has not ended.
    pub(crate) fn close(&mut self, number: usize, epoll: &Epoll) {
        self.worker_end = None;
        self.free.remove(&number);
        if let Some(socket) = self.sockets.remove(&number) {
            // A child forked a moment ago may hold a copy, which would keep the entry alive.
            let _ = epoll.delete(&socket);
        }
    }

    /// Takes the end of the worker that has just been forked. The worker keeps it; the acceptor closes it.
    pub(crate) fn take_worker_end(&mut self) -> Option<OwnedFd> {
        self.worker_end.take()
    }

    /// Whether a connection can be passed.
    pub(crate) fn has_free_worker(&self) -> bool {
        !self.free.is_empty()
    }

    /// Reads the report of a worker.
    pub(crate) fn report(&mut self, number: usize, epoll: &Epoll) {
        let Some(socket) = self.sockets.get(&number) else {
            return;
        };
        match recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
            Ok(1..) => {
                self.free.insert(number);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // It has died, and no signal has told so yet.
            Ok(_) | Err(_) => self.close(number, epoll),
        }
    }

    /// Passes a connection to a free worker, or holds it until there is one.
    pub(crate) fn pass(
        &mut self,
        mut connection: Connection,
        place: impl Fn(usize) -> Place,
        epoll: &Epoll,
    ) {
        while let Some(number) = self.free.pop_first() {
            let socket = &self.sockets[&number];
            let passed = connection.pass(place(number), |stream, number| {
                send_stream(socket.as_fd(), stream, number)
            });
            match passed {
                Ok(()) => return,
                // Its worker has died. Another one can serve the connection.
                Err(returned) => connection = returned,
            }
            self.close(number, epoll);
        }
        self.held = Some(connection);
    }

    /// Whether a connection is held.
    pub(crate) fn holds_connection(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the connection that is held.
    pub(crate) fn take_held(&mut self) -> Option<Connection> {
        self.held.take()
    }
}

/// A worker's side.
pub(crate) struct Receiver {
    socket: OwnedFd,
    server: Arc<Server>,
    place: Place,
}

impl Receiver {
    pub(crate) fn new(socket: OwnedFd, server: Arc<Server>, place: Place) -> Self {
        Receiver {
            socket,
            server,
            place,
        }
    }

    /// Reports that the worker is free, and waits for a connection; `None` at the end of the server.
    pub(crate) fn receive(&self) -> Option<Connection> {
        loop {
            send(self.socket.as_raw_fd(), &[0], MsgFlags::MSG_NOSIGNAL).ok()?;

            let (number, stream) = receive_stream(self.socket.as_fd())?;
            if let Some(stream) = stream {
                return Some(Connection::received(
                    &self.server,
                    self.place,
                    number,
                    stream,
                ));
            }
            self.server.counters.lose(self.place, number);
        }
    }
}

/// Sends a descriptor with a number. A free worker has an empty socket, so it does not block.
fn send_stream(socket: BorrowedFd<'_>, stream: BorrowedFd<'_>, number: u64) -> nix::Result<()> {
    let number = number.to_ne_bytes();
    let content = [IoSlice::new(&number)];
    let descriptors = [stream.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &content, &control, flags, None)?;
    Ok(())
}

/// Receives a number with a descriptor; without it if this process can have no more, as the kernel closes
/// it then. `None` once the other end is closed.
fn receive_stream(socket: BorrowedFd<'_>) -> Option<(u64, Option<TcpStream>)> {
    let mut number = [0; size_of::<u64>()];
    let mut content = [IoSliceMut::new(&mut number)];
    let mut control = cmsg_space!(RawFd);

    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut content, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            result => break result.ok()?,
        }
    };

    let mut control = message.cmsgs().into_iter().flatten();
    let descriptor = control.find_map(|part| match part {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });

    #[expect(unsafe_code, reason = "a received descriptor has a number only")]
    // SAFETY: the kernel has just opened it for this process, and nothing else has its number.
    let stream = descriptor.map(|descriptor| unsafe { TcpStream::from_raw_fd(descriptor) });
    (message.bytes > 0).then(|| (u64::from_ne_bytes(number), stream))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use echobench_protocol::Service;
    use nix::sys::epoll::EpollCreateFlags;

    use super::*;
    use crate::settings::Settings;

    /// An acceptor's side with the workers' ends.
    struct Rig {
        server: Arc<Server>,
        epoll: Epoll,
        passing: Passing,
    }

    impl Rig {
        fn new() -> Self {
            let settings = Settings {
                service: Service::Raw,
                ..Settings::default()
            };
            Rig {
                server: Arc::new(Server::new(settings).unwrap()),
                epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(),
                passing: Passing::default(),
            }
        }

        /// A worker that has reported once that it is free.
        fn worker(&mut self, number: usize) -> Receiver {
            self.passing.open(number, &self.epoll, 0).unwrap();
            let socket = self.passing.take_worker_end().unwrap();
            send(socket.as_raw_fd(), &[0], MsgFlags::empty()).unwrap();
            self.passing.report(number, &self.epoll);
            let place = self.server.counters.place(number);
            Receiver::new(socket, Arc::clone(&self.server), place)
        }

        /// Passes the connection of a client that has sent some bytes.
        fn pass(&mut self) -> TcpStream {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(b"bytes").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();

            let (stream, _) = listener.accept().unwrap();
            let connection = Connection::new(&self.server, self.server.counters.place(0), stream);
            let place = |number| self.server.counters.place(number);
            self.passing.pass(connection, place, &self.epoll);
            client
        }

        fn counters(&self) -> String {
            self.server.counters.to_string()
        }
    }

    fn is_answered(mut client: TcpStream) {
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, b"bytes");
    }

    #[test]
    fn a_free_worker_gets_one_connection() {
        let mut rig = Rig::new();
        let worker = rig.worker(1);
        let client = rig.pass();
        assert!(!rig.passing.has_free_worker());
        assert!(rig.counters().contains("accepted=1 active=0 waiting=1"));

        worker.receive().unwrap().serve();
        is_answered(client);
        assert!(rig.counters().contains("accepted=1 active=0 waiting=0"));
        assert!(rig.counters().ends_with(" workers=1"));

        rig.passing.report(1, &rig.epoll);
        assert!(rig.passing.has_free_worker());
    }

    #[test]
    fn a_worker_ends_when_its_socket_is_closed() {
        let mut rig = Rig::new();
        let worker = rig.worker(1);
        thread::scope(|scope| {
            let received = scope.spawn(|| worker.receive().is_none());
            rig.passing.close(1, &rig.epoll);
            assert!(received.join().unwrap());
        });
    }

    #[test]
    fn a_connection_whose_worker_has_died_goes_to_another() {
        let mut rig = Rig::new();
        drop(rig.worker(1));
        let worker = rig.worker(2);
        let client = rig.pass();

        worker.receive().unwrap().serve();
        is_answered(client);
        assert!(rig.counters().contains("accepted=1 active=0 waiting=0"));
        assert!(rig.counters().ends_with(" workers=0,1"));
    }

    #[test]
    fn a_connection_is_held_while_no_worker_lives() {
        let mut rig = Rig::new();
        drop(rig.worker(1));
        let _client = rig.pass();
        assert!(!rig.passing.has_free_worker());
        assert!(rig.counters().contains("accepted=1 active=0 waiting=1"));

        rig.server.counters.place(1).vacate();
        assert_eq!(rig.server.counters.open(), 1);
        drop(rig.passing.take_held());
        assert!(rig.counters().contains("waiting=0"));
        assert!(rig.counters().contains("refused=1"));
    }
}
