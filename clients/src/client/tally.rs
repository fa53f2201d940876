//! Results of one client: counts and samples, which are added to the report of all clients.

use std::sync::{Mutex, MutexGuard};

use super::schedule::SendLag;
use crate::failure::{ErrorCounts, Failure};
use crate::plan::{Driver, Plan};
use crate::report::LoadReport;

/// Number of samples that all clients of a process hold before they are moved to the histograms.
const SAMPLES_PER_PROCESS: usize = 1 << 20;

/// Tally of one client.
///
/// Invariant: `begun = answered + errors` in every window; the histograms of the report change only in
/// [`Tally::flush`], so that clients rarely wait for each other.
pub(super) struct Tally<'a> {
    shared: &'a Mutex<LoadReport>,
    windows: Vec<WindowCounts>,
    samples: Vec<Sample>,
    capacity: usize,
    /// Begin of the first request of all.
    first_intended_ns: Option<u64>,
    /// Time from there to the first reply.
    first_reply_ns: Option<u64>,
}

/// Counts of one window.
#[derive(Clone, Debug, Default)]
struct WindowCounts {
    begun: u64,
    answered: u64,
    errors: ErrorCounts,
    unsent: u64,
    replies_in_window: u64,
    busy_ns: u64,
    lost: u64,
    lost_unsent: u64,
    hiccups: u64,
    late: u64,
    connections: u64,
    first_ns: u64,
    last_ns: u64,
    ended_ns: u64,
}

#[derive(Clone, Copy)]
enum Metric {
    Latency,
    Service,
    Lag,
    CalmLag,
    Connect,
}

struct Sample {
    window: u32,
    metric: Metric,
    ns: u64,
}

/// Times of a request that has ended.
pub(super) struct RequestTimes {
    /// Begin of its latency.
    pub(super) intended_ns: u64,
    /// First byte sent, or begin of the connection that failed.
    pub(super) began_ns: u64,
    pub(super) ended_ns: u64,
}

/// Measured times of a request, beside its latency.
pub(super) struct Measured {
    pub(super) is_open_loop: bool,
    pub(super) lag: Option<SendLag>,
    /// The lag is one of the load generator itself.
    pub(super) is_calm: bool,
}

impl<'a> Tally<'a> {
    pub(super) fn new(plan: &Plan, shared: &'a Mutex<LoadReport>) -> Self {
        let clients = match plan.driver {
            Driver::Processes => 1,
            Driver::Threads | Driver::Tasks => plan.clients.max(1),
        };
        let capacity = SAMPLES_PER_PROCESS / clients as usize;
        Tally {
            shared,
            windows: vec![WindowCounts::default(); plan.windows.len()],
            samples: Vec::new(),
            capacity: capacity.clamp(64, 8192),
            first_intended_ns: None,
            first_reply_ns: None,
        }
    }

    /// Allocates before the measurement.
    pub(super) fn reserve(&mut self) {
        self.samples.reserve(self.capacity);
    }

    /// Requests begun in a window; 0 after the last one.
    pub(super) fn begun(&self, window: usize) -> u64 {
        self.windows.get(window).map_or(0, |counts| counts.begun)
    }

    pub(super) fn connected(&mut self, window: usize, connect_ns: u64) {
        if let Some(counts) = self.windows.get_mut(window) {
            counts.connections += 1;
        }
        self.sample(window, Metric::Connect, connect_ns);
    }

    /// Counts an answered request; `measured` if it was begun after the ramp.
    pub(super) fn answered(
        &mut self,
        window: usize,
        times: &RequestTimes,
        measured: Option<Measured>,
    ) {
        let counts = &mut self.windows[window];
        counts.end_request(times);
        counts.answered += 1;
        counts.last_ns = times.ended_ns;

        let first_ns = *self.first_intended_ns.get_or_insert(times.intended_ns);
        self.first_reply_ns.get_or_insert(times.ended_ns - first_ns);

        let Some(measured) = measured else { return };
        let latency_ns = times.ended_ns - times.intended_ns;
        self.sample(window, Metric::Latency, latency_ns);
        if measured.is_open_loop {
            let service_ns = times.ended_ns - times.began_ns;
            self.sample(window, Metric::Service, service_ns);
        }
        if let Some(lag) = measured.lag {
            self.sample(window, Metric::Lag, lag.ns);
            if measured.is_calm {
                self.sample(window, Metric::CalmLag, lag.ns);
            }
            self.windows[window].late += u64::from(lag.is_late);
        }
    }

