//! Monotonic time: nanoseconds of `CLOCK_MONOTONIC`, which all processes of a host share, so that they can
//! follow one schedule without messages.

use nix::errno::Errno;
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

const SECOND_NS: u64 = 1_000_000_000;
/// Time before a due request that is spent spinning: a wake-up takes some tens of microseconds, and longer
/// on a virtual machine.
pub(crate) const SPIN_NS: u64 = 80_000;
/// Gap between two readings of a spinning thread from which on something else had the CPU.
const HICCUP_NS: u64 = 20_000;

/// Nanoseconds since a fixed point in the past of this host.
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
    time.tv_sec().cast_unsigned() * SECOND_NS + time.tv_nsec().cast_unsigned()
}

/// An instant on the clock as the kernel takes it.
pub(crate) fn time_spec(instant: u64) -> TimeSpec {
    TimeSpec::new(
        (instant / SECOND_NS).cast_signed(),
        (instant % SECOND_NS).cast_signed(),
    )
}

/// Turns off the timer slack of this thread, and of the threads it starts: by default the kernel delays
/// wake-ups by up to 50 µs to join them.
pub(crate) fn minimize_timer_slack() {
    // If refused, requests are sent a little later, which the lag shows.
    let _ = set_timerslack(1);
}

/// Spin wait until a request is due, which detects that something else had the CPU meanwhile.
pub(crate) struct SpinWait {
    due_ns: u64,
    last_ns: u64,
    /// Something else had the CPU between two readings, or until after the request was due.
    pub(crate) had_hiccup: bool,
}

impl SpinWait {
    /// Begins to wait at the instant `now_ns`.
    pub(crate) fn until(due_ns: u64, now_ns: u64) -> Self {
        SpinWait {
            due_ns,
            last_ns: now_ns,
            had_hiccup: now_ns > due_ns,
        }
    }

    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    pub(crate) fn is_over(&self) -> bool {
        self.last_ns >= self.due_ns
    }

    /// Takes another reading of the clock, `now_ns`. `others_ran` if other clients ran since the last one, so that
    /// they may be the reason of a gap; with several threads of tasks that hides hiccups.
    pub(crate) fn read(&mut self, now_ns: u64, others_ran: bool) {
        self.had_hiccup |= !others_ran && now_ns - self.last_ns >= HICCUP_NS;
        self.last_ns = now_ns;
    }
}

/// Sleeps until [`now`] has reached `instant`; signals do not shorten it.
pub fn sleep_until(instant: u64) {
    if now() >= instant {
        return;
    }
    while let Err(Errno::EINTR) = clock_nanosleep(
        ClockId::CLOCK_MONOTONIC,
        ClockNanosleepFlags::TIMER_ABSTIME,
        &time_spec(instant),
    ) {}
}
