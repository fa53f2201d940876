//! Binomial probabilities, and the intervals of probabilities and percentiles that invert them.

use statrs::distribution::{Beta, Binomial, ContinuousCDF, DiscreteCDF};

/// The largest number of coins whose probabilities are rounded to exact ones.
const EXACT_COINS: usize = 40;

/// Probability that `n` fair coins show heads at most `heads` times.
pub(super) fn fair_coins_at_most(n: usize, heads: usize) -> f64 {
    let tail = distribution(n as u64, 0.5).cdf(heads as u64);
    if n > EXACT_COINS {
        return tail;
    }

    // The probability is a multiple of 2^-n, and the incomplete beta function is off by up to 6e-13 of it:
    // up to 40 coins, rounding restores all its digits.
    let outcomes = (1_u64 << n) as f64;
    (tail * outcomes).round() / outcomes
}

fn distribution(n: u64, probability: f64) -> Binomial {
    Binomial::new(probability, n).expect("a probability lies between 0 and 1")
}

/// The exact two-sided interval of a probability of which `successes` were seen in `trials`, each side
/// at half of `1 - confidence`.
///
/// Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
/// binomial", *Biometrika* 26 (1934). Panics unless there are trials, and at least as many as successes.
#[must_use]
pub fn proportion_interval(successes: u64, trials: u64, confidence: f64) -> (f64, f64) {
    assert!(
        0 < trials && successes <= trials,
        "{successes} of {trials} trials"
    );

    let failures = trials - successes;
    let side = (1.0 - confidence) / 2.0;
    let quantile = |a: u64, b: u64, q: f64| {
        Beta::new(a as f64, b as f64)
            .expect("both counts are positive")
            .inverse_cdf(q)
    };

    let low = match successes {
        0 => 0.0,
        _ => quantile(successes, failures + 1, side),
    };

    let high = match failures {
        0 => 1.0,
        _ => quantile(successes + 1, failures, 1.0 - side),
    };

    (low, high)
}

/// The order-statistic interval of a percentile, as ranks: with a probability of at least
/// `confidence` the quantile `q` lies between the samples of these two ranks, counted from 1 in
/// ascending order, out of `n` independent samples.
///
/// Each side errs with a probability of at most half of `1 - confidence`. `None` when `n` is too
/// small for one of the sides. Source: David and Nagaraja, *Order Statistics*, 3rd ed., section 7.1.
/// Panics unless `0 < q < 1`.
#[must_use]
pub fn percentile_interval(n: u64, q: f64, confidence: f64) -> Option<(u64, u64)> {
    assert!(0.0 < q && q < 1.0, "a quantile lies between 0 and 1: {q}");

    let side = (1.0 - confidence) / 2.0;
    // The quantile lies below rank l with P(B <= l - 1): the largest rank that keeps it small.
    let low = ranks_within_lower_tail(n, q, side);
    // The quantile lies above rank u with P(B >= u): the same, seen from the other end.
    let high = (n + 1).checked_sub(ranks_within_lower_tail(n, 1.0 - q, side))?;
    (1 <= low && high <= n).then_some((low, high))
}

/// The largest rank `r` for which at most `r - 1` of `n` trials succeed with a probability of at most
/// `side`; 0 if there is none.
fn ranks_within_lower_tail(n: u64, probability: f64, side: f64) -> u64 {
    let binomial = distribution(n, probability);
    let (mut within, mut beyond) = (0, n + 1);

    while beyond - within > 1 {
        let rank = within + (beyond - within) / 2;
        if binomial.cdf(rank - 1) <= side {
            within = rank;
        } else {
            beyond = rank;
        }
    }
    within
}

#[cfg(test)]
mod tests {
    use super::super::samples::{ascending, close};
    use super::super::sign_interval;
    use super::*;

