//! A fixed number of worker threads.
//!
//! The threads are started once. A connection is handed over through a bounded channel, and a worker
//! owns it to its end; so more connections than workers wait, however little the others do. The
//! counters show them as waiting.

use std::io;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, SendTimeoutError};

use crate::acceptor::Acceptor;
use crate::connection::Connection;
use crate::settings::Settings;

const DEFAULT_WORKERS: usize = 64;
/// With the channel full, how long signals may wait.
const ATTEND_EVERY: Duration = Duration::from_millis(50);

pub(crate) fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.workers.map_or(DEFAULT_WORKERS, usize::from);
    // As many may wait here as in the kernel.
    let (sender, receiver) = channel::bounded::<Connection>(settings.backlog as usize);
    for number in 1..=workers {
        let receiver = receiver.clone();
        thread::Builder::new()
            .stack_size(settings.stack_size)
            .spawn(move || receiver.into_iter().for_each(Connection::serve))
            .map_err(|error| {
                let what = format!("cannot start worker {number} of {workers}: {error}");
                io::Error::new(error.kind(), what)
            })?;
    }
    let mut next = acceptor.accept()?;
    while let Some(connection) = next {
        next = match sender.send_timeout(connection, ATTEND_EVERY) {
            Ok(()) => acceptor.accept()?,
            // No room yet: signals are seen to meanwhile.
            Err(SendTimeoutError::Timeout(connection)) => acceptor.attend()?.then_some(connection),
            Err(SendTimeoutError::Disconnected(_)) => unreachable!("`receiver` is held here"),
        };
    }
    Ok(())
}
