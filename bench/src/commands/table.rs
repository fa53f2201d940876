//! `echobench table DIR`: the tables of a results folder, from its CSV files alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::awake_note;
use crate::results::{
    BlockRow, SliceRow, SummaryRow, read_blocks, read_record, read_slices, read_summary,
};
use crate::summary::summarize;
use crate::tables::{Objective, Style, tables};

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
    print!("{}{note}", tables(&summary, &blocks, style, args.objective));
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
        .map(|row| (row.section(), row.block))
        .collect();
    slices.retain(|row| known.contains(&(row.section(), row.block)));
    slices
}

/// Puts text, and the command that makes it, between the markers `<!-- NAME -->` and `<!-- /NAME -->`
/// of a document.
pub(super) fn splice(document: &Path, name: &str, command: &str, text: &str) -> anyhow::Result<()> {
    let path = document.display();
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let whole = fs::read_to_string(document).with_context(|| format!("cannot read {path}"))?;
    let Some((before, rest)) = whole.split_once(&begin) else {
        bail!("{path} has no line {begin}")
    };
    let Some((_, after)) = rest.split_once(&end) else {
        bail!("{path} has no line {end}")
    };
    let text = format!("{before}{begin}\n`{command}`\n\n{text}\n{end}{after}");
    fs::write(document, text).with_context(|| format!("cannot write {path}"))
}
