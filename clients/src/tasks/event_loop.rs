//! Event loop: all clients of one thread, each of which goes on when its socket or its time has come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use nix::sys::epoll::EpollFlags;

use super::poller::{NEVER, Poller, Source};
use super::task::{Step, Task};
use crate::client::{Action, Client};
use crate::clock::{self, SpinWait};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::stop;

/// Clients of one thread.
///
/// Invariant: a task that waits for an instant is either in `sleepers` or in `pacing`, and one that waits for its
/// server has an entry in `timeouts`.
pub(super) struct EventLoop<'a> {
    plan: &'a Plan,
    tasks: Vec<Task<'a>>,
    poller: Poller,
    sleepers: Instants,
    /// One entry a task at most, which is moved only when it expires, not for each request.
    timeouts: Instants,
    pacing: Vec<Pacing>,
    /// Steps of all tasks that take time.
    turns: u64,
    /// Buffer for replies that arrive whole.
    reply: Vec<u8>,
    is_started: bool,
    /// Tasks that have not connected yet, and after the start those that have not ended.
    unfinished: usize,
}

/// Task whose request is due so soon that no timer is precise enough.
struct Pacing {
    task: usize,
    wait: SpinWait,
    /// Turns at the last reading of the clock.
    turns: u64,
}

/// Instants at which tasks are to be looked at, the earliest first.
#[derive(Default)]
struct Instants(BinaryHeap<Reverse<(u64, usize)>>);

impl Instants {
    fn add(&mut self, instant: u64, task: usize) {
        self.0.push(Reverse((instant, task)));
    }

    fn earliest(&self) -> u64 {
        self.0
            .peek()
            .map_or(NEVER, |Reverse((instant, _))| *instant)
    }

    /// Takes a task whose instant has come.
    fn take_due(&mut self, now: u64) -> Option<usize> {
        if self.earliest() > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, task))| task)
    }

    fn take_all(&mut self) -> impl Iterator<Item = usize> + use<> {
        let all = std::mem::take(&mut self.0);
        all.into_iter().map(|Reverse((_, task))| task)
    }
}

