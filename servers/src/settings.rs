//! What can be set on a server, the same for every model where it applies.

use std::num::NonZeroUsize;
use std::time::Duration;

use echobench_protocol::{Limits, Service, textual_enum};

/// How a server is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What it does with the bytes.
    pub service: Service,
    /// What it accepts.
    pub limits: Limits,
    /// Number of worker threads: of `pool` (64 unless given) and of the multi-threaded runtime of
    /// `async` (one per CPU unless given). The other models have no such number.
    pub workers: Option<NonZeroUsize>,
    /// The runtime of `async`.
    pub runtime: Runtime,
    /// Stack of a thread that serves connections, in bytes (`thread`, `pool`, `iterative`).
    pub stack_size: usize,
    /// How many connections may wait in the kernel to be accepted.
    pub backlog: u32,
    /// How many connections may be open; further ones are refused.
    pub max_connections: u32,
    /// A client that keeps the server waiting so long is cut off: for a whole request, however few
    /// bytes of it come, or to take a whole reply. It may be up to twice as long until then.
    pub idle_timeout: Duration,
    /// How long the connections that are open at SIGTERM or SIGINT have to come to their end.
    pub drain: Duration,
    /// How often to print the counters.
    pub stats_every: Option<Duration>,
    /// Whether to write a line about each connection to standard error.
    pub verbose: bool,
    /// What handlers do wrong on purpose, for tests of what becomes of the other clients.
    pub fault: Option<Fault>,
    /// Whether to collect children as they end, and not only at the end of the server; they are
    /// zombies until then.
    pub reap: bool,
    /// Steps of useless arithmetic for each request, a few nanoseconds each: a slow-down of known
    /// size, to prove that a measurement sees it.
    pub injected_steps: u32,
}

impl Settings {
    /// Enough for the connection loop many times over; what is not touched costs no memory.
    pub const STACK_SIZE: usize = 256 << 10;
    /// The same for every model, and recorded: libraries differ (128 in std, 1024 in tokio).
    pub const BACKLOG: u32 = 1024;
    /// More than one machine has ports for, to one address: the limits of the system come first.
    pub const MAX_CONNECTIONS: u32 = 65_536;
    /// See [`Settings::idle_timeout`].
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
    /// See [`Settings::drain`].
    pub const DRAIN: Duration = Duration::from_secs(5);
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            service: Service::default(),
            limits: Limits::default(),
            workers: None,
            runtime: Runtime::default(),
            stack_size: Settings::STACK_SIZE,
            backlog: Settings::BACKLOG,
            max_connections: Settings::MAX_CONNECTIONS,
            idle_timeout: Settings::IDLE_TIMEOUT,
            drain: Settings::DRAIN,
            stats_every: None,
            verbose: false,
            fault: None,
            reap: true,
            injected_steps: 0,
        }
    }
}

/// Which of its runtimes tokio is to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Worker threads that steal tasks from one another.
    #[default]
    MultiThread,
    /// Everything on the one thread that also accepts.
    CurrentThread,
}

textual_enum!(Runtime, "runtime", {
    MultiThread => "multi-thread",
    CurrentThread => "current-thread",
});

/// What a handler does in place of spinning work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It panics.
    Panic,
    /// It ends its process.
    Abort,
}

textual_enum!(Fault, "fault", { Panic => "panic", Abort => "abort" });
