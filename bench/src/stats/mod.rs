//! Judges paired measurements: medians, exact sign-test intervals, the correction over a table of
//! comparisons, and the sample sizes that percentiles need.
//!
//! Everything here is exact at small sample sizes and free of assumptions about the shape of the
//! distribution. The values given to it must be independent of each other: one value per block,
//! never one per slice or per request.

use serde::{Deserialize, Serialize};

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

/// The median; the mean of the two middle values when their number is even.
///
/// `None` for no values, and when one of them is not a number.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values)?;
    let upper = sorted[sorted.len() / 2];
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The exact confidence interval of the median that inverts the sign test.
///
/// It runs from the k-th smallest to the k-th largest value, with the largest `k` (so the
/// narrowest interval) whose exact binomial coverage reaches `confidence`. `None` when even the
/// smallest and the largest value do not reach it (95 % needs six values), and when a value is not
/// a number. Source: Conover, *Practical Nonparametric Statistics*, 3rd ed., section 3.2.
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
    let (below, _, above) = signs(values, null);
    two_sided(below + above, below.min(above))
}

/// What Holm's procedure says about one hypothesis of a family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HolmDecision {
    /// Whether the hypothesis is rejected, at the error rate of the family.
    pub rejected: bool,
    /// One minus the share of the error rate at this hypothesis's own step.
    pub level: f64,
}

/// Holm's step-down procedure: at most `alpha` is the probability that any true hypothesis of the
/// family is rejected, however the tests depend on each other.
///
/// The k-th smallest of m p-values is compared with `alpha / (m - k + 1)`, until one is larger.
/// Equal p-values share the strictest step among them, and everything after the first hypothesis
/// that is not rejected shares that one's step. So a test at the `level` of its decision agrees
/// with the decision. The levels belong to single decisions: intervals at these levels do not
/// cover simultaneously. Source: Holm, "A simple sequentially rejective multiple test procedure",
/// *Scandinavian Journal of Statistics* 6 (1979).
#[must_use]
pub fn holm(p: &[f64], alpha: f64) -> Vec<HolmDecision> {
    holm_shares(p, alpha)
        .into_iter()
        .zip(p)
        .map(|(share, &p)| HolmDecision {
            rejected: p <= share,
            level: 1.0 - share,
        })
        .collect()
}

/// What a comparison of one arm with the reference arm came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioVerdict {
    /// The arm's value is higher than the reference's.
    Higher,
    /// The arm's value is lower than the reference's.
    Lower,
    /// No difference resolved: the interval covers a ratio of 1.
    Unresolved,
    /// No difference resolved, and none could have been: too few blocks for an interval.
    TooFewBlocks,
}

/// One comparison of a family, judged together with the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The median over blocks of the ratio to the reference; `None` without blocks.
    pub ratio: Option<f64>,
    /// The lower end of the ratio's interval; `None` with too few blocks for `level`.
    pub low: Option<f64>,
    /// The upper end of the ratio's interval; `None` with too few blocks for `level`.
    pub high: Option<f64>,
    /// The confidence that Holm's procedure asks of the interval.
    pub level: f64,
    /// The two-sided p-value of "the ratio is 1", before the correction.
    pub p: f64,
    /// The number of blocks.
    pub blocks: usize,
    /// The judgement, at the error rate of the whole family.
    pub verdict: RatioVerdict,
}

/// Judges a family of comparisons: for each, one natural logarithm of the ratio per block.
///
/// Sign tests corrected by [`holm`]; with probability of at least `1 - alpha` no comparison of
/// equals gets the verdict `Higher` or `Lower`. The interval excludes 1 exactly when the verdict
/// is one of these. For that, a block with a ratio of exactly 1 counts against a difference, in
/// the test as in the interval; [`sign_test`] would drop it, which claims more. A value that is
/// not a number makes its comparison one without blocks.
#[must_use]
pub fn compare_family(log_ratios: &[Vec<f64>], alpha: f64) -> Vec<Comparison> {
    let families: Vec<Vec<f64>> = log_ratios
        .iter()
        .map(|values| sorted(values).unwrap_or_default())
        .collect();
    let p: Vec<f64> = families
        .iter()
        .map(|values| {
            let (below, equal, above) = signs(values, 0.0);
            two_sided(values.len(), below.min(above) + equal)
        })
        .collect();
    let shares = holm_shares(&p, alpha);
    families
        .iter()
        .zip(p)
        .zip(shares)
        .map(|((values, p), share)| {
            let interval = interval_at(values, share);
            let verdict = match interval {
                None => RatioVerdict::TooFewBlocks,
                Some(interval) if interval.low > 0.0 => RatioVerdict::Higher,
                Some(interval) if interval.high < 0.0 => RatioVerdict::Lower,
                Some(_) => RatioVerdict::Unresolved,
            };
            Comparison {
                ratio: median(values).map(f64::exp),
                low: interval.map(|interval| interval.low.exp()),
                high: interval.map(|interval| interval.high.exp()),
                level: 1.0 - share,
                p,
                blocks: values.len(),
                verdict,
            }
        })
        .collect()
}

