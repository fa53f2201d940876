//! Histograms of durations, and the rules by which a percentile may be read from them.

use std::borrow::Cow;
use std::fmt;
use std::ops::AddAssign;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer, V2Serializer};
use serde::{Deserialize, Serialize};

/// Histogram of durations in nanoseconds, of three significant digits, and their exact extremes.
///
/// It grows with its values: an empty one takes no memory, and a short list of durations is kept as it is.
/// One client makes a few requests in a slice, and a thousand clients would each need a table of counts.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Option<Encoded>", into = "Option<Encoded>")]
pub struct DurationHistogram(Option<Box<Filled>>);

/// Largest number of durations that are kept as a list.
const FEW: usize = 128;

/// Histogram with at least one duration.
#[derive(Clone)]
struct Filled {
    durations: Durations,
    min_ns: u64,
    max_ns: u64,
}

#[derive(Clone)]
enum Durations {
    /// Each duration in nanoseconds, at most [`FEW`].
    Few(Vec<u64>),
    Many(Histogram<u64>),
}

/// Form of a histogram in messages.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Encoded {
    /// The durations.
    Few(Vec<u64>),
    /// The extremes, and HdrHistogram V2 in base64. It is not compressed: that would take the sender more
    /// time than the pipe takes for the bytes.
    Many(u64, u64, String),
}

impl DurationHistogram {
    /// Adds one duration.
    pub fn record(&mut self, ns: u64) {
        let filled = self.0.get_or_insert_with(|| Box::new(Filled::none()));
        filled.durations.record(ns);
        filled.min_ns = filled.min_ns.min(ns);
        filled.max_ns = filled.max_ns.max(ns);
    }

    /// Number of durations.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |filled| filled.durations.len())
    }

    /// No duration was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Smallest duration, exactly; 0 if there is none.
    #[must_use]
    pub fn min(&self) -> u64 {
        self.0.as_ref().map_or(0, |filled| filled.min_ns)
    }

    /// Largest duration, exactly; 0 if there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.as_ref().map_or(0, |filled| filled.max_ns)
    }

    /// Arithmetic mean; 0 if there is none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let mean = |filled: &Filled| filled.durations.counts().mean();
        self.0.as_deref().map_or(0.0, mean)
    }

    /// The `q`-quantile of a population of which `lost` durations are only known to be longer than all
    /// in the histogram. `None` if the sample is too small, or the quantile is one of the lost.
    #[must_use]
    pub fn quantile(&self, lost: u64, q: f64) -> Option<u64> {
        self.quantiles(lost, &[q]).next()
    }

    /// The same of several quantiles below 1 in ascending order, in one pass over the counts; ends before the first
    /// that has no value, since those above it have none either.
    pub fn quantiles(&self, lost: u64, ascending: &[f64]) -> impl Iterator<Item = u64> {
        let known = self.len();
        let ranks = ascending.iter().map_while(|q| rank(known, lost, *q));
        // Half a rank less, so that rounding cannot select the next one.
        let shares = ranks.map(|rank| (rank as f64 - 0.5) / known as f64);

        let values: Vec<u64> = self.to_hdr().value_at_quantiles(shares).collect();
        let (min_ns, max_ns) = (self.min(), self.max());
        values
            .into_iter()
            .map(move |value| value.clamp(min_ns, max_ns))
    }

    /// The histogram as the library has it, for formats of other tools.
    #[must_use]
    pub fn to_hdr(&self) -> Cow<'_, Histogram<u64>> {
        match &self.0 {
            Some(filled) => filled.durations.counts(),
            None => Cow::Owned(no_counts()),
        }
    }

    /// HdrHistogram V2, compressed, in base64: the text of interval logs, which holds no exact extremes.
    #[must_use]
    pub fn to_base64(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.to_hdr(), &mut bytes)
            .expect("writing to memory succeeds");
        BASE64_STANDARD.encode(bytes)
    }

    /// Parses the text of [`DurationHistogram::to_base64`], or of another tool.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        let counts = parse_counts(text)?;
        let (min_ns, max_ns) = (counts.min(), counts.max());
        Ok(DurationHistogram::of_counts(counts, min_ns, max_ns))
    }

    fn of_counts(counts: Histogram<u64>, min_ns: u64, max_ns: u64) -> Self {
        if counts.is_empty() {
            return DurationHistogram::default();
        }
        DurationHistogram(Some(Box::new(Filled {
            durations: Durations::Many(counts),
            min_ns,
            max_ns,
        })))
    }
}

