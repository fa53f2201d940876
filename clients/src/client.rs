//! What one client does next: the schedule, the counts and the frames, without any input or output,
//! so that threads, processes and tasks all behave alike.

use std::sync::Mutex;

use echobench_protocol::{HEADER_LEN, Header, error_reason};

use crate::clock::SPIN_NS;
use crate::plan::{Ask, Plan, Spacing, Window};
use crate::report::{ErrorKind, Report};

/// After a failed connection the next attempt waits, at first this long, then twice as long each time.
const FIRST_BACKOFF_NS: u64 = 1_000_000;
const LONGEST_BACKOFF_NS: u64 = 100_000_000;
/// Between the slices of an experiment, requests of an open loop that are late are sent for so long
/// after the end of theirs; then they are given up.
const GRACE_NS: u64 = 10_000_000;
/// A request that is sent this much later than it could have been counts as late.
const LATE_NS: u64 = 1_000_000;
/// Room for a line of the time service, which has 31 bytes here and may have others elsewhere.
const LINE_ROOM: usize = 256;
/// Samples all clients of a process may hold before they are folded into the histograms.
const SAMPLES_PER_PROCESS: usize = 1 << 20;

/// What a driver has to do for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Wait until this instant, or a little longer.
    SleepUntil(u64),
    /// Wait until this instant, as exactly as can be: a request is due.
    Pace(u64),
    /// Open the connection, then report [`Client::connected`] or [`Client::failed`].
    Connect,
    /// Make a [`Client::request`], send its [`Client::frame`], receive up to [`Client::reply_room`]
    /// bytes, then report to [`Client::answered`] or [`Client::failed`].
    Exchange,
    /// Close the connection.
    Close,
    /// Nothing more.
    Done,
}

/// A request, connection or reply that failed, and what was said about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

/// Counts of one window; becomes part of a [`WindowReport`](crate::WindowReport).
#[derive(Clone, Debug, Default)]
struct Tally {
    begun: u64,
    answered: u64,
    errors: Vec<(ErrorKind, u64)>,
    unsent: u64,
    replies_in_window: u64,
    lost: u64,
    lost_unsent: u64,
    hiccups: u64,
    late: u64,
    connections: u64,
    first_ns: u64,
    last_ns: u64,
}

#[derive(Clone, Copy)]
enum Measure {
    Latency,
    Service,
    Lag,
    CalmLag,
    Connect,
}

struct Sample {
    window: u32,
    measure: Measure,
    ns: u64,
}

