//! `echobench history`: options of the ratios of each arm over all committed runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::out;
use crate::run::history::history;

/// List the ratios of each arm over the committed runs, oldest first, and mark where they changed.
/// Advisory: the exit code is 0 whatever is found.
#[derive(Args)]
pub struct HistoryArgs {
    /// A folder of results folders
    #[arg(default_value = "results")]
    folder: PathBuf,
}

pub(super) fn run(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    out!("{}", history(&args.folder)?);
    Ok(ExitCode::SUCCESS)
}
