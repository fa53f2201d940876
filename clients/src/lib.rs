//! The load generator: many clients, one plan, every reply checked.
//!
//! A [`Plan`] describes the target, the traffic and the [`Window`]s of time in which it is sent. [`run`]
//! executes it with one of three drivers (threads, processes, tasks) and returns a [`LoadReport`].
//! Every planned request is accounted for: `planned = answered + errors + unsent`.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpListener;
//!
//! use echobench_clients::{Driver, Plan, Window, Workload, clock};
//!
//! // An echo server in this process; any server of RFC 862 will do.
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let target = listener.local_addr()?;
//! std::thread::spawn(move || {
//!     for mut stream in listener.incoming().flatten() {
//!         std::thread::spawn(move || {
//!             let mut buffer = [0; 4096];
//!             while let Ok(count @ 1..) = stream.read(&mut buffer) {
//!                 if stream.write_all(&buffer[..count]).is_err() {
//!                     break;
//!                 }
//!             }
//!         });
//!     }
//! });
//!
//! // Four clients share 100 requests.
//! let plan = Plan {
//!     target,
//!     driver: Driver::Threads,
//!     clients: 4,
//!     part: None,
//!     source_addresses: Vec::new(),
//!     task_threads: 1,
//!     workload: Workload::default(),
//!     windows: vec![Window {
//!         start_ns: 0,
//!         measure_ns: 0,
//!         end_ns: u64::MAX,
//!         requests: Some(100),
//!     }],
//!     end_ns: None,
//! };
//! let report = echobench_clients::run(&plan, clock::now)?;
//!
//! let window = &report.windows[0];
//! assert_eq!((window.answered, window.failed(), window.unsent), (100, 0, 0));
//! assert_eq!(window.latency.len(), 100);
//! let median_ns = window.latency.quantile(0, 0.5).expect("100 values are enough");
//! assert!(median_ns > 0);
//! // 99.9 % of 100 requests cannot be told from all of them.
//! assert_eq!(window.latency.quantile(0, 0.999), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layout
//!
//! - `plan`, `work`: description of a load; `text`: textual forms of its options.
//! - `client`: decisions of one client, without input or output: `schedule` (due times), `message`
//!   (requests and replies), `tally` (results), and the state machine that joins them.
//! - `threads`, `processes`, `tasks`: the drivers, which wait, connect, send and receive for a client;
//!   `blocking`: the part that threads and processes share; `rendezvous`: start and end of all clients;
//!   `connect`: sockets; [`clock`]: monotonic time.
//! - `stop`: early end of all clients, requested by a signal handler.
//! - `report`, `failure`, `histogram`: results, errors by kind, and the rules for percentiles.

pub mod clock;

mod blocking;
mod client;
mod connect;
mod failure;
mod histogram;
mod plan;
mod processes;
mod rendezvous;
mod report;
mod room;
mod stop;
mod tasks;
mod text;
mod threads;
mod work;

pub use connect::{first_reachable, raise_file_limit};
pub use failure::{ErrorCounts, ErrorKind};
pub use histogram::{DurationHistogram, Percentiles, REPORTED_QUANTILES, samples_needed};
pub use plan::{Arrivals, Driver, Part, Plan, RequestKind, Spacing, Window, Workload};
pub use report::{LoadReport, WindowReport, jain_index};
pub use stop::{allow_stop, stop, stopped_ns};
pub use text::{ParseError, parse_duration};
pub use work::WorkMix;

use std::io;
use std::net::IpAddr;

/// Error that prevents a plan as a whole; errors of single requests are in the [`LoadReport`].
///
/// Each message is complete: the error of the system is part of it, not its source.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A client thread or process could not be started.
    #[error(
        "cannot start client {client} of {clients}: {error} (fewer --clients, or --driver tasks)"
    )]
    Spawn {
        /// Number of the client, from 1.
        client: u32,
        /// Clients of the plan.
        clients: u32,
        /// Error of the system.
        error: io::Error,
    },
    /// A thread of the tasks driver could not be started.
    #[error("cannot start thread {thread} of {threads} for tasks: {error} (fewer --task-threads)")]
    TaskThread {
        /// Number of the thread, from 1.
        thread: u32,
        /// Threads of the plan.
        threads: u32,
        /// Error of the system.
        error: io::Error,
    },
    /// The plan needs more descriptors than the process may open.
    #[error(
        "{clients} clients need {needed} open files, the limit is {limit} (RLIMIT_NOFILE; raise it with: \
         ulimit -n {needed})"
    )]
    FileLimit {
        /// Clients of the plan.
        clients: u32,
        /// Descriptors the plan needs.
        needed: u64,
        /// Hard limit of this process.
        limit: u64,
    },
    /// Connections cannot come from one of the source addresses.
    #[error("cannot connect to {target} from {source_address}: {error}")]
    SourceAddress {
        /// Source address of the plan.
        source_address: IpAddr,
        /// Address of the server.
        target: IpAddr,
        /// Error of the system.
        error: io::Error,
    },
    /// Another system call failed.
    #[error("{what}: {error}")]
    System {
        /// Failed operation.
        what: &'static str,
        /// Error of the system.
        error: io::Error,
    },
}

impl LoadError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| LoadError::System { what, error }
    }
}

/// Executes a plan.
///
/// `start` is called once, after every client has connected or failed to; it returns the instant,
/// on [`clock::now`], at which the windows of the plan begin. It may block, for example until a message
/// arrives.
///
/// With [`Driver::Processes`] the calling process must have only one thread.
pub fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<LoadReport, LoadError> {
    raise_file_limit(plan.clients)?;
    connect::check_source_addresses(plan)?;

    let began = clock::now();
    let mut connecting_ns = 0;
    let start = || {
        connecting_ns = clock::now() - began;
        start()
    };
    let mut report = match plan.driver {
        Driver::Threads => threads::run(plan, began, start),
        Driver::Processes => processes::run(plan, began, start),
        Driver::Tasks => tasks::run(plan, began, start),
    }?;

    report.connecting_ns = connecting_ns;
    Ok(report)
}
