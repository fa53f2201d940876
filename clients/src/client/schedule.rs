//! Due times of one client's requests: its windows, its quota, and the arrivals of an open loop.

use std::ops::Range;

use crate::plan::{Arrivals, Plan, Spacing, Window};
use crate::stop;

/// Time after the end of a slice in which requests of an open loop that are late are still sent, if other
/// slices follow.
const GRACE_NS: u64 = 10_000_000;
/// Number of missed Poisson arrivals that are drawn one by one.
const MAX_DRAWN_ARRIVALS: u64 = 100_000;
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

    /// Windows that a request of the current one may be in flight in: it and those after it that end in time,
    /// each with its measured part. One with a quota has only its own requests.
    pub(super) fn overlapping(&self, ended_ns: u64) -> impl Iterator<Item = (usize, Range<u64>)> {
        let windows = self.plan.windows.iter().enumerate().skip(self.window);
        windows
            .filter(|(index, window)| *index == self.window || window.requests.is_none())
            .map(|(index, window)| (index, self.measured(window)))
            .take_while(move |(_, measured)| measured.start <= ended_ns)
    }

    /// The windows have not been started yet.
    pub(super) fn is_before_start(&self) -> bool {
        self.start_ns == 0
    }

    /// End of the plan, if it has one.
    pub(super) fn plan_end_ns(&self) -> Option<u64> {
        let end_ns = self.plan.end_ns.map(|end| self.start_ns + end)?;
        Some(end_ns.min(stop::end_ns()))
    }

    /// Time to stop waiting for the reply to a request sent at `sent_ns`.
    pub(super) fn reply_deadline(&self, sent_ns: u64) -> u64 {
        let timeout = sent_ns.saturating_add(self.plan.workload.timeout_ns);
        let last_ns = self.plan.last_wait_ns().map(|last| self.start_ns + last);
        let deadline = last_ns.map_or(timeout, |last| timeout.min(last));
        deadline.min(stop::reply_deadline_ns())
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

        self.due_ns = Some(match arrivals.spacing {
            // All clients together arrive evenly: each in its turn.
            Spacing::Constant => self.constant_due(arrivals, self.arrivals),
            // Independent Poisson processes add up to one.
            Spacing::Poisson => {
                let gap = -(1.0 - self.random.f64()).ln() * self.period(arrivals);
                let last_ns = self.due_ns.unwrap_or(self.opens_ns);
                last_ns.saturating_add(nanoseconds(gap))
            }
        });
        self.arrivals += 1;
    }

    /// Mean time between the arrivals of this client, in seconds.
    fn period(&self, arrivals: &Arrivals) -> f64 {
        f64::from(self.plan.active_clients()) / arrivals.per_second
    }

    /// Due time of arrival number `arrival` of this client, from 0, at even intervals.
    fn constant_due(&self, arrivals: &Arrivals, arrival: u64) -> u64 {
        let clients = f64::from(self.plan.active_clients());
        let turn = f64::from(self.client) + arrival as f64 * clients;
        self.opens_ns
            .saturating_add(nanoseconds(turn / arrivals.per_second))
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
        if stop::end_ns() != u64::MAX {
            return 0;
        }
        let timeout_ns = self.plan.workload.timeout_ns;
        match self.plan.end_ns {
            // The next slice belongs to another server.
            Some(_) => timeout_ns.min(GRACE_NS),
            None => timeout_ns,
        }
    }

    fn end_of(&self, window: &Window) -> u64 {
        let end_ns = self.start_ns.saturating_add(window.end_ns);
        end_ns.min(stop::end_ns())
    }

    /// Takes all arrivals of the current window that are left: they will not be made. At most so many as the
    /// quota has beyond the `begun` requests.
    ///
    /// At a rate far beyond reach they are billions, so they are not taken one by one: those at even
    /// intervals are computed, and of a Poisson process, after a good number, their expectation.
    #[cold]
    pub(super) fn take_missed_arrivals(&mut self, begun: u64) -> MissedArrivals {
        let (Some(window), Some(arrivals)) = (self.window(), &self.plan.workload.arrivals) else {
            return MissedArrivals::default();
        };
        let measured = self.measured(window);
        let room = self.quota - begun;

        let missed = match arrivals.spacing {
            Spacing::Constant => {
                // The one that is due is the last that was scheduled.
                let next = self.arrivals.saturating_sub(1);
                let left = |at| {
                    self.constant_arrivals_before(arrivals, at)
                        .saturating_sub(next)
                };
                let all = left(measured.end).min(room);
                let of_ramp = left(measured.start).min(all);
                MissedArrivals {
                    all,
                    measured: all - of_ramp,
                }
            }
            Spacing::Poisson => self.take_poisson_arrivals(arrivals, &measured, room),
        };
        self.due_ns = Some(u64::MAX);
        missed
    }

    /// Number of arrivals at even intervals before the instant `at`.
    fn constant_arrivals_before(&self, arrivals: &Arrivals, at: u64) -> u64 {
        let seconds = at.saturating_sub(self.opens_ns) as f64 / 1e9;
        let turns = seconds * arrivals.per_second - f64::from(self.client);
        let mut count = whole(turns / f64::from(self.plan.active_clients()));

        // The due times are rounded to nanoseconds, so the quotient may be one off.
        while count > 0 && self.constant_due(arrivals, count - 1) >= at {
            count -= 1;
        }
        while self.constant_due(arrivals, count) < at {
            count += 1;
        }
        count
    }

    fn take_poisson_arrivals(
        &mut self,
        arrivals: &Arrivals,
        measured: &Range<u64>,
        room: u64,
    ) -> MissedArrivals {
        let mut missed = MissedArrivals::default();
        while let Some(due_ns) = self.due_ns.filter(|due| *due < measured.end) {
            if missed.all == room {
                return missed;
            }
            if missed.all == MAX_DRAWN_ARRIVALS {
                let per_ns = 1e-9 / self.period(arrivals);
                let expected = |from: u64| whole(measured.end.saturating_sub(from) as f64 * per_ns);
                let rest = expected(due_ns).min(room - missed.all);
                missed.all += rest;
                missed.measured += expected(due_ns.max(measured.start)).min(rest);
                return missed;
            }

            missed.all += 1;
            missed.measured += u64::from(due_ns >= measured.start);
            self.set_next_due(due_ns);
        }
        missed
    }
}

