//! Waking tasks when requests are due: the runtime's own timer has steps of a millisecond, this one
//! has those of the kernel's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock;

/// One timer descriptor for all tasks of a runtime, set to the earliest instant that any waits for.
pub(crate) struct Pacer {
    timer: TimerFd,
    gone_off: AsyncFd<OwnedFd>,
    sleepers: Mutex<Sleepers>,
    turns: AtomicU64,
}

#[derive(Default)]
struct Sleepers {
    next: u64,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    wakers: BTreeMap<u64, Waker>,
}

impl Pacer {
    /// To be called within the runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let copy = timer.as_fd().try_clone_to_owned()?;
        #[expect(unsafe_code, reason = "tokio cannot see who owns the descriptor")]
        // SAFETY: an `OwnedFd` stays open and the same until it is dropped.
        let gone_off = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }?;
        Ok(Pacer {
            timer,
            gone_off,
            sleepers: Mutex::default(),
            turns: AtomicU64::new(0),
        })
    }

    /// Notes that a client begins or ends something that takes time.
    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// How often any client has.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Waits until [`clock::now`] has reached `instant`.
    pub(crate) async fn sleep_until(&self, instant: u64) {
        let mut own = None;
        poll_fn(|context| {
            if clock::now() >= instant {
                return Poll::Ready(());
            }
            let mut sleepers = self.sleepers.lock().expect("nobody panics here");
            let number = *own.get_or_insert_with(|| {
                sleepers.next += 1;
                let number = sleepers.next;
                sleepers.due.push(Reverse((instant, number)));
                if sleepers
                    .due
                    .peek()
                    .is_some_and(|Reverse((_, first))| *first == number)
                {
                    self.set(instant);
                }
                number
            });
            sleepers.wakers.insert(number, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes whoever is due, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        while let Ok(mut guard) = self.gone_off.readable().await {
            guard.clear_ready();
            // Not blocking, and of no interest but that it has gone off.
            let _ = self.timer.wait();
            self.wake_due();
        }
    }

    fn wake_due(&self) {
        let mut sleepers = self.sleepers.lock().expect("nobody panics here");
        let now = clock::now();
        while let Some(&Reverse((instant, number))) = sleepers.due.peek() {
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
        let at = TimeSpec::new(
            (instant / 1_000_000_000).cast_signed(),
            (instant % 1_000_000_000).cast_signed(),
        );
        let absolute = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        self.timer
            .set(Expiration::OneShot(at), absolute)
            .expect("an instant on the clock is a valid time");
    }
}