/// The counts are thousands, so they are left out.
impl fmt::Debug for DurationHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurationHistogram")
            .field("len", &self.len())
            .field("min_ns", &self.min())
            .field("max_ns", &self.max())
            .finish_non_exhaustive()
    }
}

impl Filled {
    fn none() -> Self {
        Filled {
            durations: Durations::Few(Vec::new()),
            min_ns: u64::MAX,
            max_ns: 0,
        }
    }
}

impl PartialEq for Filled {
    fn eq(&self, other: &Self) -> bool {
        (self.min_ns, self.max_ns) == (other.min_ns, other.max_ns)
            && self.durations.counts() == other.durations.counts()
    }
}

impl Durations {
    fn record(&mut self, ns: u64) {
        match self {
            Durations::Few(list) if list.len() < FEW => list.push(ns),
            Durations::Few(_) => {
                let mut counts = self.counts().into_owned();
                counts.record(ns).expect("the histogram grows");
                *self = Durations::Many(counts);
            }
            Durations::Many(counts) => counts.record(ns).expect("the histogram grows"),
        }
    }

    fn add(&mut self, other: &Durations) {
        match (&mut *self, other) {
            (_, Durations::Few(list)) => {
                for &ns in list {
                    self.record(ns);
                }
            }
            (Durations::Many(counts), Durations::Many(added)) => *counts += added,
            (Durations::Few(_), Durations::Many(_)) => {
                let mut counts = self.counts().into_owned();
                counts += &*other.counts();
                *self = Durations::Many(counts);
            }
        }
    }

    fn len(&self) -> u64 {
        match self {
            Durations::Few(list) => list.len() as u64,
            Durations::Many(counts) => counts.len(),
        }
    }

    fn counts(&self) -> Cow<'_, Histogram<u64>> {
        match self {
            Durations::Few(list) => {
                let mut counts = no_counts();
                for &ns in list {
                    counts.record(ns).expect("the histogram grows");
                }
                Cow::Owned(counts)
            }
            Durations::Many(counts) => Cow::Borrowed(counts),
        }
    }
}

fn no_counts() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

fn parse_counts(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64_STANDARD
        .decode(text)
        .map_err(|error| error.to_string())?;
    let mut counts: Histogram<u64> = Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| error.to_string())?;
    // A histogram that was read does not grow by itself, and others may be added to it.
    counts.auto(true);
    Ok(counts)
}

impl AddAssign<&DurationHistogram> for DurationHistogram {
    fn add_assign(&mut self, other: &DurationHistogram) {
        let Some(added) = &other.0 else { return };
        match &mut self.0 {
            Some(filled) => {
                filled.durations.add(&added.durations);
                filled.min_ns = filled.min_ns.min(added.min_ns);
                filled.max_ns = filled.max_ns.max(added.max_ns);
            }
            none => *none = Some(added.clone()),
        }
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

impl From<DurationHistogram> for Option<Encoded> {
    fn from(histogram: DurationHistogram) -> Self {
        let filled = *histogram.0?;
        let counts = match filled.durations {
            Durations::Few(list) => return Some(Encoded::Few(list)),
            Durations::Many(counts) => counts,
        };

        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&counts, &mut bytes)
            .expect("writing to memory succeeds");
        let counts = BASE64_STANDARD.encode(bytes);
        Some(Encoded::Many(filled.min_ns, filled.max_ns, counts))
    }
}

impl TryFrom<Option<Encoded>> for DurationHistogram {
    type Error = String;

