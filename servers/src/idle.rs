//! Idle-timeout detection: an activity counter per connection, checked once per timeout.
//!
//! A time limit on each read would make the kernel set a timer per request. Connections therefore
//! wait without one, and the acceptor (in a forked child, a timer's signal) cuts off those whose
//! counter has not moved since the last check. A client is cut off after one to two timeouts.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};

use nix::sys::socket::{Shutdown, shutdown};

/// The activity counter of one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    socket: RawFd,
    /// Odd while the server does work, for which the client is not to blame.
    count: AtomicU32,
    checked: AtomicU32,
    timed_out: AtomicBool,
}

impl Activity {
    pub(crate) fn new(socket: RawFd) -> Self {
        Activity {
            socket,
            count: AtomicU32::new(0),
            checked: AtomicU32::new(u32::MAX),
            timed_out: AtomicBool::new(false),
        }
    }

    /// Records that a reply was sent.
    pub(crate) fn answered(&self) {
        self.advance(2);
    }

    /// Starts a period of server work, which never counts as idle.
    pub(crate) fn work_begins(&self) {
        self.advance(1);
    }

    /// Ends a period of server work.
    pub(crate) fn work_ends(&self) {
        self.advance(1);
    }

    fn advance(&self, by: u32) {
        // The serving thread is the only writer, so no read-modify-write is needed: a locked
        // instruction per request would be part of what is measured.
        let count = self.count.load(Relaxed).wrapping_add(by);
        self.count.store(count, Relaxed);
    }

    /// Cuts the connection off if the counter has not moved since the last check. To be called once
    /// per timeout, before the socket is closed. Async-signal-safe.
    pub(crate) fn check(&self) {
        let count = self.count.load(Relaxed);
        let unmoved = self.checked.swap(count, Relaxed) == count;

        if unmoved && count.is_multiple_of(2) {
            self.timed_out.store(true, Relaxed);
            // A blocked read or write on the socket returns. The call fails if the client has
            // disconnected already, which has the same effect.
            let _ = shutdown(self.socket, Shutdown::Both);
        }
    }

    /// Ends the receiving side, so that the connection ends after the bytes it has received.
    /// Async-signal-safe.
    pub(crate) fn shutdown_reading(&self) {
        let _ = shutdown(self.socket, Shutdown::Read);
    }

    /// Whether [`Activity::check`] has cut the connection off.
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times_out(between_checks: impl Fn(&Activity)) -> bool {
        let activity = Activity::new(-1);
        activity.check();
        between_checks(&activity);
        activity.check();
        activity.timed_out()
    }

    #[test]
    fn only_a_client_that_keeps_the_server_waiting_is_cut_off() {
        assert!(times_out(|_| {}));
        assert!(!times_out(Activity::answered));
        assert!(!times_out(Activity::work_begins));
        // The wait for the client starts anew after the work.
        assert!(!times_out(|activity| {
            activity.work_begins();
            activity.work_ends();
        }));
    }

    #[test]
    fn long_work_does_not_count_as_idle() {
        let activity = Activity::new(-1);
        activity.work_begins();
        for _ in 0..3 {
            activity.check();
        }
        assert!(!activity.timed_out());
    }
}
