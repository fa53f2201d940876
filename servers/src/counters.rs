//! Counters of a server: cheap enough for the hot path, and shared with forked children.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Number of tallies that connections are spread over, so that they seldom share a cache line.
const TALLIES: usize = 64;

/// Events of connections being served, possibly by another process.
#[derive(Debug)]
pub(crate) struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    timed_out: AtomicU64,
}

impl Tally {
    /// Counts answered requests, and returns the number before.
    pub(crate) fn answered(&self, requests: u32) -> u64 {
        self.requests.fetch_add(u64::from(requests), Relaxed)
    }

    /// Counts a failed connection: reset, cut short, or the client broke the protocol.
    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Counts a connection that the idle timeout has cut off.
    pub(crate) fn timed_out(&self) {
        self.timed_out.fetch_add(1, Relaxed);
    }
}

/// Most workers that a server can have.
pub(crate) const MAX_WORKERS: usize = 1 << 14;

/// Connections that were taken in by one place.
#[derive(Debug)]
struct PlaceCounts {
    accepted: AtomicU64,
    active: AtomicU64,
    waiting: AtomicU64,
}

impl PlaceCounts {
    fn open(&self) -> u64 {
        // The order mirrors `Place::begin`: a connection that moves between the two is counted
        // twice rather than not at all.
        let waiting = self.waiting.load(Acquire);
        waiting + self.active.load(Acquire)
    }
}

/// A place where a server takes in connections: 0 is the acceptor, the others are workers that accept
/// for themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    number: usize,
    counts: &'static PlaceCounts,
}

/// The counts that nobody reads.
static UNREAD: PlaceCounts = PlaceCounts {
    accepted: AtomicU64::new(0),
    active: AtomicU64::new(0),
    waiting: AtomicU64::new(0),
};

impl Place {
    /// The place in which a forked child counts a connection that its parent counts already.
    pub(crate) fn of_parent() -> Self {
        Place {
            number: 0,
            counts: &UNREAD,
        }
    }

    /// Counts a connection as accepted and waiting to be served. Returns the number of its tally.
    pub(crate) fn accept(self) -> u64 {
        self.counts.waiting.fetch_add(1, Relaxed);
        // The place is added so that the first connections of the workers do not share a tally.
        self.counts.accepted.fetch_add(1, Relaxed) + self.number as u64
    }

    /// Counts a waiting connection as active.
    pub(crate) fn begin(self) {
        // In this order it is never in neither number, so that a drain cannot overlook it.
        self.counts.active.fetch_add(1, Relaxed);
        self.counts.waiting.fetch_sub(1, Release);
    }

    /// Counts a waiting connection as accepted in another place instead. Returns the number of its tally.
    pub(crate) fn hand_over(self, to: Place) -> u64 {
        // In this order it is never in neither place.
        let number = to.accept();
        self.counts.accepted.fetch_sub(1, Relaxed);
        self.leave();
        number
    }

    /// Counts an active connection as closed.
    pub(crate) fn end(self) {
        self.counts.active.fetch_sub(1, Release);
    }

    /// Forgets the open connections of a worker that has died with them.
    pub(crate) fn vacate(self) {
        self.counts.waiting.store(0, Release);
        self.counts.active.store(0, Release);
    }

    /// Counts a waiting connection as closed.
    fn leave(self) {
        self.counts.waiting.fetch_sub(1, Release);
    }
}

/// Rate limit of one kind of warning.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Time of the last warning, in nanoseconds of the monotonic clock; 0: none yet.
    last_ns: AtomicU64,
    suppressed: AtomicU64,
}

impl RateLimit {
    /// Decides at `now_ns` whether to write a warning: if so, returns the number that were suppressed
    /// before it.
    pub(crate) fn admit(&self, now_ns: u64, interval: Duration) -> Option<u64> {
        let last_ns = self.last_ns.load(Relaxed);
        let is_due =
            last_ns == 0 || u128::from(now_ns.saturating_sub(last_ns)) >= interval.as_nanos();

        // Of several threads and processes that find it due, one wins.
        let win = || {
            let swap = self
                .last_ns
                .compare_exchange(last_ns, now_ns.max(1), Relaxed, Relaxed);
            swap.is_ok()
        };
        if is_due && win() {
            return Some(self.suppressed.swap(0, Relaxed));
        }

        self.suppressed.fetch_add(1, Relaxed);
        None
    }
}

/// Number of kinds of warnings.
const RATE_LIMITS: usize = 4;

/// Memory shared between a parent and its forked children.
#[derive(Debug)]
struct Shared {
    tallies: [CachePadded<Tally>; TALLIES],
    rate_limits: [RateLimit; RATE_LIMITS],
    refused: AtomicU64,
    exhausted: AtomicU64,
    /// Whether the drain has begun.
    draining: AtomicBool,
    /// Number of places in use beyond the acceptor's.
    workers: AtomicUsize,
    places: [CachePadded<PlaceCounts>; MAX_WORKERS + 1],
}

