//! State shared by all connections of one server: its settings, its counters, and the open sockets.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use humantime::{Rfc3339Timestamp, format_rfc3339_millis};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use nix::time::{ClockId, clock_gettime};

use crate::counters::Counters;
use crate::idle::Activity;
use crate::settings::Settings;

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
    /// The sockets being served. A socket is taken out before it is closed, so its number cannot
    /// yet mean another file.
    sockets: Mutex<HashMap<RawFd, Arc<Activity>>>,
    /// Threads that may block in accept(2).
    accepting: Mutex<Vec<ThreadHandle>>,
    /// Readable from the start of the drain, or slightly earlier.
    stop: EventFd,
}

/// The registration of a thread that may block in accept(2).
#[derive(Debug)]
pub(crate) struct Acceptance {
    server: Arc<Server>,
    thread: ThreadHandle,
}

/// The name of a thread for `pthread_kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ThreadHandle(Pthread);

#[expect(
    unsafe_code,
    reason = "a number in glibc, but in musl a pointer, which is not `Send`"
)]
// SAFETY: it is only compared, and passed to `pthread_kill`, which any thread may call.
unsafe impl Send for ThreadHandle {}

impl Drop for Acceptance {
    fn drop(&mut self) {
        self.server
            .accepting()
            .retain(|other| *other != self.thread);
    }
}

/// Kinds of warnings on standard error; each has a rate limit of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Warning {
    /// A connection cannot be accepted.
    AcceptFailed,
    /// No thread or process can be started for a connection.
    StartFailed,
    /// The limit on open connections is reached.
    Full,
    /// A handler panicked.
    Panicked,
}

/// Minimum time between two warnings of one kind.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

impl Server {
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        Ok(Server {
            settings,
            counters: Counters::new()?,
            sockets: Mutex::default(),
            accepting: Mutex::default(),
            stop: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    /// Adds `socket` to those being served.
    pub(crate) fn register(&self, socket: RawFd, activity: Arc<Activity>) {
        let mut sockets = self.sockets();
        sockets.insert(socket, activity);

        // Checked under the lock: `drain` has either seen this socket or set the flag before.
        if self.is_draining() {
            shutdown_reading(socket);
        }
    }

    /// Removes `socket`, which is about to be closed.
    pub(crate) fn deregister(&self, socket: RawFd) {
        self.sockets().remove(&socket);
    }

    /// Begins the drain: every connection is still answered for the bytes it has received, then reads
    /// the end of the stream, as if its client had closed.
    pub(crate) fn drain(&self) {
        let sockets = self.sockets();
        self.counters.drain();
        sockets.keys().copied().for_each(shutdown_reading);
        self.signal_stop();
    }

    /// Registers the calling thread as one that may block in accept(2).
    pub(crate) fn accepts_here(server: &Arc<Self>) -> Acceptance {
        let thread = ThreadHandle(pthread_self());
        server.accepting().push(thread);
        Acceptance {
            server: Arc::clone(server),
            thread,
        }
    }

    /// Interrupts the accept(2) of every thread that blocks in it, by a signal whose handler does
    /// nothing. The listener has to be non-blocking by then, so that the next attempt returns.
    pub(crate) fn interrupt_accepts(&self, signal: Signal) {
        for thread in self.accepting().iter() {
            // A registered thread is alive: it deregisters before it ends.
            let _ = pthread_kill(thread.0, signal);
        }
    }

    /// Makes [`Server::stop_event`] readable.
    pub(crate) fn signal_stop(&self) {
        // Fails only when the counter of the descriptor is full, and then it is readable.
        let _ = self.stop.write(1);
    }

    /// Cuts off idle clients; to be called once per idle timeout.
    pub(crate) fn check_idle(&self) {
        self.sockets()
            .values()
            .for_each(|activity| activity.check());
    }

    /// Whether the drain has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.counters.is_draining()
    }

    /// A descriptor that is readable from the start of the drain, or slightly earlier.
    pub(crate) fn stop_event(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// Prints the counters on standard output. A closed or full output does not end the server.
    pub(crate) fn print_counters(&self) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{}", self.counters).and_then(|()| out.flush());
    }

    /// Writes a warning to standard error, unless one of its kind was written a moment ago: then it
    /// is counted, and the count is part of the next one.
    pub(crate) fn warn(&self, kind: Warning, text: impl fmt::Display) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let limit = self.counters.rate_limit(kind as usize);

        match limit.admit(now_ns, WARNING_INTERVAL) {
            None => {}
            Some(0) => log(format_args!("{text}")),
            Some(suppressed) => log(format_args!(
                "{text} ({suppressed} more times since this was said)"
            )),
        }
    }

    fn accepting(&self) -> MutexGuard<'_, Vec<ThreadHandle>> {
        let threads = self.accepting.lock();
        threads.unwrap_or_else(PoisonError::into_inner)
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<RawFd, Arc<Activity>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The current time, as printed in lines about events.
pub(crate) fn timestamp() -> Rfc3339Timestamp {
    format_rfc3339_millis(SystemTime::now())
}

/// Writes one line to standard error, which may be closed or full.
pub(crate) fn log(line: impl fmt::Display) {
    // One write: standard error is not buffered, and lines of several processes would mix.
    let line = format!("echobench serve: {line}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Ends the receiving side. On Linux a blocked read, and every later one, then returns the bytes that
/// have already arrived, and after them the end of the stream.
fn shutdown_reading(socket: RawFd) {
    // Fails if the client has disconnected already, which has the same effect.
    let _ = shutdown(socket, Shutdown::Read);
}
