//! The figures of one load, as programs read them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::bail;
use echobench_clients::{Driver, ErrorCounts, ErrorKind, Percentiles, RequestKind, WindowReport};
use serde::Serialize;

use super::Executed;
use crate::results::SCHEMA_VERSION;

/// The figures of one load. Times in nanoseconds.
#[derive(Serialize)]
pub struct LoadOutcome {
    schema_version: u32,
    pub(super) target: SocketAddr,
    pub(super) driver: Driver,
    pub(super) clients: u32,
    /// `None` if the clients send their names, or nothing.
    pub(super) payload_bytes: Option<u32>,
    pub(super) planned: u64,
    pub(super) answered: u64,
    pub(super) unsent: u64,
    pub(super) errors: NamedCounts,
    pub(super) clients_never_served: u64,
    /// Connections that failed before any request was due.
    failed_before_start: u64,
    pub(super) elapsed_ns: u64,
    pub(super) throughput_per_second: Option<f64>,
    bytes_sent: u64,
    /// `None` for the time service, whose lines have no fixed length.
    pub(super) bytes_received: Option<u64>,
    pub(super) connections: u64,
    pub(super) rate_per_second: Option<f64>,
    /// Requests in flight, averaged over the measurement.
    pub(super) busy_connections: Option<f64>,
    pub(super) hiccups: u64,
    /// Whether idle CPUs were kept out of their sleep states.
    awake: bool,
    /// Time for which a CPU quota kept the load generator from CPUs; `None` without quotas.
    pub(super) throttled_ns: Option<u64>,
    /// Whether the load was interrupted: the figures are those until then.
    pub(super) interrupted: bool,
    pub(super) latency_ns: Percentiles,
    pub(super) service_ns: Percentiles,
    pub(super) lag_ns: Percentiles,
    /// The lag without hiccups, and without waiting for an earlier reply or a connection.
    pub(super) calm_lag_ns: Percentiles,
    pub(super) connect_ns: Percentiles,
    warmup: Option<Warmup>,
    /// Errors of all windows and before the start, by kind.
    #[serde(skip)]
    all_errors: ErrorCounts,
    /// Errors before the start, by kind.
    #[serde(skip)]
    pub(super) errors_before_start: ErrorCounts,
    /// The first message of each kind of error.
    #[serde(skip)]
    pub(super) messages: BTreeMap<ErrorKind, String>,
}

/// Counts by kind of error, with every kind named.
pub(super) struct NamedCounts(ErrorCounts);

impl Serialize for NamedCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counts = ErrorKind::ALL
            .iter()
            .map(|kind| (kind, self.0.count(*kind)));
        serializer.collect_map(counts)
    }
}

impl NamedCounts {
    pub(super) fn total(&self) -> u64 {
        self.0.total()
    }
}

/// Requests before the measurement, which the server has counted too.
#[derive(Serialize)]
struct Warmup {
    planned: u64,
    answered: u64,
    errors: NamedCounts,
}

/// The verdict of a load on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadVerdict {
    /// Every request was answered.
    Answered,
    /// Requests failed because of the server: a reply was wrong, missing or late.
    BadReplies,
    /// The server was not reached, the clients' machine had no resources left, or the load was
    /// interrupted: nothing is said about the replies.
    NotMeasured,
}

