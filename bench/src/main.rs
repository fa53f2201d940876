//! The executable `echobench`: reads the command line, runs one command, and turns its outcome into
//! an exit code.
//!
//! 0: fine. 1: it could not be done. 2: a regression, or a failed claim or verification.
//! 3: inconclusive or contaminated.

use std::process::ExitCode;

use clap::Parser;
use echobench::commands::Cli;

fn main() -> ExitCode {
    end_with_the_reader();
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
