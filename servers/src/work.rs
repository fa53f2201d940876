//! The work a request asks for, done in place by the thread that serves it.

use std::hint::black_box;
use std::process;
use std::thread;
use std::time::Duration;

use echobench_protocol::Work;
use nix::time::{ClockId, clock_gettime};

use crate::settings::Fault;

/// Arithmetic steps between two readings of the CPU clock, about a microsecond: the reading is a system
/// call, and spinning is to use the CPU as a computation would, not as the kernel does.
const STEPS: u64 = 1000;

/// Does the work on the calling thread.
pub(crate) fn perform(work: Work) {
    match work {
        Work::None => {}
        Work::Block(time) => thread::sleep(time),
        Work::Spin(time) => spin(time),
    }
}

/// Fails in the way that `--fault` asks for.
#[cold]
pub(crate) fn fail(fault: Fault) {
    match fault {
        Fault::Panic => panic!("told to, by --fault panic"),
        Fault::Abort => process::abort(),
    }
}

/// Uses this much CPU time on the calling thread. CPU time, not elapsed time: a thread that shares its
/// CPU does the same work and finishes later.
pub(crate) fn spin(time: Duration) {
    let end = cpu_time() + time;
    while cpu_time() < end {
        steps(STEPS);
    }
}

/// Runs `count` steps of arithmetic, each of which depends on the one before.
pub(crate) fn steps(count: u64) {
    let mut state = 1_u64;
    for _ in 0..count {
        state = black_box(state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("every Linux thread has a CPU clock")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_uses_cpu_time() {
        let before = cpu_time();
        spin(Duration::from_millis(5));
        assert!(cpu_time() >= before + Duration::from_millis(5));
    }

    #[test]
    fn blocking_does_not() {
        let before = cpu_time();
        perform(Work::Block(Duration::from_millis(20)));
        assert!(cpu_time() < before + Duration::from_millis(15));
    }
}
