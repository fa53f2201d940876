//! The listener as seen by a worker that accepts for itself, and the ways in which workers take turns.
//!
//! Source of the ways: Stevens, *UNIX Network Programming* (3rd ed.), vol. 1, ch. 30.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use socket2::Socket;

use crate::connection::Connection;
use crate::counters::Place;
use crate::listener::{Accepted, BACK_OFF, Listener};
use crate::server::{Acceptance, Server};
use crate::settings::AcceptMode;
use crate::shared_mutex::SharedMutex;

/// The means by which the workers of a server take turns; made before the first of them.
#[derive(Debug)]
pub(crate) enum Turns {
    Block,
    Poll,
    Exclusive,
    FileLock(OwnedFd),
    Mutex(SharedMutex),
}

impl Turns {
    pub(crate) fn new(mode: AcceptMode) -> io::Result<Self> {
        Ok(match mode {
            // Those to whom connections are passed take no turns.
            AcceptMode::Block | AcceptMode::Reuseport | AcceptMode::Pass => Turns::Block,
            AcceptMode::Poll => Turns::Poll,
            AcceptMode::Exclusive => Turns::Exclusive,
            AcceptMode::FileLock => {
                Turns::FileLock(memfd_create(c"accept", MFdFlags::MFD_CLOEXEC)?)
            }
            AcceptMode::Mutex => Turns::Mutex(SharedMutex::new()?),
        })
    }

    /// The turns as one worker takes them; to be called in the worker, or for a thread before it.
    fn of_worker(&self, listener: &Listener) -> io::Result<Turn> {
        Ok(match self {
            Turns::Block => Turn::Block,
            Turns::Poll => Turn::Poll,
            Turns::Exclusive => Turn::Exclusive(watch_exclusively(listener)?),
            Turns::FileLock(file) => {
                // A lock belongs to the open file description, so each worker needs one of its own.
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                let file = File::options().read(true).write(true).open(path)?;
                Turn::FileLock(Some(file))
            }
            Turns::Mutex(mutex) => Turn::Mutex(*mutex),
        })
    }
}

/// The turns as one worker takes them: its way to wait for a connection.
#[derive(Debug)]
enum Turn {
    /// All workers block in accept(2); the kernel wakes one of them for a connection.
    Block,
    /// All workers block in poll(2), which wakes them all for a connection: the thundering herd.
    Poll,
    /// All workers block in `epoll_wait(2)` with `EPOLLEXCLUSIVE`, which wakes at least one.
    Exclusive(Epoll),
    /// One worker blocks in accept(2), holding a file lock for which the others wait. The file is
    /// taken out while it is locked.
    FileLock(Option<File>),
    /// The same with a mutex in shared memory.
    Mutex(SharedMutex),
}

/// Results of [`Incoming::offer`].
pub(crate) enum Offer {
    Connection(Connection),
    /// No connection for now.
    Nothing,
    /// A connection above the limit was refused; others may wait behind it.
    Refused,
    /// A connection that cannot be accepted: the listener stays readable, so it has to be left alone
    /// for a while.
    Exhausted,
    /// No connection any more: the drain has emptied the backlog.
    End,
}

/// A source of connections for one worker.
#[derive(Debug)]
pub(crate) struct Incoming {
    listener: Arc<Listener>,
    place: Place,
    turn: Turn,
    /// The thread that accepts, so that the drain can interrupt its accept(2).
    acceptance: Option<Acceptance>,
    /// Connections that may still be accepted from the backlog during the drain.
    drain_quota: u32,
}

impl Incoming {
    pub(crate) fn new(listener: Arc<Listener>, place: Place, turns: &Turns) -> io::Result<Self> {
        let drain_quota = listener.server().settings.backlog;
        let turn = turns.of_worker(&listener)?;
        Ok(Incoming {
            listener,
            place,
            turn,
            acceptance: None,
            drain_quota,
        })
    }

    /// Waits for a connection, with a blocking socket; `None` at the end of the server.
    pub(crate) fn accept(&mut self) -> Option<Connection> {
        if self.acceptance.is_none() {
            self.acceptance = Some(Server::accepts_here(self.listener.server()));
        }

        loop {
            // Read before the attempt: the drain sets the flag, then makes the listener
            // non-blocking, so an attempt that finds nothing is followed by a look at the flag.
            let draining = self.listener.server().is_draining();
            if draining {
                self.use_drain_quota()?;
            }

            match self.take_turn(draining) {
                Accepted::Connection(connection) => return Some(connection),
                Accepted::Refused => {}
                _ if draining => return None,
                Accepted::Empty => {}
                Accepted::Exhausted => self.wait_for_stop(BACK_OFF),
            }
        }
    }

