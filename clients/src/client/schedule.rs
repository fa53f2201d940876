//! Due times of one client's requests: its windows, its quota, and the arrivals of an open loop.

use std::ops::Range;

use crate::plan::{Plan, Spacing, Window};

/// Time after the end of a slice in which requests of an open loop that are late are still sent, if other
/// slices follow.
const GRACE_NS: u64 = 10_000_000;
/// A request sent this much later than possible counts as late.
const LATE_NS: u64 = 1_000_000;

/// Schedule of one client.
///
/// Invariant: in an open loop `due_ns` is the due time of the next request; in a closed loop it is the end
/// of the think time, or `None` if there is no think time.
pub(super) struct Schedule<'a> {
    plan: &'a Plan,
    client: u32,
    random: fastrand::Rng,
    start_ns: u64,
    window: usize,
    opens_ns: u64,
    quota: u64,
    due_ns: Option<u64>,
    arrivals: u64,
}

/// Delay of a request after its due time.
pub(super) struct SendLag {
    pub(super) ns: u64,
    /// The client was free at the due time, so that the delay is one of the load generator.
    pub(super) was_free: bool,
    /// Sent much later than it could have been.
    pub(super) is_late: bool,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(plan: &'a Plan, client: u32, random: fastrand::Rng) -> Self {
        Schedule {
            plan,
            client,
            random,
            start_ns: 0,
            window: 0,
            opens_ns: 0,
            quota: 0,
            due_ns: None,
            arrivals: 0,
        }
    }

    /// Sets the start of the windows, and enters the first one.
    pub(super) fn start(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
        self.enter(0);
    }

    /// Enters the window after the current one.
    pub(super) fn enter_next(&mut self) {
        self.enter(self.window + 1);
    }

    fn enter(&mut self, index: usize) {
        self.window = index;
        let Some(window) = self.plan.windows.get(index) else {
            return;
        };

        let ramp = window.measure_ns - window.start_ns;
        // In an open loop the arrivals spread the clients.
        let is_staggered = ramp > 0 && !self.is_open_loop();
        let stagger = if is_staggered {
            self.random.u64(0..ramp)
        } else {
            0
        };
        self.opens_ns = self.start_ns + window.start_ns + stagger;
        self.quota = window.quota(self.client, self.plan.active_clients());

        if self.is_open_loop() {
            self.due_ns = None;
            self.arrivals = 0;
            self.set_next_due(self.opens_ns);
        }
    }

    /// Index of the current window; after the last one, the number of windows.
    pub(super) fn window_index(&self) -> usize {
        self.window
    }

