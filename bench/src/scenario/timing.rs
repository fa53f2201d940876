//! Lengths of slices, ramps and gaps that a traffic needs.

use std::time::Duration;

use echobench_clients::WorkMix;

use super::{OPEN_LOOP_GAP, Percentile, Scenario, Span};

/// Shortest slice of an open loop.
const OPEN_LOOP_SLICE: Duration = Duration::from_millis(100);
/// Shortest slice and ramp of a step of a search.
const SEARCH_SLICE: Duration = Duration::from_millis(200);
const SEARCH_RAMP: Duration = Duration::from_millis(50);
/// Longest slice that is chosen to have more requests of a low rate.
const LONGEST_SLICE: Duration = Duration::from_secs(2);
/// Time after the longest work in which its reply arrives.
const REPLY: Duration = Duration::from_millis(5);
/// Time in which a server echoes a byte: each client has a request in flight at the end of a slice.
const NS_PER_BYTE: u64 = 4;

/// Lengths that a slice, a ramp and a gap should have at least.
pub(super) struct Timing {
    pub(super) slice: Span,
    pub(super) ramp: Span,
    pub(super) gap: Span,
    /// The rate of an open loop, and the percentile that its blocks have to carry.
    pub(super) rate: Option<(f64, Percentile)>,
}

impl Timing {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let traffic = &scenario.traffic;
        let longest = |times: &mut dyn Iterator<Item = Duration>| times.max().unwrap_or_default();
        let work = longest(&mut traffic.work.iter().map(WorkMix::longest));
        let spin = longest(&mut traffic.work.iter().map(WorkMix::longest_spin));
        let think = longest(&mut traffic.think.iter().map(|think| think.0));

        // Work that uses the CPU is done one request after the other.
        let loads = scenario.loads();
        let clients = loads
            .iter()
            .map(|(clients, ..)| *clients)
            .max()
            .unwrap_or(1);
        let payload = traffic.payload_bytes.iter().map(|payload| payload.0).max();
        let bytes = u64::from(payload.unwrap_or(0)) * u64::from(clients);
        let drain = spin * clients + Duration::from_nanos(bytes * NS_PER_BYTE);

        let is_instant = work.is_zero();
        let reply = if is_instant {
            drain
        } else {
            work.max(drain) + REPLY
        };
        let cycle = work + think;
        let open = scenario.is_open_loop();
        let least = |open_loop| if open { open_loop } else { Duration::ZERO };
        let (slice, ramp) = match scenario.capacity {
            // A queue near the limit takes many requests to become as long as it will be.
            Some(_) => ((20 * work).max(SEARCH_SLICE), (5 * work).max(SEARCH_RAMP)),
            None => ((2 * cycle).max(least(OPEN_LOOP_SLICE)), cycle),
        };
        Timing {
            slice: Span(slice),
            ramp: Span(ramp),
            gap: Span(reply.max(least(OPEN_LOOP_GAP))),
            rate: traffic.arrivals.map(|arrivals| {
                let percentile = scenario.slo.unwrap_or_default().percentile;
                (arrivals.per_second, percentile)
            }),
        }
    }
}

/// Length of a slice in which the requests of a block carry a percentile.
pub(super) fn requests_per_slice(per_second: f64, percentile: Percentile, rounds: usize) -> Span {
    let requests = f64::from(percentile.least_requests());
    // A Poisson process has fewer requests than planned in half of the blocks.
    let margin = 4.0 * requests.sqrt();
    let seconds = (requests + margin) / per_second / rounds.max(1) as f64;
    let slice = Duration::from_secs_f64(seconds.min(LONGEST_SLICE.as_secs_f64()));
    let part_of_ms = u64::from(slice.subsec_nanos() % 1_000_000);
    Span(slice + Duration::from_nanos((1_000_000 - part_of_ms) % 1_000_000))
}
