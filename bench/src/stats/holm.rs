//! Families of comparisons: sign tests whose error rates hold for all of them together, after Holm.

use serde::{Deserialize, Serialize};

use super::binomial::fair_coins_at_most;
use super::sign_test::{Signs, interval_at, rank_within, two_sided};
use super::{median, sorted};

/// Decision of Holm's procedure on one hypothesis of a family.
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
///
/// ```
/// use echobench::stats::holm;
///
/// let decisions = holm(&[0.01, 0.04, 0.03, 0.005], 0.05);
/// let rejected: Vec<bool> = decisions.iter().map(|decision| decision.rejected).collect();
/// // 0.005 ≤ 0.05 / 4 and 0.01 ≤ 0.05 / 3, but 0.03 > 0.05 / 2.
/// assert_eq!(rejected, [true, false, false, true]);
/// ```
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

/// Result of comparing one arm with the reference arm.
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
/// the test as in the interval; [`sign_test`](super::sign_test()) would drop it, which claims more. A
/// value that is not a number makes its comparison one without blocks.
///
/// ```
/// use echobench::stats::{RatioVerdict, compare_family};
///
/// // Ten blocks in which an arm is 20 to 29 % faster than the reference.
/// let faster: Vec<f64> = (0..10).map(|block| f64::ln(1.20 + 0.01 * f64::from(block))).collect();
/// let comparison = compare_family(&[faster], 0.05)[0];
/// assert_eq!(comparison.verdict, RatioVerdict::Higher);
/// assert!(comparison.low.unwrap() > 1.20);
/// ```
#[must_use]
pub fn compare_family(log_ratios: &[Vec<f64>], alpha: f64) -> Vec<Comparison> {
    let families: Vec<Vec<f64>> = log_ratios
        .iter()
        .map(|values| sorted(values).unwrap_or_default())
        .collect();

    let p: Vec<f64> = families
        .iter()
        .map(|values| {
            let signs = Signs::around(values, 0.0);
            two_sided(values.len(), signs.below.min(signs.above) + signs.equal)
        })
        .collect();

    let shares = holm_shares(&p, alpha);
    families
        .iter()
        .zip(p)
        .zip(shares)
        .map(|((values, p), share)| judged(values, p, share))
        .collect()
}

/// One comparison, at its share of the error rate.
fn judged(sorted: &[f64], p: f64, share: f64) -> Comparison {
    let interval = interval_at(sorted, share);
    let verdict = match interval {
        None => RatioVerdict::TooFewBlocks,
        Some(interval) if interval.low > 0.0 => RatioVerdict::Higher,
        Some(interval) if interval.high < 0.0 => RatioVerdict::Lower,
        Some(_) => RatioVerdict::Unresolved,
    };

    Comparison {
        ratio: median(sorted).map(f64::exp),
        low: interval.map(|interval| interval.low.exp()),
        high: interval.map(|interval| interval.high.exp()),
        level: 1.0 - share,
        p,
        blocks: sorted.len(),
        verdict,
    }
}

/// Result of a one-sided test of one hypothesis of a family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneSided {
    /// The p-value of "the median is not above 0", before the correction.
    pub p: f64,
    /// Lower bound of the median, by the test at its step of Holm's procedure; `None` with too few
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
            let signs = Signs::around(values, 0.0);
            fair_coins_at_most(values.len(), values.len() - signs.above)
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

#[cfg(test)]
mod tests {
    use super::super::samples::{cauchy, close, normal};
    use super::super::{blocks_needed, sign_test};
    use super::*;

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
    fn ratios_without_bound_are_judged_like_large_ones() {
        const INF: f64 = f64::INFINITY;
        let (up, mixed) = (vec![INF; 10], [vec![-INF; 5], vec![INF; 5]].concat());
        let down: Vec<f64> = up.iter().map(|log| -log).collect();
        let [up, down, mixed] = compare_family(&[up, down, mixed], 0.05)[..] else {
            unreachable!("three comparisons");
        };

        assert_eq!(up.verdict, RatioVerdict::Higher);
        assert_eq!(
            (up.ratio, up.low, up.high),
            (Some(INF), Some(INF), Some(INF))
        );
        assert_eq!(down.verdict, RatioVerdict::Lower);
        assert_eq!(
            (down.ratio, down.low, down.high),
            (Some(0.0), Some(0.0), Some(0.0))
        );
        assert_eq!(mixed.verdict, RatioVerdict::Unresolved);
        assert_eq!(
            (mixed.ratio, mixed.low, mixed.high),
            (Some(1.0), Some(0.0), Some(INF))
        );
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
}
