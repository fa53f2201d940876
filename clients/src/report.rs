//! Results of a load: counts of every request, and histograms of the measured ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::{ErrorCounts, ErrorKind};
use crate::histogram::DurationHistogram;
use crate::plan::Window;

/// Results of one [`Window`](crate::Window), over all clients.
///
/// `planned = answered + errors + unsent`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WindowReport {
    /// Requests to be made: the quota of the window, or those begun during the window.
    pub planned: u64,
    /// Requests with the right reply.
    pub answered: u64,
    /// Failed requests, by kind.
    pub errors: ErrorCounts,
    /// Requests of the quota that were never begun.
    pub unsent: u64,
    /// Replies that arrived between the end of the ramp and the end of the window, whenever their requests
    /// were begun. A window with a quota has only those of its own requests.
    pub replies_in_window: u64,
    /// Time that requests were in flight between the end of the ramp and the end of the window, summed over
    /// the same requests and those that failed.
    pub busy_ns: u64,
    /// Requests that failed after the ramp, or were due after it and never begun. In the percentiles
    /// they count as slower than every answered one.
    pub lost: u64,
    /// Part of `lost` that was never begun, and has no service time.
    pub lost_unsent: u64,
    /// Times that something else had the CPU while a client waited for a request to be due.
    pub hiccups: u64,
    /// Requests that were due at a certain time and sent a millisecond or more after it, although the
    /// client was free: it did not get a CPU in time.
    pub late: u64,
    /// Bytes of answered requests, and as many of their replies.
    pub bytes: u64,
    /// Connections opened.
    pub connections: u64,
    /// Begin of the first request, on the monotonic clock; 0 if there was none.
    pub first_ns: u64,
    /// End of the last reply, on the monotonic clock; 0 if there was none.
    pub last_ns: u64,
    /// End of the last request, answered or failed, on the monotonic clock; 0 if there was none.
    pub ended_ns: u64,
    /// Latency of answered requests begun after the ramp: until the last byte received, from the first
    /// byte sent in a closed loop, from the time the request was due in an open loop.
    pub latency: DurationHistogram,
    /// Service time of the same requests, from the first byte sent; open loop only.
    pub service: DurationHistogram,
    /// Delay between the due time of the same requests and the first byte sent; empty if none was due at
    /// a certain time.
    pub lag: DurationHistogram,
    /// Part of `lag` without hiccups (see `hiccups`) and without waiting for an earlier reply or for the
    /// connection: the precision of the load generator itself. Empty where threads and processes have too
    /// high a rate to spin before each request.
    pub calm_lag: DurationHistogram,
    /// Duration of `connect`, of connections that were established.
    pub connect: DurationHistogram,
}

impl WindowReport {
    /// Failed requests of every kind.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.total()
    }

    /// Length of the measurement in `window`: from the end of the ramp to the end of a window that ends in
    /// time, else from the begin of the first request to the end of the last one.
    #[must_use]
    pub fn elapsed_ns(&self, window: &Window) -> u64 {
        match window.end_ns {
            u64::MAX => self.ended_ns.saturating_sub(self.first_ns),
            end_ns => end_ns - window.measure_ns,
        }
    }

    /// Replies per second of the measurement; `None` if it has no length.
    #[must_use]
    pub fn throughput_per_second(&self, window: &Window) -> Option<f64> {
        let elapsed_ns = self.elapsed_ns(window);
        (elapsed_ns > 0).then(|| self.replies_in_window as f64 * 1e9 / elapsed_ns as f64)
    }

    /// Requests in flight, averaged over the measurement: the number of busy connections, never more than
    /// there are clients. By Little's law it is the throughput times the mean service time.
    #[must_use]
    pub fn busy_connections(&self, window: &Window) -> Option<f64> {
        let elapsed_ns = self.elapsed_ns(window);
        (elapsed_ns > 0).then(|| self.busy_ns as f64 / elapsed_ns as f64)
    }

    /// Adds the counts and histograms of other clients, or of another window.
    pub fn add(&mut self, other: &WindowReport) {
        self.planned += other.planned;
        self.answered += other.answered;
        self.errors.merge(&other.errors);
        self.unsent += other.unsent;
        self.replies_in_window += other.replies_in_window;
        self.busy_ns += other.busy_ns;
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
        self.ended_ns = self.ended_ns.max(other.ended_ns);

        self.latency += &other.latency;
        self.service += &other.service;
        self.lag += &other.lag;
        self.calm_lag += &other.calm_lag;
        self.connect += &other.connect;
    }
}

