//! Sign tests, and the exact intervals of a median that invert them.

use serde::{Deserialize, Serialize};

use super::binomial::fair_coins_at_most;
use super::sorted;

/// A two-sided interval between two order statistics, in the unit of the values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The exact probability that such an interval covers the true median; at least the
    /// confidence that was asked for.
    pub level: f64,
}

/// The exact confidence interval of the median that inverts the sign test.
///
/// It runs from the k-th smallest to the k-th largest value, with the largest `k` (so the
/// narrowest interval) whose exact binomial coverage reaches `confidence`. `None` when even the
/// smallest and the largest value do not reach it (95 % needs six values), and when a value is not
/// a number. Source: Conover, *Practical Nonparametric Statistics*, 3rd ed., section 3.2.
///
/// ```
/// use echobench::stats::sign_interval;
///
/// let ratios = [1.31, 1.24, 1.28, 1.30, 1.27, 1.33, 1.25, 1.29, 1.26];
/// let interval = sign_interval(&ratios, 0.95).unwrap();
/// assert_eq!((interval.low, interval.high), (1.25, 1.31));
/// assert_eq!(interval.level, 1.0 - 2.0 * 10.0 / 512.0);
///
/// assert_eq!(sign_interval(&ratios[..5], 0.95), None);
/// ```
#[must_use]
pub fn sign_interval(values: &[f64], confidence: f64) -> Option<Interval> {
    interval_at(&sorted(values)?, 1.0 - confidence)
}

/// The two-sided p-value of the exact sign test of "the median is `null`".
///
/// Values equal to `null` are dropped; with none left the p-value is 1. Source: Conover,
/// *Practical Nonparametric Statistics*, 3rd ed., section 3.4.
#[must_use]
pub fn sign_test(values: &[f64], null: f64) -> f64 {
    let signs = Signs::around(values, null);
    two_sided(signs.below + signs.above, signs.below.min(signs.above))
}

/// The exact upper bound of the median by the sign test: with a probability of at least
/// `confidence` the median is not above it. `None` with too few values, or when one is not a number.
#[must_use]
pub fn upper_bound(values: &[f64], confidence: f64) -> Option<f64> {
    let sorted = sorted(values)?;
    let rank = rank_within(sorted.len(), 1.0 - confidence)?;
    Some(sorted[sorted.len() - 1 - rank])
}

/// Numbers of values on each side of a null hypothesis.
#[derive(Clone, Copy)]
pub(super) struct Signs {
    pub(super) below: usize,
    pub(super) equal: usize,
    pub(super) above: usize,
}

impl Signs {
    pub(super) fn around(values: &[f64], null: f64) -> Self {
        let below = values.iter().filter(|&&value| value < null).count();
        let above = values.iter().filter(|&&value| value > null).count();
        Signs {
            below,
            equal: values.len() - below - above,
            above,
        }
    }
}

/// The probability that `n` fair coins fall on their rarer side at most `rarer` times.
pub(super) fn two_sided(n: usize, rarer: usize) -> f64 {
    (2.0 * fair_coins_at_most(n, rarer)).min(1.0)
}

/// The largest rank, from 0, of `n` ascending values below which the median lies with a probability
/// of at most `alpha`.
pub(super) fn rank_within(n: usize, alpha: f64) -> Option<usize> {
    (0..n)
        .take_while(|&rank| fair_coins_at_most(n, rank) <= alpha)
        .last()
}

/// The largest number of `n` values that may lie beyond each end of a sign interval that misses with a
/// probability of at most `alpha`. `None` if there are too few values.
pub(super) fn most_outside(n: usize, alpha: f64) -> Option<usize> {
    (0..n.div_ceil(2))
        .take_while(|&outside| two_sided(n, outside) <= alpha)
        .last()
}

