//! Settings of a server, the same for every model they apply to.

use std::io;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use echobench_protocol::{Limits, Service, textual_enum};

/// Settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The service it offers.
    pub service: Service,
    /// Limits on requests.
    pub limits: Limits,
    /// Number of worker threads: of `pool` (64 unless given) and of the runtimes of `async` with several
    /// threads (one per CPU unless given). The other models have no such number.
    pub workers: Option<NonZeroUsize>,
    /// The runtime of `async`; multi-thread unless given.
    pub runtime: Option<Runtime>,
    /// The way in which workers get connections from a listener; the first of the model's ways unless given.
    pub accept: Option<AcceptMode>,
    /// The way in which `leader` hands a request to a worker; leader unless given.
    pub hand_off: Option<HandOff>,
    /// The queue from which the workers of `pool` take connections; condvar unless given.
    pub queue: Option<PoolQueue>,
    /// Stack of a thread that serves connections, in bytes (`thread`, `pool`, `iterative`).
    pub stack_size: Option<usize>,
    /// Whether each thread of `thread` has the signal stack that the standard library gives to threads.
    /// That is decided before `main`, by `--signal-stack` on the command line; see
    /// [`omit_signal_stacks`](crate::omit_signal_stacks).
    pub signal_stack: bool,
    /// Length of the kernel's queue of connections not yet accepted.
    pub backlog: u32,
    /// Limit on open connections; further ones are refused.
    pub max_connections: u32,
    /// Time after which an idle client is cut off, at the earliest; at the latest after twice this
    /// time. A client is idle while the server waits for a whole request, however few bytes of it
    /// come, or for room to send a whole reply.
    pub idle_timeout: Duration,
    /// Time that open connections have to end after SIGTERM or SIGINT.
    pub drain: Duration,
    /// Interval at which the counters are printed.
    pub stats_every: Option<Duration>,
    /// Whether to write a line about each connection to standard error.
    pub verbose: bool,
    /// A deliberate failure of handlers, for tests of its effect on other clients.
    pub fault: Option<Fault>,
    /// Whether to collect children as they exit; otherwise they are zombies until the server ends.
    pub reap: bool,
    /// Steps of useless arithmetic per request, a few nanoseconds each: a slow-down of known size,
    /// to prove that a measurement detects it.
    pub injected_steps: u32,
    /// The same for one in [`Settings::TAIL`] requests only, which raises the tail of latency and not its median.
    pub injected_tail_steps: u32,
}

impl Settings {
    /// One in so many requests of a server process has [`Settings::injected_tail_steps`].
    pub const TAIL: u32 = 80;

    /// Whether requests are slowed down deliberately.
    pub(crate) fn injects(&self) -> bool {
        self.injected_steps > 0 || self.injected_tail_steps > 0
    }

    /// Default stack: many times the need of the connection loop. Untouched pages cost no memory.
    pub const STACK_SIZE: usize = 256 << 10;
    /// Default backlog, the same for every model: libraries differ (128 in std, 1024 in tokio).
    pub const BACKLOG: u32 = 1024;
    /// Default limit on connections: above the number of ports per address, so that limits of the
    /// system apply first.
    pub const MAX_CONNECTIONS: u32 = 65_536;
    /// Default of [`Settings::idle_timeout`].
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
    /// Default number of workers that serve one connection or request at a time.
    pub const WORKERS: usize = 64;
    /// Default of [`Settings::drain`].
    pub const DRAIN: Duration = Duration::from_secs(5);
}

impl Settings {
    /// Number of workers that serve one connection or request at a time.
    pub(crate) fn blocking_workers(&self) -> usize {
        self.workers.map_or(Self::WORKERS, usize::from)
    }

    /// Number of workers that each serve many connections; one per CPU unless given.
    pub(crate) fn event_workers(&self) -> io::Result<usize> {
        let workers = self.workers.map_or_else(available_parallelism, Ok)?;
        Ok(workers.get())
    }

    /// Stack of a thread that serves connections, in bytes.
    pub(crate) fn stack_size(&self) -> usize {
        self.stack_size.unwrap_or(Settings::STACK_SIZE)
    }