    /// Makes an event loop wait for connections under this key.
    pub(crate) fn watch(&self, epoll: &Epoll, key: u64) -> io::Result<()> {
        // A connection may be gone by the time it is accepted, and the loop must not block then.
        self.listener.set_nonblocking(true)?;
        // Of several loops that share a listener, not all are to wake up for one connection.
        let exclusive = match self.turn {
            Turn::Exclusive(_) => EpollFlags::EPOLLEXCLUSIVE,
            _ => EpollFlags::empty(),
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN | exclusive, key);
        epoll.add(&*self.listener, event)?;
        Ok(())
    }

    /// Takes that back.
    pub(crate) fn unwatch(&self, epoll: &Epoll) {
        // It may have been taken back before.
        let _ = epoll.delete(&*self.listener);
    }

    /// The descriptor that is readable when there may be a connection, for the event loop of a library.
    pub(crate) fn listener_event(&self) -> io::Result<BorrowedFd<'_>> {
        self.listener.set_nonblocking(true)?;
        Ok(self.listener.as_fd())
    }

    /// A descriptor that is readable from the start of the drain.
    pub(crate) fn stop_event(&self) -> BorrowedFd<'_> {
        self.listener.server().stop_event()
    }

    /// Accepts a connection without waiting, with a non-blocking socket.
    pub(crate) fn offer(&mut self) -> Offer {
        self.accept_now(false)
    }

    /// Accepts a connection at the end of the server without waiting, with a blocking socket.
    pub(crate) fn offer_last(&mut self) -> Offer {
        // The drain does so too, but only after the event that says so.
        if self.listener.set_nonblocking(true).is_err() {
            return Offer::End;
        }
        self.accept_now(true)
    }

    /// Takes a connection that the kernel has accepted for this worker, with a blocking socket.
    pub(crate) fn take(&self, socket: io::Result<OwnedFd>) -> Offer {
        match self.listener.take(self.place, socket.map(Socket::from)) {
            Some(Accepted::Connection(connection)) => Offer::Connection(connection),
            Some(Accepted::Exhausted) => Offer::Exhausted,
            _ => Offer::Nothing,
        }
    }

    fn accept_now(&mut self, blocking: bool) -> Offer {
        let draining = self.listener.server().is_draining();
        if draining && self.use_drain_quota().is_none() {
            return Offer::End;
        }

        match self.listener.accept(self.place, blocking) {
            Accepted::Connection(connection) => Offer::Connection(connection),
            Accepted::Refused => Offer::Refused,
            _ if draining => Offer::End,
            Accepted::Empty => Offer::Nothing,
            Accepted::Exhausted => Offer::Exhausted,
        }
    }

    /// Counts an attempt to accept during the drain; `None` when there were as many as the backlog holds.
    fn use_drain_quota(&mut self) -> Option<()> {
        self.drain_quota = self.drain_quota.checked_sub(1)?;
        Some(())
    }

    /// Waits for the turn of this worker, and accepts.
    fn take_turn(&mut self, draining: bool) -> Accepted {
        match &mut self.turn {
            Turn::Block => {}
            Turn::Poll | Turn::Exclusive(_) if draining => {}
            Turn::Poll => self.poll(),
            Turn::Exclusive(epoll) => {
                let mut events = [EpollEvent::empty(); 2];
                // An error or a signal only makes the caller try again.
                let _ = epoll.wait(&mut events, EpollTimeout::NONE);
            }
            Turn::FileLock(file) => {
                let unlocked = file.take().expect("unlocked between two turns");
                // Interrupted, or out of kernel memory: the caller tries again.
                let accepted = match Flock::lock(unlocked, FlockArg::LockExclusive) {
                    Ok(locked) => {
                        let accepted = self.listener.accept(self.place, true);
                        *file = locked.unlock().ok();
                        accepted
                    }
                    Err((unlocked, _)) => {
                        *file = Some(unlocked);
                        Accepted::Empty
                    }
                };
                return accepted;
            }
            Turn::Mutex(mutex) => {
                let _turn = mutex.lock();
                return self.listener.accept(self.place, true);
            }
        }
        self.listener.accept(self.place, true)
    }

    /// Waits for a connection or the end of the server.
    fn poll(&self) {
        let mut events = [
            PollFd::new(self.listener.server().stop_event(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut events, PollTimeout::NONE);
    }

    /// Waits for the end of the server, no longer than `time`.
    fn wait_for_stop(&self, time: Duration) {
        let mut events = [PollFd::new(
            self.listener.server().stop_event(),
            PollFlags::POLLIN,
        )];
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut events, timeout);
    }
}

impl AsRawFd for Incoming {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_fd().as_raw_fd()
    }
}

/// An epoll instance that shares the wake-ups of a listener with those of other workers.
fn watch_exclusively(listener: &Listener) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let exclusive = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
    epoll.add(listener, EpollEvent::new(exclusive, 0))?;
    let stop = EpollEvent::new(EpollFlags::EPOLLIN, 1);
    epoll.add(listener.server().stop_event(), stop)?;
    Ok(epoll)
}
