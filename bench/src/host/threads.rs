//! Starting threads and processes, which the system may refuse.

use std::io::{self, ErrorKind};
use std::thread::{self, JoinHandle};

/// Starts a thread `to` do something. A refusal is an error, where `std::thread::spawn` panics.
pub(crate) fn spawn<T: Send + 'static>(
    to: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    let thread = thread::Builder::new().spawn(work);
    thread.map_err(|error| refused(&format!("cannot start a thread to {to}"), error))
}

/// The error of a thread or process that could not be started, in one line, with the limit to raise if
/// one was reached.
pub(crate) fn refused(message: &str, error: io::Error) -> anyhow::Error {
    // EAGAIN: fork and clone have no more precise error for any of their limits.
    let advice = if error.kind() == ErrorKind::WouldBlock {
        "; a limit on processes and threads is reached (ulimit -u, or pids.max of the control group)"
    } else {
        ""
    };
    anyhow::Error::new(error).context(format!("{message}{advice}"))
}