/// One client of a plan.
pub(crate) struct Client<'a> {
    index: u32,
    plan: &'a Plan,
    shared: &'a Mutex<Report>,
    start_ns: u64,

    window: usize,
    opens_ns: u64,
    quota: u64,
    tallies: Vec<Tally>,
    samples: Vec<Sample>,
    samples_held: usize,

    connected: bool,
    connections: u64,
    on_connection: u64,
    /// When the next request is due: by the schedule of an open loop, or after the think time.
    due_ns: Option<u64>,
    arrivals: u64,
    /// A hiccup was seen before the next request.
    disturbed: bool,
    /// When the last reply came, or the connection was there.
    free_ns: u64,
    /// No new connection before this, after one that failed.
    not_before_ns: u64,
    failures: u32,
    failing_since_ns: u64,
    /// When the first request of all was due or sent, and how long until the first reply.
    first_asked_ns: Option<u64>,
    first_reply_ns: Option<u64>,

    work: fastrand::Rng,
    timing: fastrand::Rng,
    sequence: u64,
    frame: Vec<u8>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(plan: &'a Plan, index: u32, shared: &'a Mutex<Report>) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.workload.seed);
        let mut own = fastrand::Rng::with_seed(random.u64(..) ^ (u64::from(index) << 32 | 0x9e37));
        let mut frame = match plan.workload.ask {
            Ask::Bytes => vec![0; HEADER_LEN + plan.workload.payload_bytes as usize],
            Ask::Name => [&[0; HEADER_LEN], name(plan, index).as_bytes()].concat(),
            Ask::Time => Vec::new(),
        };
        if plan.workload.ask == Ask::Bytes {
            own.fill(&mut frame[HEADER_LEN..]);
        }
        let held = SAMPLES_PER_PROCESS / plan.clients.max(1) as usize;
        Client {
            index,
            plan,
            shared,
            start_ns: 0,
            window: 0,
            opens_ns: 0,
            quota: 0,
            tallies: vec![Tally::default(); plan.windows.len()],
            samples: Vec::new(),
            samples_held: held.clamp(64, 8192),
            connected: false,
            connections: 0,
            on_connection: 0,
            due_ns: None,
            arrivals: 0,
            disturbed: false,
            free_ns: 0,
            not_before_ns: 0,
            failures: 0,
            failing_since_ns: 0,
            first_asked_ns: None,
            first_reply_ns: None,
            work: own.fork(),
            timing: own.fork(),
            sequence: u64::from(index) << 40,
            frame,
        }
    }

    /// Whether the connection is to be there before the first window: not so under churn, where
    /// connecting is part of what is measured, and not where the client has nothing to ask in it.
    pub(crate) fn connects_ahead(&self) -> bool {
        let active = self.plan.active_clients();
        let has_share = |window: &Window| window.quota(self.index, active) > 0;
        let idle = self.index >= active;
        idle || self.plan.workload.requests_per_connection.is_none()
            && self.plan.windows.first().is_some_and(has_share)
    }

    /// The number of this client, from 0.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// How many connections it has tried to open.
    pub(crate) fn connections(&self) -> u64 {
        self.connections
    }

    /// The windows begin at `start_ns`.
    pub(crate) fn start(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
        self.samples.reserve(self.samples_held);
        self.enter(0);
    }

    /// What to do at the instant `now`.
    pub(crate) fn next(&mut self, now: u64) -> Action {
        loop {
            if self.connected
                && Some(self.on_connection) == self.plan.workload.requests_per_connection
            {
                self.connected = false;
                return Action::Close;
            }
            let Some(window) = self.plan.windows.get(self.window) else {
                return match self.end_ns() {
                    Some(end) if now < end => Action::SleepUntil(end),
                    _ => Action::Done,
                };
            };
            // A schedule has its own first instant, for which the clock is watched.
            if now < self.opens_ns && !self.is_open_loop() {
                return Action::SleepUntil(self.opens_ns);
            }
            if self.is_over(window, now) {
                self.enter(self.window + 1);
                continue;
            }
            if now < self.not_before_ns {
                return Action::SleepUntil(self.not_before_ns);
            }
            if let Some(due) = self.due_ns
                && now < due
            {
                return Action::Pace(due);
            }
            return if self.connected {
                Action::Exchange
            } else {
                Action::Connect
            };
        }
    }

    /// Makes the frame of the next request, if the client is to say anything.
    pub(crate) fn request(&mut self) {
        self.sequence += 1;
        let Some((place, payload)) = self.frame.split_first_chunk_mut::<HEADER_LEN>() else {
            return;
        };
        let is_first = self.on_connection == 0;
        let header = Header {
            work: self.plan.workload.work.draw(is_first, &mut self.work),
            payload_len: u32::try_from(payload.len()).expect("made from a number like this"),
            sequence: self.sequence,
        };
        *place = header.encode();
    }

    /// The frame of the request under way.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The most bytes that a right reply has: all echoes have as many.
    pub(crate) fn reply_room(&self) -> usize {
        match self.plan.workload.ask {
            Ask::Bytes | Ask::Name => self.frame.len(),
            Ask::Time => LINE_ROOM,
        }
    }

    /// When to stop waiting for the reply to a request sent at `sent_ns`.
    pub(crate) fn deadline(&self, sent_ns: u64) -> u64 {
        let patience = sent_ns.saturating_add(self.plan.workload.timeout_ns);
        let last_ns = self.plan.last_wait_ns().map(|last| self.start_ns + last);
        last_ns.map_or(patience, |last| patience.min(last))
    }

    /// A connection that was begun at `began_ns` is there.
    pub(crate) fn connected(&mut self, began_ns: u64, now: u64) {
        self.connected = true;
        self.connections += 1;
        self.on_connection = 0;
        self.free_ns = now;
        if let Some(tally) = self.tallies.get_mut(self.window) {
            tally.connections += 1;
        }
        self.sample(Measure::Connect, now - began_ns);
    }

    /// `reply` was received, and is whole.
    pub(crate) fn check(&self, reply: &[u8]) -> Result<(), Failure> {
        if reply == self.frame {
            return Ok(());
        }
        match self.plan.workload.ask {
            Ask::Bytes | Ask::Name => Err(self.unlike(reply)),
            Ask::Time => check_line(reply),
        }
    }

    /// The connection ended after `reply`, which has room left: its length, if that is how such a
    /// reply ends.
    #[cold]
    pub(crate) fn ended(&self, reply: &[u8]) -> Result<usize, Failure> {
        match self.plan.workload.ask {
            Ask::Bytes | Ask::Name => Err(self.cut_short(reply)),
            Ask::Time if reply.is_empty() => Err(Failure::new(
                ErrorKind::EarlyClose,
                "closed without a line of text",
            )),
            Ask::Time => Ok(reply.len()),
        }
    }

    /// The line about a right reply, if replies are to be printed.
    pub(crate) fn line(&self, reply: &[u8]) -> Option<String> {
        self.plan.workload.print_replies.then(|| {
            let text = String::from_utf8_lossy(&reply[self.frame.len().min(HEADER_LEN)..]);
            let name = name(self.plan, self.index);
            format!("{name} hears: {}\n", text.trim_end())
        })
    }

    #[cold]
    fn unlike(&self, reply: &[u8]) -> Failure {
        if let Some(reason) = error_reason(reply) {
            return Failure::new(
                ErrorKind::ProtocolError,
                format!("the server says: {reason}"),
            );
        }
        let at = reply
            .iter()
            .zip(&self.frame)
            .position(|(got, sent)| got != sent);
        Failure::new(
            ErrorKind::WrongBytes,
            format!(
                "byte {} of a reply of {} differs from the request",
                at.unwrap_or(reply.len()),
                self.frame.len()
            ),
        )
    }

    /// The connection ended after `reply`, which is shorter than the request.
    fn cut_short(&self, reply: &[u8]) -> Failure {
        if error_reason(reply).is_some() {
            return self.unlike(reply);
        }
        Failure::new(
            ErrorKind::EarlyClose,
            format!(
                "closed after {} of {} bytes of a reply",
                reply.len(),
                self.frame.len()
            ),
        )
    }

    /// The request sent at `sent_ns` was answered rightly at `received_ns`.
    pub(crate) fn answered(&mut self, sent_ns: u64, received_ns: u64) {
        let window = &self.plan.windows[self.window];
        let measure_ns = self.start_ns + window.measure_ns;
        let end_ns = self.start_ns.saturating_add(window.end_ns);
        let tally = &mut self.tallies[self.window];
        if tally.begun == 0 {
            tally.first_ns = sent_ns;
        }
        tally.begun += 1;
        tally.answered += 1;
        tally.last_ns = received_ns;
        tally.replies_in_window += u64::from((measure_ns..end_ns).contains(&received_ns));
        self.on_connection += 1;
        self.failures = 0;
        let intended_ns = self.intended(sent_ns);
        let asked_ns = *self.first_asked_ns.get_or_insert(intended_ns);
        self.first_reply_ns.get_or_insert(received_ns - asked_ns);
        if intended_ns >= measure_ns {
            self.sample(Measure::Latency, received_ns - intended_ns);
            if self.is_open_loop() {
                self.sample(Measure::Service, received_ns - sent_ns);
            }
            if let Some(due) = self.due_ns {
                // A pause may have ended before this window began.
                let due = due.max(self.opens_ns);
                self.sample(Measure::Lag, sent_ns - due);
                // Before the last reply it could not have been sent.
                let possible_ns = due.max(self.free_ns);
                if possible_ns == due && self.sees_hiccups() && !self.disturbed {
                    self.sample(Measure::CalmLag, sent_ns - due);
                }
                let late = sent_ns.saturating_sub(possible_ns) >= LATE_NS;
                self.tallies[self.window].late += u64::from(late);
            }
        }
        self.free_ns = received_ns;
        self.disturbed = false;
        self.schedule_next(received_ns);
    }

    /// Whether to watch the clock before a request is due. Where that would take a whole CPU, clients
    /// would only keep each other from it.
    pub(crate) fn watches_clock(&self) -> bool {
        let rate = self
            .plan
            .workload
            .arrivals
            .map_or(0.0, |arrivals| arrivals.per_second);
        rate * (SPIN_NS as f64) < 1e9
    }

    /// Whether it is known what kept a request from being sent in time: a task yields to others either way.
    fn sees_hiccups(&self) -> bool {
        self.watches_clock() || self.plan.driver == crate::Driver::Tasks
    }

    /// Something else had the CPU while the client was watching the clock, or was to be woken for it.
    #[cold]
    pub(crate) fn hiccup(&mut self) {
        self.tallies[self.window].hiccups += 1;
        self.disturbed = true;
    }

    /// The request begun at `began_ns`, or the connection for it, failed; the connection is gone.
    #[cold]
    pub(crate) fn failed(&mut self, began_ns: u64, now: u64, failure: Failure) {
        let Failure { kind, message } = failure;
        self.shared
            .lock()
            .expect("no client panics")
            .message(kind, || message);
        if !self.connected {
            self.connections += 1;
            let backoff = FIRST_BACKOFF_NS << self.failures.min(10);
            self.not_before_ns = now + backoff.min(LONGEST_BACKOFF_NS);
        }
        self.connected = false;
        if self.failures == 0 {
            self.failing_since_ns = began_ns;
        }
        self.failures += 1;
        self.disturbed = false;
        let intended_ns = self.intended(began_ns);
        let Some(tally) = self.tallies.get_mut(self.window) else {
            return;
        };
        if tally.begun == 0 {
            tally.first_ns = began_ns;
        }
        tally.begun += 1;
        let measure_ns = self.start_ns + self.plan.windows[self.window].measure_ns;
        self.first_asked_ns.get_or_insert(intended_ns);
        // Also one that was begun before and has kept the client waiting.
        tally.lost += u64::from(now >= measure_ns);
        match tally.errors.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => tally.errors.push((kind, 1)),
        }
        self.schedule_next(now);
    }

    /// Adds what this client did, and the CPU time it took for it, to the shared report.
    pub(crate) fn finish(mut self, cpu_ns: u64) {
        self.fold();
        let mut shared = self.shared.lock().expect("no client panics");
        shared.cpu_ns += cpu_ns;
        let (mut all_planned, mut all_answered) = (0, 0);
        for (index, tally) in self.tallies.iter().enumerate() {
            let window = &self.plan.windows[index];
            let unsent = match window.requests {
                Some(_) => window.quota(self.index, self.plan.active_clients()) - tally.begun,
                None => tally.unsent,
            };
            let planned = tally.begun + unsent;
            all_planned += planned;
            all_answered += tally.answered;
            let into = &mut shared.windows[index];
            into.planned += planned;
            into.unsent += unsent;
            into.answered += tally.answered;
            into.bytes += tally.answered * self.frame.len() as u64;
            into.replies_in_window += tally.replies_in_window;
            into.lost += tally.lost;
            into.lost_unsent += tally.lost_unsent;
            into.hiccups += tally.hiccups;
            into.late += tally.late;
            into.connections += tally.connections;
            for (kind, count) in &tally.errors {
                *into.errors.entry(*kind).or_default() += count;
            }
            into.last_ns = into.last_ns.max(tally.last_ns);
            if tally.begun > 0 && (into.first_ns == 0 || tally.first_ns < into.first_ns) {
                into.first_ns = tally.first_ns;
            }
        }
        if all_planned > 0 {
            shared.answered_by_client.insert(self.index, all_answered);
            if let Some(first_reply_ns) = self.first_reply_ns {
                shared
                    .first_reply_by_client
                    .insert(self.index, first_reply_ns);
            }
        }
    }

    fn is_open_loop(&self) -> bool {
        self.plan.workload.arrivals.is_some()
    }

    /// From when the latency of the request that was begun at `began_ns` counts.
    fn intended(&self, began_ns: u64) -> u64 {
        self.due_ns
            .filter(|_| self.is_open_loop())
            .unwrap_or(began_ns)
    }

    fn end_ns(&self) -> Option<u64> {
        self.plan.end_ns.map(|end| self.start_ns + end)
    }

    fn enter(&mut self, window: usize) {
        self.window = window;
        self.disturbed = false;
        let Some(window) = self.plan.windows.get(window) else {
            return;
        };
        let start_ns = self.start_ns + window.start_ns;
        let ramp = window.measure_ns - window.start_ns;
        // An open loop spreads the clients by its schedule.
        let staggered = ramp > 0 && !self.is_open_loop();
        let stagger = if staggered {
            self.timing.u64(0..ramp)
        } else {
            0
        };
        self.opens_ns = start_ns + stagger;
        self.quota = window.quota(self.index, self.plan.active_clients());
        if self.is_open_loop() {
            self.due_ns = None;
            self.arrivals = 0;
            self.schedule_next(self.opens_ns);
        }
    }

    /// Sets when the request after the one that ended at `now` is due.
    fn schedule_next(&mut self, now: u64) {
        let (workload, arrivals) = (&self.plan.workload, self.arrivals);
        match &workload.arrivals {
            Some(schedule) => {
                let clients = f64::from(self.plan.active_clients());
                let opens_ns = self.opens_ns;
                self.due_ns = Some(match schedule.spacing {
                    // All clients together arrive evenly: each in its turn.
                    Spacing::Constant => {
                        let turn = f64::from(self.index) + arrivals as f64 * clients;
                        opens_ns + nanoseconds(turn / schedule.per_second)
                    }
                    // Independent Poisson processes add up to one.
                    Spacing::Poisson => {
                        let gap = -(1.0 - self.timing.f64()).ln() * clients / schedule.per_second;
                        self.due_ns.unwrap_or(opens_ns) + nanoseconds(gap)
                    }
                });
                self.arrivals += 1;
            }
            None if workload.think_ns > 0 => self.due_ns = Some(now + workload.think_ns),
            None => {}
        }
    }

    /// Whether this client begins no further request in the window. In an open loop every request
    /// that was due before the end is still made, however late, as long as there is any time.
    fn is_over(&mut self, window: &Window, now: u64) -> bool {
        let end_ns = self.start_ns.saturating_add(window.end_ns);
        let due_ns = self.due_ns.unwrap_or(now);
        if self.tallies[self.window].begun >= self.quota || self.gives_up(now, window) {
            return true;
        }
        if !self.is_open_loop() {
            return now.max(due_ns).max(self.not_before_ns) >= end_ns;
        }
        let grace_ns = match self.plan.end_ns {
            // The next slice belongs to another arm.
            Some(_) => self.plan.workload.timeout_ns.min(GRACE_NS),
            None => self.plan.workload.timeout_ns,
        };
        if due_ns < end_ns && now >= end_ns.saturating_add(grace_ns) {
            self.give_up_arrivals(window, end_ns);
            return true;
        }
        self.due_ns.unwrap_or(now) >= end_ns
    }

    /// Counts the requests that were due and will not be made.
    #[cold]
    fn give_up_arrivals(&mut self, window: &Window, end_ns: u64) {
        let measure_ns = self.start_ns + window.measure_ns;
        while let Some(due) = self.due_ns.filter(|due| *due < end_ns) {
            let tally = &mut self.tallies[self.window];
            if tally.begun + tally.unsent >= self.quota {
                return;
            }
            tally.unsent += 1;
            tally.lost += u64::from(due >= measure_ns);
            tally.lost_unsent += u64::from(due >= measure_ns);
            self.schedule_next(due);
        }
    }

    /// Where the window ends by a number of requests, a server that no longer answers must not hold
    /// the client for ever: it gives up when the second request in a row has failed,
    /// and none has succeeded for a whole timeout.
    fn gives_up(&self, now: u64, window: &Window) -> bool {
        window.requests.is_some()
            && self.failures > 1
            && now >= self.failing_since_ns + self.plan.workload.timeout_ns
    }

    fn sample(&mut self, measure: Measure, ns: u64) {
        let window = u32::try_from(self.window).expect("windows are few");
        self.samples.push(Sample {
            window,
            measure,
            ns,
        });
        if self.samples.len() >= self.samples_held {
            self.fold();
        }
    }

    /// Moves the samples into the shared histograms.
    fn fold(&mut self) {
        let mut shared = self.shared.lock().expect("no client panics");
        for sample in self.samples.drain(..) {
            let Some(window) = shared.windows.get_mut(sample.window as usize) else {
                continue;
            };
            let histogram = match sample.measure {
                Measure::Latency => &mut window.latency,
                Measure::Service => &mut window.service,
                Measure::Lag => &mut window.lag,
                Measure::CalmLag => &mut window.calm_lag,
                Measure::Connect => &mut window.connect,
            };
            histogram.record(sample.ns).expect("the histogram grows");
        }
    }
}

