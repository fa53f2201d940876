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
use echobench_fork::is_single_threaded;

fn main() -> ExitCode {
    end_with_the_reader();
    let cli = match parse_elsewhere() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version are answers; anything else is a command line that cannot be run.
            let code = u8::from(message.use_stderr());
            return message
                .print()
                .map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    cli.command.run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
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

/// Ends without a word when nobody reads on, as in `echobench table DIR | head`: printing then panics.
fn end_with_the_reader() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>();
        if message.is_some_and(|text| text.starts_with("failed printing to stdout: Broken pipe")) {
            std::process::exit(1);
        }
        otherwise(panic);
    }));
}
