//! Interchangeable echo servers: one service, one file per concurrency model.
//!
//! A model file holds only its concurrency. `thread_per_connection.rs` and `fork_per_connection.rs`,
//! side by side, differ by what distinguishes threads from processes.
//!
//! # Layout
//!
//! - [`MODELS`] lists the models; a new one is one file and one line there.
//! - [`Acceptor`] (`acceptor`, `listener`) listens, accepts, handles signals and timers, and runs the
//!   drain at the end.
//! - `incoming` is the listener of a worker that accepts for itself.
//! - `pass` passes connections from the acceptor to worker processes.
//! - `connection` serves one accepted connection with blocking calls, `event` in an event loop, `completion` in a
//!   completion loop, `task` on tokio (`runtime`); all
//!   carry out the steps of an [`echobench_protocol::Session`], which holds the protocol.
//! - `server` and `counters` hold the state shared by all connections, `counters` also with forked
//!   children; `child` is the setup of such a child.
//! - `queue` hands connections to the workers of `pool`.
//! - `overflow` frees threads from the signal stacks of the standard library.
//! - `idle` detects idle clients; `work` does the work that a request asks for.
//! - [`Settings`] are the same for every model they apply to.
//!
//! # Use
//!
//! ```no_run
//! use echobench_servers::{Acceptor, Settings, find};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let acceptor = Acceptor::bind("127.0.0.1:7000".parse()?, Settings::default())?;
//! // Prints `ready ADDR`, and returns after SIGTERM or SIGINT and the drain.
//! find("thread")?.serve(acceptor)?;
//! # Ok(())
//! # }
//! ```

mod acceptor;
mod child;
mod completion;
mod connection;
mod counters;
mod event;
mod idle;
mod incoming;
mod listener;
mod overflow;
mod pass;
mod queue;
mod runtime;
mod server;
mod settings;
mod shared_mutex;
mod task;
mod work;

mod async_tokio;
mod fork_per_connection;
mod iterative;
mod leader;
mod pool;
mod prefork;
mod prethread;
mod reactor;
mod thread_per_connection;
mod uring;

use std::io;

use echobench_protocol::UnknownName;

pub use acceptor::{Acceptor, Stopper};
pub use listener::BindError;
pub use overflow::{omit_signal_stacks, restore_signals};
pub use settings::{AcceptMode, Fault, HandOff, ModelOption, PoolQueue, Runtime, Settings};

/// A concurrency model: a way to serve many connections at once.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The name on the command line and in every table.
    pub name: &'static str,
    /// Its description, in one line.
    pub summary: &'static str,
    /// Its family, which decides how it behaves under faults.
    pub family: Family,
    /// The options it takes, beside those that every model takes.
    pub options: &'static [ModelOption],
    /// The ways in which its workers can share a listener, that of the default first; empty where it
    /// takes no [`ModelOption::Accept`].
    pub accept: &'static [AcceptMode],
    /// Fails with the reason where this host cannot serve the model.
    probe: Option<fn() -> Result<(), String>>,
    serve: fn(Acceptor, &Settings) -> io::Result<()>,
}

/// An option that a model does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionRefused {
    /// The option has no effect on the model.
    #[error("model '{model}' takes no --{option} ({} do)", takers.join(", "))]
    Option {
        /// The model.
        model: &'static str,
        /// The option.
        option: ModelOption,
        /// The models that take it.
        takers: Vec<&'static str>,
    },
    /// The workers of the model cannot accept in this way.
    #[error("model '{model}' takes no --accept {way} ({})", known.join(", "))]
    Way {
        /// The model.
        model: &'static str,
        /// The way.
        way: AcceptMode,
        /// The ways that it takes.
        known: Vec<&'static str>,
    },
}

impl Model {
    /// Fails if an option is given that has no effect on this model.
    pub fn check(&self, settings: &Settings) -> Result<(), OptionRefused> {
        if let Some(way) = settings.accept
            && self.options.contains(&ModelOption::Accept)
            && !self.accept.contains(&way)
        {
            return Err(OptionRefused::Way {
                model: self.name,
                way,
                known: self.accept.iter().map(|way| way.name()).collect(),
            });
        }

        let refused = |option: &ModelOption| !self.options.contains(option);
        let Some(option) = settings.model_options().find(refused) else {
            return Ok(());
        };

        let takers = MODELS
            .iter()
            .filter(|model| model.options.contains(&option));
        Err(OptionRefused::Option {
            model: self.name,
            option,
            takers: takers.map(|model| model.name).collect(),
        })
    }

