//! The executable `echobench`: reads the command line, runs one command, and turns its outcome into
//! an exit code.
//!
//! 0: fine. 1: it could not be done. 2: a regression, or a failed claim or verification.
//! 3: inconclusive or contaminated.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use echobench::cli::Cli;
use echobench::host::output;
use echobench::noteln;
use echobench_fork::is_single_threaded;
use nix::sys::signal::{SigHandler, Signal, signal};

fn main() -> ExitCode {
    reset_sigchld();
    let code = match parse_elsewhere() {
        Ok(cli) => run(cli),
        Err(message) => explain(&message),
    };
    output::finish(code)
}

fn run(cli: Cli) -> ExitCode {
    cli.command.run().unwrap_or_else(|error| {
        noteln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints help, a version, or the fault of a command line. Only the last cannot be run.
fn explain(message: &clap::Error) -> ExitCode {
    match message.print() {
        Ok(()) => ExitCode::from(u8::from(message.use_stderr())),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Restores the default action of SIGCHLD, which a parent may have left ignored: the kernel would then
/// reap every child itself, and lose its exit status and its CPU time.
fn reset_sigchld() {
    #[expect(unsafe_code, reason = "a disposition can only be set this way")]
    // SAFETY: the default disposition is no handler. It fails only for a signal that does not exist.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Reads the command line in a thread that ends with it: what that leaves behind stays in the thread's
/// own heap. In that of the main thread, each child that a server forks would have to copy dozens of pages
/// in which there is still a bit of room.
fn parse_elsewhere() -> Result<Cli, clap::Error> {
    let Ok(elsewhere) = thread::Builder::new().spawn(Cli::try_parse) else {
        // Where no thread is to be had, some memory is the lesser evil.
        return Cli::try_parse();
    };
    let parsed = elsewhere.join();
    // The kernel takes a moment to forget it, and what has several threads may not fork.
    for _ in 0..10_000 {
        if is_single_threaded().unwrap_or(true) {
            break;
        }
        thread::sleep(Duration::from_micros(20));
    }
    parsed.expect("reading a command line does not panic")
}