/// Results of a [`Plan`](crate::Plan).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Results of each window of the plan.
    pub windows: Vec<WindowReport>,
    /// Answered requests in all windows, of each client that had requests to make.
    pub answered_by_client: BTreeMap<u32, u64>,
    /// Time from the first request, due or sent, to the first right reply, in nanoseconds, of the same
    /// clients; those that were never served are missing.
    pub first_reply_by_client: BTreeMap<u32, u64>,
    /// CPU time of all clients together, from the start of the windows to the end of the last one.
    pub cpu_ns: u64,
    /// Time until every client was started and, unless it connects for each request, connected or
    /// failed to.
    pub connecting_ns: u64,
    /// Connections that failed before the start, when no request was due yet, by kind.
    pub errors_before_start: ErrorCounts,
    /// Message of the first error of each kind.
    pub messages: BTreeMap<ErrorKind, String>,
}

impl LoadReport {
    pub(crate) fn empty(windows: usize) -> Self {
        LoadReport {
            windows: vec![WindowReport::default(); windows],
            ..LoadReport::default()
        }
    }

    /// Adds the results of other clients of the same windows.
    pub fn add(&mut self, other: LoadReport) {
        for (into, window) in self.windows.iter_mut().zip(&other.windows) {
            into.add(window);
        }

        self.answered_by_client.extend(other.answered_by_client);
        self.first_reply_by_client
            .extend(other.first_reply_by_client);
        self.cpu_ns += other.cpu_ns;
        self.connecting_ns = self.connecting_ns.max(other.connecting_ns);
        self.errors_before_start.merge(&other.errors_before_start);
        for (kind, text) in other.messages {
            self.add_message(kind, || text);
        }
    }

    /// Moves every instant by `ns`, to the clock of another host.
    pub fn shift_instants(&mut self, ns: i64) {
        for window in &mut self.windows {
            for instant in [
                &mut window.first_ns,
                &mut window.last_ns,
                &mut window.ended_ns,
            ] {
                // 0 stands for none.
                if *instant > 0 {
                    *instant = instant.saturating_add_signed(ns).max(1);
                }
            }
        }
    }

    /// Keeps the first message of each kind.
    pub(crate) fn add_message(&mut self, kind: ErrorKind, text: impl FnOnce() -> String) {
        self.messages.entry(kind).or_insert_with(text);
    }

    /// Sum of all windows.
    #[must_use]
    pub fn total(&self) -> WindowReport {
        let mut total = WindowReport::default();
        for window in &self.windows {
            total.add(window);
        }
        total
    }

    /// Jain's fairness index of the clients' answered requests; `None` if no request was answered.
    #[must_use]
    pub fn jain_index(&self) -> Option<f64> {
        jain_index(self.answered_by_client.values())
    }

    /// Number of clients without an answered request.
    #[must_use]
    pub fn clients_never_served(&self) -> u64 {
        self.answered_by_client
            .values()
            .filter(|&&answered| answered == 0)
            .count() as u64
    }
}

/// Jain's fairness index: 1 if all counts are equal, 1/n if one of n has everything; `None` if all are 0.
///
/// (Jain, Chiu and Hawe, *A Quantitative Measure of Fairness*, DEC-TR-301, 1984.)
#[must_use]
pub fn jain_index<'a>(counts: impl IntoIterator<Item = &'a u64>) -> Option<f64> {
    let (mut number, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for &count in counts {
        let count = count as f64;
        number += 1.0;
        sum += count;
        squares += count * count;
    }
    (sum > 0.0).then(|| sum * sum / (number * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_index_separates_fair_from_unfair() {
        let jain = |counts: &[u64]| jain_index(counts);
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
            part.errors.add(ErrorKind::Reset, 2);
            part.latency.record(first);
            sum.add(&part);
        }

        assert_eq!((sum.planned, sum.answered, sum.failed()), (9, 3, 6));
        assert_eq!((sum.first_ns, sum.last_ns, sum.latency.len()), (10, 30, 3));
    }
}
