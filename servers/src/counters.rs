//! What a server counts: cheap enough for the hot path, and shared with forked children.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Connections are spread over so many cells, so that they seldom count in the same cache line.
const CELLS: usize = 64;

/// What is counted while a connection is served, possibly by another process.
#[derive(Debug)]
pub(crate) struct Cell {
    requests: AtomicU64,
    errors: AtomicU64,
    timed_out: AtomicU64,
}

impl Cell {
    /// So many requests were answered.
    pub(crate) fn answered(&self, requests: u32) {
        self.requests.fetch_add(u64::from(requests), Relaxed);
    }

    /// A connection went wrong: reset, cut short, or the client broke the protocol.
    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// A connection was cut off because its client kept the server waiting.
    pub(crate) fn timed_out(&self) {
        self.timed_out.fetch_add(1, Relaxed);
    }
}

/// How often something was to be said on standard error.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// When it was said last, in nanoseconds of the monotonic clock; 0: never.
    said_ns: AtomicU64,
    unsaid: AtomicU64,
}

impl Complaint {
    /// Counts it, and decides at `now_ns` whether to say it: if so, how often it was not said before.
    pub(crate) fn rises(&self, now_ns: u64, quiet: Duration) -> Option<u64> {
        let said_ns = self.said_ns.load(Relaxed);
        let is_due = said_ns == 0 || u128::from(now_ns - said_ns.min(now_ns)) >= quiet.as_nanos();
        let claim = || {
            let mine = self
                .said_ns
                .compare_exchange(said_ns, now_ns.max(1), Relaxed, Relaxed);
            mine.is_ok()
        };
        if is_due && claim() {
            return Some(self.unsaid.swap(0, Relaxed));
        }
        self.unsaid.fetch_add(1, Relaxed);
        None
    }
}

/// Kinds of complaints.
const COMPLAINTS: usize = 4;

/// What forked children share with their parent.
#[derive(Debug)]
struct Shared {
    cells: [CachePadded<Cell>; CELLS],
    complaints: [Complaint; COMPLAINTS],
}

/// The counters of a server.
#[derive(Debug)]
pub(crate) struct Counters {
    shared: &'static Shared,
    accepted: AtomicU64,
    active: AtomicU64,
    waiting: AtomicU64,
    reaped: AtomicU64,
    refused: AtomicU64,
    exhausted: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Counters {
            shared: shared()?,
            accepted: AtomicU64::new(0),
            active: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            reaped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            exhausted: AtomicU64::new(0),
        })
    }

    /// The cell of connection `number`.
    pub(crate) fn cell(&self, number: u64) -> &'static Cell {
        &self.shared.cells[usize::try_from(number).unwrap_or(0) % CELLS]
    }

    /// The complaints of this kind.
    pub(crate) fn complaint(&self, kind: usize) -> &'static Complaint {
        &self.shared.complaints[kind]
    }

    /// A connection was accepted and waits to be served. Returns its number.
    pub(crate) fn accept(&self) -> u64 {
        self.waiting.fetch_add(1, Relaxed);
        self.accepted.fetch_add(1, Relaxed)
    }

    /// A waiting connection is now served. At no moment is it in neither number, so that a drain
    /// cannot overlook it.
    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Relaxed);
        self.waiting.fetch_sub(1, Release);
    }

    /// A connection that was served is closed.
    pub(crate) fn end(&self) {
        self.active.fetch_sub(1, Release);
    }

    /// A waiting connection was closed without having been served.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
        self.waiting.fetch_sub(1, Release);
    }

    /// The end of a child was collected.
    pub(crate) fn reap(&self) {
        self.reaped.fetch_add(1, Relaxed);
    }

    /// A connection could not be accepted for want of descriptors or memory.
    pub(crate) fn exhaust(&self) {
        self.exhausted.fetch_add(1, Relaxed);
    }

    /// Connections accepted and not yet closed.
    pub(crate) fn open(&self) -> u64 {
        // In this order: see `begin`.
        let waiting = self.waiting.load(Acquire);
        waiting + self.active.load(Acquire)
    }

    fn sum(&self, field: impl Fn(&Cell) -> &AtomicU64) -> u64 {
        let cells = self.shared.cells.iter();
        cells.map(|cell| field(cell).load(Relaxed)).sum()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "counters accepted={} active={} waiting={} requests={} errors={} timed_out={} \
             reaped={} refused={} exhausted={}",
            self.accepted.load(Relaxed),
            self.active.load(Relaxed),
            self.waiting.load(Relaxed),
            self.sum(|cell| &cell.requests),
            self.sum(|cell| &cell.errors),
            self.sum(|cell| &cell.timed_out),
            self.reaped.load(Relaxed),
            self.refused.load(Relaxed),
            self.exhausted.load(Relaxed),
        )
    }
}

/// Memory that forked children share with their parent. It stays for the life of the process, as the
/// one server in it does.
#[expect(unsafe_code, reason = "memory shared over fork comes from mmap only")]
fn shared() -> io::Result<&'static Shared> {
    let length = NonZeroUsize::new(size_of::<Shared>()).expect("there is at least one cell");
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
        let number = counters.accept();
        assert_eq!(counters.open(), 1);
        counters.begin();
        counters.cell(number).answered(3);
        counters.cell(number + 1).failed();
        assert_eq!(
            counters.to_string(),
            "counters accepted=1 active=1 waiting=0 requests=3 errors=1 timed_out=0 \
             reaped=0 refused=0 exhausted=0"
        );
        counters.end();
        assert_eq!(counters.open(), 0);
    }

    #[test]
    fn a_complaint_rises_once_in_a_while_and_says_how_often_it_did_not() {
        let counters = Counters::new().unwrap();
        let rises = |now_ns| {
            let complaint = counters.complaint(1);
            complaint.rises(now_ns, Duration::from_nanos(100))
        };
        assert_eq!(rises(50), Some(0));
        assert_eq!(rises(60), None);
        assert_eq!(rises(149), None);
        assert_eq!(rises(150), Some(2));
        assert_eq!(rises(151), None);
        // Of each kind for itself.
        let other = counters.complaint(2).rises(151, Duration::from_nanos(100));
        assert_eq!(other, Some(0));
    }

    #[test]
    fn cells_do_not_share_a_cache_line() {
        assert!(size_of::<CachePadded<Cell>>() >= 64);
    }
}
