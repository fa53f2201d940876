//! Decisions of one client, without input or output: threads, processes and tasks behave alike.
//!
//! [`Client`] is a state machine that joins three parts: the due times ([`schedule`]), the requests and
//! replies ([`message`]), and the results ([`tally`]). A driver performs each [`Action`] and reports
//! the result.

mod message;
mod schedule;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Mutex;

use self::message::Message;
use self::schedule::{Progress, Schedule};
use self::tally::{AnsweredRequest, Measured, Tally};
use crate::Driver;
use crate::clock::SPIN_NS;
use crate::failure::Failure;
use crate::plan::{Plan, Window};
use crate::report::LoadReport;

/// Pause after the first failed connection attempt; it doubles with each further one.
const FIRST_BACKOFF_NS: u64 = 1_000_000;
const MAX_BACKOFF_NS: u64 = 100_000_000;

/// Next step of a driver for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Wait until this instant, or a little longer.
    SleepUntil(u64),
    /// Wait until this instant as precisely as possible: a request is due.
    Pace(u64),
    /// Open the connection, then call [`Client::connected`] or [`Client::failed`].
    Connect,
    /// Call [`Client::request`], send the frame of [`Client::message`], receive the reply, then call
    /// [`Client::answered`] or [`Client::failed`].
    Exchange,
    /// Close the connection.
    Close,
    /// End: nothing more to do.
    Done,
}

/// One client of a plan.
pub(crate) struct Client<'a> {
    index: u32,
    plan: &'a Plan,
    schedule: Schedule<'a>,
    message: Message<'a>,
    tally: Tally<'a>,
    connection: Connection,
    retry: Retry,
    /// Time of the last reply, or of the connection.
    free_ns: u64,
    /// A hiccup occurred before the next request.
    is_disturbed: bool,
}

/// State of the client's connection.
#[derive(Default)]
struct Connection {
    is_open: bool,
    /// Answered requests on it.
    requests: u64,
    /// Attempts to connect so far.
    attempts: u64,
}

/// Consecutive failures, and the pause before the next attempt to connect.
#[derive(Default)]
struct Retry {
    failures: u32,
    failing_since_ns: u64,
    not_before_ns: u64,
}

impl Retry {
    fn failed(&mut self, began_ns: u64) {
        if self.failures == 0 {
            self.failing_since_ns = began_ns;
        }
        self.failures += 1;
    }

    fn back_off(&mut self, now: u64) {
        let pause = FIRST_BACKOFF_NS << self.failures.min(10);
        self.not_before_ns = now + pause.min(MAX_BACKOFF_NS);
    }
}

impl<'a> Client<'a> {
    pub(crate) fn new(plan: &'a Plan, index: u32, shared: &'a Mutex<LoadReport>) -> Self {
        let mut of_plan = fastrand::Rng::with_seed(plan.workload.seed);
        let own_seed = of_plan.u64(..) ^ (u64::from(index) << 32 | 0x9e37);
        let mut random = fastrand::Rng::with_seed(own_seed);

        Client {
            index,
            plan,
            message: Message::new(plan, index, &mut random),
            schedule: Schedule::new(plan, index, random.fork()),
            tally: Tally::new(plan, shared),
            connection: Connection::default(),
            retry: Retry::default(),
            free_ns: 0,
            is_disturbed: false,
        }
    }

    /// The connection is to be open before the first window. Not so under churn, where connecting is part
    /// of the measurement, and not if the client has no request in that window.
    pub(crate) fn connects_before_start(&self) -> bool {
        let active = self.plan.active_clients();
        let is_idle = self.index >= active;
        let has_share = |window: &Window| window.quota(self.index, active) > 0;
        is_idle
            || self.plan.workload.requests_per_connection.is_none()
                && self.plan.windows.first().is_some_and(has_share)
    }

    /// Number of this client, from 0.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Attempts to connect so far.
    pub(crate) fn connection_attempts(&self) -> u64 {
        self.connection.attempts
    }

