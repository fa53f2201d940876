//! Precise timer for tasks: the runtime's own timer has a resolution of a millisecond, this one that of
//! the kernel.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock;

/// One timer descriptor for all tasks of a runtime, set to the earliest instant of all sleepers.
pub(crate) struct Pacer {
    timer: TimerFd,
    expired: AsyncFd<OwnedFd>,
    sleepers: Mutex<Sleepers>,
    turns: AtomicU64,
}

/// Sleeping tasks, each with a number of its own.
#[derive(Default)]
struct Sleepers {
    last_number: u64,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    wakers: BTreeMap<u64, Waker>,
}

impl Pacer {
    /// Creates the timer; must be called within the runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let copy = timer.as_fd().try_clone_to_owned()?;

        #[expect(unsafe_code, reason = "tokio cannot see who owns the descriptor")]
        // SAFETY: an `OwnedFd` stays open and the same until it is dropped.
        let expired = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }?;
        Ok(Pacer {
            timer,
            expired,
            sleepers: Mutex::default(),
            turns: AtomicU64::new(0),
        })
    }

    /// Records that a client begins or ends a step that takes time.
    pub(crate) fn record_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of recorded steps of all clients.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Waits until [`clock::now`] has reached `instant`.
    pub(crate) async fn sleep_until(&self, instant: u64) {
        let mut own_number = None;
        poll_fn(|context| {
            if clock::now() >= instant {
                return Poll::Ready(());
            }

            let mut sleepers = self.sleepers.lock().expect("no panic while it is locked");
            let number = *own_number.get_or_insert_with(|| {
                let number = sleepers.add(instant);
                if sleepers.earliest() == Some((instant, number)) {
                    self.set(instant);
                }
                number
            });
            sleepers.wakers.insert(number, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes the sleepers that are due, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        while let Ok(mut guard) = self.expired.readable().await {
            guard.clear_ready();
            // Reading re-arms the descriptor; the number of expirations does not matter.
            let _ = self.timer.wait();
            self.wake_due();
        }
    }

    fn wake_due(&self) {
        let mut sleepers = self.sleepers.lock().expect("no panic while it is locked");
        let now = clock::now();

        while let Some((instant, number)) = sleepers.earliest() {
            if instant > now {
                self.set(instant);
                return;
            }
            sleepers.due.pop();
            if let Some(waker) = sleepers.wakers.remove(&number) {
                waker.wake();
            }
        }
    }

    fn set(&self, instant: u64) {
        let expiration = Expiration::OneShot(clock::time_spec(instant));
        self.timer
            .set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            .expect("an instant on the clock is a valid time");
    }
}

impl Sleepers {
    /// Adds a sleeper, and returns its number.
    fn add(&mut self, instant: u64) -> u64 {
        self.last_number += 1;
        self.due.push(Reverse((instant, self.last_number)));
        self.last_number
    }

    fn earliest(&self) -> Option<(u64, u64)> {
        self.due.peek().map(|Reverse(sleeper)| *sleeper)
    }
}
