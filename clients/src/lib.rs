//! The load generator: many clients, one plan, every reply checked.
//!
//! A [`Plan`] says who asks what, and in which [`Window`]s of time. [`run`] carries it out with one
//! of three drivers (threads, processes, tasks) and returns a [`Report`]. What a client does next
//! is decided in one place, `client.rs`, for all drivers alike; a driver only knows how to wait,
//! connect, and exchange one request for one reply.
//!
//! Everything planned is accounted for: `planned = answered + errors + unsent`, always.

pub mod clock;

mod blocking;
mod client;
mod connect;
mod pacer;
mod plan;
mod processes;
mod report;
mod tasks;
mod threads;

pub use connect::raise_file_limit;
pub use plan::{
    Arrivals, Ask, Driver, ParseError, Plan, Spacing, Window, WorkMix, Workload, parse_duration,
};
pub use report::{
    ErrorKind, Percentiles, REPORTED_QUANTILES, Report, WindowReport, decode_histogram,
    encode_histogram, quantile, samples_needed,
};

use std::io;

/// Why a plan could not be carried out at all. What happens to single requests is in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A client thread or process could not be started.
    #[error(
        "cannot start client {client} of {clients}: {source} (fewer --clients, or --driver tasks)"
    )]
    Spawn {
        /// Which client, from 1.
        client: u32,
        /// How many there were to be.
        clients: u32,
        /// What the system said.
        source: io::Error,
    },
    /// More descriptors are needed than the process may open.
    #[error(
        "{clients} clients need {needed} open files, the limit is {limit} (RLIMIT_NOFILE; raise it with: \
         ulimit -n {needed})"
    )]
    FileLimit {
        /// Clients of the plan.
        clients: u32,
        /// Descriptors the plan needs.
        needed: u64,
        /// The hard limit of this process.
        limit: u64,
    },
    /// Anything else the system refused.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl LoadError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| LoadError::System { what, source }
    }
}

/// Carries out a plan.
///
/// When every client is connected (or has failed to), `start` is called once; it returns the
/// instant, on [`clock::now`], that the windows of the plan are relative to. It may block, for
/// example until a message comes.
///
/// With [`Driver::Processes`] the calling process must have only one thread.
pub fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<Report, LoadError> {
    raise_file_limit(plan.clients)?;
    let began = clock::now();
    let mut connecting_ns = 0;
    let start = || {
        connecting_ns = clock::now() - began;
        start()
    };
    let mut report = match plan.driver {
        Driver::Threads => threads::run(plan, start),
        Driver::Processes => processes::run(plan, start),
        Driver::Tasks => tasks::run(plan, start),
    }?;
    report.connecting_ns = connecting_ns;
    Ok(report)
}
