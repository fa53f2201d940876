//! `echobench table DIR`: the tables of a results folder, from its CSV files alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::awake_note;
use crate::out;
use crate::render::Style;
use crate::render::splice::splice;
use crate::results::summary::summarize;
use crate::results::{
    BlockRow, SliceRow, SummaryRow, read_blocks, read_record, read_slices, read_summary,
};
use crate::run::sweep::Objective;
use crate::run::tables::tables;

/// The options of `table`.
#[derive(Args)]
pub struct TableArgs {
    /// A results folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// What to look for in a rate sweep: the highest rate at which a percentile of latency keeps
    /// within a time
    #[arg(long, value_name = "pNN=TIME", default_value_t)]
    objective: Objective,

    /// Draw the tables in Markdown
    #[arg(long)]
    markdown: bool,

    /// Replace the text between the markers `<!-- table -->` and `<!-- /table -->` of this document
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

pub(super) fn run(args: &TableArgs) -> anyhow::Result<ExitCode> {
    let (summary, blocks) = read_tables(&args.folder)?;
    let note = read_record(&args.folder).map_or("", |record| awake_note(&record.environment));
    if let Some(document) = &args.into {
        let text = tables(&summary, &blocks, Style::Markdown, args.objective) + note;
        let folder = args.folder.display().to_string();
        let command = format!("echobench table {}", folder.trim_end_matches('/'));
        splice(document, "table", &command, &text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let style = if args.markdown {
        Style::Markdown
    } else {
        Style::of_stdout()
    };
    out!("{}{note}", tables(&summary, &blocks, style, args.objective));
    Ok(ExitCode::SUCCESS)
}

/// The summary and the blocks of a results folder; of a run that was killed, the summary of what it
/// had finished.
pub(super) fn read_tables(folder: &Path) -> anyhow::Result<(Vec<SummaryRow>, Vec<BlockRow>)> {
    let summary = read_summary(folder)?;
    let blocks = read_blocks(folder)?;
    let summary = match summary {
        Some(summary) => summary,
        None => summarize(&finished(read_slices(folder)?, &blocks), &blocks),
    };
    Ok((summary, blocks))
}

/// The slices whose block was finished.
fn finished(mut slices: Vec<SliceRow>, blocks: &[BlockRow]) -> Vec<SliceRow> {
    let known: BTreeSet<_> = blocks
        .iter()
        .map(|row| (row.condition(), row.block))
        .collect();
    slices.retain(|row| known.contains(&(row.condition(), row.block)));
    slices
}
