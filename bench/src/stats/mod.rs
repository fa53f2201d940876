//! Statistics of paired measurements: medians, exact sign-test intervals, families of comparisons after
//! Holm, and lines of least squares.
//!
//! Everything here is exact at small sample sizes and assumes nothing about the shape of the
//! distribution. Values must be independent of each other: one for each block, never one for each slice
//! or request.

mod binomial;
mod holm;
mod line;
pub mod md1;
mod power;
mod ratio;
mod sign_test;

pub use binomial::{percentile_interval, proportion_interval};
pub use holm::{
    Comparison, HolmDecision, OneSided, RatioVerdict, compare_family, holm, rises_in_family,
};
pub use line::{Line, fit_line};
pub use power::{block_steps, blocks_needed, scatter_that_resolves};
pub use ratio::{log_ratio, median_log_ratio};
pub use sign_test::{Interval, sign_interval, sign_test, upper_bound};

/// The median; the mean of the two middle values when their number is even, which is 0 between infinities of
/// both signs.
///
/// `None` without values, and when one of them is not a number.
///
/// ```
/// use echobench::stats::median;
///
/// assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
/// assert_eq!(median(&[3.0, 1.0]), Some(2.0));
/// assert_eq!(median(&[]), None);
/// ```
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values)?;
    let upper = sorted[sorted.len() / 2];
    let lower = sorted[(sorted.len() - 1) / 2];

    // As many values without bound on one side as on the other favour neither: of log ratios, that is a ratio of 1.
    let balanced = lower == f64::NEG_INFINITY && upper == f64::INFINITY;
    Some(if balanced {
        0.0
    } else {
        f64::midpoint(lower, upper)
    })
}

/// The values in ascending order; `None` without values, and when one of them is not a number.
fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return None;
    }

    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(sorted)
}

/// Samples for tests.
#[cfg(test)]
mod samples {
    /// Equality up to rounding.
    pub(super) fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9
    }

    /// A standard normal value, by the method of Box and Muller.
    pub(super) fn normal(rng: &mut fastrand::Rng) -> f64 {
        (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
    }

    /// A heavy-tailed value: the ratio of two normal ones.
    pub(super) fn cauchy(rng: &mut fastrand::Rng) -> f64 {
        normal(rng) / normal(rng)
    }

    pub(super) fn ascending(n: u32) -> Vec<f64> {
        (1..=n).map(f64::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn infinite_values_have_a_median() {
        const INF: f64 = f64::INFINITY;
        assert_eq!(median(&[INF, INF]), Some(INF));
        assert_eq!(median(&[1.0, INF]), Some(INF));
        assert_eq!(median(&[-INF, 1.0]), Some(-INF));
        assert_eq!(median(&[-INF, INF]), Some(0.0));
        assert_eq!(median(&[-INF, 1.0, INF]), Some(1.0));
    }
}
