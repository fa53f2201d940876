//! Logarithms of the ratio of two arms, and their median over rounds in which both were driven.

use super::median;

/// Natural logarithm of the ratio of two values from 0 to infinity, which may be infinite itself; `None` if both
/// are 0 or both infinite, or if one is not a number.
///
/// ```
/// use echobench::stats::log_ratio;
///
/// assert_eq!(log_ratio(3.0, 3.0), Some(0.0));
/// // An arm that stood still, against one that served.
/// assert_eq!(log_ratio(0.0, 3.0), Some(f64::NEG_INFINITY));
/// assert_eq!(log_ratio(0.0, 0.0), None);
/// ```
#[must_use]
pub fn log_ratio(value: f64, reference: f64) -> Option<f64> {
    let log = (value / reference).ln();
    (!log.is_nan()).then_some(log)
}

/// Median over rounds of [`log_ratio`], of the value of an arm and that of its reference in each; `None` if no
/// round has one.
#[must_use]
pub fn median_log_ratio(rounds: impl IntoIterator<Item = (f64, f64)>) -> Option<f64> {
    let logs = rounds
        .into_iter()
        .filter_map(|(value, reference)| log_ratio(value, reference));
    median(&logs.collect::<Vec<f64>>())
}
