//! A fixed number of worker threads.
//!
//! The threads are started once. A connection is handed over through a queue, and a worker owns it up
//! to its close; so more connections than workers wait, however little the others do. The counters show
//! them as waiting. The queue is a bounded one of our own, or that of a rayon thread pool (`--queue`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rayon::ThreadPoolBuilder;

use crate::acceptor::Acceptor;
use crate::connection::Connection;
use crate::queue::Queue;
use crate::settings::{ModelOption, PoolQueue, Settings};
use crate::{Family, Model};

/// Longest delay of signals while the queue is full.
const EVENTS_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) const MODEL: Model = Model {
    name: "pool",
    summary: "a fixed number of worker threads, each with one connection to its end",
    family: Family::Pool,
    options: &[
        ModelOption::Workers,
        ModelOption::Queue,
        ModelOption::StackSize,
    ],
    accept: &[],
    probe: None,
    serve,
};

fn serve(acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.blocking_workers();
    match settings.queue.unwrap_or_default() {
        // As many connections may wait here as in the kernel.
        PoolQueue::Condvar => serve_bounded(acceptor, workers, settings.backlog as usize),
        PoolQueue::Rayon => serve_on_rayon(acceptor, workers),
    }
}

fn serve_bounded(mut acceptor: Acceptor, workers: usize, capacity: usize) -> io::Result<()> {
    let queue = Arc::new(Queue::<Connection>::bounded(capacity));

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

fn serve_on_rayon(mut acceptor: Acceptor, workers: usize) -> io::Result<()> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(workers)
        .spawn_handler(|thread| {
            let number = thread.index() + 1;
            acceptor.start_worker(number, workers, || thread.run())
        })
        .build()
        // Its source is the same error again.
        .map_err(|error| io::Error::other(error.to_string()))?;

    // This queue has no bound: only `--max-connections` limits how many wait in it.
    while let Some(connection) = acceptor.accept()? {
        pool.spawn(|| connection.serve());
    }
    Ok(())
}
