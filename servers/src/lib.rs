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
//! - `connection` serves one accepted connection with blocking calls, `task` on tokio (`runtime`); both
//!   carry out the steps of an [`echobench_protocol::Session`], which holds the protocol.
//! - `server` and `counters` hold the state shared by all connections, `counters` also with forked
//!   children; `child` is the setup of such a child.
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
mod connection;
mod counters;
mod idle;
mod incoming;
mod listener;
mod runtime;
mod server;
mod settings;
mod task;
mod work;

mod async_tokio;
mod fork_per_connection;
mod iterative;
mod pool;
mod thread_per_connection;

use std::io;

use echobench_protocol::UnknownName;

pub use acceptor::{Acceptor, Stopper};
pub use listener::BindError;
pub use settings::{Fault, Runtime, Settings};

/// A concurrency model: a way to serve many connections at once.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The name on the command line and in every table.
    pub name: &'static str,
    /// Its description, in one line.
    pub summary: &'static str,
    serve: fn(Acceptor, &Settings) -> io::Result<()>,
}

impl Model {
    /// Serves the connections of `acceptor` until SIGTERM or SIGINT and the drain that follows.
    ///
    /// To be called on the thread that made the acceptor, before any other thread is started: some
    /// models fork.
    pub fn serve(&self, acceptor: Acceptor) -> io::Result<()> {
        let settings = acceptor.settings();
        (self.serve)(acceptor, &settings)
    }
}

/// Every model, in the order of every list and table.
pub const MODELS: &[Model] = &[
    Model {
        name: "thread",
        summary: "a thread per connection",
        serve: thread_per_connection::serve,
    },
    Model {
        name: "fork",
        summary: "a process per connection",
        serve: fork_per_connection::serve,
    },
    Model {
        name: "pool",
        summary: "a fixed number of worker threads, each with one connection to its end",
        serve: pool::serve,
    },
    Model {
        name: "async",
        summary: "a task per connection on tokio",
        serve: async_tokio::serve,
    },
    Model {
        name: "iterative",
        summary: "one connection at a time: the baseline",
        serve: iterative::serve,
    },
];

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
    use super::*;

    #[test]
    fn every_model_is_found_by_its_name() {
        for model in MODELS {
            assert_eq!(find(model.name).unwrap().name, model.name);
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let error = find("threads").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown model 'threads' (thread, fork, pool, async, iterative)"
        );
    }
}
