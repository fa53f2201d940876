//! The executable `echobench`: reads the command line, runs one command, and turns its outcome into
//! an exit code.
//!
//! 0: fine. 1: it could not be done. 2: a regression, or a failed claim or verification.
//! 3: inconclusive or contaminated.

use std::process::ExitCode;

use clap::Parser;
use echobench::commands::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
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
