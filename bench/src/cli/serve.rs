//! `echobench serve`: one server process.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use echobench_clients::parse_duration;
use echobench_protocol::{DEFAULT_MAX_PAYLOAD, Limits, MAX_PAYLOAD, Service};
use echobench_servers::{
    AcceptMode, Acceptor, Fault, HandOff, MODELS, PoolQueue, Runtime, Settings, find,
};
use nix::sys::signal::Signal;

use super::values::{bytes_up_to, interval};
use crate::host::signals::ignore_with_handler;
use crate::scenario::parse_size;

/// Run one server until SIGTERM or SIGINT.
///
/// Prints `ready ADDR` once it accepts connections. SIGUSR1 prints a line of counters, and so does
/// the end. A second SIGTERM or SIGINT ends the server without waiting for its connections.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub struct ServeArgs {
    #[arg(help = format!("Concurrency model: {}", model_names()))]
    model: String,

    /// Address to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Service: echo, raw or time
    #[arg(long, default_value_t = Service::Echo)]
    service: Service,

    /// Workers of `pool`, `prefork`, `prethread` and `leader` (64 unless given), and of `async`, `reactor`
    /// and `uring` (one per CPU unless given)
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,

    /// The tokio runtime of `async`: multi-thread (unless given), current-thread, or per-core (one for each worker,
    /// with a listener of its own)
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<Runtime>,

    /// Way in which the workers of `prefork` and `prethread` (block unless given) and of `reactor` and `uring`
    /// (reuseport unless given) get connections: block, poll, exclusive, file-lock, mutex, reuseport, or pass
    /// (`prefork`: the parent accepts, and passes them to free workers); `reactor` takes reuseport, exclusive and
    /// poll, `uring` reuseport and block
    #[arg(long, value_name = "WAY")]
    accept: Option<AcceptMode>,

    /// Way in which `leader` hands a request to a worker: leader (unless given) or queue
    #[arg(long, value_name = "WAY")]
    hand_off: Option<HandOff>,

    /// Queue of `pool`: condvar (a bounded one of our own, unless given) or rayon (that of a rayon thread pool)
    #[arg(long, value_name = "QUEUE")]
    queue: Option<PoolQueue>,

    /// Connections that may wait in the kernel to be accepted
    #[arg(long, value_name = "N", default_value_t = Settings::BACKLOG,
          value_parser = clap::value_parser!(u32).range(1..=65_535))]
    backlog: u32,

    /// Interval at which the counters are printed
    #[arg(long, value_name = "TIME", value_parser = interval)]
    stats_every: Option<Duration>,

    /// Largest accepted payload, such as 1MiB
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MAX_PAYLOAD, value_parser = payload)]
    max_payload: u32,

    /// Longest accepted work of one request
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    max_work: Duration,

    /// Largest number of open connections; further ones are refused
    #[arg(long, value_name = "N", default_value_t = Settings::MAX_CONNECTIONS,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,

    /// Time after which a client is disconnected that keeps the server waiting (at most twice as
    /// long): for a whole request, however few bytes of it come, or to take a whole reply
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = interval)]
    idle_timeout: Duration,

    /// Time for open connections to end after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    drain: Duration,

    /// Stack of each thread that serves connections, such as 128KiB
    #[arg(long, value_name = "BYTES", value_parser = stack_size)]
    stack_size: Option<usize>,

    /// Keep the signal stack that the Rust standard library gives to each thread for its report of stack
    /// overflows (`thread`; the servers go without)
    #[arg(long)]
    signal_stack: bool,

    /// Write a line with the time and the address of each connection to standard error
    #[arg(long)]
    verbose: bool,

    /// Fault of handlers in place of spinning work, for tests: panic or abort
    #[arg(long, hide = true)]
    fault: Option<Fault>,

    /// Leave children that have ended as zombies, to show the consequences (used by `claims`)
    #[arg(long, hide = true)]
    no_reap: bool,

    /// Handle SIGALRM by doing nothing, so that it interrupts system calls (used by `claims`)
    #[arg(long, hide = true)]
    take_alarms: bool,

    /// Steps of useless arithmetic for each request, to prove that a gate sees them
    #[arg(long, hide = true, value_name = "N", default_value_t = 0)]
    inject_steps: u32,

    /// The same for one in 80 requests only, which raises the tail of latency and not its median
    #[arg(long, hide = true, value_name = "N", default_value_t = 0)]
    inject_tail_steps: u32,
}

/// Serves until the end of the server.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let model = find(&args.model)?;
    let settings = Settings {
        service: args.service,
        limits: Limits {
            max_payload: args.max_payload,
            max_work: args.max_work,
        },
        workers: args.workers,
        runtime: args.runtime,
        accept: args.accept,
        hand_off: args.hand_off,
        queue: args.queue,
        stack_size: args.stack_size,
        signal_stack: args.signal_stack,
        backlog: args.backlog,
        max_connections: args.max_connections,
        idle_timeout: args.idle_timeout,
        drain: args.drain,
        stats_every: args.stats_every,
        verbose: args.verbose,
        fault: args.fault,
        reap: !args.no_reap,
        injected_steps: args.inject_steps,
        injected_tail_steps: args.inject_tail_steps,
    };
    model.check(&settings)?;

    if args.take_alarms {
        ignore_with_handler(Signal::SIGALRM, false)?;
    }
    let acceptor = Acceptor::bind(args.listen, settings)?;
    let address = acceptor.local_addr();
    model
        .serve(acceptor)
        .with_context(|| format!("server {} on {address} failed", model.name))?;
    Ok(ExitCode::SUCCESS)
}

/// The names of all models, as in a sentence.
fn model_names() -> String {
    let names: Vec<_> = MODELS.iter().map(|model| model.name).collect();
    names.join(", ")
}

fn payload(text: &str) -> Result<u32, String> {
    bytes_up_to(text, MAX_PAYLOAD)
}

fn stack_size(text: &str) -> Result<usize, String> {
    usize::try_from(parse_size(text)?).map_err(|error| error.to_string())
}