    /// The options that are given, of those which not every model takes.
    pub(crate) fn model_options(&self) -> impl Iterator<Item = ModelOption> {
        let given = [
            (ModelOption::Workers, self.workers.is_some()),
            (ModelOption::Runtime, self.runtime.is_some()),
            (ModelOption::Accept, self.accept.is_some()),
            (ModelOption::HandOff, self.hand_off.is_some()),
            (ModelOption::Queue, self.queue.is_some()),
            (ModelOption::StackSize, self.stack_size.is_some()),
            (ModelOption::SignalStack, self.signal_stack),
        ];
        given
            .into_iter()
            .filter_map(|(option, given)| given.then_some(option))
    }
}

/// Options that not every model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelOption {
    /// [`Settings::workers`].
    Workers,
    /// [`Settings::runtime`].
    Runtime,
    /// [`Settings::accept`].
    Accept,
    /// [`Settings::hand_off`].
    HandOff,
    /// [`Settings::queue`].
    Queue,
    /// `Settings::stack_size`.
    StackSize,
    /// [`Settings::signal_stack`].
    SignalStack,
}

textual_enum!(ModelOption, "option", {
    Workers => "workers",
    Runtime => "runtime",
    Accept => "accept",
    HandOff => "hand-off",
    Queue => "queue",
    StackSize => "stack-size",
    SignalStack => "signal-stack",
});

impl Default for Settings {
    fn default() -> Self {
        Settings {
            service: Service::default(),
            limits: Limits::default(),
            workers: None,
            runtime: None,
            accept: None,
            hand_off: None,
            queue: None,
            stack_size: None,
            signal_stack: false,
            backlog: Settings::BACKLOG,
            max_connections: Settings::MAX_CONNECTIONS,
            idle_timeout: Settings::IDLE_TIMEOUT,
            drain: Settings::DRAIN,
            stats_every: None,
            verbose: false,
            fault: None,
            reap: true,
            injected_steps: 0,
            injected_tail_steps: 0,
        }
    }
}

/// The flavors of the tokio runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Worker threads that steal tasks from one another.
    #[default]
    MultiThread,
    /// Everything on the one thread that also accepts.
    CurrentThread,
    /// A runtime per worker thread, each with a listener of its own and tasks that stay on it.
    PerCore,
}

textual_enum!(Runtime, "runtime", {
    MultiThread => "multi-thread",
    CurrentThread => "current-thread",
    PerCore => "per-core",
});

/// Ways in which a request that has arrived comes to a worker thread (Schmidt et al., *Pattern-Oriented Software
/// Architecture*, vol. 2, ch. 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HandOff {
    /// Leader/followers: one worker waits for events; before it serves one, another takes its place.
    #[default]
    Leader,
    /// Half-sync/half-async: a thread of its own waits for events, and queues them for the workers.
    Queue,
}

textual_enum!(HandOff, "hand-off", { Leader => "leader", Queue => "queue" });

/// Queues between an acceptor and the workers of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PoolQueue {
    /// A bounded queue of our own: a mutex and two condition variables.
    #[default]
    Condvar,
    /// The queue of a rayon thread pool, whose workers look for a job several times before they sleep.
    Rayon,
}

textual_enum!(PoolQueue, "queue", { Condvar => "condvar", Rayon => "rayon" });

/// Ways in which workers get connections from a listener (Stevens, *UNIX Network Programming*, 3rd ed., vol. 1,
/// ch. 30). In all but the last they accept for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptMode {
    /// All block in accept(2) on one listener.
    Block,
    /// All block in poll(2) on one listener, which wakes every one of them for a connection.
    Poll,
    /// All wait on one listener through epoll with `EPOLLEXCLUSIVE`.
    Exclusive,
    /// One blocks in accept(2), under a file lock.
    FileLock,
    /// One blocks in accept(2), under a mutex in shared memory.
    Mutex,
    /// Each has a listener of its own on the same port, among which the kernel distributes
    /// connections (`SO_REUSEPORT`).
    Reuseport,
    /// The parent accepts, and passes each connection to a free worker process.
    Pass,
}

textual_enum!(AcceptMode, "way to accept", {
    Block => "block",
    Poll => "poll",
    Exclusive => "exclusive",
    FileLock => "file-lock",
    Mutex => "mutex",
    Reuseport => "reuseport",
    Pass => "pass",
});

/// A deliberate failure of a handler, in place of spinning work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It panics.
    Panic,
    /// It aborts its process.
    Abort,
}

textual_enum!(Fault, "fault", { Panic => "panic", Abort => "abort" });