    /// Current window; `None` after the last one.
    pub(super) fn window(&self) -> Option<&'a Window> {
        self.plan.windows.get(self.window)
    }

    /// First instant of this client in the current window.
    pub(super) fn opens_ns(&self) -> u64 {
        self.opens_ns
    }

    /// Time in which the next request is not due yet, if that is a known time.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Measured part of a window, on the monotonic clock.
    pub(super) fn measured(&self, window: &Window) -> Range<u64> {
        self.start_ns + window.measure_ns..self.end_of(window)
    }

    /// End of the plan, if it has one.
    pub(super) fn plan_end_ns(&self) -> Option<u64> {
        self.plan.end_ns.map(|end| self.start_ns + end)
    }

    /// Time to stop waiting for the reply to a request sent at `sent_ns`.
    pub(super) fn reply_deadline(&self, sent_ns: u64) -> u64 {
        let timeout = sent_ns.saturating_add(self.plan.workload.timeout_ns);
        let last_ns = self.plan.last_wait_ns().map(|last| self.start_ns + last);
        last_ns.map_or(timeout, |last| timeout.min(last))
    }

    pub(super) fn is_open_loop(&self) -> bool {
        self.plan.workload.arrivals.is_some()
    }

    /// Begin of the latency of a request begun at `began_ns`.
    pub(super) fn intended_ns(&self, began_ns: u64) -> u64 {
        self.due_ns
            .filter(|_| self.is_open_loop())
            .unwrap_or(began_ns)
    }

    /// Lag of a request sent at `sent_ns` by a client that was free at `free_ns`.
    pub(super) fn lag(&self, sent_ns: u64, free_ns: u64) -> Option<SendLag> {
        // A think time may have ended before this window began.
        let due = self.due_ns?.max(self.opens_ns);
        let possible_ns = due.max(free_ns);
        Some(SendLag {
            ns: sent_ns - due,
            was_free: possible_ns == due,
            is_late: sent_ns.saturating_sub(possible_ns) >= LATE_NS,
        })
    }

    /// Sets the due time of the request after the one that ended at `now`.
    pub(super) fn set_next_due(&mut self, now: u64) {
        let workload = &self.plan.workload;
        let Some(arrivals) = &workload.arrivals else {
            if workload.think_ns > 0 {
                self.due_ns = Some(now + workload.think_ns);
            }
            return;
        };

        let clients = f64::from(self.plan.active_clients());
        self.due_ns = Some(match arrivals.spacing {
            // All clients together arrive evenly: each in its turn.
            Spacing::Constant => {
                let turn = f64::from(self.client) + self.arrivals as f64 * clients;
                self.opens_ns + nanoseconds(turn / arrivals.per_second)
            }
            // Independent Poisson processes add up to one.
            Spacing::Poisson => {
                let gap = -(1.0 - self.random.f64()).ln() * clients / arrivals.per_second;
                self.due_ns.unwrap_or(self.opens_ns) + nanoseconds(gap)
            }
        });
        self.arrivals += 1;
    }

    /// Progress of the current window at `now`, after `begun` requests in it. The client opens no connection
    /// before `connects_from_ns`.
    ///
    /// In an open loop every request that was due before the end is still made, however late, as long as
    /// there is time.
    pub(super) fn progress(&self, begun: u64, now: u64, connects_from_ns: u64) -> Progress {
        let Some(window) = self.window() else {
            return Progress::Over;
        };
        if begun >= self.quota {
            return Progress::Over;
        }

        let end_ns = self.end_of(window);
        let due_ns = self.due_ns.unwrap_or(now);
        if !self.is_open_loop() {
            let next_ns = now.max(due_ns).max(connects_from_ns);
            return Progress::over_if(next_ns >= end_ns);
        }
        if due_ns < end_ns && now >= end_ns.saturating_add(self.grace_ns()) {
            return Progress::OutOfTime;
        }
        Progress::over_if(due_ns >= end_ns)
    }

    fn grace_ns(&self) -> u64 {
        let timeout_ns = self.plan.workload.timeout_ns;
        match self.plan.end_ns {
            // The next slice belongs to another server.
            Some(_) => timeout_ns.min(GRACE_NS),
            None => timeout_ns,
        }
    }

    fn end_of(&self, window: &Window) -> u64 {
        self.start_ns.saturating_add(window.end_ns)
    }

    /// Takes the next arrival of the current window that will not be made: its due time. `None` when no
    /// more was due, or `accounted` requests are the quota.
    pub(super) fn take_missed_arrival(&mut self, accounted: u64) -> Option<u64> {
        let end_ns = self.end_of(self.window()?);
        let due_ns = self.due_ns.filter(|due| *due < end_ns)?;
        if accounted >= self.quota {
            return None;
        }
        self.set_next_due(due_ns);
        Some(due_ns)
    }
}

/// State of the current window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More requests are to be made.
    Open,
    /// All requests of the window were made.
    Over,
    /// Requests that were due can no longer be made.
    OutOfTime,
}

impl Progress {
    fn over_if(is_over: bool) -> Self {
        if is_over {
            Progress::Over
        } else {
            Progress::Open
        }
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time ahead"
    )]
    let ns = (seconds * 1e9).round() as u64;
    ns
}
