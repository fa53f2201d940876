//! Setup of a forked child: death with its parent, signals of the drain, and its idle timer.

use std::mem;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
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

use crate::connection::Connection;
use crate::idle::Activity;

/// The signal of the idle timer. SIGALRM stays free for experiments with interrupted system calls.
const IDLE_CHECK: Signal = Signal::SIGUSR2;

/// The activity of the connection that this child serves; null between two connections.
static ACTIVITY: AtomicPtr<Activity> = AtomicPtr::new(null_mut());

/// Sets up a child that has just been forked: it dies with its parent, SIGTERM and SIGINT make it end
/// after the bytes it has received, and once per `idle_timeout` it checks its client.
pub(crate) fn enter(parent: Pid, idle_timeout: Duration) {
    if die_with(parent).is_err() {
        exit(0);
    }

    let handlers = [
        (Signal::SIGTERM, shutdown_reading as extern "C" fn(c_int)),
        (Signal::SIGINT, shutdown_reading),
        (IDLE_CHECK, check_idle),
    ];
    for (signal, handler) in handlers {
        let handler = SigHandler::Handler(handler);
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
        #[expect(unsafe_code, reason = "a signal handler can only be set this way")]
        // SAFETY: the handlers only read a pointer, touch atomics and make one
        // system call: nothing that is not async-signal-safe.
        let _ = unsafe { sigaction(signal, &action) };
    }

    // The parent blocks these two, so one that was sent since the fork arrives now.
    let _ = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]).thread_unblock();
    start_idle_timer(idle_timeout);
}

/// Serves a connection in this child, where the signals of the drain and of the idle timer reach it.
pub(crate) fn serve(connection: Connection) {
    let activity = Arc::clone(connection.activity());
    ACTIVITY.store(Arc::as_ptr(&activity).cast_mut(), Release);

    connection.serve();

    // This process has one thread, so nothing was opened since the close under the number of the
    // socket: a signal in between finds no file, which is harmless.
    ACTIVITY.store(null_mut(), Release);
}

/// Sends [`IDLE_CHECK`] periodically. Without a timer (`RLIMIT_SIGPENDING`), an idle client is not
/// cut off.
fn start_idle_timer(interval: Duration) {
    let event = SigEvent::new(SigevNotify::SigevSignal {
        signal: IDLE_CHECK,
        si_value: 0,
    });

    if let Ok(mut timer) = Timer::new(ClockId::CLOCK_MONOTONIC, event) {
        let interval = Expiration::Interval(TimeSpec::from_duration(interval));
        let _ = timer.set(interval, TimerSetTimeFlags::empty());
        // Dropping would delete it; it ends with the process.
        mem::forget(timer);
    }
}

extern "C" fn shutdown_reading(_: c_int) {
    with_activity(Activity::shutdown_reading);
}

extern "C" fn check_idle(_: c_int) {
    with_activity(Activity::check);
}

fn with_activity(handle: impl Fn(&Activity)) {
    // The interrupted code may be about to read errno.
    let errno = Errno::last_raw();
    #[expect(unsafe_code, reason = "a signal handler can reach only statics")]
    // SAFETY: the pointer is null, or that of an `Arc` which `serve` holds until it has set null.
    if let Some(activity) = unsafe { ACTIVITY.load(Acquire).as_ref() } {
        handle(activity);
    }
    Errno::set_raw(errno);
}
