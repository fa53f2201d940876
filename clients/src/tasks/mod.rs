//! The driver `tasks`: a task per client, many on few threads, each with an event loop.

mod event_loop;
mod poller;
mod task;

use std::ops::Range;
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;

use self::event_loop::EventLoop;
use self::poller::Poller;
use crate::LoadError;
use crate::client::{Client, Recorder};
use crate::clock;
use crate::plan::Plan;
use crate::rendezvous::{Rendezvous, ThreadRendezvous};
use crate::report::LoadReport;
use crate::room::Room;

/// Stack of a thread.
const STACK_BYTES: usize = 2 << 20;
/// Address space that a thread needs beside its stack, for its clients.
const SPARE_BYTES: usize = 1 << 20;

pub(crate) fn run(
    plan: &Plan,
    began_ns: u64,
    start: impl FnOnce() -> u64,
) -> Result<LoadReport, LoadError> {
    let shared = &Mutex::new(LoadReport::empty(plan.windows.len()));
    let threads = plan.task_threads.clamp(1, plan.clients.max(1));
    let refused = |(thread, error)| LoadError::TaskThread {
        thread,
        threads,
        error,
    };
    let spare = Room::take(threads, SPARE_BYTES).map_err(refused)?;
    drop(Room::take(threads, STACK_BYTES).map_err(refused)?);

    let pollers: Result<Vec<Poller>, LoadError> = (0..threads)
        .map(|_| Poller::new().map_err(LoadError::system("cannot start the tasks driver")))
        .collect();
    let groups = (0..threads).zip(pollers?).map(|(thread, poller)| Group {
        plan,
        began_ns,
        shared,
        poller,
        thread,
        threads,
    });

    let cpu_ns = if threads == 1 {
        drop(spare);
        let mut alone = Alone::new(start);
        groups.for_each(|group| group.run(&mut alone));
        alone.cpu_ns
    } else {
        run_threads(groups, threads, spare, start)?
    };

    let mut report = std::mem::take(&mut *shared.lock().expect("no client panics"));
    report.cpu_ns = cpu_ns;
    Ok(report)
}

/// Rendezvous of one thread, which has nobody to wait for.
struct Alone<F> {
    start: Option<F>,
    cpu_before_ns: u64,
    /// CPU time between start and end.
    cpu_ns: u64,
}

impl<F: FnOnce() -> u64> Alone<F> {
    fn new(start: F) -> Self {
        Alone {
            start: Some(start),
            cpu_before_ns: 0,
            cpu_ns: 0,
        }
    }
}

impl<F: FnOnce() -> u64> Rendezvous for Alone<F> {
    fn wait_for_start(&mut self) -> Option<u64> {
        let start_ns = self.start.take()?();
        self.cpu_before_ns = clock::process_cpu();
        Some(start_ns)
    }

    fn wait_for_end(&mut self) {
        self.cpu_ns = clock::process_cpu() - self.cpu_before_ns;
    }
}

/// Runs each group of clients on a thread of its own; returns their CPU time.
fn run_threads<'a>(
    groups: impl Iterator<Item = Group<'a>>,
    threads: u32,
    spare: Room,
    start: impl FnOnce() -> u64,
) -> Result<u64, LoadError> {
    let rendezvous = &ThreadRendezvous::default();
    let gate = &Mutex::new(());
    let (arrived, all_arrived) = std::sync::mpsc::channel();

    thread::scope(|scope| {
        // Clients take memory only once all threads have theirs.
        let closed = gate.lock();

        for (thread, group) in (1..).zip(groups) {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            let arrived = arrived.clone();
            let spawned = builder.spawn_scoped(scope, move || {
                let mut participant = rendezvous.participant();
                // The first allocation of a thread may reserve 64 MiB of address space (glibc): not those that the
                // clients need.
                let _ = arrived.send(Box::new(0));
                drop(arrived);
                drop(gate.lock());
                if !rendezvous.is_cancelled() {
                    group.run(&mut participant);
                }
            });
            if let Err(error) = spawned {
                rendezvous.cancel();
                return Err(LoadError::TaskThread {
                    thread,
                    threads,
                    error,
                });
            }
        }

        drop(arrived);
        all_arrived.iter().for_each(drop);
        drop((spare, closed));
        rendezvous.wait_until_ready(threads);
        rendezvous.start(start());
        let cpu_before_ns = clock::process_cpu();
        rendezvous.wait_until_ended(threads);
        let cpu_ns = clock::process_cpu() - cpu_before_ns;
        rendezvous.release();
        Ok(cpu_ns)
    })
}

/// Clients that share a thread: every so many of the plan.
struct Group<'a> {
    plan: &'a Plan,
    /// Instant at which the load began to connect.
    began_ns: u64,
    shared: &'a Mutex<LoadReport>,
    poller: Poller,
    thread: u32,
    threads: u32,
}

impl Group<'_> {
    /// Runs all clients, from connecting to the end.
    fn run(self, rendezvous: &mut impl Rendezvous) {
        let recorder = Rc::new(Recorder::of_thread(self.shared, self.threads));
        let Range { start, end } = self.plan.numbers();
        let numbers = (start + self.thread..end).step_by(self.threads as usize);
        let clients = numbers.map(|index| Client::sharing(self.plan, index, &recorder));
        let mut event_loop = EventLoop::new(self.plan, self.poller, clients);

        event_loop.connect(self.began_ns);
        if let Some(start_ns) = rendezvous.wait_for_start() {
            event_loop.run(start_ns);
            rendezvous.wait_for_end();
            event_loop.finish();
        }
    }
}
