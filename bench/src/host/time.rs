//! Durations as the nanoseconds in which files, messages and the monotonic clock count.

use std::time::Duration;

/// A duration in nanoseconds; the longest ones as the largest number, 584 years.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