    /// The current request, and the check of its reply.
    pub(crate) fn message(&self) -> &Message<'a> {
        &self.message
    }

    /// Sets the start of the windows.
    pub(crate) fn start(&mut self, start_ns: u64) {
        self.tally.reserve();
        self.schedule.start(start_ns);
    }

    /// Decides the step at the instant `now`.
    pub(crate) fn next(&mut self, now: u64) -> Action {
        loop {
            let limit = self.plan.workload.requests_per_connection;
            if self.connection.is_open && Some(self.connection.requests) == limit {
                self.connection.is_open = false;
                return Action::Close;
            }

            let Some(window) = self.schedule.window() else {
                return match self.schedule.plan_end_ns() {
                    Some(end) if now < end => Action::SleepUntil(end),
                    _ => Action::Done,
                };
            };
            // An open loop has a due time also for its first request, which is paced, not slept for.
            if now < self.schedule.opens_ns() && !self.schedule.is_open_loop() {
                return Action::SleepUntil(self.schedule.opens_ns());
            }
            if self.is_over(window, now) {
                self.is_disturbed = false;
                self.schedule.enter_next();
                continue;
            }

            if now < self.retry.not_before_ns {
                return Action::SleepUntil(self.retry.not_before_ns);
            }
            if let Some(due) = self.schedule.due_ns()
                && now < due
            {
                return Action::Pace(due);
            }
            return if self.connection.is_open {
                Action::Exchange
            } else {
                Action::Connect
            };
        }
    }

    /// This client begins no further request in the window.
    fn is_over(&mut self, window: &Window, now: u64) -> bool {
        if self.gives_up(window, now) {
            return true;
        }

        let index = self.schedule.window_index();
        let begun = self.tally.begun(index);
        match self.schedule.progress(begun, now, self.retry.not_before_ns) {
            Progress::Open => false,
            Progress::Over => true,
            Progress::OutOfTime => {
                self.count_missed_arrivals(window);
                true
            }
        }
    }

    /// In a window that ends by a number of requests, a server that no longer answers must not hold the
    /// client for ever: it gives up when at least two requests in a row have failed, and none has succeeded
    /// for a whole timeout.
    fn gives_up(&self, window: &Window, now: u64) -> bool {
        window.requests.is_some()
            && self.retry.failures > 1
            && now >= self.retry.failing_since_ns + self.plan.workload.timeout_ns
    }

    #[cold]
    fn count_missed_arrivals(&mut self, window: &Window) {
        let index = self.schedule.window_index();
        let measured = self.schedule.measured(window);
        while let Some(due_ns) = self
            .schedule
            .take_missed_arrival(self.tally.accounted(index))
        {
            self.tally.missed(index, due_ns >= measured.start);
        }
    }

    /// Builds the next request.
    pub(crate) fn request(&mut self) {
        self.message.next(self.connection.requests == 0);
    }

    /// Time to stop waiting for the reply to a request sent at `sent_ns`.
    pub(crate) fn deadline(&self, sent_ns: u64) -> u64 {
        self.schedule.reply_deadline(sent_ns)
    }

    /// Reports a connection that was begun at `began_ns` and established at `now`.
    pub(crate) fn connected(&mut self, began_ns: u64, now: u64) {
        self.connection.is_open = true;
        self.connection.attempts += 1;
        self.connection.requests = 0;
        self.free_ns = now;
        self.tally
            .connected(self.schedule.window_index(), now - began_ns);
    }

    /// Reports the right reply, complete at `received_ns`, to the request sent at `sent_ns`.
    pub(crate) fn answered(&mut self, sent_ns: u64, received_ns: u64) {
        self.connection.requests += 1;
        self.retry.failures = 0;

        let window = self.schedule.window().expect("a request has a window");
        let bounds = self.schedule.measured(window);
        let request = AnsweredRequest {
            intended_ns: self.schedule.intended_ns(sent_ns),
            sent_ns,
            received_ns,
            is_reply_in_window: bounds.contains(&received_ns),
        };
        let measured = (request.intended_ns >= bounds.start).then(|| {
            let lag = self.schedule.lag(sent_ns, self.free_ns);
            let was_free = lag.as_ref().is_some_and(|lag| lag.was_free);
            Measured {
                is_open_loop: self.schedule.is_open_loop(),
                is_calm: was_free && self.sees_hiccups() && !self.is_disturbed,
                lag,
            }
        });
        self.tally
            .answered(self.schedule.window_index(), &request, measured);

        self.free_ns = received_ns;
        self.is_disturbed = false;
        self.schedule.set_next_due(received_ns);
    }

    /// Reports a request begun at `began_ns` that failed at `now`, or the connection for it; the connection
    /// is gone.
    #[cold]
    pub(crate) fn failed(&mut self, began_ns: u64, now: u64, failure: Failure) {
        if !self.connection.is_open {
            self.connection.attempts += 1;
            self.retry.back_off(now);
        }
        self.connection.is_open = false;
        self.retry.failed(began_ns);
        self.is_disturbed = false;

        let intended_ns = self.schedule.intended_ns(began_ns);
        let window = self.schedule.window();
        // A request of the ramp that kept the client busy during the measurement is lost, too.
        let is_lost = window.is_some_and(|window| now >= self.schedule.measured(window).start);
        let index = self.schedule.window_index();
        self.tally
            .failed(index, (intended_ns, began_ns), is_lost, failure);

        if window.is_some() {
            self.schedule.set_next_due(now);
        }
    }

    /// Spin before a request is due. At a rate that would keep a whole CPU spinning, clients would only
    /// take it from each other.
    pub(crate) fn spins_before_due(&self) -> bool {
        let arrivals = self.plan.workload.arrivals;
        let rate = arrivals.map_or(0.0, |arrivals| arrivals.per_second);
        rate * (SPIN_NS as f64) < 1e9
    }

    /// The reason of a late request is known: tasks yield to each other either way.
    fn sees_hiccups(&self) -> bool {
        self.spins_before_due() || self.plan.driver == Driver::Tasks
    }

    /// Reports that something else had the CPU while the client waited for a request to be due.
    #[cold]
    pub(crate) fn hiccup(&mut self) {
        self.tally.hiccup(self.schedule.window_index());
        self.is_disturbed = true;
    }

    /// Adds the results, and the CPU time spent, to the report.
    pub(crate) fn finish(self, cpu_ns: u64) {
        let frame_bytes = self.message.frame().len() as u64;
        self.tally
            .finish(self.plan, self.index, frame_bytes, cpu_ns);
    }
}
