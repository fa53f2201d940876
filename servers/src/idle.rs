//! Who keeps the server waiting: a mark for each connection that moves with every reply, and is
//! looked at once in a while.
//!
//! To wait for a client with a time limit would make the kernel set a timer for each request. So
//! connections wait without one, and somebody else (the acceptor; in a forked child, a timer's signal)
//! cuts off those whose mark has not moved since the last look. A client may therefore keep the server
//! waiting for up to twice the limit.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};

use nix::sys::socket::{Shutdown, shutdown};

/// The mark of one connection.
#[derive(Debug)]
pub(crate) struct Mark {
    socket: RawFd,
    /// Odd while the server does work, for which the client is not to blame.
    at: AtomicU32,
    seen: AtomicU32,
    cut_off: AtomicBool,
}

impl Mark {
    pub(crate) fn new(socket: RawFd) -> Self {
        Mark {
            socket,
            at: AtomicU32::new(0),
            seen: AtomicU32::new(u32::MAX),
            cut_off: AtomicBool::new(false),
        }
    }

    /// A reply has left.
    pub(crate) fn answered(&self) {
        self.step(2);
    }

    /// Runs from one to the other of these, the time is the server's own.
    pub(crate) fn work_begins(&self) {
        self.step(1);
    }

    pub(crate) fn work_ends(&self) {
        self.step(1);
    }

    /// Only the one who serves the connection writes it.
    fn step(&self, by: u32) {
        self.at
            .store(self.at.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// To be called once in every limit, before the socket is closed: cuts the connection off if
    /// nothing has happened since the last call. Safe in a signal handler.
    pub(crate) fn look(&self) {
        let at = self.at.load(Relaxed);
        if self.seen.swap(at, Relaxed) == at && at.is_multiple_of(2) {
            self.cut_off.store(true, Relaxed);
            // Whoever waits to read or to write on it wakes up and finds its end. It fails if the
            // client has gone away already, which is as good.
            let _ = shutdown(self.socket, Shutdown::Both);
        }
    }

    /// Lets the connection come to its end with what it has received. Safe in a signal handler.
    pub(crate) fn end_reading(&self) {
        let _ = shutdown(self.socket, Shutdown::Read);
    }

    /// Whether the connection came to its end because its client kept the server waiting.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_at(between: impl Fn(&Mark)) -> bool {
        let mark = Mark::new(-1);
        mark.look();
        between(&mark);
        mark.look();
        mark.is_cut_off()
    }

    #[test]
    fn only_a_client_that_keeps_the_server_waiting_is_cut_off() {
        assert!(looked_at(|_| {}));
        assert!(!looked_at(Mark::answered));
        assert!(!looked_at(Mark::work_begins));
        // The wait for the client begins anew after the work.
        assert!(!looked_at(|mark| {
            mark.work_begins();
            mark.work_ends();
        }));
    }

    #[test]
    fn long_work_is_not_the_client_s() {
        let mark = Mark::new(-1);
        mark.work_begins();
        for _ in 0..3 {
            mark.look();
        }
        assert!(!mark.is_cut_off());
    }
}
