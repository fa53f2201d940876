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

use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use echobench_protocol::error_reason;

use self::message::Message;
use self::schedule::{Progress, Schedule};
pub(crate) use self::tally::Recorder;
use self::tally::{Measured, RequestTimes, Tally};
use crate::Driver;
use crate::clock::SPIN_NS;
use crate::connect::PendingBytes;
use crate::failure::{ErrorKind, Failure};
use crate::plan::{Plan, RequestKind, Window};
use crate::report::LoadReport;
use crate::stop;

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
    /// Open the connection, then call [`Client::connect_ended`].
    Connect,
    /// Call [`Client::request`], send the frame of [`Client::message`], receive the reply, then call
    /// [`Client::exchange_ended`].
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
    /// Client with a buffer of its own for its samples.
    pub(crate) fn new(plan: &'a Plan, index: u32, report: &'a Mutex<LoadReport>) -> Self {
        let clients = match plan.driver {
            Driver::Processes => 1,
            Driver::Threads | Driver::Tasks => plan.clients,
        };
        Self::sharing(plan, index, &Rc::new(Recorder::of_client(report, clients)))
    }

    /// Client that shares a buffer with others of its thread.
    pub(crate) fn sharing(plan: &'a Plan, index: u32, recorder: &Rc<Recorder<'a>>) -> Self {
        let mut of_plan = fastrand::Rng::with_seed(plan.workload.seed);
        let own_seed = of_plan.u64(..) ^ (u64::from(index) << 32 | 0x9e37);
        let mut random = fastrand::Rng::with_seed(own_seed);

        Client {
            index,
            plan,
            message: Message::new(plan, index, &mut random),
            schedule: Schedule::new(plan, index, random.fork()),
            tally: Tally::new(plan, Rc::clone(recorder)),
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

    /// Instant from which the client connects before the start, if it does so: its place in the ramp-up that began at
    /// `began_ns`.
    pub(crate) fn first_connect_ns(&self, began_ns: u64) -> Option<u64> {
        let instant = began_ns.saturating_add(self.plan.ramp_up_of(self.index));
        self.connects_before_start().then_some(instant)
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
            if now < self.schedule.opens_ns().min(stop::end_ns()) && !self.schedule.is_open_loop() {
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
                let missed = self.schedule.take_missed_arrivals(begun);
                self.tally.missed(index, missed.all, missed.measured);
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

    /// Builds the next request.
    pub(crate) fn request(&mut self) {
        self.message.next(self.connection.requests == 0);
    }

    /// Time to stop waiting for the reply to a request sent at `sent_ns`.
    pub(crate) fn deadline(&self, sent_ns: u64) -> u64 {
        self.schedule.reply_deadline(sent_ns)
    }

    /// Reports an attempt to connect that began at `began_ns` and ended at `now`. Returns the connection, unless
    /// it took longer than the timeout.
    pub(crate) fn connect_ended<S>(
        &mut self,
        began_ns: u64,
        now: u64,
        opened: Result<S, Failure>,
    ) -> Option<S> {
        let timeout_ns = self.plan.workload.timeout_ns;
        let in_time = opened.and_then(|stream| {
            if now - began_ns < timeout_ns {
                return Ok(stream);
            }
            let timeout = Duration::from_nanos(timeout_ns);
            Err(Failure::connect_timed_out(self.plan.target, timeout))
        });

        match in_time {
            Ok(stream) => {
                self.connected(began_ns, now);
                Some(stream)
            }
            Err(failure) => {
                self.failed(began_ns, now, failure);
                None
            }
        }
    }

    /// Reports an exchange that began at `sent_ns` and ended at `received_ns`, with the complete reply if there
    /// was one. Returns the line to print about it, if any.
    ///
    /// A reply that arrives after its deadline is a timeout, whatever the driver noticed first.
    pub(crate) fn exchange_ended(
        &mut self,
        sent_ns: u64,
        received_ns: u64,
        outcome: Result<&[u8], Failure>,
    ) -> Option<String> {
        if outcome.is_err() && self.is_abandoned(sent_ns, received_ns) {
            self.connection.is_open = false;
            return None;
        }

        let checked = outcome.and_then(|reply| {
            self.message.check(reply)?;
            if received_ns < self.deadline(sent_ns) {
                Ok(reply)
            } else {
                Err(Failure::timed_out())
            }
        });

        match checked {
            Ok(reply) => {
                self.answered(sent_ns, received_ns);
                self.message.printed_line(reply)
            }
            Err(failure) => {
                self.failed(sent_ns, received_ns, failure);
                None
            }
        }
    }

    /// Checks for bytes that arrived before the first request on the connection is sent. Later ones need no
    /// check of their own: the number of a request cannot be guessed, so they are no reply to it.
    ///
    /// An error frame is no early reply: a server may refuse a connection before it reads from it.
    pub(crate) fn early_reply(&self, pending: impl FnOnce() -> PendingBytes) -> Option<Failure> {
        let expects_none = self.plan.workload.request_kind != RequestKind::Time;
        if !expects_none || self.connection.requests > 0 {
            return None;
        }

        let early = pending();
        let early = early.as_slice();
        (!early.is_empty() && error_reason(early).is_none()).then(|| {
            Failure::new(
                ErrorKind::EarlyReply,
                "the server sent bytes before it was sent a request",
            )
        })
    }

    /// Checks, after the last reply on a connection, for bytes that arrived after it. Those after other replies
    /// are an early reply to the next request.
    pub(crate) fn check_surplus(
        &self,
        pending: impl FnOnce() -> PendingBytes,
    ) -> Result<(), Failure> {
        let limit = self.plan.workload.requests_per_connection;
        if limit != Some(self.connection.requests + 1) {
            return Ok(());
        }
        match pending().as_slice().len() {
            0 => Ok(()),
            bytes => Err(message::surplus(bytes)),
        }
    }

    /// A request had no reply yet when the load was stopped: it counts as never begun.
    fn is_abandoned(&self, sent_ns: u64, now: u64) -> bool {
        let timeout_ns = sent_ns.saturating_add(self.plan.workload.timeout_ns);
        now >= stop::reply_deadline_ns() && now < timeout_ns
    }

    fn connected(&mut self, began_ns: u64, now: u64) {
        self.connection.is_open = true;
        self.connection.attempts += 1;
        self.connection.requests = 0;
        self.free_ns = now;
        self.tally
            .connected(self.schedule.window_index(), now - began_ns);
    }

    fn answered(&mut self, sent_ns: u64, received_ns: u64) {
        self.connection.requests += 1;
        self.retry.failures = 0;

        let window = self.schedule.window().expect("a request has a window");
        let times = RequestTimes {
            intended_ns: self.schedule.intended_ns(sent_ns),
            began_ns: sent_ns,
            ended_ns: received_ns,
        };
        let is_measured = times.intended_ns >= self.schedule.measured(window).start;
        let measured = is_measured.then(|| {
            let lag = self.schedule.lag(sent_ns, self.free_ns);
            let was_free = lag.as_ref().is_some_and(|lag| lag.was_free);
            Measured {
                is_open_loop: self.schedule.is_open_loop(),
                is_calm: was_free && self.sees_hiccups() && !self.is_disturbed,
                lag,
            }
        });
        self.tally
            .answered(self.schedule.window_index(), &times, measured);
        self.credit_windows(sent_ns, received_ns, true);

        self.free_ns = received_ns;
        self.is_disturbed = false;
        self.schedule.set_next_due(received_ns);
    }

    /// Counts a request begun at `began_ns` that failed at `now`, or the connection for it; the connection is
    /// gone.
    #[cold]
    fn failed(&mut self, began_ns: u64, now: u64, failure: Failure) {
        let was_open = self.connection.is_open;
        self.connection.is_open = false;
        if !was_open {
            self.connection.attempts += 1;
            self.retry.back_off(now);
        }
        if self.schedule.is_before_start() {
            self.tally.failed_before_start(failure);
            return;
        }

        self.retry.failed(began_ns);
        self.is_disturbed = false;
        let times = RequestTimes {
            intended_ns: self.schedule.intended_ns(began_ns),
            began_ns,
            ended_ns: now,
        };
        let window = self.schedule.window();
        // A request of the ramp that kept the client busy during the measurement is lost, too.
        let is_lost = window.is_some_and(|window| now >= self.schedule.measured(window).start);
        self.tally
            .failed(self.schedule.window_index(), &times, is_lost, failure);

        if was_open {
            self.credit_windows(began_ns, now, false);
        }
        if window.is_some() {
            self.schedule.set_next_due(now);
        }
    }

    /// Credits a request to every window that it was in flight in: throughput and busy connections of a window
    /// are those of one population, all that happened in it.
    fn credit_windows(&mut self, began_ns: u64, ended_ns: u64, has_reply: bool) {
        for (window, measured) in self.schedule.overlapping(ended_ns) {
            let from_ns = began_ns.max(measured.start);
            let busy_ns = ended_ns.min(measured.end).saturating_sub(from_ns);
            let is_reply_in_window = has_reply && measured.contains(&ended_ns);
            self.tally.credit(window, busy_ns, is_reply_in_window);
        }
    }

    /// Keeps the connection open until all clients have ended. Otherwise those that were served would make room,
    /// and one late reply each would hide the starvation of the others. Under churn, and where clients share a
    /// number of requests, they leave when they have made theirs: a server for few clients at a time then serves
    /// all in turn.
    pub(crate) fn stays_connected(&self) -> bool {
        let takes_turns = self.plan.workload.requests_per_connection.is_some()
            || self
                .plan
                .windows
                .last()
                .is_some_and(|window| window.requests.is_some());
        self.plan.end_ns.is_none() && !takes_turns
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
