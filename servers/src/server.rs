//! What all connections of one server share: its settings, its counters, and who is still open.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use humantime::{Rfc3339Timestamp, format_rfc3339_millis};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{Shutdown, shutdown};
use nix::time::{ClockId, clock_gettime};

use crate::counters::Counters;
use crate::idle::Mark;
use crate::settings::Settings;

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
    /// The sockets being served. A socket is taken out before it is closed, so its number cannot
    /// yet mean another file.
    sockets: Mutex<HashMap<RawFd, Arc<Mark>>>,
    draining: AtomicBool,
    /// Readable from the beginning of the drain on, or a little earlier.
    stop: EventFd,
}

/// What a server complains about, each kind for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// A connection cannot be accepted.
    Accept,
    /// No thread or process can be started for a connection.
    Start,
    /// There are as many connections as there may be.
    Full,
    /// A handler panicked.
    Panic,
}

/// What is said on standard error is not said again for so long.
const QUIET: Duration = Duration::from_secs(10);

impl Server {
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        Ok(Server {
            settings,
            counters: Counters::new()?,
            sockets: Mutex::default(),
            draining: AtomicBool::new(false),
            stop: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    /// `socket` is being served from now on.
    pub(crate) fn enter(&self, socket: RawFd, mark: Arc<Mark>) {
        let mut sockets = self.sockets();
        sockets.insert(socket, mark);
        if self.is_draining() {
            end_reading(socket);
        }
    }

    /// `socket` is about to be closed.
    pub(crate) fn leave(&self, socket: RawFd) {
        self.sockets().remove(&socket);
    }

    /// Lets every connection come to its end: what it has already received is still answered, then
    /// it reads the end of the stream, as if its client had said goodbye.
    pub(crate) fn drain(&self) {
        let sockets = self.sockets();
        self.draining.store(true, Relaxed);
        sockets.keys().copied().for_each(end_reading);
        self.tell_stop();
    }

    /// Makes [`Server::stop`] readable.
    pub(crate) fn tell_stop(&self) {
        // Fails only if it was written to a great many times before.
        let _ = self.stop.write(1);
    }

    /// To be called once in every idle timeout: cuts off who has kept the server waiting.
    pub(crate) fn look_for_idle(&self) {
        self.sockets().values().for_each(|mark| mark.look());
    }

    /// Whether the server has begun to come to its end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Readable from the beginning of the drain on, or a little earlier.
    pub(crate) fn stop(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// Prints the counters. A reader that has gone away does not end the server.
    pub(crate) fn print_counters(&self) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{}", self.counters).and_then(|()| out.flush());
    }

    /// Says something on standard error, unless it has said such a thing just now: then it is
    /// counted, and the number said next time.
    pub(crate) fn complain(&self, about: Trouble, what: impl fmt::Display) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        match self.counters.complaint(about as usize).rises(now_ns, QUIET) {
            None => {}
            Some(0) => say(&format!("{what}")),
            Some(more) => say(&format!("{what} ({more} more times since this was said)")),
        }
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<RawFd, Arc<Mark>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time, as it stands in lines about events.
pub(crate) fn now() -> Rfc3339Timestamp {
    format_rfc3339_millis(SystemTime::now())
}

/// One line on standard error, which may be closed.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "echobench serve: {line}");
}

/// On Linux a read that waits, and every later one, then returns what has already arrived, and
/// after that the end of the stream.
fn end_reading(socket: RawFd) {
    // Fails if the client has gone away already, which is as good.
    let _ = shutdown(socket, Shutdown::Read);
}