    /// Counts a request or connection that failed; after the last window only its message is kept.
    #[cold]
    pub(super) fn failed(
        &mut self,
        window: usize,
        times: &RequestTimes,
        is_lost: bool,
        failure: Failure,
    ) {
        let Failure { kind, message } = failure;
        self.shared().add_message(kind, || message);

        let Some(counts) = self.windows.get_mut(window) else {
            return;
        };
        counts.end_request(times);
        counts.lost += u64::from(is_lost);
        counts.errors.add(kind, 1);
        self.first_intended_ns.get_or_insert(times.intended_ns);
    }

    /// Counts a connection that failed before the start: no request of the plan is affected yet.
    #[cold]
    pub(super) fn failed_before_start(&mut self, failure: Failure) {
        let Failure { kind, message } = failure;
        let mut shared = self.shared();
        shared.errors_before_start.add(kind, 1);
        shared.add_message(kind, || message);
    }

    /// Adds to a window the time that a request was in flight in its measured part, and its reply if that
    /// arrived there.
    pub(super) fn credit(&mut self, window: usize, busy_ns: u64, has_reply: bool) {
        let counts = &mut self.windows[window];
        counts.busy_ns += busy_ns;
        counts.replies_in_window += u64::from(has_reply);
    }

    /// Counts requests that were due and will not be made, `measured` of them after the ramp.
    pub(super) fn missed(&mut self, window: usize, all: u64, measured: u64) {
        let counts = &mut self.windows[window];
        counts.unsent += all;
        counts.lost += measured;
        counts.lost_unsent += measured;
    }

    pub(super) fn hiccup(&mut self, window: usize) {
        self.windows[window].hiccups += 1;
    }

    fn sample(&mut self, window: usize, metric: Metric, ns: u64) {
        let window = u32::try_from(window).expect("windows are few");
        self.samples.push(Sample { window, metric, ns });
        if self.samples.len() >= self.capacity {
            self.flush();
        }
    }

    /// Moves the samples to the histograms of the report.
    fn flush(&mut self) {
        let mut shared = self.shared.lock().expect("no client panics");

        for sample in self.samples.drain(..) {
            let Some(window) = shared.windows.get_mut(sample.window as usize) else {
                continue;
            };
            let histogram = match sample.metric {
                Metric::Latency => &mut window.latency,
                Metric::Service => &mut window.service,
                Metric::Lag => &mut window.lag,
                Metric::CalmLag => &mut window.calm_lag,
                Metric::Connect => &mut window.connect,
            };
            histogram.record(sample.ns);
        }
    }

    /// Adds all results to the report. `frame_bytes` is the length of each request.
    pub(super) fn finish(mut self, plan: &Plan, client: u32, frame_bytes: u64, cpu_ns: u64) {
        self.flush();
        let mut shared = self.shared();
        shared.cpu_ns += cpu_ns;

        let (mut all_planned, mut all_answered) = (0, 0);
        for (index, counts) in self.windows.iter().enumerate() {
            let window = &plan.windows[index];
            let unsent = match window.requests {
                Some(_) => window.quota(client, plan.active_clients()) - counts.begun,
                None => counts.unsent,
            };
            let planned = counts.begun + unsent;
            all_planned += planned;
            all_answered += counts.answered;

            let into = &mut shared.windows[index];
            into.planned += planned;
            into.unsent += unsent;
            into.bytes += counts.answered * frame_bytes;
            counts.add_to(into);
        }

        if all_planned > 0 {
            shared.answered_by_client.insert(client, all_answered);
            if let Some(ns) = self.first_reply_ns {
                shared.first_reply_by_client.insert(client, ns);
            }
        }
    }

    fn shared(&self) -> MutexGuard<'a, LoadReport> {
        self.shared.lock().expect("no client panics")
    }
}

impl WindowCounts {
    fn end_request(&mut self, times: &RequestTimes) {
        if self.begun == 0 {
            self.first_ns = times.began_ns;
        }
        self.begun += 1;
        self.ended_ns = times.ended_ns;
    }

    fn add_to(&self, into: &mut crate::WindowReport) {
        into.answered += self.answered;
        into.errors.merge(&self.errors);
        into.replies_in_window += self.replies_in_window;
        into.busy_ns += self.busy_ns;
        into.lost += self.lost;
        into.lost_unsent += self.lost_unsent;
        into.hiccups += self.hiccups;
        into.late += self.late;
        into.connections += self.connections;

        into.last_ns = into.last_ns.max(self.last_ns);
        into.ended_ns = into.ended_ns.max(self.ended_ns);
        if self.begun > 0 && (into.first_ns == 0 || self.first_ns < into.first_ns) {
            into.first_ns = self.first_ns;
        }
    }
}
