//! The tokio runtimes of `async`. One with worker threads is started with all of them, or not at all:
//! tokio 1.54 hangs otherwise. It never polls a task if only some of its workers could be started, and if none
//! could, it panics and the unwinding does not end.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;
use std::{io, panic, process};

use tokio::runtime::{Builder, Runtime};

use crate::server::log;

/// Time that a worker thread has for its first instruction, on a machine however busy.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A runtime for the thread that blocks on it.
pub(crate) fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Starts a runtime with this number of worker threads.
pub(crate) fn multi_thread(workers: usize) -> io::Result<Runtime> {
    check_threads(workers)?;

    // Between the check and here, another process may have taken what it found: then the start fails
    // nevertheless, with a less precise message.
    let (sender, started) = mpsc::channel();
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        .enable_all()
        .on_thread_start(move || {
            let _ = sender.send(());
        });
    let runtime = exit_on_panic(|| builder.build())?;

    match await_workers(workers, &started) {
        Ok(()) => Ok(runtime),
        Err(error) => {
            runtime.shutdown_background();
            Err(error)
        }
    }
}

/// Starts as many threads as the runtime needs, all at once, and ends them.
fn check_threads(workers: usize) -> io::Result<()> {
    let gate = Mutex::new(());

    thread::scope(|scope| {
        let _closed = gate.lock();
        for number in 1..=workers {
            let wait = || {
                // The first allocation of a thread may reserve 64 MiB of address space (glibc).
                black_box(Box::new(0));
                drop(gate.lock());
            };
            let spawned = thread::Builder::new().spawn_scoped(scope, wait);
            spawned.map_err(|error| cannot_start(number, workers, &error))?;
        }
        Ok(())
    })
}

/// Ends the process with one line if `build` panics, before any unwinding.
fn exit_on_panic<T>(build: impl FnOnce() -> T) -> T {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|panic| {
        log(format_args!("cannot start the runtime: {panic}"));
        process::exit(1);
    }));

    let built = build();
    panic::set_hook(hook);
    built
}

/// Waits until every worker runs.
fn await_workers(workers: usize, started: &Receiver<()>) -> io::Result<()> {
    for number in 1..=workers {
        started.recv_timeout(START_LIMIT).map_err(|_| {
            let error = io::Error::from(io::ErrorKind::WouldBlock);
            cannot_start(number, workers, &error)
        })?;
    }
    Ok(())
}

/// Adds the number of the worker to the error of its start.
pub(crate) fn cannot_start(number: usize, workers: usize, error: &io::Error) -> io::Error {
    let message = format!("cannot start worker {number} of {workers}: {error}");
    io::Error::new(error.kind(), message)
}
