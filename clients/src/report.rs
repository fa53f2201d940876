//! What came of a plan: counts of every request, histograms of the measured ones, and the rules by
//! which a percentile may be read from them.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Why a request that was planned has no right reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Nobody listens at the address.
    Refused,
    /// No connection within the timeout.
    ConnectTimedOut,
    /// Connected and sent, but no whole reply within the timeout, or before the plan's end. Its
    /// latency is known only to be longer than the wait.
    TimedOut,
    /// The server, or something between, reset the connection.
    Reset,
    /// The server closed the connection before the whole reply.
    EarlyClose,
    /// The reply is not the request, byte for byte.
    WrongBytes,
    /// The server sent an error frame.
    ProtocolError,
    /// No local port is left for a new connection.
    NoPorts,
    /// This process may open no more files.
    NoFiles,
    /// The client process died, and with it the count of its requests; counted once for each process.
    ClientDied,
    /// Anything else; the report's message says what.
    Other,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::Refused,
        ErrorKind::ConnectTimedOut,
        ErrorKind::TimedOut,
        ErrorKind::Reset,
        ErrorKind::EarlyClose,
        ErrorKind::WrongBytes,
        ErrorKind::ProtocolError,
        ErrorKind::NoPorts,
        ErrorKind::NoFiles,
        ErrorKind::ClientDied,
        ErrorKind::Other,
    ];
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ErrorKind::Refused => "refused",
            ErrorKind::ConnectTimedOut => "connect timed out",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::Reset => "reset",
            ErrorKind::EarlyClose => "early close",
            ErrorKind::WrongBytes => "wrong bytes",
            ErrorKind::ProtocolError => "protocol error",
            ErrorKind::NoPorts => "no local ports",
            ErrorKind::NoFiles => "no open files left",
            ErrorKind::ClientDied => "client died",
            ErrorKind::Other => "other",
        })
    }
}

/// What came of one [`Window`](crate::Window), over all clients.
///
/// `planned = answered + the errors + unsent`. The histograms hold nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WindowReport {
    /// Requests that were to be made: the quota of the window, or those begun while it lasted.
    pub planned: u64,
    /// Requests answered by exactly their own bytes.
    pub answered: u64,
    /// Requests that failed, by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// Requests of the quota that were never begun.
    pub unsent: u64,
    /// Replies that arrived between the end of the ramp and the end of the window.
    pub replies_in_window: u64,
    /// Requests that failed after the ramp, or were due after it and never begun; they count in the
    /// percentiles as slower than every answered one.
    pub lost: u64,
    /// The part of them that was never begun, and has no service time.
    pub lost_unsent: u64,
    /// How often something else had the CPU while a client watched the clock for a request to be due,
    /// or was to be woken for it.
    pub hiccups: u64,
    /// Requests that had a time of their own and were sent a millisecond or more after it, although
    /// the client was free: it did not get a CPU in time.
    pub late: u64,
    /// Bytes of requests answered, and as many of their replies.
    pub bytes: u64,
    /// Connections opened.
    pub connections: u64,
    /// When the first request was begun, on the monotonic clock; 0 if none was.
    pub first_ns: u64,
    /// When the last reply was complete, on the monotonic clock; 0 if none was.
    pub last_ns: u64,
    /// Latency of answered requests begun after the ramp: to the last byte received, from the first
    /// byte sent in a closed loop, from when the request was due in an open one.
    #[serde(with = "histogram_text")]
    pub latency: Histogram<u64>,
    /// Of an open loop, the service time of the same requests: from the first byte sent.
    #[serde(with = "histogram_text")]
    pub service: Histogram<u64>,
    /// How much later than due the same requests were sent; empty where none was ever due.
    #[serde(with = "histogram_text")]
    pub lag: Histogram<u64>,
    /// The part of `lag` that is of requests without a hiccup (see `hiccups`), and not due before the last
    /// reply, or the connection, was there: how well requests leave in time where the clock was watched in
    /// time. Empty where threads and processes are asked for too much to watch it.
    #[serde(with = "histogram_text")]
    pub calm_lag: Histogram<u64>,
    /// From the beginning of `connect` until it succeeded.
    #[serde(with = "histogram_text")]
    pub connect: Histogram<u64>,
}