    /// The reason why this process, and those that it starts, cannot serve the model, if there is one.
    #[must_use]
    pub fn unavailable(&self) -> Option<String> {
        self.probe?().err()
    }

    /// Serves the connections of `acceptor` until SIGTERM or SIGINT and the drain that follows.
    ///
    /// To be called on the thread that made the acceptor, before any other thread is started: some
    /// models fork.
    pub fn serve(&self, acceptor: Acceptor) -> io::Result<()> {
        if let Some(reason) = self.unavailable() {
            return Err(io::Error::other(reason));
        }

        let settings = acceptor.settings();
        (self.serve)(acceptor, &settings)
    }
}

/// Families of models: what serves a connection, and therefore what its connections share.
///
/// Tests, claims and charts ask for the family, never for the name of a model, so that a new model
/// needs no change there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// A thread that is started for each connection, all in one process.
    Threads,
    /// A process that is forked for each connection.
    Processes,
    /// One of a fixed number of threads, up to the connection's close.
    Pool,
    /// A task on an event loop.
    Tasks,
    /// One thread for all connections, one after the other.
    Iterative,
    /// One of a fixed number of processes, up to the connection's close.
    ProcessPool,
    /// A state machine on an event loop of the model's own.
    EventLoops,
}

impl Family {
    /// Every family, in the order of every table.
    pub const ALL: [Family; 7] = [
        Family::Threads,
        Family::Processes,
        Family::Pool,
        Family::Tasks,
        Family::Iterative,
        Family::ProcessPool,
        Family::EventLoops,
    ];

    /// The name in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Family::Threads => "threads",
            Family::Processes => "processes",
            Family::Pool => "pool",
            Family::Tasks => "tasks",
            Family::Iterative => "iterative",
            Family::ProcessPool => "process pool",
            Family::EventLoops => "event loops",
        }
    }

    /// Whether a connection is served in another process than that of the server.
    #[must_use]
    pub fn forks(self) -> bool {
        matches!(self, Family::Processes | Family::ProcessPool)
    }

    /// Whether a thread or process is started for each connection.
    #[must_use]
    pub fn starts_for_each_connection(self) -> bool {
        matches!(self, Family::Threads | Family::Processes)
    }

    /// Whether a connection waits until the one before it is closed.
    #[must_use]
    pub fn is_iterative(self) -> bool {
        self == Family::Iterative
    }
}

/// Every model, in the order of every list and table.
pub const MODELS: &[Model] = &[
    thread_per_connection::MODEL,
    fork_per_connection::MODEL,
    pool::MODEL,
    async_tokio::MODEL,
    iterative::MODEL,
    prefork::MODEL,
    prethread::MODEL,
    reactor::MODEL,
    leader::MODEL,
    uring::MODEL,
];

/// The models that textbooks introduce, and the baseline: those of the claims and the self-checks.
#[must_use]
pub fn textbook_models() -> &'static [Model] {
    &MODELS[..5]
}

/// Finds a model by its name.
pub fn find(name: &str) -> Result<&'static Model, UnknownName> {
    let found = MODELS.iter().find(|model| model.name == name);
    found.ok_or_else(|| UnknownName {
        noun: "model",
        name: name.to_owned(),
        known: MODELS.iter().map(|model| model.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn every_model_is_found_by_its_name() {
        for model in MODELS {
            assert_eq!(find(model.name).unwrap().name, model.name);
        }
    }

    #[test]
    fn an_option_without_effect_is_refused() {
        let thread = find("thread").unwrap();
        let mut settings = Settings {
            stack_size: Some(64 << 10),
            ..Settings::default()
        };
        assert_eq!(thread.check(&settings), Ok(()));

        settings.workers = NonZeroUsize::new(8);
        let refused = thread.check(&settings).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "model 'thread' takes no --workers (pool, async, prefork, prethread, reactor, leader, uring do)"
        );
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let error = find("threads").unwrap_err().to_string();
        let names: Vec<_> = MODELS.iter().map(|model| model.name).collect();
        assert_eq!(
            error,
            format!("unknown model 'threads' ({})", names.join(", "))
        );
        assert!(names.starts_with(&["thread", "fork"]), "{names:?}");
    }
}
