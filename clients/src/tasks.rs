//! The driver `tasks`: a tokio task per client, many on few threads.

use std::iter::StepBy;
use std::net::TcpStream as StdStream;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use crate::client::{Action, Client};
use crate::clock::{self, SpinWait};
use crate::connect::{PendingBytes, socket};
use crate::failure::Failure;
use crate::pacer::Pacer;
use crate::plan::Plan;
use crate::rendezvous::{Rendezvous, ThreadRendezvous};
use crate::report::LoadReport;
use crate::room::Room;
use crate::stop;
use crate::{LoadError, blocking};

/// Stack of a thread.
const STACK_BYTES: usize = 2 << 20;
/// Address space that a thread needs beside its stack, for its runtime and its clients.
const SPARE_BYTES: usize = 1 << 20;

pub(crate) fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<LoadReport, LoadError> {
    let shared = Arc::new(Mutex::new(LoadReport::empty(plan.windows.len())));
    let threads = plan.task_threads.clamp(1, plan.clients.max(1));
    let refused = |(thread, error)| LoadError::TaskThread {
        thread,
        threads,
        error,
    };
    let spare = Room::take(threads, SPARE_BYTES).map_err(refused)?;
    drop(Room::take(threads, STACK_BYTES).map_err(refused)?);

    let groups: Result<Vec<Group>, LoadError> = (0..threads)
        .map(|thread| Group::new(plan, &shared, thread, threads))
        .collect();
    let mut groups = groups?;

    let cpu_ns = if threads == 1 {
        drop(spare);
        let mut alone = Alone::new(start);
        groups.remove(0).run(&mut alone);
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

/// Runs each group of clients on a thread and a runtime of its own; returns their CPU time.
///
/// One runtime of several threads would hang if the system refused one of them: tokio then leaves the worker
/// to a thread that never becomes free.
fn run_threads(
    groups: Vec<Group>,
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
struct Group {
    plan: Arc<Plan>,
    shared: Arc<Mutex<LoadReport>>,
    runtime: Runtime,
    pacer: Arc<Pacer>,
    clients: StepBy<Range<u32>>,
}

impl Group {
    fn new(
        plan: &Plan,
        shared: &Arc<Mutex<LoadReport>>,
        thread: u32,
        threads: u32,
    ) -> Result<Self, LoadError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(LoadError::system("cannot start the tasks driver"))?;
        let pacer = {
            let _entered = runtime.enter();
            Pacer::new().map_err(LoadError::system(
                "cannot pace the requests of the tasks driver",
            ))?
        };
        Ok(Group {
            plan: Arc::new(plan.clone()),
            shared: Arc::clone(shared),
            runtime,
            pacer: Arc::new(pacer),
            clients: (thread..plan.clients).step_by(threads as usize),
        })
    }

    /// Runs all clients, from connecting to the end.
    fn run(self, rendezvous: &mut impl Rendezvous) {
        let Group {
            plan,
            shared,
            runtime,
            pacer,
            clients,
        } = self;
        runtime.block_on(async {
            let timer = tokio::spawn(Arc::clone(&pacer).run());
            let (mut leader, phases) = phases();

            let mut tasks = JoinSet::new();
            for index in clients {
                let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared));
                let (pacer, phases) = (Arc::clone(&pacer), phases.clone());
                tasks.spawn(async move {
                    let client = Client::new(&plan, index, &shared);
                    run_client(&plan, client, &pacer, phases).await;
                });
            }
            drop(phases);

            // To block the thread is right here: every client of it waits.
            leader.until_ready().await;
            if let Some(start_ns) = rendezvous.wait_for_start() {
                leader.start(start_ns);
                leader.until_ended().await;
                rendezvous.wait_for_end();
            }
            drop(leader);
            tasks.join_all().await;
            timer.abort();
        });
    }
}

/// Phases that the clients of a thread pass together.
///
/// Nothing is ever sent over `ready` and `ended`: these channels close when the last client has dropped its
/// end. `started` closes without a value for a start that is cancelled, `released` for the release.
struct Leader {
    ready: mpsc::Receiver<()>,
    started: watch::Sender<Option<u64>>,
    ended: mpsc::Receiver<()>,
    _released: watch::Sender<()>,
}

/// The clients' side of [`Leader`].
#[derive(Clone)]
struct Phases {
    ready: mpsc::Sender<()>,
    started: watch::Receiver<Option<u64>>,
    ended: mpsc::Sender<()>,
    released: watch::Receiver<()>,
}

fn phases() -> (Leader, Phases) {
    let (ready, all_ready) = mpsc::channel(1);
    let (start, started) = watch::channel(None);
    let (ended, all_ended) = mpsc::channel(1);
    let (release, released) = watch::channel(());
    let leader = Leader {
        ready: all_ready,
        started: start,
        ended: all_ended,
        _released: release,
    };
    let phases = Phases {
        ready,
        started,
        ended,
        released,
    };
    (leader, phases)
}

impl Leader {
    async fn until_ready(&mut self) {
        let _ = self.ready.recv().await;
    }

    fn start(&self, start_ns: u64) {
        // Fails only if no client is left.
        let _ = self.started.send(Some(start_ns));
    }

    async fn until_ended(&mut self) {
        let _ = self.ended.recv().await;
    }
}