/// What a one-sided test of one hypothesis of a family came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneSided {
    /// The p-value of "the median is not above 0", before the correction.
    pub p: f64,
    /// What the median is above of, by the test at its step of Holm's procedure; `None` with too few
    /// values. Above 0 exactly when the hypothesis is rejected.
    pub low: Option<f64>,
}

/// Exact one-sided sign tests of "the median is not above 0", corrected by [`holm`]: with a
/// probability of at least `1 - alpha` no `low` of a true hypothesis is above 0.
///
/// A value of exactly 0 counts for the hypothesis, and a value that is not a number makes its
/// sample one without values.
#[must_use]
pub fn rises_in_family(samples: &[Vec<f64>], alpha: f64) -> Vec<OneSided> {
    let samples: Vec<Vec<f64>> = samples
        .iter()
        .map(|values| sorted(values).unwrap_or_default())
        .collect();
    let p: Vec<f64> = samples
        .iter()
        .map(|values| {
            let (_, _, above) = signs(values, 0.0);
            one_sided(values.len(), values.len() - above)
        })
        .collect();
    let shares = holm_shares(&p, alpha);
    let tests = samples.iter().zip(p).zip(shares);
    tests
        .map(|((values, p), share)| OneSided {
            p,
            low: rank_within(values.len(), share).map(|rank| values[rank]),
        })
        .collect()
}

/// The exact upper bound of the median by the sign test: with a probability of at least
/// `confidence` the median is not above it. `None` with too few values, or when one is not a number.
#[must_use]
pub fn upper_bound(values: &[f64], confidence: f64) -> Option<f64> {
    let sorted = sorted(values)?;
    let rank = rank_within(sorted.len(), 1.0 - confidence)?;
    Some(sorted[sorted.len() - 1 - rank])
}

/// The exact two-sided interval of a probability of which `successes` were seen in `trials`, each
/// side at half of `1 - confidence`. Source: Clopper and Pearson, "The use of confidence or
/// fiducial limits illustrated in the case of the binomial", *Biometrika* 26 (1934). Panics
/// unless there are trials, and at least as many as successes.
#[must_use]
pub fn proportion_interval(successes: u64, trials: u64, confidence: f64) -> (f64, f64) {
    assert!(
        0 < trials && successes <= trials,
        "{successes} of {trials} trials"
    );
    let side = (1.0 - confidence) / 2.0;
    // The largest probability with which so few successes are not too unlikely.
    let highest = |successes: u64| {
        if successes == trials {
            return 1.0;
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if Binomial::new(trials, middle).lower_tail(successes) > side {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    };
    (1.0 - highest(trials - successes), highest(successes))
}

/// The least number of blocks with which every comparison of a family of this size has an
/// interval in [`compare_family`], whatever the other comparisons come to. Panics unless
/// `alpha` is positive.
#[must_use]
pub fn blocks_needed(comparisons: usize, alpha: f64) -> usize {
    assert!(alpha > 0.0, "an error rate is positive: {alpha}");
    let share = alpha / comparisons.max(1) as f64;
    let mut blocks = 1;
    while two_sided(blocks, 0) > share {
        blocks += 1;
    }
    blocks
}

/// A straight line through points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Growth in y for each unit of x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
    /// The share of the variance of y that the line explains, from 0 to 1.
    pub r_squared: f64,
}

/// The line of least squares through `(x, y)`; `None` with fewer than two different x.
#[must_use]
pub fn fit_line(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let xx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let yy: f64 = points.iter().map(|(_, y)| (y - mean_y).powi(2)).sum();
    let xy: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    if xx <= 0.0 || !xx.is_finite() {
        return None;
    }
    let slope = xy / xx;
    let r_squared = if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 };
    Some(Line {
        slope,
        intercept: mean_y - slope * mean_x,
        r_squared,
    })
}