impl LoadOutcome {
    pub(super) fn new(executed: &Executed, awake: bool) -> Self {
        let Executed {
            plan,
            report,
            throttled_ns,
            interrupted,
        } = executed;
        let (measured, before) = report.windows.split_last().expect("a plan has a window");
        let window = plan.windows.last().expect("a plan has a window");
        let kind = plan.workload.request_kind;

        // Connections from before the first window belong to it, or to the warm-up.
        let mut connect = measured.connect.clone();
        let mut connections = measured.connections;
        for window in before {
            connect += &window.connect;
            connections += window.connections;
        }
        let mut all_errors = report.errors_before_start.clone();
        for window in &report.windows {
            all_errors.merge(&window.errors);
        }

        LoadOutcome {
            schema_version: SCHEMA_VERSION,
            target: plan.target,
            driver: plan.driver,
            clients: plan.clients,
            payload_bytes: (kind == RequestKind::Bytes).then_some(plan.workload.payload_bytes),
            planned: measured.planned,
            answered: measured.answered,
            unsent: measured.unsent,
            errors: NamedCounts(measured.errors.clone()),
            clients_never_served: report.clients_never_served(),
            failed_before_start: report.errors_before_start.total(),
            elapsed_ns: measured.elapsed_ns(window),
            throughput_per_second: measured.throughput_per_second(window),
            bytes_sent: measured.bytes,
            bytes_received: (kind != RequestKind::Time).then_some(measured.bytes),
            connections,
            rate_per_second: plan.workload.arrivals.map(|arrivals| arrivals.per_second),
            busy_connections: measured
                .busy_connections(window)
                .filter(|_| measured.answered > 0),
            hiccups: measured.hiccups,
            awake,
            throttled_ns: *throttled_ns,
            interrupted: *interrupted,
            latency_ns: Percentiles::of(&measured.latency, measured.lost),
            service_ns: Percentiles::of(&measured.service, measured.lost - measured.lost_unsent),
            lag_ns: Percentiles::of(&measured.lag, 0),
            calm_lag_ns: Percentiles::of(&measured.calm_lag, 0),
            connect_ns: Percentiles::of(&connect, 0),
            warmup: before.first().map(Warmup::of),
            all_errors,
            errors_before_start: report.errors_before_start.clone(),
            messages: report.messages.clone(),
        }
    }

    /// Errors of every kind, of the warm-up and before the start too.
    pub(super) fn all_errors(&self) -> &ErrorCounts {
        &self.all_errors
    }

    /// The verdict on the server.
    #[must_use]
    pub fn verdict(&self) -> LoadVerdict {
        let has_bad_reply = ErrorKind::ALL
            .iter()
            .any(|kind| is_bad_reply(*kind) && self.all_errors.count(*kind) > 0);
        if self.interrupted || self.answered == 0 {
            LoadVerdict::NotMeasured
        } else if has_bad_reply || self.unsent > 0 {
            LoadVerdict::BadReplies
        } else if self.all_errors.total() > 0 {
            LoadVerdict::NotMeasured
        } else {
            LoadVerdict::Answered
        }
    }

    /// The figures as a line of JSON.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// The figures as CSV, a line of names and a line of values: `latency_ns.p50` of the JSON becomes
    /// `latency_p50_ns`.
    pub fn csv(&self) -> anyhow::Result<String> {
        let serde_json::Value::Object(fields) = serde_json::to_value(self)? else {
            bail!("an outcome is an object");
        };

        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (name, value) in fields {
            match value {
                _ if name == "warmup" => {
                    names.push("warmup_answered".to_owned());
                    values.push(csv_field(&value["answered"]));
                }
                serde_json::Value::Object(inner) => {
                    for (key, value) in inner {
                        names.push(match name.strip_suffix("_ns") {
                            Some(stem) => format!("{stem}_{key}_ns"),
                            None => format!("{name}_{key}"),
                        });
                        values.push(csv_field(&value));
                    }
                }
                value => {
                    names.push(name);
                    values.push(csv_field(&value));
                }
            }
        }

        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&names)?;
        writer.write_record(&values)?;
        Ok(String::from_utf8(writer.into_inner()?)?)
    }
}

impl Warmup {
    fn of(window: &WindowReport) -> Self {
        Warmup {
            planned: window.planned,
            answered: window.answered,
            errors: NamedCounts(window.errors.clone()),
        }
    }
}

/// Whether a kind of error says that the server replied wrongly, or did not reply although it was reached.
fn is_bad_reply(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::TimedOut
        | ErrorKind::Reset
        | ErrorKind::EarlyClose
        | ErrorKind::WrongBytes
        | ErrorKind::EarlyReply
        | ErrorKind::ProtocolError => true,
        ErrorKind::Refused
        | ErrorKind::Overloaded
        | ErrorKind::ConnectTimedOut
        | ErrorKind::NoPorts
        | ErrorKind::NoFiles
        | ErrorKind::ClientDied
        | ErrorKind::Other => false,
    }
}

/// A JSON value as a CSV field; empty for an unknown value.
fn csv_field(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
