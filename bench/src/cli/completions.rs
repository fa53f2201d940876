//! `echobench completions SHELL` and `echobench man DIR`: completion scripts and man pages, generated from
//! the definition of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use crate::out;

/// Options of `completions`.
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Options of `man`.
#[derive(Args)]
pub struct ManArgs {
    /// Folder of the pages
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut public_commands(), "echobench", &mut script);
    out!("{}", String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}

/// The command line without the hidden commands, which only this executable itself uses.
fn public_commands() -> Command {
    let whole = Cli::command();
    let commands = whole.get_subcommands();
    let shown: Vec<Command> = commands.filter(|one| !one.is_hide_set()).cloned().collect();
    Command::new("echobench")
        .about(whole.get_about().cloned().unwrap_or_default())
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(shown)
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let place = || format!("cannot write man pages to {}", args.folder.display());
    std::fs::create_dir_all(&args.folder).with_context(place)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).with_context(place)?;
    Ok(ExitCode::SUCCESS)
}
