//! Interchangeable servers: the same service, one file per concurrency model.
//!
//! A model file holds only its concurrency. To see the difference between threads and processes,
//! open `thread_per_connection.rs` and `fork_per_connection.rs` side by side. What they share has
//! its own place:
//!
//! - [`Acceptor`] listens, accepts, and sees to signals, counters and the drain at the end;
//! - `connection` is what a server does with one accepted connection, up to its close (`task` on
//!   tokio);
//! - [`echobench_protocol::Session`] is what it does with the bytes.
//!
//! A new model is one file and one line in [`MODELS`].

mod acceptor;
mod child;
mod connection;
mod counters;
mod idle;
mod listener;
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

/// A way to serve many connections at once.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The name on the command line and in every table.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    serve: fn(Acceptor, &Settings) -> io::Result<()>,
}

impl Model {
    /// Serves what `acceptor` accepts until SIGTERM or SIGINT and the drain that follows.
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

/// The model of this name.
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
    fn an_unknown_model_is_told_the_known_ones() {
        let error = find("threads").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown model 'threads' (thread, fork, pool, async, iterative)"
        );
    }
}