impl<'a> EventLoop<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        poller: Poller,
        clients: impl Iterator<Item = Client<'a>>,
    ) -> Self {
        let tasks: Vec<Task<'_>> = clients.map(Task::new).collect();
        let capacities = tasks
            .iter()
            .map(|task| task.client.message().reply_capacity());
        let reply = vec![0; capacities.max().unwrap_or(0)];

        EventLoop {
            plan,
            tasks,
            poller,
            sleepers: Instants::default(),
            timeouts: Instants::default(),
            pacing: Vec::new(),
            turns: 0,
            reply,
            is_started: false,
            unfinished: 0,
        }
    }

    /// Connects the clients that are to be connected before the start, each in its turn after `began_ns`.
    pub(super) fn connect(&mut self, began_ns: u64) {
        for index in 0..self.tasks.len() {
            let task = &mut self.tasks[index];
            let Some(instant) = task.client.first_connect_ns(began_ns) else {
                continue;
            };
            if instant <= clock::now() {
                self.unfinished += 1;
                self.connect_early(index);
            } else if stop::stopped_ns().is_none() {
                // A stop that came before the poller would not wake it.
                self.unfinished += 1;
                task.step = Step::Sleep;
                self.sleepers.add(instant, index);
            }
        }
        self.run_until_finished();
    }

    /// Connects a client before the start.
    fn connect_early(&mut self, index: usize) {
        if self.begin_to_connect(index).is_some() {
            self.unfinished -= 1;
        }
    }

    /// Runs all clients to their end; the windows begin at `start_ns`.
    pub(super) fn run(&mut self, start_ns: u64) {
        self.is_started = true;
        self.unfinished = self.tasks.len();
        for task in &mut self.tasks {
            task.client.start(start_ns);
        }
        for index in 0..self.tasks.len() {
            self.advance(index, clock::now());
        }
        self.run_until_finished();
    }

    /// Closes the connections, and adds the results to the report.
    pub(super) fn finish(mut self) {
        for task in &mut self.tasks {
            task.close();
        }
        for task in self.tasks {
            // All tasks share threads: their CPU time is that of the process.
            task.client.finish(0);
        }
    }

    fn run_until_finished(&mut self) {
        while self.unfinished > 0 {
            let until_ns = self.sleepers.earliest().min(self.timeouts.earliest());
            let events = self.poller.wait(until_ns, !self.pacing.is_empty());

            let mut is_stopped = false;
            for event in 0..events {
                match self.poller.event(event) {
                    (Source::Task(index), flags) => self.socket_changed(index, flags),
                    (Source::Timer, _) => self.wake_due(),
                    (Source::Stop, _) => is_stopped = true,
                }
            }

            self.send_due();
            if is_stopped {
                self.look_again();
            }
        }
    }

    /// Performs the actions of a client until it has to wait.
    fn advance(&mut self, index: usize, mut now: u64) {
        loop {
            let task = &mut self.tasks[index];
            let ended = match task.client.next(now) {
                Action::SleepUntil(instant) => {
                    task.step = Step::Sleep;
                    self.sleepers.add(instant, index);
                    return;
                }
                Action::Pace(due_ns) => return self.pace(index, due_ns, now),
                Action::Connect => self.begin_to_connect(index),
                Action::Exchange => self.begin_exchange(index),
                Action::Close => {
                    self.turns += 1;
                    task.close();
                    Some(clock::now())
                }
                Action::Done => return self.end(index),
            };

            match ended {
                Some(ended_ns) => now = ended_ns,
                None => return,
            }
        }
    }

    fn begin_to_connect(&mut self, index: usize) -> Option<u64> {
        self.turns += 1;
        let ended = self.tasks[index].connect(self.plan, &self.poller, index);
        if ended.is_none() {
            self.set_timeout(index);
        }
        ended
    }

    fn begin_exchange(&mut self, index: usize) -> Option<u64> {
        self.turns += 1;
        let ended = self.tasks[index].exchange(&mut self.reply);
        if ended.is_none() {
            self.set_timeout(index);
        }
        ended
    }

    fn end(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        task.step = Step::Idle;
        if !task.client.stays_connected() {
            task.close();
        }
        self.unfinished -= 1;
    }

    fn socket_changed(&mut self, index: usize, flags: EpollFlags) {
        let task = &mut self.tasks[index];
        task.notice(flags);

        match task.step {
            Step::Exchange(exchange) => {
                self.turns += 1;
                if let Some(ended_ns) = task.go_on(exchange, &mut self.reply) {
                    self.advance(index, ended_ns);
                }
            }
            Step::Connect { began_ns } => {
                if let Some(outcome) = task.connect_result(self.plan) {
                    self.end_connect(index, began_ns, outcome);
                }
            }
            // Remembered until the next exchange.
            Step::Idle | Step::Sleep | Step::Pace { .. } => {}
        }
    }

    fn end_connect(&mut self, index: usize, began_ns: u64, outcome: Result<(), Failure>) {
        self.turns += 1;
        let ended_ns = self.tasks[index].end_connect(began_ns, outcome);
        if self.is_started {
            self.advance(index, ended_ns);
        } else {
            self.unfinished -= 1;
        }
    }

    /// Lets a client wait until a request is due: by the timer first, and then by reading the clock, while others
    /// have their turns.
    fn pace(&mut self, index: usize, due_ns: u64, now: u64) {
        self.tasks[index].step = Step::Pace { due_ns };
        let wake_ns = due_ns.saturating_sub(clock::SPIN_NS);
        if now < wake_ns {
            self.sleepers.add(wake_ns, index);
            return;
        }
        self.pacing.push(Pacing {
            task: index,
            wait: SpinWait::until(due_ns, now),
            turns: self.turns,
        });
    }

    /// Sends the requests that have become due, in their order.
    fn send_due(&mut self) {
        if self.pacing.is_empty() {
            return;
        }
        let now = clock::now();
        for pacing in &mut self.pacing {
            pacing.wait.read(now, pacing.turns != self.turns);
            pacing.turns = self.turns;
        }

        while let Some(first) = self.first_due() {
            let Pacing { task, wait, .. } = self.pacing.swap_remove(first);
            if wait.had_hiccup {
                self.tasks[task].client.hiccup();
            }
            self.advance(task, clock::now());
        }
    }

    fn first_due(&self) -> Option<usize> {
        let waits = self.pacing.iter().map(|pacing| &pacing.wait).enumerate();
        waits
            .filter(|(_, wait)| wait.is_over())
            .min_by_key(|(_, wait)| wait.due_ns())
            .map(|(index, _)| index)
    }

    /// Goes on with the tasks whose instant has come.
    fn wake_due(&mut self) {
        let now = clock::now();
        while let Some(index) = self.sleepers.take_due(now) {
            self.wake(index);
        }
        while let Some(index) = self.timeouts.take_due(now) {
            self.check_timeout(index, now);
        }
    }

    fn wake(&mut self, index: usize) {
        let now = clock::now();
        let task = &mut self.tasks[index];
        if matches!(task.step, Step::Pace { due_ns } if due_ns < now) {
            task.client.hiccup();
        }
        if self.is_started {
            self.advance(index, now);
        } else {
            self.connect_early(index);
        }
    }

    fn set_timeout(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        if !task.has_timeout
            && let Some(deadline_ns) = task.deadline_ns(self.plan)
        {
            task.has_timeout = true;
            self.timeouts.add(deadline_ns, index);
        }
    }

    /// Ends what a task is waiting for if its time is over. It may have waited for something else when the timeout was
    /// set.
    fn check_timeout(&mut self, index: usize, now: u64) {
        let task = &mut self.tasks[index];
        task.has_timeout = false;
        if task
            .deadline_ns(self.plan)
            .is_none_or(|deadline_ns| now < deadline_ns)
        {
            return self.set_timeout(index);
        }

        match task.step {
            Step::Connect { began_ns } => {
                let timeout = Duration::from_nanos(self.plan.workload.timeout_ns);
                let failure = Failure::connect_timed_out(self.plan.target, timeout);
                self.end_connect(index, began_ns, Err(failure));
            }
            Step::Exchange(exchange) => {
                let ended_ns = task.end_exchange(exchange, &self.reply, Err(Failure::timed_out()));
                self.advance(index, ended_ns);
            }
            Step::Idle | Step::Sleep | Step::Pace { .. } => {}
        }
    }

    /// Looks at all waiting tasks after a stop, which brings every instant forward.
    fn look_again(&mut self) {
        let now = clock::now();
        for index in self.sleepers.take_all() {
            if self.is_started {
                self.advance(index, now);
            } else {
                // The ramp-up has ended: no further client connects.
                self.tasks[index].step = Step::Idle;
                self.unfinished -= 1;
            }
        }
        for index in self.timeouts.take_all() {
            self.check_timeout(index, now);
        }
    }
}
