//! The queue M/D/1: Poisson arrivals, one server, a constant service time. A server whose capacity is known.

/// Probability that a request waits at most `wait`, in service times, at a share `load` of the server's time.
///
/// Source: Erlang's formula, as in Iversen and Staalhagen, "Waiting time distribution in M/D/1 queueing systems",
/// *Electronics Letters* 35 (1999). Its terms cancel, so that it holds for waits of up to some 25 service times.
#[must_use]
pub fn waits_at_most(load: f64, wait: f64) -> f64 {
    if wait < 0.0 {
        return 0.0;
    }
    let (mut sum, mut terms) = (0.0, 0.0);
    while terms <= wait {
        let x = load * (terms - wait);
        // x^n / n!, of a negative x.
        let mut power = 1.0;
        let mut factor = 1.0;
        while factor <= terms {
            power *= x / factor;
            factor += 1.0;
        }
        sum += power * (-x).exp();
        terms += 1.0;
    }
    ((1.0 - load) * sum).clamp(0.0, 1.0)
}

/// Highest rate, per unit of time, at which a share `quantile` of the requests is answered within `limit` of their
/// arrival; 0 if the service alone takes longer.
#[must_use]
pub fn capacity(service: f64, limit: f64, quantile: f64) -> f64 {
    let wait = (limit - service) / service;
    if wait < 0.0 {
        return 0.0;
    }
    let (mut kept, mut missed) = (0.0, 1.0);
    for _ in 0..60 {
        let load = f64::midpoint(kept, missed);
        if waits_at_most(load, wait) >= quantile {
            kept = load;
        } else {
            missed = load;
        }
    }
    kept / service
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean is that of Pollaczek and Khinchine: half of load / (1 - load) service times.
    #[test]
    fn the_distribution_has_the_mean_that_theory_gives() {
        for load in [0.1, 0.3, 0.5, 0.7, 0.8] {
            let step = 0.002;
            let waits = (0..12_500).map(|n| (f64::from(n) + 0.5) * step);
            let mean: f64 = waits
                .map(|wait| (1.0 - waits_at_most(load, wait)) * step)
                .sum();
            let expected = load / (2.0 * (1.0 - load));
            assert!(
                (mean - expected).abs() < 0.01 * expected,
                "{load}: {mean}, {expected}"
            );
        }
        // Nobody waits with the probability that the server is idle.
        assert!((waits_at_most(0.3, 0.0) - 0.7).abs() < 1e-12);
    }

    #[test]
    fn the_capacity_is_the_rate_at_which_the_quantile_is_the_limit() {
        for limit in [2.0, 5.0, 10.0, 20.0] {
            let load = capacity(1.0, limit, 0.99);
            assert!(
                (waits_at_most(load, limit - 1.0) - 0.99).abs() < 1e-6,
                "{limit}"
            );
            assert!((0.0..1.0).contains(&load));
        }
        assert_eq!(capacity(2.0, 1.0, 0.99).to_bits(), 0.0_f64.to_bits());
    }
}