impl Default for WindowReport {
    fn default() -> Self {
        WindowReport {
            planned: 0,
            answered: 0,
            errors: BTreeMap::new(),
            unsent: 0,
            replies_in_window: 0,
            lost: 0,
            lost_unsent: 0,
            hiccups: 0,
            late: 0,
            bytes: 0,
            connections: 0,
            first_ns: 0,
            last_ns: 0,
            latency: empty_histogram(),
            service: empty_histogram(),
            lag: empty_histogram(),
            calm_lag: empty_histogram(),
            connect: empty_histogram(),
        }
    }
}

impl WindowReport {
    /// All requests that failed, of every kind.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds the counts and histograms of other clients, or of another window.
    pub fn add(&mut self, other: &WindowReport) {
        self.planned += other.planned;
        self.answered += other.answered;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        self.unsent += other.unsent;
        self.replies_in_window += other.replies_in_window;
        self.lost += other.lost;
        self.lost_unsent += other.lost_unsent;
        self.hiccups += other.hiccups;
        self.late += other.late;
        self.bytes += other.bytes;
        self.connections += other.connections;
        self.first_ns = match (self.first_ns, other.first_ns) {
            (0, first) | (first, 0) => first,
            (a, b) => a.min(b),
        };
        self.last_ns = self.last_ns.max(other.last_ns);
        self.latency += &other.latency;
        self.service += &other.service;
        self.lag += &other.lag;
        self.calm_lag += &other.calm_lag;
        self.connect += &other.connect;
    }
}

/// What came of a [`Plan`](crate::Plan).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// One for each window of the plan.
    pub windows: Vec<WindowReport>,
    /// Answered requests of each client that had any to make, in all windows.
    pub answered_by_client: BTreeMap<u32, u64>,
    /// Of the same clients, how long from when the first request was due or sent to the first right
    /// reply, in nanoseconds; those that were never served are missing.
    pub first_reply_by_client: BTreeMap<u32, u64>,
    /// CPU time of all clients together, from the start of the windows to the end of the last one.
    pub cpu_ns: u64,
    /// How long it took until every client was started and, unless it opens connections only for
    /// requests, connected, or had failed to be.
    pub connecting_ns: u64,
    /// For each kind of error, what the first one said.
    pub messages: BTreeMap<ErrorKind, String>,
}

impl Report {
    pub(crate) fn empty(windows: usize) -> Self {
        Report {
            windows: vec![WindowReport::default(); windows],
            ..Report::default()
        }
    }

    /// Adds what other clients of the same plan did.
    pub(crate) fn add(&mut self, other: Report) {
        for (into, window) in self.windows.iter_mut().zip(&other.windows) {
            into.add(window);
        }
        self.answered_by_client.extend(other.answered_by_client);
        self.first_reply_by_client
            .extend(other.first_reply_by_client);
        self.cpu_ns += other.cpu_ns;
        for (kind, text) in other.messages {
            self.message(kind, || text);
        }
    }

    pub(crate) fn message(&mut self, kind: ErrorKind, text: impl FnOnce() -> String) {
        self.messages.entry(kind).or_insert_with(text);
    }

    /// All windows as one.
    #[must_use]
    pub fn total(&self) -> WindowReport {
        let mut total = WindowReport::default();
        for window in &self.windows {
            total.add(window);
        }
        total
    }

    /// Jain's fairness index of the clients' answered requests: 1 when all have the same number, 1/n
    /// when one of n has them all; `None` when nobody was answered.
    ///
    /// (Jain, Chiu and Hawe, *A Quantitative Measure of Fairness*, DEC-TR-301, 1984.)
    #[must_use]
    pub fn jain_index(&self) -> Option<f64> {
        let counts = || self.answered_by_client.values().map(|&count| count as f64);
        let sum: f64 = counts().sum();
        let squares: f64 = counts().map(|count| count * count).sum();
        (sum > 0.0).then(|| sum * sum / (counts().count() as f64 * squares))
    }

    /// Clients that were never answered.
    #[must_use]
    pub fn clients_never_served(&self) -> u64 {
        self.answered_by_client
            .values()
            .filter(|&&answered| answered == 0)
            .count() as u64
    }
}

/// A histogram of three significant digits that grows with its values.
pub(crate) fn empty_histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

/// The histogram as HdrHistogram V2, compressed, in base64: the text that interval logs hold.
#[must_use]
pub fn encode_histogram(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("writing to memory succeeds");
    BASE64_STANDARD.encode(bytes)
}

