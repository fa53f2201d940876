//! Lengths of slices, ramps and gaps that a traffic needs.

use std::time::Duration;

use echobench_clients::WorkMix;

use super::{OPEN_LOOP_GAP, Scenario, Span};

/// Shortest slice of an open loop.
const OPEN_LOOP_SLICE: Duration = Duration::from_millis(100);
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
    /// The rate of an open loop, and the requests that carry its percentiles in a block.
    wanted: Option<(f64, f64)>,
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
        Timing {
            slice: Span((2 * cycle).max(least(OPEN_LOOP_SLICE))),
            ramp: Span(cycle),
            gap: Span(reply.max(least(OPEN_LOOP_GAP))),
            wanted: traffic.arrivals.map(|arrivals| {
                let percentile = scenario.slo.unwrap_or_default().percentile;
                let requests = f64::from(percentile.least_requests());
                (arrivals.per_second, requests)
            }),
        }
    }

    /// Length of a slice in which the requests of a block carry the percentiles of an open loop.
    pub(super) fn requests_per_slice(&self, rounds: usize) -> Span {
        let Some((per_second, requests)) = self.wanted else {
            return Span::default();
        };
        // A Poisson process has fewer requests than planned in half of the blocks.
        let margin = 4.0 * requests.sqrt();
        let seconds = (requests + margin) / per_second / rounds.max(1) as f64;
        let slice = Duration::from_secs_f64(seconds.min(LONGEST_SLICE.as_secs_f64()));
        let part_of_ms = u64::from(slice.subsec_nanos() % 1_000_000);
        Span(slice + Duration::from_nanos((1_000_000 - part_of_ms) % 1_000_000))
    }
}