/// Arrivals that were due and will not be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MissedArrivals {
    pub(super) all: u64,
    /// Those due after the ramp.
    pub(super) measured: u64,
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

/// Converts a time ahead, at most to the end of the clock.
fn nanoseconds(seconds: f64) -> u64 {
    whole((seconds * 1e9).round())
}

/// Converts a number that is not negative, without its fraction.
fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count or a time, which saturates"
    )]
    let whole = number as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Driver, Workload};

    /// Arrivals left at `now`, taken one by one.
    fn one_by_one(schedule: &mut Schedule<'_>, room: u64) -> MissedArrivals {
        let window = schedule.window().unwrap();
        let measured = schedule.measured(window);
        let mut missed = MissedArrivals::default();
        while let Some(due) = schedule.due_ns.filter(|due| *due < measured.end)
            && missed.all < room
        {
            missed.all += 1;
            missed.measured += u64::from(due >= measured.start);
            schedule.set_next_due(due);
        }
        missed
    }

    #[test]
    fn missed_arrivals_are_those_that_would_be_taken_one_by_one() {
        for case in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(case);
            let start_ns = random.u64(0..2_000_000);
            let measure_ns = start_ns + random.u64(0..2_000_000);
            let spacing = random.choice([Spacing::Constant, Spacing::Poisson]);
            let plan = Plan {
                target: "127.0.0.1:7".parse().unwrap(),
                driver: Driver::Threads,
                clients: random.u32(1..5),
                part: None,
                source_addresses: Vec::new(),
                task_threads: 1,
                workload: Workload {
                    arrivals: Some(Arrivals {
                        per_second: 10_f64.powf(2.0 + 4.0 * random.f64()),
                        spacing: spacing.unwrap(),
                    }),
                    ..Workload::default()
                },
                windows: vec![Window {
                    start_ns,
                    measure_ns,
                    end_ns: measure_ns + random.u64(1..20_000_000),
                    requests: random.bool().then(|| random.u64(0..5_000)),
                }],
                end_ns: None,
            };

            let client = random.u32(0..plan.clients);
            let [mut closed, mut enumerated] = [case, case].map(|seed| {
                let mut schedule = Schedule::new(&plan, client, fastrand::Rng::with_seed(seed));
                schedule.start(1_000);
                schedule
            });
            let begun = random.u64(0..20).min(closed.quota);
            for _ in 0..begun {
                closed.set_next_due(0);
                enumerated.set_next_due(0);
            }

            let room = closed.quota - begun;
            let expected = one_by_one(&mut enumerated, room);
            assert_eq!(closed.take_missed_arrivals(begun), expected, "case {case}");
        }
    }
}