    #[test]
    fn coins_agree_with_whole_numbers() {
        for n in 0..=60_u32 {
            let mut choose = 1_u128;
            let mut sum = 0_u128;
            for k in 0..=n {
                sum += choose;
                choose = choose * u128::from(n - k) / u128::from(k + 1);
                let exact = sum as f64 / 2.0_f64.powi(n.cast_signed());
                let tail = fair_coins_at_most(n as usize, k as usize);
                assert!((tail / exact - 1.0).abs() < 1e-12, "{n} {k}");
                if n as usize <= EXACT_COINS {
                    assert!(tail.to_bits() == exact.to_bits(), "{n} {k}: {tail} {exact}");
                }
            }
        }
    }

    #[test]
    fn a_proportion_has_the_interval_of_the_tables() {
        for (successes, trials, low, high) in [
            (0, 10, 0.0, 0.3085),
            (5, 10, 0.1871, 0.8129),
            (10, 100, 0.0490, 0.1762),
            (0, 60, 0.0, 0.0596),
            (60, 60, 0.9404, 1.0),
        ] {
            let interval = proportion_interval(successes, trials, 0.95);
            let near = |a: f64, b: f64| (a - b).abs() < 5e-5;
            assert!(
                near(interval.0, low) && near(interval.1, high),
                "{successes} of {trials}: {interval:?}"
            );
        }
    }

    /// At each end of the interval, as few or as many successes have the probability of one side.
    #[test]
    fn the_ends_of_a_proportion_invert_the_binomial() {
        let side = 0.025;
        for trials in 1..=60 {
            for successes in 0..=trials {
                let (low, high) = proportion_interval(successes, trials, 0.95);
                if successes < trials {
                    let as_few = distribution(trials, high).cdf(successes);
                    assert!((as_few - side).abs() < 1e-12, "{successes} of {trials}");
                }
                if successes > 0 {
                    let as_many = distribution(trials, low).sf(successes - 1);
                    assert!((as_many - side).abs() < 1e-12, "{successes} of {trials}");
                }
            }
        }
    }

    #[test]
    fn percentiles_need_as_many_samples_as_the_theory_says() {
        for (q, samples) in [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3_688)] {
            assert_eq!(echobench_clients::samples_needed(q), samples);
            assert!(percentile_interval(samples, q, 0.95).is_some());
            assert_eq!(percentile_interval(samples - 1, q, 0.95), None);
        }
    }

    #[test]
    fn percentile_intervals_of_the_median_are_sign_intervals() {
        assert_eq!(percentile_interval(0, 0.5, 0.95), None);
        for n in 6..200 {
            let interval = sign_interval(&ascending(n), 0.95).expect("enough values");
            let (low, high) = percentile_interval(n.into(), 0.5, 0.95).expect("enough samples");
            assert!(close(low as f64, interval.low) && close(high as f64, interval.high));
        }
    }

    #[test]
    fn percentile_intervals_cover_in_simulation() {
        let mut rng = fastrand::Rng::with_seed(3);
        for (n, q) in [(500_u64, 0.9), (2_000, 0.99)] {
            let (low, high) = percentile_interval(n, q, 0.95).expect("enough samples");
            let covered = (0..2_000)
                .filter(|_| {
                    let below = (0..n).filter(|_| rng.f64() < q).count() as u64;
                    (low..high).contains(&below)
                })
                .count();
            assert!((1_880..=1_980).contains(&covered), "{n} {q}: {covered}");
        }
    }

    #[test]
    fn a_million_samples_agree_with_the_normal_approximation() {
        for q in [0.5_f64, 0.9, 0.99, 0.999] {
            let n = 1_000_000_u64;
            let (low, high) = percentile_interval(n, q, 0.95).expect("enough samples");
            let centre = n as f64 * q;
            let reach = 1.959_964 * (n as f64 * q * (1.0 - q)).sqrt();
            assert!((low as f64 - (centre - reach)).abs() < 3.0, "{q}: {low}");
            assert!((high as f64 - (centre + reach)).abs() < 3.0, "{q}: {high}");
        }
    }
}