async fn run_client(plan: &Plan, mut client: Client<'_>, pacer: &Pacer, phases: Phases) {
    let Phases {
        ready,
        mut started,
        ended,
        mut released,
    } = phases;
    let mut reply = vec![0; client.message().reply_capacity()];
    let mut stream = None;
    if client.connects_before_start() {
        stream = connect(plan, &mut client).await;
    }

    drop(ready);
    let start = started.wait_for(Option::is_some).await;
    let Some(start) = start.ok().and_then(|start| *start) else {
        return;
    };
    client.start(start);
    // One timer for all requests: it is moved only when it expires, not for each of them.
    let mut timer = Box::pin(tokio::time::sleep_until(instant(clock::now(), start)));
    let mut now = clock::now();

    loop {
        match client.next(now) {
            Action::SleepUntil(until) => {
                pacer.sleep_until(until.min(latest_wake(now))).await;
                now = clock::now();
            }
            // A stop wakes no task, so the sleep is cut in parts, after each of which a stop is seen.
            Action::Pace(due) if due > latest_wake(now) => {
                pacer.sleep_until(latest_wake(now)).await;
                now = clock::now();
            }
            Action::Pace(due) => {
                pace(&mut client, pacer, due).await;
                now = clock::now();
            }
            Action::Connect => {
                pacer.record_turn();
                stream = connect(plan, &mut client).await;
                pacer.record_turn();
                now = clock::now();
            }
            Action::Exchange => {
                let open = stream.as_mut().expect("a connected client has a stream");
                pacer.record_turn();
                now = exchange(&mut client, open, &mut reply, timer.as_mut()).await;
                pacer.record_turn();
            }
            Action::Close => {
                stream = None;
                pacer.record_turn();
                now = clock::now();
            }
            Action::Done => break,
        }
    }

    if !client.stays_connected() {
        drop(stream.take());
    }
    drop(ended);
    // An error is the release: nothing is ever sent.
    let _ = released.changed().await;
    drop(stream);
    // All tasks share threads: their CPU time is that of the process.
    client.finish(0);
}

/// Longest time that a task sleeps from now on without looking for a stop.
fn latest_wake(now: u64) -> u64 {
    if stop::is_allowed() {
        now + stop::TASK_SLEEP_NS
    } else {
        u64::MAX
    }
}

/// Waits until a request is due; other tasks run meanwhile.
async fn pace(client: &mut Client<'_>, pacer: &Pacer, due: u64) {
    pacer.sleep_until(due.saturating_sub(clock::SPIN_NS)).await;

    let mut wait = SpinWait::until(due);
    while !wait.is_over() {
        let before = pacer.turns();
        tokio::task::yield_now().await;
        wait.read(pacer.turns() != before);
    }
    if wait.had_hiccup {
        client.hiccup();
    }
}

/// Converts an instant on our clock to one of the runtime.
fn instant(now: u64, at: u64) -> Instant {
    Instant::now() + Duration::from_nanos(at.saturating_sub(now))
}

async fn connect(plan: &Plan, client: &mut Client<'_>) -> Option<TcpStream> {
    let began = clock::now();
    let timeout = Duration::from_nanos(plan.workload.timeout_ns);
    let opening = async {
        let socket = socket(plan, client)?;
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(StdStream::from(socket))
            .connect(plan.target)
            .await
    };
    let opened = match tokio::time::timeout(timeout, opening).await {
        Ok(opened) => opened.map_err(|error| Failure::connect(plan.target, &error)),
        Err(_) => Err(Failure::connect_timed_out(plan.target, timeout)),
    };
    client.connect_ended(began, clock::now(), opened)
}

/// Sends one request and receives its reply; returns the time at its end.
async fn exchange(
    client: &mut Client<'_>,
    stream: &mut TcpStream,
    reply: &mut [u8],
    timer: Pin<&mut Sleep>,
) -> u64 {
    let early = client.early_reply(|| PendingBytes::of(stream));
    client.request();
    let sent = clock::now();
    let outcome = match early {
        Some(failure) => Err(failure),
        None => exchange_in_time(client, stream, reply, timer, sent).await,
    };
    let received = clock::now();

    let outcome = outcome.and_then(|length| {
        client.check_surplus(|| PendingBytes::of(stream))?;
        Ok(&reply[..length])
    });
    blocking::print_line(client.exchange_ended(sent, received, outcome));
    received
}

async fn exchange_in_time(
    client: &Client<'_>,
    stream: &mut TcpStream,
    reply: &mut [u8],
    mut timer: Pin<&mut Sleep>,
    sent_ns: u64,
) -> Result<usize, Failure> {
    let exchange = send_and_receive(client, stream, reply);
    tokio::pin!(exchange);
    loop {
        tokio::select! {
            biased;
            outcome = &mut exchange => return outcome,
            () = timer.as_mut() => {
                let (now, deadline) = (clock::now(), client.deadline(sent_ns));
                if now >= deadline {
                    return Err(Failure::timed_out());
                }
                timer.as_mut().reset(instant(now, deadline.min(latest_wake(now))));
            }
        }
    }
}

async fn send_and_receive(
    client: &Client<'_>,
    stream: &mut TcpStream,
    reply: &mut [u8],
) -> Result<usize, Failure> {
    let message = client.message();
    let (mut reader, mut writer) = stream.split();
    let receive = async {
        let mut received = 0;
        while received < message.reply_room() {
            match reader.read(&mut reply[received..]).await {
                Ok(0) => return message.end_of_stream(&reply[..received]),
                Ok(count) => received += count,
                Err(error) => return Err(Failure::exchange(&error)),
            }
        }
        Ok(received)
    };
    let send = async {
        let sent = writer.write_all(message.frame()).await;
        sent.map_err(|error| Failure::exchange(&error))
    };

    if message.frame().len() <= blocking::SEND_FIRST_MAX_BYTES {
        send.await?;
        return receive.await;
    }
    tokio::pin!(send, receive);
    tokio::select! {
        biased;
        sent = &mut send => {
            sent?;
            receive.await
        }
        // A complete reply, or an error frame, may arrive before the whole request was sent.
        received = &mut receive => received,
    }
}
