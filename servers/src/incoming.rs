//! The listener as seen by a worker that accepts for itself.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::connection::Connection;
use crate::counters::Place;
use crate::listener::{Accepted, BACK_OFF, Listener};
use crate::server::{Acceptance, Server};

/// A source of connections for one worker, which blocks in accept(2).
#[derive(Debug)]
pub(crate) struct Incoming {
    listener: Arc<Listener>,
    place: Place,
    /// The thread that accepts, so that the drain can interrupt its accept(2).
    acceptance: Option<Acceptance>,
    /// Connections that may still be accepted from the backlog during the drain.
    drain_quota: u32,
}

impl Incoming {
    pub(crate) fn new(listener: Arc<Listener>, place: Place) -> Self {
        let drain_quota = listener.server().settings.backlog;
        Incoming {
            listener,
            place,
            acceptance: None,
            drain_quota,
        }
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
                self.drain_quota = self.drain_quota.checked_sub(1)?;
            }

            match self.listener.accept(self.place, true) {
                Accepted::Connection(connection) => return Some(connection),
                Accepted::Refused => {}
                _ if draining => return None,
                Accepted::Empty => {}
                Accepted::Exhausted => self.wait_for_stop(BACK_OFF),
            }
        }
    }

    /// Waits for the end of the server, no longer than `time`.
    fn wait_for_stop(&self, time: Duration) {
        let stop = self.listener.server().stop_event();
        let mut events = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // An error or a signal only makes the caller try to accept again.
        let _ = poll(&mut events, timeout);
    }
}
