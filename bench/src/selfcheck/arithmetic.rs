//! Expected values: the arithmetic of delays and stalls.

/// Quantile `q` of the latency of requests that are due at even intervals, at a server that does nothing
/// for `stall_ns` in each `period_ns` and answers at once otherwise.
///
/// A request that is due `x` before the end of the stall takes `x`. So a share `stall / period` of the
/// requests has latencies spread evenly from 0 to `stall`, and the others have none.
pub(super) fn stalled_quantile(q: f64, stall_ns: f64, period_ns: f64) -> f64 {
    (stall_ns - (1.0 - q) * period_ns).max(0.0)
}

/// Number of requests that are answered after a stall before the one at quantile `q` of latency: those of
/// `requests` due at even intervals that were due earlier in the same stall.
pub(super) fn ahead_in_stall(q: f64, requests: f64, stalls: f64) -> f64 {
    (1.0 - q) * requests / stalls
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;

    #[test]
    fn stalls_show_where_they_must() {
        // A second's stop in ten seconds.
        for (q, expected) in [(0.99, 900.0), (0.999, 990.0), (0.95, 500.0), (0.5, 0.0)] {
            let value = stalled_quantile(q, 1e3 * MS, 1e4 * MS);
            assert!((value - expected * MS).abs() < 1.0, "{q}: {value}");
        }
        // A tenth of a second in each second.
        for (q, expected) in [(0.99, 90.0), (0.95, 50.0), (0.9, 0.0), (0.8, 0.0)] {
            let value = stalled_quantile(q, 100.0 * MS, 1e3 * MS);
            assert!((value - expected * MS).abs() < 1.0, "{q}: {value}");
        }
    }

    /// The formula against the stalls themselves, request by request.
    #[test]
    fn stalls_agree_with_a_simulation() {
        for (stall, total) in [(100_u32, 1000_u32), (400, 4000), (1000, 10_000), (7, 500)] {
            let mut latencies: Vec<u32> = (0..total).map(|due| stall.saturating_sub(due)).collect();
            latencies.sort_unstable();

            for q in [0.5, 0.9, 0.95, 0.99, 0.999] {
                let rank = (1..=total)
                    .find(|&rank| f64::from(rank) >= q * f64::from(total))
                    .unwrap();
                let simulated = f64::from(latencies[rank as usize - 1]);
                let formula = stalled_quantile(q, f64::from(stall), f64::from(total));
                assert!(
                    (simulated - formula).abs() <= 1.0,
                    "{q}: {simulated}, {formula}"
                );
            }
        }
    }

    #[test]
    fn those_ahead_were_due_before() {
        // p99 of 10,000 requests in one stall is the 100th, in ten stalls the 10th of each.
        assert!((ahead_in_stall(0.99, 1e4, 1.0) - 100.0).abs() < 1e-6);
        assert!((ahead_in_stall(0.99, 1e4, 10.0) - 10.0).abs() < 1e-6);
    }
}