/// Reads what [`encode_histogram`] wrote.
pub fn decode_histogram(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64_STANDARD
        .decode(text)
        .map_err(|error| error.to_string())?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| error.to_string())
}

mod histogram_text {
    use hdrhistogram::Histogram;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        histogram: &Histogram<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::encode_histogram(histogram))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Histogram<u64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::decode_histogram(&text).map_err(de::Error::custom)
    }
}

/// The least sample for which the `q`-quantile has an upper bound at all: with fewer values, even the
/// largest one lies below the true quantile with a probability of more than 2.5 %.
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

/// The `q`-quantile of a population of which `lost` values are known only to be larger than all
/// in the histogram. `None` when there are too few values, or when it falls among the lost.
#[must_use]
pub fn quantile(histogram: &Histogram<u64>, lost: u64, q: f64) -> Option<u64> {
    let known = histogram.len();
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
    // Half a rank less, so that rounding cannot lead to the next one.
    let value = histogram.value_at_quantile((rank as f64 - 0.5) / known as f64);
    Some(value.min(histogram.max()))
}

/// The quantiles that are reported, under the names they have everywhere.
pub const REPORTED_QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// The reported percentiles in nanoseconds, each `None` where the sample does not carry it.
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
    /// Largest value; `None` also when a request was lost, whose latency nobody knows.
    pub max: Option<u64>,
}

impl Percentiles {
    /// Reads them from a histogram, beside which `lost` requests have no known latency.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>, lost: u64) -> Self {
        let [p50, p90, p99, p999] = REPORTED_QUANTILES.map(|(_, q)| quantile(histogram, lost, q));
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

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = empty_histogram();
        for value in values {
            histogram.record(value).unwrap();
        }
        histogram
    }

    #[test]
    fn samples_needed_are_the_known_ones() {
        let needed = [0.5, 0.9, 0.99, 0.999].map(samples_needed);
        assert_eq!(needed, [6, 36, 368, 3688]);
    }

    #[test]
    fn small_samples_give_no_percentile() {
        let percentiles = Percentiles::of(&histogram(1..=100), 0);
        assert_eq!((percentiles.min, percentiles.max), (Some(1), Some(100)));
        assert_eq!((percentiles.p50, percentiles.p90), (Some(50), Some(90)));
        assert_eq!((percentiles.p99, percentiles.p999), (None, None));
        assert_eq!(
            Percentiles::of(&empty_histogram(), 0),
            Percentiles::default()
        );
    }

    #[test]
    fn lost_requests_stay_in_the_population() {
        // 1,000 values of which the slowest 50 are lost: the median is that of all 1,000.
        let known = histogram(1..=950);
        assert_eq!(quantile(&known, 50, 0.5), Some(500));
        assert_eq!(quantile(&known, 50, 0.9), Some(900));
        assert_eq!(quantile(&known, 50, 0.99), None);
        assert_eq!(Percentiles::of(&known, 50).max, None);
    }

    #[test]
    fn histograms_survive_their_text() {
        let before = histogram([1, 1000, 5_000_000, 60_000_000_000]);
        assert_eq!(
            decode_histogram(&encode_histogram(&before)).unwrap(),
            before
        );
        assert!(decode_histogram("AAAA").is_err());
    }

    #[test]
    fn jain_tells_fair_from_unfair() {
        let jain = |counts: &[u64]| {
            let answered_by_client = (0..).zip(counts.iter().copied()).collect();
            let report = Report {
                answered_by_client,
                ..Report::default()
            };
            report.jain_index()
        };
        assert_eq!(jain(&[7, 7, 7, 7]), Some(1.0));
        assert_eq!(jain(&[9, 0, 0, 0]), Some(0.25));
        assert_eq!(jain(&[5, 5, 0, 0]), Some(0.5));
        assert_eq!(jain(&[0, 0]), None);
    }

    #[test]
    fn adding_keeps_every_count() {
        let mut sum = WindowReport::default();
        for first in [30, 10, 20] {
            let mut part = WindowReport {
                planned: 3,
                answered: 1,
                first_ns: first,
                last_ns: first,
                ..Default::default()
            };
            part.errors.insert(ErrorKind::Reset, 2);
            part.latency.record(first).unwrap();
            sum.add(&part);
        }
        assert_eq!((sum.planned, sum.answered, sum.failed()), (9, 3, 6));
        assert_eq!((sum.first_ns, sum.last_ns, sum.latency.len()), (10, 30, 3));
    }
}
