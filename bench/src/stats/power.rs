//! Numbers of blocks: how many a family of comparisons needs, and what it can resolve with them.
//!
//! Holm's procedure gives each comparison at least its equal share of the error rate, so everything here holds
//! whatever the other comparisons come to.

use statrs::distribution::{Beta, ContinuousCDF, Normal};

use super::sign_test::{most_outside, two_sided};

/// Probability with which a true difference is to be resolved.
const POWER: f64 = 0.8;

/// The least number of blocks with which every comparison of a family of this size has an
/// interval in [`compare_family`](super::compare_family). Panics unless `alpha` is positive.
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

/// The numbers of blocks, in ascending order, at which the interval of every comparison of such a family
/// becomes narrower, because it may leave out one more block at each end. Between two of them a block makes it
/// wider.
pub fn block_steps(comparisons: usize, alpha: f64) -> impl Iterator<Item = usize> {
    let share = alpha / comparisons.max(1) as f64;
    let mut before = None;
    (1..).filter(move |&blocks| {
        let outside = most_outside(blocks, share);
        let is_step = outside > before;
        before = outside;
        is_step
    })
}

/// The largest standard deviation of the blocks' log-ratios with which a true log-ratio of `difference` is
/// resolved with a probability of 80 %, if they are normally distributed. `None` for too few blocks.
#[must_use]
pub fn scatter_that_resolves(
    difference: f64,
    blocks: usize,
    comparisons: usize,
    alpha: f64,
) -> Option<f64> {
    let share = alpha / comparisons.max(1) as f64;
    let outside = most_outside(blocks, share)?;

    // A difference is resolved if at most `outside` blocks lie on the wrong side of 1. The probability of that,
    // by the share of blocks on the right side, is a beta distribution's.
    let of_share = Beta::new((blocks - outside) as f64, outside as f64 + 1.0).ok()?;
    let on_right_side = of_share.inverse_cdf(POWER);
    Some(difference / Normal::standard().inverse_cdf(on_right_side))
}

#[cfg(test)]
mod tests {
    use super::super::samples::normal;
    use super::super::sign_interval;
    use super::*;

    #[test]
    fn blocks_between_steps_make_no_interval_narrower() {
        let steps = |comparisons| block_steps(comparisons, 0.05).take(4).collect::<Vec<_>>();
        assert_eq!(steps(1), [6, 9, 12, 15]);
        assert_eq!(steps(18), [10, 14, 17, 20]);
        assert_eq!(steps(24), [10, 14, 18, 21]);
        for comparisons in [1, 6, 33, 100] {
            assert_eq!(steps(comparisons)[0], blocks_needed(comparisons, 0.05));
        }
    }

    /// Of many runs whose blocks scatter as much as is allowed, 80 % resolve the difference.
    #[test]
    fn the_scatter_gives_the_power_that_it_promises() {
        let mut random = fastrand::Rng::with_seed(11);
        for (blocks, comparisons) in [(11, 33), (15, 33), (21, 24), (6, 1)] {
            let difference = 1.05_f64.ln();
            let scatter = scatter_that_resolves(difference, blocks, comparisons, 0.05).unwrap();

            let mut resolved = || {
                let ratios: Vec<f64> = (0..blocks)
                    .map(|_| difference + scatter * normal(&mut random))
                    .collect();
                let confidence = 1.0 - 0.05 / comparisons as f64;
                sign_interval(&ratios, confidence).is_some_and(|interval| interval.low > 0.0)
            };
            let count = (0..2_000).filter(|_| resolved()).count();
            assert!((1_540..1_660).contains(&count), "{blocks}: {count}");
        }
        assert_eq!(scatter_that_resolves(0.05, 10, 33, 0.05), None);
    }
}
