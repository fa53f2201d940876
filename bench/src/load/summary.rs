//! The figures of one load as text for people.

use echobench_clients::Percentiles;

use super::outcome::LoadOutcome;
use crate::render::units::{self, or_unknown};

impl LoadOutcome {
    /// The figures as text.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut lines = self.head();
        lines.push(String::new());
        lines.extend(self.counts());
        lines.push(String::new());
        lines.extend(self.times());
        lines.extend(self.notes());
        lines.extend(self.failures());
        lines.join("\n") + "\n"
    }

    /// The load that was put on the server.
    fn head(&self) -> Vec<String> {
        let clients = units::count(u64::from(self.clients));
        let noun = if self.clients == 1 {
            "client"
        } else {
            "clients"
        };
        let payload = self
            .payload_bytes
            .map_or_else(String::new, |bytes| format!(", {bytes} B payload"));
        let load = format!(
            "{clients} {noun} ({}) against {}{payload}",
            self.driver, self.target
        );

        let rate = self.rate_per_second;
        let open_loop = rate.map(|rate| format!("open loop at {}", units::rate(rate)));
        [load].into_iter().chain(open_loop).collect()
    }

    /// Requests, throughput, bytes and connections.
    fn counts(&self) -> Vec<String> {
        let requests = format!(
            "requests    {} planned, {} answered, {} failed, {} unsent",
            units::count(self.planned),
            units::count(self.answered),
            units::count(self.errors.total()),
            units::count(self.unsent)
        );
        let throughput = format!(
            "throughput  {} over {}",
            or_unknown(self.throughput_per_second, units::rate),
            units::duration(self.elapsed_ns as f64)
        );
        let bytes = self.bytes_received.map_or_else(String::new, |bytes| {
            format!("bytes       {} each way; ", units::bytes(bytes as f64))
        });
        let connections = format!("{bytes}connections: {}", units::count(self.connections));
        let busy = self.busy_connections.map(|busy| {
            format!(
                "busy        {busy:.1} of {} connections (requests in flight, on average)",
                units::count(u64::from(self.clients))
            )
        });

        [requests, throughput, connections]
            .into_iter()
            .chain(busy)
            .collect()
    }

    /// The table of percentiles. Service time and lag exist only if requests were due at given times.
    fn times(&self) -> Vec<String> {
        let names = format!(
            "{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "min", "p50", "p90", "p99", "p99.9", "max"
        );
        let rows = [
            ("latency", &self.latency_ns, true),
            ("service", &self.service_ns, false),
            ("send lag", &self.lag_ns, false),
            ("calm lag", &self.calm_lag_ns, false),
            ("connect", &self.connect_ns, true),
        ];
        let rows = rows
            .into_iter()
            .filter(|(_, times, always)| *always || times.min.is_some())
            .map(|(name, times, _)| percentile_row(name, times));
        [names].into_iter().chain(rows).collect()
    }

    /// Explanations of the figures, and conditions that disturbed them.
    fn notes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.rate_per_second.is_some() {
            lines.push(String::new());
            lines.push(
                "latency counts from when a request was due, service from when it was sent"
                    .to_owned(),
            );
        }
        if self.calm_lag_ns.min.is_some() {
            lines.push(
                "calm lag is without hiccups, and without waiting for an earlier reply or a connection"
                    .to_owned(),
            );
        }
        if self.hiccups > 0 {
            lines.push(format!(
                "hiccups     {}: something else had the CPU when a request was due, or it slept \
                 (see --no-cpu-idle)",
                units::count(self.hiccups)
            ));
        }
        if let Some(throttled_ns) = self.throttled_ns.filter(|&ns| ns > 0) {
            lines.push(format!(
                "throttled   by its CPU quota for {}: the figures are those of the quota",
                units::duration(throttled_ns as f64)
            ));
        }
        lines
    }

    /// Errors, with the first message of each kind, starvation, and an interrupt.
    fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.all_errors().total() > 0 {
            lines.push(String::new());
            for (kind, message) in &self.messages {
                let count = units::count(self.all_errors().count(*kind));
                let before = match self.errors_before_start.count(*kind) {
                    0 => String::new(),
                    count => format!(", {} of them before the start", units::count(count)),
                };
                lines.push(format!(
                    "error       {}: {count}{before} ({message})",
                    kind.words()
                ));
            }
        }
        if self.answered > 0 && self.clients_never_served > 0 {
            lines.push(format!(
                "starved     {} of {} clients were never served",
                units::count(self.clients_never_served),
                units::count(u64::from(self.clients))
            ));
        }
        if self.interrupted {
            lines.push("interrupted: the figures are those until then".to_owned());
        }
        lines
    }
}

fn percentile_row(name: &str, times: &Percentiles) -> String {
    let text = |ns: Option<u64>| or_unknown(ns, |ns| units::duration(ns as f64));
    let Percentiles {
        min,
        p50,
        p90,
        p99,
        p999,
        max,
        ..
    } = times;
    let [min, p50, p90, p99, p999, max] = [min, p50, p90, p99, p999, max].map(|ns| text(*ns));
    format!("{name:<10}{min:>10}{p50:>10}{p90:>10}{p99:>10}{p999:>10}{max:>10}")
}
