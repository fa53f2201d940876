//! `echobench table DIR`: options of the tables of a results folder.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::view::ViewArgs;
use crate::out;
use crate::render::Style;
use crate::render::splice::splice;
use crate::run::stored::StoredRun;

/// Options of `table`.
#[derive(Args)]
pub struct TableArgs {
    /// A results folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    #[command(flatten)]
    view: ViewArgs,

    /// Draw the tables in Markdown
    #[arg(long)]
    markdown: bool,

    /// Replace the text between the markers `<!-- table -->` and `<!-- /table -->` of this document
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

pub(super) fn run(args: &TableArgs) -> anyhow::Result<ExitCode> {
    let stored = StoredRun::read(&args.folder, args.view.view())?;
    if let Some(document) = &args.into {
        let folder = args.folder.display().to_string();
        let command = format!("echobench table {}", folder.trim_end_matches('/'));
        let text = stored.tables(Style::Markdown);
        splice(document, "table", &command, &text)?;
        return Ok(ExitCode::SUCCESS);
    }

    let style = super::style(args.markdown, Style::of_stdout());
    out!("{}", stored.tables(style));
    Ok(ExitCode::SUCCESS)
}
