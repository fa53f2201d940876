//! Costs of primitive operations: the start of a thread, a process or a task, and a round trip of 64
//! bytes. Each is timed in a process of its own that does nothing else.
//!
//! The process is single-threaded but for the threads that the operation itself starts, so it may fork.
//! Its figures depend neither on the memory nor on the threads of the benchmark or claim that asks.

mod ladder;
mod start;

use std::fmt;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use crate::host::cpus::pin_current_process;
use crate::processes::child::{ChildProcess, die_with_parent};
use crate::processes::messages::send;
use crate::scenario::Placement;

/// Time for an answer of a probe; one that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A prepared operation, which can be performed a number of times.
type Perform = Box<dyn FnMut(u64) -> anyhow::Result<()>>;

/// A primitive operation that can be timed.
#[derive(Debug)]
pub struct Operation {
    /// The name on the command line and in the names of benchmarks.
    pub name: &'static str,
    /// One execution in one line.
    pub summary: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A start of something, and the wait for its end.
    Start(fn() -> anyhow::Result<Perform>),
    /// Work for threads that exist already.
    HandOver(fn() -> anyhow::Result<Perform>),
    /// A round trip to another thread, through memory.
    Queue(fn() -> anyhow::Result<Perform>),
    /// A round trip to another thread or process, through the kernel.
    Stream(fn() -> io::Result<ladder::Ends>),
}

/// Every operation, in the order of every list and table.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "thread",
        summary: "start a thread and join it",
        kind: Kind::Start(start::thread),
    },
    Operation {
        name: "scoped",
        summary: "open a scope, start a thread in it, and leave the scope",
        kind: Kind::Start(start::scoped),
    },
    Operation {
        name: "fork",
        summary: "fork a process that ends at once, and wait for it",
        kind: Kind::Start(start::fork),
    },
    Operation {
        name: "spawn",
        summary: "posix_spawn this executable to do nothing, and wait for it",
        kind: Kind::Start(start::spawn),
    },
    Operation {
        name: "task-current-thread",
        summary: "spawn a task on tokio's current-thread runtime and await it",
        kind: Kind::Start(start::task_current_thread),
    },
    Operation {
        name: "task-multi-thread",
        summary: "spawn a task on tokio's multi-thread runtime, from outside, and await it",
        kind: Kind::HandOver(start::task_multi_thread),
    },
    Operation {
        name: "rayon",
        summary: "spawn a job on a rayon pool, from outside, and wait for it",
        kind: Kind::HandOver(start::rayon),
    },
    Operation {
        name: "pool",
        summary: "send a job to worker threads over a crossbeam channel and wait for it",
        kind: Kind::HandOver(start::pool),
    },
    Operation {
        name: "channel",
        summary: "64 bytes there and back over bounded crossbeam channels",
        kind: Kind::Queue(ladder::channel),
    },
    Operation {
        name: "mpsc",
        summary: "64 bytes there and back over the standard library's channels",
        kind: Kind::Queue(ladder::mpsc),
    },
    Operation {
        name: "pipe",
        summary: "64 bytes there and back over two pipes",
        kind: Kind::Stream(ladder::pipes),
    },
    Operation {
        name: "fifo",
        summary: "64 bytes there and back over two named pipes",
        kind: Kind::Stream(ladder::fifos),
    },
    Operation {
        name: "unix",
        summary: "64 bytes there and back over a Unix stream socket",
        kind: Kind::Stream(ladder::unix),
    },
    Operation {
        name: "tcp",
        summary: "64 bytes there and back over TCP on loopback, without Nagle's algorithm",
        kind: Kind::Stream(ladder::tcp),
    },
];

impl Operation {
    /// The ends that its message can go between; none for an operation without a message.
    #[must_use]
    pub fn between(&self) -> &'static [Between] {
        match self.kind {
            Kind::Start(_) | Kind::HandOver(_) => &[],
            Kind::Queue(_) => &[Between::Threads],
            Kind::Stream(_) => &Between::ALL,
        }
    }
}

/// The operation of this name.
pub fn find(name: &str) -> anyhow::Result<&'static Operation> {
    let known = || names(|_| true);
    OPERATIONS
        .iter()
        .find(|operation| operation.name == name)
        .with_context(|| format!("unknown operation '{name}' ({})", known()))
}

fn names(which: impl Fn(&&Operation) -> bool) -> String {
    let names: Vec<_> = OPERATIONS.iter().filter(which).map(|o| o.name).collect();
    names.join(", ")
}

/// The two ends of a message's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Between {
    /// Two threads of one process.
    #[default]
    Threads,
    /// Two processes, one forked from the other.
    Processes,
}

impl Between {
    /// Both kinds of ends.
    pub const ALL: [Between; 2] = [Between::Threads, Between::Processes];
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Between::Threads => "threads",
            Between::Processes => "processes",
        })
    }
}

