//! Histograms of durations, and the rules by which a percentile may be read from them.

use std::ops::AddAssign;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Histogram of durations in nanoseconds, of three significant digits; it grows with its values.
///
/// The textual form, also the serialized one, is HdrHistogram V2, compressed, in base64: the text of
/// interval logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DurationHistogram(Histogram<u64>);

impl Default for DurationHistogram {
    fn default() -> Self {
        DurationHistogram(Histogram::new(3).expect("three digits are allowed"))
    }
}

impl DurationHistogram {
    /// Adds one duration.
    pub fn record(&mut self, ns: u64) {
        self.0.record(ns).expect("the histogram grows");
    }

    /// Number of durations.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// No duration was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Smallest duration; 0 if there is none.
    #[must_use]
    pub fn min(&self) -> u64 {
        self.0.min()
    }

    /// Largest duration; 0 if there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// Arithmetic mean; 0 if there is none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The `q`-quantile of a population of which `lost` durations are only known to be longer than all
    /// in the histogram. `None` if the sample is too small, or the quantile is one of the lost.
    #[must_use]
    pub fn quantile(&self, lost: u64, q: f64) -> Option<u64> {
        let known = self.len();
        let population = known + lost;
        if population < samples_needed(q) {
            return None;
        }

        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = ((q * population as f64).ceil() as u64).clamp(1, population);
        if rank > known {
            return None;
        }

        // Half a rank less, so that rounding cannot select the next one.
        let value = self.0.value_at_quantile((rank as f64 - 0.5) / known as f64);
        Some(value.min(self.max()))
    }

    /// The histogram of the library, for formats of other tools.
    #[must_use]
    pub fn as_hdr(&self) -> &Histogram<u64> {
        &self.0
    }

    /// HdrHistogram V2, compressed, in base64: the text of interval logs.
    #[must_use]
    pub fn to_base64(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .expect("writing to memory succeeds");
        BASE64_STANDARD.encode(bytes)
    }

    /// Parses the text of [`DurationHistogram::to_base64`], or of another tool.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        let bytes = BASE64_STANDARD
            .decode(text)
            .map_err(|error| error.to_string())?;
        Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map(DurationHistogram)
            .map_err(|error| error.to_string())
    }
}

impl AddAssign<&DurationHistogram> for DurationHistogram {
    fn add_assign(&mut self, other: &DurationHistogram) {
        self.0 += &other.0;
    }
}

impl FromIterator<u64> for DurationHistogram {
    fn from_iter<I: IntoIterator<Item = u64>>(durations: I) -> Self {
        let mut histogram = DurationHistogram::default();
        for ns in durations {
            histogram.record(ns);
        }
        histogram
    }
}

impl From<DurationHistogram> for String {
    fn from(histogram: DurationHistogram) -> Self {
        histogram.to_base64()
    }
}

impl TryFrom<String> for DurationHistogram {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        DurationHistogram::from_base64(&text)
    }
}

/// Smallest sample for which the `q`-quantile has an upper bound: with fewer values, even the largest
/// one lies below the true quantile with a probability of more than 2.5 %.
///
/// (The order-statistic interval of a quantile; David and Nagaraja, *Order Statistics*, 7.1.)
#[must_use]
pub fn samples_needed(q: f64) -> u64 {
    if q <= 0.0 || q >= 1.0 {
        return 1;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small count"
    )]
    let needed = (0.025_f64.ln() / q.ln()).ceil() as u64;
    needed
}

/// Quantiles that are reported, with their names.
pub const REPORTED_QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// Reported percentiles in nanoseconds; `None` if the sample is too small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Smallest value.
    pub min: Option<u64>,
    /// Median.
    pub p50: Option<u64>,
    /// 90th percentile.
    pub p90: Option<u64>,
    /// 99th percentile.
    pub p99: Option<u64>,
    /// 99.9th percentile.
    pub p999: Option<u64>,
    /// Largest value; also `None` if a request was lost, because its latency is unknown.
    pub max: Option<u64>,
}

impl Percentiles {
    /// Percentiles of a histogram and of `lost` requests of unknown latency.
    #[must_use]
    pub fn of(histogram: &DurationHistogram, lost: u64) -> Self {
        let [p50, p90, p99, p999] = REPORTED_QUANTILES.map(|(_, q)| histogram.quantile(lost, q));
        let any = !histogram.is_empty();
        Percentiles {
            min: any.then(|| histogram.min()),
            p50,
            p90,
            p99,
            p999,
            max: (any && lost == 0).then(|| histogram.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_needed_match_the_published_values() {
        let needed = [0.5, 0.9, 0.99, 0.999].map(samples_needed);
        assert_eq!(needed, [6, 36, 368, 3688]);
    }

    #[test]
    fn small_samples_give_no_percentile() {
        let percentiles = Percentiles::of(&(1..=100).collect(), 0);
        assert_eq!((percentiles.min, percentiles.max), (Some(1), Some(100)));
        assert_eq!((percentiles.p50, percentiles.p90), (Some(50), Some(90)));
        assert_eq!((percentiles.p99, percentiles.p999), (None, None));

        let none = Percentiles::of(&DurationHistogram::default(), 0);
        assert_eq!(none, Percentiles::default());
    }

    #[test]
    fn lost_requests_stay_in_the_population() {
        // 1,000 values of which the slowest 50 are lost: the median is that of all 1,000.
        let known: DurationHistogram = (1..=950).collect();
        assert_eq!(known.quantile(50, 0.5), Some(500));
        assert_eq!(known.quantile(50, 0.9), Some(900));
        assert_eq!(known.quantile(50, 0.99), None);
        assert_eq!(Percentiles::of(&known, 50).max, None);
    }

    #[test]
    fn histograms_round_trip_through_text() {
        let before: DurationHistogram = [1, 1000, 5_000_000, 60_000_000_000].into_iter().collect();
        let after = DurationHistogram::from_base64(&before.to_base64());
        assert_eq!(after, Ok(before));
        assert!(DurationHistogram::from_base64("AAAA").is_err());
    }
}
