//! Results of one client: counts and samples, which are added to the report of all clients.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};

use super::schedule::SendLag;
use crate::failure::{ErrorCounts, Failure};
use crate::plan::Plan;
use crate::report::LoadReport;

/// Number of samples that all clients of a process hold before they are moved to the histograms.
const SAMPLES_PER_PROCESS: usize = 1 << 20;
/// Number of samples that a client with a buffer of its own holds: while they are moved, it sends nothing.
const SAMPLES_PER_CLIENT: usize = 8192;

/// Samples of the clients of one thread, which are moved to the report of all clients when the buffer is full.
///
/// Histograms change only then, so that threads rarely wait for each other, and so that no client of a short load
/// pays for a histogram while it is measured.
pub(crate) struct Recorder<'a> {
    report: &'a Mutex<LoadReport>,
    samples: RefCell<Vec<Sample>>,
    capacity: usize,
}

impl<'a> Recorder<'a> {
    /// Buffer of one client, of so many in its process.
    pub(super) fn of_client(report: &'a Mutex<LoadReport>, clients: u32) -> Self {
        let share = SAMPLES_PER_PROCESS / clients.max(1) as usize;
        Self::new(report, share.clamp(64, SAMPLES_PER_CLIENT))
    }

    /// Buffer of all clients of a thread, of so many in this process.
    pub(crate) fn of_thread(report: &'a Mutex<LoadReport>, threads: u32) -> Self {
        let share = SAMPLES_PER_PROCESS / threads.max(1) as usize;
        Self::new(report, share.max(64))
    }

    fn new(report: &'a Mutex<LoadReport>, capacity: usize) -> Self {
        Recorder {
            report,
            samples: RefCell::default(),
            capacity,
        }
    }

    /// Allocates before the measurement. Memory is only taken as it is written to.
    fn reserve(&self) {
        let mut samples = self.samples.borrow_mut();
        if samples.is_empty() {
            samples.reserve_exact(self.capacity);
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.samples.borrow_mut();
        samples.push(sample);
        if samples.len() >= self.capacity {
            self.move_to_report(&mut samples);
        }
    }

    fn flush(&self) {
        self.move_to_report(&mut self.samples.borrow_mut());
    }

    fn move_to_report(&self, samples: &mut Vec<Sample>) {
        let mut report = self.report();

        for sample in samples.drain(..) {
            let Some(window) = report.windows.get_mut(sample.window as usize) else {
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

    fn report(&self) -> MutexGuard<'a, LoadReport> {
        self.report.lock().expect("no client panics")
    }
}

/// Tally of one client.
///
/// Invariant: `begun = answered + errors` in every window.
pub(super) struct Tally<'a> {
    recorder: Rc<Recorder<'a>>,
    windows: Vec<WindowCounts>,
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
    pub(super) fn new(plan: &Plan, recorder: Rc<Recorder<'a>>) -> Self {
        Tally {
            recorder,
            windows: vec![WindowCounts::default(); plan.windows.len()],
            first_intended_ns: None,
            first_reply_ns: None,
        }
    }

    /// Allocates before the measurement.
    pub(super) fn reserve(&self) {
        self.recorder.reserve();
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
        self.recorder.report().add_message(kind, || message);

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
        let mut shared = self.recorder.report();
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

    fn sample(&self, window: usize, metric: Metric, ns: u64) {
        let window = u32::try_from(window).expect("windows are few");
        self.recorder.add(Sample { window, metric, ns });
    }

    /// Adds all results to the report. `frame_bytes` is the length of each request.
    pub(super) fn finish(self, plan: &Plan, client: u32, frame_bytes: u64, cpu_ns: u64) {
        self.recorder.flush();
        let mut shared = self.recorder.report();
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
