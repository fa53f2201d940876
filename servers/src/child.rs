//! What a forked child and its parent owe each other.

use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{_exit, c_int};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::{Pid, getppid};

use crate::idle::Mark;

/// By which the timer of a child tells it to look at its client; SIGALRM is left to whoever tries what
/// signals do to system calls.
const LOOK: Signal = Signal::SIGUSR2;

/// The connection of this child.
static MARK: OnceLock<Arc<Mark>> = OnceLock::new();

/// Whether this process may fork: after a fork the child has only the thread that forked, and every
/// lock that another one held stays locked in it.
#[must_use]
pub fn is_single_threaded() -> bool {
    // A directory has two links, and one for each directory in it: here, a thread.
    std::fs::metadata("/proc/self/task").map_or(true, |tasks| tasks.nlink() == 3)
}

/// To be called first in a child: it dies with its parent, SIGTERM and SIGINT make it finish what it
/// has received, and once in every `idle_timeout` it looks whether its client keeps it waiting.
pub(crate) fn enter(parent: Pid, mark: &Arc<Mark>, idle_timeout: Duration) {
    // It can fail only for a signal that does not exist.
    let _ = set_pdeathsig(Signal::SIGKILL);
    if getppid() != parent {
        // The parent died before it could be followed.
        exit();
    }
    let _ = MARK.set(Arc::clone(mark));
    let handlers = [
        (Signal::SIGTERM, end_reading as extern "C" fn(c_int)),
        (Signal::SIGINT, end_reading),
        (LOOK, look),
    ];
    for (signal, handler) in handlers {
        let handler = SigHandler::Handler(handler);
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
        #[expect(unsafe_code, reason = "a signal handler can only be set this way")]
        // SAFETY: the handlers only read a cell that was filled before, touch atomics and make one
        // system call: nothing that is not async-signal-safe.
        let _ = unsafe { sigaction(signal, &action) };
    }
    // The parent blocks them, so one that was sent meanwhile arrives now.
    let _ = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]).thread_unblock();
    set_alarm(idle_timeout);
}

/// [`LOOK`], again and again. Where no timer is to be had, an idle client is not cut off.
fn set_alarm(every: Duration) {
    let event = SigEvent::new(SigevNotify::SigevSignal {
        signal: LOOK,
        si_value: 0,
    });
    if let Ok(mut timer) = Timer::new(ClockId::CLOCK_MONOTONIC, event) {
        let every = Expiration::Interval(TimeSpec::from_duration(every));
        let _ = timer.set(every, TimerSetTimeFlags::empty());
        // It ends with the process.
        mem::forget(timer);
    }
}

/// Leaves a child without running what belongs to the parent: destructors, buffers, exit handlers.
pub(crate) fn exit() -> ! {
    #[expect(unsafe_code, reason = "std::process::exit would run exit handlers")]
    // SAFETY: it does not return, so no state is left to be wrong.
    unsafe {
        _exit(0)
    }
}

extern "C" fn end_reading(_: c_int) {
    with_mark(Mark::end_reading);
}

extern "C" fn look(_: c_int) {
    with_mark(Mark::look);
}

fn with_mark(handle: impl Fn(&Mark)) {
    let errno = Errno::last_raw();
    if let Some(mark) = MARK.get() {
        handle(mark);
    }
    Errno::set_raw(errno);
}
