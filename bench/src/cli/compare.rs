//! `echobench compare`: options of a comparison of two committed runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::out;
use crate::render::Style;
use crate::run::compare::{CompareOptions, compare};

/// Compare two results folders: ratios within each run and, if both ran on the same kind of machine,
/// absolute figures.
#[derive(Args)]
pub struct CompareArgs {
    /// The earlier results folder
    before: PathBuf,

    /// The later results folder
    after: PathBuf,

    /// Also compare runs on different kinds of machines; then ratios only
    #[arg(long)]
    allow_unlike: bool,

    /// Arm that ratios refer to, computed from the slices of both runs [default: that of each run]
    #[arg(long, value_name = "ARM")]
    reference: Option<String>,

    /// Draw the table in Markdown
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let options = CompareOptions {
        before: args.before.clone(),
        after: args.after.clone(),
        allow_unlike: args.allow_unlike,
        reference: args.reference.clone(),
    };
    let style = super::style(args.markdown, Style::Plain);
    out!("{}", compare(&options, style)?);
    Ok(ExitCode::SUCCESS)
}
