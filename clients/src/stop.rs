//! Early stop of the loads of this process, also by a signal handler.
//!
//! The instant of the stop lies in memory that client processes share with their parent. A stop acts like
//! the end of every window: no request begins after it, and those in flight have a moment to end.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::unistd::{pipe2, write};

use crate::clock;

/// Time for a reply to a request that was in flight at the stop.
const REPLY_TIME_NS: u64 = 1_000_000_000;
/// Last part of a sleep, which a stop does not shorten.
const PRECISE_SLEEP_NS: u64 = 50_000_000;
/// Instant of a stop that has not been requested.
const NEVER: u64 = u64::MAX;

static STOP: OnceLock<Stop> = OnceLock::new();

struct Stop {
    /// Instant of the stop, on the monotonic clock.
    at_ns: &'static AtomicU64,
    /// Readable after the stop, since nobody reads it: it wakes everyone who waits.
    woken: OwnedFd,
    wake: OwnedFd,
}

/// Lets [`stop`] end the loads that this process runs from now on.
pub fn allow_stop() -> io::Result<()> {
    if STOP.get().is_some() {
        return Ok(());
    }

    let (woken, wake) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let stop = Stop {
        at_ns: shared_instant()?,
        woken,
        wake,
    };
    // Another thread that was faster has made an equal one.
    let _ = STOP.set(stop);
    Ok(())
}

/// An instant in a page of its own, which forked processes share.
fn shared_instant() -> io::Result<&'static AtomicU64> {
    let length = NonZeroUsize::new(size_of::<AtomicU64>()).expect("eight bytes");
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;

    #[expect(
        unsafe_code,
        reason = "memory is shared between processes only this way"
    )]
    // SAFETY: a new mapping, aligned to a page and never unmapped, whose zeros are a valid value.
    let instant = unsafe {
        let page: NonNull<AtomicU64> =
            mmap_anonymous(None, length, access, MapFlags::MAP_SHARED)?.cast();
        page.as_ref()
    };
    instant.store(NEVER, Ordering::Relaxed);
    Ok(instant)
}

/// Ends the running loads of this process and of its client processes early, if [`allow_stop`] was called
/// before. Async-signal-safe.
pub fn stop() {
    let Some(stop) = STOP.get() else { return };
    let now_ns = clock::now();
    if stop.at_ns.fetch_min(now_ns, Ordering::Relaxed) == NEVER {
        let _ = write(&stop.wake, &[0]);
    }
}

/// Instant at which [`stop`] was called first, on [`clock::now`].
#[must_use]
pub fn stopped_ns() -> Option<u64> {
    let at_ns = end_ns();
    (at_ns != NEVER).then_some(at_ns)
}

/// End of all windows by a stop.
pub(crate) fn end_ns() -> u64 {
    STOP.get()
        .map_or(NEVER, |stop| stop.at_ns.load(Ordering::Relaxed))
}

/// Time to stop waiting for replies by a stop.
pub(crate) fn reply_deadline_ns() -> u64 {
    end_ns().saturating_add(REPLY_TIME_NS)
}

/// Descriptor that is readable after a stop; `None` once there is nothing left to wait for.
pub(crate) fn pending() -> Option<BorrowedFd<'static>> {
    let stop = STOP.get()?;
    (stop.at_ns.load(Ordering::Relaxed) == NEVER).then(|| stop.woken.as_fd())
}

/// Sleeps until an instant, or until a stop if that is earlier.
pub(crate) fn sleep_until(instant: u64) {
    while let Some(woken) = pending() {
        // A poll is not precise, and a stop may come that much later.
        let left_ns = instant.saturating_sub(clock::now());
        if left_ns <= PRECISE_SLEEP_NS {
            break;
        }
        let left_ms = (left_ns - PRECISE_SLEEP_NS).div_ceil(1_000_000);
        let left_ms = i32::try_from(left_ms).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(left_ms).expect("not negative");
        match poll(&mut [PollFd::new(woken, PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return,
            // Without a poll only the wait is longer.
            Err(_) => break,
        }
    }
    // A stop that came before has left nothing to wait for.
    clock::sleep_until(instant.min(end_ns()));
}