/// The order-statistic interval of a percentile, as ranks: with a probability of at least
/// `confidence` the quantile `q` lies between the samples of these two ranks, counted from 1 in
/// ascending order, out of `n` independent samples.
///
/// Each side errs with a probability of at most half of `1 - confidence`. `None` when `n` is too
/// small for one of the sides. Exact up to rounding; its time and memory grow with the square root of
/// `n`. Source: David and Nagaraja, *Order Statistics*, 3rd ed., section 7.1. Panics unless
/// `0 < q < 1`.
#[must_use]
pub fn percentile_interval(n: u64, q: f64, confidence: f64) -> Option<(u64, u64)> {
    assert!(0.0 < q && q < 1.0, "a quantile lies between 0 and 1: {q}");
    let side = (1.0 - confidence) / 2.0;
    let below = Binomial::new(n, q);
    // The quantile lies below rank l with P(B <= l - 1): the largest rank that keeps it small.
    let low = below.ranks_within_lower_tail(side);
    // The quantile lies above rank u with P(B >= u): the same, seen from the other end.
    let high = (n + 1).checked_sub(below.mirrored().ranks_within_lower_tail(side))?;
    (1 <= low && high <= n).then_some((low, high))
}

/// The values in ascending order; `None` without values or when one is not a number.
fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(sorted)
}

/// How many values lie below, at and above `null`.
fn signs(values: &[f64], null: f64) -> (usize, usize, usize) {
    let below = values.iter().filter(|&&value| value < null).count();
    let above = values.iter().filter(|&&value| value > null).count();
    (below, values.len() - below - above, above)
}

/// The probability that `n` fair coins fall on their rarer side at most `rarer` times.
fn two_sided(n: usize, rarer: usize) -> f64 {
    (2.0 * one_sided(n, rarer)).min(1.0)
}

/// The probability that `n` fair coins fall on one given side at most `times` times.
fn one_sided(n: usize, times: usize) -> f64 {
    Binomial::new(n as u64, 0.5).lower_tail(times as u64)
}

/// The largest rank, from 0, of `n` ascending values below which the median lies with a probability
/// of at most `alpha`.
fn rank_within(n: usize, alpha: f64) -> Option<usize> {
    (0..n)
        .take_while(|&rank| one_sided(n, rank) <= alpha)
        .last()
}

/// The sign interval that misses with a probability of at most `alpha`; shares its arithmetic
/// with [`two_sided`], so that interval and test agree to the last bit.
fn interval_at(sorted: &[f64], alpha: f64) -> Option<Interval> {
    let outside = (0..sorted.len().div_ceil(2))
        .take_while(|&outside| two_sided(sorted.len(), outside) <= alpha)
        .last()?;
    Some(Interval {
        low: sorted[outside],
        high: sorted[sorted.len() - 1 - outside],
        level: 1.0 - two_sided(sorted.len(), outside),
    })
}

/// The share of `alpha` against which Holm's procedure holds each p-value; see [`holm`].
fn holm_shares(p: &[f64], alpha: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut shares = vec![alpha; p.len()];
    let mut share = alpha;
    let mut previous = None;
    for (step, &index) in order.iter().enumerate() {
        let stopped = previous.is_some_and(|previous: f64| previous > share);
        if !stopped && previous != Some(p[index]) {
            share = alpha / (p.len() - step) as f64;
        }
        shares[index] = share;
        previous = Some(p[index]);
    }
    shares
}

/// A binomial distribution, as far as its weights are above 10^-300 of the largest.
struct Binomial {
    n: u64,
    /// The count to which the first weight belongs.
    first: u64,
    /// In proportion to the probabilities of `first`, `first + 1`, …
    weights: Vec<f64>,
    /// The sum of all weights.
    total: f64,
}