/// The counters of a server.
#[derive(Debug)]
pub(crate) struct Counters {
    shared: &'static Shared,
    reaped: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Counters {
            shared: map_shared()?,
            reaped: AtomicU64::new(0),
        })
    }

    /// The tally for connection `number`.
    pub(crate) fn tally(&self, number: u64) -> &'static Tally {
        &self.shared.tallies[usize::try_from(number).unwrap_or(0) % TALLIES]
    }

    /// The rate limit for this kind of warning.
    pub(crate) fn rate_limit(&self, kind: usize) -> &'static RateLimit {
        &self.shared.rate_limits[kind]
    }

    /// The place of a worker, from 1; 0 is the acceptor's. Its numbers are printed from now on.
    pub(crate) fn place(&self, number: usize) -> Place {
        self.shared.workers.fetch_max(number, Relaxed);
        Place {
            number,
            counts: &self.shared.places[number],
        }
    }

    /// Records that the drain has begun, for all processes of the server.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Release);
    }

    /// Whether the drain has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Acquire)
    }

    /// Counts a waiting connection as closed without having been served.
    pub(crate) fn refuse(&self, place: Place) {
        self.shared.refused.fetch_add(1, Relaxed);
        place.leave();
    }

    /// Counts a waiting connection as failed: closed for want of a descriptor.
    pub(crate) fn lose(&self, place: Place, number: u64) {
        self.exhaust();
        self.tally(number).failed();
        place.leave();
    }

    /// Counts a child process whose exit status was collected.
    pub(crate) fn reap(&self) {
        self.reaped.fetch_add(1, Relaxed);
    }

    /// Counts a failed accept: out of descriptors or memory.
    pub(crate) fn exhaust(&self) {
        self.shared.exhausted.fetch_add(1, Relaxed);
    }

    /// Number of connections accepted and not yet closed.
    pub(crate) fn open(&self) -> u64 {
        self.places().iter().map(|place| place.open()).sum()
    }

    /// The counts of the places in use, the acceptor's first.
    fn places(&self) -> &'static [CachePadded<PlaceCounts>] {
        &self.shared.places[..=self.shared.workers.load(Relaxed)]
    }

    fn sum(&self, field: impl Fn(&Tally) -> &AtomicU64) -> u64 {
        let tallies = self.shared.tallies.iter();
        tallies.map(|tally| field(tally).load(Relaxed)).sum()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.places();
        let total = |field: fn(&PlaceCounts) -> &AtomicU64| -> u64 {
            let counts = places.iter().map(|place| field(place).load(Relaxed));
            counts.sum()
        };

        write!(
            f,
            "counters accepted={} active={} waiting={} requests={} errors={} timed_out={} \
             reaped={} refused={} exhausted={}",
            total(|place| &place.accepted),
            total(|place| &place.active),
            total(|place| &place.waiting),
            self.sum(|tally| &tally.requests),
            self.sum(|tally| &tally.errors),
            self.sum(|tally| &tally.timed_out),
            self.reaped.load(Relaxed),
            self.shared.refused.load(Relaxed),
            self.shared.exhausted.load(Relaxed),
        )?;

        // Connections taken in by each worker, where there are workers that take them in.
        for (index, place) in places.iter().skip(1).enumerate() {
            let separator = if index == 0 { " workers=" } else { "," };
            write!(f, "{separator}{}", place.accepted.load(Relaxed))?;
        }
        Ok(())
    }
}

/// Maps memory that forked children share with their parent. It is never unmapped: a process has one
/// server, for all its life.
#[expect(unsafe_code, reason = "memory shared over fork comes from mmap only")]
fn map_shared() -> io::Result<&'static Shared> {
    let length = NonZeroUsize::new(size_of::<Shared>()).expect("there is at least one tally");

    // SAFETY: the kernel chooses a fresh place, so no other memory is touched.
    let memory = unsafe {
        mmap_anonymous(
            None,
            length,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
        )
    }?;

    // SAFETY: the mapping is long enough, page-aligned, zeroed (a valid state of the atomics) and
    // never unmapped.
    Ok(unsafe { memory.cast().as_ref() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_counted_from_accept_to_end() {
        let counters = Counters::new().unwrap();
        let place = counters.place(0);
        let number = place.accept();
        assert_eq!(counters.open(), 1);

        place.begin();
        counters.tally(number).answered(3);
        counters.tally(number + 1).failed();
        assert_eq!(
            counters.to_string(),
            "counters accepted=1 active=1 waiting=0 requests=3 errors=1 timed_out=0 \
             reaped=0 refused=0 exhausted=0"
        );

        place.end();
        assert_eq!(counters.open(), 0);
    }

    #[test]
    fn the_places_of_workers_add_up() {
        let counters = Counters::new().unwrap();
        for (number, connections) in [(1, 3), (2, 1)] {
            let place = counters.place(number);
            for _ in 0..connections {
                place.accept();
                place.begin();
            }
        }
        assert_eq!(counters.open(), 4);

        counters.place(1).vacate();
        assert_eq!(counters.open(), 1);
        let text = counters.to_string();
        assert!(text.contains("accepted=4 active=1 waiting=0"), "{text}");
        assert!(text.ends_with(" workers=3,1"), "{text}");
    }

    #[test]
    fn a_connection_that_is_handed_over_is_counted_once() {
        let counters = Counters::new().unwrap();
        counters.place(0).accept();
        counters.place(0).hand_over(counters.place(2));
        counters.place(2).begin();

        assert_eq!(counters.open(), 1);
        let text = counters.to_string();
        assert!(text.contains("accepted=1 active=1 waiting=0"), "{text}");
        assert!(text.ends_with(" workers=0,1"), "{text}");
    }

    #[test]
    fn warnings_are_limited_per_kind_and_the_suppressed_ones_counted() {
        let counters = Counters::new().unwrap();
        let admit = |now_ns| {
            let limit = counters.rate_limit(1);
            limit.admit(now_ns, Duration::from_nanos(100))
        };
        assert_eq!(admit(50), Some(0));
        assert_eq!(admit(60), None);
        assert_eq!(admit(149), None);
        assert_eq!(admit(150), Some(2));
        assert_eq!(admit(151), None);

        let other = counters.rate_limit(2).admit(151, Duration::from_nanos(100));
        assert_eq!(other, Some(0));
    }

    #[test]
    fn tallies_do_not_share_a_cache_line() {
        assert!(size_of::<CachePadded<Tally>>() >= 64);
    }
}