    fn try_from(encoded: Option<Encoded>) -> Result<Self, Self::Error> {
        match encoded {
            None => Ok(DurationHistogram::default()),
            Some(Encoded::Few(list)) => Ok(list.into_iter().collect()),
            Some(Encoded::Many(min_ns, max_ns, counts)) => Ok(DurationHistogram::of_counts(
                parse_counts(&counts)?,
                min_ns,
                max_ns,
            )),
        }
    }
}

/// Rank of the `q`-quantile among `known` durations and `lost` longer ones. `None` if these are too few, or if the
/// rank is that of a lost one.
fn rank(known: u64, lost: u64, q: f64) -> Option<u64> {
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
    (rank <= known).then_some(rank)
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
    fn several_quantiles_are_those_of_one_each() {
        let all: Vec<f64> = (0..1000).map(|step| f64::from(step) / 1000.0).collect();
        let mut random = fastrand::Rng::with_seed(1);
        for known in [0, 1, 5, 6, 367, 368, 10_000] {
            let values = (0..known).map(|_| {
                let bits = random.u32(1..40);
                random.u64(..1 << bits)
            });
            let histogram: DurationHistogram = values.collect();
            for lost in [0, 1, known / 100, known] {
                let each = all.iter().map_while(|q| histogram.quantile(lost, *q));
                let several = histogram.quantiles(lost, &all);
                assert!(each.eq(several), "{known} known, {lost} lost");

                let after = all
                    .iter()
                    .skip_while(|q| histogram.quantile(lost, **q).is_some());
                for q in after {
                    assert_eq!(histogram.quantile(lost, *q), None, "{q}");
                }
            }
        }
    }

    #[test]
    fn histograms_round_trip_through_interval_logs_and_messages() {
        let before: DurationHistogram = [1, 1000, 5_000_000, 60_000_000_000].into_iter().collect();

        let logged = DurationHistogram::from_base64(&before.to_base64()).unwrap();
        assert_eq!(logged.to_hdr(), before.to_hdr());
        assert!(DurationHistogram::from_base64("AAAA").is_err());

        let message = serde_json::to_string(&before).unwrap();
        let after: DurationHistogram = serde_json::from_str(&message).unwrap();
        assert_eq!(after, before);

        let mut grown = after.clone();
        grown += &[3_600_000_000_000].into_iter().collect();
        assert_eq!((grown.len(), grown.max()), (5, 3_600_000_000_000));
        assert!(serde_json::from_str::<DurationHistogram>("[1,2,\"AAAA\"]").is_err());
    }

    #[test]
    fn a_short_list_counts_like_a_table() {
        let sum = |parts: &[(u64, u64)]| {
            let mut sum = DurationHistogram::default();
            for &(first, end) in parts {
                sum += &(first..end).map(|n| n * n * 1_000).collect();
            }
            sum
        };

        let few = FEW as u64;
        let whole = sum(&[(1, 5 * few)]);
        assert!(matches!(
            whole.0.as_ref().unwrap().durations,
            Durations::Many(_)
        ));
        // Lists onto a table, a table onto a list, and lists that become a table.
        assert_eq!(sum(&[(1, 4 * few), (4 * few, 5 * few)]), whole);
        assert_eq!(sum(&[(1, few), (few, 5 * few)]), whole);
        let lists: Vec<_> = (0..10).map(|n| (n * few / 2, (n + 1) * few / 2)).collect();
        let mut list = sum(&lists[1..]);
        list += &sum(&[(1, few / 2)]);
        assert_eq!(list, whole);

        for length in [1, few, few + 1] {
            let before = sum(&[(0, length)]);
            let message = serde_json::to_string(&before).unwrap();
            let after: DurationHistogram = serde_json::from_str(&message).unwrap();
            assert_eq!(after, before);
            assert_eq!((after.len(), after.mean()), (length, before.mean()));
        }
    }

    #[test]
    fn an_empty_histogram_takes_no_memory_and_hardly_any_message() {
        let empty = DurationHistogram::default();
        assert_eq!(size_of::<DurationHistogram>(), size_of::<usize>());
        assert_eq!(serde_json::to_string(&empty).unwrap(), "null");
        assert_eq!(
            serde_json::from_str::<DurationHistogram>("null").unwrap(),
            empty
        );

        let logged = DurationHistogram::from_base64(&empty.to_base64());
        assert_eq!(logged, Ok(empty.clone()));
        let mut sum = empty.clone();
        sum += &empty;
        assert_eq!((sum.len(), sum.min(), sum.max()), (0, 0, 0));
    }

    #[test]
    fn extremes_are_exact() {
        let low: DurationHistogram = [123_456_789].into_iter().collect();
        let extremes = Percentiles::of(&low, 0);
        assert_eq!(extremes.min, Some(123_456_789));
        assert_eq!(extremes.max, Some(123_456_789));

        let mut both: DurationHistogram = [987_654_321].into_iter().collect();
        both += &low;
        assert_eq!((both.min(), both.max()), (123_456_789, 987_654_321));

        // No percentile lies outside of them, although those of the histogram are rounded.
        let same: DurationHistogram = [123_456_789; 400].into_iter().collect();
        assert_eq!(Percentiles::of(&same, 0).p99, Some(123_456_789));
    }
}