/// What client `index` is called.
fn name(plan: &Plan, index: u32) -> String {
    format!("{} {}", plan.driver.one(), u64::from(index) + 1)
}

/// Whether a reply is what the time service says: a line of text, and nothing else.
fn check_line(reply: &[u8]) -> Result<(), Failure> {
    let line = reply.strip_suffix(b"\n").map(<[u8]>::trim_ascii_end);
    match line {
        Some(line) if !line.is_empty() && line.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
            Ok(())
        }
        _ => Err(Failure::new(
            ErrorKind::WrongBytes,
            format!("{} bytes that are not one line of text", reply.len()),
        )),
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

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use echobench_protocol::{Limits, Reason, Work, error_frame};

    use super::Action::{Close, Connect, Done, Exchange};
    use super::*;
    use crate::plan::{Arrivals, Driver, Workload};
    use crate::report::WindowReport;

    const MS: u64 = 1_000_000;
    /// When the windows of these tests start: the clock never shows 0.
    const START: u64 = 1_000 * MS;

    fn window(start: u64, measure: u64, end: u64) -> Window {
        Window {
            start_ns: start * MS,
            measure_ns: measure * MS,
            end_ns: end * MS,
            requests: None,
        }
    }

    fn quota(requests: u64) -> Window {
        Window {
            start_ns: 0,
            measure_ns: 0,
            end_ns: u64::MAX,
            requests: Some(requests),
        }
    }

    fn plan(windows: Vec<Window>) -> Plan {
        Plan {
            target: "127.0.0.1:7".parse().unwrap(),
            driver: Driver::Threads,
            clients: 1,
            task_threads: 1,
            workload: Workload {
                timeout_ns: 50 * MS,
                ..Workload::default()
            },
            windows,
            end_ns: None,
        }
    }

    fn shared(plan: &Plan) -> Mutex<Report> {
        Mutex::new(Report::empty(plan.windows.len()))
    }

    /// How an attempt to connect or to exchange ends, and after how long.
    #[derive(Clone, Copy)]
    enum Fate {
        Works(u64),
        Fails(u64),
    }

    /// Does for a client what a driver does, with a clock that jumps and a server that is `fate`.
    /// Returns every action and when it came.
    fn play(
        client: &mut Client<'_>,
        mut now: u64,
        mut fate: impl FnMut(Action) -> Fate,
    ) -> Vec<(u64, Action)> {
        let mut script = Vec::new();
        loop {
            let action = client.next(now);
            script.push((now, action));
            assert!(script.len() < 100_000, "a client without end");
            match action {
                Action::SleepUntil(instant) | Action::Pace(instant) => {
                    assert!(instant > now, "nothing to sleep for");
                    now = instant;
                }
                Connect | Exchange => {
                    if action == Exchange {
                        client.request();
                    }
                    now = attempt(client, action, now, fate(action));
                }
                Close => {}
                Done => return script,
            }
        }
    }

    fn attempt(client: &mut Client<'_>, action: Action, began: u64, fate: Fate) -> u64 {
        match (fate, action) {
            (Fate::Fails(ns), _) => {
                let failure = Failure::new(ErrorKind::Reset, "as it was to be");
                client.failed(began, began + ns, failure);
                began + ns
            }
            (Fate::Works(ns), Connect) => {
                client.connected(began, began + ns);
                began + ns
            }
            (Fate::Works(ns), _) => {
                client.answered(began, began + ns);
                began + ns
            }
        }
    }

    /// Plays one client from the start on, and returns its actions and what it reports.
    fn whole(plan: &Plan, index: u32, fate: impl FnMut(Action) -> Fate) -> (Script, Report) {
        let shared = shared(plan);
        let mut client = Client::new(plan, index, &shared);
        client.start(START);
        let script = play(&mut client, START, fate);
        client.finish(0);
        (script, shared.into_inner().unwrap())
    }

    type Script = Vec<(u64, Action)>;

    fn works(_: Action) -> Fate {
        Fate::Works(MS)
    }

    fn actions(script: &Script) -> Vec<Action> {
        script.iter().map(|&(_, action)| action).collect()
    }

    fn moments(script: &Script, of: Action) -> Vec<u64> {
        let moments = script.iter().filter(|&&(_, action)| action == of);
        moments.map(|&(at, _)| at).collect()
    }

    fn balanced(window: &WindowReport) {
        let accounted = window.answered + window.failed() + window.unsent;
        assert_eq!(window.planned, accounted, "{window:?}");
    }

    #[test]
    fn a_connection_is_kept() {
        let (script, report) = whole(&plan(vec![quota(3)]), 0, works);
        assert_eq!(
            actions(&script),
            [Connect, Exchange, Exchange, Exchange, Done]
        );
        let window = &report.windows[0];
        assert_eq!((window.planned, window.answered, window.unsent), (3, 3, 0));
        assert_eq!((window.connections, window.connect.len()), (1, 1));
        assert_eq!(window.bytes, 3 * (HEADER_LEN as u64 + 64));
        assert_eq!(window.first_ns, START + MS);
        assert_eq!(window.last_ns, START + 4 * MS);
    }

    #[test]
    fn churn_connects_exchanges_and_closes() {
        let mut plan = plan(vec![quota(3)]);
        plan.workload.requests_per_connection = Some(1);
        let (script, report) = whole(&plan, 0, works);
        let one = [Connect, Exchange, Close];
        let expected = [&one[..], &one, &one, &[Done]].concat();
        assert_eq!(actions(&script), expected);
        assert_eq!(report.windows[0].connections, 3);

        plan.workload.requests_per_connection = Some(2);
        let (script, report) = whole(&plan, 0, works);
        assert_eq!(
            actions(&script),
            [Connect, Exchange, Exchange, Close, Connect, Exchange, Done]
        );
        assert_eq!(report.windows[0].connections, 2);
    }

    #[test]
    fn clients_share_the_requests() {
        let mut plan = plan(vec![quota(7)]);
        plan.clients = 3;
        let shared = shared(&plan);
        for index in 0..3 {
            let mut client = Client::new(&plan, index, &shared);
            client.start(START);
            let script = play(&mut client, START, works);
            let share = if index == 0 { 3 } else { 2 };
            assert_eq!(moments(&script, Exchange).len(), share);
            client.finish(0);
        }
        let report = shared.into_inner().unwrap();
        assert_eq!(report.windows[0].planned, 7);
        assert_eq!(report.windows[0].answered, 7);
        assert_eq!(report.windows[0].latency.len(), 7);
        let by_client: Vec<_> = report.answered_by_client.into_iter().collect();
        assert_eq!(by_client, [(0, 3), (1, 2), (2, 2)]);
    }

    #[test]
    fn a_client_without_a_share_keeps_away() {
        let mut plan = plan(vec![quota(1)]);
        plan.clients = 2;
        let shared = shared(&plan);
        let mut client = Client::new(&plan, 1, &shared);
        assert!(!client.connects_ahead());
        client.start(START);
        assert_eq!(actions(&play(&mut client, START, works)), [Done]);
        client.finish(0);
        let report = shared.into_inner().unwrap();
        assert_eq!(report.windows[0].planned, 0);
        assert_eq!(report.clients_never_served(), 0);
        assert!(Client::new(&plan, 0, &Mutex::default()).connects_ahead());
    }

    /// When a client begins in each of its windows, and the work it asks for.
    fn traffic(seed: u64, index: u32) -> (Vec<u64>, Vec<Work>) {
        let mut plan = plan(
            (0..20)
                .map(|n| window(n * 30, n * 30 + 10, n * 30 + 20))
                .collect(),
        );
        plan.clients = 2;
        plan.workload.seed = seed;
        plan.workload.work = "none=1,block:1ms=1".parse().unwrap();
        let shared = shared(&plan);
        let mut client = Client::new(&plan, index, &shared);
        client.start(START);
        client.connected(START, START);
        let mut opened = Vec::new();
        while let Action::SleepUntil(at) = client.next(opened.last().copied().unwrap_or(START)) {
            opened.push(at);
            client.enter(client.window + 1);
        }
        let work = (0..200).map(|_| {
            client.request();
            let header = client.frame().first_chunk().unwrap();
            Header::decode(header, &Limits::default()).unwrap().work
        });
        (opened, work.collect())
    }

    #[test]
    fn the_seed_decides_moments_and_work() {
        let (moments, work) = traffic(5, 0);
        assert_eq!(moments.len(), 20);
        for (window, at) in (0..).zip(&moments) {
            let begin = START + window * 30 * MS;
            assert!((begin..begin + 10 * MS).contains(at), "{window}: {at}");
        }
        assert_eq!(traffic(5, 0), (moments.clone(), work.clone()));
        for other in [traffic(6, 0), traffic(5, 1)] {
            assert_ne!(other.0, moments);
            assert_ne!(other.1, work);
        }
    }

    #[test]
    fn every_frame_is_unlike_every_other() {
        let mut plan = plan(vec![quota(10)]);
        plan.clients = 2;
        let shared = shared(&plan);
        let mut seen = std::collections::HashSet::new();
        for index in 0..2 {
            let mut client = Client::new(&plan, index, &shared);
            for _ in 0..10 {
                client.request();
                assert_eq!(client.frame().len(), client.reply_room());
                assert!(seen.insert(client.frame().to_vec()));
            }
        }
    }

    #[test]
    fn the_ramp_is_accounted_for_but_not_measured() {
        let plan = plan(vec![window(0, 100, 120)]);
        let (script, report) = whole(&plan, 0, works);
        let begun = moments(&script, Exchange);
        let of_ramp = begun.iter().filter(|&&at| at < START + 100 * MS).count() as u64;
        assert!(of_ramp > 0, "the seed gives this client some of the ramp");
        let window = &report.windows[0];
        assert_eq!(window.planned, begun.len() as u64);
        assert_eq!(window.answered, window.planned);
        assert_eq!(window.latency.len(), window.planned - of_ramp);
        let replies = begun.iter().map(|at| at + MS);
        let in_window = replies.filter(|at| (START + 100 * MS..START + 120 * MS).contains(at));
        assert_eq!(window.replies_in_window, in_window.count() as u64);
        assert_eq!(window.lost, 0);

        // Failures that kept the client waiting after the ramp are values that nobody knows.
        let (script, report) = whole(&plan, 0, |action| match action {
            Exchange => Fate::Fails(MS / 10),
            _ => Fate::Works(MS),
        });
        let begun = moments(&script, Exchange);
        let late = |at: &&u64| **at + MS / 10 >= START + 100 * MS;
        let lost = begun.iter().filter(late).count() as u64;
        let window = &report.windows[0];
        assert_eq!((window.failed(), window.lost), (begun.len() as u64, lost));
        assert!(lost < window.failed());
    }

    #[test]
    fn no_request_begins_after_the_end() {
        let windows = vec![window(0, 0, 10), window(15, 15, 25)];
        let (script, report) = whole(&plan(windows.clone()), 0, |action| match action {
            Exchange => Fate::Works(3 * MS + 1),
            _ => Fate::Works(MS),
        });
        for at in moments(&script, Exchange) {
            let at = at - START;
            let inside = |w: &Window| (w.start_ns..w.end_ns).contains(&at);
            assert!(windows.iter().any(inside), "{at}");
        }
        // 1, 4, 7 ms and a bit; the reply to the last comes too late to count as in the window.
        let first = &report.windows[0];
        assert_eq!((first.answered, first.replies_in_window), (3, 2));
        assert_eq!(first.latency.len(), 3);
        assert_eq!(report.windows[1].answered, 4);

        // A pause that reaches beyond the end is the end.
        let mut thinking = plan(windows);
        thinking.workload.think_ns = 8 * MS;
        let (script, _) = whole(&thinking, 0, works);
        let begun = moments(&script, Exchange);
        let in_first = begun.iter().filter(|&&at| at < START + 15 * MS);
        assert_eq!(in_first.count(), 1, "{begun:?}");
    }

    #[test]
    fn a_pause_separates_requests() {
        let mut plan = plan(vec![quota(3)]);
        plan.workload.think_ns = 5 * MS;
        let (script, _) = whole(&plan, 0, works);
        let expected = [1, 7, 13].map(|ms| START + ms * MS);
        assert_eq!(moments(&script, Exchange), expected);
    }

    #[test]
    fn failed_connects_back_off() {
        let short = plan(vec![window(0, 0, 20)]);
        let (script, report) = whole(&plan(vec![window(0, 0, 500)]), 0, |_| Fate::Fails(0));
        let tries = moments(&script, Connect);
        let pauses: Vec<_> = tries
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) / MS)
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 100, 100, 100]);
        let window = &report.windows[0];
        assert_eq!((window.planned, window.failed()), (11, 11));
        assert_eq!((window.connections, window.lost), (0, 11));
        assert_eq!(report.clients_never_served(), 1);
        assert_eq!(report.messages[&ErrorKind::Reset], "as it was to be");

        // An answer makes the next pause short again.
        let mut fates = [
            Fate::Fails(0),
            Fate::Fails(0),
            Fate::Works(0),
            Fate::Works(0),
            Fate::Fails(0),
        ]
        .into_iter();
        let fate = |_| fates.next().unwrap_or(Fate::Fails(0));
        let (script, _) = whole(&short, 0, fate);
        let tries = moments(&script, Connect);
        let expected = [0, 1, 3, 3, 5, 9, 17].map(|ms| START + ms * MS);
        assert_eq!(tries, expected);
    }

    #[test]
    fn a_quota_is_given_up_after_a_timeout_without_success() {
        let (script, report) = whole(&plan(vec![quota(100)]), 0, |_| Fate::Fails(0));
        let tries = moments(&script, Connect);
        assert_eq!(tries.len(), 6);
        assert!(tries.iter().all(|at| *at < START + 50 * MS));
        let window = &report.windows[0];
        assert_eq!((window.planned, window.failed()), (100, 6));
        assert_eq!((window.answered, window.unsent), (0, 94));

        // One that is answered now and then goes on.
        let mut count = 0;
        let (_, report) = whole(&plan(vec![quota(100)]), 0, |action| {
            count += 1;
            match action {
                Exchange if count % 3 == 0 => Fate::Fails(20 * MS),
                _ => Fate::Works(20 * MS),
            }
        });
        assert_eq!(report.windows[0].unsent, 0);
        assert!(report.windows[0].failed() > 10);
        balanced(&report.windows[0]);
    }

    #[test]
    fn a_window_of_time_is_not_given_up() {
        let (script, report) = whole(&plan(vec![window(0, 0, 1_000)]), 0, |_| Fate::Fails(MS));
        let last = moments(&script, Connect).pop().unwrap();
        assert!(last > START + 850 * MS, "{last}");
        assert_eq!(report.windows[0].unsent, 0);
    }

    #[test]
    fn connections_stay_until_the_end_of_the_plan() {
        let mut plan = plan(vec![window(0, 0, 10)]);
        plan.end_ns = Some(100 * MS);
        let (script, _) = whole(&plan, 0, works);
        assert!(moments(&script, Close).is_empty());
        let end = START + 100 * MS;
        assert_eq!(
            script[script.len() - 2..],
            [(START + 10 * MS, Action::SleepUntil(end)), (end, Done)]
        );
    }

    #[test]
    fn a_deadline_is_the_timeout_or_the_end() {
        let mut plan = plan(vec![window(0, 0, 10)]);
        let shared = shared(&plan);
        let mut client = Client::new(&plan, 0, &shared);
        client.start(START);
        assert_eq!(client.deadline(START + MS), START + 51 * MS);
        assert_eq!(client.deadline(u64::MAX), u64::MAX);
        drop(client);
        // A little earlier than others close their connections.
        plan.clients = 10;
        for (end, deadline) in [(20, 14), (55, 49), (80, 51)] {
            plan.end_ns = Some(end * MS);
            let mut client = Client::new(&plan, 0, &shared);
            client.start(START);
            assert_eq!(client.deadline(START + MS), START + deadline * MS);
        }
    }

    #[test]
    fn what_is_wrong_with_a_reply_has_its_name() {
        let plan = plan(vec![quota(1)]);
        let shared = shared(&plan);
        let mut client = Client::new(&plan, 0, &shared);
        client.request();
        let right = client.frame().to_vec();
        assert!(client.check(&right).is_ok());
        for at in 0..right.len() {
            let mut reply = right.clone();
            reply[at] ^= 0x80;
            let failure = client.check(&reply).unwrap_err();
            assert_eq!(failure.kind, ErrorKind::WrongBytes);
            assert!(failure.message.starts_with(&format!("byte {at} of")));
        }
        // The reply to the request before.
        client.request();
        assert_eq!(
            client.check(&right).unwrap_err().kind,
            ErrorKind::WrongBytes
        );

        for reason in Reason::ALL {
            let mut reply = error_frame(reason, 1);
            let failure = client.cut_short(&reply);
            assert_eq!(failure.kind, ErrorKind::ProtocolError);
            assert!(failure.message.contains(&reason.to_string()));
            reply.resize(client.reply_room(), 0);
            let failure = client.check(&reply).unwrap_err();
            assert_eq!(failure.kind, ErrorKind::ProtocolError);
        }

        for length in [0, 1, HEADER_LEN, client.reply_room() - 1] {
            let failure = client.cut_short(&client.frame()[..length]);
            assert_eq!(failure.kind, ErrorKind::EarlyClose);
            let words = format!("{length} of {} bytes", client.reply_room());
            assert!(failure.message.contains(&words), "{}", failure.message);
        }
    }

    #[test]
    fn the_time_is_one_line_of_text() {
        let mut plan = plan(vec![quota(1)]);
        plan.workload.ask = Ask::Time;
        let shared = shared(&plan);
        let mut client = Client::new(&plan, 0, &shared);
        client.request();
        assert!(client.frame().is_empty());
        for right in ["Sun, 06 Nov 1994 08:49:37 GMT\r\n", "noon\n"] {
            assert_eq!(client.ended(right.as_bytes()).unwrap(), right.len());
            assert!(client.check(right.as_bytes()).is_ok(), "{right:?}");
        }
        assert_eq!(client.ended(b"").unwrap_err().kind, ErrorKind::EarlyClose);
        for wrong in ["noon", "\r\n", "noon\nand more\n", "no\0on\n"] {
            let failure = client.check(wrong.as_bytes()).unwrap_err();
            assert_eq!(failure.kind, ErrorKind::WrongBytes, "{wrong:?}");
        }
    }

    /// Some plan, and how often its server fails.
    fn random_plan(random: &mut fastrand::Rng) -> (Plan, f64) {
        let mut windows = Vec::new();
        let mut at = 0;
        for _ in 0..random.u64(1..5) {
            let ramp = random.u64(0..10);
            let length = random.u64(1..40);
            let mut next = window(at, at + ramp, at + ramp + length);
            if random.u8(0..4) == 0 {
                next.requests = Some(random.u64(0..20));
            }
            windows.push(next);
            at += ramp + length + random.u64(0..10);
        }
        if random.bool() {
            let last = windows.last_mut().unwrap();
            last.requests = Some(random.u64(0..60));
            last.end_ns = u64::MAX;
        }
        let mut plan = plan(windows);
        plan.clients = random.u32(1..5);
        plan.workload.seed = random.u64(..);
        plan.workload.think_ns = random.u64(0..3) * MS / 2;
        if random.bool() {
            plan.workload.requests_per_connection = Some(random.u64(1..5));
        }
        if random.bool() {
            plan.end_ns = Some((at + 20) * MS);
        }
        let failing = [0.0, 0.05, 0.5, 0.95, 1.0];
        (plan, random.choice(failing).unwrap())
    }

    /// What the windows' reports must say, counted beside the client.
    #[derive(Clone, Default)]
    struct Expected {
        begun: u64,
        answered: u64,
        measured: u64,
    }

    #[test]
    fn everything_planned_is_accounted_for() {
        for case in 0..500 {
            let mut random = fastrand::Rng::with_seed(case);
            let (plan, failing) = random_plan(&mut random);
            let shared = shared(&plan);
            let mut expected = vec![Expected::default(); plan.windows.len()];
            for index in 0..plan.clients {
                let mut client = Client::new(&plan, index, &shared);
                if client.connects_ahead() {
                    let fate = random_fate(&mut random, failing);
                    expected[0].begun += u64::from(matches!(fate, Fate::Fails(_)));
                    attempt(&mut client, Connect, START - 10 * MS, fate);
                }
                client.start(START);
                let mut fates = Vec::new();
                let script = play(&mut client, START, |action| {
                    let fate = random_fate(&mut random, failing);
                    fates.push((action, fate));
                    fate
                });
                client.finish(0);
                let attempts = script
                    .iter()
                    .filter(|(_, action)| matches!(action, Connect | Exchange));
                for (&(at, action), (_, fate)) in attempts.zip(fates) {
                    count(&plan, &mut expected, at - START, action, fate);
                }
            }
            let report = shared.into_inner().unwrap();
            for ((window, report), expected) in
                plan.windows.iter().zip(&report.windows).zip(expected)
            {
                balanced(report);
                assert_eq!(report.planned, window.requests.unwrap_or(expected.begun));
                assert_eq!(
                    report.planned - report.unsent,
                    expected.begun,
                    "case {case}"
                );
                assert_eq!(report.answered, expected.answered, "case {case}");
                if plan.workload.think_ns == 0 {
                    assert_eq!(report.latency.len(), expected.measured, "case {case}");
                }
                assert!(report.replies_in_window <= report.answered);
                assert!(report.lost <= report.failed());
            }
        }
    }

    fn random_fate(random: &mut fastrand::Rng, failing: f64) -> Fate {
        let ns = random.u64(1..3 * MS);
        if random.f64() < failing {
            Fate::Fails(ns)
        } else {
            Fate::Works(ns)
        }
    }

    /// Counts what began `at` so many nanoseconds after the start, which must be in a window.
    fn count(plan: &Plan, expected: &mut [Expected], at: u64, action: Action, fate: Fate) {
        let inside = |window: &Window| (window.start_ns..window.end_ns).contains(&at);
        let index = plan.windows.iter().position(inside);
        let index = index.expect("nothing begins outside the windows");
        let expected = &mut expected[index];
        match (action, fate) {
            (_, Fate::Fails(_)) => expected.begun += 1,
            (Exchange, Fate::Works(_)) => {
                expected.begun += 1;
                expected.answered += 1;
                expected.measured += u64::from(at >= plan.windows[index].measure_ns);
            }
            _ => {}
        }
    }

    #[test]
    fn everything_due_is_accounted_for() {
        for case in 0..500 {
            let mut random = fastrand::Rng::with_seed(case);
            let (mut plan, failing) = random_plan(&mut random);
            let spacing = random.choice([Spacing::Constant, Spacing::Poisson]);
            plan.workload.think_ns = 0;
            plan.workload.arrivals = Some(Arrivals {
                per_second: 20.0 + 2_000.0 * random.f64(),
                spacing: spacing.unwrap(),
            });
            let shared = shared(&plan);
            let mut begun = 0;
            for index in 0..plan.clients {
                let mut client = Client::new(&plan, index, &shared);
                client.start(START);
                play(&mut client, START, |action| {
                    let fate = random_fate(&mut random, failing);
                    let ends_request = action == Exchange || matches!(fate, Fate::Fails(_));
                    begun += u64::from(ends_request);
                    fate
                });
                client.finish(0);
            }
            let report = shared.into_inner().unwrap();
            for (window, report) in plan.windows.iter().zip(&report.windows) {
                balanced(report);
                assert!(window.requests.is_none_or(|quota| quota == report.planned));
                assert!(report.latency.len() + report.lost <= report.planned);
                assert_eq!(report.latency.len(), report.service.len());
                begun -= report.planned - report.unsent;
            }
            assert_eq!(begun, 0, "case {case}");
        }
    }

    #[test]
    fn the_calm_lag_is_the_generators_own() {
        let mut plan = plan(vec![window(0, 0, 10)]);
        plan.workload.arrivals = Some(Arrivals {
            per_second: 1_000.0,
            spacing: Spacing::Constant,
        });
        for hiccup in [false, true] {
            let shared = shared(&plan);
            let mut client = Client::new(&plan, 0, &shared);
            client.connected(START - MS, START - MS / 2);
            client.start(START);
            if hiccup {
                client.hiccup();
            }
            let mut request = 0;
            play(&mut client, START, |_| {
                request += 1;
                // The third keeps the three after it waiting.
                Fate::Works(if request == 3 { 5 * MS / 2 } else { 2 * MS / 5 })
            });
            client.finish(0);
            let report = shared.into_inner().unwrap();
            let window = &report.windows[0];
            assert_eq!((window.answered, window.lag.len()), (10, 10));
            assert!(window.lag.max() > MS);
            let calm = 7 - u64::from(hiccup);
            assert_eq!((window.calm_lag.len(), window.calm_lag.max()), (calm, 0));
            assert_eq!(window.hiccups, u64::from(hiccup));
        }
    }

    #[test]
    fn samples_survive_being_folded_often() {
        let mut plan = plan(vec![quota(20_000)]);
        plan.workload.timeout_ns = Duration::from_secs(1).as_nanos().try_into().unwrap();
        let mut ns = 0;
        let (_, report) = whole(&plan, 0, |_| {
            ns += 1;
            Fate::Works(ns)
        });
        let window = &report.windows[0];
        assert_eq!((window.latency.len(), window.connect.len()), (20_000, 1));
        assert_eq!(window.latency.min(), 2);
        assert!(window.latency.max() >= 20_001);
    }
}
