//! Conformance suite: required properties of an echo server, as a table of checks that know nothing of it
//! but its address.

mod checks;
mod connection;
mod report;
mod target;

use std::time::Duration;

use anyhow::Context;
use crossbeam::channel::{RecvTimeoutError, bounded};
use echobench_clients::raise_file_limit;

use crate::host::signals::{catch_interrupts, interrupted, unless_interrupted};
use crate::host::threads;
pub use checks::{CHECKS, Check, CheckOutcome, Peer};
pub use connection::{Connection, Limits, changed, echo, frame};
pub(crate) use report::VerifyReport;
pub(crate) use target::VerifyTarget;

/// Options of a verification.
pub(crate) struct VerifyOptions {
    /// The server.
    pub(crate) target: VerifyTarget,
    /// Time limit of each check.
    pub(crate) limit: Duration,
}

/// Verifies a server; `progress` gets a line before each check. Checks that are done before an interrupt are
/// in the report.
pub(crate) fn verify(
    options: &VerifyOptions,
    progress: impl Fn(&str),
) -> anyhow::Result<VerifyReport> {
    catch_interrupts().context("cannot catch interrupts")?;
    // If the limit cannot be raised far enough, the check that needs more says so.
    let _ = raise_file_limit(checks::CONNECTIONS);

    let mut report = VerifyReport::default();
    let Some((server, addresses)) = unless_interrupted(options.target.start())? else {
        report.interrupted = true;
        return Ok(report);
    };

    let limit = options.limit;
    let name = options.target.name();
    let met = interruptible(move || target::meet_any(&name, &addresses, limit))?;
    if let Some(peer) = met.transpose()? {
        for check in CHECKS {
            progress(&format!("{}: {}", check.name, check.what));
            let Some(outcome) = interruptible(move || check.run(peer))? else {
                break;
            };
            report.outcomes.push((check, outcome));
        }
    }

    report.interrupted = interrupted();
    if !report.interrupted
        && let Some(server) = server
    {
        report.end = Some(server.stop());
    }
    Ok(report)
}

/// Runs `work` in a thread; `None` if the process is interrupted before it is done. The thread is then left
/// alone: it may be in a system call that no signal reaches, and the process is about to end.
fn interruptible<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<Option<T>> {
    const INTERVAL: Duration = Duration::from_millis(20);
    let (send, result) = bounded(1);
    threads::spawn("check the server", move || {
        let _ = send.send(work());
    })?;

    loop {
        if interrupted() {
            return Ok(None);
        }
        match result.recv_timeout(INTERVAL) {
            Ok(result) => return Ok(Some(result)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("a check panicked"),
        }
    }
}