impl Binomial {
    /// `n` trials of probability `q`. The ratios of neighbouring probabilities lead from the mode
    /// to both ends; dividing by the sum replaces the factorials.
    fn new(n: u64, q: f64) -> Self {
        const NEGLIGIBLE: f64 = 1e-300;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and n"
        )]
        let mode = (((n + 1) as f64 * q) as u64).min(n);
        let odds = q / (1.0 - q);
        let mut weights = Vec::new();
        let mut first = mode;
        let mut weight = 1.0;
        while first > 0 && weight > NEGLIGIBLE {
            weight *= first as f64 / ((n - first + 1) as f64 * odds);
            weights.push(weight);
            first -= 1;
        }
        weights.reverse();
        let mut last = mode;
        weight = 1.0;
        weights.push(weight);
        while last < n && weight > NEGLIGIBLE {
            weight *= (n - last) as f64 * odds / (last + 1) as f64;
            weights.push(weight);
            last += 1;
        }
        let total = weights.iter().sum();
        Self {
            n,
            first,
            weights,
            total,
        }
    }

    /// The distribution of the failures.
    fn mirrored(mut self) -> Self {
        self.first = self.n + 1 - self.first - self.weights.len() as u64;
        self.weights.reverse();
        self
    }

    /// The probability of at most `count`.
    fn lower_tail(&self, count: u64) -> f64 {
        let Some(terms) = (count + 1).checked_sub(self.first) else {
            return 0.0;
        };
        let terms = usize::try_from(terms).unwrap_or(usize::MAX);
        self.weights.iter().take(terms).sum::<f64>() / self.total
    }

    /// The largest rank `r` for which at most `r - 1` has a probability of at most `side`.
    fn ranks_within_lower_tail(&self, side: f64) -> u64 {
        let mut sum = 0.0;
        let within = self.weights.iter().take_while(|&&weight| {
            sum += weight;
            sum / self.total <= side
        });
        self.first + within.count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9
    }

    /// Standard normal, or heavy-tailed as a ratio of two (Cauchy): Box and Muller's method.
    fn normal(rng: &mut fastrand::Rng) -> f64 {
        (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
    }

    fn cauchy(rng: &mut fastrand::Rng) -> f64 {
        normal(rng) / normal(rng)
    }

    fn ascending(n: u32) -> Vec<f64> {
        (1..=n).map(f64::from).collect()
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[1.0, f64::NAN]), None);
    }

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

    /// Four hypotheses with p = 0.01, 0.04, 0.03, 0.005: the first and the last are rejected.
    #[test]
    fn holm_rejects_what_the_textbook_rejects() {
        let decisions = holm(&[0.01, 0.04, 0.03, 0.005], 0.05);
        let rejected: Vec<bool> = decisions.iter().map(|d| d.rejected).collect();
        assert_eq!(rejected, [true, false, false, true]);
        for (decision, divisor) in decisions.iter().zip([3.0, 2.0, 2.0, 4.0]) {
            assert!(close(decision.level, 1.0 - 0.05 / divisor), "{decision:?}");
        }
        assert!(holm(&[], 0.05).is_empty());
    }

    #[test]
    fn equal_p_values_share_the_strictest_step() {
        let decisions = holm(&[0.012, 0.012, 0.012, 0.9], 0.05);
        assert!(decisions[..3].iter().all(|d| d.rejected));
        assert!(
            decisions[..3]
                .iter()
                .all(|d| close(d.level, 1.0 - 0.05 / 4.0))
        );
        assert!(!decisions[3].rejected);
        assert!(close(decisions[3].level, 0.95));
        // At the first step all three fail, though the third alone would pass at its own.
        let decisions = holm(&[0.02, 0.02, 0.02], 0.05);
        assert!(decisions.iter().all(|d| !d.rejected));
        assert!(decisions.iter().all(|d| close(d.level, 1.0 - 0.05 / 3.0)));
    }

    #[test]
    fn verdicts_intervals_and_holm_agree() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..3_000 {
            let family: Vec<Vec<f64>> = (0..rng.usize(1..7))
                .map(|_| {
                    let shift = f64::from(rng.i32(-2..=2)) / 2.0;
                    let coarse = rng.bool();
                    let draw = |rng: &mut fastrand::Rng| match normal(rng) + shift {
                        value if coarse => value.round(),
                        value => value,
                    };
                    (0..rng.usize(0..25)).map(|_| draw(&mut rng)).collect()
                })
                .collect();
            let comparisons = compare_family(&family, 0.05);
            let p: Vec<f64> = comparisons.iter().map(|c| c.p).collect();
            for ((comparison, decision), values) in
                comparisons.iter().zip(holm(&p, 0.05)).zip(&family)
            {
                let resolved = matches!(
                    comparison.verdict,
                    RatioVerdict::Higher | RatioVerdict::Lower
                );
                assert_eq!(resolved, decision.rejected, "{comparison:?}");
                let excludes = comparison.low.is_some_and(|low| low > 1.0)
                    || comparison.high.is_some_and(|high| high < 1.0);
                assert_eq!(excludes, decision.rejected, "{comparison:?}");
                assert!(close(comparison.level, decision.level));
                assert_eq!(comparison.blocks, values.len());
                assert!(sign_test(values, 0.0) <= comparison.p, "{comparison:?}");
                if let (Some(low), Some(ratio), Some(high)) =
                    (comparison.low, comparison.ratio, comparison.high)
                {
                    assert!(low <= ratio && ratio <= high);
                }
            }
        }
    }

    #[test]
    fn verdicts_name_the_direction_and_the_lack_of_blocks() {
        let up: Vec<f64> = (1..=10).map(|i| f64::from(i) / 10.0).collect();
        let down: Vec<f64> = up.iter().map(|value| -value).collect();
        let verdicts = |family: &[Vec<f64>]| -> Vec<RatioVerdict> {
            let comparisons = compare_family(family, 0.05);
            comparisons.iter().map(|c| c.verdict).collect()
        };
        assert_eq!(
            verdicts(&[up.clone(), down, vec![0.0; 10], up[..5].to_vec()]),
            [
                RatioVerdict::Higher,
                RatioVerdict::Lower,
                RatioVerdict::Unresolved,
                RatioVerdict::TooFewBlocks
            ]
        );
        let empty = compare_family(&[vec![]], 0.05)[0];
        assert_eq!((empty.ratio, empty.low, empty.blocks), (None, None, 0));
        assert_eq!(empty.verdict, RatioVerdict::TooFewBlocks);
    }

    #[test]
    fn the_needed_blocks_are_the_fewest_that_have_an_interval() {
        assert_eq!(blocks_needed(1, 0.05), 6);
        for comparisons in 1..40 {
            let blocks = blocks_needed(comparisons, 0.05);
            let resolved = |blocks| {
                compare_family(&vec![vec![0.0; blocks]; comparisons], 0.05)[0].verdict
                    == RatioVerdict::Unresolved
            };
            assert!(resolved(blocks) && !resolved(blocks - 1));
        }
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
    fn a_family_of_equals_raises_few_false_alarms() {
        let mut rng = fastrand::Rng::with_seed(2);
        let trials = 4_000;
        let alarms = (0..trials)
            .filter(|_| {
                // Five arms against one reference, whose noise all five ratios share.
                let reference: Vec<f64> = (0..12).map(|_| cauchy(&mut rng)).collect();
                let family: Vec<Vec<f64>> = (0..5)
                    .map(|_| reference.iter().map(|r| cauchy(&mut rng) - r).collect())
                    .collect();
                compare_family(&family, 0.05)
                    .iter()
                    .any(|c| c.verdict != RatioVerdict::Unresolved)
            })
            .count();
        assert!(alarms as f64 / f64::from(trials) <= 0.06, "{alarms}");
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
    fn a_line_is_found_again() {
        let points = [1.0, 2.0, 5.0, 9.0].map(|x| (x, 3.0 * x + 7.0));
        let line = fit_line(&points).unwrap();
        assert!((line.slope - 3.0).abs() < 1e-12 && (line.intercept - 7.0).abs() < 1e-12);
        assert!((line.r_squared - 1.0).abs() < 1e-12);
        let scattered = fit_line(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]).unwrap();
        assert!(scattered.slope.abs() < 1e-12 && scattered.r_squared < 1e-12);
        assert_eq!(fit_line(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(fit_line(&[]), None);
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

    #[test]
    fn binomial_tails_agree_with_whole_numbers() {
        for n in 0..=60_u32 {
            let mut choose = 1_u128;
            let mut sum = 0_u128;
            for k in 0..=n {
                sum += choose;
                choose = choose * u128::from(n - k) / u128::from(k + 1);
                let exact = sum as f64 / 2.0_f64.powi(n.cast_signed());
                let tail = Binomial::new(n.into(), 0.5).lower_tail(k.into());
                assert!((tail / exact - 1.0).abs() < 1e-12, "{n} {k}");
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

    #[test]
    fn a_rise_is_above_0_exactly_when_its_test_says_so() {
        let mut rng = fastrand::Rng::with_seed(12);
        for _ in 0..500 {
            let shift = rng.f64();
            let samples: Vec<Vec<f64>> = (0..4)
                .map(|_| (0..16).map(|_| normal(&mut rng) + shift).collect())
                .collect();
            let rises = rises_in_family(&samples, 0.05);
            let p: Vec<f64> = rises.iter().map(|rise| rise.p).collect();
            let decisions = holm(&p, 0.05);
            for (rise, decision) in rises.iter().zip(decisions) {
                assert_eq!(rise.low > Some(0.0), decision.rejected, "{rise:?}");
            }
        }
        // One of ten below: P(at most 1 of 10) = 11/1024.
        let mut values = vec![1.0; 9];
        values.push(-1.0);
        let rise = rises_in_family(&[values], 0.05)[0];
        assert!(close(rise.p, 11.0 / 1024.0));
        assert_eq!(rise.low, Some(1.0));
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