impl FromStr for Between {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Between::ALL
            .into_iter()
            .find(|between| between.to_string() == name)
            .ok_or_else(|| format!("unknown ends '{name}' (threads, processes)"))
    }
}

/// The arguments of `echobench probe`, which say what it measures.
///
/// The probe prints `"ready"`. It answers each line of its standard input, a number of operations, with a
/// line that holds the nanoseconds they took together, and ends at the end of its input.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// Operation to time
    #[arg(value_parser = find)]
    pub operation: &'static Operation,

    /// Additional memory of the process, all of it touched, in pages of the size that the system
    /// chooses for a heap
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub resident_mib: u32,

    /// Other end of the message's way: one of the threads or of the processes
    #[arg(long, value_name = "ENDS", default_value_t)]
    pub between: Between,

    /// Both ends on one CPU (same), on different ones (split), or wherever (none)
    #[arg(long, default_value_t)]
    pub placement: Placement,

    /// Keep the signal stack that the standard library gives to every thread
    #[arg(long)]
    pub signal_stack: bool,
}

impl ProbeArgs {
    /// The operation alone: no memory, between threads, wherever the scheduler puts them.
    #[must_use]
    pub fn new(operation: &'static Operation) -> Self {
        ProbeArgs {
            operation,
            resident_mib: 0,
            between: Between::default(),
            placement: Placement::default(),
            signal_stack: false,
        }
    }

    fn command_line(&self) -> Vec<String> {
        let mut words = vec![
            "probe".to_owned(),
            self.operation.name.to_owned(),
            format!("--resident-mib={}", self.resident_mib),
            format!("--between={}", self.between),
            format!("--placement={}", self.placement),
        ];
        // Decided before `main`, from the arguments.
        words.extend(self.signal_stack.then(|| "--signal-stack".to_owned()));
        words
    }

    /// Checks that the options apply to the operation.
    fn check(&self) -> anyhow::Result<()> {
        let name = self.operation.name;
        let joins_processes =
            |operation: &&Operation| operation.between().contains(&Between::Processes);
        if self.between == Between::Processes && !joins_processes(&self.operation) {
            let others = names(joins_processes);
            bail!("{name} works only within a process (--between processes: {others})");
        }

        if self.placement == Placement::Split && matches!(self.operation.kind, Kind::Start(_)) {
            bail!("{name} has no other end to put on another CPU (--placement: none, same)");
        }
        Ok(())
    }

    fn prepare(&self) -> anyhow::Result<Perform> {
        match self.operation.kind {
            Kind::Start(prepare) | Kind::HandOver(prepare) | Kind::Queue(prepare) => prepare(),
            Kind::Stream(open) => ladder::stream(open()?, self.between),
        }
    }
}

/// Times the operation once per request, until standard input ends.
pub fn run(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    die_with_parent()?;
    args.check()?;
    let ballast = vec![1_u8; (args.resident_mib as usize) << 20];

    // Threads and processes inherit the CPUs, so the other end is prepared on its own.
    let (there, here) = args.placement.cpus()?;
    pin(&there)?;
    let name = args.operation.name;
    let mut perform = args
        .prepare()
        .with_context(|| format!("cannot prepare {name}"))?;
    pin(&here)?;

    send(&"ready")?;
    for line in io::stdin().lines() {
        let line = line?;
        let count = line.trim().parse().ok();
        let count = count.with_context(|| format!("'{line}' is not a number of operations"))?;

        let began = Instant::now();
        perform(count).with_context(|| format!("{name} failed"))?;
        let time = began.elapsed();
        send(&u64::try_from(time.as_nanos())?)?;
    }

    // Keeps the memory in use until here.
    black_box(ballast);
    Ok(ExitCode::SUCCESS)
}

fn pin(cpus: &[usize]) -> anyhow::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    pin_current_process(cpus).context("cannot pin the probe to its CPUs")
}

/// A running probe process; it ends when this is dropped.
pub struct Probe {
    process: ChildProcess,
}

impl Probe {
    /// Starts a process of this executable, and waits until it is ready. To be called on the main
    /// thread, since the kernel ends the process with the thread that started it.
    pub fn start(args: &ProbeArgs) -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("cannot find this executable")?;
        Self::start_from(&executable, args)
    }

    /// Starts a process of another executable, for callers that are not echobench themselves.
    pub fn start_from(executable: &Path, args: &ProbeArgs) -> anyhow::Result<Self> {
        let name = format!("the probe {}", args.operation.name);
        let process = ChildProcess::spawn_executable(executable, &name, &args.command_line())?;
        // The only message that it sends without a request.
        process.receive::<String>(Instant::now() + TIMEOUT)?;
        Ok(Probe { process })
    }

    /// Total time of a number of operations, one after the other.
    pub fn time(&mut self, operations: u64) -> anyhow::Result<Duration> {
        self.process.send(&operations)?;
        let ns = self.process.receive(Instant::now() + TIMEOUT)?;
        Ok(Duration::from_nanos(ns))
    }
}
