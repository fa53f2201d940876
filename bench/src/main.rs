//! The executable `echobench`: parses the command line, runs one command, and turns its result into an
//! exit code.
//!
//! 0: success. 1: it could not be done. 2: a regression, or a failed claim or verification.
//! 3: inconclusive or contaminated.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use echobench::cli::Cli;
use echobench::host::output;
use echobench::host::signals::reset_sigchld;
use echobench::{noteln, out};
use echobench_fork::is_single_threaded;
use echobench_servers::{omit_signal_stacks, restore_signals};

/// Run by the loader before `main`: threads go without the signal stacks of the standard library.
#[expect(unsafe_code, reason = "the loader calls what it finds in this section")]
// SAFETY: it is the section for functions of this type.
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = omit_signal_stacks;

fn main() -> ExitCode {
    restore_signals();
    reset_sigchld();
    let code = match parse_args_on_short_lived_thread() {
        Ok(cli) => run(cli),
        Err(message) => print_message(&message),
    };
    output::finish(code)
}

fn run(cli: Cli) -> ExitCode {
    cli.command.run().unwrap_or_else(|error| {
        noteln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints help, a version, or an error of the command line. Only the last is a failure.
fn print_message(message: &clap::Error) -> ExitCode {
    if message.use_stderr() {
        let _ = message.print();
        return ExitCode::FAILURE;
    }

    let text = message.render();
    if io::stdout().is_terminal() {
        out!("{}", text.ansi());
    } else {
        out!("{text}");
    }
    ExitCode::SUCCESS
}

/// Parses the command line on a thread that ends afterwards, so that freed memory stays in the heap of
/// that thread. In the heap of the main thread it would leave dozens of partly used pages, each of which
/// every child that a server forks would have to copy.
fn parse_args_on_short_lived_thread() -> Result<Cli, clap::Error> {
    let Ok(parser) = thread::Builder::new().spawn(Cli::try_parse) else {
        // Without a thread, partly used pages are the lesser evil.
        return Cli::try_parse();
    };
    let parsed = parser.join();

    // The kernel counts a thread for a moment after it has been joined, and a process with several
    // threads may not fork.
    for _ in 0..10_000 {
        if is_single_threaded().unwrap_or(true) {
            break;
        }
        thread::sleep(Duration::from_micros(20));
    }
    parsed.expect("the parser does not panic")
}
