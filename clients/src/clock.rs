//! The one clock of the load generator: nanoseconds of `CLOCK_MONOTONIC`, shared by all processes
//! of a host, so that they can follow one schedule without a message.

use nix::errno::Errno;
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

const SECOND: u64 = 1_000_000_000;
/// Before a request is due, the last stretch is spent looking at the clock: to be woken takes some
/// tens of microseconds, and longer on a virtual machine.
pub(crate) const SPIN_NS: u64 = 80_000;
/// Two looks at the clock in a row that are this far apart: something else had the CPU.
const HICCUP_NS: u64 = 20_000;

/// Nanoseconds since some fixed point in the past of this host.
#[must_use]
pub fn now() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread so far, in nanoseconds.
pub(crate) fn thread_cpu() -> u64 {
    nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of this process so far, in nanoseconds.
pub(crate) fn process_cpu() -> u64 {
    nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("every Linux has this clock");
    time.tv_sec().cast_unsigned() * SECOND + time.tv_nsec().cast_unsigned()
}

/// Lets sleeps of this thread, and of the threads it starts, end when they should: the kernel otherwise
/// delays them by up to 50 µs to wake several at once.
pub(crate) fn sharpen_timers() {
    // Where it is refused, requests are sent a little later, which the lag shows.
    let _ = set_timerslack(1);
}

/// Looks at the clock until a request is due, and notes when something else had the CPU meanwhile.
pub(crate) struct Watch {
    due_ns: u64,
    last_ns: u64,
    /// Something else had the CPU between two looks, or until after the request was due.
    pub(crate) hiccup: bool,
}

impl Watch {
    /// The first look.
    pub(crate) fn until(due_ns: u64) -> Self {
        let last_ns = now();
        Watch {
            due_ns,
            last_ns,
            hiccup: last_ns > due_ns,
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.last_ns >= self.due_ns
    }

    /// Another look; `busy` when other clients had their turn since the last, so that a gap may be theirs.
    /// With several threads of tasks that hides hiccups.
    pub(crate) fn look(&mut self, busy: bool) {
        let now_ns = now();
        self.hiccup |= !busy && now_ns - self.last_ns >= HICCUP_NS;
        self.last_ns = now_ns;
    }
}

/// Sleeps until [`now`] has reached `instant`; signals do not shorten it.
pub fn sleep_until(instant: u64) {
    if now() >= instant {
        return;
    }
    let time = TimeSpec::new(
        (instant / SECOND).cast_signed(),
        (instant % SECOND).cast_signed(),
    );
    while let Err(Errno::EINTR) = clock_nanosleep(
        ClockId::CLOCK_MONOTONIC,
        ClockNanosleepFlags::TIMER_ABSTIME,
        &time,
    ) {}
}
