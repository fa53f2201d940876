//! A fixed number of worker threads.
//!
//! The threads are started once. A connection is handed over through a bounded queue, and a worker
//! owns it up to its close; so more connections than workers wait, however little the others do. The
//! counters show them as waiting.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::acceptor::Acceptor;
use crate::connection::Connection;
use crate::queue::Queue;
use crate::settings::{ModelOption, Settings};
use crate::{Family, Model};

/// Longest delay of signals while the queue is full.
const EVENTS_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) const MODEL: Model = Model {
    name: "pool",
    summary: "a fixed number of worker threads, each with one connection to its end",
    family: Family::Pool,
    options: &[ModelOption::Workers, ModelOption::StackSize],
    accept: &[],
    serve,
};

fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.blocking_workers();
    // As many connections may wait here as in the kernel.
    let queue = Arc::new(Queue::<Connection>::bounded(settings.backlog as usize));

    for number in 1..=workers {
        let queue = Arc::clone(&queue);
        acceptor.start_worker(number, workers, move || {
            loop {
                queue.pop().serve();
            }
        })?;
    }

    let mut next = acceptor.accept()?;
    while let Some(connection) = next {
        next = match queue.push(connection, EVENTS_INTERVAL) {
            Ok(()) => acceptor.accept()?,
            // The queue is full: signals are handled meanwhile.
            Err(connection) => acceptor.handle_events()?.then_some(connection),
        };
    }
    Ok(())
}
