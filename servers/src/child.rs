//! What a forked child and its parent owe each other.

use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use echobench_fork::{die_with, exit};
use nix::errno::Errno;
use nix::libc::c_int;
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::idle::Mark;

/// By which the timer of a child tells it to look at its client; SIGALRM is left to whoever tries what
/// signals do to system calls.
const LOOK: Signal = Signal::SIGUSR2;

/// The connection of this child.
static MARK: OnceLock<Arc<Mark>> = OnceLock::new();

/// To be called first in a child: it dies with its parent, SIGTERM and SIGINT make it finish what it
/// has received, and once in every `idle_timeout` it looks whether its client keeps it waiting.
pub(crate) fn enter(parent: Pid, mark: &Arc<Mark>, idle_timeout: Duration) {
    if die_with(parent).is_err() {
        exit(0);
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