/// The sign interval that misses with a probability of at most `alpha`; shares its arithmetic
/// with [`two_sided`], so that interval and test agree to the last bit.
pub(super) fn interval_at(sorted: &[f64], alpha: f64) -> Option<Interval> {
    let outside = most_outside(sorted.len(), alpha)?;
    Some(Interval {
        low: sorted[outside],
        high: sorted[sorted.len() - 1 - outside],
        level: 1.0 - two_sided(sorted.len(), outside),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{ascending, cauchy, close, normal};
    use super::*;

    /// n, lower rank, upper rank, coverage in percent, as tabulated for the 95 % interval.
    #[test]
    fn sign_intervals_match_the_published_table() {
        for (n, low, high, percent) in [
            (6, 1, 6, 96.88),
            (7, 1, 7, 98.44),
            (8, 1, 8, 99.22),
            (9, 2, 8, 96.09),
            (10, 2, 9, 97.85),
            (11, 2, 10, 98.83),
            (12, 3, 10, 96.14),
            (13, 3, 11, 97.75),
            (14, 3, 12, 98.71),
            (15, 4, 12, 96.48),
            (16, 4, 13, 97.87),
            (17, 5, 13, 95.10),
            (18, 5, 14, 96.91),
            (19, 5, 15, 98.08),
            (20, 6, 15, 95.86),
            (25, 8, 18, 95.67),
            (30, 10, 21, 95.72),
        ] {
            let interval = sign_interval(&ascending(n), 0.95).expect("six or more values");
            assert!(close(interval.low, f64::from(low)), "n = {n}: {interval:?}");
            assert!(
                close(interval.high, f64::from(high)),
                "n = {n}: {interval:?}"
            );
            let rounded = (interval.level * 1e4).round() / 1e2;
            assert!(close(rounded, percent), "n = {n}: {interval:?}");
        }
    }

    #[test]
    fn too_few_values_have_no_interval() {
        for n in 0..6 {
            assert_eq!(sign_interval(&ascending(n), 0.95), None);
        }
        assert_eq!(sign_interval(&ascending(7), 0.99), None);
        assert!(sign_interval(&ascending(8), 0.99).is_some());
        assert_eq!(sign_interval(&[f64::NAN; 10], 0.95), None);
    }

    /// The largest count of the rarer sign that is significant at 5 % and at 1 %, two-sided.
    #[test]
    fn the_sign_test_matches_the_published_critical_values() {
        for (n, five, one) in [
            (6, 0, None),
            (8, 0, Some(0)),
            (9, 1, Some(0)),
            (10, 1, Some(0)),
            (12, 2, Some(1)),
            (15, 3, Some(2)),
            (20, 5, Some(3)),
            (25, 7, Some(5)),
            (30, 9, Some(7)),
        ] {
            let critical = |alpha: f64| (0..=n).take_while(|&k| two_sided(n, k) <= alpha).last();
            assert_eq!(critical(0.05), Some(five), "n = {n}");
            assert_eq!(critical(0.01), one, "n = {n}");
        }
    }

    #[test]
    fn the_sign_test_drops_ties_and_has_two_sides() {
        let values = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        assert!(close(sign_test(&values, 0.0), 0.03125));
        assert!(close(sign_test(&values.map(|value| -value), 0.0), 0.03125));
        assert!(close(sign_test(&[1.0, -1.0], 0.0), 1.0));
        assert!(close(sign_test(&[0.0, 0.0], 0.0), 1.0));
        assert!(close(sign_test(&[], 0.0), 1.0));
    }

    #[test]
    fn intervals_cover_as_often_as_they_say() {
        let mut rng = fastrand::Rng::with_seed(1);
        for draw in [normal as fn(&mut fastrand::Rng) -> f64, cauchy] {
            for n in [6, 10, 17, 20, 30] {
                let trials = 4_000;
                let mut level = 0.0;
                let covered = (0..trials)
                    .filter(|_| {
                        let values: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
                        let interval = sign_interval(&values, 0.95).expect("enough values");
                        level = interval.level;
                        interval.low <= 0.0 && 0.0 <= interval.high
                    })
                    .count();
                let coverage = covered as f64 / f64::from(trials);
                // Four standard errors.
                assert!((coverage - level).abs() < 0.014, "{n}: {coverage} {level}");
                assert!((0.93..0.99).contains(&coverage), "{n}: {coverage}");
            }
        }
    }

    #[test]
    fn an_upper_bound_is_below_the_median_no_more_often_than_promised() {
        let mut rng = fastrand::Rng::with_seed(13);
        let wrong = (0..4_000)
            .filter(|_| {
                let values: Vec<f64> = (0..21).map(|_| cauchy(&mut rng)).collect();
                upper_bound(&values, 0.95).is_some_and(|bound| bound < 0.0)
            })
            .count();
        assert!((60..=200).contains(&wrong), "{wrong}");
        assert_eq!(upper_bound(&ascending(4), 0.95), None);
        assert_eq!(upper_bound(&ascending(5), 0.95), Some(5.0));
    }
}
